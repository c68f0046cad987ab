"""Sources of a video: a path, a URL, bytes, a file object or a value of `datasets`; opened safely."""

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
    """Disable FFmpeg logging to Python before anything is decoded.

    PyAV's log callback acquires the GIL in decoder threads. A decoder that is freed waits for its threads while it
    owns the GIL, which is a deadlock (PyAV issue 751). PyAV itself installs no callback, but torchvision does on
    import, at any time. The errors and warnings of this module do not depend on the log.

    Example:
        >>> import av.logging
        >>> av.logging.set_level(av.logging.ERROR)
        >>> silence_ffmpeg()
        >>> av.logging.get_level() is None
        True
    """
    av.logging.set_level(None)


class MediaError(ValueError):
    """Error for a file that cannot be read as a video: file name, reason and remedy in one line."""


class MediaLengthError(MediaError):
    """Error for a file that is longer than the limit.

    Args:
        name: name of the file.
        duration: seconds found so far; the file may be longer.
        limit: limit in seconds.
    """

    def __init__(self, name: str, duration: float, limit: float) -> None:
        super().__init__(
            f"{name}: lasts {duration:.1f} s, longer than the limit of {limit:.1f} s; cut it or raise max_duration_s"
        )
        self.name, self.duration, self.limit = name, duration, limit

    def __reduce__(self) -> tuple[type[MediaLengthError], tuple[str, float, float]]:
        return type(self), (self.name, self.duration, self.limit)


class Source:
    """A video source that can be opened any number of times, with its name for errors.

    Args:
        source: path of the file; a URL that fsspec can open; its bytes; a binary file object (read from its beginning,
            left open); a value of a `Video` or `Audio` column of `datasets`, decoded or not.

    Raises:
        FileNotFoundError: if there is no such file.
        MediaError: if it is empty, not a file, or cannot be fetched.
        TypeError: if it has another type.
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
                if size is None:  # unknown to the server, so the file cannot be read in ranges
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
        """Open the demuxer at the beginning of the file.

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
        """Open a target for PyAV."""
        if self._file is not None:
            self._file.seek(0)
            yield self._file
        elif self._url is not None:
            with self._fetched() as file:
                yield file
        else:
            # "file:" keeps FFmpeg from parsing the beginning of a name such as "part 1: rain.mp4" as a protocol.
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
        except FileNotFoundError as error:  # for HTTP, fsspec raises this for any failure
            reason = f" ({_one_line(error.__cause__)})" if error.__cause__ else ""
            raise FileNotFoundError(f"{self.name}: no such file{reason}") from None
        except MediaError:
            raise
        except (ImportError, ValueError) as error:  # unknown protocol, or its package is missing
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
    """Return the path or bytes of a `datasets` value, and its name; other sources unchanged.

    Example:
        >>> _unwrap({"path": "a.mp4", "bytes": b"..."}), _unwrap({"path": "a.mp4", "bytes": None})
        ((b'...', 'a.mp4'), ('a.mp4', None))
    """
    encoded = getattr(source, "_hf_encoded", source)  # decoded values keep their encoded source
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
    """Return the video stream and the audio stream that a player would select."""
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    picture = best if best in pictures else next(iter(pictures), None)
    return picture, container.streams.best("audio")
