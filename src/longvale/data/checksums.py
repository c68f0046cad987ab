"""`SHA256SUMS`: the checksums of a folder of data."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ..events import atomic_write

#: In the form that `sha256sum --check` reads.
CHECKSUMS_FILE = "SHA256SUMS"

#: Not among the checksums: the card is a text that people go on writing.
_NOT_SUMMED = (CHECKSUMS_FILE, "README.md")


def write_checksums(folder: Path) -> None:
    """Write `SHA256SUMS` of all files in a folder and below it, without the card."""
    with atomic_write(folder / CHECKSUMS_FILE) as file:
        file.writelines(f"{digest}  {name}\n" for name, digest in _digests(folder).items())


def read_checksums(folder: str | os.PathLike) -> dict[str, str]:
    """Digests by name, as a folder's `SHA256SUMS` lists them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the line that is none of a checksum.
    """
    path = Path(folder, CHECKSUMS_FILE)
    listed: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        digest, gap, name = line.partition("  ")
        if not gap or not name or len(digest) != 64:
            raise ValueError(f"{path}: line {number}: must be a SHA-256, two spaces and a name, not {line[:80]!r}")
        listed[name] = digest
    return listed


def changed_files(folder: str | os.PathLike) -> list[str]:
    """What is wrong with a folder by its `SHA256SUMS`: a line about each file that is missing, changed or not listed.

    Raises:
        FileNotFoundError, ValueError: as [`read_checksums`].
    """
    listed, found = read_checksums(folder), _digests(Path(folder))
    faults = []
    for name in sorted({*listed, *found}):
        if listed.get(name) != found.get(name):
            fault = "is missing" if name not in found else "was added" if name not in listed else "has changed"
            faults.append(f"{Path(folder, name)}: {fault} since {CHECKSUMS_FILE} was written")
    return faults


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in _NOT_SUMMED and not any(part.startswith(".") for part in name.split("/")):
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
