"""Prompts for models that were not tuned on LongVALE, and conversion of their replies to the benchmark's format.

The published questions use two-digit times without stating that these are percentages, which a model that was not tuned
on them cannot know. The prompts here ask for times in percent or in seconds, depending on the model. Replies are
converted to `From xx to xx`, so that every scorer can read them and rounding is the same for all models.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Template

from ...events import DURATION_TOLERANCE_S, Annotation, Seconds
from ...reading.lists import find_any_spans, find_events
from ...reading.reasoning import strip_reasoning
from ...reading.spans import TimeSpan, Unit
from ...registry import time_formats
from ...tasks import VIDEO_TOKEN, Question
from ...timecodes import MAX_TIMECODE
from .time_formats import TimeFormat


def word_question(question: Question, annotations: Mapping[str, Annotation], times: TimeFormat | str) -> str:
    """Build the question text for a model that was not tuned on the benchmark; the video is passed separately.

    Args:
        question: a question of [`longvale.tasks.questions`], or of a zero-shot task, whose text is not changed.
        annotations: annotations by video ID.
        times: format of the times, or its registered name.

    Raises:
        ValueError: if the prompt of `times` contains a field that the task does not have.

    Example:
        >>> from longvale.events import Event
        >>> video = Annotation("v", 60.0, (Event(6, 30, "A bell rings."),))
        >>> asked = Question("v", "grounding", 0, "", "")
        >>> print(word_question(asked, {"v": video}, "percent").splitlines()[0])
        When does this happen in the video: a bell rings?
    """
    times = _format_of(times)
    if question.video_id not in annotations:
        return question.question.replace(VIDEO_TOKEN, "", 1).strip()
    annotation = annotations[question.video_id]
    fields = {"duration": f"{annotation.duration:.1f}"}
    if question.sentence_id is not None:
        event = annotation.events[question.sentence_id]
        fields["caption"] = event.caption.strip().lower().removesuffix(".")
        for name, time in (("start", event.start), ("end", event.end)):
            fields[name] = times.write(time, annotation.duration)
    try:
        return Template(times.prompt(question.task)).substitute(fields)
    except KeyError as error:
        name = type(times).__name__
        raise ValueError(
            f"{name}: the prompt of {question.task} names ${error.args[0]}; it has {', '.join(fields)}"
        ) from None


def read_reply(question: Question, reply: str, duration: Seconds, times: TimeFormat | str) -> str:
    """Convert a reply to the benchmark's format; the result is empty if a required time is missing.

    Reasoning is removed, see [`longvale.reading.reasoning.strip_reasoning`]. Times can have any common format, in
    sentences, lists, tables or JSON, see [`longvale.reading`]. Ambiguous times are ignored.

    Args:
        question: the question that was asked.
        reply: any text.
        duration: duration of the video in seconds, as in the question.
        times: format that was asked for, or its registered name; a unit next to the numbers takes precedence.

    Example:
        >>> asked = Question("v", "grounding", 0, "", "")
        >>> read_reply(asked, "It happens from 0:06 to 0:30.", 60.0, "seconds")
        'From 10 to 50.'
        >>> read_reply(asked, "Between 10% and 50%", 60.0, "seconds")
        'From 10 to 50.'
        >>> read_reply(Question("v", "dense_captioning", None, "", ""), "1. 6 - 30 s: A bell.", 60.0, "seconds")
        'From 10 to 50, A bell.'
    """
    reply, times = strip_reasoning(reply), _format_of(times)
    if question.task == "grounding":
        spans = find_any_spans(times.read(reply, duration))
        return next((f"{code}." for span in spans if (code := _code(span, duration, times.unit))), "")
    if question.task == "dense_captioning":
        found = find_events(times.read(reply, duration))
        events = ((_code(event.span, duration, times.unit), event.caption) for event in found)
        return "\n".join(f"{code}, {caption}" for code, caption in events if code)
    return reply


def _format_of(times: TimeFormat | str) -> TimeFormat:
    return time_formats.create(times) if isinstance(times, str) else times


def _code(span: TimeSpan, duration: Seconds, unit: Unit) -> str | None:
    """Format a span as `From xx to xx`, at least 1% long; return None if the times do not fit in the video."""
    # Models round up, and durations are rounded: an end shortly after the video is clipped to its end.
    shares = span.shares(duration, unit, tolerance_s=max(DURATION_TOLERANCE_S, duration / 100))
    if shares is None:
        return None
    first = min(round(100 * shares[0]), MAX_TIMECODE - 1)
    last = max(min(round(100 * shares[1]), MAX_TIMECODE), first + 1)
    return f"From {first:02d} to {last:02d}"
