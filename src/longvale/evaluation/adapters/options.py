"""Which adapter, and what it is told: the options of a command in one value."""

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

#: `chat` is a model of transformers, `server` one behind a server of the OpenAI kind.
Kind: TypeAlias = Literal["chat", "server"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class AdapterOptions:
    """How a model of others is asked.

    Args:
        kind: one of [`KINDS`].
        base_url: of the server, such as "http://127.0.0.1:8000/v1".
        times: in which unit times are asked for.
        frames: how many the model is given.
        frame_size: length of their shorter side in pixels.
        sound: give the sound to models that hear.
        timeout_s: deadline of a whole answer of a server in seconds.

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
        """The adapter for a model: its folder, Hub id or name; with `chat` also a (model, processor) pair.

        Raises:
            ValueError: if a server is given a `dtype` or `load_in_4bit`: it has loaded its model.
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
