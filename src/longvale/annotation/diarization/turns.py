"""From activity in overlapping windows to turns of speakers over a whole recording."""

from __future__ import annotations

from collections.abc import Iterable
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
        onset: somebody begins to speak when the number of active speakers, averaged over the windows of that time,
            exceeds this.
        offset: and nobody speaks when it falls below this.
        second_onset: a second person begins to speak when that number exceeds this.
        second_offset: and ends when it falls below this.
        shortest_s: shorter turns are dropped.
        pause_s: shorter pauses within the turns of a speaker are filled.
    """

    onset: float = 0.5
    offset: float = 0.45
    second_onset: float = 1.55
    second_offset: float = 1.5
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
    own = (
        np.stack([np.where(who == speaker, values, 0).max(axis=1) for speaker in range(count)], axis=1)
        for values, who in zip(activity, speakers, strict=True)
    )
    return _average(own if count else (), starts, activity.shape[1], count, duration)


def count_active(activity: np.ndarray, starts: np.ndarray, duration: Seconds) -> np.ndarray:
    """Average the number of active speakers over all windows that contain a frame: it needs no names.

    Args:
        activity: float [windows, frames, local speakers], probability that a local speaker is active.
        starts: int [windows], first sample of each.
        duration: seconds of the recording.

    Returns:
        float32 [frames of the recording].

    Example:
        >>> count_active(np.full((1, 4, 3), 0.5), np.array([0]), 0.1)[:4].round(3).tolist()
        [1.5, 1.5, 1.5, 1.5]
    """
    sums = (values.sum(axis=1, keepdims=True, dtype=np.float32) for values in activity)
    return _average(sums, starts, activity.shape[1], 1, duration)[:, 0]


def _average(values: Iterable[np.ndarray], starts: np.ndarray, size: int, count: int, duration: Seconds) -> np.ndarray:
    """Average [frames of a window, count] per window over the recording: float32 [frames of the recording, count]."""
    total = max(int(starts.max(initial=0)) // FRAME_STEP + 1 + size, int(duration * _RATE) // FRAME_STEP + 1)
    summed, covered = np.zeros((total, count), np.float32), np.zeros((total, 1), np.float32)
    # The ends of a window have less context than its middle.
    weight = (0.1 + np.hanning(size + 2)[1:-1, None]).astype(np.float32)
    for part, start in zip(values, starts.tolist(), strict=bool(count)):
        first = round(start / FRAME_STEP)
        covered[first : first + size] += weight
        summed[first : first + size] += weight * part
    return summed / np.maximum(covered, 1e-6)


def find_turns(
    activity: np.ndarray, active: np.ndarray, duration: Seconds, options: TurnOptions | None = None
) -> list[Turn]:
    """Find the turns of speakers, in order of their start.

    How many people speak is decided first, with hysteresis, then who: those who are most active. Windows that disagree
    about who speaks thus agree that one person does.

    Args:
        activity: float32 [frames, speakers], the larger, the likelier is the speaker; such as [`combine`] returns.
        active: float32 [frames], number of active speakers, as [`count_active`] returns.
        duration: seconds of the recording.
        options: thresholds.

    Example:
        >>> activity = np.repeat([[0.9, 0.1], [0.4, 0.3], [0.9, 0.8]], 60, axis=0)
        >>> turns = find_turns(activity, activity.sum(axis=1), 3.0)
        >>> [(round(turn.start, 1), round(turn.end, 1), turn.speaker) for turn in turns]
        [(0.0, 3.0, 0), (2.0, 3.0, 1)]
    """
    options = options or TurnOptions()
    found = []
    who = _most_active(activity, active, options)
    for speaker in range(activity.shape[1]):
        turns: list[list[Seconds]] = []
        for first, last in hysteresis(who[:, speaker].astype(np.int8), 0, 1):
            start, end = _time_of(first), min(_time_of(last), duration)
            if turns and start - turns[-1][1] < options.pause_s:
                turns[-1][1] = end
            else:
                turns.append([0.0 if first == 0 else start, end])
        found += [Turn(start, end, speaker) for start, end in turns if end - start >= options.shortest_s]
    return sorted(found)


def _most_active(activity: np.ndarray, active: np.ndarray, options: TurnOptions) -> np.ndarray:
    """Return who speaks: bool [frames, speakers], at most two per frame."""
    who = np.zeros(activity.shape, bool)
    order = np.argsort(-activity, axis=1, kind="stable")
    thresholds = ((options.onset, options.offset), (options.second_onset, options.second_offset))
    for place, (onset, offset) in zip(range(activity.shape[1]), thresholds, strict=False):
        for first, last in hysteresis(active, onset, offset):
            who[np.arange(first, last), order[first:last, place]] = True
    return who


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
