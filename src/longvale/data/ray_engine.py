"""An extraction on the machines of a Ray cluster: the stages of `extraction.py`, as a pipeline of Ray Data.

Tasks on CPUs read and prepare a video each; actors, one a GPU where there are any, run the towers over a few of them
at a time. Ray holds reading back while the towers are behind, and does a task again whose worker died. Files are
written by the process that asked, so nothing but the videos has to lie where all machines see it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..events import MODALITIES
from .extraction import Result
from .towers import TowerBatches, only_towers
from .workers import read_here

#: Videos that an actor takes at once.
_VIDEOS_OF_A_CALL = 4


def extract_on_ray(
    todo: Mapping[str, Path], processor: Any, model: Any, batch_size: int, workers: int | None
) -> Iterator[Result]:
    """Run the towers over videos on a Ray cluster: the one that `RAY_ADDRESS` names, or one of this machine.

    Args:
        todo: paths by video id; every machine must see them under these paths, and have longvale installed.
        processor: as [`LongVALEProcessor`].
        model: as [`LongVALEModel`]; its towers are sent to the actors.
        batch_size: frames or windows of sound a tower takes at once.
        workers: videos read at a time; None for as many as there are CPUs.

    Raises:
        ValueError: if Ray is not installed.
    """
    with cluster():
        if not todo:
            return
        left = dict(todo)
        for row in _pipeline(todo, processor, model, batch_size, workers).iter_rows():
            left.pop(row["video_id"])
            yield _result(row)
        for video_id, path in left.items():
            reason = f"{path.name}: the process that read it died each time; give it memory, or repair the file"
            yield Result(video_id, error=reason)


@contextmanager
def cluster() -> Iterator[Any]:
    """Ray, connected to the cluster that `RAY_ADDRESS` names, or to one of this machine that is stopped at the end.

    Raises:
        ValueError: if Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ValueError("engine 'ray' needs Ray: pip install 'longvale[ray]', or use the local engine") from None
    ours = not ray.is_initialized()
    if ours:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _pipeline(todo: Mapping[str, Path], processor: Any, model: Any, batch_size: int, workers: int | None) -> Any:
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # there is one already
    context.max_errored_blocks = -1  # a video that kills whatever reads it does not stop the others
    # A block a video: what is done again when a worker dies is one of them.
    items = [{"video_id": video_id, "path": str(path.resolve())} for video_id, path in todo.items()]
    videos = ray.data.from_items(items, override_num_blocks=len(items))
    gpus = int(ray.cluster_resources().get("GPU", 0))
    read = videos.map(_read, fn_kwargs={"processor": processor}, num_cpus=1, concurrency=workers)
    return read.map_batches(
        _Towers,
        fn_constructor_kwargs={"model": ray.put(only_towers(model).to("cpu")), "batch_size": batch_size},
        batch_size=_VIDEOS_OF_A_CALL,
        concurrency=max(gpus, 1),
        num_gpus=1 if gpus else 0,
    )


def _read(row: dict[str, Any], processor: Any) -> dict[str, Any]:
    """A task: one video, prepared for the towers."""
    import torch

    torch.set_num_threads(1)
    parts: list[dict[str, np.ndarray]] = []
    for message in read_here([(row["video_id"], Path(row["path"]))], processor, threads=1):
        if message.kind == "failed":
            return _row(row["video_id"], error=message.value)
        if message.kind == "inputs":
            parts.append(message.value)
        else:
            facts = message.value
    return _row(row["video_id"], {f"{i}/{n}": v for i, part in enumerate(parts) for n, v in part.items()}, facts)


class _Towers:
    """An actor: runs the towers over the videos of a batch of rows."""

    def __init__(self, model: Any, batch_size: int) -> None:
        import ray
        import torch

        model = ray.get(model)
        self._batches = TowerBatches(model.to("cuda") if torch.cuda.is_available() else model, batch_size)

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        done, facts = [], {}
        columns = (rows[name] for name in ("video_id", "arrays", "facts", "error"))
        for video_id, arrays, about, error in zip(*columns, strict=True):
            if error:
                done.append(_row(video_id, error=error))
                continue
            facts[video_id] = json.loads(about)
            for part in _parts(_unpack(arrays)):
                self._batches.add(video_id, part)
            self._batches.complete(video_id)
        self._batches.flush()
        for video_id, features in self._batches.finished():
            done.append(_row(video_id, {m: v for m, v in features.items() if v is not None}, facts[video_id]))
        return {name: [row[name] for row in done] for name in ("video_id", "arrays", "facts", "error")}


def _parts(arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Inputs by the number of their part."""
    parts: dict[int, dict[str, np.ndarray]] = {}
    for name, values in arrays.items():
        number, _, name = name.partition("/")
        parts.setdefault(int(number), {})[name] = values
    return [parts[number] for number in sorted(parts)]


def _result(row: Mapping[str, Any]) -> Result:
    if row["error"]:
        return Result(row["video_id"], error=row["error"])
    arrays = _unpack(row["arrays"])
    return Result(row["video_id"], json.loads(row["facts"]), {m: arrays.get(m) for m in MODALITIES})


def _row(
    video_id: str,
    arrays: Mapping[str, np.ndarray] | None = None,
    facts: Mapping[str, Any] | None = None,
    error: str = "",
) -> dict[str, Any]:
    """What is passed on about a video; arrays as bytes, because Ray would want them of one shape in a column."""
    file = io.BytesIO()
    np.savez(file, **(arrays or {}))
    return {"video_id": video_id, "arrays": file.getvalue(), "facts": json.dumps(facts), "error": error}


def _unpack(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
