"""Agreement of two annotators on the same videos."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ...events import RELATIONS, Annotation, Event, load_annotations
from ...metrics.grounding.compute_score import iou
from ..pipeline import stage_folder
from ..stages import StageLog

#: The tIoU thresholds used to score dense captioning.
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
#: Minimum tIoU of two events that count as the same event, whose relations are compared.
SAME_IOU = 0.5


def agreement_of_files(first: str | os.PathLike, second: str | os.PathLike) -> dict[str, Any]:
    """Compute [`agree`] for two annotation files; relations come from the stages next to them.

    Raises:
        FileNotFoundError, ValueError: as [`longvale.events.load_annotations`]; if they share no video.
    """
    return agree(*(_with_relations(path) for path in (first, second)))


def _with_relations(path: str | os.PathLike) -> dict[str, Annotation]:
    from dataclasses import replace

    annotations = load_annotations(path)
    lines = stage_folder(path) / "events.jsonl"
    if not lines.is_file():
        return annotations
    log = StageLog(lines, ("video_id", "event_id"))

    def known(video_id: str, index: int, event: Event) -> Event:
        record = log.get(video_id, index)
        if record is None or (record["start"], record["end"]) != (event.start, event.end):
            return event
        return replace(event, relation=record["relation"])

    return {
        video_id: replace(a, events=tuple(known(video_id, i, e) for i, e in enumerate(a.events)))
        for video_id, a in annotations.items()
    }


def agree(first: Mapping[str, Annotation], second: Mapping[str, Annotation]) -> dict[str, Any]:
    """Compute the agreement over the videos that both annotators have.

    Args:
        first: annotations of one annotator by video id.
        second: annotations of the other.

    Returns:
        `videos`, their number. `events`, the number per annotator. `f1` per temporal IoU threshold: events are paired
        one to one, with as many pairs of at least the threshold as possible. `kappa` of the relations (Cohen 1960) over
        pairs with a tIoU of at least .5 and a relation in both; None if there are no such pairs, or if both annotators
        always choose the same single relation. `pairs`, the number of these pairs.

    Raises:
        ValueError: if they share no video.

    Example:
        >>> a = {"v": Annotation("v", 20.0, (Event(0, 10, "x"), Event(10, 20, "y")))}
        >>> b = {"v": Annotation("v", 20.0, (Event(0, 9, "x"),))}
        >>> {threshold: round(value, 2) for threshold, value in agree(a, b)["f1"].items()}
        {0.3: 0.67, 0.5: 0.67, 0.7: 0.67, 0.9: 0.67}
    """
    shared = [video_id for video_id in first if video_id in second]
    if not shared:
        raise ValueError("the two files share no video")
    pairs = [(first[v].events, second[v].events) for v in shared]
    counts = [sum(len(side[i]) for side in pairs) for i in (0, 1)]
    f1 = {}
    for threshold in THRESHOLDS:
        matched = sum(len(_match(a, b, threshold)) for a, b in pairs)
        f1[threshold] = 2 * matched / sum(counts) if sum(counts) else 1.0
    labels = [
        (a[i].relation, b[j].relation)
        for a, b in pairs
        for i, j in _match(a, b, SAME_IOU)
        if a[i].relation is not None and b[j].relation is not None
    ]
    return {"videos": len(shared), "events": counts, "f1": f1, "kappa": kappa(labels), "pairs": len(labels)}


def _match(first: Sequence[Event], second: Sequence[Event], threshold: float) -> list[tuple[int, int]]:
    """Return as many pairs of events of at least the threshold as possible, with the largest total overlap."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    if not first or not second:
        return []
    overlap = np.array([[iou((a.start, a.end), (b.start, b.end)) for b in second] for a in first])
    good = overlap >= threshold
    rows, columns = linear_sum_assignment(-(good * (1 + overlap / (1 + len(first) + len(second)))))
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if good[i, j]]


def kappa(labels: Sequence[tuple[str, str]]) -> float | None:
    """Return Cohen's kappa: agreement beyond chance, at most 1; None if chance agreement is 1 or there are no labels.

    Example:
        >>> kappa([("causality", "causality"), ("visual-only", "visual-only"), ("causality", "visual-only")])
        0.4
    """
    if not labels:
        return None
    seen = sum(a == b for a, b in labels) / len(labels)
    chance = sum(
        sum(a == name for a, _ in labels) * sum(b == name for _, b in labels) / len(labels) ** 2 for name in RELATIONS
    )
    return None if chance >= 1 else round((seen - chance) / (1 - chance), 6)


def format_agreement(found: Mapping[str, Any]) -> str:
    """Format the agreement as lines of text."""
    lines = [f"{found['videos']} videos, {found['events'][0]} and {found['events'][1]} events"]
    lines += [f"F1 at temporal IoU {threshold}: {value:.3f}" for threshold, value in found["f1"].items()]
    value = "not defined" if found["kappa"] is None else f"{found['kappa']:.3f}"
    lines.append(f"kappa of relations: {value} ({found['pairs']} pairs)")
    return "\n".join(lines)
