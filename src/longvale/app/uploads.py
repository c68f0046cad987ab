"""The upload folder: its maximum size, which files requests may name, and what is deleted from it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..events import Seconds
from .limits import Limits
from .sessions import Sessions

#: Seconds after which an upload that no tab uses is deleted; a browser names its upload right after it arrived.
UNCLAIMED_S: Seconds = 120.0
#: Seconds after which an idle tab is forgotten and its upload deleted.
IDLE_S: Seconds = 7200.0
#: Interval between two clean-ups in seconds.
_PERIOD_S: Seconds = 30.0


class NoRoomError(Exception):
    """Error: not enough room for another upload."""


class Uploads:
    """The uploads of visitors.

    Gradio writes an upload to a file directly in this folder and moves it to a subfolder when it is complete.

    Args:
        folder: folder in which Gradio stores uploads.
        limits: limits of one upload, and of all together.
        sessions: the open tabs, which claim uploads.
    """

    def __init__(self, folder: str | os.PathLike, limits: Limits, sessions: Sessions) -> None:
        self.folder = Path(folder).resolve()
        self.limits = limits
        self._sessions = sessions
        self._lock = threading.Lock()
        self._arriving: list[int] = []

    def holds(self, path: object) -> bool:
        """Return whether this is the path of a complete upload.

        Example:
            >>> uploads = Uploads("uploads", Limits(), Sessions())
            >>> uploads.holds("/etc/passwd"), uploads.holds("https://example.org/a.mp4"), uploads.holds(["a.mp4"])
            (False, False, False)
        """
        return (
            isinstance(path, str)
            and os.path.isfile(path)
            and Path(path).resolve().is_relative_to(self.folder)
            and Path(path).resolve().parent != self.folder
        )

    @contextmanager
    def receive(self, size: int) -> Iterator[None]:
        """Reserve room for an upload while it arrives; incomplete uploads are deleted.

        Args:
            size: maximum size in bytes.

        Raises:
            NoRoomError: if all uploads together would be larger than the limit.
        """
        with self._lock:
            if self._stored() + sum(self._arriving) + size > self.limits.stored:
                self._delete_unclaimed(UNCLAIMED_S)
                if self._stored() + sum(self._arriving) + size > self.limits.stored:
                    raise NoRoomError
            self._arriving.append(size)
        try:
            yield
        finally:
            with self._lock:
                self._arriving.remove(size)
                if not self._arriving:
                    for path in self.folder.iterdir():
                        if path.is_file():
                            path.unlink(missing_ok=True)

    def clean_up(self, unclaimed_s: Seconds = UNCLAIMED_S, idle_s: Seconds = IDLE_S) -> None:
        """Close idle tabs, and delete the uploads that no tab claimed.

        Args:
            unclaimed_s: age in seconds from which an upload without a tab is deleted.
            idle_s: seconds without an action after which a tab is idle.
        """
        self._sessions.close_idle(idle_s)
        with self._lock:
            self._delete_unclaimed(unclaimed_s)

    @contextmanager
    def cleaning_up(self) -> Iterator[None]:
        """Clean up twice per minute while the block runs."""
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(_PERIOD_S):
                self.clean_up()

        thread = threading.Thread(target=run, name="longvale-uploads", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _stored(self) -> int:
        total = 0
        for path in self.folder.glob("*/*"):
            with suppress(FileNotFoundError):  # a tab may delete its upload at any time
                total += path.stat().st_size
        return total

    def _delete_unclaimed(self, unclaimed_s: Seconds) -> None:
        claimed = self._sessions.paths()
        for path in [*self.folder.glob("*/*"), *self.folder.iterdir()]:
            with suppress(FileNotFoundError):
                if path in claimed or time.time() - path.lstat().st_mtime < unclaimed_s:
                    continue
                if not path.is_dir():
                    path.unlink()
                elif not any(path.iterdir()):
                    path.rmdir()
