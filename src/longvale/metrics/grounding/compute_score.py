"""Scores of temporal grounding: how well the named interval meets the event's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from longvale.timecodes import PROTOCOLS, Protocol

#: Start and end, in one unit for predictions and references: seconds, percent, ...
Interval: TypeAlias = tuple[float, float]

#: Recall is reported at these IoU thresholds (table 2 of the paper).
THRESHOLDS = (0.3, 0.5, 0.7)


def iou(first: Interval, second: Interval) -> float:
    """Intersection over union of two intervals; 0 when they share nothing or one has no length.

    Example:
        >>> iou((0, 10), (5, 20)), iou((0, 10), (10, 20))
        (0.25, 0.0)
    """
    shared = min(first[1], second[1]) - max(first[0], second[0])
    if shared <= 0:
        return 0.0
    # Intervals that share something have no gap between them: their union is the hull.
    return shared / (max(first[1], second[1]) - min(first[0], second[0]))


def compute_score(
    predictions: Sequence[Interval | None],
    references: Sequence[Interval],
    *,
    protocol: Protocol = "strict",
) -> dict[str, float | int]:
    """Mean IoU, and the share of questions whose IoU reaches .3, .5 and .7.

    Args:
        predictions: one interval a question, None where the answer named none: its IoU is 0 and it stays in the
            denominator.
        references: one interval a question, in the same unit and order.
        protocol: `official` rounds each IoU to two decimals first, as the published scorer does, so that .295 counts
            at .3; `strict` does not round.

    Returns:
        `mIoU` and `R@0.3`, `R@0.5`, `R@0.7` as fractions, `count` of questions, `parsed` of them with an interval.

    Raises:
        ValueError: if there is no question, the lengths differ, or the protocol is unknown.

    Example:
        >>> compute_score([(0, 10), None], [(0, 20), (5, 10)])
        {'mIoU': 0.25, 'R@0.3': 0.5, 'R@0.5': 0.5, 'R@0.7': 0.0, 'count': 2, 'parsed': 1}
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; expected one of {', '.join(PROTOCOLS)}")
    if len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions but {len(references)} references; give one of both a question"
        )
    if not references:
        raise ValueError("no question to score: predictions and references are empty")
    ious = [0.0 if p is None else iou(p, r) for p, r in zip(predictions, references, strict=True)]
    if protocol == "official":
        ious = [round(value, 2) for value in ious]
    return {
        "mIoU": sum(ious) / len(ious),
        **{f"R@{t}": sum(value >= t for value in ious) / len(ious) for t in THRESHOLDS},
        "count": len(ious),
        "parsed": sum(p is not None for p in predictions),
    }
