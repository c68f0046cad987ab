"""Adapter for a model on an OpenAI-compatible server: frames as JPEG images and audio as WAV, in one message."""

from __future__ import annotations

import base64
import io
import os
import wave
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...images import jpeg_uri
from ...registry import adapters
from ..inference import ChatClient
from .base import Adapter

if TYPE_CHECKING:
    from ...models.media import Media
    from .options import AdapterOptions


@adapters.register("server")
class ServerAdapter(Adapter):
    """A model on an OpenAI-compatible server.

    Args:
        model: name of the model on the server.
        base_url: URL such as "http://127.0.0.1:8000/v1"; None uses Hugging Face's inference providers.
        timeout_s: timeout per complete answer in seconds.
        token: token of the server; default: the environment variable LONGVALE_SERVER_TOKEN, if set.
        options: arguments of [`Adapter`]. Servers of models without audio input reject audio.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None,
        *,
        timeout_s: float = 600.0,
        token: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        token = token or os.environ.get("LONGVALE_SERVER_TOKEN")
        self._client = ChatClient(model, base_url, token=token, timeout_s=timeout_s)

    @classmethod
    def build(cls, model: Any, options: AdapterOptions, weights: Mapping[str, Any], **shared: Any) -> Adapter:
        """Build the adapter, see [`Adapter.build`]."""
        server = {"base_url": options.base_url, "timeout_s": options.timeout_s}
        return super().build(str(model), options, weights, **server, **shared)

    def describe(self) -> dict[str, Any]:
        """Return the name of the model, the server, and whether audio is sent."""
        return {"model": self._client.model, "server": self._client.base_url, "sound": self.sound}

    def reply(self, media: Media, text: str, max_new_tokens: int) -> str:
        """Ask the server, with greedy decoding.

        Raises:
            NoAnswer: if the model wrote no answer.
            ServerError: if the server cannot be reached or returns an error.
        """
        content = [{"type": "image_url", "image_url": {"url": jpeg_uri(frame, quality=90)}} for frame in _frames(media)]
        if self.sound and media.waveform is not None:
            content.append(
                {
                    "type": "input_audio",
                    "input_audio": {"data": wav(media.waveform, media.sampling_rate), "format": "wav"},
                }
            )
        return self._client.ask([*content, {"type": "text", "text": text}], max_new_tokens)


def wav(waveform: np.ndarray, sampling_rate: int) -> str:
    """Encode audio, float [samples], as a 16-bit WAV file in base64."""
    return base64.b64encode(wav_file(waveform, sampling_rate)).decode()


def wav_file(waveform: np.ndarray, sampling_rate: int) -> bytes:
    """Encode audio, float [samples], as a 16-bit WAV file."""
    buffer = io.BytesIO()
    samples = (np.clip(waveform, -1, 1) * 32767).astype("<i2")
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sampling_rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def _frames(media: Media) -> np.ndarray:
    return media.frames if media.frames is not None else np.empty((0, 1, 1, 3), np.uint8)
