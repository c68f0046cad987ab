"""Video inputs of questions: stored features or media files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...data.sources import index_videos
from ...events import MODALITIES, Modality, Seconds
from ...features.manifest import load_records
from ...features.store import FOLDERS, FeatureStore, feature_path
from ...models.media import probe
from ...system.checksums import identities
from ...system.names import look_up
from .model import Features

logger = logging.getLogger(__name__)


class UnusableVideo(ValueError):
    """Raised for a video whose input cannot be read, so that no question about it can be asked.

    Args:
        video_id: ID of the video.
        reason: one-line reason.
    """

    def __init__(self, video_id: str, reason: object) -> None:
        super().__init__(str(reason))
        self.video_id = video_id


class VideoInputs:
    """Video inputs by ID, from a folder of features or of media files.

    Args:
        data_dir: folder of the data set.
        features_dir: folder of stored features in the official layout.
        videos_dir: folder of media files, such as `<video_id>.mp4`. If neither folder is given, `features` in
            `data_dir` is used if it exists, else `videos`.
        modalities: modalities that the model receives; the others are omitted as if the video did not have them.
        zero_features: replace every value by 0 and keep the lengths, to measure how a model answers without input.

    Raises:
        FileNotFoundError: if the folder does not exist.
        ValueError: if both folders are given, or a modality is unknown.

    Example:
        >>> inputs = VideoInputs("corpus", modalities=("visual", "audio"))  # doctest: +SKIP
        >>> inputs.load("abc", model, processor)["visual"].shape  # doctest: +SKIP
        (100, 768)
    """

    def __init__(
        self,
        data_dir: str | os.PathLike,
        features_dir: str | os.PathLike | None = None,
        videos_dir: str | os.PathLike | None = None,
        modalities: Iterable[Modality] = MODALITIES,
        zero_features: bool = False,
    ) -> None:
        if features_dir is not None and videos_dir is not None:
            raise ValueError(f"give either features ({features_dir}) or videos ({videos_dir}), not both")
        self.modalities = check_modalities(modalities)
        self.zero_features = zero_features
        self.kind = "features" if features_dir is not None else "videos"
        root = features_dir if features_dir is not None else videos_dir
        if root is None:
            self.kind = "features" if Path(data_dir, "features").is_dir() else "videos"
            root = Path(data_dir, self.kind)
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root}: no such folder; give a folder of features or of videos")
        self._store = FeatureStore(self.root) if self.kind == "features" else None
        self._videos = index_videos(self.root) if self.kind == "videos" else {}
        for modality in self.modalities:
            if self._store and modality not in self._store.modalities:
                logger.warning(
                    "%s: no such folder; the model gets no %s features", self.root / FOLDERS[modality], modality
                )

    def check(self, video_id: str) -> None:
        """Check that a video's input exists and is readable: stored features completely, media files by their header.

        Raises:
            FileNotFoundError: with the name of the missing file, or if the video has none of the modalities.
            ValueError: with the name of the damaged file.
        """
        self._find(video_id)
        if self._store is not None:
            self._check_given(
                video_id, [m for m, rows in self._store.load(video_id, "none").items() if rows is not None]
            )
            return
        info = probe(look_up(self._videos, video_id))
        self._check_given(video_id, ["visual"] * info.has_video + ["audio", "speech"] * info.has_audio)

    def lengths(self, video_ids: Iterable[str]) -> dict[str, Seconds]:
        """Return the video lengths from media headers or the feature manifest; unknown lengths are omitted."""
        if self._store is None:
            found = {video_id: probe(look_up(self._videos, video_id)).duration for video_id in video_ids}
        else:
            records = load_records(self.root) if self.root.is_dir() else {}
            found = {video_id: records.get(video_id, {}).get("duration") for video_id in video_ids}
        return {video_id: length for video_id, length in found.items() if length is not None}

    def identities(self, video_ids: Iterable[str]) -> dict[str, str]:
        """Return a content identity per video, which changes if the video's input is replaced."""
        if self._store is None:
            return identities({video_id: look_up(self._videos, video_id) for video_id in video_ids})
        return {video_id: self._store.identity(video_id, self.modalities) for video_id in video_ids}

    def _find(self, video_id: str) -> None:
        if self._store is None:
            video = look_up(self._videos, video_id)
            if video is None or not video.exists():
                place = f"{self.root / video_id}.mp4: no such file" if video is None else f"{video}: a link to nothing"
                raise FileNotFoundError(f"{place}; add it")
            return
        absent = [modality for modality in self._store.missing(video_id) if modality in self.modalities]
        if absent:
            path = feature_path(self.root, video_id, absent[0])
            raise FileNotFoundError(f"{path}: no such file; make it with `longvale features`")

    def _check_given(self, video_id: str, present: Iterable[str]) -> None:
        if not set(present) & set(self.modalities):
            raise FileNotFoundError(
                f"{self.root}: video {video_id!r} has no {' or '.join(self.modalities)} features: it has nothing "
                "that the model could be given; ask for other modalities"
            )

    def check_widths(self, video_ids: Iterable[str], model: Any) -> None:
        """Check, from the headers of stored features, that they have the width that the model expects.

        Raises:
            ValueError: with the name of the first file that has another width or is not an array of features.
        """
        if self._store is not None:
            widths = {modality: getattr(model.config, f"{modality}_feature_size") for modality in self.modalities}
            for video_id in video_ids:
                self._store.check_widths(video_id, widths)

    def read(self, video_id: str, processor: Any) -> dict[str, Any] | None:
        """Decode and preprocess a video, the part of `load` that needs no model; return None for stored features.

        Raises:
            FileNotFoundError: if the video has no file.
            ValueError: if the file is invalid.
        """
        from ...extraction.preprocess import preprocess

        self._find(video_id)
        return preprocess(processor, look_up(self._videos, video_id)) if self._store is None else None

    def load(self, video_id: str, model: Any, processor: Any, read: dict[str, Any] | None = None) -> Features:
        """Load the features of a video from the store, or compute them with the model's towers.

        Args:
            video_id, model, processor: of the video and the towers.
            read: what `read` returned, if it was called before.

        Returns:
            One array [n, width] per modality; None if the video lacks it or it is not in `modalities`.

        Raises:
            FileNotFoundError: if the video has no file, or no features of the selected modalities.
            ValueError: if a file is invalid.
        """
        import numpy as np

        from ...extraction.encode import encode_video

        self._find(video_id)
        if self._store is None:
            found = encode_video(model, processor, read or look_up(self._videos, video_id))
        else:
            self.check_widths([video_id], model)
            found = self._store.load(video_id, missing="none")  # only modalities that are not selected can be missing
        features = {m: found[m] if m in self.modalities else None for m in MODALITIES}
        self._check_given(video_id, [modality for modality, values in features.items() if values is not None])
        if self.zero_features:
            features = {m: None if values is None else np.zeros_like(values) for m, values in features.items()}
        return features


def check_modalities(names: Iterable[str]) -> tuple[Modality, ...]:
    """Check names of modalities and return them in their fixed order.

    Raises:
        ValueError: if a name is unknown or the list is empty.

    Example:
        >>> check_modalities(["speech", "visual"])
        ('visual', 'speech')
    """
    names = list(names)
    unknown = [name for name in names if name not in MODALITIES]
    if unknown or not names:
        name = unknown[0] if unknown else ""
        raise ValueError(f"unknown modality {name!r}; expected some of {', '.join(MODALITIES)}")
    return tuple(modality for modality in MODALITIES if modality in names)
