"""Media reader: one video file -> frames at given times and one mono waveform, on one clock.

The packets of the file are read in one pass. Sound is decoded during the pass, and so are the frames that will be
needed according to the duration in the header (see `media_frames.py`). After the pass, the presentation time of each
frame and the real duration are known. If they change the selection, the missing frames are decoded in a second pass.
Frames are therefore exact by presentation time (also with variable frame rates), and memory contains only the selected
frames and the waveform, or one window of it.

Second 0 is the presentation time of the first frame or the first audio sample, whichever is earlier.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, BinaryIO, Literal, TypeAlias, get_args

import av
import numpy as np
from av.container import InputContainer
from av.stream import Stream
from av.video.frame import VideoFrame

from .media_decoder import AudioReader, square_size
from .media_frames import FrameReader, FrameRequest, Timeline, is_counted, iterate_frames
from .media_source import Clock, MediaError, MediaLengthError, Reach, Source, find_streams, is_broadcast

Decode = Literal["strict", "official"]

#: Sources of a video, see [`read_media`].
VideoSource: TypeAlias = str | os.PathLike | bytes | BinaryIO | Mapping[str, Any]

#: The published features have 100 frames per video (LongVALE, section 5), and its audio towers expect 16 kHz.
NUM_FRAMES = 100
SAMPLING_RATE = 16_000

#: Two hours: twelve times the longest video of the benchmark, a waveform of 460 MB.
MAX_DURATION_S = 7200.0

#: One day: the limit of [`MediaStream`], which keeps only one window of the sound in memory.
MAX_STREAM_S = 86_400.0

#: Default length of the sound windows of [`MediaStream`].
WINDOW_S = 30.0

#: Formats whose header states the duration. For others FFmpeg estimates it, which cannot reveal a truncated file.
_FORMATS_WITH_DURATION = frozenset({"mov", "matroska", "avi", "wav"})

#: A file counts as truncated if more than this is missing from the duration in its header: seconds, share.
_TRUNCATED_S, _TRUNCATED_SHARE = 1.0, 0.02

#: Requested times may be this much after the end, because published durations are rounded.
_AFTER_END_S = 0.5


@dataclass(frozen=True)
class Media:
    """Result of [`read_media`].

    Args:
        duration: seconds from the first frame or sound to the end of the last.
        frames: uint8 [F, H, W, 3], RGB, upright; None if the file has no video.
        frame_times: float64 [F], presentation times of `frames` in seconds; empty without video.
        waveform: float32 [round(duration * sampling_rate)], mono; sample k is the sound at k / sampling_rate seconds,
            with silence where the sound starts late, pauses or ends early. None if the file has no sound, or if
            [`MediaStream`] returned it in windows.
        sampling_rate: sampling rate of `waveform` in Hz.
        warnings: damage that was skipped, one line per item.
    """

    duration: float
    frames: np.ndarray | None = field(repr=False)
    frame_times: np.ndarray = field(repr=False)
    waveform: np.ndarray | None = field(repr=False)
    sampling_rate: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class MediaInfo:
    """Contents of a file's header, see [`probe`].

    Args:
        duration: seconds, None if not in the header. It may be wrong: [`read_media`] measures it.
        has_video: whether there is a video stream (cover images do not count).
        has_audio: whether there is an audio stream.
        short_side: shorter side of the frames in square pixels; None without video.
        frame_rate: frames per second, None if not in the header.
    """

    duration: float | None
    has_video: bool
    has_audio: bool
    short_side: int | None = None
    frame_rate: float | None = None


def probe(source: VideoSource) -> MediaInfo:
    """Read only the header of a file.

    Args:
        source: as for [`read_media`].

    Raises:
        FileNotFoundError: if there is no such file.
        MediaError: if it is empty or not a media file.
    """
    with Source(source).open() as container:
        video, audio = find_streams(container)
        says = container.duration and not is_broadcast(container)
        duration = container.duration / av.time_base if says else None
        if video is None or video.codec_context is None:
            return MediaInfo(duration, video is not None, audio is not None)
        rate = video.guessed_rate or video.average_rate
        return MediaInfo(duration, True, audio is not None, min(square_size(video)), float(rate) if rate else None)


def read_frames(source: VideoSource, threads: int | None = None) -> Iterator[tuple[Fraction, VideoFrame]]:
    """Decode all frames of a video in presentation order, without damaged ones.

    Args:
        source: as for [`read_media`].
        threads: decoder threads; None for one per core, at most four.

    Returns:
        Yields the presentation time of each frame in seconds since the first, and the frame as FFmpeg decodes it,
        neither scaled nor rotated. Yields nothing for a file without video.

    Raises:
        FileNotFoundError, MediaError: as [`probe`].

    Example:
        >>> [frame.width for _, frame in read_frames("film.mkv")]  # doctest: +SKIP
        [1280, 1280, 1280]
    """
    yield from iterate_frames(Source(source), _threads(threads))


def _threads(asked: int | None) -> int:
    return asked or min(4, os.cpu_count() or 1)


def read_media(
    source: VideoSource,
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
        source: path of the file, a URL that fsspec can open, its bytes, a binary file object (read from its beginning,
            left open), or a value of a `Video` or `Audio` column of `datasets`.
        num_frames: number of frames to select, see `decode`.
        frame_times: select frames at these times in seconds instead, in any order. The frame at time t is the last one
            with a presentation time of t or earlier; before the first frame it is the first.
        size: length in pixels of the shorter side to which frames are scaled while decoding (bicubic, aspect kept);
            None keeps the original size.
        sampling_rate: sampling rate of the waveform in Hz.
        decode: `strict` splits the duration into `num_frames` equal parts and takes the frame at the middle of each;
            `official` takes the frames with indices `linspace(0, n - 1, num_frames)`, as the published features did.
        max_duration_s: maximum duration of a video; None for no limit.
        threads: threads of the video decoder; None for one per core, at most four.

    Raises:
        FileNotFoundError: if there is no such file.
        MediaError: if the file is empty, not a media file, cannot be fetched, is too long, truncated (more than 1 s and
            2 % of the duration in its header is missing), damaged in more than 10 % of a stream's packets, has zero
            duration, contains neither video nor sound, or has sound but lacks both for more than an hour in total; if a
            frame has more than 67 million pixels or, with `size`, is more than 100 times as long as wide; or if the
            frames would take more than 2.5 GB.
        ValueError: if another argument is out of range.

    Example:
        >>> read_media("missing.mp4")
        Traceback (most recent call last):
        FileNotFoundError: missing.mp4: no such file
    """
    options = _Options(num_frames, frame_times, size, sampling_rate, decode, max_duration_s, threads)
    walk = _walk(Source(source), options, window=None)
    try:
        next(walk)
    except StopIteration as end:
        return end.value
    raise AssertionError("a walk without windows yields nothing")


class MediaStream:
    """Iterator over the sound of a video file in windows, for files whose waveform would not fit in memory.

    Iterate over it, then read `media`. Three hours of video take no more memory than three minutes.

    Args:
        source: as for [`read_media`].
        window_s: length of a window in seconds.
        max_duration_s: maximum duration of a video, by default one day; None for no limit.
        kwargs: as for [`read_media`].

    Raises:
        MediaError: while iterating, as [`read_media`]; also if the first frame has an earlier time than the sound but
            is stored so late in the file that the windows already returned had the wrong time origin.

    Example:
        >>> stream = MediaStream("lecture.mkv", num_frames=100, size=224)  # doctest: +SKIP
        >>> for window in stream:  # float32 [480000], the last one shorter  # doctest: +SKIP
        ...     listen(window)
        >>> stream.media.frames.shape, stream.media.duration  # doctest: +SKIP
        ((100, 224, 398, 3), 10803.2)
    """

    def __init__(
        self,
        source: VideoSource,
        *,
        window_s: float = WINDOW_S,
        max_duration_s: float | None = MAX_STREAM_S,
        **kwargs: Any,
    ) -> None:
        self._options = _Options(max_duration_s=max_duration_s, **kwargs)
        self._window = round(window_s * self._options.sampling_rate)
        if self._window < 1:
            raise ValueError(f"window_s must be a sample or more, not {window_s}")
        self._source = Source(source)
        self.media: Media | None = None  # without its waveform; None until all windows have been returned

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield windows float32 [window_s * sampling_rate] in order; nothing if the file has no sound."""
        self.media = yield from _walk(self._source, self._options, self._window)


@dataclass(frozen=True)
class _Options:
    """The arguments of [`read_media`]."""

    num_frames: int = NUM_FRAMES
    frame_times: Sequence[float] | np.ndarray | None = None
    size: int | None = None
    sampling_rate: int = SAMPLING_RATE
    decode: Decode = "strict"
    max_duration_s: float | None = MAX_DURATION_S
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_frames", "size", "sampling_rate", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}")
        if self.decode not in get_args(Decode):
            raise ValueError(f"decode must be one of {', '.join(get_args(Decode))}, not {self.decode!r}")
        if self.frame_times is not None:
            shape = np.shape(self.frame_times)
            if len(shape) != 1 or not shape[0]:
                raise ValueError(f"frame_times must be a list of one time or more, not of shape {shape}")
            if np.isnan(self.frame_times).any():
                raise ValueError("frame_times must be seconds, not at nan")

    def request(self, zero_s: float, duration: float, frame_count: int) -> FrameRequest:
        """Return the frames to select from a stream with this many frames, on its own clock."""
        if self.frame_times is not None:
            return FrameRequest(times_s=np.asarray(self.frame_times, np.float64) + zero_s)
        if self.decode == "official":
            return FrameRequest(indices=np.linspace(0, max(frame_count, 1) - 1, self.num_frames).astype(int))
        return FrameRequest(times_s=(np.arange(self.num_frames) + 0.5) / self.num_frames * duration + zero_s)

    def check_times(self, duration: float) -> None:
        times = np.asarray([] if self.frame_times is None else self.frame_times, np.float64)
        outside = times[~((times >= 0) & (times <= duration + _AFTER_END_S))]
        if outside.size:
            raise ValueError(
                f"frame_times must lie between 0 and the duration of {duration:.2f} s, not at {outside[0]} s"
            )

    def check_length(self, name: str, duration: float) -> None:
        if self.max_duration_s is not None and duration > self.max_duration_s:
            raise MediaLengthError(name, duration, self.max_duration_s)


# --- the walk -------------------------------------------------------------------------------------------------------


def _walk(source: Source, options: _Options, window: int | None) -> Generator[np.ndarray, None, Media]:
    """Read the packets of a file; yield the sound in windows of this many samples, if a number is given."""
    warnings: list[str] = []
    with source.open() as container:
        streams = video, audio = tuple(_with_decoder(stream, warnings) for stream in find_streams(container))
        frame_reader = None if video is None else _open_frames(source, container, video, audio, options)
        audio_reader = None if audio is None else AudioReader(audio, source.name, options.sampling_rate)
        windows = _Windows(audio_reader, window, options.sampling_rate)
        clock, reach = Clock(container, find_streams(container)), Reach(container, source.name, video, audio)
        try:
            for packet in clock.packets():
                reach.add(packet)
                if video is not None and packet.stream_index == video.index:
                    frame_reader.add(packet)
                elif audio is not None and packet.stream_index == audio.index:
                    audio_reader.add(packet)
                    if audio_reader.start_s is not None:
                        options.check_length(
                            source.name, max(audio_reader.end_s - audio_reader.start_s, audio_reader.held_s)
                        )
                        yield from windows.full(frame_reader)
        except av.FFmpegError as error:
            warnings.append(f"reading stopped at {reach.end_s:.1f} s: {error.strerror}")
        _check_truncated(container, source.name, streams, reach.ends_s)
        if clock.recordings > 1:
            warnings.append(f"{clock.recordings} recordings are joined; they are read one after the other")
        if audio_reader is not None:
            warnings += audio_reader.close()
        timeline = None if frame_reader is None else frame_reader.close()
    zero_s, duration = _clock(source.name, timeline, audio_reader)
    options.check_length(source.name, duration)
    reach.reach(zero_s + duration)
    options.check_times(duration)

    frames, shown_s = None, np.empty(0)
    if timeline is not None:
        wanted = options.request(zero_s, duration, len(timeline.ticks)).among(timeline)
        frames, ticks = frame_reader.read(timeline, wanted, warnings)
        shown_s = ticks * timeline.time_base - zero_s
    waveform = None
    if audio_reader is not None and audio_reader.start_s is not None:
        rest = windows.rest(source.name, zero_s, duration)
        if window is None:
            waveform = next(rest)
        else:
            yield from rest
    return Media(duration, frames, shown_s, waveform, options.sampling_rate, tuple(warnings))


def _with_decoder(stream: Stream | None, warnings: list[str]) -> Stream | None:
    if stream is not None and stream.codec_context is None:
        warnings.append(f"stream {stream.index} ({stream.type}) is left out: this FFmpeg has no decoder for its format")
        return None
    return stream


def _open_frames(
    source: Source, container: InputContainer, video: Stream, audio: Stream | None, options: _Options
) -> FrameReader:
    """Return the frame reader, with the selection that is correct if the header is."""
    begins, ends = [], []
    for stream in (video, audio):
        if stream is not None and stream.start_time is not None:
            begins.append(float(stream.start_time * stream.time_base))
            if stream.duration:
                ends.append(begins[-1] + float(stream.duration * stream.time_base))
    zero_s = min(begins, default=0.0)
    if not ends and container.duration:
        ends.append(container.duration / av.time_base)
    duration = max(ends, default=0.0) - zero_s
    frame_count = video.frames or round(duration * (video.average_rate or 0))
    guess = options.request(zero_s, max(duration, 0.0), frame_count)
    return FrameReader(source, video, guess, options.size, _threads(options.threads), counted=is_counted(container))


class _Windows:
    """The sound in windows of a given number of samples, or as a whole."""

    def __init__(self, audio_reader: AudioReader | None, window: int | None, sampling_rate: int) -> None:
        self._heard, self._window, self._rate = audio_reader, window, sampling_rate
        self._given = 0  # samples
        self._zero_s: float | None = None

    def full(self, frame_reader: FrameReader | None) -> Iterator[np.ndarray]:
        """Yield the windows whose samples have all been decoded."""
        if self._window is None:
            return
        while True:
            if self._zero_s is None:
                # When a window is full, the first frames have been read too: files are interleaved.
                begins = [self._heard.start_s, None if frame_reader is None else frame_reader.start_s]
                zero_s = min(begin for begin in begins if begin is not None)
            else:
                zero_s = self._zero_s
            if (self._heard.ready_s - zero_s) * self._rate < self._given + self._window + 1:
                return
            self._zero_s = zero_s
            yield self._heard.take(zero_s, self._given, self._window)
            self._given += self._window

    def rest(self, name: str, zero_s: float, duration: float) -> Iterator[np.ndarray]:
        """Yield the rest up to the end, in windows or as a whole."""
        if self._zero_s is not None and abs(zero_s - self._zero_s) * self._rate > 0.5:
            raise MediaError(
                f"{name}: the picture begins {self._zero_s - zero_s:.2f} s before the sound, but follows it in "
                "the file: read the file whole, or interleave it with: ffmpeg -i FILE -c copy REPAIRED"
            )
        total = round(duration * self._rate)
        window = self._window or total
        while self._given < total:
            yield self._heard.take(zero_s, self._given, min(window, total - self._given))
            self._given += window


def _clock(name: str, timeline: Timeline | None, audio_reader: AudioReader | None) -> tuple[float, float]:
    """Return the start of the video on the clock of its streams, and its duration, in seconds."""
    spans = [] if timeline is None else [(timeline.start_s, timeline.end_s)]
    if audio_reader is not None and audio_reader.start_s is not None:
        spans.append((audio_reader.start_s, audio_reader.end_s))
    if not spans:
        raise MediaError(f"{name}: holds neither picture nor sound; give a video file")
    zero_s = min(start for start, _ in spans)
    duration = max(end for _, end in spans) - zero_s
    if duration <= 0:
        raise MediaError(f"{name}: has no duration (0 s); give a video that lasts")
    return zero_s, duration


def _check_truncated(
    container: InputContainer, name: str, streams: Sequence[Stream | None], ends_s: dict[int, float]
) -> None:
    """Refuse a file whose readable part is much shorter than its header states."""
    if _FORMATS_WITH_DURATION.isdisjoint(container.format.name.split(",")):
        return
    claims = []  # (claimed end, claimed length, readable end) in seconds
    for stream in streams:
        if stream is not None and stream.duration:
            end = ((stream.start_time or 0) + stream.duration) * stream.time_base
            claims.append((float(end), float(stream.duration * stream.time_base), ends_s.get(stream.index, 0.0)))
    if not claims and container.duration:
        # Matroska states one duration for all streams, measured from 0 even if they start later.
        duration = container.duration / av.time_base
        claims.append((duration, duration, max(ends_s.values(), default=0.0)))
    for end, length, readable in claims:
        if end - readable > max(_TRUNCATED_S, _TRUNCATED_SHARE * length):
            raise MediaError(
                f"{name}: truncated: {readable:.1f} s can be read of the {end:.1f} s that its header claims; copy or "
                "download it again, or keep what is there with: ffmpeg -i FILE -c copy REPAIRED"
            )
