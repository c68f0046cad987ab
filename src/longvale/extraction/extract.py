"""Feature extraction from videos to a feature store: `longvale features VIDEOS --output DIR`.

::

    <output>/visual_features/<video_id>.npy     [F, width]     see `longvale.features.store`
    <output>/audio_features/<video_id>.npy      [A, width]
    <output>/speech_features/<video_id>.npy     [S, width]
    <output>/manifest.jsonl                     one line per video: its features or the reason of its failure

Worker processes read and prepare videos; the towers run on batches of several videos; a thread writes the results. A
video is skipped if its features match the manifest and its file has the same content (see [`file_identity`]): a stopped
run is resumable, and ends with the same files. Jobs of a cluster can process shards of the videos, or `engine="ray"`
does the same work as one job.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..checkpoints.loading import Weights, load_checkpoint, weights_digest
from ..data.sources import index_videos
from ..events import MODALITIES, check_video_id
from ..features.manifest import MANIFEST_FILE, Manifest, load_records, manifest_path
from ..features.store import feature_bytes, remove_features, remove_unfinished, save_features
from ..models.media_formats import VIDEO_SUFFIXES
from ..system.locks import hold
from .finished import Finished, find_finished
from .preprocess import describe_processor
from .workers import Message, Result, one_line, read_here, read_in_processes

if TYPE_CHECKING:
    import torch

    from .encode import Encoder

__all__ = [
    "MANIFEST_FILE",
    "ExtractionSummary",
    "Manifest",
    "extract",
    "extract_features",
    "find_videos",
]

logger = logging.getLogger(__name__)

Engine = Literal["local", "ray"]

#: Below this many bytes of videos, starting processes takes longer than reading in this process.
_SMALL_BYTES = 32 << 20

#: Maximum number of videos whose features are queued for writing.
_MAX_UNWRITTEN = 16


@dataclass(frozen=True)
class ExtractionSummary:
    """Summary of a run.

    Args:
        done: ids of the videos whose features were extracted.
        skipped: ids of the videos whose features already existed.
        failed: (id, reason) of the videos that failed.
        replaced: ids of the videos, done or failed, that had features of another file of the same name.
        repaired: ids of the videos, done or failed, whose features were damaged: different from the manifest.
        restored: number of restored manifest lines: their videos had features but no line.
        seconds: time in seconds: `total`; `towers` and `waiting` (for videos to be read) of this process; and
            `reading`, the sum over all worker processes.
    """

    done: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    replaced: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    restored: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        """Return one line that names the failed videos.

        Example:
            >>> print(ExtractionSummary(done=("a", "b"), failed=(("c", "c.mp4: the file is empty"),)))
            2 done, 0 there already, 1 failed: c.mp4: the file is empty
            >>> print(ExtractionSummary(done=("a",), skipped=("b",), replaced=("a",)))
            1 done, 1 there already, 0 failed; made again because the video was replaced: a
        """
        counts = f"{len(self.done)} done, {len(self.skipped)} there already, {len(self.failed)} failed"
        notes = [
            f"made again because {reason}: {', '.join(video_ids)}"
            for reason, video_ids in (
                ("the video was replaced", self.replaced),
                ("the features were damaged", self.repaired),
            )
            if video_ids
        ]
        if self.restored:
            notes.append(f"{self.restored} lines of the manifest restored from the features that are there")
        reasons = ": " + "; ".join(reason for _, reason in self.failed) if self.failed else ""
        return "; ".join([counts + reasons, *notes])


def extract_features(
    videos: str | os.PathLike,
    output: str | os.PathLike,
    *,
    model: str | os.PathLike,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
    device_map: str | None = None,
    **options: Any,
) -> ExtractionSummary:
    """Extract features of videos with the towers of a checkpoint and store them.

    Args:
        videos: a directory (its video files, see `longvale.models.media_formats`) or one file; the name without the
            suffix is the video's id.
        output: root of the feature store, created if needed.
        model: folder written by `save_pretrained`, or a Hub id.
        device: device such as "cpu" or "cuda:1"; by default an accelerator if available.
        dtype: dtype of the towers, such as "bfloat16"; by default that of the checkpoint. Features are stored as
            float32.
        attn_implementation: attention of the towers, such as "flash_attention_2"; those that do not support it use
            another one.
        device_map: how accelerate spreads the weights over devices, such as "auto", instead of one device.
        options: see [`extract`].

    Returns:
        The ids done, skipped and failed. One bad video does not stop the others.

    Raises:
        FileNotFoundError: if there are no videos, or no model. Nothing is written then.
        ValueError: if two files have the same id, the model is damaged, existing features were extracted by other
            towers or with other preprocessing, or an argument is out of range. Nothing is written then.

    Example:
        >>> summary = extract_features("videos", "features", model="longvale-7b")  # doctest: +SKIP
        >>> print(summary)  # doctest: +SKIP
        118 done, 0 there already, 1 failed: kXw3.mp4: the file is empty; copy or download it again
    """
    find_videos(videos)  # before the model, which takes longer
    from ..models.modeling_longvale import LongVALEModel

    weights: Weights = {"dtype": dtype, "attn_implementation": attn_implementation, "device_map": device_map}
    towers, processor = load_checkpoint(model, LongVALEModel, device=device, only_towers=True, **weights)
    return extract(videos, output, processor, towers, **options)


def extract(
    videos: str | os.PathLike,
    output: str | os.PathLike,
    processor: Any,
    model: Any,
    *,
    workers: int | None = None,
    batch_size: int | None = None,
    shard: tuple[int, int] | None = None,
    engine: Engine = "local",
    progress: bool = True,
    overwrite: bool = False,
) -> ExtractionSummary:
    """Run [`extract_features`] with a loaded processor and model.

    Args:
        videos: see [`extract_features`].
        output: see [`extract_features`].
        processor: processor such as [`LongVALEProcessor`].
        model: model such as [`LongVALEModel`], in evaluation mode.
        workers: number of processes that read videos; 0 reads in this process. By default one per CPU, or 0 if the
            videos have less than 32 MB in total.
        batch_size: frames or windows of sound per batch of a tower, over several videos; default 32.
        shard: (number, total): process only this shard of the videos, selected by their ids, so that independent jobs
            can share an output. (1, 4) to (4, 4) process all videos.
        engine: `local`, or `ray` for the machines of a Ray cluster (needs `longvale[ray]`).
        progress: show a progress bar, with videos per second and hours of video per hour.
        overwrite: extract existing features again, as after a change of the model. Features of a replaced video file,
            and features that differ from the manifest, are always extracted again.
    """
    from .encode import BATCH_SIZE, Encoder

    _check_options(workers, batch_size, shard, engine)
    paths, output = find_videos(videos), Path(output)
    if shard is not None:
        paths = {video_id: path for video_id, path in paths.items() if _shard_of(video_id, shard[1]) == shard[0]}
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output}: is a file; give a directory")
    with hold(output, manifest_path(output, shard).name, work="longvale features"):
        manifest = Manifest(manifest_path(output, shard))
        records = load_records(output)
        finished = Finished() if overwrite else find_finished(output, paths, records)
        settings = {"towers": weights_digest(model, part="_tower."), "preprocessing": describe_processor(processor)}
        manifest.check_settings(finished.video_ids, settings, records)
        todo = {video_id: path for video_id, path in paths.items() if video_id not in set(finished.video_ids)}
        _check_towers(model)

        remove_unfinished(output, todo)
        run = _Run(output, manifest, todo, settings, finished)
        if engine == "ray":
            from .ray_engine import extract_on_ray

            results = extract_on_ray(todo, processor, model, batch_size or BATCH_SIZE, workers)
        else:
            results = _extract_here(
                _messages(todo, processor, workers), Encoder(model, batch_size or BATCH_SIZE), run.seconds
            )
        with manifest, closing(results), run.writing(progress, len(paths)):
            run.record_finished()
            for result in results:
                run.take(result)
        return run.summary()


def _check_options(workers: int | None, batch_size: int | None, shard: tuple[int, int] | None, engine: str) -> None:
    if workers is not None and workers < 0:
        raise ValueError(f"workers must be 0 or more, not {workers}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"shard must be a number from 1 to that of the shards, not {shard[0]}/{shard[1]}")
    if engine not in get_args(Engine):
        raise ValueError(f"engine must be one of {', '.join(get_args(Engine))}, not {engine!r}")


def _check_towers(model: Any) -> None:
    absent = [modality for modality in MODALITIES if getattr(model.base_model, f"{modality}_tower") is None]
    if absent:
        raise ValueError(f"the model has no {absent[0]} tower; give a checkpoint with all three")


def _shard_of(video_id: str, shards: int) -> int:
    """Return the shard of a video, which depends only on its id and not on the other videos."""
    return int.from_bytes(hashlib.sha256(video_id.encode(errors="surrogateescape")).digest()[:8]) % shards + 1


def _messages(todo: Mapping[str, Path], processor: Any, workers: int | None) -> Iterator[Message]:
    if workers is None:
        workers = 0 if sum(_size(path) for path in todo.values()) < _SMALL_BYTES else _cpus()
    workers = min(workers, len(todo))
    if workers == 0:
        return read_here(todo.items(), processor, threads=min(4, _cpus()))
    return read_in_processes(todo.items(), processor, workers, threads=max(1, _cpus() // workers))


def _extract_here(messages: Iterator[Message], encoder: Encoder, seconds: dict[str, float]) -> Iterator[Result]:
    """Run the towers on prepared inputs; yield the result of a video when its last batch is done."""
    facts: dict[str, dict[str, Any]] = {}
    with closing(messages):
        while (message := _timed(seconds, "waiting", lambda: next(messages, None))) is not None:
            if message.kind == "failed":
                encoder.forget(message.video_id)
                yield Result(message.video_id, error=message.value)
            elif message.kind == "again":
                encoder.forget(message.video_id)
            elif message.kind == "inputs":
                encoder.add(message.video_id, message.value)
                _timed(seconds, "towers", encoder.run)
            else:
                facts[message.video_id] = message.value
                encoder.complete(message.video_id)
            for video_id, features in encoder.finished():
                yield Result(video_id, facts.pop(video_id), features)
        _timed(seconds, "towers", lambda: encoder.run(partial=True))
        for video_id, features in encoder.finished():
            yield Result(video_id, facts.pop(video_id), features)


def _timed(seconds: dict[str, float], name: str, call: Callable[[], Any]) -> Any:
    begin = time.perf_counter()
    try:
        return call()
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin


class _Run:
    """Output of a run: files, manifest, progress bar, summary."""

    def __init__(
        self, output: Path, manifest: Manifest, todo: Mapping[str, Path], settings: dict[str, Any], finished: Finished
    ) -> None:
        self._output, self._manifest, self._todo, self._settings = output, manifest, todo, settings
        self._finished = finished
        self._done: list[str] = []
        self._failed: list[tuple[str, str]] = []
        self._begin, self._hours = time.perf_counter(), 0.0
        self.seconds: dict[str, float] = {}

    @contextmanager
    def writing(self, progress: bool, total: int) -> Iterator[None]:
        """Write results in the background; on exit, for any reason, wait until all are on disk."""
        from tqdm import tqdm

        self._unwritten: deque[Future[Result]] = deque()
        bar = tqdm(total=total, initial=len(self._finished.video_ids), unit="video", disable=not progress)
        with bar as self._bar, ThreadPoolExecutor(1, thread_name_prefix="write") as self._writer:
            try:
                yield
            finally:
                self._collect(0)

    def record_finished(self) -> None:
        """Add the restored lines of existing features to the manifest."""
        for line in self._finished.lines:
            self._manifest.add(dict(line))
        if self._finished.unidentified:
            logger.warning(
                "%s: %d videos were recorded without the identity of their files, by an earlier version of longvale: "
                "their features are taken to be of the files that are there now; if one was replaced since, "
                "make them again with --overwrite",
                self._manifest.path,
                self._finished.unidentified,
            )

    def take(self, result: Result) -> None:
        """Queue a result for the writer thread."""
        self._unwritten.append(self._writer.submit(self._write, result))
        self._collect(_MAX_UNWRITTEN)

    def summary(self) -> ExtractionSummary:
        self.seconds["total"] = time.perf_counter() - self._begin
        return ExtractionSummary(
            tuple(sorted(self._done)),
            self._finished.video_ids,
            tuple(sorted(self._failed)),
            self._finished.replaced,
            self._finished.damaged,
            self._finished.lost,
            dict(self.seconds),
        )

    def _write(self, result: Result) -> Result:
        path = self._todo[result.video_id]
        if result.error is None:
            try:
                record = _record(result, path, self._settings)
            except ValueError as error:  # features that are not finite
                result = Result(result.video_id, error=one_line(error, path))
        if result.error is not None:
            if result.video_id in self._finished.replaced:  # the existing features belong to another file
                remove_features(self._output, result.video_id)
            self._manifest.add({"video_id": result.video_id, "file": path.name, "error": result.error})
        else:
            # A video counts as finished when its features exist: remove old ones first, then write the line, then save.
            remove_features(self._output, result.video_id)
            self._manifest.add(record)
            try:
                save_features(self._output, result.video_id, result.features)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                reason = f"{path.name}: its name is too long for the file system with .npy behind it; rename the video"
                self._manifest.add({"video_id": result.video_id, "file": path.name, "error": reason})
                return Result(result.video_id, error=reason)
        return result

    def _collect(self, most: int) -> None:
        """Collect finished writes, and wait until at most `most` are pending."""
        while self._unwritten and (len(self._unwritten) > most or self._unwritten[0].done()):
            result = self._unwritten.popleft().result()
            if result.error is None:
                self._done.append(result.video_id)
                self._hours += result.facts["duration"] / 3600
                self.seconds["reading"] = self.seconds.get("reading", 0.0) + result.facts["seconds"]
            else:
                self._failed.append((result.video_id, result.error))
            hours_an_hour = self._hours / (time.perf_counter() - self._begin) * 3600
            self._bar.set_postfix_str(f"{hours_an_hour:.0f} h/h", refresh=False)
            self._bar.update()


def _record(result: Result, path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest record of a video whose features were extracted.

    Raises:
        ValueError: if the features cannot be stored.
    """
    files = {m: feature_bytes(rows, f"{result.video_id!r}: {m} features") for m, rows in result.features.items()}
    return {
        "video_id": result.video_id,
        "file": path.name,
        "bytes": result.facts["bytes"],
        "identity": result.facts["identity"],
        **settings,
        "duration": round(result.facts["duration"], 3),
        "features": {m: 0 if rows is None else len(rows) for m, rows in result.features.items()},
        "widths": {m: 0 if rows is None else rows.shape[1] for m, rows in result.features.items()},
        "sha256": {m: hashlib.sha256(content).hexdigest() for m, content in files.items()},
        "warnings": result.facts["warnings"],
    }


def find_videos(videos: str | os.PathLike) -> dict[str, Path]:
    """Find video files by id, sorted by id.

    Args:
        videos: a directory, of which only direct files are used, or one file with any suffix.

    Raises:
        FileNotFoundError: if it does not exist or contains no video.
        ValueError: if two files have the same id, or a file's name cannot be an id.
    """
    videos = Path(videos)
    if not videos.exists():
        raise FileNotFoundError(f"{videos}: no such file or directory")
    found = index_videos(videos) if videos.is_dir() else {videos.stem: videos}
    if not found:
        raise FileNotFoundError(f"{videos}: holds no video ({', '.join(VIDEO_SUFFIXES)})")
    for video_id in found:
        check_video_id(video_id)
    return dict(sorted(found.items()))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reading it will raise a clear error
        return 0


def _cpus() -> int:
    """Return the number of CPUs available to this process, or of all CPUs if the system does not report it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
