"""Feature extraction on a Ray cluster: the stages of `extract.py`, with separate workers for reading and encoding.

Tasks on CPUs read and prepare one video each; actors, one per GPU if there are any, run the towers on a few videos at a
time. Reading pauses while the towers are behind. If the process of a video dies, because of its decoder or lack of
memory, the video is retried a bounded number of times and fails without affecting others. The calling process writes
the files, so only the videos must be accessible from all machines.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..events import MODALITIES, Modality
from .encode import Encoder, only_towers
from .workers import ATTEMPTS, Result, read_here

#: Maximum number of videos per call of an actor.
_VIDEOS_OF_A_CALL = 4

#: Inputs of a video in parts, and its facts; see [`prepare`].
_Read: TypeAlias = tuple[list[dict[str, np.ndarray]], dict[str, Any]]


def extract_on_ray(
    todo: Mapping[str, Path], processor: Any, model: Any, batch_size: int, workers: int | None
) -> Iterator[Result]:
    """Extract features on the Ray cluster at `RAY_ADDRESS`, or on a local one.

    Args:
        todo: paths by video id; they must be valid on every machine, and longvale must be installed there.
        processor: processor such as [`LongVALEProcessor`].
        model: model such as [`LongVALEModel`]; its towers are sent to the actors.
        batch_size: frames or windows of sound per batch of a tower.
        workers: number of videos read at once; by default one per CPU that the actors do not use.

    Raises:
        ValueError: if Ray is not installed.
    """
    with cluster() as ray:
        if todo:
            yield from _Pipeline(ray, todo, processor, model, batch_size, workers).results()


@contextmanager
def cluster() -> Iterator[Any]:
    """Connect Ray to the cluster at `RAY_ADDRESS`, or to a local one that is stopped at the end.

    Raises:
        ValueError: if Ray is not installed.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        import ray
    except ImportError:
        raise ValueError("engine 'ray' needs Ray: pip install 'longvale[ray]', or use the local engine") from None
    ours = not ray.is_initialized()
    if ours:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    if handler is not signal.SIG_DFL and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray replaced it by a handler that prints the stack
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def death(ray: Any, error: Exception, name: str) -> str:
    """Return the error message of a video whose process died at each attempt.

    Args:
        ray: the module.
        error: error of the last attempt, raised by Ray.
        name: name of the video's file.

    Raises:
        Exception: `error` itself, if it was raised by the task and not caused by the death of a process.
    """
    if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(error.cause, ray.exceptions.RayError):
        raise error
    how = type(error).__name__
    return f"{name}: the process that worked on it died {ATTEMPTS} times ({how}); give it memory, or repair the file"


class _Pipeline:
    """Queues of videos: waiting, being read, ready for the towers, being encoded. Ray's unbounded retries are off."""

    def __init__(
        self, ray: Any, todo: Mapping[str, Path], processor: Any, model: Any, batch_size: int, workers: int | None
    ) -> None:
        cpus, gpus = (int(ray.cluster_resources().get(name, 0)) for name in ("CPU", "GPU"))
        actors = max(gpus, 1)
        self._ray, self._todo = ray, todo
        self._read = ray.remote(num_cpus=1, max_retries=0, num_returns=2)(_read)
        # If there is only one CPU, an actor that reserved it would leave none for reading.
        resources = {"num_cpus": int(cpus > actors), "num_gpus": int(gpus > 0)}
        self._actor = ray.remote(**resources, max_restarts=0, max_task_retries=0)(_Towers)
        self._towers = ray.put(only_towers(model).to("cpu")), batch_size
        self._processor = ray.put(processor)
        self._idle = [self._actor.remote(*self._towers) for _ in range(actors)]
        self._slots, self._most_ready = workers or max(1, cpus - actors), 2 * _VIDEOS_OF_A_CALL * actors
        self._attempts: Counter[str] = Counter()
        self._waiting = deque(todo)
        self._reading: dict[Any, tuple[str, Any]] = {}
        self._ready: deque[tuple[str, Any]] = deque()
        self._encoding: dict[Any, tuple[Any, list[str]]] = {}

    def results(self) -> Iterator[Result]:
        """Yield results in the order of completion."""
        while self._waiting or self._reading or self._ready or self._encoding:
            self._start()
            (done,), _ = self._ray.wait([*self._reading, *self._encoding], num_returns=1)
            yield from self._take_read(done) if done in self._reading else self._take_encoded(done)

    def _start(self) -> None:
        while self._waiting and len(self._reading) < self._slots and len(self._ready) < self._most_ready:
            video_id = self._waiting.popleft()
            error, read = self._read.remote(video_id, str(self._todo[video_id].resolve()), self._processor)
            self._reading[error] = video_id, read
        more = bool(self._waiting or self._reading)
        while self._ready and self._idle and (len(self._ready) >= _VIDEOS_OF_A_CALL or not more):
            batch = [self._ready.popleft()]
            # A video whose process died is retried alone, so that it cannot make other videos fail again.
            while self._ready and len(batch) < _VIDEOS_OF_A_CALL and not self._died(batch[0], self._ready[0]):
                batch.append(self._ready.popleft())
            actor, ids = self._idle.pop(), [video_id for video_id, _ in batch]
            self._encoding[actor.encode.remote(ids, *(read for _, read in batch))] = actor, ids

    def _died(self, *items: tuple[str, Any]) -> bool:
        return any(self._attempts[video_id] for video_id, _ in items)

    def _take_read(self, done: Any) -> Iterator[Result]:
        video_id, read = self._reading.pop(done)
        try:
            error = self._ray.get(done)
        except self._ray.exceptions.RayError as died:
            yield from self._again([video_id], died)
            return
        if error is None:
            self._ready.append((video_id, read))
        else:
            yield Result(video_id, error=error)

    def _take_encoded(self, done: Any) -> Iterator[Result]:
        actor, ids = self._encoding.pop(done)
        try:
            encoded = self._ray.get(done)
        except self._ray.exceptions.RayError as died:
            self._idle.append(self._actor.remote(*self._towers))
            yield from self._again(ids, died)
            return
        self._idle.append(actor)
        for video_id, (features, facts) in encoded.items():
            yield Result(video_id, facts, features)

    def _again(self, ids: list[str], died: Exception) -> Iterator[Result]:
        """Retry videos whose process died, or report them as failed."""
        for video_id in ids:
            reason = death(self._ray, died, self._todo[video_id].name)
            self._attempts[video_id] += 1
            if self._attempts[video_id] < ATTEMPTS:
                self._waiting.append(video_id)  # at the end, when missing resources may be available again
            else:
                yield Result(video_id, error=reason)


def _read(video_id: str, path: str, processor: Any) -> tuple[str | None, _Read | None]:
    """Prepare one video for the towers, as a Ray task; returns (error, inputs and facts), one of them None."""
    import torch

    torch.set_num_threads(1)
    parts: list[dict[str, np.ndarray]] = []
    facts: dict[str, Any] = {}
    for message in read_here([(video_id, Path(path))], processor, threads=1):
        if message.kind == "failed":
            return message.value, None
        if message.kind == "inputs":
            parts.append(message.value)
        else:
            facts = message.value
    return None, (parts, facts)


class _Towers:
    """Ray actor that runs the towers on a few videos per call."""

    def __init__(self, model: Any, batch_size: int) -> None:
        import torch

        self._encoder = Encoder(model.to("cuda") if torch.cuda.is_available() else model, batch_size)

    def encode(
        self, ids: list[str], *read: _Read
    ) -> dict[str, tuple[dict[Modality, np.ndarray | None], dict[str, Any]]]:
        """Return the features and facts of videos by id."""
        facts = {}
        for video_id, (parts, about) in zip(ids, read, strict=True):
            facts[video_id] = about
            for part in parts:
                self._encoder.add(video_id, part)
                self._encoder.run()
            self._encoder.complete(video_id)
        self._encoder.run(partial=True)
        return {
            video_id: ({m: features.get(m) for m in MODALITIES}, facts[video_id])
            for video_id, features in self._encoder.finished()
        }
