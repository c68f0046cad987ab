"""What annotation looks at of a video: small frames at an even rate and the sound, read in one walk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..events import Seconds
from ..models.media import MAX_STREAM_S, SAMPLING_RATE, Media, probe, read_media

#: Frames a second that boundaries and measurements look at. Finer does not find more (benchmarks/boundaries.py).
FRAME_RATE = 5.0
#: Shorter side of these frames in pixels.
FRAME_SIZE = 48
#: Beyond an hour frames are looked at less often, so that memory stays bounded.
MAX_FRAMES = 18_000

#: Frames are looked at again when the header's duration is wrong by more than this share, and so is their number.
_WRONG = 0.1


@dataclass(frozen=True)
class Footage:
    """Frames and sound of one video.

    Args:
        path: of the file.
        duration: seconds.
        frames: uint8 [F, H, W, 3], the shorter side [`FRAME_SIZE`]; None without pictures.
        times: float64 [F], the seconds that `frames` stand for, evenly spaced.
        waveform: float32 [duration * 16000], mono; None without sound.
        late: seconds after which the pictures begin, usually 0.
        warnings: damage that was passed over.
    """

    path: Path
    duration: Seconds
    frames: np.ndarray | None = field(repr=False)
    times: np.ndarray = field(repr=False)
    waveform: np.ndarray | None = field(repr=False)
    late: Seconds = 0.0
    warnings: tuple[str, ...] = ()

    def frames_at(self, times: Sequence[Seconds], size: int = FRAME_SIZE) -> np.ndarray:
        """Frames at given seconds: uint8 [n, H, W, 3]; larger ones than are held are read from the file.

        Raises:
            ValueError: if the video has no pictures.
        """
        if self.frames is None:
            raise ValueError(f"{self.path}: holds no picture")
        if size <= FRAME_SIZE:
            # Not all at once: of two hours the table of distances would take a gigabyte.
            parts = np.array_split(np.asarray(times), max(1, len(times) // 256))
            nearest = [np.abs(self.times[None] - part[:, None]).argmin(axis=1) for part in parts]
            return self.frames[np.concatenate(nearest)]
        wanted = np.clip(times, 0, self.duration)
        return read_media(self.path, frame_times=wanted, size=size, max_duration_s=None).frames

    def sound(self, start: Seconds, end: Seconds) -> np.ndarray:
        """float32 [n]: the waveform of a stretch; empty without sound."""
        if self.waveform is None:
            return np.empty(0, np.float32)
        return self.waveform[round(start * SAMPLING_RATE) : round(end * SAMPLING_RATE)]


def read_footage(path: str | os.PathLike, threads: int | None = None, max_duration_s: Seconds | None = None) -> Footage:
    """Read a video for annotation.

    Args:
        path: of the file.
        threads: of the picture decoder; None for one a core, at most four.
        max_duration_s: longest video that is accepted; by default a day.

    Raises:
        FileNotFoundError, ValueError: as [`longvale.models.media.read_media`].
    """
    limit = MAX_STREAM_S if max_duration_s is None else max_duration_s

    def read(count: int) -> Media:
        return read_media(path, num_frames=count, size=FRAME_SIZE, max_duration_s=limit, threads=threads)

    claimed = probe(path).duration
    if claimed is None:  # the header does not say: measure
        claimed = read(1).duration
    count = _frames_of(claimed)
    media = read(count)
    if abs(count - _frames_of(media.duration)) > _WRONG * count:  # the header was wrong
        count = _frames_of(media.duration)
        media = read(count)
    times = (np.arange(count) + 0.5) / count * media.duration
    late = 0.0
    if media.frames is not None and media.frame_times[0] > times[0]:
        late = float(media.frame_times[0])  # before the first picture it is the first that is given
    return Footage(Path(path), media.duration, media.frames, times, media.waveform, late, media.warnings)


def _frames_of(duration: Seconds) -> int:
    return int(np.clip(round(duration * FRAME_RATE), 1, MAX_FRAMES))
