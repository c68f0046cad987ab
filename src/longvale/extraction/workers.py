"""Worker processes that decode videos ahead of the towers; if one dies, only one attempt at one video is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..events import Modality
from ..system.interruption import interrupts_blocked

if TYPE_CHECKING:
    import numpy as np

#: Attempts per video. A process may be killed because others used the memory, but rarely several times in a row.
ATTEMPTS = 3


class Message(NamedTuple):
    """Message about a video that is being read.

    Args:
        video_id: id of the video.
        kind: `inputs` (one part of them, see [`prepare`]), `facts` (last message of a video), `failed` (instead of
            `facts`), or `again`: the process died, and earlier messages of this video must be discarded.
        value: the inputs, the facts, or the error message.
    """

    video_id: str
    kind: Literal["inputs", "facts", "failed", "again"]
    value: Any = None


@dataclass(frozen=True)
class Result:
    """Result of one video: its features and facts (see [`prepare`]), or an error."""

    video_id: str
    facts: dict[str, Any] = field(default_factory=dict)
    features: dict[Modality, np.ndarray | None] | None = None
    error: str | None = None


def read_here(paths: Iterable[tuple[str, Path]], processor: Any, threads: int) -> Iterator[Message]:
    """Read videos one after another in this process."""
    for video_id, path in paths:
        yield from _messages(video_id, path, processor, threads)


def read_in_processes(
    paths: Iterable[tuple[str, Path]], processor: Any, workers: int, threads: int
) -> Iterator[Message]:
    """Read videos in worker processes; messages of different videos are interleaved.

    A process keeps its output until it is received, so memory is bounded by the number of processes. Processes are
    started by a fork server (or spawned, where there is none): a script that calls this needs the usual
    `if __name__ == "__main__":`.

    Args:
        paths: (id, path) of each video.
        processor: processor such as [`LongVALEProcessor`]; pickled once for each process.
        workers: number of processes.
        threads: threads of each decoder.
    """
    todo = deque((video_id, path) for video_id, path in paths)
    attempts: Counter[str] = Counter()
    pool = [_Worker(processor, threads) for _ in range(min(workers, len(todo)))]
    try:
        while todo or any(worker.job for worker in pool):
            for worker in pool:
                if worker.job is None and todo:
                    worker.start(*todo.popleft())
            busy = {worker.connection: worker for worker in pool if worker.job}
            for connection in wait(list(busy)):
                worker = busy[connection]
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    job, code = worker.job, worker.stop()
                    pool[pool.index(worker)] = _Worker(processor, threads)
                    attempts[job[0]] += 1
                    if attempts[job[0]] < ATTEMPTS:
                        todo.append(job)  # at the end, when missing resources may be available again
                        yield Message(job[0], "again")
                    else:
                        yield Message(job[0], "failed", _death(job[1], code))
                    continue
                if message.kind in ("facts", "failed"):
                    worker.job = None
                yield message
    finally:
        for worker in pool:
            worker.kill()


def _death(path: Path, code: int | None) -> str:
    how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    return f"{path.name}: the process that read it died {ATTEMPTS} times ({how}); give it memory, or repair the file"


class _Worker:
    """A worker process and its current job."""

    def __init__(self, processor: Any, threads: int) -> None:
        context = _context(processor)
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, processor, threads), daemon=True)
        with interrupts_blocked():
            self._process.start()
        theirs.close()  # otherwise the pipe would stay open when the process ends
        self.job: tuple[str, Path] | None = None

    def start(self, video_id: str, path: Path) -> None:
        self.job = (video_id, path)
        try:
            self.connection.send(self.job)
        except OSError:  # the process is dead: receiving from it will fail
            return

    def stop(self) -> int | None:
        """Stop the process; returns its exit code if it had already ended."""
        self.connection.close()
        self._process.join(timeout=0.2)
        code = self._process.exitcode
        if code is None:
            self.kill()
        return code

    def kill(self) -> None:
        """Kill the process, whatever its state."""
        self.connection.close()
        self._process.kill()
        self._process.join()


def _context(processor: Any) -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Slow modules are imported once, by the server.
    parts = {type(part).__module__ for part in (processor, *vars(processor).values())}
    context.set_forkserver_preload([f"{__package__}.preprocess", *sorted(parts)])
    return context


def _serve(connection: Connection, processor: Any, threads: int) -> None:
    """Main loop of a worker process; it ends when the pipe closes, and so when the parent process ends."""
    import torch

    torch.set_num_threads(1)
    try:
        while True:
            video_id, path = connection.recv()
            for message in _messages(video_id, path, processor, threads):
                connection.send(message)
    except (EOFError, OSError):
        os._exit(0)


def _messages(video_id: str, path: Path, processor: Any, threads: int) -> Iterator[Message]:
    from .preprocess import prepare

    with closing(prepare(path, processor, threads)) as parts:
        try:
            for part in parts:
                yield (
                    Message(video_id, "facts", part["facts"]) if "facts" in part else Message(video_id, "inputs", part)
                )
        except ValueError as error:
            yield Message(video_id, "failed", one_line(error, path))


def one_line(error: Exception, path: Path) -> str:
    """Return the error message in one line that begins with the name of the file, without its folder."""
    message = " ".join(str(error).split()).replace(str(path), path.name)
    return message if message.startswith(path.name) else f"{path.name}: {message}"
