"""One video file -> frames at given times and one mono waveform, on one clock.

The file is walked by packets. The first walk decodes the sound and notes when each picture is shown, which gives the
real duration, whatever the header says. The second walk decodes pictures, and only from the key frame before a wanted
one up to it. So no packet is decoded twice, frames are exact by presentation time (variable frame rates included), and
memory holds the chosen frames and the waveform, nothing else.

Second 0 is where the first picture or the first sound sample is presented, whichever is earlier.
"""

from __future__ import annotations

import io
import os
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, get_args

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

Decode = Literal["strict", "official"]

#: Published features hold 100 frames a video (LongVALE, section 5), and its audio towers hear 16 kHz.
NUM_FRAMES = 100
SAMPLING_RATE = 16_000

#: Two hours: twelve times the longest video of the benchmark, a waveform of 460 MB.
MAX_DURATION_S = 7200.0

#: The demuxers that may open a file. Left out are those that follow a file's text to other files or to the network
#: (concat, hls, dash, ...) and those that draw text or single images.
_FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,rm,mxf,nut,dv,wav,mp3,aac,ac3,flac,aiff,amr,caf,w64"

#: Formats whose header states the duration. Elsewhere FFmpeg estimates it, so that it says nothing about a cut file.
_FORMATS_WITH_DURATION = frozenset({"mov", "matroska", "avi", "wav"})

#: A file is truncated when more than this is missing of what its header claims: seconds, share of the claim.
_TRUNCATED_S, _TRUNCATED_SHARE = 1.0, 0.02

#: Up to this share of a stream's packets may be damaged before it is refused.
_DAMAGED_SHARE = 0.1

#: Sound that starts this much off the time it should by count of samples has a gap; less is rounding of timestamps.
_SOUND_GAP_S = 0.1

#: Times asked for may lie this much after the end, because published durations are rounded.
_AFTER_END_S = 0.5

#: Presentation times are multiples of a time base, at least a hundred times coarser than this.
_EPSILON_S = 1e-7


class MediaError(ValueError):
    """A file that cannot be read as a video, with the file's name, what is wrong and a remedy in one line."""


@dataclass(frozen=True)
class Media:
    """What [`read_media`] found in a file.

    Args:
        duration: seconds from the first picture or sound to the end of the last.
        frames: uint8 [F, H, W, 3], RGB, upright; None when the file has no picture.
        frame_times: float64 [F], when each of `frames` begins to be shown, in seconds; empty without pictures.
        waveform: float32 [round(duration * sampling_rate)], mono; sample k is what sounds at k / sampling_rate seconds,
            with silence where the sound starts late, pauses or ends early. None when the file has no sound.
        sampling_rate: of `waveform` in Hz.
        warnings: damage that was passed over, one line each.
    """

    duration: float
    frames: np.ndarray | None = field(repr=False)
    frame_times: np.ndarray = field(repr=False)
    waveform: np.ndarray | None = field(repr=False)
    sampling_rate: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class MediaInfo:
    """What a file's header says, see [`probe`].

    Args:
        duration: seconds, None when the header does not say. It is a claim: [`read_media`] measures.
        has_video: there is a stream of pictures (a cover image is none).
        has_audio: there is a stream of sound.
    """

    duration: float | None
    has_video: bool
    has_audio: bool


def probe(source: str | os.PathLike | bytes | BinaryIO) -> MediaInfo:
    """Read a file's header only.

    Args:
        source: as for [`read_media`].

    Raises:
        FileNotFoundError: if there is no such file.
        MediaError: if it is empty or not a media file.
    """
    with _Source(source).open() as container:
        picture, sound = _streams(container)
        duration = container.duration / av.time_base if container.duration else None
        return MediaInfo(duration, picture is not None, sound is not None)


def read_media(
    source: str | os.PathLike | bytes | BinaryIO,
    *,
    num_frames: int = NUM_FRAMES,
    frame_times: Sequence[float] | np.ndarray | None = None,
    size: int | None = None,
    sampling_rate: int = SAMPLING_RATE,
    decode: Decode = "strict",
    max_duration_s: float | None = MAX_DURATION_S,
    threads: int | None = None,
) -> Media:
    """Read frames and sound of a video file.

    Args:
        source: path of the file, its bytes, or a binary file object (read from its beginning, left open).
        num_frames: how many frames to choose, see `decode`.
        frame_times: times in seconds to choose frames at instead, in any order. The frame at time t is the last one
            that begins to be shown at t or before; before the first frame it is the first.
        size: length of the shorter side in pixels that frames are scaled to (bicubic, aspect kept); None keeps the
            size of the picture.
        sampling_rate: of the waveform in Hz.
        decode: `strict` cuts the duration into `num_frames` equal parts and takes the frame shown in the middle of
            each; `official` takes those of index `linspace(0, n - 1, num_frames)`, as the published features did.
        max_duration_s: longest video that is accepted; None for no limit.
        threads: of the picture decoder; None for one a core, at most four.

    Raises:
        FileNotFoundError: if there is no such file.
        MediaError: if the file is empty, not a media file, too long, truncated (more than 1 s and 2 % of what its
            header claims is missing), damaged in more than 10 % of a stream's packets, of no duration, or if it holds
            neither picture nor sound.
        ValueError: if another argument is out of range.

    Example:
        >>> read_media("missing.mp4")
        Traceback (most recent call last):
        FileNotFoundError: missing.mp4: no such file
    """
    _check_arguments(num_frames, size, sampling_rate, decode, threads)
    source = _Source(source)
    warnings: list[str] = []
    with source.open() as container:
        timeline, sound = _scan(container, source.name, sampling_rate, max_duration_s, warnings)

    found = [stream for stream in (timeline, sound) if stream is not None]
    if not found:
        raise MediaError(f"{source.name}: holds neither picture nor sound; give a video file")
    zero = min(stream.start_s for stream in found)
    duration = max(stream.end_s for stream in found) - zero
    if duration <= 0:
        raise MediaError(f"{source.name}: has no duration (0 s); give a video that lasts")
    _check_length(source.name, duration, max_duration_s)

    frames, shown_s = None, np.empty(0)
    if timeline is not None:
        if frame_times is not None:
            wanted = timeline.shown_at(_check_times(frame_times, duration) + zero)
        elif decode == "strict":
            wanted = timeline.shown_at((np.arange(num_frames) + 0.5) / num_frames * duration + zero)
        else:
            wanted = timeline.ticks[np.linspace(0, len(timeline.ticks) - 1, num_frames).astype(int)]
        threads = threads or min(4, os.cpu_count() or 1)
        frames, ticks = _read_pictures(source, timeline, wanted, size, threads, warnings)
        shown_s = ticks * timeline.time_base - zero
    waveform = None if sound is None else sound.waveform(zero, duration)
    return Media(duration, frames, shown_s, waveform, sampling_rate, tuple(warnings))


def _check_arguments(num_frames: int, size: int | None, sampling_rate: int, decode: str, threads: int | None) -> None:
    numbers = {"num_frames": num_frames, "size": size, "sampling_rate": sampling_rate, "threads": threads}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be 1 or more, not {value}")
    if decode not in get_args(Decode):
        raise ValueError(f"decode must be one of {', '.join(get_args(Decode))}, not {decode!r}")


def _check_times(frame_times: Sequence[float] | np.ndarray, duration: float) -> np.ndarray:
    times = np.asarray(frame_times, dtype=np.float64)
    if times.ndim != 1 or not times.size:
        raise ValueError(f"frame_times must be a list of one time or more, not of shape {times.shape}")
    outside = times[~((times >= 0) & (times <= duration + _AFTER_END_S))]
    if outside.size:
        raise ValueError(f"frame_times must lie between 0 and the duration of {duration:.2f} s, not at {outside[0]} s")
    return times


def _check_length(name: str, duration: float, max_duration_s: float | None) -> None:
    if max_duration_s is not None and duration > max_duration_s:
        raise MediaError(
            f"{name}: lasts {duration:.1f} s, longer than the limit of {max_duration_s:.1f} s; "
            "cut it or raise max_duration_s"
        )


# --- opening --------------------------------------------------------------------------------------------------------


class _Source:
    """A file that can be opened as often as needed, with the name that errors give it."""

    def __init__(self, source: str | os.PathLike | bytes | BinaryIO) -> None:
        if isinstance(source, bytes | bytearray | memoryview):
            self.name, self._file, empty = "<bytes>", io.BytesIO(source), len(source) == 0
        elif isinstance(source, str | os.PathLike):
            self.name, self._file = os.fspath(source), None
            if not os.path.exists(source):
                raise FileNotFoundError(f"{self.name}: no such file")
            if not os.path.isfile(source):
                raise MediaError(f"{self.name}: is not a file; give the path of one video file")
            empty = os.path.getsize(source) == 0
        elif callable(getattr(source, "read", None)):
            name = getattr(source, "name", None)
            self.name = name if isinstance(name, str) else "<file object>"
            seekable = callable(getattr(source, "seekable", None)) and source.seekable()
            self._file = source if seekable else io.BytesIO(source.read())
            empty = self._file.seek(0, io.SEEK_END) == 0
        else:
            raise TypeError(f"source must be a path, bytes or a binary file object, not {type(source).__name__}")
        if empty:
            raise MediaError(f"{self.name}: the file is empty; copy or download it again")

    @contextmanager
    def open(self) -> Iterator[InputContainer]:
        """The demuxer at the begin of the file.

        Raises:
            MediaError: if it is not a media file.
        """
        if self._file is None:
            # "file:" keeps FFmpeg from taking the begin of a name such as "part 1: rain.mp4" for a protocol.
            target = f"file:{os.path.abspath(self.name)}"
        else:
            self._file.seek(0)
            target = self._file
        try:
            container = av.open(target, "r", options={"format_whitelist": _FORMATS}, metadata_errors="replace")
        except av.error.PermissionError:
            raise MediaError(f"{self.name}: may not be read; change its permissions") from None
        except av.FFmpegError as error:
            raise MediaError(self._refusal(error)) from None
        with container:
            yield container

    def _refusal(self, error: av.FFmpegError) -> str:
        if self._head()[4:8] == b"ftyp":
            return f"{self.name}: truncated: the index at the end of an MP4 file is missing; copy or download it again"
        reason = (error.strerror or str(error)).lower()
        return f"{self.name}: not a media file ({reason}); give a video such as .mp4 or .webm"

    def _head(self) -> bytes:
        if self._file is not None:
            self._file.seek(0)
            return self._file.read(12)
        with open(self.name, "rb") as file:
            return file.read(12)


def _streams(container: InputContainer) -> tuple[Stream | None, Stream | None]:
    """The stream of pictures and the stream of sound, as a player would choose them."""
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    picture = best if best in pictures else next(iter(pictures), None)
    return picture, container.streams.best("audio")


def _packets(container: InputContainer, *streams: Stream) -> Iterator[av.Packet]:
    """The packets of these streams, or of all, in the order of the file."""
    try:
        for packet in container.demux(*streams):
            if packet.size or packet.dts is not None:  # else PyAV marks the end of a stream by it
                yield packet
    except IndexError:
        # Where a stream turned up on the way, as in MPEG-TS, PyAV 18 counts wrongly when it marks the ends.
        return


# --- first walk: when the pictures are shown, and the sound ---------------------------------------------------------


@dataclass(frozen=True)
class _Timeline:
    """When the pictures of a stream are shown: one entry a packet, in the order of the file; times in ticks."""

    time_base: float  # seconds a tick
    pts: np.ndarray  # int64 [n]
    key: np.ndarray  # bool [n], decoding can begin here
    ticks: np.ndarray  # int64 [m <= n], rising: `pts` without what the edit list hides
    end: int  # when the last picture ends
    exact: bool  # every packet says when its picture is shown
    counted: bool  # none does, as in AVI: the pictures that come out are shown at `ticks`, one after the other

    @property
    def start_s(self) -> float:
        return float(self.ticks[0]) * self.time_base

    @property
    def end_s(self) -> float:
        return self.end * self.time_base

    @classmethod
    def from_packets(cls, stream: Stream, packets: array, exact: bool, counted: bool) -> _Timeline | None:
        """From the flat (pts, duration, is key frame, is shown) of each packet; None when no picture is shown."""
        pts, length, key, shown = np.frombuffer(packets, np.int64).reshape(-1, 4).T
        shown = shown.astype(bool)
        if not shown.any():
            return None
        ticks = np.unique(pts[shown])
        last = length[shown][np.argmax(pts[shown])]
        if last <= 0:
            # Some containers leave out the length of pictures: the last is taken to last as long as the others.
            rate = stream.average_rate
            usual = 1 / (rate * stream.time_base) if rate else 0
            last = round(np.median(np.diff(ticks)) if len(ticks) > 1 else usual)
        return cls(float(stream.time_base), pts, key.astype(bool), ticks, int(ticks[-1] + last), exact, counted)

    def shown_at(self, times_s: np.ndarray) -> np.ndarray:
        """int64 [F]: for each time of the stream's clock the begin of the picture on screen."""
        index = np.searchsorted(self.ticks * self.time_base, times_s + _EPSILON_S, side="right") - 1
        return self.ticks[np.maximum(index, 0)]

    @property
    def everything(self) -> list[tuple[int, int]]:
        """All packets, as [`runs`] gives them."""
        return [(0, len(self.pts) - 1)]

    def runs(self, wanted: np.ndarray) -> list[tuple[int, int]]:
        """Which packets to decode to get the pictures that begin at `wanted`: [first, last] index pairs, rising."""
        if self.counted or not self.exact:
            return self.everything
        keys = np.union1d(np.flatnonzero(self.key), 0)
        packets = np.flatnonzero(np.isin(self.pts, wanted))
        group = np.searchsorted(keys, packets, side="right") - 1
        # Shown before the key frame that it follows in the file: it needs the group before, too.
        group -= (self.pts[packets] < self.pts[keys[group]]) & (group > 0)
        runs: list[tuple[int, int]] = []
        for first, last in sorted(zip(keys[group].tolist(), packets.tolist(), strict=True)):
            if runs and first <= runs[-1][1] + 1:
                runs[-1] = (runs[-1][0], max(runs[-1][1], last))
            else:
                runs.append((first, last))
        return runs


class _Decoder:
    """The decoder of a stream, which passes over damaged packets and counts them."""

    def __init__(self, stream: Stream, name: str, threads: int) -> None:
        self._context = stream.codec_context
        self._context.thread_type = "AUTO"
        self._context.thread_count = threads
        self._name, self._what = name, "picture" if stream.type == "video" else "sound"
        self._packets = self._damaged = 0

    def decode(self, packet: av.Packet | None) -> list[AudioFrame] | list[VideoFrame]:
        """What comes out after this packet went in; None gets out what is left and makes the decoder ready to go on."""
        self._packets += packet is not None
        try:
            frames = self._context.decode(packet)
        except av.error.EOFError:
            frames = []
        except av.FFmpegError:
            self._damaged += 1
            frames = []
        if packet is None:
            self._context.flush_buffers()
        self._damaged += sum(frame.is_corrupt for frame in frames)
        return frames

    def damage(self) -> list[str]:
        """Warnings about what was passed over.

        Raises:
            MediaError: if it was too much.
        """
        if not self._damaged:
            return []
        message = f"the {self._what} is damaged in {self._damaged} of {self._packets} packets"
        if self._damaged > _DAMAGED_SHARE * self._packets:
            raise MediaError(f"{self._name}: {message}; copy or download the file again")
        return [message]


class _Sound:
    """Collects the sound of a stream as mono segments at one sampling rate, each with the time at which it starts."""

    def __init__(self, stream: Stream, name: str, sampling_rate: int, max_duration_s: float | None) -> None:
        self._time_base = float(stream.time_base)
        self._decoder = _Decoder(stream, name, threads=1)
        self._name, self._rate, self._max_duration_s = name, sampling_rate, max_duration_s
        self._segments: list[tuple[float, list[np.ndarray]]] = []
        self._resampler: AudioResampler | None = None
        self._format: tuple[str, str, int] | None = None
        self._next_s = 0.0  # when the next frame is due
        self._packet_end_s: float | None = None

    @property
    def found(self) -> bool:
        return bool(self._segments)

    @property
    def start_s(self) -> float:
        return self._segments[0][0]

    @property
    def end_s(self) -> float:
        """When the last packet ends: the decoder's last frame also holds the encoder's padding."""
        return self._next_s if self._packet_end_s is None else self._packet_end_s

    def add(self, packet: av.Packet) -> None:
        if packet.pts is not None and packet.duration:
            self._packet_end_s = (packet.pts + packet.duration) * self._time_base
        for frame in self._decoder.decode(packet):
            self._add_frame(frame)

    def close(self) -> list[str]:
        """Take what is left in the decoder; returns warnings. Raises MediaError if the sound is too damaged."""
        for frame in self._decoder.decode(None):
            self._add_frame(frame)
        self._flush()
        return self._decoder.damage()

    def waveform(self, zero_s: float, duration: float) -> np.ndarray:
        """float32 [round(duration * rate)] from `zero_s` of the stream's clock on, silent where nothing sounds."""
        waveform = np.zeros(round(duration * self._rate), np.float32)
        for start_s, chunks in self._segments:
            begin = round((start_s - zero_s) * self._rate)
            for chunk in chunks:
                part = waveform[max(begin, 0) : max(begin + len(chunk), 0)]
                part[:] = chunk[max(-begin, 0) :][: len(part)]
                begin += len(chunk)
        return waveform

    def _add_frame(self, frame: AudioFrame) -> None:
        start_s = self._next_s if frame.pts is None else frame.pts * self._time_base
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._format or abs(start_s - self._next_s) > _SOUND_GAP_S:
            self._flush()
            self._resampler, self._format = _mono_resampler(self._rate), form
            self._segments.append((start_s, []))
            self._next_s = start_s
        self._next_s += frame.samples / frame.sample_rate
        _check_length(self._name, self._next_s - self.start_s, self._max_duration_s)
        frame.pts = None  # a segment has no gaps: samples follow each other by count
        self._keep(frame)

    def _keep(self, frame: AudioFrame | None) -> None:
        self._segments[-1][1].extend(chunk.to_ndarray()[0] for chunk in self._resampler.resample(frame))

    def _flush(self) -> None:
        if self._resampler is not None:
            self._keep(None)


def _mono_resampler(sampling_rate: int) -> AudioResampler:
    # rematrix_maxval=1 averages the channels. Without it FFmpeg adds them up, at .7 each, in floats beyond 1.
    options = {"rematrix_maxval": "1"}
    return AudioResampler("flt", "mono", sampling_rate, frame_size=sampling_rate, options=options)


def _scan(
    container: InputContainer, name: str, sampling_rate: int, max_duration_s: float | None, warnings: list[str]
) -> tuple[_Timeline | None, _Sound | None]:
    """Walk through the packets: note when pictures are shown, decode the sound."""
    picture, sound = (_with_decoder(stream, warnings) for stream in _streams(container))
    heard = None if sound is None else _Sound(sound, name, sampling_rate, max_duration_s)
    packets, exact = array("q"), True
    counted = container.format.name == "avi"
    ends_s: dict[int, float] = {}  # how far each stream can be read
    time_bases = {stream.index: float(stream.time_base) for stream in container.streams if stream.time_base}
    try:
        for packet in _packets(container):
            index, duration = packet.stream_index, packet.duration or 0
            ticks = packet.dts if packet.pts is None or counted else packet.pts
            if ticks is not None and not packet.is_discard:
                ends_s[index] = max(ends_s.get(index, 0.0), (ticks + duration) * time_bases.get(index, 0.0))
            if picture is not None and index == picture.index:
                if ticks is None:
                    ticks = sum(packets[-4:-2])  # when the picture before it ends
                packets.extend((ticks, duration, packet.is_keyframe, not packet.is_discard))
                exact &= packet.pts is not None
            elif sound is not None and index == sound.index:
                heard.add(packet)
    except av.FFmpegError as error:
        warnings.append(f"reading stopped at {max(ends_s.values(), default=0.0):.1f} s: {error.strerror}")
    _check_truncated(container, name, (picture, sound), ends_s)
    if heard is not None:
        warnings += heard.close()
        heard = heard if heard.found else None
    timeline = None if picture is None else _Timeline.from_packets(picture, packets, exact, counted)
    return timeline, heard


def _with_decoder(stream: Stream | None, warnings: list[str]) -> Stream | None:
    if stream is not None and stream.codec_context is None:
        warnings.append(f"stream {stream.index} ({stream.type}) is left out: this FFmpeg has no decoder for its format")
        return None
    return stream


def _check_truncated(
    container: InputContainer, name: str, streams: Sequence[Stream | None], ends_s: dict[int, float]
) -> None:
    """Refuse a file of which much less can be read than its header claims."""
    if _FORMATS_WITH_DURATION.isdisjoint(container.format.name.split(",")):
        return
    claims = []  # (claimed end, claimed length, readable end) in seconds
    for stream in streams:
        if stream is not None and stream.duration:
            end = ((stream.start_time or 0) + stream.duration) * stream.time_base
            claims.append((float(end), float(stream.duration * stream.time_base), ends_s.get(stream.index, 0.0)))
    if not claims and container.duration:
        # Matroska states one duration for all streams, and counts it from 0 even if they start later.
        duration = container.duration / av.time_base
        claims.append((duration, duration, max(ends_s.values(), default=0.0)))
    for end, length, readable in claims:
        if end - readable > max(_TRUNCATED_S, _TRUNCATED_SHARE * length):
            raise MediaError(
                f"{name}: truncated: {readable:.1f} s can be read of the {end:.1f} s that its header claims; copy or "
                "download it again, or keep what is there with: ffmpeg -i FILE -c copy REPAIRED"
            )


# --- second walk: the wanted pictures -------------------------------------------------------------------------------


def _read_pictures(
    source: _Source, timeline: _Timeline, wanted: np.ndarray, size: int | None, threads: int, warnings: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [F, H, W, 3] of the pictures that begin at `wanted` [F] ticks, and when those found begin [F]."""
    frames, found, decoder = _decode_pictures(source, timeline, timeline.runs(wanted), wanted, size, threads)
    if not np.array_equal(found, wanted):
        # Not every key frame is one to begin at: with intra refresh a picture is whole only some frames later.
        del frames
        frames, found, decoder = _decode_pictures(source, timeline, timeline.everything, wanted, size, threads)
    warnings += decoder.damage()
    if frames is None:
        raise MediaError(f"{source.name}: no picture can be decoded; copy or download the file again")
    return frames, found


def _decode_pictures(
    source: _Source,
    timeline: _Timeline,
    runs: list[tuple[int, int]],
    wanted: np.ndarray,
    size: int | None,
    threads: int,
) -> tuple[np.ndarray | None, np.ndarray, _Decoder]:
    """Decode these packets and keep what is on the screen at the times `wanted` [F], in ticks."""
    pending = deque(np.unique(wanted))
    frames, found = None, np.full_like(wanted, -1)
    convert = _Converter(size)
    latest, latest_shown = None, 0

    def keep(frame: VideoFrame, shown: int) -> None:
        nonlocal frames
        rows, image = wanted == pending.popleft(), convert(frame)
        if frames is None:
            frames = np.empty((len(wanted), *image.shape), np.uint8)
        frames[rows], found[rows] = image, shown

    with source.open() as container:
        stream, _ = _streams(container)
        decoder = _Decoder(stream, source.name, threads)
        for count, frame in enumerate(_play(container, stream, decoder, runs)):
            if timeline.counted:
                shown = timeline.ticks[min(count, len(timeline.ticks) - 1)]
            else:
                shown = latest_shown if frame.pts is None else frame.pts
            while pending and pending[0] < shown:
                # Where the wanted picture itself is damaged, the one before it stays on the screen.
                keep(*((frame, shown) if latest is None else (latest, latest_shown)))
            latest, latest_shown = frame, shown
        while pending and latest is not None:
            keep(latest, latest_shown)
    return frames, found, decoder


def _play(
    container: InputContainer, stream: Stream, decoder: _Decoder, runs: list[tuple[int, int]]
) -> Iterator[VideoFrame]:
    """Decode these packets of the stream and no others; frames come in the order of showing."""
    runs = deque(runs)
    try:
        for index, packet in enumerate(_packets(container, stream)):
            if index >= runs[0][0]:
                yield from decoder.decode(packet)
            if index == runs[0][1]:
                yield from decoder.decode(None)
                runs.popleft()
                if not runs:
                    return
    except av.FFmpegError:
        # The first walk met the same break, warned of it and knew of nothing behind it.
        yield from decoder.decode(None)


class _Converter:
    """Turns decoded pictures into upright RGB arrays, all of the shape that the first one gives."""

    def __init__(self, size: int | None) -> None:
        self._size = size
        self._reformatter = VideoReformatter()  # keeps the tables of the scaler from frame to frame
        self._shape: tuple[int, int] | None = None  # width, height before turning
        self._matrix: np.ndarray | None = None

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """uint8 [H, W, 3]."""
        if self._shape is None:
            self._shape = _scaled(frame.width, frame.height, self._size)
            self._matrix = _display_matrix(frame)
        width, height = self._shape
        image = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=Interpolation.BICUBIC)
        return _upright(image.to_ndarray(), self._matrix)


def _scaled(width: int, height: int, size: int | None) -> tuple[int, int]:
    """Width and height with the shorter side at `size`, the longer one rounded down as CLIP's image processor does."""
    if size is None:
        return width, height
    return (size, int(size * height / width)) if width <= height else (int(size * width / height), size)


def _display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """[[a, b], [c, d]] of the display matrix, by which a point (x, y) is shown at (ax + cy, bx + dy)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]


def _upright(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Turn and mirror a picture [H, W, 3] as its display matrix says, by quarter turns.

    Example:
        >>> _upright(np.array([[[1], [2]]]), np.array([[0, -65536], [65536, 0]]))[..., 0]
        array([[2],
               [1]])
    """
    if matrix is None:
        return image
    (a, b), (c, d) = matrix.tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, rows, columns = image.swapaxes(0, 1), b, c
    else:
        rows, columns = d, a
    return image[:: -1 if rows < 0 else 1, :: -1 if columns < 0 else 1]
