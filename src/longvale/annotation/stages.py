"""Resumable stage logs: one JSONL file per stage, appended to during a run and read again when a run resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

from ..io import parse_json
from ..run_log import RunLog, check_folder, claim

#: Settings of a stage folder.
SETTINGS_FILE = "settings.json"

#: Records by stage.
Records: TypeAlias = Mapping[str, list[dict[str, Any]]]


class StageLog(RunLog[dict[str, Any]]):
    """Records of one stage, looked up by key; each is written to disk as soon as it is added.

    Args:
        path: JSONL file. It need not exist, but its folder must.
        key: names of the fields that identify a record.

    Raises:
        ValueError: as [`RunLog`]: if a line is not an object with the key's fields, or if two lines with the same key
            differ in more than `seconds`.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "captions.jsonl")
        >>> StageLog(path, ("video_id",)).add({"video_id": "abc", "events": 3})
        >>> StageLog(path, ("video_id",)).get("abc")["events"]
        3
    """

    def __init__(self, path: str | os.PathLike, key: tuple[str, ...]) -> None:
        def parse(line: bytes) -> dict[str, Any]:
            record = parse_json(line)
            if not isinstance(record, dict) or any(name not in record for name in key):
                raise ValueError(f"must be an object with {', '.join(key)}")
            return record

        super().__init__(
            path,
            lambda record: tuple(record[name] for name in key),
            parse=parse,
            dump=lambda record: json.dumps(record, ensure_ascii=False),
            same=lambda before, now: _without_seconds(before) == _without_seconds(now),
        )

    def get(self, *key: Any) -> dict[str, Any] | None:
        """Return the record of a key, or None if there is none yet."""
        return self.records.get(key)

    def values(self) -> list[dict[str, Any]]:
        """Return all records, sorted by key."""
        return [self.records[key] for key in sorted(self.records)]

    def rewrite(self, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        """Replace each record by `change(record)`, or remove it if that is None; write the file only after a change.

        Args:
            change: must not change the key.
        """
        with self._lock:
            before = list(self.records.values())
            changed = [change(record) for record in before]
            if changed != before:
                self.write(record for record in changed if record is not None)


def _without_seconds(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "seconds"}


@dataclass(frozen=True)
class Stages:
    """The logs of all stages.

    Args:
        videos: one line per video: whether it was admitted, and if not, why.
        tracks: one line per video and track, see `tracks`.
        boundaries: one line per video: cuts, visual events, sounds, speech turns, events.
        captions: one line per event: the caption of each role, the facts, and the measurements.
        events: one line per event: caption, modalities, relations, and how they were found.
    """

    videos: StageLog
    tracks: StageLog
    boundaries: StageLog
    captions: StageLog
    events: StageLog

    @classmethod
    def load(cls, folder: Path) -> Stages:
        """Load the logs of a folder, which must exist; see [`StageLog`] for errors."""
        event = ("video_id", "event_id")
        keys = {"captions": event, "events": event, "tracks": ("video_id", "track")}
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


def claim_stages(folder: Path, settings: Mapping[str, Any]) -> None:
    """Create a stage folder with its settings, or check that an existing one was made with the same settings.

    Raises:
        ValueError: naming the first setting that differs; if the path exists and is not of an earlier run.
    """
    check_folder(folder, SETTINGS_FILE)
    claim(folder / SETTINGS_FILE, settings)
