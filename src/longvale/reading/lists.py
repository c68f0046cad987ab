"""Events in lists: times in front of each caption or above it, several events per line, tables, JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from .records import Record, find_json, find_json_lines, read_fields, read_records
from .spans import TimeSpan, find_spans, plain

#: Markdown and HTML marks around times and captions, and code fences.
_MARKUP = re.compile(
    r"^[ \t]*```.*$|\*\*?\*?|__|`+|</?(?:b|i|em|strong|code|li|p|br) ?/?>", re.MULTILINE | re.IGNORECASE
)
_BULLET = r"[-•·>#|–— \t]{0,6}(?:\(?#?\d{1,3}[.,):] ?|(?<=#)\d{1,3} )?"
_FROM = r"[\[(<\"']{0,2} ?(?:(?:from|between|at|during|in) (?:the |second |about |around )?)?"
#: Text allowed before the times of a line's first event: bullets, numbers, "Event 3:", "Time:", brackets, "from".
_LEAD = re.compile(
    rf"{_BULLET}(?:(?:event|scene|segment|shot|clip|part|step|chapter) ?#?\d{{0,3}} ?[-:.)–—]? ?)?"
    rf"(?:\d{{1,3}} ?[-–—:] )?(?:(?:times?|timestamps?|time ?range|interval|start(?: ?time)?) ?[:=] ?)?{_FROM}",
    re.IGNORECASE,
)
#: Text before the times of a further event in a line: the end of a sentence, or "From" that starts one; and the text
#: after them.
_NEXT = re.compile(rf"(?:(?:(?<=[.!?;])|(?<=[.!?;][\"')\]]))\s{_BULLET}(?i:{_FROM})|(?<![\"'\w])From )\Z")
_AFTER_NEXT = re.compile(r"[\"']?(?:[\])]|\s?[,:;–—-])")
#: Notations of times and of nothing else, after which no punctuation is needed.
_TIMES_ONLY = ("clock", "tokens")
#: Text before times in brackets after a title.
_TITLED = re.compile(r" ?[\[(] ?(?:from |between )?\Z", re.IGNORECASE)
#: How far before a span its lead is searched, in characters.
_REACH = 60
#: A JSON field in a line; text that cannot be parsed as JSON is not a list of lines either.
_FIELD = re.compile(r"[\"'][\w ]+[\"']\s*:")
#: "Start: 0:06" and "End: 0:30" on lines of their own.
_SPLIT_SPAN = re.compile(
    r"^([^\n\w]{0,6}start[^\n]{1,40})\n[^\n\w]{0,6}(?=end[^\n]{1,40}$)", re.MULTILINE | re.IGNORECASE
)
#: Name of a caption in front of it.
_LABEL = re.compile(r"(?:captions?|descriptions?|events?|summary) ?[:=]\s*", re.IGNORECASE)
_SEPARATORS = " \t.,:;-–—)]}>|"
_APART = re.compile(r"[\"')\]}>]{0,3}[\s.,:;|–—，。：；、-]*")


def strip_markup(text: str) -> str:
    """Remove marks of emphasis and code.

    Example:
        >>> strip_markup("**6.0s** – `30.0s`")
        '6.0s – 30.0s'
    """
    return _MARKUP.sub("", text)


def find_any_spans(text: str) -> Iterator[TimeSpan]:
    """Find spans in JSON and in sentences: first those of JSON, then those with a unit, then the others.

    Example:
        >>> [(span.start, span.end) for span in find_any_spans("2 - 3 dogs enter from 6 s to 30 s")]
        [(6.0, 30.0), (2.0, 3.0)]
    """
    text = strip_markup(text)
    values = list(find_json(text))
    # A lone "[6, 30]" may be anything. It comes last, after the other bare numbers.
    lone = [
        isinstance(value, list) and not any(isinstance(item, dict | list | str) for item in value) for value in values
    ]
    for value, alone in zip(values, lone, strict=True):
        if not alone:
            yield from (record.span for record in _of_json(value))
    spans = list(find_spans(text))
    yield from (span for span in spans if span.unit)
    yield from (span for span in spans if not span.unit)
    for value, alone in zip(values, lone, strict=True):
        if alone:
            yield from (record.span for record in _of_json(value))


def find_events(text: str) -> list[Record]:
    """Find the events of an answer that lists them, with their captions.

    JSON with captions is read alone. Otherwise a line may start with the times of an event, and contain a further event
    after each sentence. Times alone belong to the lines below. Times in brackets may follow a caption. Tables have
    times in cells. Other text is ignored.

    Example:
        >>> [(e.span.start, e.caption) for e in find_events("1. **0:06 - 0:30**: A bell rings.\\n2. Silence follows.")]
        [(6.0, 'A bell rings.')]
    """
    text = strip_markup(text)
    records = [record for value in find_json(text) for record in _of_json(value)]
    if not any(record.caption for record in records):
        records = list(_of_lines(_SPLIT_SPAN.sub(r"\1, ", find_json_lines(text)).splitlines()))
    return [record._replace(caption=caption) for record in records if (caption := _caption(record.caption))]


def split_line(line: str, *, labelled: bool = True, commas: bool = True) -> Iterator[tuple[TimeSpan, str]]:
    """Split a line into the events that it lists: times, and the text after them up to the next event.

    A line lists events if it starts with times, after optional bullets, numbers and "from". Times inside a sentence are
    part of the caption.

    Args:
        line: of an answer.
        labelled, commas: as in [`longvale.reading.spans.find_spans`].

    Example:
        >>> [after for _, after in split_line("1. From 05 to 25, one counts from 1 to 3. From 25 to 50, a dog.")]
        [', one counts from 1 to 3.', ', a dog.']
    """
    begun: TimeSpan | None = None
    shown = plain(line)
    for span in find_spans(shown, labelled=labelled, commas=commas):
        before = shown[max(0, span.at - _REACH) : span.at]
        if begun is None:
            if span.at > _REACH or not _LEAD.fullmatch(re.sub(r"\s+", " ", before).lstrip()):
                return
        elif (lead := _NEXT.search(before)) and (span.notation in _TIMES_ONLY or _AFTER_NEXT.match(shown, span.stop)):
            yield begun, line[begun.stop : span.at - len(before) + lead.start()]
        else:
            continue
        begun = span
    if begun:
        yield begun, line[begun.stop :]


def _of_json(value: Any) -> Iterator[Record]:
    for record in read_records(value):
        yield record._replace(span=replace(record.span, notation="json"))


def _of_lines(lines: Iterable[str]) -> Iterator[Record]:
    heading: TimeSpan | None = None  # times whose caption has not been read yet
    below: list[str] = []
    header: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.count("|") > 1 else []
        row = _of_row(header, cells)
        found = [row] if row else [] if _FIELD.search(line) else list(_of_line(line))
        if found or (not line.strip() and below):
            yield from _under(heading, below)
            heading, below = None, []
        for record in found:
            if record.caption:
                yield record
            else:
                heading = record.span
        if not found and line.strip():
            below.append(line.strip(" \t-•>#"))
            header = header or cells
    yield from _under(heading, below)


def _under(heading: TimeSpan | None, lines: Sequence[str]) -> Iterator[Record]:
    if heading is not None:
        yield Record(heading, " ".join(lines))


def _of_line(line: str) -> Iterator[Record]:
    """Yield the events of a line with the text around their times; the caption is empty if there are only times."""
    pieces = list(split_line(line))
    yield from (Record(span, after if _caption(after) else "") for span, after in pieces)
    spans = [] if pieces else list(find_spans(line))
    if len(spans) == 1 and (lead := _TITLED.search(line[: spans[0].at][-_REACH:])):
        title, after = line[: spans[0].at - len(lead[0])], line[spans[0].stop :].lstrip(" )]")
        if after[:1] in (":", "-", "–", "—") or not after.strip(". "):
            yield Record(spans[0], after if _caption(after) else re.sub(_BULLET, "", title, count=1))


def _of_row(header: Sequence[str], cells: Sequence[str]) -> Record | None:
    """Return the event of a table row: times in one cell or, by header, two; the longest other cell is the caption."""
    if len(header) == len(cells) > 1 and (record := read_fields(dict(zip(header, cells, strict=True)))):
        return record if record.caption else None
    spans = [(cell, span) for cell in cells if (span := next(find_spans(cell), None))]
    if len(spans) != 1 or len(cells) < 2:
        return None
    (timed, span), others = spans[0], [cell for cell in cells if cell != spans[0][0]]
    alone = _LEAD.fullmatch(timed[: span.at]) and not timed[span.stop :].strip(_SEPARATORS)
    return Record(span, max(others, key=len)) if alone and others else None


def _caption(text: str) -> str:
    """Return a caption on one line, without the separators between it and its times."""
    text = _APART.sub("", " ".join(text.split()), count=1).rstrip(" |,;:-–—")
    if label := _LABEL.match(text):
        text = text[label.end() :]
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] in ("\"'") else text
