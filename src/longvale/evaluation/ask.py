"""One video, one question: the answer, and the events that it names on a timeline."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data.extraction import encode_video
from ..events import Event, Seconds
from ..tasks import TASKS, VIDEO_TOKEN, Task, dense_captioning_question
from ..timecodes import parse_events, parse_span
from .model import MAX_NEW_TOKENS, ModelLike, answer_batch, load_model

if TYPE_CHECKING:
    from ..models.media import Media

#: Width of the timeline of [`format_answer`] in characters.
_WIDTH = 60


@dataclass(frozen=True)
class Answer:
    """What a model answered about a video.

    Args:
        text: the answer as generated.
        duration: of the video in seconds.
        events: the times that the answer names, in seconds, with the caption that stands beside them or an empty one.
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
    max_new_tokens: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    load_in_4bit: bool = False,
) -> Answer:
    """Ask a model one question about a video file.

    Args:
        model: folder, Hub id, or (model, processor) pair.
        video: path of the file, or what [`longvale.models.media.read_media`] read of it.
        question: may hold `<video>` where the video stands; else the video comes first. None asks for all events, in
            the words of the benchmark.
        task: how to read the answer; by default as a list of events, or as one interval if it holds none.
        max_new_tokens: longest answer in tokens; by default the task's, or the longest of all tasks.
        device: such as "cpu"; by default an accelerator if there is one.
        dtype, load_in_4bit: of the weights, see [`longvale.evaluation.model.load_model`].

    Raises:
        FileNotFoundError: if the model or the video is missing.
        ValueError: if the question is empty, the task unknown or one that has no question of its own, or the video
            cannot be read.

    Example:
        >>> answer = ask("model", "video.mp4", "When does the bell ring?")  # doctest: +SKIP
        >>> answer.events  # doctest: +SKIP
        (Event(start=6.0, end=30.0, caption='', modalities=(), relation=None),)
    """
    if question is None:
        if task not in (None, "dense_captioning"):
            raise ValueError(f"give a question: {task} asks about one event or stretch")
        question, task = dense_captioning_question(), "dense_captioning"
    if not question.replace(VIDEO_TOKEN, "").strip():
        raise ValueError("the question is empty; ask something about the video")
    if task is not None and task not in TASKS:
        raise ValueError(f"unknown task {task!r}; expected one of {', '.join(TASKS)}")
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be 1 or more, not {max_new_tokens}")
    if VIDEO_TOKEN not in question:
        question = f"{VIDEO_TOKEN}\n{question}"
    _check_media(video)  # before the model, which takes longer
    limit = max_new_tokens or (MAX_NEW_TOKENS[task] if task else max(MAX_NEW_TOKENS.values()))
    model, processor = load_model(model, device, dtype=dtype, load_in_4bit=load_in_4bit)
    media = _read_media(video, processor)
    features = encode_video(model, processor, media)
    (text,) = answer_batch(model, processor, [question], [features], limit)
    return Answer(text, media.duration, read_answer(text, media.duration, task))


def _check_media(video: str | os.PathLike | Media) -> None:
    from ..models.media import Media, probe

    if not isinstance(video, Media):
        probe(video)


def _read_media(video: str | os.PathLike | Media, processor: Any) -> Media:
    from ..models.media import Media, read_media

    return video if isinstance(video, Media) else read_media(video, **processor.media_kwargs())


def read_answer(text: str, duration: Seconds, task: Task | None = None) -> tuple[Event, ...]:
    """The events that an answer names, in seconds.

    Args:
        text: the answer.
        duration: of the video in seconds.
        task: `dense_captioning` reads a list of events, `grounding` one interval, `segment_captioning` nothing; None
            reads a list, or one interval if there is none.

    Example:
        >>> read_answer("From 05 to 25.", 120.0)
        (Event(start=6.0, end=30.0, caption='', modalities=(), relation=None),)
    """
    spans = parse_events(text) if task in (None, "dense_captioning") else []
    if not spans and task in (None, "grounding"):
        spans = [span for span in [parse_span(text)] if span]
    return tuple(Event(*span.seconds(duration), span.caption) for span in spans)


def format_answer(answer: Answer) -> str:
    """The answer, and a line a named event: its times, its place in the video, its caption.

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
