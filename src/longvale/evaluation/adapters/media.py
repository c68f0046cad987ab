"""What models of others are given of a video: frames at even times, and the sound."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ...data.sources import index_videos
from ...names import look_up

if TYPE_CHECKING:
    from ...models.media import Media


class RawVideos:
    """Media files by video id.

    Args:
        root: folder of `<video_id>.mp4` and the like.
        frames: how many are given to the model.
        size: length of a frame's shorter side in pixels.
        sampling_rate: of the sound in Hz.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if a number is below 1.
    """

    def __init__(
        self, root: str | os.PathLike, *, frames: int = 64, size: int = 224, sampling_rate: int = 16_000
    ) -> None:
        for name, number in (("frames", frames), ("size", size)):
            if number < 1:
                raise ValueError(f"{name} must be 1 or more, not {number}")
        self.root, self.frames, self.size, self.sampling_rate = Path(root), frames, size, sampling_rate
        self._paths = index_videos(root)
        # Questions about a video follow each other: it is decoded once.
        self.read = lru_cache(maxsize=1)(self._read)

    def check(self, video_ids: Iterable[str]) -> None:
        """Look, without reading, whether all are there.

        Raises:
            FileNotFoundError: naming the first file that is missing.
        """
        for video_id in video_ids:
            if look_up(self._paths, video_id) is None:
                raise FileNotFoundError(f"{self.root / video_id}.mp4: no such file; add it")

    def _read(self, video_id: str) -> Media:
        """Frames and sound of a video."""
        from ...models.media import read_media

        return read_media(
            look_up(self._paths, video_id), num_frames=self.frames, size=self.size, sampling_rate=self.sampling_rate
        )
