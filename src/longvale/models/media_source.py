"""A video file: its sources, opened safely, and its packets on one clock, bounded by the contents of the file.

A source is a path, a URL, bytes, a file object or a value of `datasets`.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import av
import av.logging
from av.container import InputContainer
from av.stream import Disposition, Stream

from .media_formats import DEMUXERS

#: `https://...`, `hf://...`, also chained as `zip://video.mp4::https://...`.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:://|::)")

#: A stream whose clock jumps back by more than this many seconds starts a new recording.
_BACK_S = 1.0

#: In broadcast formats, so does a stream whose clock jumps ahead of all packets so far by more than this many seconds
#: (as FFmpeg's `dts_delta_threshold`). In other formats such a jump is a pause.
_AHEAD_S = 10.0
_BROADCAST = frozenset({"mpegts", "mpeg"})

#: Formats whose times come from an index; their edit lists may show a part repeatedly.
_INDEXED = frozenset({"mov", "avi"})

#: Limits of the buffer that is used until all streams have reached the next recording: packets, bytes.
_MAX_HELD, _MAX_HELD_BYTES = 2000, 32 << 20

#: A packet covers at most this many seconds; the rest of the time is empty. Limit of the total empty time, which is
#: filled with silence.
_HOLDS_S, _MAX_EMPTY_S = 10.0, 3600.0


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
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    video = best if best in videos else next(iter(videos), None)
    return video, container.streams.best("audio")


def is_broadcast(container: InputContainer) -> bool:
    """Return whether the format is a broadcast format, whose header does not contain the duration."""
    return not _BROADCAST.isdisjoint(container.format.name.split(","))


# --- recordings that were joined ------------------------------------------------------------------------------------


@dataclass
class _Place:
    """Position of a stream, in seconds on the clock of its current recording."""

    tick_s: float
    recording: int
    first_s: float | None = None  # earliest presentation time
    last_s: float | None = None  # decoding time of its last packet
    end_s: float = float("-inf")
    settled: bool = False  # no later packet is presented before `first_s`


class Clock:
    """Packet reader whose times never go back from one recording to the next.

    Recordings that were joined end to end (`cat a.ts b.ts`), and broadcasts whose clock was reset, are read one after
    the other. If the clock of a stream jumps, its packets are buffered until the other streams have jumped too, so that
    sound and frames of a recording stay synchronised.

    Args:
        container: file, at its beginning.
        streams: streams to track; packets of others get times on the clock of the latest recording.
    """

    def __init__(self, container: InputContainer, streams: Iterable[Stream | None]) -> None:
        self._container = container
        self._wanted = {stream.index for stream in streams if stream is not None}
        self._jumps_back = _INDEXED.isdisjoint(container.format.name.split(","))
        self._jumps_ahead = is_broadcast(container)
        self._places: dict[int, _Place] = {}
        self._offsets_s = [0.0]  # added to the clock of each recording
        self._held: list[av.Packet] = []  # buffered packets of the next recording
        self._held_bytes = 0
        self._joint_s = 0.0  # end of the streams that have reached the next recording

    @property
    def recordings(self) -> int:
        """Number of recordings found so far."""
        return len(self._offsets_s)

    def packets(self) -> Iterator[av.Packet]:
        """Yield the packets of all streams; those of one stream in file order."""
        if not self._jumps_back:
            yield from _demux(self._container)
            return
        for packet in _demux(self._container):
            if packet.stream_index not in self._wanted:
                yield self._shifted(packet, float(packet.time_base), self._offsets_s[-1])
                continue
            place = self._places.get(packet.stream_index)
            if place is None:
                newest = self.recordings - (not self._held)
                place = self._places[packet.stream_index] = _Place(float(packet.time_base), newest)
            elif self._leaves(packet, place):
                if self._held and place.recording == self.recordings:  # the previous new recording was short
                    yield from self._release()
                self._move(packet, place)
            _note(packet, place)
            if place.recording < self.recordings:
                yield self._shifted(packet, place.tick_s, self._offsets_s[place.recording])
            else:
                self._held.append(packet)
                self._held_bytes += packet.size
                if self._has_begun():
                    yield from self._release()
        yield from self._release()

    def _leaves(self, packet: av.Packet, place: _Place) -> bool:
        """Return whether a packet no longer belongs to the current recording of its stream."""
        if packet.dts is None or place.last_s is None:
            return False
        time_s = packet.dts * place.tick_s
        if time_s >= place.last_s:
            return self._jumps_ahead and time_s > self._front(place.recording) + _AHEAD_S
        return time_s < place.last_s - _BACK_S or self._fits_newest(time_s, place)

    def _fits_newest(self, time_s: float, place: _Place) -> bool:
        """Return whether other streams are in a newer recording whose times are close to this one."""
        newest = self.recordings - (not self._held)
        return place.recording != newest and abs(time_s - self._front(newest)) < _AHEAD_S

    def _front(self, recording: int) -> float:
        return max((p.end_s for p in self._places.values() if p.recording == recording), default=float("-inf"))

    def _move(self, packet: av.Packet, place: _Place) -> None:
        """Move a stream to the recording of the others, or to a new one that begins with this packet."""
        if not self._held and self._fits_newest(packet.dts * place.tick_s, place):
            place.recording = self.recordings - 1
        else:
            ended_s = place.end_s + self._offsets_s[place.recording]
            self._joint_s = max(self._joint_s, ended_s) if self._held else ended_s
            place.recording = self.recordings
        place.first_s, place.last_s, place.end_s, place.settled = None, None, float("-inf"), False

    def _has_begun(self) -> bool:
        """Return whether the first presentation time of the next recording is known, or the buffer is full."""
        return (
            all(place.recording == self.recordings and place.settled for place in self._places.values())
            or len(self._held) >= _MAX_HELD
            or self._held_bytes >= _MAX_HELD_BYTES
        )

    def _release(self) -> Iterator[av.Packet]:
        if not self._held:
            return
        first_s = min(p.first_s for p in self._places.values() if p.recording == self.recordings)
        self._offsets_s.append(self._joint_s - first_s)
        held, self._held, self._held_bytes = self._held, [], 0
        for packet in held:
            yield self._shifted(packet, self._places[packet.stream_index].tick_s, self._offsets_s[-1])

    @staticmethod
    def _shifted(packet: av.Packet, tick_s: float, offset_s: float) -> av.Packet:
        if offset_s:
            ticks = round(offset_s / tick_s)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        return packet


def _note(packet: av.Packet, place: _Place) -> None:
    shown, decoded = packet.pts, packet.dts
    if shown is None:
        shown = decoded
    if shown is None:
        return
    shown_s = shown * place.tick_s
    place.first_s = shown_s if place.first_s is None else min(place.first_s, shown_s)
    place.end_s = max(place.end_s, shown_s + (packet.duration or 0) * place.tick_s)
    if decoded is None:
        place.settled = True
    else:
        place.last_s = decoded * place.tick_s
        place.settled = place.last_s >= place.first_s


def _demux(container: InputContainer) -> Iterator[av.Packet]:
    try:
        for packet in container.demux():
            if packet.size or packet.dts is not None:  # otherwise it is PyAV's marker for the end of a stream
                yield packet
    except IndexError:
        # If a stream appears during reading, as in MPEG-TS, PyAV 18 fails at the end-of-stream markers.
        return


# --- contents of the file -------------------------------------------------------------------------------------------


class Reach:
    """Record of how far each stream can be read, and of how much time of a file is empty.

    Args:
        container: container of the file.
        name: name of the file, for errors.
        video: video stream, if any.
        audio: audio stream, if any. Without one, empty time costs no memory and is accepted.
    """

    def __init__(self, container: InputContainer, name: str, video: Stream | None, audio: Stream | None) -> None:
        self._time_bases = {stream.index: float(stream.time_base) for stream in container.streams if stream.time_base}
        self._wanted = {stream.index for stream in (video, audio) if stream is not None and audio is not None}
        self._name = name
        self._front_s: float | None = None  # latest start of all packets so far
        self._empty_s = 0.0
        self.ends_s: dict[int, float] = {}

    @property
    def end_s(self) -> float:
        return max(self.ends_s.values(), default=0.0)

    def add(self, packet: av.Packet) -> None:
        """Record a packet.

        Raises:
            MediaError: as [`reach`].
        """
        ticks = packet.dts if packet.pts is None else packet.pts
        if ticks is not None and not packet.is_discard:
            index = packet.stream_index
            tick_s = self._time_bases.get(index, 0.0)
            end_s = (ticks + (packet.duration or 0)) * tick_s
            self.ends_s[index] = max(self.ends_s.get(index, 0.0), end_s)
            if index in self._wanted:
                self.reach(ticks * tick_s)

    def reach(self, time_s: float) -> None:
        """Record that the file extends to this time of its clock.

        Raises:
            MediaError: if it contains neither video nor sound for more than an hour in total.
        """
        front_s = time_s if self._front_s is None else self._front_s
        if time_s > front_s + _HOLDS_S and self._wanted:
            self._empty_s += time_s - front_s - _HOLDS_S
            if self._empty_s > _MAX_EMPTY_S:
                raise MediaError(
                    f"{self._name}: its clock jumps from {front_s:.1f} s to {time_s:.1f} s, and it holds nothing in "
                    "between; cut out the part that you need"
                )
        self._front_s = max(front_s, time_s)
