"""Any model behind a server of the OpenAI kind: frames as JPEG pictures, the sound as a WAV file, in one message."""

from __future__ import annotations

import base64
import io
import os
import wave
from typing import TYPE_CHECKING, Any

import numpy as np

from ..inference import ChatClient
from .base import Adapter

if TYPE_CHECKING:
    from ...models.media import Media


class ServerAdapter(Adapter):
    """A model of a server.

    Args:
        model: its name, as the server knows it.
        base_url: such as "http://127.0.0.1:8000/v1"; None asks Hugging Face's inference providers.
        sound: send the sound; servers of models that only see refuse it.
        timeout_s: deadline of a whole answer in seconds.
        token: of the server; by default that of the environment variable LONGVALE_SERVER_TOKEN, if it is set.
        options: those of [`Adapter`].
    """

    def __init__(
        self,
        model: str,
        base_url: str | None,
        *,
        sound: bool = True,
        timeout_s: float = 600.0,
        token: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.sound = sound
        token = token or os.environ.get("LONGVALE_SERVER_TOKEN")
        self._client = ChatClient(model, base_url, token=token, timeout_s=timeout_s)

    def describe(self) -> dict[str, Any]:
        """The name, and whether the sound is sent."""
        return {"model": self._client.model, "server": self._client.base_url, "sound": self.sound}

    def reply(self, media: Media, text: str, max_new_tokens: int) -> str:
        """Ask the server, greedily.

        Raises:
            NoAnswer: if the model wrote no answer.
            ServerError: if the server cannot be reached or refuses.
        """
        content = [{"type": "image_url", "image_url": {"url": jpeg_uri(frame)}} for frame in _frames(media)]
        if self.sound and media.waveform is not None:
            content.append({"type": "input_audio", "input_audio": {"data": wav(media), "format": "wav"}})
        return self._client.ask([*content, {"type": "text", "text": text}], max_new_tokens)


def jpeg_uri(frame: np.ndarray) -> str:
    """A frame [H, W, 3] as a `data:` URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def wav(media: Media) -> str:
    """The sound as a WAV file of 16 bits, in base64."""
    buffer = io.BytesIO()
    samples = (np.clip(media.waveform, -1, 1) * 32767).astype("<i2")
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(media.sampling_rate)
        file.writeframes(samples.tobytes())
    return base64.b64encode(buffer.getvalue()).decode()


def _frames(media: Media) -> np.ndarray:
    return media.frames if media.frames is not None else np.empty((0, 1, 1, 3), np.uint8)
