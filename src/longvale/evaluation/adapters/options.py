"""Adapter options: the kind of adapter and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from ...events import Annotation
from ...tasks import AnyTask
from .base import Adapter
from .media import RawVideos
from .prompts import Unit

#: `chat` is a transformers model, `server` a model on an OpenAI-compatible server.
Kind: TypeAlias = Literal["chat", "server"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class AdapterOptions:
    """Options of an adapter for a third-party model.

    Args:
        kind: one of [`KINDS`].
        base_url: URL of the server, such as "http://127.0.0.1:8000/v1".
        times: unit of the times in questions and answers.
        frames: number of frames that the model receives.
        frame_size: length of a frame's shorter side in pixels.
        sound: pass the audio to models with audio input.
        timeout_s: timeout per complete server reply in seconds.

    Raises:
        ValueError: if the kind is unknown.
    """

    kind: Kind
    base_url: str | None = None
    times: Unit = "seconds"
    frames: int = 64
    frame_size: int = 224
    sound: bool = True
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown adapter {self.kind!r}; expected longvale or one of {', '.join(KINDS)}")

    def build(
        self,
        model: Any,
        videos: Path,
        annotations: Mapping[str, Annotation],
        limits: Mapping[AnyTask, int],
        device: str | None = None,
        dtype: str | None = None,
        load_in_4bit: bool = False,
    ) -> Adapter:
        """Build the adapter for a model: a folder, Hub ID or name; for `chat` also a (model, processor) pair.

        Raises:
            ValueError: if `dtype` or `load_in_4bit` is given for a server, which has already loaded its model.
        """
        from .chat import ChatAdapter
        from .server import ServerAdapter

        options = {
            "videos": RawVideos(videos, frames=self.frames, size=self.frame_size),
            "annotations": annotations,
            "limits": limits,
            "unit": self.times,
            "sound": self.sound,
        }
        if self.kind == "server":
            if dtype is not None or load_in_4bit:
                raise ValueError("a server decides on the weights of its model; leave out --dtype and --load-in-4bit")
            return ServerAdapter(str(model), self.base_url, timeout_s=self.timeout_s, **options)
        return ChatAdapter(model, device=device, dtype=dtype, load_in_4bit=load_in_4bit, **options)
