"""Adapter options: the kind of adapter and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from ...checkpoints.loading import Weights
from ...events import Annotation
from ...registry import adapters, time_formats
from ...tasks import AnyTask
from .base import Adapter
from .media import RawVideos
from .messages import VideoAs


@dataclass(frozen=True)
class AdapterOptions:
    """Options of an adapter for a third-party model.

    Args:
        kind: name of a registered adapter, such as "chat" or "server", or `package.module:Name`.
        base_url: URL of the server, such as "http://127.0.0.1:8000/v1".
        times: name of a registered format of the times in questions and replies, or `package.module:Name`; None for
            that of the checkpoint, if it records one, else seconds.
        frames: number of frames that the model receives.
        frame_size: length of a frame's shorter side in pixels.
        sound: pass the audio to models with audio input.
        timeout_s: timeout per complete server reply in seconds.
        concurrency: number of questions in flight, of servers, and of adapters whose `reply` is safe in threads.
        video_as, video_url, processor_options: how videos are sent to a server, see
            [`longvale.evaluation.adapters.server.ServerAdapter`]; `video_as` is "timed-frames" by default.

    Raises:
        ValueError: if `kind` or `times` is not registered, see [`longvale.registry.Registry.get`]; if an option of
            servers is given for `chat`.
    """

    kind: str
    base_url: str | None = None
    times: str | None = None
    frames: int = 64
    frame_size: int = 224
    sound: bool = True
    timeout_s: float = 600.0
    concurrency: int = 8
    video_as: VideoAs | None = None
    video_url: str | None = None
    processor_options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.times is not None:
            time_formats.get(self.times)
        if self.kind == "chat":
            for option in ("video_as", "video_url", "processor_options"):
                if getattr(self, option) is not None:
                    raise ValueError(f"{option} {getattr(self, option)!r} is for servers; leave it out with chat")
        try:
            adapters.get(self.kind)
        except ValueError as error:
            raise ValueError(f"{error}; a LongVALE checkpoint needs no adapter") from None

    def build(
        self,
        model: Any,
        videos: Path,
        annotations: Mapping[str, Annotation],
        limits: Mapping[AnyTask, int],
        device: str | None = None,
        **weights: Unpack[Weights],
    ) -> Adapter:
        """Build the adapter for a model: a folder, Hub ID or name; for `chat` also a (model, processor) pair.

        Raises:
            ValueError: if weights are given for an adapter that does not load them itself.
        """
        return adapters.get(self.kind).build(
            model,
            self,
            {"device": device, **weights},
            videos=RawVideos(videos, frames=self.frames, size=self.frame_size),
            annotations=annotations,
            limits=limits,
            times=self.times,
            sound=self.sound,
        )
