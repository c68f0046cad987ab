"""Manifest of an extraction, next to the feature folders: the result of each video, or the reason of its failure."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..events import MODALITIES, check_video_id
from ..io import atomic_write, named_when_full, parse_json
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


class Manifest:
    """The file `manifest.jsonl`: one JSON object per video; the last one of a video is valid.

    While the manifest is open, lines are appended and flushed one at a time. On exit it is rewritten with one line per
    video, sorted by id, so that the file is the same however often the run was stopped.

    Args:
        path: path of the file; it need not exist.

    Raises:
        ValueError: naming file and line, if a line is not a valid record. A truncated last line is ignored.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.records: dict[str, dict[str, Any]] = {}
        content = self.path.read_bytes() if self.path.exists() else b""
        # Text after the last line break is a line that a killed run did not finish.
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            record = _parse_line(line, f"{self.path}: line {number}")
            self.records[record["video_id"]] = record

    def check_towers(self, video_ids: Iterable[str], towers: str, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse to resume from features of other towers; features of videos without a record are accepted.

        Args:
            video_ids: ids of the videos with existing features.
            towers: digest of the towers of this run.
            records: records of this and of other runs into the folder.

        Raises:
            ValueError: naming the first video whose features were extracted by other towers.
        """
        others = [v for v in video_ids if records.get(v, {}).get("towers", towers) != towers]
        if others:
            raise ValueError(
                f"{self.path}: {len(others)} videos, the first {others[0]!r}, have features that other towers made; "
                "give another --output, or --overwrite"
            )

    def __enter__(self) -> Manifest:
        for unfinished in self.path.parent.glob(f".{self.path.name}.*.tmp"):  # left by a killed run
            unfinished.unlink(missing_ok=True)
        self._write_all()
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def add(self, record: dict[str, Any]) -> None:
        """Append a record and flush it."""
        self.records[record["video_id"]] = record
        with named_when_full(self.path):
            self._file.write(_to_line(record))
            self._file.flush()

    def __exit__(self, *exception: object) -> None:
        with named_when_full(self.path):
            self._file.close()
        self._write_all()

    def _write_all(self) -> None:
        with atomic_write(self.path) as file:
            file.writelines(_to_line(record) for _, record in sorted(self.records.items()))


def _parse_line(line: bytes, place: str) -> dict[str, Any]:
    try:
        record = parse_json(line)
        if isinstance(record, dict) and isinstance(record.get("video_id"), str):
            check_video_id(record["video_id"])
    except ValueError as error:
        raise ValueError(f"{place}: {error}; delete the line") from None
    if not isinstance(record, dict) or not isinstance(record.get("video_id"), str):
        raise ValueError(f"{place}: must be an object with field 'video_id'; delete the line")
    digests = record.get("sha256", {})
    if not isinstance(digests, dict) or not all(m in MODALITIES and isinstance(d, str) for m, d in digests.items()):
        raise ValueError(f"{place}: field 'sha256' must hold a checksum per modality; delete the line")
    return record


def _to_line(record: dict[str, Any]) -> str:
    # ASCII, because file names may contain bytes that are not valid characters.
    return json.dumps(record) + "\n"
