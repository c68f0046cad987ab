"""Input of the annotation: small, evenly spaced frames and the audio of a video, read in one pass."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..events import Seconds
from ..models.media import MAX_STREAM_S, SAMPLING_RATE, Media, probe, read_media

#: Frames per second used for boundaries and measurements; a higher rate finds no more (benchmarks/boundaries.py).
FRAME_RATE = 5.0
#: Shorter side of these frames in pixels.
FRAME_SIZE = 48
#: Maximum number of frames: above one hour the frame rate is lower, so that memory stays bounded.
MAX_FRAMES = 18_000

#: Frames are read again if the header's duration, and thus their number, is wrong by more than this fraction.
_WRONG = 0.1


@dataclass(frozen=True)
class ClipReader:
    """Frames and audio of one video, of which it returns clips.

    Args:
        path: video file.
        duration: seconds.
        frames: uint8 [F, H, W, 3], the shorter side [`FRAME_SIZE`]; None without frames.
        times: float64 [F], the times of `frames` in seconds, evenly spaced.
        waveform: float32 [duration * 16000], mono; None without sound.
        late: time of the first frame in seconds, usually 0.
        warnings: damage of the file that was ignored.
    """

    path: Path
    duration: Seconds
    frames: np.ndarray | None = field(repr=False)
    times: np.ndarray = field(repr=False)
    waveform: np.ndarray | None = field(repr=False)
    late: Seconds = 0.0
    warnings: tuple[str, ...] = ()

    def frames_at(self, times: Sequence[Seconds], size: int = FRAME_SIZE) -> np.ndarray:
        """Return frames at given times: uint8 [n, H, W, 3]; sizes above [`FRAME_SIZE`] are read from the file.

        Raises:
            ValueError: if the video has no frames.
        """
        if self.frames is None:
            raise ValueError(f"{self.path}: holds no picture")
        if size <= FRAME_SIZE:
            # In parts: for two hours the full distance matrix would take a gigabyte.
            parts = np.array_split(np.asarray(times), max(1, len(times) // 256))
            nearest = [np.abs(self.times[None] - part[:, None]).argmin(axis=1) for part in parts]
            return self.frames[np.concatenate(nearest)]
        wanted = np.clip(times, 0, self.duration)
        return read_media(self.path, frame_times=wanted, size=size, max_duration_s=None).frames

    def audio(self, start: Seconds, end: Seconds) -> np.ndarray:
        """Return the waveform between two times: float32 [n]; empty without sound."""
        if self.waveform is None:
            return np.empty(0, np.float32)
        return self.waveform[round(start * SAMPLING_RATE) : round(end * SAMPLING_RATE)]


def open_video(
    path: str | os.PathLike, threads: int | None = None, max_duration_s: Seconds | None = None
) -> ClipReader:
    """Read a video for annotation.

    Args:
        path: video file.
        threads: threads of the video decoder; None for one per core, at most four.
        max_duration_s: maximum duration in seconds; by default one day.

    Raises:
        FileNotFoundError, ValueError: as [`longvale.models.media.read_media`].
    """
    limit = MAX_STREAM_S if max_duration_s is None else max_duration_s

    def read(count: int) -> Media:
        return read_media(path, num_frames=count, size=FRAME_SIZE, max_duration_s=limit, threads=threads)

    claimed = probe(path).duration
    if claimed is None:  # not in the header: measure it
        claimed = read(1).duration
    count = _frames_of(claimed)
    media = read(count)
    if abs(count - _frames_of(media.duration)) > _WRONG * count:  # the header was wrong
        count = _frames_of(media.duration)
        media = read(count)
    times = (np.arange(count) + 0.5) / count * media.duration
    late = 0.0
    if media.frames is not None and media.frame_times[0] > times[0]:
        late = float(media.frame_times[0])  # earlier times get a copy of the first frame
    return ClipReader(Path(path), media.duration, media.frames, times, media.waveform, late, media.warnings)


def _frames_of(duration: Seconds) -> int:
    return int(np.clip(round(duration * FRAME_RATE), 1, MAX_FRAMES))
