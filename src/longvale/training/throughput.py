"""Throughput, padding and memory of training, for the logs."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping

import torch


class Throughput:
    """Counter of the model input between two logs.

    Args:
        clock: for tests.

    Example:
        >>> throughput = Throughput(clock=iter([0.0, 2.0]).__next__)
        >>> throughput.add({"attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])})
        >>> found = throughput.take()
        >>> found["tokens_per_second"], found["padding"], found["peak_memory_gib"] > 0
        (3.0, 0.25, True)
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._start: float | None = None
        self._tokens = self._positions = 0

    def add(self, batch: Mapping[str, torch.Tensor]) -> None:
        """Count a batch of this process."""
        if self._start is None:
            self._start = self._clock()
        self._tokens += int(batch["attention_mask"].sum())
        self._positions += batch["attention_mask"].numel()

    def take(self) -> dict[str, float]:
        """Return tokens per second of this process, share of padding, peak memory (GiB, since start); reset counts."""
        if self._start is None:
            return {}
        now = self._clock()
        found = {
            "tokens_per_second": round(self._tokens / max(now - self._start, 1e-9), 1),
            "padding": round(1 - self._tokens / self._positions, 4),
            "peak_memory_gib": round(peak_memory_gib(), 3),
        }
        self._start, self._tokens, self._positions = now, 0, 0
        return found if found["tokens_per_second"] else {}


def peak_memory_gib() -> float:
    """Return the peak memory so far: of the GPU if there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
