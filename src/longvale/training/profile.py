"""Profile of training steps: a table of operators and a trace, by torch.profiler."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

#: Number of profiled steps, after the first, which is slower than the others.
STEPS = 3


class ProfileCallback(TrainerCallback):
    """Callback that profiles some steps, prints a table, and writes `profile.json`, a trace for ui.perfetto.dev.

    Args:
        folder: gets `profile.json`.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.path = Path(folder, "profile.json")

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the profiler; it records from the second step."""
        schedule = torch.profiler.schedule(wait=0, warmup=1, active=STEPS, repeat=1)
        self._profiler = torch.profiler.profile(schedule=schedule, on_trace_ready=self._report)
        self._profiler.start()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Mark the end of a step."""
        self._profiler.step()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop the profiler, also if training was shorter than the profile."""
        self._profiler.stop()

    def _report(self, profiler: torch.profiler.profile) -> None:
        partial = self.path.with_name(f".{self.path.name}")
        profiler.export_chrome_trace(str(partial))
        os.replace(partial, self.path)
        order = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        print(profiler.key_averages().table(sort_by=order, row_limit=20), flush=True)
