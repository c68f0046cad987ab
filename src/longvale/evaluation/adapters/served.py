"""Adapter for a LongVALE checkpoint behind `longvale serve`: it answers as the same checkpoint does in this process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...models.media import probe
from ...registry import adapters
from ...tasks import VIDEO_TOKEN, Question
from ..inference import ChatClient
from .base import Adapter
from .prompts import Reading

if TYPE_CHECKING:
    from ...events import Seconds
    from .options import AdapterOptions


@dataclass(frozen=True)
class UploadedVideo:
    """A video that was uploaded.

    Args:
        file_id: its id on the server.
        duration: in seconds, from its header.
    """

    file_id: str
    duration: Seconds | None


@adapters.register("served")
class ServedAdapter(Adapter):
    """A LongVALE checkpoint on a server of `longvale serve`.

    Each video is uploaded once. Questions have the published wording, and answers are kept as they are.

    Args:
        model: name of the model on the server.
        base_url: URL such as "http://127.0.0.1:8000/v1".
        timeout_s: timeout per complete answer in seconds.
        token: token of the server; default: the environment variable LONGVALE_SERVER_TOKEN, if set.
        options: arguments of [`Adapter`].

    Raises:
        ValueError: if no server is given.
    """

    def __init__(
        self, model: str, base_url: str | None, *, timeout_s: float = 600.0, token: str | None = None, **options: Any
    ) -> None:
        super().__init__(model, **options)
        if base_url is None:
            raise ValueError("give the --server on which `longvale serve` listens, such as http://127.0.0.1:8000/v1")
        token = token or os.environ.get("LONGVALE_SERVER_TOKEN")
        self._client = ChatClient(model, base_url, token=token, timeout_s=timeout_s)

    @classmethod
    def build(cls, model: Any, options: AdapterOptions, weights: Mapping[str, Any], **shared: Any) -> Adapter:
        """Build the adapter, see [`Adapter.build`]."""
        server = {"base_url": options.base_url, "timeout_s": options.timeout_s, "concurrency": options.concurrency}
        return super().build(str(model), options, weights, **server, **shared)

    def describe(self) -> dict[str, Any]:
        """Return the model, the server, and what the server says about the model.

        Raises:
            ServerError: if the server cannot be reached.
        """
        return {
            "model": self._client.model,
            "server": self._client.base_url,
            "served_model": self._client.served_model(),
        }

    def settings(self) -> dict[str, Any]:
        """Return the settings of the model and its videos; frames and times are the server's."""
        return {**self.describe(), "videos": str(self.videos.root.resolve())}

    def watch(self, video_id: str) -> UploadedVideo:
        """Upload a video."""
        path = self.videos.path(video_id)
        return UploadedVideo(self._client.upload(path), probe(path).duration)

    def word(self, question: Question) -> str:
        """Return the published question."""
        return question.question.removeprefix(f"{VIDEO_TOKEN}\n")

    def read(self, question: Question, reply: str, duration: Seconds) -> Reading:
        """Return the reply as it is."""
        return Reading(reply, None, duration)

    def reply(self, media: UploadedVideo, text: str, max_new_tokens: int) -> str:
        """Ask the server, with greedy decoding.

        Raises:
            NoAnswer: if the model wrote no answer.
            ServerError: if the server cannot be reached or returns an error.
        """
        video = {"type": "file", "file": {"file_id": media.file_id}}
        return self._client.ask([video, {"type": "text", "text": text}], max_new_tokens)
