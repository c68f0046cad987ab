"""Asking a model one question about one video, and formatting the events of the answer as a timeline."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from ..checkpoints.loading import Weights
from ..events import DURATION_TOLERANCE_S, Event, Seconds
from ..io import is_number
from ..tasks import (
    TASKS,
    VIDEO_TOKEN,
    Question,
    Task,
    dense_captioning_question,
    grounding_question,
    segment_captioning_question,
    task_of_question,
)
from ..timecodes import parse_events, parse_span
from .adapters.prompts import parse_reply, segment_question
from .adapters.time_formats import TimeFormat, own_format
from .generation.model import MAX_NEW_TOKENS, ModelLike, load_model
from .generation.video_qa import answer_batch

if TYPE_CHECKING:
    from ..models.media import Media

logger = logging.getLogger(__name__)

#: Width of the timeline of [`format_answer`] in characters.
_WIDTH = 60


@dataclass(frozen=True)
class Answer:
    """A model's answer about a video.

    Args:
        text: the answer as generated.
        duration: duration of the video in seconds.
        events: events parsed from the answer, with times in seconds and a caption, which may be empty.
    """

    text: str
    duration: Seconds
    events: tuple[Event, ...] = ()


def ask(
    model: ModelLike,
    video: str | os.PathLike | Media,
    question: str | None = None,
    *,
    task: Task | None = None,
    span: tuple[Seconds, Seconds] | None = None,
    max_new_tokens: int | None = None,
    device: str | None = None,
    **weights: Unpack[Weights],
) -> Answer:
    """Ask a model one question about a video file.

    Args:
        model: folder, Hub ID, or (model, processor) pair.
        video: path of the file, or the result of [`longvale.models.media.read_media`].
        question: any question, or for the task `grounding` the event to find. It may contain `<video>` at the position
            of the video; otherwise the video comes first. None asks for all events.
        task: `grounding`, `dense_captioning` or `segment_captioning`: use the benchmark's question and parse the answer
            accordingly. By default a free question, whose answer is parsed as a list of events, or as one interval if
            it contains no list; logs a warning if the model was not tuned on free questions.
        span: start and end in seconds, for `segment_captioning`.
        max_new_tokens: maximum answer length in tokens; default: the task's limit, or the largest limit of all tasks.
        device: device such as "cpu"; by default an accelerator if available.
        weights: see [`longvale.checkpoints.loading.Weights`].

    Raises:
        FileNotFoundError: if the model or the video is missing.
        ValueError: if the question is empty or missing, the task unknown, the span not within the video, or the video
            cannot be read.

    Example:
        >>> answer = ask("model", "video.mp4", "When does the bell ring?")  # doctest: +SKIP
        >>> answer.events  # doctest: +SKIP
        (Event(start=6.0, end=30.0, caption='', modalities=(), relation=None),)
    """
    if question is None and task is None and span is None:
        task = "dense_captioning"
    _check_question(question, task, span)
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be 1 or more, not {max_new_tokens}")
    _check_media(video)  # before loading the model, which takes longer
    limit = max_new_tokens or (MAX_NEW_TOKENS[task] if task else max(MAX_NEW_TOKENS.values()))
    model, processor = load_model(model, device, **weights)
    media = _read_media(video, processor)
    times = own_format(model.config)
    words = _in_words(question, task, span, media.duration, times)
    tuned = tuple(getattr(model.config, "tuned_tasks", TASKS))
    if task_of_question(words) not in tuned and "free" not in tuned:
        logger.warning(
            "the model was tuned on questions of %s, not on free ones, so the answer may be wrong; ask with --task",
            ", ".join(tuned) or "no task",
        )
    (text,) = answer_batch(model, processor, [words], [media], limit)
    return Answer(text, media.duration, read_answer(text, media.duration, task, times))


def _check_question(question: str | None, task: Task | None, span: tuple[Seconds, Seconds] | None) -> None:
    if task is not None and task not in TASKS:
        raise ValueError(f"unknown task {task!r}; expected one of {', '.join(TASKS)}")
    if question is not None and not question.replace(VIDEO_TOKEN, "").strip():
        raise ValueError("the question is empty; ask something about the video")
    if span is not None:
        if task != "segment_captioning":
            raise ValueError(f"FROM and TO are of the task segment_captioning, not of {task or 'a free question'}")
        if not all(is_number(time) for time in span) or span[0] < 0:
            raise ValueError(f"FROM and TO must be seconds, 0 or more, not {span[0]} and {span[1]}")
        if span[0] >= span[1]:
            raise ValueError(f"start after end: FROM ({span[0]} s) must lie before TO ({span[1]} s)")
    if task == "grounding" and question is None:
        raise ValueError('give a question: grounding asks about one event, such as "A bell rings."')
    if task == "segment_captioning" and question is None and span is None:
        raise ValueError("give FROM and TO in seconds: segment_captioning asks about one stretch, such as 6 30")


def _in_words(
    question: str | None,
    task: Task | None,
    span: tuple[Seconds, Seconds] | None,
    duration: Seconds,
    times: TimeFormat | None,
) -> str:
    """Build the model's question: a task's published question, unless `question` already has this form."""
    if task == "dense_captioning" and question is None:
        return dense_captioning_question()
    if span is not None:
        if span[1] > duration + DURATION_TOLERANCE_S:
            raise ValueError(f"TO ({span[1]} s) lies after the end of the video, {duration:.1f} s")
        return (
            segment_captioning_question(*span, duration) if times is None else segment_question(*span, duration, times)
        )
    if task == "grounding" and task_of_question(question or "") is None:
        return grounding_question(question or "")
    return question if VIDEO_TOKEN in (question or "") else f"{VIDEO_TOKEN}\n{question}"


def _check_media(video: str | os.PathLike | Media) -> None:
    from ..models.media import Media, probe

    if not isinstance(video, Media):
        probe(video)


def _read_media(video: str | os.PathLike | Media, processor: Any) -> Media:
    from ..models.media import Media, read_media

    return video if isinstance(video, Media) else read_media(video, **processor.media_kwargs())


def read_answer(
    text: str, duration: Seconds, task: Task | None = None, times: TimeFormat | None = None
) -> tuple[Event, ...]:
    """Parse the events of an answer, in seconds.

    Args:
        text: the answer.
        duration: duration of the video in seconds.
        task: `dense_captioning` parses a list of events, `grounding` one interval, `segment_captioning` nothing; None
            parses a list, or one interval if the answer contains no list.
        times: format of the times; None for timecodes.

    Example:
        >>> read_answer("From 05 to 25.", 120.0)
        (Event(start=6.0, end=30.0, caption='', modalities=(), relation=None),)
    """
    if times is not None:
        tasks: list[Task] = ["dense_captioning", "grounding"] if task is None else [task]
        readings = [parse_reply(Question("", of, None, "", ""), text, duration, times).events for of in tasks]
        return tuple(Event(*event) for event in next((found for found in readings if found), ()))
    spans = parse_events(text) if task in (None, "dense_captioning") else []
    if not spans and task in (None, "grounding"):
        spans = [span for span in [parse_span(text)] if span]
    return tuple(Event(*span.seconds(duration), span.caption) for span in spans)


def format_answer(answer: Answer) -> str:
    """Format an answer with one line per event: position in the video, times, caption.

    Example:
        >>> print(format_answer(Answer("From 50 to 99.", 60.0, (Event(30, 59.4, ""),))))
        From 50 to 99.
        <BLANKLINE>
          0.0 s                                                   60.0 s
          |------------------------------#############################-| 30.0-59.4 s
    """
    lines = [answer.text or "(no answer; a model that reasons first needs a higher --max-new-tokens)"]
    if answer.events:
        end = f"{answer.duration:.1f} s"
        lines += ["", f"  {'0.0 s':<{_WIDTH + 2 - len(end)}}{end}"]
    for event in answer.events:
        first = min(int(event.start / answer.duration * _WIDTH), _WIDTH - 1)
        last = max(round(event.end / answer.duration * _WIDTH), first + 1)
        bar = "-" * first + "#" * (last - first) + "-" * (_WIDTH - last)
        lines.append(f"  |{bar}| {event.start:.1f}-{event.end:.1f} s {event.caption}".rstrip())
    return "\n".join(lines)
