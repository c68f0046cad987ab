"""Resumable stage logs: one JSONL file per stage, appended to during a run and read again when a run resumes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

from ..io import LONE_SURROGATES, atomic_write, load_json, named_when_full, parse_json

#: Records by stage.
Records: TypeAlias = Mapping[str, list[dict[str, Any]]]


class StageLog:
    """Records of one stage, looked up by key; each is written to disk as soon as it is added.

    Args:
        path: JSONL file. It need not exist, but its folder must.
        key: names of the fields that identify a record.

    Raises:
        ValueError: naming file and line, if a line is not an object with the key's fields, or if two lines with the
            same key differ in more than `seconds`. An incomplete last line, left by a killed run, is ignored and
            overwritten by the next record. Reading does not change the file, since another run may be writing to it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "captions.jsonl")
        >>> StageLog(path, ("video_id",)).add({"video_id": "abc", "events": 3})
        >>> StageLog(path, ("video_id",)).get("abc")["events"]
        3
    """

    def __init__(self, path: str | os.PathLike, key: tuple[str, ...]) -> None:
        self.path, self._key, self._lock = Path(path), key, threading.Lock()
        self._records: dict[tuple, dict[str, Any]] = {}
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        #: Length in bytes to which the next record truncates the file; None to leave it as it is.
        self._cut_to = len(whole) if len(whole) < len(content) else None
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            try:
                record = parse_json(line)
                if not isinstance(record, dict) or any(name not in record for name in key):
                    raise ValueError(f"must be an object with {', '.join(key)}")
                before = self._records.get(self._key_of(record))
                if before is not None and _without_seconds(before) != _without_seconds(record):
                    raise ValueError(f"repeats {self._key_of(record)} with another value")
            except ValueError as error:
                raise ValueError(f"{self.path}: line {number}: {error}; delete the line") from None
            self._records[self._key_of(record)] = record

    def _key_of(self, record: Mapping[str, Any]) -> tuple:
        return tuple(record[name] for name in self._key)

    def get(self, *key: Any) -> dict[str, Any] | None:
        """Return the record of a key, or None if there is none yet."""
        return self._records.get(key)

    def values(self) -> list[dict[str, Any]]:
        """Return all records, sorted by key."""
        return [self._records[key] for key in sorted(self._records)]

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record and write it to disk.

        Raises:
            ValueError: if there is already a record with its key.
        """
        with self._lock:
            if self._key_of(record) in self._records:
                raise ValueError(f"{self.path}: {self._key_of(record)} is there already")
            if self._cut_to is not None:
                os.truncate(self.path, self._cut_to)
                self._cut_to = None
            with (
                named_when_full(self.path),
                self.path.open("a", encoding="utf-8", errors=LONE_SURROGATES, newline="\n") as file,
            ):
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._records[self._key_of(record)] = json.loads(json.dumps(record))

    def rewrite(self, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        """Replace each record by `change(record)`, or remove it if that is None; write the file only after a change.

        Args:
            change: must not change the key.
        """
        with self._lock:
            changed = {key: change(record) for key, record in self._records.items()}
            if changed == self._records:
                return
            self._records = {key: record for key, record in changed.items() if record is not None}
            with atomic_write(self.path) as file:
                file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in self._records.values())
            self._cut_to = None


def _without_seconds(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "seconds"}


@dataclass(frozen=True)
class Stages:
    """The logs of all stages.

    Args:
        videos: one line per video: whether it was admitted, and if not, why.
        boundaries: one line per video: cuts, visual events, sounds, speech turns, events.
        captions: one line per event: the caption of each role, and the measurements.
        events: one line per event: caption, modalities, relations, and how they were found.
    """

    videos: StageLog
    boundaries: StageLog
    captions: StageLog
    events: StageLog

    @classmethod
    def load(cls, folder: Path) -> Stages:
        """Load the logs of a folder, which must exist; see [`StageLog`] for errors."""
        keys = {"captions": ("video_id", "event_id"), "events": ("video_id", "event_id")}
        names = [field.name for field in fields(cls)]
        return cls(*(StageLog(folder / f"{name}.jsonl", keys.get(name, ("video_id",))) for name in names))

    def __iter__(self) -> Iterator[tuple[str, StageLog]]:
        """Iterate over names and logs."""
        return ((field.name, getattr(self, field.name)) for field in fields(self))

    def by_video(self) -> Mapping[str, Records]:
        """Return the records of each video that has any, by stage."""
        found: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for name, log in self:
            for record in log.values():
                found.setdefault(record["video_id"], {}).setdefault(name, []).append(record)
        return found

    def forget(self, video_ids: Collection[str]) -> None:
        """Remove all records of videos, those in `videos` last: if the run is killed, the next compares the files."""
        for _, log in reversed(list(self)):
            log.rewrite(lambda record: None if record["video_id"] in video_ids else record)

    def add(self, records: Records) -> None:
        """Append records to their logs."""
        for name, log in self:
            for record in records.get(name, []):
                log.add(record)


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Create a stage folder with its settings, or check that an existing one was made with the same settings.

    Raises:
        ValueError: naming the first setting that differs; if the path exists and is not of an earlier run.
    """
    path, settings = folder / "settings.json", json.loads(json.dumps(settings))
    if path.is_file():
        before = load_json(path)
        for name in settings:
            if not isinstance(before, dict) or before.get(name) != settings[name]:
                found = before.get(name) if isinstance(before, dict) else before
                raise ValueError(
                    f"{path}: made with another {name} ({_short(found)}, not {_short(settings[name])}); "
                    "give another --output, or --overwrite"
                )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: is in the way and not of an earlier run; move it or give another output")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        json.dump(settings, file, indent=2)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."
