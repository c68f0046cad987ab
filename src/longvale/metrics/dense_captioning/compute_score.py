"""Scores of dense captioning: are the events of a video found, and are they told rightly?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from longvale.metrics.grounding.compute_score import iou
from longvale.metrics.text.captions import score_captions

#: Start and end in one unit for predictions and references, and the caption.
CaptionedInterval: TypeAlias = tuple[float, float, str]

#: An event counts as found when its temporal IoU reaches the threshold (the four of the published scorer).
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)


def match(
    predictions: Sequence[CaptionedInterval], references: Sequence[CaptionedInterval], threshold: float
) -> list[tuple[int, int]]:
    """Pair predicted with reference events one to one, where their IoU reaches the threshold.

    As many pairs as possible are made, and among those ways the one with the largest sum of IoU is taken.

    Returns:
        (index of the prediction, index of the reference), by prediction.

    Example:
        >>> match([(0, 10, ""), (1, 10, "")], [(0, 10, "a bell rings")], 0.5)
        [(0, 0)]
    """
    from scipy.optimize import linear_sum_assignment

    if not predictions or not references:
        return []
    ious = np.array([[iou(p[:2], r[:2]) for r in references] for p in predictions])  # [predictions, references]
    # One more pair outweighs any sum of IoU, which is at most the number of pairs.
    worth = np.where(ious >= threshold, ious + min(ious.shape) + 1, 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return [(int(row), int(col)) for row, col in zip(rows, columns, strict=True) if ious[row, col] >= threshold]


def compute_score(
    predictions: Sequence[Sequence[CaptionedInterval]], references: Sequence[Sequence[CaptionedInterval]]
) -> dict[str, float | int]:
    """Precision, recall and F1 of the events, and CIDEr, BLEU-4 and ROUGE-L of their captions (the strict protocol).

    At each threshold .3, .5, .7 and .9 events are paired by [`match`]. Precision is the share of all predicted events
    that are paired, recall that of all reference events, over the whole corpus. Each reference event's caption is
    compared with that of its pair, or with an empty one: an event that is not found scores 0, and CIDEr's document
    frequencies are the same for every model. Each score without a threshold in its name is the mean over the four.

    Args:
        predictions: the events of each video; a video may have none.
        references: the events of each video, in the same unit and order of videos.

    Returns:
        `CIDEr` (up to 10), `BLEU_4`, `ROUGE_L`, `precision`, `recall`, `F1` as fractions, each also with `@0.3`,
        `@0.5`, `@0.7`, `@0.9`; `count` of videos, `reference_events`, `predicted_events`.

    Raises:
        ValueError: if there is no reference event, or the numbers of videos differ.

    Example:
        >>> scores = compute_score([[(0, 10, "a bell rings"), (30, 60, "a dog barks")]], [[(0, 12, "A bell rings.")]])
        >>> scores["precision@0.5"], scores["recall@0.5"], scores["recall"], scores["ROUGE_L@0.7"]
        (0.5, 1.0, 0.75, 1.0)
    """
    if len(predictions) != len(references):
        raise ValueError(f"predictions of {len(predictions)} videos but references of {len(references)}; give both")
    if not any(references):
        raise ValueError("no event to score: the references are empty")
    by_threshold = {t: _score_at(t, predictions, references) for t in THRESHOLDS}
    names = next(iter(by_threshold.values()))
    return {
        **{name: sum(scores[name] for scores in by_threshold.values()) / len(THRESHOLDS) for name in names},
        **{f"{name}@{t}": by_threshold[t][name] for name in names for t in THRESHOLDS},
        "count": len(references),
        "reference_events": sum(map(len, references)),
        "predicted_events": sum(map(len, predictions)),
    }


def _score_at(
    threshold: float,
    predictions: Sequence[Sequence[CaptionedInterval]],
    references: Sequence[Sequence[CaptionedInterval]],
) -> dict[str, float]:
    captions: list[str] = []  # one a reference event
    paired = 0
    for found, wanted in zip(predictions, references, strict=True):
        caption_of = {reference: found[prediction][2] for prediction, reference in match(found, wanted, threshold)}
        captions += [caption_of.get(index, "") for index in range(len(wanted))]
        paired += len(caption_of)
    predicted = sum(map(len, predictions))
    precision = paired / predicted if predicted else 0.0
    recall = paired / len(captions)
    f1 = 2 * precision * recall / (precision + recall) if paired else 0.0
    text = score_captions(captions, [event[2] for wanted in references for event in wanted])
    return {**text, "precision": precision, "recall": recall, "F1": f1}
