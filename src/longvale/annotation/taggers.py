"""Sound taggers: models that name the sounds of an event, such as "Dog" or "Applause"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from ..checkpoints.encoders import explain
from ..events import Seconds
from ..models.media import SAMPLING_RATE
from ..registry import taggers
from .captions import parts
from .clip_reader import ClipReader
from .language_models import ModelOptions

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

        from ..models.layers import guard_convolutions

        self.name = options.need_model()
        self._pipeline: Any = explain(
            lambda path: pipeline("audio-classification", model=path, device=options.device), self.name
        )
        guard_convolutions(self._pipeline.model)

    def __call__(self, sound: np.ndarray) -> Mapping[str, float]:
        """Return the most probable sounds."""
        found = self._pipeline({"raw": sound, "sampling_rate": SAMPLING_RATE}, top_k=MOST_TAGS)
        return {item["label"]: item["score"] for item in found}


def tag(tagger: Tagger, reader: ClipReader, start: Seconds, end: Seconds) -> dict[str, float]:
    """Tag an event, in parts if it is long.

    Returns:
        The sounds with a probability of at least [`LEAST_PROBABLE`] in some part, at most [`MOST_TAGS`], the most
        probable first.
    """
    found: dict[str, float] = {}
    for a, b in parts(start, end):
        sound = reader.audio(a, b)
        for label, probability in (tagger(sound) if sound.any() else {}).items():
            found[label] = max(round(float(probability), 3), found.get(label, 0.0))
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:MOST_TAGS]
    return {label: probability for label, probability in ranked if probability >= LEAST_PROBABLE}


def add_tags(caption: str, tags: Mapping[str, float]) -> str:
    """Add tags to a caption of what is heard.

    Example:
        >>> add_tags("A loud noise is heard.", {"Dog": 0.9, "Bark": 0.4}), add_tags("A hum.", {})
        ('A loud noise is heard. Sounds: Dog, Bark.', 'A hum.')
    """
    return f"{caption} Sounds: {', '.join(tags)}.".strip() if tags else caption
