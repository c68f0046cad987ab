"""Sound taggers: models that name the sounds of an event, such as "Dog" or "Applause"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...checkpoints.encoders import explain
from ...models.media import SAMPLING_RATE
from ...registry import taggers
from ..boundaries.fusion import Interval
from ..captions import parts
from ..clip_reader import ClipReader
from ..language_models import ModelOptions
from . import Span, Tracks

#: Probability from which a sound is mentioned, and the maximum number of sounds that are mentioned.
LEAST_PROBABLE, MOST_TAGS = 0.2, 5


class Tagger(Protocol):
    """Interface of a sound tagger. A registered class or function is called with [`ModelOptions`] and returns one.

    Example:
        >>> @taggers.register()
        ... class LoudTagger:
        ...     "Tags what is loud."
        ...     def __init__(self, options):
        ...         self.name = "loud"
        ...     def __call__(self, sound):
        ...         return {"Bang": float(abs(sound).max())}
        >>> LoudTagger(ModelOptions())(np.array([0.0, -0.5]))
        {'Bang': 0.5}
    """

    #: Name in the provenance.
    name: str

    def __call__(self, sound: np.ndarray) -> Mapping[str, float]:
        """Return the probability of each sound, 0 to 1.

        Args:
            sound: float32 [samples], 16 kHz, at most 30 s and not silent.
        """


@taggers.register("transformers")
class TransformersTagger:
    """An audio classifier of transformers, such as MIT/ast-finetuned-audioset-10-10-0.4593.

    Args:
        options: model, and device.

    Raises:
        FileNotFoundError: if the model does not exist.
        ValueError: if it cannot be loaded as an audio classifier.
    """

    def __init__(self, options: ModelOptions) -> None:
        from transformers import pipeline

        from ...models.layers import guard_convolutions

        self.name = options.need_model()
        self._pipeline: Any = explain(
            lambda path: pipeline("audio-classification", model=path, device=options.device), self.name
        )
        guard_convolutions(self._pipeline.model)

    def __call__(self, sound: np.ndarray) -> Mapping[str, float]:
        """Return the most probable sounds."""
        found = self._pipeline({"raw": sound, "sampling_rate": SAMPLING_RATE}, top_k=MOST_TAGS)
        return {item["label"]: item["score"] for item in found}


class SoundTracker:
    """Tracker of sounds: a tagger on consecutive windows of the sound.

    Args:
        tagger: names the sounds of a window.
    """

    def __init__(self, tagger: Tagger) -> None:
        self.name, self._tagger = tagger.name, tagger

    def __call__(self, reader: ClipReader, speech: Sequence[Interval], tracks: Tracks) -> list[Span]:
        """Return the sounds of a video, each with its probability."""
        found: list[Span] = []
        for a, b in parts(0.0, reader.duration):
            sound = reader.audio(a, b)
            tags = self._tagger(sound) if sound.any() else {}
            ranked = sorted(tags.items(), key=lambda item: (-item[1], item[0]))[:MOST_TAGS]
            found += [Span(a, b, name, round(float(p), 3)) for name, p in ranked if p >= LEAST_PROBABLE]
        return found
