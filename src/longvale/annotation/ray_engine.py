"""An annotation on the machines of a Ray cluster: actors work on a video each, this process writes all files."""

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
from .video_stages import MAX_REFUSALS, AnnotationOptions, VideoStages, Workers


@dataclass
class _Outcome:
    """What an actor did of a video: records by stage, the picture of its boundaries, what stopped it."""

    records: Records = field(default_factory=dict)
    picture: bytes | None = None
    error: Exception | None = None


def annotate_on_ray(
    items: Sequence[tuple[str, Path, Path | None]],
    stages: Stages,
    options: AnnotationOptions,
    workers: Workers,
    concurrency: int | None,
    max_refusals: int = MAX_REFUSALS,
) -> Iterator[tuple[str, str] | None]:
    """Annotate videos on a Ray cluster: the one that `RAY_ADDRESS` names, or one of this machine.

    What an actor had done of a video when a server failed is kept; what one had done that died is done again.

    Args:
        items: of each video its id, its file and where to draw its boundaries, see [`VideoStages`].
        stages: what is done; the rest is added, a video at a time.
        options: thresholds.
        workers: models; each actor has a copy.
        concurrency: actors, at most and by default as many as there are CPUs; GPUs, if there are any, are shared.
        max_refusals: as of [`VideoStages`].

    Yields:
        As often as a video is done None, and of one whose actor died each time its id and the reason.

    Raises:
        ValueError: if Ray is not installed.
    """
    with cluster() as ray:
        cpus, gpus = (int(ray.cluster_resources().get(name, 0)) for name in ("CPU", "GPU"))
        count = max(1, min(concurrency or cpus, cpus, len(items)))  # one more would wait for a place that never comes
        share = 1 / math.ceil(count / gpus) if gpus else 0
        # Ray's own retries have no bound where memory runs out.
        actor = ray.remote(num_cpus=1, num_gpus=share, max_restarts=0, max_task_retries=0)(_Annotator)
        idle = [actor.remote(options, workers, max_refusals) for _ in range(count)]
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
                idle.append(actor.remote(options, workers, max_refusals))
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
    """An actor."""

    def __init__(self, options: AnnotationOptions, workers: Workers, max_refusals: int) -> None:
        self._options, self._workers, self._max_refusals = options, workers, max_refusals

    def work(self, video_id: str, path: Path, known: Records, draw: bool) -> _Outcome:
        """Work on a video of which `known` is done."""
        with tempfile.TemporaryDirectory(prefix="longvale-annotate-") as folder:
            stages, picture, outcome = Stages.load(Path(folder)), Path(folder, "timeline.png"), _Outcome()
            stages.add(known)
            try:
                work = VideoStages(stages, self._options, self._workers, max_refusals=self._max_refusals)
                work(video_id, path, picture if draw else None)
            except Exception as error:  # noqa: BLE001 - raised again where the run was asked for, when what is done is safe
                outcome.error = error
            made = stages.by_video().get(video_id, {})
            outcome.records = {name: [r for r in made[name] if r not in known.get(name, [])] for name in made}
            outcome.picture = picture.read_bytes() if picture.is_file() else None
            return outcome
