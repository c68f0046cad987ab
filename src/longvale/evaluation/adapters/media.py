"""Video inputs of third-party models: uniformly sampled frames, and the audio."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ...data.sources import index_videos
from ...system.names import look_up

if TYPE_CHECKING:
    from ...models.media import Media, VideoSource


class VideoReader:
    """Reader of what a third-party model gets of a video: uniformly sampled frames, and the audio.

    Args:
        frames: number of frames.
        size: length of a frame's shorter side in pixels.
        sampling_rate: sampling rate of the audio in Hz.

    Raises:
        ValueError: if a number is below 1.
    """

    def __init__(self, frames: int, size: int, sampling_rate: int = 16_000) -> None:
        for name, number in (("frames", frames), ("size", size)):
            if number < 1:
                raise ValueError(f"{name} must be 1 or more, not {number}")
        self.frames, self.size, self.sampling_rate = frames, size, sampling_rate

    def __call__(self, video: VideoSource) -> Media:
        """Decode the frames and the audio of a video in one pass.

        Raises:
            FileNotFoundError, MediaError: as in [`longvale.models.media.read_media`].
        """
        from ...models.media import read_media

        return read_media(video, num_frames=self.frames, size=self.size, sampling_rate=self.sampling_rate)


class RawVideos:
    """Media files by video ID.

    Args:
        root: folder of media files such as `<video_id>.mp4`.
        frames: number of frames that the model receives.
        size: length of a frame's shorter side in pixels.
        sampling_rate: sampling rate of the audio in Hz.

    Raises:
        FileNotFoundError: if the folder does not exist.
        ValueError: if a number is below 1.
    """

    def __init__(
        self, root: str | os.PathLike, *, frames: int = 64, size: int = 224, sampling_rate: int = 16_000
    ) -> None:
        self.root, self.frames, self.size = Path(root), frames, size
        self._reader = VideoReader(frames, size, sampling_rate)
        self._paths = index_videos(root)
        # Questions about a video are consecutive, so each video is decoded once.
        self.read = lru_cache(maxsize=1)(self._read)

    def check(self, video_ids: Iterable[str]) -> None:
        """Check that all files exist, without reading them.

        Raises:
            FileNotFoundError: with the name of the first missing file.
        """
        for video_id in video_ids:
            self.path(video_id)

    def path(self, video_id: str) -> Path:
        """Return the file of a video.

        Raises:
            FileNotFoundError: if there is none.
        """
        path = look_up(self._paths, video_id)
        if path is None:
            raise FileNotFoundError(f"{self.root / video_id}.mp4: no such file; add it")
        return path

    def _read(self, video_id: str) -> Media:
        return self._reader(self.path(video_id))
