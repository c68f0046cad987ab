"""Breakdowns of scores: questions grouped by length, number of events, modality and relation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...events import RELATIONS, Annotation
from ...tasks import Task
from .score import GROUPS, modality_group

#: Number of groups for numeric properties. Groups have about equal size, so that their intervals have similar widths.
_PARTS = 5


@dataclass(frozen=True)
class Breakdown:
    """Questions grouped by one property.

    Args:
        name: name of the property.
        groups: indices of the questions per group label, in display order.
    """

    name: str
    groups: Mapping[str, Sequence[int]]


def breakdowns(
    task: Task, asked: Sequence[tuple[str, int | None]], annotations: Mapping[str, Annotation]
) -> tuple[list[Breakdown], list[str]]:
    """Group a task's questions by each property.

    Args:
        task: task of the questions; dense captioning asks about a video, the others about one event.
        asked: video ID and sentence ID of each question.
        annotations: annotations by video ID.

    Returns:
        The breakdowns with at least two groups, and the names of the others, in which all questions are equal or the
        annotations lack the property.

    Example:
        >>> from longvale.events import Event
        >>> events = (Event(0, 5, "A bell.", ("audio",)), Event(5, 25, "A dog.", ("visual",)))
        >>> found, lacking = breakdowns("grounding", [("a", 0), ("a", 1)], {"a": Annotation("a", 30.0, events)})
        >>> [(part.name, dict(part.groups)) for part in found]
        [('event length', {'under 8 s': [0], '8 s and more': [1]}), ('modality', {'visual': [1], 'audio': [0]})]
        >>> lacking
        ['video length', 'events in the video', 'relation']
    """
    videos = [annotations[video_id] for video_id, _ in asked]
    found = [
        Breakdown("video length", number_groups([video.duration for video in videos], " s")),
        Breakdown("events in the video", number_groups([len(video.events) for video in videos], whole=True)),
    ]
    if task != "dense_captioning":
        events = [annotations[video_id].events[index] for video_id, index in asked]
        found += [
            Breakdown("event length", number_groups([event.length for event in events], " s")),
            Breakdown("modality", _named_groups([modality_group(event) for event in events], GROUPS)),
            Breakdown("relation", _named_groups([event.relation for event in events], RELATIONS)),
        ]
    return [f for f in found if len(f.groups) > 1], [f.name for f in found if len(f.groups) < 2]


def number_groups(values: Sequence[float], unit: str = "", *, whole: bool = False) -> dict[str, list[int]]:
    """Group numbers into up to five groups of similar size; return indices by labels such as "15 to 30 s".

    The bounds are quantiles, rounded to two digits, or up to integers if `whole`. A group includes its lower bound and
    excludes its upper bound; labels of `whole` numbers show the first and last number of the group.

    Example:
        >>> number_groups([4.0, 16.0, 44.0, 45.0], " s")
        {'under 11 s': [0], '11 to 22 s': [1], '22 s and more': [2, 3]}
        >>> number_groups([1, 1, 2, 3, 9], whole=True)
        {'1': [0, 1], '2': [2], '3 to 4': [3], '5 and more': [4]}
    """
    quantiles = np.quantile(np.asarray(values, dtype=float), np.arange(1, _PARTS) / _PARTS)
    bounds: list[float] = []
    for bound in sorted({_round(value, whole) for value in quantiles}):
        lowest = bounds[-1] if bounds else -np.inf
        if any(lowest <= value < bound for value in values) and any(value >= bound for value in values):
            bounds.append(bound)
    groups: dict[int, list[int]] = {}
    for place, value in enumerate(values):
        groups.setdefault(int(np.searchsorted(bounds, value, side="right")), []).append(place)
    return {_label(bounds, part, unit, whole, min(values)): groups[part] for part in sorted(groups)}


def _round(value: float, whole: bool) -> float:
    return int(np.ceil(value)) if whole else float(f"{value:.2g}")


def _label(bounds: Sequence[float], part: int, unit: str, whole: bool, least: float) -> str:
    if not bounds:
        return "all"
    if part == len(bounds):
        return f"{bounds[-1]:g}{unit} and more"
    if not whole:
        return f"{bounds[part - 1]:g} to {bounds[part]:g}{unit}" if part else f"under {bounds[0]:g}{unit}"
    first, last = bounds[part - 1] if part else least, bounds[part] - 1
    return f"{first:g}{unit}" if first == last else f"{first:g} to {last:g}{unit}"


def _named_groups(values: Sequence[Any], names: Sequence[str]) -> dict[str, list[int]]:
    groups = {name: [place for place, value in enumerate(values) if value == name] for name in names}
    return {name: places for name, places in groups.items() if places}
