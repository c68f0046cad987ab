"""State of each visitor of the page, and the environment for the private folder of their uploads."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..evaluation.generation.model import Features
from ..events import Event, Seconds

if TYPE_CHECKING:
    from ..models.media import Media


#: Seconds after which a closed tab is forgotten; reloading a page takes much less.
GRACE_S: Seconds = 10.0


@dataclass
class Video:
    """A video that a visitor chose.

    Args:
        path: video file.
        name: display name, from which the video's id in saved events is made.
        owned: whether it is an upload, which is deleted after its last use.
        duration: seconds; 0 until it is decoded.
        media: decoded video; dropped once it is encoded.
        features: output of the towers; None until the first question.
    """

    path: Path
    name: str
    owned: bool
    duration: Seconds = 0.0
    media: Media | None = None
    features: Features | None = None

    def __post_init__(self) -> None:
        self._arrived = _arrival(self.path) if self.owned else None

    def arrived_again(self) -> bool:
        """Return whether the same upload has arrived once more since, for a tab that has not named it yet."""
        return _arrival(self.path) != self._arrived


def _arrival(path: Path) -> int | None:
    """Return when a file arrived, in nanoseconds; None if there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


@dataclass(frozen=True)
class Draft:
    """An answer that is not complete.

    Args:
        question: the question in words for people.
        text: generated so far.
        events: found in the text so far.
        whole: whether the text is complete and only the modalities are missing.
    """

    question: str
    text: str
    events: tuple[Event, ...]
    whole: bool = False


@dataclass
class Session:
    """State of one browser tab.

    Args:
        video: the current video.
        view: what the browser shows; see [`longvale.app.timeline`].
        stop: set to end the work for this tab.
        draft: the answer being generated; None before the first word, and once it is complete.
        visit: random id that the browser makes for the tab and keeps on reload; None until the browser sends it.
        used: time of the visitor's last action, by the monotonic clock.
    """

    video: Video | None = None
    view: Mapping[str, Any] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    draft: Draft | None = None
    visit: str | None = None
    used: float = field(default_factory=time.monotonic)


class Sessions:
    """The open tabs. If there are too many, the least recently used one is closed.

    Args:
        capacity: maximum number of tabs; each keeps at most one decoded video in memory.
    """

    def __init__(self, capacity: int = 64) -> None:
        self._capacity = capacity
        self._open: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, key: str) -> Session:
        """Return the session of a tab, creating it for a new tab."""
        with self._lock:
            session = self._open.setdefault(key, Session())
            self._open.move_to_end(key)
            session.used = time.monotonic()
            crowded = list(self._open)[: -self._capacity]
        for other in crowded:
            self.close(other)
        return session

    def begin(self, key: str) -> Session:
        """Return the session of a tab for new work, stopping work that is still running for it."""
        session = self.get(key)
        session.stop.set()
        session.stop = threading.Event()
        return session

    def choose(self, key: str, video: Video | None) -> None:
        """Set the video of a tab and delete its old upload."""
        session = self.get(key)
        old, session.video = session.video, video
        self._delete(old)

    def drop(self, key: str, video: Video | None) -> None:
        """Remove a video from a tab if it is still the current one; an upload is deleted."""
        session = self.get(key)
        if video is not None and session.video is video:
            self.choose(key, None)

    def resume(self, key: str, visit: str) -> Session:
        """Return the session of a reloaded tab, with the video and the answer from before the reload, if any.

        Args:
            key: key of the new session.
            visit: secret id of the browser tab.
        """
        session = self.get(key)
        with self._lock:
            earlier = [old for old in self._open.values() if old.visit == visit and old is not session]
            session.visit = visit
            if earlier and session.video is None and earlier[-1].video is not None and earlier[-1].video.duration:
                session.video = earlier[-1].video
                session.view = dict(earlier[-1].view)
        return session

    def disconnect(self, key: str, grace_s: Seconds = GRACE_S) -> None:
        """Stop the work of a closed tab, and forget the tab after a delay, since it may only be reloading.

        Args:
            key: key of the session.
            grace_s: delay in seconds.
        """
        session = self.get(key)
        session.stop.set()
        if session.visit is None or session.video is None or not session.video.duration:
            self.close(key)
            return
        later = threading.Timer(grace_s, self.close, [key])
        later.daemon = True
        later.start()

    def paths(self) -> set[Path]:
        """Return the video files of all tabs."""
        with self._lock:
            return {session.video.path for session in self._open.values() if session.video is not None}

    def close_idle(self, idle_s: Seconds) -> None:
        """Close the tabs that were idle for at least `idle_s` seconds."""
        with self._lock:
            idle = [key for key, session in self._open.items() if time.monotonic() - session.used >= idle_s]
        for key in idle:
            self.close(key)

    def close(self, key: str) -> None:
        """Forget a tab: stop its work and delete its upload."""
        with self._lock:
            session = self._open.pop(key, None)
        if session is not None:
            session.stop.set()
            self._delete(session.video)

    def _delete(self, video: Video | None) -> None:
        """Delete an upload unless another tab uses the same file, or is about to: identical uploads share one file.

        What is left, and no tab names after all, is deleted by [`longvale.app.uploads.Uploads.clean_up`].
        """
        if video is None or not video.owned:
            return
        with self._lock:
            shared = any(other.video is not None and other.video.path == video.path for other in self._open.values())
        if not shared and not video.arrived_again():
            video.path.unlink(missing_ok=True)


def private_environment(folder: str | os.PathLike) -> dict[str, str]:
    """Return environment variables that make Gradio store all its files in this folder and send no analytics."""
    return {
        "GRADIO_TEMP_DIR": str(Path(folder, "uploads")),
        "GRADIO_EXAMPLES_CACHE": str(Path(folder, "examples")),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
