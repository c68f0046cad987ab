"""Metrics that are computed in addition to those of the benchmark, chosen by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ...events import Annotation
from ...registry import metrics
from ...tasks import Prediction, Task
from ...timecodes import Protocol as ScoringProtocol
from .several_spans import several_spans

__all__ = ["Metric", "choose_metrics", "several_spans"]


class Metric(Protocol):
    """Interface of a metric: a function, registered with the tasks that it scores.

    Example:
        >>> @metrics.register(tasks=("segment_captioning",))
        ... def words(answers, annotations, protocol):
        ...     rows = [{"words": float(len(answer.answer.split()))} for answer in answers]
        ...     return {"words": sum(row["words"] for row in rows) / len(rows)}, rows
        >>> words([Prediction("abc", "segment_captioning", "A bell rings.", 0)], {}, "strict")[0]
        {'words': 3.0}
    """

    #: Tasks of LongVALE that it scores.
    tasks: tuple[Task, ...]

    def __call__(
        self, answers: Sequence[Prediction], annotations: Mapping[str, Annotation], protocol: ScoringProtocol
    ) -> tuple[dict[str, Any], list[dict[str, float]]]:
        """Score the answers to a task.

        Args:
            answers: answers without repetition, whose video and event are in the annotations.
            annotations: annotations by video ID.
            protocol: "strict" or "official", see [`longvale.timecodes`].

        Returns:
            The scores of all answers by name, and one row per answer; none of the names may be one of the benchmark's.
            Tables show scores times 100.
        """


def choose_metrics(names: Iterable[str], tasks: Sequence[str]) -> dict[str, Metric]:
    """Return metrics by name.

    Args:
        names: registered names, or `package.module:name`.
        tasks: tasks that are scored.

    Raises:
        ValueError: if a name is unknown, or a metric scores none of the tasks.
    """
    chosen: dict[str, Metric] = {name: metrics.get(name) for name in names}
    for name, metric in chosen.items():
        if not set(metric.tasks) & set(tasks):
            raise ValueError(f"metric {name} scores {', '.join(metric.tasks)}; the answers are to {', '.join(tasks)}")
    return chosen
