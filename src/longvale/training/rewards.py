"""Verifiable rewards: agreement of an answer with the annotation, and whether it has the requested format.

Each function takes the input of TRL's GRPO trainer, `completions` and the columns of the dataset, one item per
completion. It returns a number from 0 to 1 per completion, or None for questions of another task. The column `times`
names the format in which times were asked for; without it they are timecodes, as in the published questions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from longvale.evaluation.adapters.prompts import parse_reply, read_spans
from longvale.evaluation.scoring.several_spans import occurrences, union_iou
from longvale.events import Event, Seconds
from longvale.metrics.answers import read_events, read_span
from longvale.metrics.dense_captioning.compute_score import match
from longvale.metrics.dense_captioning.soda import score_videos
from longvale.metrics.grounding.compute_score import THRESHOLDS, Interval, iou
from longvale.metrics.text import meteor
from longvale.metrics.text.ptb import tokenize
from longvale.reading.reasoning import strip_reasoning
from longvale.registry import time_formats
from longvale.tasks import Question, Task

Completion = Sequence[dict[str, str]]
#: Start and end as shares of the video's duration, 0 to 1.
Shares = tuple[float, float]

#: Answer formats that the published questions request.
_SPAN_FORMAT = re.compile(r"From \d\d to \d\d\.?")
_EVENT_FORMAT = re.compile(r"From \d\d to \d\d, \S.*")


def temporal_iou(
    completions: Sequence[Completion],
    task: Sequence[Task],
    start: Sequence[Seconds],
    end: Sequence[Seconds],
    duration: Sequence[Seconds],
    times: Sequence[str] | None = None,
    **_: Any,
) -> list[float | None]:
    """Score grounding: IoU of the answer's interval and the event; 0 if the answer has no interval.

    Example:
        >>> reward, = temporal_iou([[{"content": "From 05 to 25."}]], ["grounding"], [3.0], [9.0], [60.0])
        >>> round(reward, 9)
        0.5
    """
    return _compare_spans(iou, completions, task, start, end, duration, times)


def temporal_distance(
    completions: Sequence[Completion],
    task: Sequence[Task],
    start: Sequence[Seconds],
    end: Sequence[Seconds],
    duration: Sequence[Seconds],
    times: Sequence[str] | None = None,
    **_: Any,
) -> list[float | None]:
    """Score grounding: 1 minus the Wasserstein distance of the answer's interval and the event, by the duration.

    Unlike the IoU, it says which of two intervals beside the event is the closer one. 0 without an interval.

    Example:
        >>> answers = [[{"content": "From 50 to 60."}], [{"content": "From 20 to 30."}]]
        >>> found = temporal_distance(answers, ["grounding"] * 2, [0.0, 0.0], [6.0, 6.0], [60.0, 60.0])
        >>> [round(reward, 3) for reward in found]
        [0.5, 0.8]
    """
    return _compare_spans(lambda *spans: 1 - _distance(*spans), completions, task, start, end, duration, times)


def several_spans(
    completions: Sequence[Completion],
    task: Sequence[Task],
    start: Sequence[Seconds],
    end: Sequence[Seconds],
    events: Sequence[Sequence[dict[str, Any]]],
    duration: Sequence[Seconds],
    times: Sequence[str] | None = None,
    **_: Any,
) -> list[float | None]:
    """Score grounding of what happens several times: IoU of all intervals of the answer and all events of its caption.

    Example:
        >>> events = [{"start": s, "end": s + 6, "caption": "A bell rings."} for s in (0.0, 30.0)]
        >>> answers = [[{"content": "From 00 to 10 and from 50 to 60."}], [{"content": "From 00 to 10."}]]
        >>> several_spans(answers, ["grounding"] * 2, [0.0] * 2, [6.0] * 2, [events] * 2, [60.0] * 2)
        [1.0, 0.5]
    """

    def reward(
        text: str, span: Interval, known: Sequence[tuple[Seconds, Seconds, str]], length: Seconds, form: str
    ) -> float:
        caption = next((caption for *times, caption in known if tuple(times) == span), None)
        wanted = [span] if caption is None else occurrences(caption, known)
        return union_iou(read_spans(text, length, form or "percent"), wanted)

    rows = zip(_texts(completions), task, start, end, events, duration, times or [""] * len(task), strict=True)
    return [
        reward(text, (begin, stop), _intervals(known), length, form) if of == "grounding" else None
        for text, of, begin, stop, known, length, form in rows
    ]


def _compare_spans(
    score: Callable[[Shares, Shares], float],
    completions: Sequence[Completion],
    task: Sequence[Task],
    start: Sequence[Seconds],
    end: Sequence[Seconds],
    duration: Sequence[Seconds],
    times: Sequence[str] | None,
) -> list[float | None]:
    """Score the interval of each answer against the event; 0 without an interval, None for another task."""
    rows = zip(_answers(completions, task, "grounding", duration, times), start, end, duration, strict=True)
    return [
        None if answer is _OTHER else 0.0 if answer is None else score(answer, (begin / length, stop / length))
        for answer, begin, stop, length in rows
    ]


def _distance(first: Shares, second: Shares) -> float:
    """Return the 1-Wasserstein distance of the uniform distributions on two intervals.

    It is the mean of the difference of their quantiles, which is linear, from `first[0] - second[0]` to
    `first[1] - second[1]`.
    """
    begin, stop = first[0] - second[0], first[1] - second[1]
    if begin * stop >= 0:
        return abs(begin + stop) / 2
    return (begin * begin + stop * stop) / (2 * abs(stop - begin))


def answer_format(
    completions: Sequence[Completion],
    task: Sequence[Task],
    duration: Sequence[Seconds] | None = None,
    times: Sequence[str] | None = None,
    **_: Any,
) -> list[float | None]:
    """Score 1 if the answer has exactly the format that the question requests, else 0; None for segment captioning.

    Example:
        >>> answer_format([[{"content": "From 05 to 25."}], [{"content": "At 05 to 25"}]], ["grounding"] * 2)
        [1.0, 0.0]
        >>> answer_format([[{"content": "From 3.0 to 9.5 seconds."}]], ["grounding"], [60.0], ["seconds"])
        [1.0]
    """
    lengths, forms = duration or [0.0] * len(task), times or [""] * len(task)
    rows = zip(_texts(completions), task, lengths, forms, strict=True)
    return [None if row[1] == "segment_captioning" else float(_is_formatted(*row)) for row in rows]


def _is_formatted(text: str, task: Task, duration: Seconds, times: str) -> bool:
    """Return whether an answer is what the format writes for the times and captions in it."""
    text = text.strip()
    if not times:
        if task == "grounding":
            return _SPAN_FORMAT.fullmatch(text) is not None
        lines = text.splitlines()
        return bool(lines) and all(_EVENT_FORMAT.fullmatch(line.strip()) for line in lines)
    form = time_formats.create(times)
    found = parse_reply(_question(task), text, duration, form).events
    if not found:
        return False
    if task == "grounding":
        return text.removesuffix(".") == form.render(*found[0][:2], duration).removesuffix(".")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    written = form.render_events([Event(*event) for event in found], duration)
    return lines == written.splitlines() and all(caption.strip() for *_, caption in found)


def boundary_f1(
    completions: Sequence[Completion],
    task: Sequence[Task],
    events: Sequence[Sequence[dict[str, Any]]],
    duration: Sequence[Seconds],
    times: Sequence[str] | None = None,
    **_: Any,
) -> list[float | None]:
    """Score dense captioning: F1 of the boundaries, the mean over IoU thresholds .3, .5 and .7.

    Example:
        >>> events = [{"start": 0.0, "end": 30.0, "caption": "A bell rings."}]
        >>> boundary_f1([[{"content": "From 00 to 50, a dog barks."}]], ["dense_captioning"], [events], [60.0])
        [1.0]
    """

    def reward(found: Any, known: Sequence[tuple[Seconds, Seconds, str]]) -> float:
        pairs = sum(len(match(found, known, threshold)) for threshold in THRESHOLDS) if found else 0
        return 2 * pairs / len(THRESHOLDS) / (len(found) + len(known))

    rows = zip(_answers(completions, task, "dense_captioning", duration, times), events, strict=True)
    return [None if found is _OTHER else reward(found, _intervals(known)) for found, known in rows]


def soda_c(
    completions: Sequence[Completion],
    task: Sequence[Task],
    events: Sequence[Sequence[dict[str, Any]]],
    duration: Sequence[Seconds],
    times: Sequence[str] | None = None,
    **_: Any,
) -> list[float | None]:
    """Score dense captioning: F1 of SODA_c with METEOR, boundaries and captions together.

    Example:
        >>> soda_c([[{"content": "From 05 to 25."}]], ["grounding"], [[]], [60.0])
        [None]
    """
    rows = zip(_answers(completions, task, "dense_captioning", duration, times), events, strict=True)
    asked = [(found, _intervals(known)) for found, known in rows if found is not _OTHER]
    scores = iter(score_videos([found for found, _ in asked], [known for _, known in asked]) if asked else ())
    return [next(scores)["F1"] if of == "dense_captioning" else None for of in task]


def caption_meteor(
    completions: Sequence[Completion], task: Sequence[Task], reference: Sequence[str], **_: Any
) -> list[float | None]:
    """Score segment captioning: METEOR of the answer and the caption of the annotation.

    Example:
        >>> caption_meteor([[{"content": "A dog barks."}]], ["grounding"], ["From 05 to 25."])
        [None]
    """
    rows = [
        (text, caption)
        for text, of, caption in zip(_texts(completions), task, reference, strict=True)
        if of == "segment_captioning"
    ]
    words = tokenize([text for row in rows for text in row])
    scores = iter(meteor.scores(words[::2], words[1::2]) if rows else ())
    return [next(scores) if of == "segment_captioning" else None for of in task]


def answer_length(
    completions: Sequence[Completion], task: Sequence[Task], reference: Sequence[str], **_: Any
) -> list[float | None]:
    """Score captioning: the number of words of the answer and of the annotation's, the smaller over the larger.

    Example:
        >>> answer_length([[{"content": "A dog barks at a cat."}]], ["segment_captioning"], ["A dog barks."])
        [0.5]
    """

    def reward(text: str, wanted: str) -> float:
        counts = sorted((len(text.split()), len(wanted.split())))
        return counts[0] / counts[1] if counts[1] else 1.0

    rows = zip(_texts(completions), task, reference, strict=True)
    return [None if of == "grounding" else reward(text, wanted) for text, of, wanted in rows]


#: Rewards by name, for the option `rewards`.
REWARDS: dict[str, Callable[..., list[float | None]]] = {
    function.__name__: function
    for function in (
        temporal_iou,
        temporal_distance,
        several_spans,
        answer_format,
        boundary_f1,
        soda_c,
        caption_meteor,
        answer_length,
    )
}

#: Tasks whose answers a reward scores.
CHECKED: dict[str, tuple[Task, ...]] = {
    "temporal_iou": ("grounding",),
    "temporal_distance": ("grounding",),
    "several_spans": ("grounding",),
    "boundary_f1": ("dense_captioning",),
    "soda_c": ("dense_captioning",),
    "caption_meteor": ("segment_captioning",),
    "answer_format": ("grounding", "dense_captioning"),
    "answer_length": ("dense_captioning", "segment_captioning"),
}


def check_rewards(rewards: Iterable[str], tasks: Iterable[str]) -> None:
    """Check that all rewards exist, and that the answers to each task get one.

    Raises:
        ValueError: naming the unknown reward; or the task, and the rewards that can check it.

    Example:
        >>> check_rewards(["temporal_iou"], ["segment_captioning"])
        Traceback (most recent call last):
            ...
        ValueError: rewards: temporal_iou cannot check segment_captioning; add caption_meteor or answer_length
    """
    rewards = list(rewards)
    for name in rewards:
        if name not in REWARDS:
            raise ValueError(f"rewards: unknown reward {name!r}; known are {', '.join(REWARDS)}")
    for task in tasks:
        if not any(task in CHECKED.get(name, ()) for name in rewards):
            able = " or ".join(name for name, of in CHECKED.items() if task in of)
            raise ValueError(f"rewards: {', '.join(rewards)} cannot check {task}; add {able}")


#: In place of what was read of an answer to another task.
_OTHER: Any = object()


def _answers(
    completions: Sequence[Completion],
    task: Sequence[Task],
    wanted: Task,
    duration: Sequence[Seconds],
    times: Sequence[str] | None,
) -> list[Any]:
    """Return what is read of the answers to a task, and [`_OTHER`] for other tasks.

    Returns:
        For grounding [`Shares`] or None, for dense captioning a list of start and end in seconds and caption.
    """

    def read(text: str, of: Task, length: Seconds, form: str) -> Any:
        if of != wanted:
            return _OTHER
        if wanted == "grounding":
            return read_shares(text, length, form)
        if not form:
            return read_events(text, length)
        return list(parse_reply(_question(wanted), text, length, form).events or ())

    rows = zip(_texts(completions), task, duration, times or [""] * len(task), strict=True)
    return [read(*row) for row in rows]


def read_shares(text: str, duration: Seconds, times: str) -> Shares | None:
    """Read an answer to grounding.

    Args:
        text: the answer.
        duration: of the video in seconds.
        times: format of the times; empty for the timecodes of the published questions.

    Returns:
        Start and end as shares of the duration, or None if the answer has no interval.

    Example:
        >>> read_shares("From 05 to 25.", 60.0, ""), read_shares("From 3.0 to 15.0 seconds.", 60.0, "seconds")
        ((0.05, 0.25), (0.05, 0.25))
    """
    if not times:
        return read_span(text, duration)
    events = parse_reply(_question("grounding"), text, duration, times).events or ()
    return next(((start / duration, end / duration) for start, end, _ in events), None)


def _question(task: Task) -> Question:
    return Question("", task, None, "", "")


def _texts(completions: Sequence[Completion]) -> list[str]:
    """Return the answers without the reasoning that a model may write before them."""
    return [strip_reasoning(completion[0]["content"]) for completion in completions]


def _intervals(events: Sequence[dict[str, Any]]) -> list[tuple[Seconds, Seconds, str]]:
    return [(event["start"], event["end"], event["caption"]) for event in events]
