"""From activity in overlapping windows to turns of speakers over a whole recording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...events import Seconds
from .segmentation import FRAME, FRAME_STEP

#: Samples per second.
_RATE = 16_000


class Turn(NamedTuple):
    """One turn: start and end in seconds, and the number of the speaker."""

    start: Seconds
    end: Seconds
    speaker: int


@dataclass(frozen=True)
class TurnOptions:
    """Options of the turns; the defaults were chosen by benchmarks/speakers.py --tune.

    Args:
        onset: a turn begins when the mean activity of a speaker, over the windows of that time, exceeds this.
        offset: and ends when it falls below this.
        shortest_s: shorter turns are dropped.
        pause_s: shorter pauses within the turns of a speaker are filled.
    """

    onset: float = 0.5
    offset: float = 0.45
    shortest_s: Seconds = 0.2
    pause_s: Seconds = 0.1


def combine(
    activity: np.ndarray, starts: np.ndarray, speakers: np.ndarray, count: int, duration: Seconds
) -> np.ndarray:
    """Average the activity of each speaker over all windows that contain a frame.

    Args:
        activity: float [windows, frames, local speakers], probability that a local speaker is active.
        starts: int [windows], first sample of each.
        speakers: int [windows, frames, local speakers], the speaker of each; -1 for none.
        count: number of speakers.
        duration: seconds of the recording.

    Returns:
        float32 [frames of the recording, count].

    Example:
        >>> activity = np.ones((1, 4, 1))
        >>> combine(activity, np.array([0]), np.ones((1, 4, 1), int), 2, 0.1)[:4].tolist()
        [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    """
    size = activity.shape[1]
    total = max(int(starts.max(initial=0)) // FRAME_STEP + 1 + size, int(duration * _RATE) // FRAME_STEP + 1)
    summed, covered = np.zeros((total, count), np.float32), np.zeros((total, 1), np.float32)
    # The ends of a window have less context than its middle.
    weight = (0.1 + np.hanning(size + 2)[1:-1]).astype(np.float32)
    for values, start, who in zip(activity, starts, speakers, strict=True):
        first = round(int(start) / FRAME_STEP)
        covered[first : first + size, 0] += weight
        for speaker in range(count):
            summed[first : first + size, speaker] += weight * np.where(who == speaker, values, 0).max(axis=1)
    return summed / np.maximum(covered, 1e-6)


def find_turns(activity: np.ndarray, duration: Seconds, options: TurnOptions | None = None) -> list[Turn]:
    """Find the turns of speakers, with hysteresis, in order of their start.

    Args:
        activity: float32 [frames, speakers], as [`combine`] returns.
        duration: seconds of the recording.
        options: thresholds.

    Example:
        >>> activity = np.repeat([[0.9, 0.1], [0.47, 0.1], [0.1, 0.9]], 60, axis=0)
        >>> [(round(turn.start, 1), round(turn.end, 1), turn.speaker) for turn in find_turns(activity, 3.0)]
        [(0.0, 2.0, 0), (2.0, 3.0, 1)]
    """
    options = options or TurnOptions()
    found = []
    for speaker in range(activity.shape[1]):
        turns: list[list[Seconds]] = []
        for first, last in hysteresis(activity[:, speaker], options.onset, options.offset):
            start, end = _time_of(first), min(_time_of(last), duration)
            if turns and start - turns[-1][1] < options.pause_s:
                turns[-1][1] = end
            else:
                turns.append([0.0 if first == 0 else start, end])
        found += [Turn(start, end, speaker) for start, end in turns if end - start >= options.shortest_s]
    return sorted(found)


def hysteresis(values: np.ndarray, onset: float, offset: float) -> list[tuple[int, int]]:
    """Return the ranges of frames that begin above `onset` and end below `offset`, the end exclusive.

    Example:
        >>> hysteresis(np.array([0.1, 0.6, 0.45, 0.3, 0.45]), 0.5, 0.4)
        [(1, 3)]
    """
    # Every stretch above the lower threshold that reaches the upper one, from where it first does.
    edges = np.flatnonzero(np.diff(np.concatenate(([False], values >= offset, [False])).astype(np.int8)))
    ranges = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        above = np.flatnonzero(values[first:last] > onset)
        if len(above):
            ranges.append((int(first + above[0]), int(last)))
    return ranges


def _time_of(frame: int) -> Seconds:
    """Return the time at which a frame begins to count: halfway between its centre and that of the one before."""
    return (frame * FRAME_STEP + (FRAME - FRAME_STEP) / 2) / _RATE
