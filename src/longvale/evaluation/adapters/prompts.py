"""Prompts for models that were not tuned on LongVALE, and conversion of their replies to the benchmark's format.

The published questions use two-digit times without stating that these are percentages, which a model that was not tuned
on them cannot know. The prompts here ask for times in percent or in seconds, depending on the model. Replies are
converted to `From xx to xx`, so that every scorer can read them and rounding is the same for all models.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import get_args

from ...events import DURATION_TOLERANCE_S, Annotation, Seconds
from ...reading.lists import find_any_spans, find_events
from ...reading.reasoning import strip_reasoning
from ...reading.spans import TimeSpan, Unit
from ...tasks import VIDEO_TOKEN, Question
from ...timecodes import MAX_TIMECODE, to_timecode

#: Units in which a model can be asked for times.
UNITS: tuple[Unit, ...] = get_args(Unit)


def word_question(question: Question, annotations: Mapping[str, Annotation], unit: Unit) -> str:
    """Build the question text for a model that was not tuned on the benchmark; the video is passed separately.

    Args:
        question: a question of [`longvale.tasks.questions`], or of a zero-shot task, whose text is not changed.
        annotations: annotations by video ID.
        unit: unit of the times.

    Example:
        >>> from longvale.events import Event
        >>> video = Annotation("v", 60.0, (Event(6, 30, "A bell rings."),))
        >>> print(word_question(Question("v", "grounding", 0, "", ""), {"v": video}, "percent").splitlines()[0])
        When does this happen in the video: a bell rings?
    """
    if question.video_id not in annotations:
        return question.question.replace(VIDEO_TOKEN, "", 1).strip()
    annotation = annotations[question.video_id]
    template = files(__package__).joinpath("prompts", f"{question.task}_{unit}.txt").read_text(encoding="utf-8")
    fields = {"duration": f"{annotation.duration:.1f}"}
    if question.sentence_id is not None:
        event = annotation.events[question.sentence_id]
        fields["caption"] = event.caption.strip().lower().removesuffix(".")
        for name, time in (("start", event.start), ("end", event.end)):
            fields[name] = f"{time:.1f}" if unit == "seconds" else to_timecode(time, annotation.duration)
    return Template(template.strip()).substitute(fields)


def read_reply(question: Question, reply: str, duration: Seconds, unit: Unit) -> str:
    """Convert a reply to the benchmark's format; the result is empty if a required time is missing.

    Reasoning is removed, see [`longvale.reading.reasoning.strip_reasoning`]. Times can have any common format, in
    sentences, lists, tables or JSON, see [`longvale.reading`]. Ambiguous times are ignored.

    Args:
        question: the question that was asked.
        reply: any text.
        duration: duration of the video in seconds, as in the question.
        unit: unit that was asked for; a unit next to the numbers takes precedence.

    Example:
        >>> asked = Question("v", "grounding", 0, "", "")
        >>> read_reply(asked, "It happens from 0:06 to 0:30.", 60.0, "seconds")
        'From 10 to 50.'
        >>> read_reply(asked, "Between 10% and 50%", 60.0, "seconds")
        'From 10 to 50.'
        >>> read_reply(Question("v", "dense_captioning", None, "", ""), "1. 6 - 30 s: A bell rings.", 60.0, "seconds")
        'From 10 to 50, A bell rings.'
    """
    reply = strip_reasoning(reply)
    if question.task == "grounding":
        return next((f"{code}." for span in find_any_spans(reply) if (code := _code(span, duration, unit))), "")
    if question.task == "dense_captioning":
        events = ((_code(event.span, duration, unit), event.caption) for event in find_events(reply))
        return "\n".join(f"{code}, {caption}" for code, caption in events if code)
    return reply


def _code(span: TimeSpan, duration: Seconds, unit: Unit) -> str | None:
    """Format a span as `From xx to xx`, at least 1% long; return None if the times do not fit in the video."""
    # Models round up, and durations are rounded: an end shortly after the video is clipped to its end.
    shares = span.shares(duration, unit, tolerance_s=max(DURATION_TOLERANCE_S, duration / 100))
    if shares is None:
        return None
    first = min(round(100 * shares[0]), MAX_TIMECODE - 1)
    last = max(min(round(100 * shares[1]), MAX_TIMECODE), first + 1)
    return f"From {first:02d} to {last:02d}"
