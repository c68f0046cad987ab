"""Annotation on a Ray cluster: each actor processes one video at a time, and this process writes all files."""

from __future__ import annotations

import math
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..extraction.ray_engine import cluster, death
from ..extraction.workers import ATTEMPTS
from ..io import atomic_write
from .stages import Records, Stages
from .video_stages import MAX_REFUSALS, AnnotationModels, AnnotationOptions, VideoStages


@dataclass
class _Outcome:
    """Result of an actor for a video: new records by stage, the PNG of its boundaries, the error that stopped it."""

    records: Records = field(default_factory=dict)
    picture: bytes | None = None
    error: Exception | None = None


def annotate_on_ray(
    items: Sequence[tuple[str, Path, Path | None]],
    stages: Stages,
    options: AnnotationOptions,
    models: AnnotationModels,
    concurrency: int | None,
    max_refusals: int = MAX_REFUSALS,
) -> Iterator[tuple[str, str] | None]:
    """Annotate videos on a Ray cluster: the one that `RAY_ADDRESS` names, or a local one.

    If a server fails, the finished work on a video is kept. If an actor dies, its work on a video is repeated.

    Args:
        items: per video its id, its file and the file for its figure, see [`VideoStages`].
        stages: the records so far; new records are added per video.
        options: thresholds.
        models: captioners, reasoner and embedders; each actor has a copy.
        concurrency: number of actors, by default and at most the number of CPUs; GPUs, if any, are shared.
        max_refusals: see [`VideoStages`].

    Yields:
        None per finished video; the id and the reason for a video whose actors died in all attempts.

    Raises:
        ValueError: if Ray is not installed.
    """
    with cluster() as ray:
        cpus, gpus = (int(ray.cluster_resources().get(name, 0)) for name in ("CPU", "GPU"))
        count = max(1, min(concurrency or cpus, cpus, len(items)))  # one more would wait forever for resources
        share = 1 / math.ceil(count / gpus) if gpus else 0
        # Ray's own retries are unlimited when memory runs out.
        actor = ray.remote(num_cpus=1, num_gpus=share, max_restarts=0, max_task_retries=0)(_Annotator)
        idle = [actor.remote(options, models, max_refusals) for _ in range(count)]
        known = stages.by_video()
        waiting, running, attempts = deque(items), {}, Counter()
        while waiting or running:
            while waiting and idle:
                annotator, item = idle.pop(), waiting.popleft()
                video_id, path, picture = item
                draw = picture is not None and not picture.is_file()
                ref = annotator.work.remote(video_id, path.resolve(), known.get(video_id, {}), draw)
                running[ref] = annotator, item
            (ready,), _ = ray.wait(list(running), num_returns=1)
            annotator, item = running.pop(ready)
            video_id, path, picture = item
            try:
                outcome = ray.get(ready)
            except ray.exceptions.RayError as error:
                reason = death(ray, error, path.name)
                idle.append(actor.remote(options, models, max_refusals))
                attempts[video_id] += 1
                if attempts[video_id] < ATTEMPTS:
                    waiting.append(item)
                else:
                    yield video_id, reason
                continue
            idle.append(annotator)
            stages.add(outcome.records)
            if outcome.picture is not None:
                picture.parent.mkdir(exist_ok=True)
                with atomic_write(picture, "wb") as file:
                    file.write(outcome.picture)
            if outcome.error is not None:
                raise outcome.error
            yield None


class _Annotator:
    """Ray actor that annotates videos."""

    def __init__(self, options: AnnotationOptions, models: AnnotationModels, max_refusals: int) -> None:
        self._options, self._models, self._max_refusals = options, models, max_refusals

    def work(self, video_id: str, path: Path, known: Records, draw: bool) -> _Outcome:
        """Annotate a video; `known` are its records so far."""
        with tempfile.TemporaryDirectory(prefix="longvale-annotate-") as folder:
            stages, picture, outcome = Stages.load(Path(folder)), Path(folder, "timeline.png"), _Outcome()
            stages.add(known)
            try:
                work = VideoStages(stages, self._options, self._models, max_refusals=self._max_refusals)
                work(video_id, path, picture if draw else None)
            except Exception as error:  # noqa: BLE001 - raised again by the caller, after the records are saved
                outcome.error = error
            made = stages.by_video().get(video_id, {})
            outcome.records = {name: [r for r in made[name] if r not in known.get(name, [])] for name in made}
            outcome.picture = picture.read_bytes() if picture.is_file() else None
            return outcome
