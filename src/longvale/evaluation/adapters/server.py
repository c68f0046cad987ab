"""Adapter for a model on an OpenAI-compatible server: frames with their times, or a link to the video."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ...models.media import probe
from ...registry import adapters
from ...system.checksums import file_identity
from ..inference import ChatClient
from .base import Adapter
from .messages import VIDEO_AS, Part, VideoAs, audio_parts, frame_parts, text_part, video_part

if TYPE_CHECKING:
    from ...events import Seconds
    from .options import AdapterOptions


@dataclass(frozen=True)
class SentVideo:
    """A video in the form in which it is sent.

    Args:
        parts: of the message.
        duration: of the video in seconds; None if the header of a linked file does not state it.
    """

    parts: tuple[Part, ...]
    duration: Seconds | None


@adapters.register("server")
class ServerAdapter(Adapter):
    """A model on an OpenAI-compatible server.

    Args:
        model: name of the model on the server.
        base_url: URL such as "http://127.0.0.1:8000/v1"; None uses Hugging Face's inference providers.
        video_as: `timed-frames` sends a text with its presentation time before each frame; `frames` sends frames alone,
            whose times the model cannot know; `video-url` sends a link, and the server samples the frames itself.
        video_url: address at which a server serves the folder of videos; None sends `file://` links.
        processor_options: `mm_processor_kwargs` of each request, such as {"use_audio_in_video": True}, for vLLM and
            SGLang.
        timeout_s: timeout per complete answer in seconds.
        token: token of the server; default: the environment variable LONGVALE_SERVER_TOKEN, if set.
        options: arguments of [`Adapter`]. Servers of models without audio input reject audio. With `video-url` no
            audio is sent: the server reads it from the file, if `processor_options` ask for it.

    Raises:
        ValueError: if `video_as` is unknown, or `video_url` is given without `video-url`.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None,
        *,
        video_as: VideoAs = "timed-frames",
        video_url: str | None = None,
        processor_options: Mapping[str, Any] | None = None,
        timeout_s: float = 600.0,
        token: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        if video_as not in VIDEO_AS:
            raise ValueError(f"unknown form of videos {video_as!r}; --video-as must be one of {', '.join(VIDEO_AS)}")
        if video_url is not None and video_as != "video-url":
            raise ValueError(f"--video-url {video_url} is for --video-as video-url, not {video_as}")
        token = token or os.environ.get("LONGVALE_SERVER_TOKEN")
        self.video_as, self._video_url, self._processor_options = video_as, video_url, dict(processor_options or {})
        extra = {"mm_processor_kwargs": self._processor_options} if self._processor_options else {}
        self._client = ChatClient(model, base_url, token=token, timeout_s=timeout_s, extra_body=extra)
        # Questions about a video are consecutive: its frames are encoded once.
        self._send = lru_cache(maxsize=1)(self._encode)

    @classmethod
    def build(cls, model: Any, options: AdapterOptions, weights: Mapping[str, Any], **shared: Any) -> Adapter:
        """Build the adapter, see [`Adapter.build`]."""
        server = {
            "base_url": options.base_url,
            "timeout_s": options.timeout_s,
            "concurrency": options.concurrency,
            "video_as": options.video_as or "timed-frames",
            "video_url": options.video_url,
            "processor_options": options.processor_options,
        }
        return super().build(str(model), options, weights, **server, **shared)

    def describe(self) -> dict[str, Any]:
        """Return the model, the server, what the server says about the model, and in which form videos are sent.

        Raises:
            ServerError: if the server cannot be reached.
        """
        return {
            "model": self._client.model,
            "server": self._client.base_url,
            "served_model": self._client.served_model(),
            "video_as": self.video_as,
            "mm_processor_kwargs": self._processor_options or None,
            "sound": self.sound,
        }

    def watch(self, video_id: str) -> SentVideo:
        """Return the parts of a message that contain a video."""
        return self._send(video_id)

    def _encode(self, video_id: str) -> SentVideo:
        if self.video_as == "video-url":
            path = self.videos.path(video_id)
            part = video_part(path, self.videos.root, self._video_url, file_identity(path))
            return SentVideo((part,), probe(path).duration)
        media = self.videos.read(video_id)
        parts = frame_parts(media, timed=self.video_as == "timed-frames")
        return SentVideo((*parts, *(audio_parts(media) if self.sound else ())), media.duration)

    def reply(self, media: SentVideo, text: str, max_new_tokens: int) -> str:
        """Ask the server, with greedy decoding.

        Raises:
            NoAnswer: if the model wrote no answer.
            ServerError: if the server cannot be reached or returns an error.
        """
        return self._client.ask([*media.parts, text_part(text)], max_new_tokens)
