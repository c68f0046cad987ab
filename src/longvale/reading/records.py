"""Events in records: JSON objects anywhere in a text, and table rows with named fields."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ..io import is_number
from .spans import TimeSpan, Unit, find_spans, read_time

#: Names of fields, in lower case and without the words in [`_QUALIFIERS`].
_STARTS = frozenset({"start", "starts", "begin", "begins", "beginning", "from", "onset"})
_ENDS = frozenset({"end", "ends", "stop", "finish", "to", "until", "offset"})
_SPANS = frozenset({"timestamp", "timestamps", "time", "times", "interval", "segment", "span", "range", "timerange"})
#: Names of caption fields, the most reliable first.
_CAPTIONS = ("caption", "description", "event", "sentence", "text", "summary", "content", "label", "action", "title")
#: Words of a field's name that do not change its role, and the unit that some of them name.
_QUALIFIERS: dict[str, Unit | None] = {
    **dict.fromkeys(("time", "timestamp", "point", "at", "in", "video"), None),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "seconds"),
    **dict.fromkeys(("percent", "percentage", "pct"), "percent"),
}
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|%|\d+")
_OPENING = re.compile(r"[\[{]")
#: Limit of characters parsed as JSON: in multiples of the text's length, and for short texts so many more.
_PARSED_LENGTHS, _PARSED_MORE = 8, 10_000
#: What an attempt costs at least, in characters.
_LEAST_PARSED = 128
#: Maximum depth of nested lists and objects that are searched.
_DEPTH = 8


class Record(NamedTuple):
    """Times of an event, and its caption, which may be empty."""

    span: TimeSpan
    caption: str = ""


def find_json(text: str) -> Iterator[Any]:
    """Find the JSON objects and lists in a text with any surrounding text.

    In a truncated list, the complete objects are found. Takes time linear in the length of the text.

    Example:
        >>> list(find_json('Sure! {"a": 1} and [{"b": 2}, {"b":'))
        [{'a': 1}, {'b': 2}]
    """
    decoder, stop, budget = json.JSONDecoder(), 0, _PARSED_LENGTHS * len(text) + _PARSED_MORE
    for match in _OPENING.finditer(text):
        at = match.start()
        if at < stop:
            continue
        try:
            value, stop = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            budget -= max(error.pos - at, _LEAST_PARSED)
        except (ValueError, RecursionError):  # a number of thousands of digits, thousands of brackets
            budget -= len(text)
        else:
            yield value
        if budget < 0:
            return


def read_records(value: Any) -> Iterator[Record]:
    """Read the events of a JSON value, at any depth, in their order.

    An event is an object with start and end or an interval, a list `[start, end]` or `[start, end, caption]`, or a
    caption whose key is an interval. Fields of another unit ("start_frame") are not times.

    Example:
        >>> [(r.span.start, r.span.end, r.caption) for r in read_records({"events": [{"from_s": 6, "to_s": 30}]})]
        [(6.0, 30.0, '')]
    """
    return _read(value, _DEPTH)


def find_json_lines(text: str) -> str:
    """Join the strings of JSON, such as `["From 05 to 25, a bell.", ...]`, into lines; return other texts unchanged.

    Example:
        >>> find_json_lines('["05 to 25, a bell", "25 to 50, a dog"]'), find_json_lines("[05 to 25] a bell")
        ('05 to 25, a bell\\n25 to 50, a dog', '[05 to 25] a bell')
    """
    if text.lstrip()[:1] not in ("[", "{"):
        return text
    return "\n".join(line for value in find_json(text) for line in _texts(value, _DEPTH)) or text


def read_fields(fields: Mapping[str, Any]) -> Record | None:
    """Read one event from named fields, such as those of a row of a table.

    Example:
        >>> read_fields({"Start (s)": "6.0", "End (s)": "30.0", "Event": "A bell rings."})
        Record(span=TimeSpan(start=6.0, end=30.0, unit='seconds', at=0, stop=0), caption='A bell rings.')
    """
    ends: dict[str, tuple[float, Unit | None]] = {}
    span: TimeSpan | None = None
    for name, value in fields.items():
        role, unit = _role(name)
        if role in ("start", "end") and (time := _time(value)):
            if unit and time[1] not in (None, unit):
                return None
            ends.setdefault(role, (time[0], time[1] or unit))
        elif role == "span" and span is None and (found := _interval(value)):
            span = found if found.unit or not unit else TimeSpan(found.start, found.end, unit)
    if len(ends) == 2 and ends["start"][1] == ends["end"][1]:
        (start, unit), (end, _) = ends["start"], ends["end"]
        clock = any(isinstance(value, str) and ":" in value for name, value in fields.items() if _role(name)[0])
        span = TimeSpan(start, end, unit, notation="clock" if clock else unit)
    return None if span is None else Record(span, _caption(fields))


def _read(value: Any, depth: int) -> Iterator[Record]:
    if not depth:
        return
    if isinstance(value, Mapping):
        if record := read_fields(value):
            yield record
            return
        if pairs := _parallel_lists(value):
            yield from pairs
            return
        for name, item in value.items():
            span = _interval(name)
            if span and isinstance(item, str):
                yield Record(span, item)
            else:
                yield from _read(item, depth - 1)
    elif isinstance(value, list):
        if span := _interval(value[:2]) if len(value) in (2, 3) else None:
            caption = value[2] if len(value) == 3 else ""
            if isinstance(caption, str):
                yield Record(span, caption)
                return
        for item in value:
            yield from _read(item, depth - 1)


def _parallel_lists(fields: Mapping[str, Any]) -> list[Record]:
    """Return the events of two lists of one length, as in `{"timestamps": [[6, 30]], "sentences": ["A bell."]}`."""
    lists = {name: item for name, item in fields.items() if isinstance(item, list) and item}
    spans = next((values for name, values in lists.items() if _role(name)[0] == "span"), [])
    texts = next((values for values in lists.values() if all(isinstance(text, str) for text in values)), [])
    found = [_interval(value) for value in spans]
    if not spans or len(texts) != len(found) or texts is spans:
        return []
    return [Record(span, text) for span, text in zip(found, texts, strict=True) if span is not None]


def _texts(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth and isinstance(value, list | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item, depth - 1)


def _role(name: str) -> tuple[str, Unit | None]:
    """Return the role of a field by its name ("start", "end", "span", or "" for none) and the unit of its times."""
    words = [word.lower() for word in _WORDS.findall(name[:60])]
    if not words:
        return "", None
    kinds = {"start": _STARTS, "end": _ENDS, "span": _SPANS}
    role = next((kind for kind, names in kinds.items() if words[0] in names), "")
    others = words[1:]
    known = _QUALIFIERS.keys() | _SPANS if role == "span" else _QUALIFIERS.keys()
    if not role or not set(others) <= known:
        return "", None
    return role, next((unit for word in others if (unit := _QUALIFIERS.get(word))), None)


def _time(value: Any) -> tuple[float, Unit | None] | None:
    if isinstance(value, str):
        return read_time(value)
    return (float(value), None) if is_number(value) and value >= 0 else None


def _interval(value: Any) -> TimeSpan | None:
    """Return the span of a string that is only a span, a list of two times, or an object with start and end."""
    if isinstance(value, str):
        if len(value) > 60:
            return None
        text = value.strip(" \t\"'*`")
        span = next(find_spans(text), None)
        alone = (
            span
            and not text[: span.at].strip(" ([").lower().removeprefix("from")
            and not text[span.stop :].strip(" )]")
        )
        return span if alone else None
    if isinstance(value, Mapping):
        record = read_fields({name: item for name, item in value.items() if not isinstance(item, Mapping | list)})
        return record and record.span
    if isinstance(value, list) and len(value) == 2:
        times = [_time(item) for item in value]
        if times[0] and times[1] and times[0][1] == times[1][1]:
            return TimeSpan(times[0][0], times[1][0], times[0][1])
    return None


def _caption(fields: Mapping[str, Any]) -> str:
    """Return the text of the field named as a caption, else the only string field that is not a time."""
    texts = {name.lower(): value for name, value in fields.items() if isinstance(value, str) and not _role(name)[0]}
    for wanted in _CAPTIONS:
        for name, text in texts.items():
            if wanted in _words(name):
                return text
    return next(iter(texts.values())) if len(texts) == 1 else ""


def _words(name: str) -> Iterable[str]:
    return (word.lower().removesuffix("s") for word in _WORDS.findall(name))
