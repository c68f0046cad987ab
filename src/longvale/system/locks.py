"""One run at a time per output: a lock of the operating system, released however its process ends."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

#: Errors of `flock` on file systems without locks, such as some network mounts.
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
#: Windows locks a byte, which nobody can read meanwhile: one far after the text that names the holder.
_BYTE = 1 << 30
_LONGEST_NAME = 255  # bytes, of most file systems

_held: set[int] = set()
_may_resume = False


class Locked(ValueError):
    """Another run is using the same output."""


@contextmanager
def hold(
    folder: str | os.PathLike, name: str, *, work: str, option: str = "--output", resumes: bool = True
) -> Iterator[None]:
    """Hold the lock of an output while the block runs.

    The lock is `flock` (on Windows `msvcrt.locking`) on the file `.NAME.lock`, so it is released when the process ends
    in any way, including a kill. Repeated process ids, as in containers, cannot confuse it. Threads of one process
    exclude each other too. A file that a killed run left is reused.

    Args:
        folder: of the lock file; created if missing.
        name: of the output, for example its file or folder name.
        work: what the process does, for the error message of other runs.
        option: of the command line that sets another output, for the same message.
        resumes: whether the same command skips finished work, see [`may_resume`].

    Raises:
        Locked: if another run holds it; the message contains process, machine, command and start.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with hold(folder, "out.json", work="longvale annotate"):
        ...     os.listdir(folder)
        ['.out.json.lock']
        >>> os.listdir(folder)
        []
    """
    global _may_resume
    path = lock_path(Path(folder), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _open(path, Path(folder, name), option)
    _held.add(handle)
    _may_resume |= resumes
    try:
        _write_holder(handle, work, path)
        yield
    finally:
        if handle in _held:  # not in a fork
            _held.discard(handle)
            _release(handle, path)


@contextmanager
def marked_in_use(handle: int) -> Iterator[None]:
    """Mark an open temporary file as used by a live process while the block runs, see [`is_in_use`]."""
    if fcntl is None:
        yield
        return
    held = os.dup(handle)  # the mark outlasts the closing of the file, which happens before its rename
    with contextlib.suppress(OSError):
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        os.close(held)


def is_in_use(path: str | os.PathLike) -> bool:
    """Return whether a live process may have [`marked_in_use`] a temporary file; also True where there are no locks."""
    if fcntl is None:
        return True
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def lock_path(folder: Path, name: str) -> Path:
    """Return the file that [`hold`] locks.

    Example:
        >>> lock_path(Path("out"), "synthesize").as_posix()
        'out/.synthesize.lock'
    """
    lock = f".{name}.lock"
    if len(os.fsencode(lock)) > _LONGEST_NAME:
        lock = f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}.lock"
    return folder / lock


def _open(path: Path, target: Path, option: str) -> int:
    """Return a handle with the lock of the file that has this name now."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _acquire(handle, path):
                raise Locked(f"{target}: {_describe_holder(handle)}; wait for it, stop it, or give another {option}")
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(path)):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder has removed the file since it was opened


def _acquire(handle: int, path: Path) -> bool:
    if fcntl is None:
        import msvcrt

        os.lseek(handle, _BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:  # msvcrt has one errno for this and all other errors
            return False
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        logger.warning("%s: this file system has no locks; start no second run with the same output", path.parent)
    return True


def _release(handle: int, path: Path) -> None:
    if fcntl is not None:  # the name is removed before the lock, so that nobody locks a file without a name
        path.unlink(missing_ok=True)
        os.close(handle)
        return
    os.close(handle)  # Windows removes no open file
    with contextlib.suppress(PermissionError):  # another process has opened it meanwhile and reuses it
        path.unlink(missing_ok=True)


def may_resume() -> bool:
    """Return whether this process has held an output for which the same command skips finished work."""
    return _may_resume


def _write_holder(handle: int, work: str, path: Path) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = {"process": os.getpid(), "host": socket.gethostname(), "work": work, "since": since}
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        os.write(handle, json.dumps(holder).encode())
    except OSError as error:  # for example of a full disk, which the system reports without a name
        error.filename = os.fspath(path)
        raise


def _describe_holder(handle: int) -> str:
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        holder: Any = json.loads(os.read(handle, 4096))
        process, host, work, since = (holder[name] for name in ("process", "host", "work", "since"))
    except (ValueError, KeyError, TypeError):  # the holder has not written its details yet
        return "another process works on it"
    return f"process {process} on {host} ({work}) has worked on it since {since}"


def _forget() -> None:
    """Close the locks in a forked process: a worker that outlives a killed run must not hold its lock."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
