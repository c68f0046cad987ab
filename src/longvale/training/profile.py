"""Profile of training time: parts of a step, measured and formatted as a table."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback


class StepProfile:
    """Seconds by part; parts may be nested, and only the innermost counts.

    Args:
        on: whether to measure; if so, the accelerator is synchronized at the start and the end of each part.
        clock: for tests.

    Example:
        >>> profile = StepProfile(on=True)
        >>> with profile.part("backward"), profile.part("forward"):
        ...     pass
        >>> sorted(profile.seconds)
        ['backward', 'forward']
    """

    def __init__(self, on: bool, clock: Callable[[], float] = time.perf_counter) -> None:
        self.on = on
        self.seconds: dict[str, float] = defaultdict(float)
        self._clock = clock
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure the time of a `with` block."""
        self.begin(name)
        try:
            yield
        finally:
            self.end()

    def begin(self, name: str) -> None:
        """Start to measure this part, until [`end`]."""
        if self.on:
            self._count()
            self._open.append(name)

    def end(self) -> None:
        """End this part and resume the enclosing one."""
        if self.on:
            self._count()
            self._open.pop()

    def _count(self) -> None:
        # An accelerator runs asynchronously: its work belongs to the part that started it.
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = self._clock()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


class OptimizerPart(TrainerCallback):
    """Callback that measures the optimizer step, which has no method in the trainer.

    Args:
        profile: that receives the time.
    """

    def __init__(self, profile: StepProfile) -> None:
        self.profile = profile

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Start the measurement before the step."""
        self.profile.begin("optimizer")

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """End the measurement after the step."""
        self.profile.end()


def format_profile(seconds: Mapping[str, float], steps: int) -> str:
    """Format a table for a terminal, the largest part first.

    Example:
        >>> print(format_profile({"forward": 2.0, "backward": 6.0}, steps=4))
        part                 ms a step   share
        backward                1500.0   75.0%
        forward                  500.0   25.0%
    """
    total = sum(seconds.values()) or 1.0
    lines = [f"{'part':<20}{'ms a step':>10}{'share':>8}"]
    for name, value in sorted(seconds.items(), key=lambda item: -item[1]):
        lines.append(f"{name:<20}{1000 * value / max(steps, 1):>10.1f}{value / total:>8.1%}")
    return "\n".join(lines)
