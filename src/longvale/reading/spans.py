"""Time spans in text: two times joined by a word, a dash or an arrow, or labelled as start and end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from typing import Literal, NamedTuple, TypeAlias

from ..events import Seconds

Unit: TypeAlias = Literal["seconds", "percent"]

#: How times are written: numbers with a unit of time or "%", clock times, JSON, special tokens.
Notation: TypeAlias = Literal["seconds", "percent", "clock", "json", "tokens"]

#: Words next to a number: their unit and its size. A number with a unit that is not time ("frames") is not a time.
_UNITS: dict[str, tuple[Unit | None, float]] = {
    **dict.fromkeys(("%", "percent", "per cent", "pct"), ("percent", 1)),
    **dict.fromkeys(("seconds", "second", "secs", "sec", "s", "秒"), ("seconds", 1)),
    **dict.fromkeys(("minutes", "minute", "mins", "min"), ("seconds", 60)),
    **dict.fromkeys(("hours", "hour", "hrs", "hr", "h"), ("seconds", 3600)),
    **dict.fromkeys(("milliseconds", "millisecond", "msecs", "msec", "ms", "fps", "khz", "hz", "db", "k"), (None, 0)),
    **dict.fromkeys(("km", "cm", "mm", "m", "meters", "metres", "feet", "degrees", "°", "$", "€", "£"), (None, 0)),
    **dict.fromkeys(
        ("days", "day", "weeks", "months", "years", "year", "am", "pm", "a.m", "p.m", "o'clock"), (None, 0)
    ),
    **dict.fromkeys(("frames", "frame", "times", "people"), (None, 0)),
}


def _any_of(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_GAP = r"[ \t]{0,4}"
_DECIMALS = r"(?:\.\d{1,20})?"
_SECONDS = rf"{_GAP}(?:seconds?|secs?|s)"
_TIME = re.compile(
    # `<t12.5>`, `<|12.5|>`, `<12.5 seconds>` (Qwen3-VL), `second{12.5}` (TimeMarker)
    rf"(?:<t|<\|t?)(?P<token>\d{{1,6}}{_DECIMALS})(?:{_SECONDS})?\|?>"
    rf"|<(?P<stamp>\d{{1,6}}{_DECIMALS}){_SECONDS}>"
    rf"|(?:seconds?|time)\{{(?P<braced>\d{{1,6}}{_DECIMALS})(?:{_SECONDS})?\}}"
    # `0:06`, `00:00:06`, `1:05.5`, and the `00:00:06,500` of subtitles
    r"|(?:(?P<clock>\d{1,3}:\d\d(?::\d\d)?(?:\.\d{1,6}|,\d{3})?)"
    # `1m30s`, `1 h 2 min and 5 seconds`
    rf"|(?P<parts>(?:\d{{1,2}}{_GAP}(?:hours?|hrs?|h)[ \t,]{{0,3}})?\d{{1,3}}{_GAP}(?:minutes?|mins?|m)[ \t,]{{0,3}}"
    rf"(?:and )?\d{{1,2}}{_DECIMALS}{_GAP}(?:seconds?|secs?|s)(?![a-z]))"
    rf"|(?P<number>(?:[1-9]\d{{0,2}}(?:,\d{{3}})+(?!\d)|\d{{1,6}}){_DECIMALS})(?:st|nd|rd|th)?)(?!\d|[:.]\d|,\d{{3}}(?!\d))"
    rf"(?:{_GAP}-?(?P<unit>{_any_of(_UNITS)})(?![a-z])\.?(?:[ -]marks?\b)?)?(?![a-z])"
    r"|\d[\d:.,]*",  # a number that is not a time is skipped as a whole
    re.IGNORECASE,
)
_PART = re.compile(r"(\d+(?:\.\d+)?)[ \t]*([a-z])", re.IGNORECASE)

#: Units that may precede their number: "second 6".
_OF = tuple(word for word in _UNITS if len(word) > 2 and word.isalpha())
#: Words that may directly precede a time.
_LEAD = (
    r"(?:(?:the|about|around|approximately|approx\.?|roughly|nearly|at|time(?:stamp)?|t ?=|[~≈])[ \t:]{0,3}){0,3}"
    rf"(?:(?P<of>{_any_of(_OF)})[ \t]{{1,3}})?"
)
_OPEN, _CLOSE = r"[\"'(\[*]{0,2}", r"[\"')\]*]{0,2}"
#: Tokens before the first time; of these, [`_MERE_WORDS`] are ignored.
_WORDS_BEFORE = re.compile(r"[a-z]+|[^a-z\s\d\"'*:~≈=]|\d+")
_MERE_WORDS = frozenset({"the", "about", "around", "approximately", "approx", "roughly", "nearly", "at", "time", "t"})
_JOIN = re.compile(
    rf"{_CLOSE}{_GAP}(?:(?:up )?to|until|till?|through|thru|-{{1,2}}>?|=>|[–—‑‒―−~〜→⟶➔➜⇒到至]|\.{{2,3}}|…"
    rf"|(?P<and>and)|(?P<comma>,)){_GAP}{_OPEN}{_LEAD}",
    re.IGNORECASE,
)
#: Characters that a time cannot follow: it is then part of a number, a word, a date, a price, or negative.
_INSIDE = re.compile(r"[A-Za-z\d.,:/$€£-]\Z")
#: Text that cannot follow a time: it is then part of a date.
_RUNS_ON = re.compile(r"[-/]\d")
_CLOSED = re.compile(r"[\"']{0,2}[ \t]?[\])>}]")


def _label(words: str) -> str:
    return (
        rf"(?<![a-z])(?:{words})(?:[ _-]?\(?(?:time(?:stamp)?|point|seconds?|secs?|s|percent(?:age)?)){{0,2}}"
        r"[\"'*)>]{0,3}"
        rf"(?:\s{{0,3}}[:=]|[ \t]{{1,3}}(?:is|are|at|from|on)\b)?\s{{0,8}}{_OPEN}"
    )


_START = re.compile(rf"{_label('starts?|starting|started|begins?|beginning|began|onset')}{_LEAD}\Z", re.IGNORECASE)
_END = re.compile(
    rf"{_CLOSE}(?:</\w{{1,12}}>)?[\s,;.|}}]{{0,12}}(?:(?:and|then|it|->?|[–—→])[ \t]{{1,3}}){{0,3}}[\"'*(\[<]{{0,3}}"
    + _label("ends?|ending|ended|finish(?:es|ing)?|stops?|stopping|concludes?|offset|(?:lasts? |continues? )?until")
    + _LEAD,
    re.IGNORECASE,
)
#: The answer format that training teaches, alone on its line: parsed without a search.
_USUAL = re.compile(r"From (\d\d) to (\d\d)(?:[.,]\D*)?", re.ASCII)
#: How far before and between times words are examined, in characters.
_REACH = 60

#: ASCII equivalents of full-width forms ("０：０６") and special spaces, character by character.
_PLAIN: dict[int, int | str] = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},
    0xA0: " ",
    0x2009: " ",
    0x202F: " ",
    0x3000: " ",
}


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """Two times in a text.

    Args:
        start, end: in `unit`; 0 or more, in any order.
        unit: that the text names, or None if it names none.
        at, stop: position of the span in the text, characters [at, stop).
        notation: how the times are written; None for numbers without a unit.
    """

    start: float
    end: float
    unit: Unit | None = None
    at: int = 0
    stop: int = 0
    notation: Notation | None = field(default=None, compare=False, repr=False)

    def shares(self, duration: Seconds, unit: Unit, tolerance_s: Seconds = 0.0) -> tuple[float, float] | None:
        """Return start and end as shares of a duration, or None if they do not fit the video or are reversed.

        Args:
            duration: of the video in seconds.
            unit: of numbers for which the text names none.
            tolerance_s: seconds that the end may exceed the duration; it is then clipped to the duration.

        Example:
            >>> TimeSpan(6, 30).shares(60.0, "seconds"), TimeSpan(6, 30, "percent").shares(60.0, "seconds")
            ((0.1, 0.5), (0.06, 0.3))
        """
        whole = duration if (self.unit or unit) == "seconds" else 100.0
        if not self.start <= self.end <= whole * (1 + tolerance_s / duration) or self.start >= whole:
            return None
        return self.start / whole, min(self.end / whole, 1.0)


class Time(NamedTuple):
    """A time in a text.

    Args:
        value: in seconds or percent according to `unit`, else the bare number.
        unit: next to the time.
        size: of a unit next to it, in seconds or percent: "6 to 30 minutes" are 60 s each. 0 if there is none.
        is_index: whether it may be the number of a list item: whole and without a unit.
        at, stop: its position, characters [at, stop).
        notation: how it is written.
    """

    value: float
    unit: Unit | None
    size: float
    is_index: bool
    at: int
    stop: int
    notation: Notation | None = None


def plain(text: str) -> str:
    """Replace full-width characters and special spaces by ASCII; the text keeps its length.

    Example:
        >>> plain("６ to ３０")
        '6 to 30'
    """
    return text if text.isascii() else text.translate(_PLAIN)


def find_spans(text: str, *, labelled: bool = True, commas: bool = True) -> Iterator[TimeSpan]:
    """Find the time spans of a text.

    Two times are a span if they are joined by "to" or a similar word, a dash or an arrow; by "and" after "between" or
    "from"; by a comma in brackets; or if they are labelled as start and end. Chains of three times, dates, prices, and
    numbers with a unit other than time or percent are skipped. Takes time linear in the length of the text.

    Args:
        text: any.
        labelled: accept "starts at 6 and ends at 30" and `"start": 6, "end": 30`.
        commas: accept "[6, 30]".

    Example:
        >>> [(span.start, span.end, span.unit) for span in find_spans("1, 30.0 - 54.0 s, then 1:00 to 1:30.")]
        [(30.0, 54.0, 'seconds'), (60.0, 90.0, 'seconds')]
        >>> [(span.start, span.end) for span in find_spans("It starts at 6.0s and ends at 30.0s.")]
        [(6.0, 30.0)]
    """
    text = plain(text)
    if usual := _USUAL.fullmatch(text):
        yield TimeSpan(float(usual[1]), float(usual[2]), None, usual.start(1), usual.end(2))
        return
    times = list(_times(text))
    found = [_linked(text, first, last, labelled, commas) for first, last in pairwise(times)]
    for place, span in enumerate(found):
        # In a chain ("1 - 6.0 to 30.0") the first number must be an item number; otherwise the chain is ambiguous.
        in_chain = place and _rises(found[place - 1]) and _rises(span)
        begins_chain = place + 1 < len(found) and _rises(span) and _rises(found[place + 1])
        if span is not None and not begins_chain and (not in_chain or times[place - 1].is_index):
            yield span


def read_time(text: str) -> tuple[float, Unit | None] | None:
    """Read a text that is only a time.

    Example:
        >>> read_time("0:06"), read_time("10%"), read_time("30.5"), read_time("frame 3"), read_time("soon")
        ((6.0, 'seconds'), (10.0, 'percent'), (30.5, None), None, None)
    """
    text = plain(text).strip(" \t\"'()[]*`")
    time = next(_times(text), None) if text[:1].isdigit() and len(text) < _REACH else None
    return None if time is None or time.at or time.stop < len(text) else (time.value, time.unit)


def _times(text: str) -> Iterator[Time]:
    for match in _TIME.finditer(text):
        clock, parts, number, named = match.group("clock", "parts", "number", "unit")
        at, stop = match.span()
        if number:
            unit, size = _UNITS[named.lower()] if named else (None, 0.0)
            value = float(number.replace(",", ""))
            if not named:
                yield Time(value, None, 0.0, number.isdigit(), at, stop)
            elif unit:
                yield Time(value * size, unit, size, False, at, stop, unit)
        elif clock:
            seconds = _clock(clock)
            if seconds is not None and (not named or _UNITS[named.lower()][0] == "seconds"):
                yield Time(seconds, "seconds", 0.0, False, at, stop, "clock")
        elif parts:
            factors = {"h": 3600, "m": 60, "s": 1}
            value = sum(float(part) * factors[letter.lower()] for part, letter in _PART.findall(parts))
            yield Time(value, "seconds", 0.0, False, at, stop, "seconds")
        elif token := match["token"] or match["stamp"] or match["braced"]:
            yield Time(float(token), "seconds", 0.0, False, at, stop, "tokens")


def _clock(text: str) -> float | None:
    """Return seconds; None if seconds or minutes are 60 or more."""
    first, *others = map(float, text.replace(",", ".").split(":"))
    for part in others:
        if part >= 60:
            return None
        first = 60 * first + part
    return first


def _linked(text: str, first: Time, last: Time, labelled: bool, commas: bool) -> TimeSpan | None:
    """Return the span of two consecutive times, or None if the text around them does not join them."""
    if last.at - first.stop > _REACH or _RUNS_ON.match(text, last.stop):
        return None
    before, between = text[max(0, first.at - _REACH) : first.at], text[first.stop : last.at]
    if first.notation == last.notation == "tokens" and between.strip() in ("", ",", "and"):
        return _span(first, last)
    if words := _JOIN.fullmatch(between):
        if _INSIDE.search(before[-1:]):
            return None
        plain_join = not (words["and"] or words["comma"] or before.rstrip().lower().endswith(_OF))
        of, word = (None, "") if plain_join else _words_before(before)
        if (words["and"] and word not in ("between", "from")) or (
            words["comma"] and not (commas and word in ("[", "(", "<", "{") and _CLOSED.match(text, last.stop))
        ):
            return None
        return _span(first, last, of, words["of"])
    if labelled and (words := _END.fullmatch(between)) and (lead := _START.search(before)):
        return _span(first, last, lead["of"], words["of"])
    return None


def _words_before(before: str) -> tuple[str | None, str]:
    """Return a unit right before a time ("second 6"), and the word or bracket before it, skipping [`_MERE_WORDS`]."""
    of = None
    for place, word in enumerate(reversed(_WORDS_BEFORE.findall(before[-30:].lower()))):
        if place == 0 and word in _OF:
            of = word
        elif word not in _MERE_WORDS:
            return of, word
    return of, ""


def _span(first: Time, last: Time, *before: str | None) -> TimeSpan | None:
    """Return a span of two times; if one lacks a unit, it gets the other's ("6 to 30 minutes")."""
    values: list[float] = []
    units: list[Unit | None] = []
    sizes: list[float] = []
    for time, word in zip_longest((first, last), before):
        named, of = _UNITS[word.lower()] if word else (time.unit, 1.0)
        if word and (named is None or time.unit not in (None, named)):
            return None
        values.append(time.value if time.unit or not word else time.value * of)
        units.append(named)
        sizes.append(time.size or (of if word else 0.0))
    for one, other in ((0, 1), (1, 0)):
        if units[one] is None and units[other] is not None:
            if not sizes[other]:  # a bare number next to a clock time
                return None
            values[one], units[one] = values[one] * sizes[other], units[other]
    if units[0] != units[1]:
        return None
    return TimeSpan(values[0], values[1], units[0], first.at, last.stop, first.notation or last.notation or units[0])


def _rises(span: TimeSpan | None) -> bool:
    return span is not None and span.start < span.end
