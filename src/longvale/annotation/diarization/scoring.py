"""Scores of diarization: error rate and F1 of overlapping speech."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.optimize import linear_sum_assignment

from ...events import Seconds

#: Start and end in seconds, and the speaker.
LabelledTurn: TypeAlias = tuple[Seconds, Seconds, Hashable]


@dataclass(frozen=True)
class DiarizationScore:
    """Seconds of speech and of errors, each counted per speaker; scores of several recordings can be added.

    Args:
        total: seconds of reference speech.
        missed: seconds of reference speakers that were not found.
        false_alarm: seconds of speakers too many.
        confused: seconds of the wrong speaker.
        overlap: seconds with several reference speakers.
        overlap_found: seconds with several found speakers.
        overlap_both: seconds with both.
    """

    total: Seconds = 0.0
    missed: Seconds = 0.0
    false_alarm: Seconds = 0.0
    confused: Seconds = 0.0
    overlap: Seconds = 0.0
    overlap_found: Seconds = 0.0
    overlap_both: Seconds = 0.0

    def __add__(self, other: DiarizationScore) -> DiarizationScore:
        return DiarizationScore(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def error_rate(self) -> float:
        """Diarization error rate (DER): all errors, as a fraction of the reference speech; it may exceed 1."""
        return (self.missed + self.false_alarm + self.confused) / self.total if self.total else float("nan")

    @property
    def overlap_f1(self) -> float:
        """F1 of the time in which several people speak."""
        found = self.overlap + self.overlap_found
        return 2 * self.overlap_both / found if found else float("nan")


def score_turns(
    found: Sequence[LabelledTurn], reference: Sequence[LabelledTurn], collar: Seconds = 0.0
) -> DiarizationScore:
    """Compare turns with a reference, under the assignment of speakers that agrees for the longest time.

    Args:
        found: turns that were found.
        reference: true turns.
        collar: seconds before and after each start and end of a reference turn that are not scored; NIST's evaluations
            use 0.25.

    Example:
        >>> reference = [(0.0, 4.0, "a"), (3.0, 5.0, "b")]
        >>> score = score_turns([(0.0, 4.0, 1), (4.0, 5.0, 2)], reference)
        >>> round(score.error_rate, 3), score.missed, score.overlap_f1
        (0.167, 1.0, 0.0)
    """
    edges = [moment for start, end, _ in [*found, *reference] for moment in (start, end)]
    ends = [moment for start, end, _ in reference for moment in (start, end)] if collar else []
    edges += [moment + side for moment in ends for side in (-collar, collar)]
    times = np.unique(edges)
    middles, lengths = (times[:-1] + times[1:]) / 2, np.diff(times)
    for moment in ends:
        lengths = np.where(np.abs(middles - moment) < collar, 0.0, lengths)
    ours, theirs = _active(found, middles), _active(reference, middles)  # [speakers, stretches]
    rows, columns = linear_sum_assignment(-((theirs * lengths) @ ours.T))
    right = (theirs[rows] & ours[columns]).sum(axis=0)
    spoken, named = theirs.sum(axis=0), ours.sum(axis=0)
    seconds = {
        "total": spoken,
        "missed": np.maximum(spoken - named, 0),
        "false_alarm": np.maximum(named - spoken, 0),
        "confused": np.minimum(spoken, named) - right,
        "overlap": spoken > 1,
        "overlap_found": named > 1,
        "overlap_both": (spoken > 1) & (named > 1),
    }
    return DiarizationScore(**{name: float((values * lengths).sum()) for name, values in seconds.items()})


def _active(turns: Sequence[LabelledTurn], moments: np.ndarray) -> np.ndarray:
    """Return bool [speakers, moments]: who speaks."""
    speakers = list(dict.fromkeys(speaker for _, _, speaker in turns))
    active = np.zeros((len(speakers), len(moments)), bool)
    for start, end, speaker in turns:
        active[speakers.index(speaker)] |= (moments >= start) & (moments < end)
    return active
