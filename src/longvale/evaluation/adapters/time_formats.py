"""Formats of times in the questions to models that were not tuned on LongVALE, and in their replies.

All formats read all notations of [`longvale.reading`], since models do not always answer as asked. They differ in how
times are written and asked for, and in the unit of numbers for which a reply names none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Any

from ...events import Event, Seconds
from ...reading.lists import find_any_spans, find_events
from ...reading.records import Record
from ...reading.spans import Unit
from ...registry import time_formats
from ...tasks import Task
from ...timecodes import to_timecode

#: Two-digit numbers one of which has a leading zero: the timecodes that training teaches.
_TIMECODES = re.compile(r"\bfrom (?=0|\d\d (?:to|and) 0)\d\d (?:to|and) \d\d\b(?![.:]?\d|\s?[%s])", re.IGNORECASE)


class TimeFormat:
    """How a model is asked for times, and how the times of its replies are read; subclass to change either.

    Example:
        >>> class FrameNumbers(TimeFormat):
        ...     "Numbers of frames, at one frame per second."
        ...     def prompt(self, task):
        ...         return super().prompt(task).replace("in seconds from the beginning", "as frame numbers")
        ...     def read(self, reply, duration):
        ...         return re.sub(r"frame (\\d+)", r"\\1 s", reply)
        >>> FrameNumbers().read("From frame 6 to frame 30.", 60.0)
        'From 6 s to 30 s.'
    """

    #: Unit of bare numbers in what `read` returns.
    unit: Unit = "seconds"
    #: Suffix of the files in `prompts`; where there is none, the unit.
    prompts: str | None = None
    #: A span in this format, without a full stop.
    span = "From {start} to {end} seconds"

    def write(self, time: Seconds, duration: Seconds) -> str:
        """Format a time for a question: seconds with one decimal, without the unit.

        Args:
            time: seconds, 0 or more.
            duration: of the video in seconds.
        """
        return f"{time:.1f}"

    def render(self, start: Seconds, end: Seconds, duration: Seconds) -> str:
        """Format a span as the answer that the prompt asks for, without a full stop.

        Example:
            >>> SecondsFormat().render(6, 30, 60), ClockFormat().render(6, 90, 120), PercentFormat().render(6, 30, 60)
            ('From 6.0 to 30.0 seconds', 'From 0:06 to 1:30', 'From 10% to 50%')
        """
        return self.span.format(start=self.write(start, duration), end=self.write(end, duration))

    def render_events(self, events: Iterable[Event], duration: Seconds) -> str:
        """Format the answer to dense captioning: one line per event."""
        lines = (
            f"{self.render(event.start, event.end, duration)}, {' '.join(event.caption.split())}" for event in events
        )
        return "\n".join(lines)

    def prompt(self, task: Task) -> str:
        """Return the question of a task: a template with `$duration`, `$length`, `$caption`, `$start` and `$end`.

        `$duration` is a number of seconds, `$length` the duration in this format.
        """
        folder = files(__package__).joinpath("prompts")
        own = folder.joinpath(f"{task}_{self.prompts}.txt")
        path = own if own.is_file() else folder.joinpath(f"{task}_{self.unit}.txt")
        return path.read_text(encoding="utf-8").strip()

    def read(self, reply: str, duration: Seconds) -> str:
        """Return a reply with its times in a notation that [`longvale.reading`] reads; by default unchanged."""
        return reply

    def parse(self, reply: str, duration: Seconds, task: Task) -> Iterator[Record]:
        """Yield what a reply without reasoning says: spans, the most reliable first; for dense captioning, events.

        Args:
            reply: any text.
            duration: of the video in seconds.
            task: "dense_captioning", or another one for spans without captions.
        """
        text = self.read(reply, duration)
        if task == "dense_captioning":
            yield from find_events(text)
        else:
            yield from (Record(span) for span in find_any_spans(text))

    def unit_of(self, reply: str) -> Unit:
        """Return the unit of bare numbers in a reply; by default `unit`."""
        return self.unit


def recorded_format(config: Any, default: str) -> str:
    """Return the name of the format in which a checkpoint was trained to write times.

    Args:
        config: configuration of a model; its `time_format` comes from a file, so only registered names are looked up.
        default: for a checkpoint that records none.

    Raises:
        ValueError: if the name is not registered.

    Example:
        >>> from types import SimpleNamespace
        >>> recorded_format(SimpleNamespace(time_format="clock"), "seconds"), recorded_format(None, "seconds")
        ('clock', 'seconds')
    """
    name = getattr(config, "time_format", None)
    if name is None:
        return default
    try:
        time_formats.registered(str(name))
    except ValueError as error:
        raise ValueError(f"time_format of the checkpoint's config.json: {error}") from None
    return str(name)


def own_times(config: Any) -> str:
    """Return the name of the format in which a LongVALE checkpoint writes times; empty for timecodes, as published.

    Raises:
        ValueError: as [`recorded_format`].
    """
    name = recorded_format(config, "percent")
    return "" if name == "percent" else name


def own_format(config: Any) -> TimeFormat | None:
    """Return the format of [`own_times`]; None for timecodes.

    Raises:
        ValueError: as [`recorded_format`].
    """
    name = own_times(config)
    return time_formats.create(name) if name else None


def check_sentences(name: str) -> None:
    """Check that a format writes spans that fit into sentences, as dialogues contain them.

    Raises:
        ValueError: if it does not, or is not known.

    Example:
        >>> check_sentences("json")
        Traceback (most recent call last):
            ...
        ValueError: times: dialogues have times within sentences, which 'json' does not write; give another format
    """
    if not time_formats.create(name).render(0.0, 1.0, 2.0).startswith("From "):
        raise ValueError(
            f"times: dialogues have times within sentences, which {name!r} does not write; give another format"
        )


def require_timecodes(config: Any, command: str) -> None:
    """Refuse a LongVALE checkpoint that writes times in another format than timecodes.

    Raises:
        ValueError: naming the command that does not read the format.
    """
    if own_format(config) is not None:
        raise ValueError(
            f"{command} supports timecodes (percent), and this model writes times as {config.time_format}; use "
            "`longvale ask` or `longvale evaluate`, or train with --times percent"
        )


@time_formats.register("seconds")
class SecondsFormat(TimeFormat):
    """Seconds from the beginning of the video, with one decimal."""


@time_formats.register("clock")
class ClockFormat(TimeFormat):
    """Clock times in whole seconds: m:ss, from one hour on h:mm:ss."""

    prompts = "clock"
    span = "From {start} to {end}"

    def write(self, time: Seconds, duration: Seconds) -> str:
        """Format a time as m:ss or h:mm:ss.

        Example:
            >>> ClockFormat().write(5, 60), ClockFormat().write(3725.6, 4000)
            ('0:05', '1:02:06')
        """
        minutes, seconds = divmod(round(time), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


@time_formats.register("percent")
class PercentFormat(TimeFormat):
    """Percentages of the video's duration, as two digits."""

    unit = "percent"
    span = "From {start}% to {end}%"

    def write(self, time: Seconds, duration: Seconds) -> str:
        """Format a time as two digits."""
        return to_timecode(time, duration)


@time_formats.register("json")
class JsonFormat(TimeFormat):
    """JSON objects with `start` and `end` in seconds, and `caption` for dense captioning."""

    prompts = "json"
    span = '{{"start": {start}, "end": {end}}}'

    def render_events(self, events: Iterable[Event], duration: Seconds) -> str:
        """Format the answer to dense captioning: a list with one object per event."""
        objects = [
            {"start": round(event.start, 1), "end": round(event.end, 1), "caption": " ".join(event.caption.split())}
            for event in events
        ]
        return json.dumps(objects, ensure_ascii=False)


@time_formats.register("tokens")
class TokensFormat(TimeFormat):
    """Times in seconds in angle brackets, `<12.5 seconds>`, as frames are marked for Qwen3-VL."""

    prompts = "tokens"
    span = "From {start} to {end}"

    def write(self, time: Seconds, duration: Seconds) -> str:
        """Format a time as `<12.5 seconds>`."""
        return f"<{time:.1f} seconds>"


@time_formats.register("auto")
class AutoFormat(TimeFormat):
    """All notations; two-digit timecodes such as "From 05 to 25" are percent, other bare numbers seconds."""

    def unit_of(self, reply: str) -> Unit:
        """Return "percent" if the bare numbers of a reply are timecodes.

        Example:
            >>> AutoFormat().unit_of("From 05 to 25."), AutoFormat().unit_of("From 10 to 50.")
            ('percent', 'seconds')
        """
        return "percent" if _TIMECODES.search(reply) else self.unit
