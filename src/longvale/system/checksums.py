"""Content identity of files: an identifier of one file, and `SHA256SUMS`, the checksums of a folder."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..io import atomic_write

#: File in the format that `sha256sum --check` reads.
CHECKSUMS_FILE = "SHA256SUMS"

#: Files without a checksum: the card is a text that people keep editing.
_NOT_SUMMED = (CHECKSUMS_FILE, "README.md")

#: Number of blocks and bytes per block that [`file_identity`] reads of a large file. Smaller files are read whole.
_BLOCKS, _BLOCK_BYTES = 16, 256 << 10

#: Number of files that are identified in parallel: enough to keep a network drive busy.
_AT_A_TIME = 8


def file_identity(path: str | os.PathLike) -> str:
    """Identify a file by its content, independent of its name, folder and times.

    Up to 4 MB all bytes are read. For a larger file, its size and 16 blocks of 256 kB at equal distances are used,
    including the first and the last bytes. Another recording, cut or encoding differs in all of these. A change in
    place that keeps the size and lies between the blocks is not detected.

    Args:
        path: of the file.

    Returns:
        The size in bytes, a hyphen and 16 hexadecimal digits.

    Raises:
        OSError: if the file cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "video.mp4")
        >>> _ = path.write_bytes(b"whatever it shows")
        >>> file_identity(path)
        '17-33a8bdeb13b9ea61'
    """
    digest = hashlib.sha256()
    if not os.path.isfile(path):  # reading a pipe would block
        raise FileNotFoundError(errno.ENOENT, "no such file", os.fspath(path))
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= _BLOCKS * _BLOCK_BYTES:
            digest.update(file.read())
        else:
            for number in range(_BLOCKS):
                file.seek((size - _BLOCK_BYTES) * number // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK_BYTES))
    return f"{size}-{digest.hexdigest()[:16]}"


def identities(paths: Mapping[str, Path]) -> dict[str, str]:
    """Identify several files in parallel; those that cannot be read are left out.

    Args:
        paths: by any key.
    """

    def identify(path: Path) -> str | None:
        try:
            return file_identity(path)
        except OSError:  # reading it later reports the error
            return None

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        found = zip(paths, pool.map(identify, paths.values()), strict=True)
        return {name: identity for name, identity in found if identity is not None}


def file_sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a whole file.

    Raises:
        OSError: if the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(folder: Path) -> None:
    """Write `SHA256SUMS` of all files in a folder and its subfolders, without hidden files and the card."""
    with atomic_write(folder / CHECKSUMS_FILE) as file:
        file.writelines(f"{digest}  {name}\n" for name, digest in _digests(folder).items())


def read_checksums(folder: str | os.PathLike) -> dict[str, str]:
    """Read the digests by name from a folder's `SHA256SUMS`.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if a line is not a checksum; the message names it.
    """
    path = Path(folder, CHECKSUMS_FILE)
    listed: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        digest, gap, name = line.partition("  ")
        if not gap or not name or len(digest) != 64:
            raise ValueError(f"{path}: line {number}: must be a SHA-256, two spaces and a name, not {line[:80]!r}")
        listed[name] = digest
    return listed


def changed_files(folder: str | os.PathLike) -> list[str]:
    """Compare a folder with its `SHA256SUMS`: return one line per file that is missing, changed or not listed.

    Raises:
        FileNotFoundError, ValueError: as in [`read_checksums`].
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
            digests[name] = file_sha256(path)
    return digests
