"""How the next token is chosen: the likeliest one, or drawn with a seed of its own for each question.

To draw from softmax(logits / T) is to take the largest of logits / T plus Gumbel noise (Gumbel, 1954; Maddison et al.,
"A* Sampling", 2014). The noise of a question comes from a generator that its name seeds, so that an answer does not
depend on what is answered beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: The published evaluation draws at this temperature (the authors' repository at commit 2eb88ce).
PUBLISHED_TEMPERATURE = 0.05


@dataclass(frozen=True)
class Decoding:
    """How answers are generated.

    Args:
        temperature: 0 takes the likeliest token; [`PUBLISHED_TEMPERATURE`] is that of the published evaluation.
        seed: of the draws.

    Raises:
        ValueError: if the temperature is negative or not finite.
    """

    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or more, not {self.temperature}")

    def settings(self) -> dict[str, Any]:
        """What a manifest says."""
        return {"temperature": self.temperature, "seed": self.seed} if self.temperature else {"greedy": True}


GREEDY = Decoding()


def seeded_noise(decoding: Decoding, names: Sequence[str]) -> dict[str, Any]:
    """Arguments of `generate` that turn its greedy choice into a draw; none when greedy.

    Args:
        decoding: how to draw.
        names: of the questions of the batch.
    """
    if not decoding.temperature:
        return {}
    return {"logits_processor": [SeededNoise(decoding, names)]}


class SeededNoise:
    """A logits processor that adds a question's own Gumbel noise to its row.

    Example:
        >>> import torch
        >>> logits, decoding = torch.zeros(2, 5), Decoding(temperature=1.0)
        >>> both = SeededNoise(decoding, ["a", "b"])(None, logits)
        >>> alone = SeededNoise(decoding, ["b"])(None, logits[1:])
        >>> bool((both[1] == alone[0]).all()), bool((both[0] == both[1]).all())
        (True, False)
    """

    def __init__(self, decoding: Decoding, names: Sequence[str]) -> None:
        import torch

        self._temperature = decoding.temperature
        self._generators = [torch.Generator().manual_seed(_seed(f"{decoding.seed}:{name}")) for name in names]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [questions, vocabulary] whose largest is a draw."""
        import torch

        rows = [torch.empty(scores.shape[1]).exponential_(generator=own).log_() for own in self._generators]
        return scores.float() / self._temperature - torch.stack(rows).to(scores.device)


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode(errors="replace")).digest()[:8]) >> 1
