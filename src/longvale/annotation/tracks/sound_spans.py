"""Spans of sounds: hysteresis on scores of moments, and one label for one sound."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...events import Seconds
from . import Span
from .audioset import generalizations, kind_of, members

#: Labels that are considered at one moment, the most probable ones: bounds the memory for taggers with many labels.
MOST_LABELS = 20


@dataclass(frozen=True)
class SoundOptions:
    """How spans are made of scores.

    The defaults were chosen with YAMNet on mixtures of seed 100 (`benchmarks/sounds.py --tune`).

    Args:
        on: score that a span must reach.
        off: score below which a span ends.
        min_s: minimum length of a span in seconds.
        gap_s: maximum gap in seconds between two spans of a label that are joined.
        mean: least mean score of a span.

    Raises:
        ValueError: if `off` is not above 0, `on` is below `off`, or above 1.
    """

    on: float = 0.3
    off: float = 0.2
    min_s: Seconds = 0.5
    gap_s: Seconds = 1.5
    mean: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.off <= self.on <= 1:
            raise ValueError(f"thresholds of sounds must be 0 < off <= on <= 1, not off={self.off}, on={self.on}")


class Scores:
    """Scores of labels by cell, of which only those at or above a threshold are kept.

    Args:
        least: threshold.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # labels, cells, scores

    def add(self, first: int, scores: np.ndarray) -> None:
        """Add the scores of cells: [n, labels]; at each moment those of the most probable labels are kept."""
        keep = scores >= self._least
        if scores.shape[1] > MOST_LABELS:
            keep &= scores >= np.partition(scores, -MOST_LABELS, axis=1)[:, -MOST_LABELS, None]
        cells, labels = np.nonzero(keep)
        self._parts.append((labels, cells + first, scores[cells, labels]))

    def by_label(self, names: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return cells, ascending, and their scores of each label that has any."""
        if not self._parts:
            return {}
        labels, cells, scores = (np.concatenate(values) for values in zip(*self._parts, strict=True))
        order = np.argsort(labels, kind="stable")
        edges = np.flatnonzero(np.diff(labels[order])) + 1
        groups = [group for group in np.split(order, edges) if len(group)]
        return {names[labels[group[0]]]: (cells[group], scores[group]) for group in groups}


def sound_spans(
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]], cell_s: Seconds, options: SoundOptions
) -> list[Span]:
    """Make spans of scores: hysteresis, gaps, minimum length; then keep the most specific labels.

    Args:
        scores: by label, the cells [n], ascending, whose score is at least `options.off`, and the scores [n].
        cell_s: length of a cell in seconds.
        options: thresholds.

    Returns:
        Spans by start; silence is not a sound.

    Example:
        >>> barks = {"Bark": (np.array([2, 3, 4, 9]), np.array([0.2, 0.9, 0.7, 0.2]))}
        >>> sound_spans(barks, 0.5, SoundOptions(on=0.5, off=0.1))
        [Span(start=1.0, end=2.5, text='Bark', score=0.6, speaker='', words=())]
    """
    spans = [
        span
        for label, (cells, values) in scores.items()
        if kind_of(label) != "silence"
        for span in _spans_of(label, cells, values, cell_s, options)
    ]
    return sorted(most_specific(spans), key=lambda span: (span.start, span.end, span.text))


def _spans_of(
    label: str, cells: np.ndarray, scores: np.ndarray, cell_s: Seconds, options: SoundOptions
) -> Iterator[Span]:
    """Yield the spans of one label."""
    runs = np.split(np.arange(len(cells)), np.flatnonzero(np.diff(cells) > 1) + 1)
    joined: list[np.ndarray] = []
    for run in (run for run in runs if scores[run].max() >= options.on):
        if joined and (cells[run[0]] - cells[joined[-1][-1]] - 1) * cell_s <= options.gap_s + 1e-6:
            joined[-1] = np.concatenate([joined[-1], run])
        else:
            joined.append(run)
    for run in joined:
        start, end = float(cells[run[0]] * cell_s), float((cells[run[-1]] + 1) * cell_s)
        score = float(scores[run].mean())
        if end - start >= options.min_s - 1e-6 and score >= options.mean:
            yield Span(round(start, 3), round(end, 3), label, round(score, 3))


#: General labels that are kept beside the more specific ones.
_KEPT = frozenset({"music", "speech"})
#: Families of animals, of which one cry gets the names of several.
_FAMILIES = ("domestic animals, pets", "livestock, farm animals, working animals", "fowl", "wild animals", "bird")


def most_specific(spans: Sequence[Span]) -> list[Span]:
    """Reduce the labels of AudioSet that name one sound to one.

    A general label is dropped where more specific ones are heard for at least half of its span, except "Music" and
    "Speech": instruments and voices begin and end within them. Of several animals of one family at the same time, such
    as a duck and a goose, and of several cries, the one is kept whose span has the highest product of length and score.

    Example:
        >>> heard = [Span(0, 4, "Animal", 0.9), Span(1, 4, "Duck", 0.8), Span(1, 4, "Quack", 0.4)]
        >>> heard += [Span(1, 3, "Goose", 0.7), Span(0, 9, "Music", 1.0), Span(2, 9, "Guitar", 0.5)]
        >>> [span.text for span in most_specific(heard)]
        ['Quack', 'Music', 'Guitar']
    """
    return _best_of_families(_without_general(_best_of_families(spans, animals=True)), animals=False)


def _without_general(spans: Sequence[Span]) -> list[Span]:
    """Drop spans of general labels of which more specific ones cover half."""
    by_label: dict[str, list[Span]] = {}
    for span in spans:
        by_label.setdefault(span.text.casefold(), []).append(span)
    kept: set[Span] = set()
    for label, group in by_label.items():
        below = [other for other in by_label if label in generalizations(other)] if label not in _KEPT else []
        specific = _Cover.of([span for other in below for span in by_label[other]])
        kept.update(span for span in group if not specific.covers_half(span))
    return [span for span in spans if span in kept]


def _best_of_families(spans: Sequence[Span], *, animals: bool) -> list[Span]:
    """Drop spans of which others of the family, with more length and score, cover half.

    Args:
        spans: spans.
        animals: whether only labels of different animals compete, such as those of a duck and of a goose.
    """
    heard: dict[str, dict[frozenset[str], _Cover]] = {family: {} for family in _FAMILIES}
    dropped: set[Span] = set()
    for span in sorted(spans, key=lambda span: (-(span.end - span.start) * (span.score or 0.0), span.start, span.text)):
        names = {span.text.casefold(), *generalizations(span.text)}
        for family in names.intersection(_FAMILIES):
            group = members(family) & names if animals else frozenset([span.text.casefold()])
            others = [cover for known, cover in heard[family].items() if group and not known & group]
            if any(cover.covers_half(span) for cover in others):
                dropped.add(span)
            elif group:  # not the label of the family itself
                heard[family].setdefault(group, _Cover()).add(span)
    return [span for span in spans if span not in dropped]


class _Cover:
    """Time that is covered by spans: disjoint intervals, in order."""

    def __init__(self) -> None:
        self._starts: list[Seconds] = []
        self._ends: list[Seconds] = []

    @classmethod
    def of(cls, spans: Sequence[Span]) -> _Cover:
        cover = cls()
        for span in sorted(spans, key=lambda span: span.start):
            cover.add(span)
        return cover

    def _touched(self, span: Span) -> slice:
        """Return which intervals a span overlaps or touches."""
        return slice(bisect_left(self._ends, span.start), bisect_right(self._starts, span.end))

    def add(self, span: Span) -> None:
        """Cover the time of a span."""
        touched = self._touched(span)
        start = min([span.start, *self._starts[touched]])
        end = max([span.end, *self._ends[touched]])
        self._starts[touched], self._ends[touched] = [start], [end]

    def covers_half(self, span: Span) -> bool:
        """Return whether at least half of a span is covered."""
        touched = self._touched(span)
        pairs = zip(self._starts[touched], self._ends[touched], strict=True)
        covered = sum(min(end, span.end) - max(start, span.start) for start, end in pairs)
        return covered >= (span.end - span.start) / 2
