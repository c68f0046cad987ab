"""Manifest of an extraction, next to the feature folders: the result of each video, or the reason of its failure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..events import MODALITIES, check_video_id
from ..io import parse_json
from ..run_log import REMEDY, RunLog, find_difference
from ..system.checksums import file_sha256

#: Manifest of a run; that of shard 2 of 8 is `manifest-2-of-8.jsonl`.
MANIFEST_FILE = "manifest.jsonl"


def manifest_path(root: str | os.PathLike, shard: tuple[int, int] | None = None) -> Path:
    """Return the path of the manifest of a run.

    Args:
        root: folder of the features.
        shard: (number, total) of a run over a part of the videos.

    Example:
        >>> manifest_path("store").as_posix(), manifest_path("store", (2, 8)).name
        ('store/manifest.jsonl', 'manifest-2-of-8.jsonl')
    """
    if shard is None:
        return Path(root, MANIFEST_FILE)
    return Path(root, f"manifest-{shard[0]}-of-{shard[1]}.jsonl")


def load_records(root: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Load the records of all runs into this folder by video id; features take precedence over a failure.

    If several runs over different shards extracted the same video, the record that matches the files is used.

    Raises:
        ValueError: naming file and line, if a line is not a valid record.
    """
    records: dict[str, dict[str, Any]] = {}
    for path in sorted(Path(root).glob("manifest*.jsonl")):
        for video_id, record in Manifest(path).records.items():
            known = records.get(video_id)
            if known is None or "error" in known:
                records[video_id] = record if known is None or "error" not in record else known
            elif "error" not in record and differing_files(root, video_id, known):
                records[video_id] = record
    return records


def differing_files(root: str | os.PathLike, video_id: str, record: Mapping[str, Any]) -> list[Path]:
    """Return the stored files of a video that are missing or do not match the checksums of its record.

    Args:
        root: folder of the features.
        video_id: id of the video.
        record: record of the manifest; modalities without a checksum are not checked.
    """
    found = []
    for modality, digest in record.get("sha256", {}).items():
        path = Path(root, f"{modality}_features", f"{video_id}.npy")
        if not path.is_file() or file_sha256(path) != digest:
            found.append(path)
    return found


class Manifest(RunLog[dict[str, Any]]):
    """The file `manifest.jsonl`: one JSON object per video; the last one of a video is valid.

    While the manifest is open, lines are appended and flushed one at a time. On exit it is rewritten with one line per
    video, sorted by id, so that the file is the same however often the run was stopped.

    Args:
        path: path of the file; it need not exist.

    Raises:
        ValueError: naming file and line, if a line is not a valid record. A truncated last line is ignored.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        # Written as ASCII, because file names may contain bytes that are not valid characters.
        super().__init__(path, lambda record: record["video_id"], parse=_parse_record, same=None)

    def check_settings(
        self, video_ids: Iterable[str], settings: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Refuse to resume from features that were made with other settings; those that are not recorded are accepted.

        Args:
            video_ids: ids of the videos with existing features.
            settings: towers and preprocessing of this run, as they are recorded.
            records: records of this and of other runs into the folder.

        Raises:
            ValueError: naming the first such video, the setting and both values.
        """
        for video_id in video_ids:
            recorded = {name: value for name, value in records.get(video_id, {}).items() if name in settings}
            if difference := find_difference({**settings, **recorded}, settings):
                raise ValueError(f"{self.path}: features of {video_id!r} were made with {difference}; {REMEDY}")

    def __enter__(self) -> Manifest:
        self._sort()
        return self

    def __exit__(self, *exception: object) -> None:
        self._sort()

    def _sort(self) -> None:
        self.write([record for _, record in sorted(self.records.items())])


def _parse_record(line: bytes) -> dict[str, Any]:
    record = parse_json(line)
    if not isinstance(record, dict) or not isinstance(record.get("video_id"), str):
        raise ValueError("must be an object with field 'video_id'")
    check_video_id(record["video_id"])
    digests = record.get("sha256", {})
    if not isinstance(digests, dict) or not all(m in MODALITIES and isinstance(d, str) for m, d in digests.items()):
        raise ValueError("field 'sha256' must hold a checksum per modality")
    return record
