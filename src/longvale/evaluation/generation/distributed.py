"""Evaluation over several processes, started by `accelerate launch` or `torchrun`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

#: A finished process waits for the slowest one; torch's default timeout is 10 to 30 minutes.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """Rank of this process and number of processes.

    Args:
        rank: index of this process; process 0 reads and writes the shared files.
        count: number of processes.
        device: device of this process; None selects the default.
    """

    rank: int = 0
    count: int = 1
    device: str | None = None
    _state: Any = None

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        if self._state is not None:
            self._state.wait_for_everyone()

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Run a block in process 0 before the other processes."""
        if self.rank:
            self.wait()
        yield
        if not self.rank:
            self.wait()


def join_processes() -> Processes:
    """Initialize the process group if this process was launched with others."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return Processes()
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=_PATIENCE)
    return Processes(state.process_index, state.num_processes, str(state.device), state)
