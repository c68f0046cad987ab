"""Ceilings of time formats: what a model that knows the exact times can reach if it writes them in a format."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from ...data.statistics import read_splits
from ...events import Annotation
from ...metrics.grounding.compute_score import compute_score
from ...registry import time_formats
from ...tasks import Question
from ...text_table import align
from ..adapters.prompts import parse_reply

#: Scores of the table.
COLUMNS = ("mIoU", "R@0.3", "R@0.5", "R@0.7")


def measure_ceilings(videos: Iterable[Annotation], formats: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Score the exact times of all events, written in each format and read again, as answers to grounding.

    Args:
        videos: annotations.
        formats: names of registered formats; default: all built-in ones but `auto`, which is read, not written.

    Returns:
        Scores by format, as fractions, and `same`: the share of events whose start and end are written alike.

    Raises:
        ValueError: if there are no events, or a format is unknown.

    Example:
        >>> from longvale.events import Event
        >>> video = Annotation("v", 300.0, (Event(12.0, 13.0, "A bell."),))
        >>> {name: round(row["mIoU"], 2) for name, row in measure_ceilings([video], ["percent", "seconds"]).items()}
        {'percent': 0.33, 'seconds': 1.0}
    """
    events = [(video, index) for video in videos for index in range(len(video.events))]
    if not events:
        raise ValueError("no events to measure time formats on; give a data set with events")
    names = [name for name in time_formats.names() if name != "auto"] if formats is None else formats
    return {name: _measure(name, events) for name in names}


def _measure(name: str, events: Sequence[tuple[Annotation, int]]) -> dict[str, float]:
    times, found, wanted, same = time_formats.create(name), [], [], 0
    for video, index in events:
        event, duration = video.events[index], video.duration
        asked = Question(video.video_id, "grounding", index, "", "")
        reading = parse_reply(asked, times.render(event.start, event.end, duration), duration, times)
        found.append(next(((start / duration, end / duration) for start, end, _ in reading.events or ()), None))
        wanted.append((event.start / duration, event.end / duration))
        same += times.write(event.start, duration) == times.write(event.end, duration)
    scores = compute_score(found, wanted)
    return {**{column: scores[column] for column in COLUMNS}, "same": same / len(events)}


def read_ceilings(path: str | os.PathLike, formats: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Measure the ceilings of each split of a data set.

    Args:
        path: folder of official files or of `longvale annotate`, or one file.
        formats: as in [`measure_ceilings`].

    Raises:
        FileNotFoundError, ValueError: as [`longvale.data.statistics.read_splits`] and [`measure_ceilings`].
    """
    ceilings = {}
    for split, videos in read_splits(path).items():
        try:
            ceilings[split] = measure_ceilings(videos, formats)
        except ValueError as error:
            raise ValueError(f"{path}: {split}: {error}") from None
    return ceilings


def format_ceilings(ceilings: dict[str, dict[str, dict[str, float]]]) -> str:
    """Format ceilings as a text table, times 100.

    Example:
        >>> row = {"mIoU": 0.84, "R@0.3": 1.0, "R@0.5": 0.95, "R@0.7": 0.85, "same": 0.03}
        >>> print(format_ceilings({"test": {"percent": row}}))
        test      mIoU   R@0.3  R@0.5  R@0.7  start = end
        percent  84.00  100.00  95.00  85.00         3.00
        grounding by a model that knows the exact times; scores times 100
    """
    lines = []
    for split, rows in ceilings.items():
        table = [(name, *(f"{100 * row[column]:.2f}" for column in (*COLUMNS, "same"))) for name, row in rows.items()]
        lines += align([(split, *COLUMNS, "start = end"), *table])
    return "\n".join([*lines, "grounding by a model that knows the exact times; scores times 100"])
