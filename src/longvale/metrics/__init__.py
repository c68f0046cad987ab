"""Metrics of the three tasks, each a pure scorer with a thin `evaluate.Metric`; text metrics are in `text`."""

from __future__ import annotations

from pathlib import Path

from ..tasks import TASKS


def path(name: str) -> str:
    """Return the folder of a task's metric, for `evaluate.load`.

    Args:
        name: a task: `grounding`, `dense_captioning` or `segment_captioning`.

    Raises:
        ValueError: if the metric is unknown.

    Example:
        >>> import evaluate
        >>> metric = evaluate.load(path("grounding"))
        >>> metric.compute(predictions=["From 00 to 50."], references=[{"start": 0, "end": 5, "duration": 10}])["mIoU"]
        1.0
    """
    if name not in TASKS:
        raise ValueError(f"unknown metric {name!r}; expected one of {', '.join(TASKS)}")
    return str(Path(__file__).parent / name)
