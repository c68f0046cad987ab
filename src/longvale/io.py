"""File access: JSON with errors that name the file, and atomic writes."""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, TypeGuard, TypeVar

from .system.locks import hold, is_in_use, marked_in_use
from .system.names import temporary_prefix

Value = TypeVar("Value")

#: Maximum nesting of JSON: enough for any file of ours, small enough for recursive code.
_MAX_DEPTH = 200

#: Error handler of `open` for lone surrogates, which JSON allows and UTF-8 does not: write them as `\ud83d`.
LONE_SURROGATES = "backslashreplace"


def load_json(path: str | os.PathLike) -> Any:
    """Read a JSON file strictly: no repeated keys, no NaN or infinity.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not valid; the message names the file and the place.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    text = path.read_bytes()
    if not text.strip():
        raise ValueError(f"{path}: the file is empty")
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_json(text: str | bytes) -> Any:
    """Parse strict JSON: `ValueError` on repeated keys, NaN, infinity, invalid UTF-8, deep nesting and syntax errors.

    A leading byte order mark, as editors on Windows write it, is ignored.
    """

    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            repeated = next(key for key, count in counts.items() if count > 1)
            raise ValueError(f"{repeated!r} appears twice; keep one of them")
        return result

    def no_constant(name: str) -> None:
        raise ValueError(f"{name} is not a number; give a finite value")

    if isinstance(text, str):
        text = text.removeprefix("\ufeff")  # for bytes, `json` does so itself
    try:
        value = json.loads(text, object_pairs_hook=no_repeats, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text: {error}") from None
    except RecursionError:
        raise ValueError("not readable: nested too deeply") from None
    opened = text.count(b"[") + text.count(b"{") if isinstance(text, bytes) else text.count("[") + text.count("{")
    if opened > _MAX_DEPTH and _is_deeper(value, _MAX_DEPTH):
        raise ValueError("not readable: nested too deeply")
    return value


def parse_lines(
    path: str | os.PathLike, lines: Iterable[bytes], parse: Callable[[bytes], Value], remedy: str = ""
) -> Iterator[tuple[int, Value]]:
    """Parse the lines of a JSONL file one by one; blank lines are skipped.

    Args:
        path: path of the file, for errors.
        lines: the lines, such as a file opened in mode "rb".
        parse: function such as [`parse_json`].
        remedy: end of the error message.

    Yields:
        The number of the line, from 1, and its value.

    Raises:
        ValueError: if `parse` raises it; the message names file and line.

    Example:
        >>> list(parse_lines("a.jsonl", [b'{"a": 1}', b"", b"[2]"], parse_json))
        [(1, {'a': 1}), (3, [2])]
    """
    for number, line in enumerate(lines, start=1):
        if not line.removeprefix(codecs.BOM_UTF8).strip():
            continue
        try:
            value = parse(line)
        except ValueError as error:
            raise ValueError(f"{path}: line {number}: {error}{remedy and f'; {remedy}'}") from None
        yield number, value


def _is_deeper(value: Any, depth: int) -> bool:
    """Return whether lists and objects are nested more than `depth` levels; without recursion."""
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(depth):
        inner = (item.values() if isinstance(item, dict) else item for item in level)
        level = [child for children in inner for child in children if isinstance(child, list | dict)]
        if not level:
            return False
    return True


#: Write errors that the system reports without the name of the file: a full disk, a quota, a file size limit.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def name_full_disk(path: str | os.PathLike) -> Iterator[None]:
    """Add a file's name to the error when a disk is full, which the system reports without one.

    Args:
        path: of the file or folder that the block writes.

    Example:
        >>> with name_full_disk("out.json"):
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
            ...
        OSError: [Errno 28] No space left on device: 'out.json'
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL and error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file next to `path` and rename it to `path` when the block ends without an error.

    Temporary files of the same target that killed processes have left are removed.

    Args:
        path: the file to write. It is unchanged until the block ends. Its folder is created if missing.
        mode: "w" for UTF-8 text (see [`LONE_SURROGATES`]), "wb" for bytes.

    Example:
        >>> import tempfile, pathlib
        >>> target = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
        >>> with atomic_write(target) as file:
        ...     _ = file.write("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in _left_over(path.name, _unfinished_files(os.path.abspath(path.parent)), ".tmp"):
        if not is_in_use(path.with_name(left)):
            path.with_name(left).unlink(missing_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=temporary_prefix(path.name), suffix=".tmp")
    try:
        with marked_in_use(handle):
            # mkstemp sets mode 0600: set what a plain open() would.
            os.fchmod(handle, 0o666 & ~_umask())
            text = "b" not in mode
            encoding, errors = ("utf-8", LONE_SURROGATES) if text else (None, None)
            with name_full_disk(path), open(handle, mode, encoding=encoding, errors=errors) as file:
                yield file
            os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@lru_cache(maxsize=256)
def _unfinished_files(folder: str) -> tuple[str, ...]:
    """List temporary files that were in a folder when this process first wrote there; a feature store has thousands."""
    with os.scandir(folder) as entries:
        return tuple(entry.name for entry in entries if entry.name.endswith(".tmp"))


def _left_over(name: str, found: Iterable[str], suffix: str) -> list[str]:
    """Return the names of unfinished work on `name`: on `a.json`, not on `a.json.gz`."""
    pattern = re.compile(re.escape(temporary_prefix(name)) + r"[a-z0-9_]+" + re.escape(suffix))
    return [other for other in found if pattern.fullmatch(other)]


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a folder to write into; it is renamed to `path` if the block ends without an error, else removed.

    Unfinished folders of the same target that killed processes have left are removed first.

    Args:
        path: the folder to write; parent folders are created.

    Raises:
        FileExistsError: if it exists.
        Locked: if another process is writing it.

    Example:
        >>> import tempfile, pathlib
        >>> target = pathlib.Path(tempfile.mkdtemp(), "corpus")
        >>> with atomic_folder(target) as folder:
        ...     _ = (folder / "note.txt").write_text("whole")
        >>> [path.name for path in target.iterdir()]
        ['note.txt']
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path}: exists already; give another --output or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold(path.parent, path.name, work="writing it", resumes=False):
        for left in _left_over(path.name, os.listdir(path.parent), ".partial"):
            shutil.rmtree(path.with_name(left))
        partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=temporary_prefix(path.name), suffix=".partial"))
        try:
            partial.chmod(0o777 & ~_umask())  # mkdtemp sets mode 0700
            with name_full_disk(path):
                yield partial
            partial.rename(path)
        except BaseException:
            shutil.rmtree(partial)
            raise


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a finite int or float; not a bool, and not an integer too large for a float.

    Example:
        >>> is_number(4.7), is_number(True), is_number(float("nan")), is_number(10**400)
        (True, False, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def shorten(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
