"""Scores of segment captioning: the caption of a given stretch of a video against that of its event."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from longvale.metrics.text.captions import score_captions


def compute_score(predictions: Mapping[Hashable, str], references: Mapping[Hashable, str]) -> dict[str, float | int]:
    """CIDEr, BLEU-4 and ROUGE-L of captions paired by what they are about.

    Pairs by key, not by order: in the published scorer one missing line shifts all that follow.

    Args:
        predictions: captions by (video id, sentence id), or by any other key.
        references: captions by the same keys.

    Returns:
        `BLEU_4`, `ROUGE_L` as fractions, `CIDEr` (up to 10), `count` of pairs.

    Raises:
        ValueError: if a key stands on one side only, or there is none.

    Example:
        >>> compute_score({("abc", 0): "A bell rings."}, {("abc", 0): "A bell rings."})["ROUGE_L"]
        1.0
    """
    for name, keys in (("prediction", references.keys() - predictions), ("reference", predictions.keys() - references)):
        if keys:
            raise ValueError(f"{len(keys)} captions have no {name}, for instance that of {min(keys, key=repr)!r}")
    pairs = [(predictions[key], caption) for key, caption in references.items()]
    scores = score_captions([found for found, _ in pairs], [wanted for _, wanted in pairs])
    return {name: scores[name] for name in ("BLEU_4", "ROUGE_L", "CIDEr")} | {"count": len(pairs)}
