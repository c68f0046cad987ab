"""Media of rows: stored features and video files, and which of them are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..events import MODALITIES, Modality
from ..features.store import FOLDERS, FeatureStore
from ..system.names import look_up


class Media:
    """Stored features and video files by video id; a name is found in any Unicode normalization.

    Args:
        stores: feature stores; the first that has a file of a video is used. Without stores, rows have no features.
        videos: video files, as [`longvale.data.sources.index_videos`] returns them; None for rows without a video.
    """

    def __init__(self, stores: Sequence[FeatureStore] = (), videos: Mapping[str, Path] | None = None) -> None:
        self.stores = tuple(stores)
        self.videos = None if videos is None else {name: path for name, path in videos.items() if path.exists()}

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Return the modalities for which a store has a folder."""
        return tuple(m for m in MODALITIES if any(m in store.modalities for store in self.stores))

    def store(self, video_id: str) -> FeatureStore | None:
        """Return the first store that has a file of the video; None if there is none."""
        return next((s for s in self.stores if len(s.missing(video_id)) < len(s.modalities)), None)

    def file(self, video_id: str) -> Path | None:
        """Return the video file; None if there is none."""
        return look_up(self.videos or {}, video_id)

    def missing(self, video_id: str) -> tuple[str, ...]:
        """Return the columns for which this video has no file."""
        store = self.store(video_id)
        absent = self.modalities if store is None else store.missing(video_id)
        no_file = self.videos is not None and self.file(video_id) is None
        return (*(FOLDERS[modality] for modality in absent), *(("video",) if no_file else ()))

    def load(self, video_id: str) -> dict[str, Any]:
        """Return the values of the media columns, None if the file is missing.

        Returns:
            With stores, float32 [n, width] per modality; with videos, the path in `video`.

        Raises:
            ValueError: if a file is damaged; the message names it.
        """
        columns: dict[str, Any] = {}
        if self.stores:
            store = self.store(video_id)
            found = {} if store is None else store.load(video_id, missing="none")
            columns |= {FOLDERS[modality]: found.get(modality) for modality in MODALITIES}
        if self.videos is not None:
            path = self.file(video_id)
            columns["video"] = None if path is None else str(path)
        return columns
