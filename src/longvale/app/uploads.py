"""The folder of uploads: how much it may store, which files may be named, and what is deleted from it."""

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

#: A browser names its upload at once when it is there: after this nobody will.
UNCLAIMED_S: Seconds = 120.0
#: A tab in which nobody did anything is forgotten after this, and its upload deleted.
IDLE_S: Seconds = 7200.0
#: How often that is looked at.
_PERIOD_S: Seconds = 30.0


class NoRoomError(Exception):
    """There is no room for another upload."""


class Uploads:
    """What visitors uploaded.

    Gradio writes an upload into a file of this folder itself and moves it into a folder below when it is whole.

    Args:
        folder: where Gradio stores uploads.
        limits: of one upload, and of all together.
        sessions: the open tabs, which claim uploads.
    """

    def __init__(self, folder: str | os.PathLike, limits: Limits, sessions: Sessions) -> None:
        self.folder = Path(folder).resolve()
        self.limits = limits
        self._sessions = sessions
        self._lock = threading.Lock()
        self._arriving: list[int] = []

    def holds(self, path: object) -> bool:
        """Whether this is the path of a whole upload.

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
        """Keep room for an upload while it arrives; what is torn off is deleted.

        Args:
            size: in bytes, at most.

        Raises:
            NoRoomError: if all uploads together would be larger than the limit.
        """
        with self._lock:
            if self._stored() + sum(self._arriving) + size > self.limits.stored:
                self._sweep(UNCLAIMED_S)
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

    def sweep(self, unclaimed_s: Seconds = UNCLAIMED_S, idle_s: Seconds = IDLE_S) -> None:
        """Forget idle tabs, and delete the uploads that no tab claimed.

        Args:
            unclaimed_s: age in seconds from which an upload without a tab is deleted.
            idle_s: seconds without anything done in a tab.
        """
        self._sessions.close_idle(idle_s)
        with self._lock:
            self._sweep(unclaimed_s)

    @contextmanager
    def swept(self) -> Iterator[None]:
        """Sweep twice a minute as long as the block lasts."""
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(_PERIOD_S):
                self.sweep()

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
            with suppress(FileNotFoundError):  # a tab may delete its own at any time
                total += path.stat().st_size
        return total

    def _sweep(self, unclaimed_s: Seconds) -> None:
        claimed = self._sessions.paths()
        for path in [*self.folder.glob("*/*"), *self.folder.iterdir()]:
            with suppress(FileNotFoundError):
                if path in claimed or time.time() - path.lstat().st_mtime < unclaimed_s:
                    continue
                if not path.is_dir():
                    path.unlink()
                elif not any(path.iterdir()):
                    path.rmdir()
