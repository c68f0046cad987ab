"""Videos -> stored features: `longvale features VIDEOS --output DIR`.

::

    <output>/visual_features/<video_id>.npy     [F, width]     see `longvale.data.features`
    <output>/audio_features/<video_id>.npy      [A, width]
    <output>/speech_features/<video_id>.npy     [S, width]
    <output>/manifest.jsonl                     a line a video: what came of it, or why nothing did

The next videos are decoded while the towers work on one. A video whose files are all there is not touched again, so a
run that was stopped goes on where it was, and ends with the same files.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.loading import load_checkpoint, weights_digest
from ..events import MODALITIES, Modality, atomic_write, check_video_id, parse_json
from .features import is_complete, remove_unfinished, save_features
from .sources import VIDEO_SUFFIXES, index_videos

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ..models.media import Media

#: The record of a run, beside the folders of features.
MANIFEST_FILE = "manifest.jsonl"

#: More decoders than this mostly wait for the towers, and each holds the frames and the sound of a video.
_MAX_WORKERS = 4


@dataclass(frozen=True)
class ExtractionSummary:
    """What came of a run.

    Args:
        done: ids of the videos whose features were made.
        skipped: ids of those whose features were there already.
        failed: (id, reason) of those that gave none.
    """

    done: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """One line that names the failed videos.

        Example:
            >>> print(ExtractionSummary(done=("a", "b"), failed=(("c", "c.mp4: the file is empty"),)))
            2 done, 0 there already, 1 failed: c.mp4: the file is empty
        """
        counts = f"{len(self.done)} done, {len(self.skipped)} there already, {len(self.failed)} failed"
        return counts + (": " + "; ".join(reason for _, reason in self.failed) if self.failed else "")


def extract_features(
    videos: str | os.PathLike,
    output: str | os.PathLike,
    *,
    model: str | os.PathLike,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    workers: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> ExtractionSummary:
    """Run the towers of a checkpoint over videos and store what they give.

    Args:
        videos: a directory (its .mp4, .mkv, .webm, .mov and .avi files) or one file; the name without the suffix is the
            video's id.
        output: root of the feature store, made where needed.
        model: folder written by `save_pretrained`, or a Hub id.
        device: such as "cpu" or "cuda:1"; by default an accelerator if there is one.
        dtype: of the towers, such as "bfloat16"; by default that of the checkpoint. Features are stored as float32.
        workers: videos decoded at a time; default one a CPU, at most four.
        progress: show a progress bar.
        overwrite: make features again that are there already, as after a change of the model.

    Returns:
        The ids done, skipped and failed. One bad video does not stop the others.

    Raises:
        FileNotFoundError: if there are no videos, or no model. Nothing is written then.
        ValueError: if two files have the same id, the model is damaged, other towers made what is there already, or an
            argument is out of range. Nothing is written then.

    Example:
        >>> summary = extract_features("videos", "features", model="longvale-7b")  # doctest: +SKIP
        >>> print(summary)  # doctest: +SKIP
        118 done, 0 there already, 1 failed: kXw3.mp4: the file is empty; copy or download it again
    """
    find_videos(videos)  # before the model, which takes longer
    from ..models.modeling_longvale import LongVALEModel

    towers, processor = load_checkpoint(model, LongVALEModel, device=device, dtype=dtype)
    return extract(videos, output, processor, towers, workers=workers, progress=progress, overwrite=overwrite)


def extract(
    videos: str | os.PathLike,
    output: str | os.PathLike,
    processor: Any,
    model: Any,
    *,
    workers: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> ExtractionSummary:
    """[`extract_features`] with a processor and a model that are loaded already.

    Args:
        processor: as [`LongVALEProcessor`]: `media_kwargs()` and a call with `videos`.
        model: as [`LongVALEModel`]: `device` and `encode`; used as it is, so in evaluation mode.
    """
    from tqdm import tqdm

    if workers is not None and workers < 1:
        raise ValueError(f"workers must be 1 or more, not {workers}")
    paths, output = find_videos(videos), Path(output)
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output}: is a file; give a directory")
    manifest = Manifest(output / MANIFEST_FILE)
    skipped = () if overwrite else tuple(video_id for video_id in paths if is_complete(output, video_id))
    towers = weights_digest(model, part="_tower.")
    manifest.check_towers(skipped, towers)
    todo = {video_id: path for video_id, path in paths.items() if video_id not in set(skipped)}
    workers = min(workers or min(_cpus(), _MAX_WORKERS), max(1, len(todo)))
    media_kwargs = {**processor.media_kwargs(), "threads": max(1, _cpus() // workers)}

    output.mkdir(parents=True, exist_ok=True)
    remove_unfinished(output)
    done: list[str] = []
    failed: list[tuple[str, str]] = []
    with (
        manifest,
        closing(_read_ahead(todo.items(), media_kwargs, workers)) as decoded,
        tqdm(total=len(paths), initial=len(skipped), unit="video", disable=not progress) as bar,
    ):
        for video_id, future in decoded:
            path = paths[video_id]
            try:
                media = future.result()
                features = encode_video(model, processor, media)
                # The line comes first: a video is finished when its features are there.
                manifest.add(_record(video_id, path, towers, media, features))
                save_features(output, video_id, features)
                done.append(video_id)
            except ValueError as error:
                reason = _one_line(error, path)
                manifest.add({"video_id": video_id, "file": path.name, "error": reason})
                failed.append((video_id, reason))
            bar.update()
    return ExtractionSummary(tuple(done), skipped, tuple(failed))


def find_videos(videos: str | os.PathLike) -> dict[str, Path]:
    """Video files by id, in the order of the ids.

    Args:
        videos: a directory, of which the files directly in it count, or one file with any suffix.

    Raises:
        FileNotFoundError: if it does not exist or holds no video.
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


def encode_video(model: Any, processor: Any, video: str | os.PathLike | Media) -> dict[Modality, np.ndarray | None]:
    """Run the towers over one video.

    Args:
        model: as [`LongVALEModel`].
        processor: as [`LongVALEProcessor`].
        video: path of the file, or what `read_media` read of it.

    Returns:
        float32 [n, width] a modality; None for one that the video does not have.
    """
    import torch

    inputs = processor(videos=[video], return_tensors="pt").to(model.device)
    with torch.inference_mode():
        encoded = model.encode(**inputs)  # {modality: (features [1, n, width], mask [1, n])}
    features: dict[Modality, np.ndarray | None] = dict.fromkeys(MODALITIES)
    for modality, (values, mask) in encoded.items():
        if mask.any():
            features[modality] = values[0][mask[0].bool()].float().cpu().numpy()
    return features


class Manifest:
    """`manifest.jsonl`: one JSON object a video, the last one of a video counting.

    Lines are appended while the manifest is open, each at once on disk; leaving it puts one a video in the order of the
    ids, so that the file is the same however often the run was stopped.

    Args:
        path: of the file; it need not exist.

    Raises:
        ValueError: naming file and line, if a line is not one of ours. A last line that was cut off is left out.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.records: dict[str, dict[str, Any]] = {}
        content = self.path.read_bytes() if self.path.exists() else b""
        # Whatever follows the last line break is the begin of a line that a killed run did not finish.
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            record = _parse_line(line, f"{self.path}: line {number}")
            self.records[record["video_id"]] = record

    def check_towers(self, video_ids: Iterable[str], towers: str) -> None:
        """Refuse to go on from features of other towers; videos that are not on record may come from anywhere.

        Raises:
            ValueError: naming the first video whose features other towers made.
        """
        others = [v for v in video_ids if self.records.get(v, {}).get("towers", towers) != towers]
        if others:
            raise ValueError(
                f"{self.path}: {len(others)} videos, the first {others[0]!r}, have features that other towers made; "
                "give another output, or overwrite them"
            )

    def __enter__(self) -> Manifest:
        for unfinished in self.path.parent.glob(f".{self.path.name}.*.tmp"):  # of a run that was killed
            unfinished.unlink(missing_ok=True)
        self._write_all()
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def add(self, record: dict[str, Any]) -> None:
        """Append a record and see it on disk."""
        self.records[record["video_id"]] = record
        self._file.write(_to_line(record))
        self._file.flush()

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._write_all()

    def _write_all(self) -> None:
        with atomic_write(self.path) as file:
            file.writelines(_to_line(record) for _, record in sorted(self.records.items()))


def _parse_line(line: bytes, place: str) -> dict[str, Any]:
    try:
        record = parse_json(line)
    except ValueError as error:
        raise ValueError(f"{place}: {error}; delete the line") from None
    if not isinstance(record, dict) or not isinstance(record.get("video_id"), str):
        raise ValueError(f"{place}: must be an object with field 'video_id'; delete the line")
    return record


def _to_line(record: dict[str, Any]) -> str:
    # ASCII, since names of files may hold bytes that are no characters.
    return json.dumps(record) + "\n"


def _record(
    video_id: str, path: Path, towers: str, media: Media, features: dict[Modality, np.ndarray | None]
) -> dict[str, Any]:
    return {
        "video_id": video_id,
        "file": path.name,
        "towers": towers,
        "duration": round(media.duration, 3),
        "features": {modality: 0 if rows is None else len(rows) for modality, rows in features.items()},
        "warnings": list(media.warnings),
    }


def _read_ahead(
    paths: Iterable[tuple[str, Path]], media_kwargs: Mapping[str, Any], workers: int
) -> Iterator[tuple[str, Future[Media]]]:
    """Read files in threads (FFmpeg lets go of Python's lock), in order, at most one more than `workers` ahead."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    waiting: deque[tuple[str, Future[Media]]] = deque()
    try:
        for video_id, path in paths:
            waiting.append((video_id, pool.submit(_read, path, media_kwargs)))
            if len(waiting) > workers:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(path: Path, media_kwargs: Mapping[str, Any]) -> Media:
    from ..models.media import MediaError, read_media

    try:
        return read_media(path, **media_kwargs)
    except OSError as error:  # gone or unreadable meanwhile: this video's fault, unlike errors of the output
        raise MediaError(f"{path}: {error.strerror or error}") from error


def _one_line(error: Exception, path: Path) -> str:
    """The error's message, beginning with the name of the file, wherever that is."""
    message = " ".join(str(error).split()).replace(str(path), path.name)
    return message if message.startswith(path.name) else f"{path.name}: {message}"


def _cpus() -> int:
    """CPUs that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
