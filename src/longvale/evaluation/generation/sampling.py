"""Decoding: greedy, or sampling with one seed per question.

Sampling from softmax(logits / T) is equivalent to taking the argmax of logits / T plus Gumbel noise (Gumbel, 1954;
Maddison et al., "A* Sampling", 2014). The generator of a question's noise is seeded with the question's name, so that
an answer does not depend on the other questions of its batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: Sampling temperature of the published evaluation (the authors' repository at commit 2eb88ce).
PUBLISHED_TEMPERATURE = 0.05


@dataclass(frozen=True)
class Decoding:
    """Decoding settings.

    Args:
        temperature: 0 selects the most likely token; [`PUBLISHED_TEMPERATURE`] is that of the published evaluation.
        seed: random seed of the sampling.

    Raises:
        ValueError: if the temperature is negative or not finite.
    """

    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or more, not {self.temperature}")

    def settings(self) -> dict[str, Any]:
        """Return the decoding settings for the manifest."""
        return {"temperature": self.temperature, "seed": self.seed} if self.temperature else {"greedy": True}


GREEDY = Decoding()


def seeded_noise(decoding: Decoding, names: Sequence[str]) -> dict[str, Any]:
    """Return arguments that make a greedy `generate` call sample; empty for greedy decoding.

    Args:
        decoding: the decoding settings.
        names: names of the questions of the batch.
    """
    if not decoding.temperature:
        return {}
    return {"logits_processor": [SeededNoise(decoding, names)]}


class SeededNoise:
    """A logits processor that adds each question's own Gumbel noise to its row.

    Example:
        >>> import torch
        >>> logits, decoding = torch.zeros(2, 5), Decoding(temperature=1.0)
        >>> both = SeededNoise(decoding, ["a", "b"])(None, logits)
        >>> alone = SeededNoise(decoding, ["b"])(None, logits[1:])
        >>> bool((both[1] == alone[0]).all()), bool((both[0] == both[1]).all())
        (True, False)
    """

    def __init__(self, decoding: Decoding, names: Sequence[str]) -> None:
        self._temperature = decoding.temperature
        self._seeds = [_seed(f"{decoding.seed}:{name}") for name in names]
        self.restart()

    def restart(self) -> None:
        """Begin again with the noise of the first token."""
        import torch

        self._generators = [torch.Generator().manual_seed(seed) for seed in self._seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores [questions, vocabulary] whose argmax is a sample."""
        import torch

        rows = [torch.empty(scores.shape[1]).exponential_(generator=own).log_() for own in self._generators]
        return scores.float() / self._temperature - torch.stack(rows).to(scores.device)


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode(errors="replace")).digest()[:8]) >> 1
