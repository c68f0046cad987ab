"""Timecodes: a time as two digits, 00 to 99, a percentage of the video's duration.

The published model reads and writes all times in this form. `to_timecode` follows the published training code (Python's
`round`, the cap at 99, two digits); the parsers come in two protocols: `official` reproduces what the published scorers
accept, quirks included, and `strict` reads what a person would read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal, TypeAlias

from .events import Event, Seconds

Protocol: TypeAlias = Literal["official", "strict"]
PROTOCOLS: tuple[Protocol, ...] = ("official", "strict")

MAX_TIMECODE = 99

_OFFICIAL_SPAN = re.compile(r"(\d{2}) (to|and) (\d{2})")
_OFFICIAL_EVENT = re.compile(r"From (\d+) to (\d+), (.+?)(?:\n|$)")
_NUMBER = r"(\d{1,3}(?:\.\d{1,6})?)"
_PERCENT = r"\s*(?:%\s*)?"  # one way only to match a run of spaces, else long ones take quadratic time
_STRICT_SPAN = re.compile(
    rf"(?<![\d.,]){_NUMBER}{_PERCENT}(?:to|and|until|till|-|–|—)\s*(?:the\s+)?{_NUMBER}(?!\d|\.\d)", re.IGNORECASE
)
_STRICT_EVENT = re.compile(rf"{_STRICT_SPAN.pattern}{_PERCENT}[,:;]\s*(\S.*)", re.IGNORECASE)

#: The published dense captioning scorer merges neighbours that are this much alike and at most 1 % apart.
_MERGE_RATIO, _MERGE_GAP = 0.98, 1


@dataclass(frozen=True)
class Span:
    """A stretch of a video in percent of its duration, as read from an answer.

    Args:
        start: 0 to 100.
        end: 0 to 100; in the official protocol it may lie before `start` or, after its "+ 1", at 101 and more.
        caption: the sentence of a dense captioning answer, else empty.
    """

    start: float
    end: float
    caption: str = ""

    def seconds(self, duration: Seconds) -> tuple[Seconds, Seconds]:
        """Start and end in seconds of a video of this duration."""
        return self.start * duration / 100, self.end * duration / 100


def to_timecode(time: Seconds, duration: Seconds) -> str:
    """A time as two digits, a percentage of the duration.

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
    # Capped before it is rounded: a percentage of a very short duration may be infinite.
    return f"{round(min(time / duration * 100, MAX_TIMECODE)):02d}"


def render_span(start: Seconds, end: Seconds, duration: Seconds) -> str:
    """`From xx to xx`, without a full stop.

    Example:
        >>> render_span(6.0, 30.0, 120.0)
        'From 05 to 25'
    """
    return f"From {to_timecode(start, duration)} to {to_timecode(end, duration)}"


def render_events(events: Iterable[Event], duration: Seconds) -> str:
    """The reference answer of dense captioning: a line an event, `From xx to xx, caption`.

    Line breaks inside a caption become spaces, since a line is an event.

    Example:
        >>> render_events([Event(0, 30, "A bell rings."), Event(30, 60, "A dog barks.")], 60)
        'From 00 to 50, A bell rings.\\nFrom 50 to 99, A dog barks.'
    """
    return "\n".join(f"{render_span(e.start, e.end, duration)}, {' '.join(e.caption.split())}" for e in events)


def parse_span(answer: str, protocol: Protocol = "strict") -> Span | None:
    """Read the time interval that an answer names.

    Args:
        answer: any text.
        protocol: `official` takes the first two-digit pair joined by "to" or "and" anywhere (so "5 to 12" is not read,
            "105 to 120" reads as 05 to 12, and the end may lie before the start); `strict` takes one to three digits,
            decimals, "%" and dashes, and refuses numbers above 100 and intervals that do not end after they start.

    Returns:
        The interval in percent, or None when the answer names none. Never raises.

    Example:
        >>> parse_span("From 05 to 25."), parse_span("5% - 12%"), parse_span("no idea")
        (Span(start=5.0, end=25.0, caption=''), Span(start=5.0, end=12.0, caption=''), None)
    """
    if protocol == "official":
        match = _OFFICIAL_SPAN.search(answer)
        return Span(float(match[1]), float(match[3])) if match else None
    for match in _STRICT_SPAN.finditer(answer):
        if span := _strict_span(match[1], match[2]):
            return span
    return None


def parse_events(answer: str, protocol: Protocol = "strict") -> list[Span]:
    """Read the events of a dense captioning answer.

    Args:
        answer: any text; an event a line, `From xx to xx, caption`.
        protocol: `official` is case-sensitive, merges consecutive events whose captions are alike (difflib ratio over
            .98, at most 1 % apart; the first caption stays) and then adds 1 to each end; `strict` does neither, reads
            the same numbers as [`parse_span`], and leaves out intervals that do not end after they start.

    Returns:
        Intervals in percent with their captions, in the order of the answer. Never raises.

    Example:
        >>> parse_events("From 00 to 50, a bell rings.\\nFrom 50 to 99, a dog barks.")[1]
        Span(start=50.0, end=99.0, caption='a dog barks.')
    """
    if protocol == "official":
        return _parse_events_official(answer)
    spans = []
    for line in answer.splitlines():
        match = _STRICT_EVENT.search(line)
        if match and (span := _strict_span(match[1], match[2], match[3].strip())):
            spans.append(span)
    return spans


def _strict_span(start: str, end: str, caption: str = "") -> Span | None:
    span = Span(float(start), float(end), caption)
    return span if 0 <= span.start < span.end <= 100 else None


def _parse_events_official(answer: str) -> list[Span]:
    # A float ends at 308 digits: such an event cannot lie in any video.
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
    # A model that loops repeats itself word for word: no need to compare.
    return first == second or SequenceMatcher(None, first, second).ratio() > _MERGE_RATIO
