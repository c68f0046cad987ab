"""Timecodes: a time as two digits, 00 to 99, a percentage of the video's duration.

The published model reads and writes all times in this form. `to_timecode` follows the published training code (Python's
`round`, the cap at 99, two digits). The parsers have two protocols: `official` reproduces what the published scorers
accept, including their special cases, and `strict` reads what a person would read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Literal, TypeAlias

from .events import Event, Seconds
from .reading.lists import split_line
from .reading.reasoning import strip_reasoning
from .reading.records import find_json_lines
from .reading.spans import TimeSpan, find_spans

Protocol: TypeAlias = Literal["official", "strict"]
PROTOCOLS: tuple[Protocol, ...] = ("official", "strict")

MAX_TIMECODE = 99

_OFFICIAL_SPAN = re.compile(r"(\d{2}) (to|and) (\d{2})")
_OFFICIAL_EVENT = re.compile(r"From (\d+) to (\d+), (.+?)(?:\n|$)")
#: Separator between an event's times and its caption in the strict protocol.
_CAPTION = re.compile(r"[\])\"']?\s*[,:;，：；]\s*(\S.*)")

#: The published dense captioning scorer merges neighbours whose similarity exceeds the ratio and whose distance is at
#: most the gap in %.
_MERGE_RATIO, _MERGE_GAP = 0.98, 1


@dataclass(frozen=True)
class Span:
    """An interval of a video in percent of its duration, as read from an answer.

    Args:
        start: 0 to 100.
        end: 0 to 100; in the official protocol it may be before `start` or, after its "+ 1", 101 and more.
        caption: the sentence of a dense captioning answer, else empty.
    """

    start: float
    end: float
    caption: str = ""

    def seconds(self, duration: Seconds) -> tuple[Seconds, Seconds]:
        """Return start and end in seconds of a video of this duration."""
        return self.start * duration / 100, self.end * duration / 100


def to_timecode(time: Seconds, duration: Seconds) -> str:
    """Format a time as two digits, a percentage of the duration.

    Rounds halves to the even number as Python does and caps at 99, as the published training code does.

    Args:
        time: seconds, 0 or more.
        duration: of the video in seconds, above 0.

    Raises:
        ValueError: if the time is negative, the duration not above 0, or one of them not finite.

    Example:
        >>> to_timecode(6.0, 120.0), to_timecode(120.0, 120.0)
        ('05', '99')
    """
    if not 0 < duration <= sys.float_info.max:
        raise ValueError(f"duration must be above 0 s and finite, not {duration}")
    if not 0 <= time <= sys.float_info.max:
        raise ValueError(f"time must be 0 s or more and finite, not {time}")
    # Capped before rounding: a percentage of a very short duration may be infinite.
    return f"{round(min(time / duration * 100, MAX_TIMECODE)):02d}"


def render_span(start: Seconds, end: Seconds, duration: Seconds) -> str:
    """Format `From xx to xx`, without a full stop.

    Example:
        >>> render_span(6.0, 30.0, 120.0)
        'From 05 to 25'
    """
    return f"From {to_timecode(start, duration)} to {to_timecode(end, duration)}"


def render_events(events: Iterable[Event], duration: Seconds) -> str:
    """Format the reference answer of dense captioning: one line per event, `From xx to xx, caption`.

    Line breaks inside a caption become spaces, since each line is one event.

    Example:
        >>> render_events([Event(0, 30, "A bell rings."), Event(30, 60, "A dog barks.")], 60)
        'From 00 to 50, A bell rings.\\nFrom 50 to 99, A dog barks.'
    """
    return "\n".join(f"{render_span(e.start, e.end, duration)}, {' '.join(e.caption.split())}" for e in events)


def parse_span(answer: str, protocol: Protocol = "strict") -> Span | None:
    """Read the time interval of an answer.

    Args:
        answer: any text.
        protocol: `official` takes the first two-digit pair joined by "to" or "and" anywhere (so "5 to 12" is not read,
            "105 to 120" reads as 05 to 12, and the end may be before the start). `strict` drops reasoning and takes
            the first pair from 0 to 100, also with decimals, "%" and dashes. Seconds, clock times and other units are
            never percent, and the end may not be before the start. Two equal timecodes are the interval of times that
            round to it: "04 to 04" reads as 3.5 to 4.5, "99 to 99" as 99 to 100.

    Returns:
        The interval in percent, or None if the answer has none. Never raises.

    Example:
        >>> parse_span("From 05 to 25."), parse_span("5% - 12%"), parse_span("no idea")
        (Span(start=5.0, end=25.0, caption=''), Span(start=5.0, end=12.0, caption=''), None)
    """
    if protocol == "official":
        match = _OFFICIAL_SPAN.search(answer)
        return Span(float(match[1]), float(match[3])) if match else None
    spans = list(find_spans(strip_reasoning(answer), labelled=False, commas=False))
    return next((span for _, span in _in_percent(spans)), None)


def parse_events(answer: str, protocol: Protocol = "strict") -> list[Span]:
    """Read the events of a dense captioning answer.

    Args:
        answer: any text; one event per line, `From xx to xx, caption`.
        protocol: `official` is case-sensitive, merges consecutive events whose captions are similar (difflib ratio over
            .98, at most 1 % apart; the first caption stays) and then adds 1 to each end. `strict` does neither, reads
            the same numbers as [`parse_span`], and accepts several events per line.

    Returns:
        Intervals in percent with their captions, in the order of the answer. Never raises.

    Example:
        >>> parse_events("From 00 to 50, a bell rings.\\nFrom 50 to 99, a dog barks.")[1]
        Span(start=50.0, end=99.0, caption='a dog barks.')
    """
    if protocol == "official":
        return _parse_events_official(answer)
    pieces = [
        (span, match[1].strip())
        for line in find_json_lines(strip_reasoning(answer)).splitlines()
        for span, after in split_line(line, labelled=False, commas=False)
        if (match := _CAPTION.match(after))
    ]
    return [replace(span, caption=pieces[place][1]) for place, span in _in_percent([span for span, _ in pieces])]


def _in_percent(spans: Sequence[TimeSpan]) -> Iterator[tuple[int, Span]]:
    """Yield spans that can be percent, with their indices; if the answer uses seconds, only those marked percent."""
    seconds = any(span.unit == "seconds" for span in spans)
    for place, span in enumerate(spans):
        if (span.unit == "percent" or not seconds) and 0 <= span.start <= span.end <= 100:
            yield place, Span(span.start, span.end) if span.start < span.end else timecode_cell(span.start)


def timecode_cell(code: float) -> Span:
    """Return the interval of times with this timecode: the meaning of an answer with two equal timecodes.

    Because of the cap, 99 also means all later times, and events there mostly end with the video.

    Example:
        >>> timecode_cell(4.0)
        Span(start=3.5, end=4.5, caption='')
    """
    if code >= MAX_TIMECODE:
        return Span(float(MAX_TIMECODE), 100.0)
    return Span(max(code - 0.5, 0.0), code + 0.5)


def _parse_events_official(answer: str) -> list[Span]:
    # A float overflows at 308 digits, and no video has such an event.
    found = [
        Span(int(m[1]), int(m[2]), m[3]) for m in _OFFICIAL_EVENT.finditer(answer) if max(len(m[1]), len(m[2])) < 300
    ]
    merged: list[Span] = []
    for span in found:
        last = merged[-1] if merged else None
        if last and -_MERGE_GAP <= span.start - last.end <= _MERGE_GAP and _alike(last.caption, span.caption):
            merged[-1] = Span(last.start, span.end, last.caption)
        else:
            merged.append(span)
    return [Span(float(s.start), float(s.end + 1), s.caption) for s in merged]


def _alike(first: str, second: str) -> bool:
    # A model that loops repeats itself exactly: no comparison needed.
    return first == second or SequenceMatcher(None, first, second).ratio() > _MERGE_RATIO
