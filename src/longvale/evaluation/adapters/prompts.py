"""LongVALE's questions in words that any model understands, and their answers back in the form of the benchmark.

The published questions speak of times as two digits without saying that these are percentages, which a model that was
not tuned on them cannot know. Here times are asked for in percent or in seconds, as the model prefers, and what it says
is turned into `From xx to xx`, so that every scorer reads it and all models are rounded alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import get_args

from ...events import DURATION_TOLERANCE_S, Annotation, Seconds
from ...reading.lists import find_any_spans, find_events
from ...reading.spans import TimeSpan, Unit
from ...reasoning import strip_reasoning
from ...tasks import VIDEO_TOKEN, Question
from ...timecodes import MAX_TIMECODE, to_timecode

#: How a model is asked for times.
UNITS: tuple[Unit, ...] = get_args(Unit)


def word_question(question: Question, annotations: Mapping[str, Annotation], unit: Unit) -> str:
    """The question for a model that was not tuned on the benchmark; the video is given beside it.

    Args:
        question: of [`longvale.tasks.questions`], or of a zero-shot task, which is asked as it is.
        annotations: of the videos by id.
        unit: of times.

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
    """A reply in the form of the benchmark; empty where it names no time and should.

    Reasoning is dropped; see [`longvale.reasoning.strip_reasoning`]. Times may be written as anyone writes them, in
    sentences, lists, tables or JSON; see [`longvale.reading`]. What could be read in two ways is not read.

    Args:
        question: that was asked.
        reply: any text.
        duration: of the video in seconds, as the question named it.
        unit: that was asked for; a unit beside the numbers counts more.

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
    """`From xx to xx`, at least 1 % long, or None where the times cannot be of this video."""
    # Models round up, and durations are rounded: an end a little after the video is the video's end.
    shares = span.shares(duration, unit, tolerance_s=max(DURATION_TOLERANCE_S, duration / 100))
    if shares is None:
        return None
    first = min(round(100 * shares[0]), MAX_TIMECODE - 1)
    last = max(min(round(100 * shares[1]), MAX_TIMECODE), first + 1)
    return f"From {first:02d} to {last:02d}"
