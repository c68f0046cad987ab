"""Formats of times in the questions to models that were not tuned on LongVALE, and in their replies."""

from __future__ import annotations

from importlib.resources import files

from ...events import Seconds
from ...reading.spans import Unit
from ...registry import time_formats
from ...tasks import Task
from ...timecodes import to_timecode


class TimeFormat:
    """How a model is asked for times, and how the times of its replies are read; subclass to change either.

    Example:
        >>> import re
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

    def write(self, time: Seconds, duration: Seconds) -> str:
        """Format a time for a question: seconds with one decimal, without the unit.

        Args:
            time: seconds, 0 or more.
            duration: of the video in seconds.
        """
        return f"{time:.1f}"

    def prompt(self, task: Task) -> str:
        """Return the question of a task: a template with `$duration`, `$caption`, `$start` and `$end`."""
        return files(__package__).joinpath("prompts", f"{task}_{self.unit}.txt").read_text(encoding="utf-8").strip()

    def read(self, reply: str, duration: Seconds) -> str:
        """Return a reply with its times in a notation that [`longvale.reading`] reads; by default unchanged."""
        return reply


@time_formats.register("seconds")
class SecondsFormat(TimeFormat):
    """Seconds from the beginning of the video."""


@time_formats.register("percent")
class PercentFormat(TimeFormat):
    """Percentages of the video's duration, as two digits."""

    unit = "percent"

    def write(self, time: Seconds, duration: Seconds) -> str:
        """Format a time as two digits."""
        return to_timecode(time, duration)
