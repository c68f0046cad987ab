"""Verifiable rewards: agreement of an answer with the annotation, and whether it has the requested format.

Each function takes the input of TRL's GRPO trainer, `completions` and the columns of the dataset, one item per
completion. It returns a number from 0 to 1 per completion, or None for questions of another task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from longvale.events import Seconds
from longvale.metrics.answers import read_events, read_span
from longvale.metrics.dense_captioning.compute_score import match
from longvale.metrics.dense_captioning.soda import score_videos
from longvale.metrics.grounding.compute_score import THRESHOLDS, iou
from longvale.reading.reasoning import strip_reasoning
from longvale.tasks import Task

Completion = Sequence[dict[str, str]]

#: Answer formats that the published questions request.
_SPAN_FORMAT = re.compile(r"From \d\d to \d\d\.?")
_EVENT_FORMAT = re.compile(r"From \d\d to \d\d, \S.*")


def temporal_iou(
    completions: Sequence[Completion],
    task: Sequence[Task],
    start: Sequence[Seconds],
    end: Sequence[Seconds],
    duration: Sequence[Seconds],
    **_: Any,
) -> list[float | None]:
    """Score grounding: IoU of the answer's interval and the event; 0 if the answer has no interval.

    Example:
        >>> reward, = temporal_iou([[{"content": "From 05 to 25."}]], ["grounding"], [3.0], [9.0], [60.0])
        >>> round(reward, 9)
        0.5
    """

    def reward(text: str, of: Task, *event: Seconds) -> float | None:
        *wanted, length = event
        if of != "grounding":
            return None
        span = read_span(text, length)
        return 0.0 if span is None else iou(span, (wanted[0] / length, wanted[1] / length))

    return [reward(*row) for row in zip(_texts(completions), task, start, end, duration, strict=True)]


def answer_format(completions: Sequence[Completion], task: Sequence[Task], **_: Any) -> list[float | None]:
    """Score 1 if the answer has exactly the format that the question requests, else 0.

    Example:
        >>> answer_format([[{"content": "From 05 to 25."}], [{"content": "At 05 to 25"}]], ["grounding"] * 2)
        [1.0, 0.0]
    """

    def right(text: str, of: Task) -> float | None:
        if of == "grounding":
            return float(_SPAN_FORMAT.fullmatch(text.strip()) is not None)
        lines = text.strip().splitlines()
        return float(bool(lines) and all(_EVENT_FORMAT.fullmatch(line.strip()) for line in lines))

    return [right(*row) for row in zip(_texts(completions), task, strict=True)]


def boundary_f1(
    completions: Sequence[Completion],
    task: Sequence[Task],
    events: Sequence[Sequence[dict[str, Any]]],
    duration: Sequence[Seconds],
    **_: Any,
) -> list[float | None]:
    """Score dense captioning: F1 of the boundaries, the mean over IoU thresholds .3, .5 and .7.

    Example:
        >>> events = [{"start": 0.0, "end": 30.0, "caption": "A bell rings."}]
        >>> boundary_f1([[{"content": "From 00 to 50, a dog barks."}]], ["dense_captioning"], [events], [60.0])
        [1.0]
    """

    def reward(text: str, of: Task, wanted: Sequence[dict[str, Any]], length: Seconds) -> float | None:
        if of != "dense_captioning":
            return None
        found, known = read_events(text, length), _intervals(wanted)
        pairs = sum(len(match(found, known, threshold)) for threshold in THRESHOLDS) if found else 0
        return 2 * pairs / len(THRESHOLDS) / (len(found) + len(known))

    return [reward(*row) for row in zip(_texts(completions), task, events, duration, strict=True)]


def soda_c(
    completions: Sequence[Completion],
    task: Sequence[Task],
    events: Sequence[Sequence[dict[str, Any]]],
    duration: Sequence[Seconds],
    **_: Any,
) -> list[float | None]:
    """Score dense captioning: F1 of SODA_c with METEOR, boundaries and captions together.

    Example:
        >>> soda_c([[{"content": "From 05 to 25."}]], ["grounding"], [[]], [60.0])
        [None]
    """
    rows = zip(_texts(completions), task, events, duration, strict=True)
    asked = [(read_events(text, s), _intervals(known)) for text, of, known, s in rows if of == "dense_captioning"]
    scores = iter(score_videos([found for found, _ in asked], [known for _, known in asked]) if asked else ())
    return [next(scores)["F1"] if of == "dense_captioning" else None for of in task]


#: Rewards by name, for the option `rewards`.
REWARDS: dict[str, Callable[..., list[float | None]]] = {
    function.__name__: function for function in (temporal_iou, answer_format, boundary_f1, soda_c)
}


def _texts(completions: Sequence[Completion]) -> list[str]:
    """Return the answers without the reasoning that a model may write before them."""
    return [strip_reasoning(completion[0]["content"]) for completion in completions]


def _intervals(events: Sequence[dict[str, Any]]) -> list[tuple[Seconds, Seconds, str]]:
    return [(event["start"], event["end"], event["caption"]) for event in events]
