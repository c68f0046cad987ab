"""Scores of temporal grounding: overlap of the predicted interval with the event's interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from longvale.metrics.protocol_options import ProtocolOptions, protocol_options
from longvale.timecodes import Protocol

#: Start and end, in the same unit for predictions and references: seconds, percent, ...
Interval: TypeAlias = tuple[float, float]

#: Prediction of an answer: an interval, several candidates (most confident first), or None.
Prediction: TypeAlias = Interval | Sequence[Interval] | None

#: Recall is reported at these IoU thresholds (table 2 of the paper).
THRESHOLDS = (0.3, 0.5, 0.7)

#: The published dense captioning scorer adds this to a union to avoid a division by 0.
_UNION_ROUNDING = 1e-8


def iou(first: Interval, second: Interval) -> float:
    """Compute the intersection over union of two intervals; 0 if they do not overlap or one has no length.

    Example:
        >>> iou((0, 10), (5, 20)), iou((0, 10), (10, 20))
        (0.25, 0.0)
    """
    shared = min(first[1], second[1]) - max(first[0], second[0])
    if shared <= 0:
        return 0.0
    # Overlapping intervals have no gap between them: their union is the hull.
    return shared / (max(first[1], second[1]) - min(first[0], second[0]))


def iou_matrix(first: Sequence[Interval], second: Sequence[Interval], *, rounded_union: bool = False) -> np.ndarray:
    """Compute [`iou`] of all pairs, [first, second]; for `rounded_union` see [`longvale.metrics.protocol_options`].

    Example:
        >>> iou_matrix([(0, 10)], [(5, 20), (10, 20)])
        array([[0.25, 0.  ]])
    """
    one, other = np.array(first, dtype=float).reshape(-1, 1, 2), np.array(second, dtype=float).reshape(1, -1, 2)
    shared = np.minimum(one[..., 1], other[..., 1]) - np.maximum(one[..., 0], other[..., 0])
    hull = np.maximum(one[..., 1], other[..., 1]) - np.minimum(one[..., 0], other[..., 0])
    hull = hull + _UNION_ROUNDING if rounded_union else hull
    return np.divide(shared, hull, out=np.zeros(shared.shape), where=shared > 0)


def score_questions(
    predictions: Sequence[Prediction],
    references: Sequence[Interval],
    *,
    protocol: Protocol = "strict",
    options: ProtocolOptions | None = None,
) -> list[list[float]]:
    """Compute the IoU of each candidate of each question, in order; an empty list for an answer without interval.

    Arguments and errors are as in [`compute_score`].

    Example:
        >>> score_questions([[(5, 10), (0, 10)], None], [(0, 20), (5, 10)])
        [[0.25, 0.5], []]
    """
    options = protocol_options(protocol) if options is None else options
    if len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions but {len(references)} references; give one of both a question"
        )
    ious = [[iou(one, wanted) for one in _candidates(p)] for p, wanted in zip(predictions, references, strict=True)]
    return [[round(value, 2) for value in values] for values in ious] if options.rounded_iou else ious


def compute_score(
    predictions: Sequence[Prediction],
    references: Sequence[Interval],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    candidates: Sequence[int] = (1,),
    protocol: Protocol = "strict",
    options: ProtocolOptions | None = None,
) -> dict[str, float | int]:
    """Compute the mean IoU, and the share of questions whose IoU reaches each threshold.

    Args:
        predictions: one interval per question, or several candidates, most confident first; None for an answer without
            interval: its IoU is 0 and it stays in the denominator.
        references: one interval per question, in the same order and unit; for published numbers, fractions of the
            video's duration.
        thresholds: IoU thresholds, above 0 and up to 1.
        candidates: values of n in "R@n", the recall of the best of the first n candidates. The mean IoU uses the first
            candidate only.
        protocol: sets the default of `options`: `official` rounds each IoU to two decimals first, as the published
            scorer does, so that .296 counts at .3; `strict` does not round.
        options: protocol options; only `rounded_iou` applies.

    Returns:
        `mIoU` and `R@0.3`, `R@0.5`, `R@0.7` as fractions (of the first candidate; for n above 1 `R5@0.3`, ...), `count`
        of questions, `parsed`, the number of questions with an interval.

    Raises:
        ValueError: if there are no questions, the lengths differ, a threshold or n is invalid, or the protocol is
            unknown.

    Example:
        >>> compute_score([(0, 10), None], [(0, 20), (5, 10)])
        {'mIoU': 0.25, 'R@0.3': 0.5, 'R@0.5': 0.5, 'R@0.7': 0.0, 'count': 2, 'parsed': 1}
        >>> compute_score([[(5, 10), (0, 10)]], [(0, 20)], thresholds=[0.5], candidates=[1, 5])
        {'mIoU': 0.25, 'R@0.5': 0.0, 'R5@0.5': 1.0, 'count': 1, 'parsed': 1}
    """
    if any(not 0 < threshold <= 1 for threshold in thresholds) or any(n < 1 for n in candidates):
        raise ValueError(f"thresholds must be above 0 to 1 and candidates 1 or more, not {thresholds} and {candidates}")
    ious = score_questions(predictions, references, protocol=protocol, options=options)
    if not ious:
        raise ValueError("no question to score: predictions and references are empty")
    best = {n: [max(values[:n], default=0.0) for values in ious] for n in {1, *candidates}}
    return {
        "mIoU": sum(best[1]) / len(ious),
        **{
            f"R{'' if n == 1 else n}@{threshold}": sum(value >= threshold for value in best[n]) / len(ious)
            for n in candidates
            for threshold in thresholds
        },
        "count": len(ious),
        "parsed": sum(bool(values) for values in ious),
    }


def _candidates(prediction: Prediction) -> Sequence[Interval]:
    if prediction is None:
        return ()
    alone = len(prediction) and not np.ndim(prediction[0])
    return (prediction,) if alone else prediction  # type: ignore[return-value]
