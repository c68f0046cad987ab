"""Metric of grounding for events that occur several times: all spans of an answer against all occurrences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ...events import Annotation, Seconds
from ...metrics.grounding.compute_score import Interval, iou_matrix
from ...registry import metrics, time_formats
from ...tasks import Prediction
from ...timecodes import Protocol
from ..adapters.prompts import read_spans

#: Spans with this IoU, or more, are the same occurrence.
_SAME_IOU = 0.5


@metrics.register("several_spans", tasks=("grounding",))
def several_spans(
    answers: Sequence[Prediction], annotations: Mapping[str, Annotation], protocol: Protocol
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Score all spans of an answer against all events of the video with the same caption.

    `union_IoU` is the time that answer and reference share over the time of both. `span_F1` counts spans with an IoU
    of 0.5 or more with one occurrence each. `count_accuracy` is the share of answers with the right number of spans.

    Args:
        answers, annotations, protocol: as in [`longvale.evaluation.scoring.metrics.Metric`]; both protocols read alike.

    Example:
        >>> from longvale.events import Event
        >>> video = Annotation("v", 100.0, (Event(0, 10, "A bell."), Event(50, 60, "A bell.")))
        >>> answer = Prediction("v", "grounding", "0% to 10%, 50% to 70%", 0)
        >>> scores, _ = several_spans([answer], {"v": video}, "strict")
        >>> {name: round(value, 3) for name, value in scores.items()}
        {'union_IoU': 0.667, 'span_F1': 1.0, 'count_accuracy': 1.0}
    """
    rows = [_row(_spans_of(answer, annotations), _occurrences(answer, annotations)) for answer in answers]
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}, rows


def _spans_of(answer: Prediction, annotations: Mapping[str, Annotation]) -> list[Interval]:
    """Return the spans of the reply, of other models in the notation that was read, of LongVALE's in percent."""
    info, duration = answer.info or {}, annotations[answer.video_id].duration
    if "reader" not in info:
        return read_spans(answer.answer, duration, "percent")
    reader = info["reader"] if info["reader"] in time_formats.names() else "auto"
    return read_spans(str(info.get("reply", answer.answer)), duration, reader)


def _occurrences(answer: Prediction, annotations: Mapping[str, Annotation]) -> list[Interval]:
    events = annotations[answer.video_id].events
    return occurrences(events[answer.sentence_id].caption, [(e.start, e.end, e.caption) for e in events])


def occurrences(caption: str, events: Iterable[tuple[Seconds, Seconds, str]]) -> list[Interval]:
    """Return start and end of the events with a caption; case, spaces and punctuation do not count.

    Example:
        >>> occurrences("A bell.", [(0.0, 5.0, "A bell"), (9.0, 12.0, "A dog."), (20.0, 25.0, "a bell.")])
        [(0.0, 5.0), (20.0, 25.0)]
    """
    return [(start, end) for start, end, other in events if _plain(other) == _plain(caption)]


def _row(found: Sequence[Interval], wanted: Sequence[Interval]) -> dict[str, float]:
    return {
        "union_IoU": union_iou(found, wanted),
        "span_F1": 2 * _matched(found, wanted) / (len(found) + len(wanted)),
        "count_accuracy": float(len(found) == len(wanted)),
    }


def union_iou(found: Sequence[Interval], wanted: Sequence[Interval]) -> float:
    """Return the time that two sets of intervals share, over the time of both.

    Example:
        >>> union_iou([(0.0, 10.0), (20.0, 30.0)], [(0.0, 10.0)])
        0.5
    """
    both = _length([*found, *wanted])
    return (_length(found) + _length(wanted) - both) / both if both else 0.0


def _length(spans: Sequence[Interval]) -> float:
    """Return the length of the union of intervals."""
    length, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        length += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return length


def _matched(found: Sequence[Interval], wanted: Sequence[Interval]) -> int:
    """Return the number of pairs, the closest first."""
    ious = iou_matrix(found, wanted)
    pairs = sorted(((ious[i, j], i, j) for i in range(len(found)) for j in range(len(wanted))), reverse=True)
    left, right = set[int](), set[int]()
    for value, i, j in pairs:
        if value >= _SAME_IOU and i not in left and j not in right:
            left.add(i)
            right.add(j)
    return len(left)


def _plain(caption: str) -> str:
    return " ".join(re.findall(r"\w+", caption.lower()))
