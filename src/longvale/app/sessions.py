"""What the page knows of each visitor, and the private folder that holds their uploads."""

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


#: A page that is loaded again is there long before this.
GRACE_S: Seconds = 10.0


@dataclass
class Video:
    """A video that a visitor chose.

    Args:
        path: of the file.
        name: for people, and the video's id in saved events.
        owned: an upload, to be deleted when nobody needs it.
        duration: seconds; 0 until it is decoded.
        media: decoded; dropped once it is encoded.
        features: what the towers made of it, None until it is asked about.
    """

    path: Path
    name: str
    owned: bool
    duration: Seconds = 0.0
    media: Media | None = None
    features: Features | None = None


@dataclass(frozen=True)
class Draft:
    """An answer that is not complete.

    Args:
        question: as the visitor would say it.
        text: so far.
        events: that it names so far.
        whole: all of it is written, only its modalities are not known yet.
    """

    question: str
    text: str
    events: tuple[Event, ...]
    whole: bool = False


@dataclass
class Session:
    """One tab of a visitor.

    Args:
        video: the one that questions are about.
        view: what the browser shows; see [`longvale.app.timeline`].
        stop: set to end what runs for this tab.
        draft: the answer that is being written; None before the first word, and once it is complete.
        visit: what the tab's browser made up for it and keeps while it is reloaded; None before it said so.
        used: when its visitor last did something, by the monotonic clock.
    """

    video: Video | None = None
    view: Mapping[str, Any] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    draft: Draft | None = None
    visit: str | None = None
    used: float = field(default_factory=time.monotonic)


class Sessions:
    """The open tabs. The one that was idle for longest is forgotten when there are too many.

    Args:
        capacity: tabs that are remembered: each holds at most a decoded video.
    """

    def __init__(self, capacity: int = 64) -> None:
        self._capacity = capacity
        self._open: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, key: str) -> Session:
        """The session of a tab; a new one if the tab is."""
        with self._lock:
            session = self._open.setdefault(key, Session())
            self._open.move_to_end(key)
            session.used = time.monotonic()
            crowded = list(self._open)[: -self._capacity]
        for other in crowded:
            self.close(other)
        return session

    def begin(self, key: str) -> Session:
        """The session of a tab for new work; what still runs for it ends."""
        session = self.get(key)
        session.stop.set()
        session.stop = threading.Event()
        return session

    def choose(self, key: str, video: Video | None) -> None:
        """Give a tab another video; its old upload is deleted."""
        session = self.get(key)
        old, session.video = session.video, video
        self._delete(old)

    def drop(self, key: str, video: Video | None) -> None:
        """Take a video from a tab if it still is the tab's; an upload is deleted."""
        session = self.get(key)
        if video is not None and session.video is video:
            self.choose(key, None)

    def resume(self, key: str, visit: str) -> Session:
        """The session of a tab that was loaded again: the video and the answer of the visit, if it had any.

        Args:
            key: of the new session.
            visit: a secret of the browser's tab.
        """
        session = self.get(key)
        with self._lock:
            earlier = [old for old in self._open.values() if old.visit == visit and old is not session]
            session.visit = visit
            if earlier and session.video is None and earlier[-1].video is not None and earlier[-1].video.duration:
                session.video = earlier[-1].video
                session.view = dict(earlier[-1].view)
        return session

    def leave(self, key: str, grace_s: Seconds = GRACE_S) -> None:
        """End the work of a tab that was closed, and forget it soon: it may only be reloaded.

        Args:
            key: of the session.
            grace_s: seconds until it is forgotten.
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
        """The files of all tabs."""
        with self._lock:
            return {session.video.path for session in self._open.values() if session.video is not None}

    def close_idle(self, idle_s: Seconds) -> None:
        """Forget the tabs whose visitors did nothing for so many seconds."""
        with self._lock:
            idle = [key for key, session in self._open.items() if time.monotonic() - session.used >= idle_s]
        for key in idle:
            self.close(key)

    def close(self, key: str) -> None:
        """Forget a tab: end its work, delete its upload."""
        with self._lock:
            session = self._open.pop(key, None)
        if session is not None:
            session.stop.set()
            self._delete(session.video)

    def _delete(self, video: Video | None) -> None:
        """Delete an upload unless another tab has the same: equal uploads are one file."""
        if video is None or not video.owned:
            return
        with self._lock:
            shared = any(other.video is not None and other.video.path == video.path for other in self._open.values())
        if not shared:
            video.path.unlink(missing_ok=True)


def private_environment(folder: str | os.PathLike) -> dict[str, str]:
    """Variables that make Gradio keep uploads, and all else it stores, in this folder, and tell nobody."""
    return {
        "GRADIO_TEMP_DIR": str(Path(folder, "uploads")),
        "GRADIO_EXAMPLES_CACHE": str(Path(folder, "examples")),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
