"""LongVALE's questions in words that any model understands, and their answers back in the form of the benchmark.

The published questions speak of times as two digits without saying that these are percentages, which a model that was
not tuned on them cannot know. Here times are asked for in percent or in seconds, as the model prefers, and what it says
is turned into `From xx to xx`, so that every scorer reads it and all models are rounded alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Literal, TypeAlias, get_args

from ...events import Annotation, Seconds
from ...tasks import VIDEO_TOKEN, Question
from ...timecodes import MAX_TIMECODE, to_timecode

#: How a model is asked for times.
Unit: TypeAlias = Literal["seconds", "percent"]
UNITS: tuple[Unit, ...] = get_args(Unit)

_CLOCK = r"\d{1,2}:\d{1,2}(?::\d{1,2})?(?:\.\d{1,6})?"
_NUMBER = r"\d{1,6}(?:\.\d{1,6})?"
_UNIT = r"\s{0,3}(?P<unit{n}>%|percent|seconds?|secs?|s)?(?![a-z])"
_TIME = rf"(?P<time{{n}}>{_CLOCK}|{_NUMBER})" + _UNIT
_SPAN = re.compile(
    r"(?<![\d.:])"
    + _TIME.replace("{n}", "1")
    + r"\s{0,3}[\])\"']?\s{0,3}(?:to|and|until|till|through|-|–|—|,)\s{0,3}(?:the\s)?[\[(\"']?(?:end\"?\s?:)?\s{0,3}"
    + _TIME.replace("{n}", "2"),
    re.IGNORECASE,
)
_BEFORE_CAPTION = " \t.,:;-–—)]}*\"'|"


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

    Args:
        question: that was asked.
        reply: any text.
        duration: of the video in seconds.
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
    if question.task == "grounding":
        for match in _SPAN.finditer(reply):
            if span := _span(match, duration, unit):
                return f"{span}."
        return ""
    if question.task == "dense_captioning":
        events = []
        for line in reply.splitlines():
            for match in _SPAN.finditer(line):
                caption = line[match.end() :].strip(_BEFORE_CAPTION)
                if caption and (span := _span(match, duration, unit)):
                    events.append(f"{span}, {caption}{'.' if line.rstrip().endswith('.') else ''}")
                    break
        return "\n".join(events)
    return reply.strip()


def _span(match: re.Match, duration: Seconds, unit: Unit) -> str | None:
    """`From xx to xx`, at least 1 % long, or None where the times cannot be of this video."""
    named = match["unit2"] or match["unit1"]
    if named:
        unit = "percent" if named.lower() in ("%", "percent") else "seconds"
    clock = ":" in match["time1"] or ":" in match["time2"]
    start, end = (_number(match[name]) for name in ("time1", "time2"))
    whole = duration if unit == "seconds" or clock else 100.0
    # Models round up: an end within 1 % after the video is the video's end.
    if not start < end <= whole * 1.01 or start >= whole:
        return None
    first = min(round(100 * start / whole), MAX_TIMECODE - 1)
    last = max(min(round(100 * end / whole), MAX_TIMECODE), first + 1)
    return f"From {first:02d} to {last:02d}"


def _number(text: str) -> float:
    value = 0.0
    for part in text.split(":"):
        value = 60 * value + float(part)
    return value
