"""Comparison of two runs on the same questions, with confidence intervals of the score differences."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...io import load_json
from ...tasks import TASKS, Task
from ...text_table import align
from .bootstrap import RESAMPLES, mean_intervals
from .score import TABLE


@dataclass(frozen=True)
class Comparison:
    """A score of two runs, as means over videos, and the confidence interval of the difference.

    Args:
        first, second: score of each run.
        low, high: bounds of the confidence interval of `second - first`.
    """

    first: float
    second: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """Return `second - first`."""
        return self.second - self.first

    @property
    def is_clear(self) -> bool:
        """Return whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def compare_files(first: str | os.PathLike, second: str | os.PathLike, **options: Any) -> dict[Task, dict]:
    """Run [`compare`] on two files that `longvale score --per-video` wrote.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file does not contain scores by video, or the two do not match.
    """
    loaded = []
    for path in (first, second):
        scores = load_json(Path(path))
        if not isinstance(scores, dict) or not isinstance(scores.get("videos"), dict):
            raise ValueError(
                f"{path}: holds no scores by video; write it with `longvale score PREDICTIONS --references ANNOTATIONS "
                "--per-video FILE`"
            )
        loaded.append(scores)
    try:
        return compare(*loaded, **options)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{first}, {second}: damaged scores by video ({error!r}); write them again") from error


def compare(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[Task, dict[str, Comparison]]:
    """Compare the scores of two runs on the same videos with a paired bootstrap over the videos.

    Videos are drawn with replacement, for both runs together, to compute the percentile interval of the difference of
    the means, see [`longvale.evaluation.scoring.bootstrap`]. A video is weighted by its number of questions. Some
    corpus scores are not means over videos (corpus BLEU, METEOR and F1 of the strict protocol); for these the score
    table differs slightly.

    Args:
        first, second: results of [`longvale.evaluation.scoring.score.score_predictions`].
        confidence: confidence level of the interval.
        resamples: number of resamples.
        seed: random seed.

    Returns:
        The scores in [`longvale.evaluation.scoring.score.TABLE`] of each task that both runs contain.

    Raises:
        ValueError: if protocols or videos differ, there are fewer than two videos, or the runs have no common task.
    """
    if first["protocol"] != second["protocol"]:
        raise ValueError(f"one is scored by the {first['protocol']} protocol, the other by {second['protocol']}")
    tasks = [
        task for task in TASKS if all(any(task in video for video in s["videos"].values()) for s in (first, second))
    ]
    if not tasks:
        raise ValueError("the two have no task in common")
    compared = {}
    for task in tasks:
        rows = [{key: video[task] for key, video in s["videos"].items() if task in video} for s in (first, second)]
        _check_videos(task, *rows)
        pairs = [(rows[0][key], rows[1][key]) for key in sorted(rows[0])]
        compared[task] = compare_rows(pairs, TABLE[task], confidence=confidence, resamples=resamples, seed=seed)
    return compared


def _check_videos(task: Task, first: Mapping, second: Mapping) -> None:
    for here, there, which in ((first, second, "second"), (second, first, "first")):
        if lacking := sorted(here.keys() - there):
            raise ValueError(f"{task}: the {which} lacks {len(lacking)} videos of the other, such as {lacking[0]!r}")
    if len(first) < 2:
        raise ValueError(f"{task}: one video is too few to compare by; two or more are needed")
    for video_id, row in first.items():
        if row["count"] != second[video_id]["count"]:
            raise ValueError(f"{task}: video {video_id!r} has {row['count']} and {second[video_id]['count']} answers")


def compare_rows(
    pairs: Sequence[tuple[Mapping, Mapping]], names: Sequence[str], **drawing: Any
) -> dict[str, Comparison]:
    """Compare the named scores, given pairs of per-video rows of two runs; see [`compare`]."""
    weights = np.array([one["count"] for one, _ in pairs], dtype=float)
    scores = np.array([[[row[name] for name in names] for row in pair] for pair in pairs])  # [videos, 2, names]
    low, high = mean_intervals(scores[:, 1] - scores[:, 0], weights, **drawing)
    first, second = np.tensordot(weights / weights.sum(), scores, axes=1)
    return {
        name: Comparison(*map(float, values)) for name, *values in zip(names, first, second, low, high, strict=True)
    }


def format_comparison(compared: Mapping[Task, Mapping[str, Comparison]], names: Sequence[str]) -> str:
    """Format a comparison as a text table, times 100; a star marks differences whose interval excludes 0.

    Example:
        >>> print(format_comparison({"grounding": {"mIoU": Comparison(0.25, 0.5, 0.125, 0.375)}}, ["old", "new"]))
        A old, B new; means over videos, times 100
                             A      B   B - A      95% interval
        grounding  mIoU  25.00  50.00  +25.00  +12.50 to +37.50 *
    """
    cells: list[tuple[str, ...]] = [("", "", "A", "B", "B - A", "95% interval  ")]
    for task, rows in compared.items():
        for place, (name, row) in enumerate(rows.items()):
            values = (f"{100 * row.first:.2f}", f"{100 * row.second:.2f}", f"{100 * row.difference:+.2f}")
            interval = f"{100 * row.low:+.2f} to {100 * row.high:+.2f}{' *' if row.is_clear else '  '}"
            cells.append(("" if place else task, name, *values, interval))
    return "\n".join([f"A {names[0]}, B {names[1]}; means over videos, times 100", *align(cells)])
