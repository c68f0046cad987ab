"""What is done already: one JSONL file a stage, appended to while a run goes on and picked up where it stopped."""

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
    """Lines of one stage, each at once on disk, by a key.

    Args:
        path: of the file; it need not exist, its folder must.
        key: fields that tell lines apart.

    Raises:
        ValueError: naming file and line, if one is not an object with the key's fields, or two lines of one key differ
            in more than the seconds that they took. A last line that a killed run did not finish is left out, and
            overwritten by the next record: reading changes nothing, since another run may be writing.

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
        #: Length to which the next record cuts the file, None for as it is.
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
        """The record of a key, None if it is not done."""
        return self._records.get(key)

    def values(self) -> list[dict[str, Any]]:
        """All records, sorted by key."""
        return [self._records[key] for key in sorted(self._records)]

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record and see it on disk.

        Raises:
            ValueError: if its key is there already.
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
        """Put `change(record)` in the place of each record, None for nothing; the file is written only if one changes.

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
        videos: a line a video: admitted, or why not.
        boundaries: a line a video: cuts, visual events, sounds, speech, events.
        captions: a line an event: what each role says, what was measured.
        events: a line an event: caption, modalities, relations, how they were found.
    """

    videos: StageLog
    boundaries: StageLog
    captions: StageLog
    events: StageLog

    @classmethod
    def load(cls, folder: Path) -> Stages:
        """Those of a folder, which must exist; see [`StageLog`] for errors."""
        keys = {"captions": ("video_id", "event_id"), "events": ("video_id", "event_id")}
        names = [field.name for field in fields(cls)]
        return cls(*(StageLog(folder / f"{name}.jsonl", keys.get(name, ("video_id",))) for name in names))

    def __iter__(self) -> Iterator[tuple[str, StageLog]]:
        """Names and logs."""
        return ((field.name, getattr(self, field.name)) for field in fields(self))

    def by_video(self) -> Mapping[str, Records]:
        """What is done of each video that has any."""
        found: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for name, log in self:
            for record in log.values():
                found.setdefault(record["video_id"], {}).setdefault(name, []).append(record)
        return found

    def forget(self, video_ids: Collection[str]) -> None:
        """Drop all that is done of videos; the line that admitted them goes last: a kill leaves it to be compared."""
        for _, log in reversed(list(self)):
            log.rewrite(lambda record: None if record["video_id"] in video_ids else record)

    def add(self, records: Records) -> None:
        """Put records into their logs."""
        for name, log in self:
            for record in records.get(name, []):
                log.add(record)


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make a folder of stages ours, or check that it was made with the same settings.

    Raises:
        ValueError: naming the first setting that differs.
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
