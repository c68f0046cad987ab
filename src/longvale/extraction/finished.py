"""Finished videos of an earlier run: their features match the manifest, and their file is the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..events import MODALITIES
from ..features.backends import NpyFolder
from ..features.manifest import differing_files
from ..features.store import FOLDERS, feature_path, is_complete
from ..system.checksums import file_sha256, identities

#: Number of videos whose features are read at once.
_AT_A_TIME = 4


@dataclass(frozen=True)
class Finished:
    """Results of an earlier run.

    Args:
        video_ids: ids of the videos that need no work.
        replaced: ids of the videos whose file differs from the one that the features were extracted from.
        damaged: ids of the videos whose features differ from the manifest, or cannot be read.
        lines: lines to add to the manifest, for finished videos without a line or without their file's identity.
        lost: number of lines that were missing.
        unidentified: number of lines without an identity: earlier versions recorded none.
    """

    video_ids: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    lines: tuple[Mapping[str, Any], ...] = ()
    lost: int = 0
    unidentified: int = 0


def find_finished(
    root: str | os.PathLike, videos: Mapping[str, Path], records: Mapping[str, Mapping[str, Any]]
) -> Finished:
    """Compare videos and their stored features with the manifest.

    A video whose last attempt failed is not finished. A video without a record is finished: its features may have any
    origin, and their checksums are recorded now. A video recorded without its file's identity is finished unless the
    size differs.

    Args:
        root: folder of the features; it need not exist.
        videos: paths by video id.
        records: records of the manifests, see [`load_records`].
    """
    there = {v: path for v, path in videos.items() if is_complete(root, v) and "error" not in records.get(v, {})}
    found = identities(there)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        fine = pool.map(lambda video_id: _is_whole(root, video_id, records.get(video_id, {})), there)
        whole = {video_id for video_id, is_fine in zip(there, fine, strict=True) if is_fine}
    replaced = {v for v in there if v in found and _is_replaced(records.get(v, {}), found[v])}
    kept = [video_id for video_id in there if video_id in whole and video_id not in replaced]
    lost = [video_id for video_id in kept if "sha256" not in records.get(video_id, {})]
    unidentified = [v for v in kept if v not in lost and "identity" not in records[v] and v in found]
    lines = [_line_of(root, v, there[v]) | _identity(found.get(v)) for v in lost]
    lines += [{**records[v], **_identity(found[v])} for v in unidentified]
    damaged = tuple(video_id for video_id in there if video_id not in whole and video_id not in replaced)
    return Finished(tuple(kept), tuple(sorted(replaced)), damaged, tuple(lines), len(lost), len(unidentified))


def _is_replaced(record: Mapping[str, Any], identity: str) -> bool:
    if "identity" in record:
        return record["identity"] != identity
    return "bytes" in record and record["bytes"] != _size(identity)


def _size(identity: str) -> int:
    return int(identity.partition("-")[0])


def _identity(identity: str | None) -> dict[str, Any]:
    return {} if identity is None else {"bytes": _size(identity), "identity": identity}


def _is_whole(root: str | os.PathLike, video_id: str, record: Mapping[str, Any]) -> bool:
    if "sha256" in record:
        return not differing_files(root, video_id, record)
    try:
        return all(np.isfinite(_rows(root, video_id, modality)).all() for modality in MODALITIES)
    except ValueError:
        return False


def _rows(root: str | os.PathLike, video_id: str, modality: Any) -> np.ndarray:
    return NpyFolder(Path(root, FOLDERS[modality])).read(video_id)


def _line_of(root: str | os.PathLike, video_id: str, path: Path) -> dict[str, Any]:
    """Build a manifest record of existing features from their files; the towers that made them are unknown."""
    shapes = {modality: _rows(root, video_id, modality).shape for modality in MODALITIES}  # a single vector is [width]
    return {
        "video_id": video_id,
        "file": path.name,
        "features": {m: 0 if 0 in shape else 1 if len(shape) == 1 else shape[0] for m, shape in shapes.items()},
        "widths": {m: 0 if 0 in shape else shape[-1] for m, shape in shapes.items()},
        "sha256": {modality: file_sha256(feature_path(root, video_id, modality)) for modality in MODALITIES},
    }
