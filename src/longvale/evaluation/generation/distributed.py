"""One evaluation over several processes, as `accelerate launch` or `torchrun` start them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

#: A process that is done waits for the slowest; torch gives up after 10 to 30 minutes unless told.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Args:
        rank: its number; 0 is the first, which reads and writes what all share.
        count: how many there are.
        device: of this process; None leaves the choice.
    """

    rank: int = 0
    count: int = 1
    device: str | None = None
    _state: Any = None

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """A block that the first process goes through before the others do."""
        if self.rank:
            self.wait()
        yield
        if not self.rank:
            self.wait()


def join_processes() -> Processes:
    """Meet the other processes, if this one was launched with others."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return Processes()
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=_PATIENCE)
    return Processes(state.process_index, state.num_processes, str(state.device), state)
