"""Processes that decode videos ahead of the towers, and whose death costs one attempt at one video."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..interruption import unheard

#: Attempts at a video. A process may be killed for want of memory that its neighbours took, not twice in a row.
ATTEMPTS = 3


class Message(NamedTuple):
    """What comes from a video that is being read.

    Args:
        video_id: of the video.
        kind: `inputs` (one part of them, see [`prepare`]), `facts` (the last of a video), `failed` (instead of those),
            or `again`: the process died, so what has come of this video is to be forgotten.
        value: the inputs, the facts, or the reason.
    """

    video_id: str
    kind: Literal["inputs", "facts", "failed", "again"]
    value: Any = None


def read_here(paths: Iterable[tuple[str, Path]], processor: Any, threads: int) -> Iterator[Message]:
    """Read videos one after the other in this process."""
    for video_id, path in paths:
        yield from _messages(video_id, path, processor, threads)


def read_in_processes(
    paths: Iterable[tuple[str, Path]], processor: Any, workers: int, threads: int
) -> Iterator[Message]:
    """Read videos in worker processes; messages of different videos come mixed.

    A process holds what it has prepared until it is taken, so memory is bounded by the number of processes. They are
    started from a server process (or spawned, where there is none): a script that calls this needs the usual
    `if __name__ == "__main__":`.

    Args:
        paths: (id, path) of each video.
        processor: as [`LongVALEProcessor`]; pickled once for each process.
        workers: how many processes.
        threads: of each decoder.
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
                        todo.append(job)  # at the end, when whatever the machine was short of may be there again
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
    """A process, and what it is at."""

    def __init__(self, processor: Any, threads: int) -> None:
        context = _context(processor)
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, processor, threads), daemon=True)
        with unheard():
            self._process.start()
        theirs.close()  # else the end of the process would not be the end of the pipe
        self.job: tuple[str, Path] | None = None

    def start(self, video_id: str, path: Path) -> None:
        self.job = (video_id, path)
        try:
            self.connection.send(self.job)
        except OSError:  # it is dead, which receiving from it will tell
            return

    def stop(self) -> int | None:
        """End the process; returns its exit code if it had ended."""
        self.connection.close()
        self._process.join(timeout=0.2)
        code = self._process.exitcode
        if code is None:
            self.kill()
        return code

    def kill(self) -> None:
        """End the process, whatever it is at."""
        self.connection.close()
        self._process.kill()
        self._process.join()


def _context(processor: Any) -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # What takes seconds to import is imported once, by the server.
    parts = {type(part).__module__ for part in (processor, *vars(processor).values())}
    context.set_forkserver_preload([f"{__package__}.preprocess", *sorted(parts)])
    return context


def _serve(connection: Connection, processor: Any, threads: int) -> None:
    """The life of a worker process; it ends with the pipe, and so with the process at the other end."""
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
    """The error's message, beginning with the name of the file, wherever that is."""
    message = " ".join(str(error).split()).replace(str(path), path.name)
    return message if message.startswith(path.name) else f"{path.name}: {message}"
