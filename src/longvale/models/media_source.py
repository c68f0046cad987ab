"""Where a video comes from: a path, a URL, bytes, a file object or a value of `datasets`; opened safely."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import av
import av.logging
from av.container import InputContainer
from av.stream import Disposition, Stream

from .media_formats import DEMUXERS

#: `https://...`, `hf://...`, also chained as `zip://video.mp4::https://...`.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:://|::)")


def silence_ffmpeg() -> None:
    """Keep FFmpeg from logging to Python, before anything is decoded.

    PyAV's log callback takes the GIL in the decoder's threads. A decoder that is freed waits for its threads with the
    GIL in hand: neither goes on (PyAV issue 751). PyAV itself installs no callback, but torchvision does when it is
    imported, whenever that is. What is wrong with a file is told by the errors and warnings here, which do not need it.

    Example:
        >>> import av.logging
        >>> av.logging.set_level(av.logging.ERROR)
        >>> silence_ffmpeg()
        >>> av.logging.get_level() is None
        True
    """
    av.logging.set_level(None)


class MediaError(ValueError):
    """A file that cannot be read as a video, with the file's name, what is wrong and a remedy in one line."""


class MediaLengthError(MediaError):
    """A file that is longer than asked for.

    Args:
        name: of the file.
        duration: seconds that were found; there may be more.
        limit: in seconds.
    """

    def __init__(self, name: str, duration: float, limit: float) -> None:
        super().__init__(
            f"{name}: lasts {duration:.1f} s, longer than the limit of {limit:.1f} s; cut it or raise max_duration_s"
        )
        self.name, self.duration, self.limit = name, duration, limit

    def __reduce__(self) -> tuple[type[MediaLengthError], tuple[str, float, float]]:
        return type(self), (self.name, self.duration, self.limit)


class Source:
    """A file that can be opened as often as needed, with the name that errors give it.

    Args:
        source: path of the file; a URL that fsspec can open; its bytes; a binary file object (read from its beginning,
            left open); a value of a column `Video` or `Audio` of `datasets`, decoded or not.

    Raises:
        FileNotFoundError: if there is no such file.
        MediaError: if it is empty, not a file, or cannot be fetched.
        TypeError: if it is none of these.
    """

    def __init__(self, source: Any) -> None:
        source, name = _unwrap(source)
        self._url = self._file = None
        if isinstance(source, bytes | bytearray | memoryview):
            self.name, self._file, size = name or "<bytes>", io.BytesIO(source), len(source)
        elif isinstance(source, str) and _URL.match(source) and not os.path.exists(source):
            self.name = self._url = source
            with self._fetched() as file:
                size = getattr(file, "size", None)
                if size is None:  # the server does not say, so it cannot be read in parts
                    self._file = io.BytesIO(file.read())
                    size = len(self._file.getbuffer())
        elif isinstance(source, str | os.PathLike):
            self.name = os.fspath(source)
            size = _size_of_file(self.name)
        elif callable(getattr(source, "read", None)):
            given = getattr(source, "name", None)
            self.name = given if isinstance(given, str) else "<file object>"
            seekable = callable(getattr(source, "seekable", None)) and source.seekable()
            self._file = source if seekable else io.BytesIO(source.read())
            size = self._file.seek(0, io.SEEK_END)
        else:
            raise TypeError(
                "source must be a path, a URL, bytes, a binary file object or a Video or Audio value of datasets, "
                f"not {type(source).__name__}"
            )
        if size == 0:
            raise MediaError(f"{self.name}: the file is empty; copy or download it again")

    @contextmanager
    def open(self) -> Iterator[InputContainer]:
        """The demuxer at the begin of the file.

        Raises:
            MediaError: if it is not a media file, or reading it fails.
        """
        silence_ffmpeg()
        with self._target() as target:
            try:
                container = av.open(target, "r", options={"format_whitelist": DEMUXERS}, metadata_errors="replace")
            except av.error.PermissionError:
                raise MediaError(f"{self.name}: may not be read; change its permissions") from None
            except av.FFmpegError as error:
                raise MediaError(self._refusal(error)) from None
            with container:
                yield container

    @contextmanager
    def _target(self) -> Iterator[str | BinaryIO]:
        """What PyAV can open."""
        if self._file is not None:
            self._file.seek(0)
            yield self._file
        elif self._url is not None:
            with self._fetched() as file:
                yield file
        else:
            # "file:" keeps FFmpeg from taking the begin of a name such as "part 1: rain.mp4" for a protocol.
            yield f"file:{os.path.abspath(self.name)}"

    @contextmanager
    def _fetched(self) -> Iterator[BinaryIO]:
        try:
            import fsspec
        except ImportError:
            raise MediaError(f"{self.name}: reading URLs needs fsspec: pip install fsspec") from None
        try:
            with fsspec.open(self._url, "rb") as file:
                yield file
        except FileNotFoundError as error:  # for HTTP, fsspec says so whatever the reason
            reason = f" ({_one_line(error.__cause__)})" if error.__cause__ else ""
            raise FileNotFoundError(f"{self.name}: no such file{reason}") from None
        except MediaError:
            raise
        except (ImportError, ValueError) as error:  # no such protocol, or one whose package is missing
            raise MediaError(f"{self.name}: cannot be opened ({_one_line(error)})") from error
        except _network_errors() as error:
            raise MediaError(f"{self.name}: cannot be fetched ({_one_line(error)}); try again") from error

    def _refusal(self, error: av.FFmpegError) -> str:
        with self._target() as target:
            if isinstance(target, str):
                with open(self.name, "rb") as file:
                    head = file.read(12)
            else:
                target.seek(0)
                head = target.read(12)
        if head[4:8] == b"ftyp":
            return f"{self.name}: truncated: the index at the end of an MP4 file is missing; copy or download it again"
        reason = (error.strerror or str(error)).lower()
        return f"{self.name}: not a media file ({reason}); give a video such as .mp4 or .webm"


def _unwrap(source: Any) -> tuple[Any, str | None]:
    """What a value of `datasets` holds, and the name it has there; other sources as they are.

    Example:
        >>> _unwrap({"path": "a.mp4", "bytes": b"..."}), _unwrap({"path": "a.mp4", "bytes": None})
        ((b'...', 'a.mp4'), ('a.mp4', None))
    """
    encoded = getattr(source, "_hf_encoded", source)  # decoded values keep what they were decoded from
    if isinstance(encoded, Mapping) and ("path" in encoded or "bytes" in encoded):
        path, content = encoded.get("path"), encoded.get("bytes")
        if content is None and path is None:
            raise MediaError("<datasets value>: has neither path nor bytes; leave out rows without a video")
        return (path, None) if content is None else (content, path)
    return source, None


def _size_of_file(name: str) -> int:
    if not os.path.exists(name):
        raise FileNotFoundError(f"{name}: no such file")
    if not os.path.isfile(name):
        raise MediaError(f"{name}: is not a file; give the path of one video file")
    return os.path.getsize(name)


def _network_errors() -> tuple[type[Exception], ...]:
    try:
        from aiohttp import ClientError
    except ImportError:
        return (OSError,)
    return OSError, ClientError


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def find_streams(container: InputContainer) -> tuple[Stream | None, Stream | None]:
    """The stream of pictures and the stream of sound, as a player would choose them."""
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    picture = best if best in pictures else next(iter(pictures), None)
    return picture, container.streams.best("audio")
