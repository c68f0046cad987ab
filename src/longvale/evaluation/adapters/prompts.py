"""Prompts for models that were not tuned on LongVALE, and conversion of their replies to the benchmark's format.

The published questions use two-digit times without stating that these are percentages, which a model that was not tuned
on them cannot know. The prompts here ask for times in a format of the model. The times of a reply are kept as they were
read, in seconds, and also as `From xx to xx`, which every scorer can read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template
from typing import Any

from ...events import DURATION_TOLERANCE_S, Annotation, Seconds
from ...reading.reasoning import strip_reasoning
from ...reading.spans import TimeSpan, Unit
from ...registry import time_formats
from ...tasks import VIDEO_TOKEN, Question, segment_captioning_question
from ...timecodes import MAX_TIMECODE, timecode_cell, to_timecode
from .time_formats import TimeFormat

#: Two equal times mean the times that are rounded to them: half a unit of the last digit before and after.
_HALF_SECOND, _HALF_TENTH = 0.5, 0.05


@dataclass(frozen=True)
class Reading:
    """What was read of a reply.

    Args:
        answer: in the benchmark's format; empty if a required time is missing.
        events: start and end in seconds, and the caption, which is empty for grounding; None for tasks without times.
        duration: of the video in seconds, to which the times refer.
        reader: notation of most of the times: a built-in format of times; None if nothing was read.
        past_end: whether times were dropped because they lie after the end of the video.
    """

    answer: str
    events: tuple[tuple[Seconds, Seconds, str], ...] | None
    duration: Seconds
    reader: str | None = None
    past_end: bool = False

    def info(self) -> dict[str, Any]:
        """Return the reading as `info` of a line of the prediction log."""
        if self.events is None:
            return {}
        read = [
            [round(start, 3), round(end, 3), *([caption] if caption else [])] for start, end, caption in self.events
        ]
        past = {"past_end": True} if self.past_end else {}
        return {"reader": self.reader, "read": read, "duration": self.duration, **past}


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
    length = times.write(annotation.duration, annotation.duration)
    fields = {"duration": f"{annotation.duration:.1f}", "length": length}
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


def reword_question(question: Question, annotation: Annotation, times: TimeFormat) -> str:
    """Return the published question with its times in another format, for a LongVALE model that was trained on it.

    Args:
        question: a question of [`longvale.tasks.questions`].
        annotation: of its video.
        times: the format.

    Example:
        >>> from longvale.events import Event
        >>> from longvale.tasks import questions
        >>> video = Annotation("v", 60.0, (Event(6, 30, "A bell rings."),))
        >>> (asked,) = questions(video, ["segment_captioning"])
        >>> reword_question(asked, video, time_formats.create("seconds"))[9:65]
        'Can you describe what occurred from 6.0 to 30.0 seconds '
    """
    if question.task != "segment_captioning" or question.sentence_id is None:
        return question.question
    event = annotation.events[question.sentence_id]
    return segment_question(event.start, event.end, annotation.duration, times)


def segment_question(start: Seconds, end: Seconds, duration: Seconds, times: TimeFormat) -> str:
    """Return the published question about a stretch of a video with its times in another format."""
    codes = f"from {to_timecode(start, duration)} to {to_timecode(end, duration)}"
    span = times.render(start, end, duration)
    return segment_captioning_question(start, end, duration).replace(codes, span[0].lower() + span[1:], 1)


def word_answer(question: Question, annotation: Annotation, times: TimeFormat | str) -> str:
    """Build the answer that the text of [`word_question`] asks for, from the annotation of the video.

    Args:
        question: a question of [`longvale.tasks.questions`].
        annotation: of its video.
        times: as in [`word_question`].

    Example:
        >>> from longvale.events import Event
        >>> video = Annotation("v", 60.0, (Event(6, 30, "A bell rings."),))
        >>> word_answer(Question("v", "grounding", 0, "", ""), video, "clock")
        'From 0:06 to 0:30.'
    """
    times = _format_of(times)
    if question.task == "dense_captioning":
        return times.render_events(annotation.events, annotation.duration)
    if question.task != "grounding" or question.sentence_id is None:
        return question.reference
    event = annotation.events[question.sentence_id]
    answer = times.render(event.start, event.end, annotation.duration)
    return answer + ("." if answer[-1].isalnum() or answer[-1] in "%>" else "")


def read_reply(question: Question, reply: str, duration: Seconds, times: TimeFormat | str) -> str:
    """Convert a reply to the benchmark's format; the result is empty if a required time is missing.

    Args:
        question, reply, duration, times: as in [`parse_reply`].

    Example:
        >>> asked = Question("v", "grounding", 0, "", "")
        >>> read_reply(asked, "It happens from 0:06 to 0:30.", 60.0, "seconds")
        'From 10 to 50.'
        >>> read_reply(asked, "Between 10% and 50%", 60.0, "seconds")
        'From 10 to 50.'
        >>> read_reply(Question("v", "dense_captioning", None, "", ""), "1. 6 - 30 s: A bell.", 60.0, "seconds")
        'From 10 to 50, A bell.'
    """
    return parse_reply(question, reply, duration, times).answer


def parse_reply(
    question: Question, reply: str, duration: Seconds, times: TimeFormat | str, unit: Unit | None = None
) -> Reading:
    """Read a reply.

    Reasoning is removed, see [`longvale.reading.reasoning.strip_reasoning`]. Times can have any common format, in
    sentences, lists, tables or JSON, see [`longvale.reading`]. Ambiguous times are ignored, and so are times after the
    end of the video: an end may exceed it by 1% or 0.5 s, since models round up, and is then the end of the video.

    Args:
        question: the question that was asked.
        reply: any text.
        duration: duration of the video in seconds, as in the question.
        times: format that was asked for, or its registered name; a unit next to the numbers takes precedence.
        unit: of bare numbers; default: by the format.

    Example:
        >>> reading = parse_reply(Question("v", "grounding", 0, "", ""), "At 0:06 - 0:30", 60.0, "auto")
        >>> reading.events, reading.reader
        (((6.0, 30.0, ''),), 'clock')
    """
    reply, times = strip_reasoning(reply), _format_of(times)
    if question.task not in ("grounding", "dense_captioning"):
        return Reading(reply, None, duration)
    bare = unit or times.unit_of(reply)
    spans, captions, readers, past_end = [], [], Counter[str](), False
    for record in times.parse(reply, duration, question.task):
        if (shares := _fit(record.span, duration, bare)) is not None:
            spans.append(shares)
            captions.append(record.caption)
            readers[record.span.notation or bare] += 1
            if question.task == "grounding":
                break
        elif record.span.start <= record.span.end:
            past_end = True
    codes = [_code(*shares) for shares in spans]
    if question.task == "grounding":
        answer = "".join(f"{code}." for code in codes)
        past_end = past_end and not spans
    else:
        answer = "\n".join(f"{code}, {caption}" for code, caption in zip(codes, captions, strict=True))
    events = ((start * duration, end * duration, text) for (start, end), text in zip(spans, captions, strict=True))
    reader = readers.most_common(1)[0][0] if readers else None
    return Reading(answer, tuple(events), duration, reader, past_end)


def read_spans(reply: str, duration: Seconds, times: TimeFormat | str) -> list[tuple[Seconds, Seconds]]:
    """Read all spans of a reply to grounding, in the notation of the first, in the order of their starts.

    Args:
        reply, duration, times: as in [`parse_reply`].

    Example:
        >>> read_spans("At 0:06 - 0:10 and again at 0:30 - 0:40.", 60.0, "clock")
        [(6.0, 10.0), (30.0, 40.0)]
    """
    reply, times = strip_reasoning(reply), _format_of(times)
    bare, found = times.unit_of(reply), set[tuple[float, float]]()
    notation: str | None = None
    for record in times.parse(reply, duration, "grounding"):
        written = record.span.notation or bare
        if (shares := _fit(record.span, duration, bare)) is not None and (notation or written) == written:
            notation = written
            found.add(shares)
    return [(start * duration, end * duration) for start, end in sorted(found)]


def _format_of(times: TimeFormat | str) -> TimeFormat:
    return time_formats.create(times) if isinstance(times, str) else times


def _fit(span: TimeSpan, duration: Seconds, unit: Unit) -> tuple[float, float] | None:
    """Return start and end as shares of the duration, 0 to 1; None if the times do not fit in the video."""
    # Models round up, and durations are rounded: an end shortly after the video is clipped to its end.
    shares = span.shares(duration, unit, tolerance_s=max(DURATION_TOLERANCE_S, duration / 100))
    if shares is None or shares[0] < shares[1]:
        return shares
    if (span.unit or unit) == "percent":
        cell = timecode_cell(span.start)
        return cell.start / 100, cell.end / 100
    half = (_HALF_SECOND if span.start.is_integer() else _HALF_TENTH) / duration
    return max(shares[0] - half, 0.0), min(shares[1] + half, 1.0)


def _code(start: float, end: float) -> str:
    """Format shares of the duration as `From xx to xx`, at least 1% long."""
    first = min(round(100 * start), MAX_TIMECODE - 1)
    last = max(min(round(100 * end), MAX_TIMECODE), first + 1)
    return f"From {first:02d} to {last:02d}"
