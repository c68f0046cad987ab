"""One resumable log: a JSONL file that is appended to record by record, and the settings that its records depend on.

Annotation stages, prediction logs and manifests of features are such logs; their modules say what a record is.
Synthetic corpora, the demo and training runs only compare settings.
"""

from __future__ import annotations

import hashlib
import io
import json
import operator
import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Generic, TypeVar

from .io import LONE_SURROGATES, atomic_write, load_json, name_full_disk, parse_json, parse_lines, shorten

Record = TypeVar("Record")

#: Remedy of commands with these two options.
REMEDY = "give another --output, or --overwrite"


class RunLog(Generic[Record]):
    """Records of a JSONL file by key; what is added survives the end of the process as soon as the call returns.

    An incomplete last line, left by a killed run, is ignored, and overwritten by the next record. Reading does not
    change the file, since another run may be writing to it.

    Args:
        path: JSONL file. It need not exist, but its folder must when a record is added.
        key: function that returns what identifies a record.
        parse: function that reads a line; its `ValueError` is reported with file and line.
        dump: function that writes a record as a line, without the line break.
        same: function that decides whether two records of one key agree; None if the last one is valid.
        remedy: end of the message about an invalid line.

    Attributes:
        records: the records on disk by key.

    Raises:
        ValueError: naming file and line, if a line is invalid, or repeats a key with a record that does not agree.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "captions.jsonl")
        >>> RunLog(path, lambda record: record["video_id"]).add({"video_id": "abc", "events": 3})
        >>> RunLog(path, lambda record: record["video_id"]).records["abc"]["events"]
        3
    """

    def __init__(
        self,
        path: str | os.PathLike,
        key: Callable[[Record], Hashable],
        *,
        parse: Callable[[bytes], Record] = parse_json,
        dump: Callable[[Record], str] = json.dumps,
        same: Callable[[Record, Record], bool] | None = operator.eq,
        remedy: str = "delete the line",
    ) -> None:
        self.path, self.records = Path(path), dict[Hashable, Record]()
        self._key, self._parse, self._dump, self._same, self._lock = key, parse, dump, same, threading.RLock()
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = whole_lines(content)
        #: Length in bytes to which the next record truncates the file; None to leave it as it is.
        self._cut_to = len(whole) if len(whole) < len(content) else None
        for _ in parse_lines(self.path, io.BytesIO(whole), self._read, remedy):
            pass

    def _read(self, line: bytes) -> None:
        record = self._parse(line)
        self.records[self._check(record)] = record

    def _check(self, record: Record) -> Hashable:
        """Return the key of a record, which must agree with the record that has the same key."""
        key = self._key(record)
        if self._same is not None and key in self.records and not self._same(self.records[key], record):
            raise ValueError(f"repeats {key!r} with another value")
        return key

    def add(self, *records: Record) -> None:
        """Write records to the end of the file.

        Raises:
            ValueError: if there is already a record with the key of one, unless the last one of a key is valid.
            OSError: naming the file, if the disk is full; the rest of the line is overwritten by the next record.
        """
        lines = [self._dump(record).encode("utf-8", LONE_SURROGATES) + b"\n" for record in records]
        new = [self._parse(line) for line in lines]
        keys = [self._key(record) for record in new]
        with self._lock:
            known = [key for key, count in Counter(keys).items() if key in self.records or count > 1]
            if known and self._same is not None:
                raise ValueError(f"{self.path}: {known[0]!r} is there already")
            with name_full_disk(self.path), self.path.open("ab") as file:
                if self._cut_to is not None:
                    file.truncate(self._cut_to)
                self._cut_to = file.seek(0, os.SEEK_END)
                file.writelines(lines)
                file.flush()
                self._cut_to = None
            self.records |= zip(keys, new, strict=True)

    def merge(self, other: RunLog[Record]) -> None:
        """Add the records of another log that this one does not have, and remove its file.

        Raises:
            ValueError: if both have a record of the same key, and they do not agree.
        """
        try:
            new = [record for record in other.records.values() if self._check(record) not in self.records]
        except ValueError as error:
            raise ValueError(f"{other.path}: {error} than {self.path}; delete one of them") from None
        self.add(*new)
        other.path.unlink()

    def write(self, records: Iterable[Record]) -> None:
        """Replace the content of the file by these records, in their order."""
        with self._lock:
            found = {self._key(record): record for record in records}
            with atomic_write(self.path) as file:
                file.writelines(self._dump(record) + "\n" for record in found.values())
            self.records.clear()
            self.records |= found
            self._cut_to = None


def whole_lines(content: bytes) -> bytes:
    """Return the content of a JSONL file without the incomplete last line that a killed run leaves."""
    return content[: content.rfind(b"\n") + 1]


def fingerprint(content: str | bytes) -> str:
    """Return a short digest of a text or a file's content that a result depends on; for settings.

    Example:
        >>> fingerprint("What happens?")
        'cc1e2ac87181f518'
    """
    return hashlib.sha256(content.encode(errors="replace") if isinstance(content, str) else content).hexdigest()[:16]


def claim(
    path: Path, settings: Mapping[str, Any], *, remedy: str = REMEDY, recorded: Collection[str] = ()
) -> dict[str, Any]:
    """Record the settings of a run, or compare them with those of the run that it resumes.

    Args:
        path: JSON file of the settings; its folder is created.
        settings: all that changes the result, as JSON values.
        remedy: what the user can do if they differ.
        recorded: names that are recorded, but not compared.

    Returns:
        The settings that are in the file now.

    Raises:
        ValueError: naming the file, the first setting that differs, both values and the remedy.
    """
    settings = json.loads(json.dumps(settings))
    if not path.is_file():
        save_settings(path, settings)
    before = load_settings(path)
    if difference := find_difference(before, settings, recorded):
        raise ValueError(f"{path}: was made with {difference}; {remedy}")
    return before


def find_difference(before: Mapping[str, Any], now: Mapping[str, Any], recorded: Collection[str] = ()) -> str | None:
    """Describe the first setting that differs, except those in `recorded`; a missing one is the same as null.

    Example:
        >>> find_difference({"model": "m", "options": {"size": 32}}, {"model": "m", "options": {"size": 64}})
        'options.size 32, not 64'
    """
    for name in (name for name in {**before, **now} if name not in recorded):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            if inner := find_difference(old, new):
                return f"{name}.{inner}"
        elif old != new:
            return f"{name} {shorten(old, 120)}, not {shorten(new, 120)}"
    return None


def load_settings(path: Path) -> dict[str, Any]:
    """Read a file of settings; `FileNotFoundError` or `ValueError` if it does not exist or is not a JSON object."""
    settings = load_json(path)
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: must be an object of settings; copy it again, or begin again with --overwrite")
    return settings


def save_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write a file of settings."""
    with atomic_write(path) as file:
        json.dump(settings, file, indent=2)
        file.write("\n")


def check_folder(folder: Path, settings_file: str, remedy: str = REMEDY) -> None:
    """Raise `ValueError` unless a folder is of an earlier run, empty, or does not exist; nothing is written."""
    if not folder.exists() or (folder / settings_file).exists():
        return
    if not folder.is_dir() or any(not fnmatch(path.name, ".*.lock") for path in folder.iterdir()):
        raise ValueError(f"{folder}: is not an empty directory and not of an earlier run; {remedy}")
