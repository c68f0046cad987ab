"""Scores of segment captioning: the caption of a given segment of a video against the event's caption."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from longvale.metrics.protocol_options import ProtocolOptions, protocol_options
from longvale.metrics.text.captions import score_captions
from longvale.timecodes import Protocol


def compute_score(
    predictions: Mapping[Hashable, str],
    references: Mapping[Hashable, str],
    *,
    protocol: Protocol = "strict",
    options: ProtocolOptions | None = None,
) -> dict[str, float | int]:
    """Compute BLEU, METEOR, ROUGE-L and CIDEr of captions paired by key.

    Captions are paired by key, not by order: in the published scorer one missing line shifts all following lines.

    Args:
        predictions: captions by (video ID, sentence ID), or by any other key.
        references: captions by the same keys.
        protocol: sets the default of `options`.
        options: protocol options; `paired_by_order`, `one_batch` and `empty_alike` apply.

    Returns:
        `METEOR`, `ROUGE_L`, `BLEU_1` to `BLEU_4` as fractions, `CIDEr` (up to 10), `count` of pairs.

    Raises:
        ValueError: if a key is on one side only, or there are no captions, or the protocol is unknown.

    Example:
        >>> compute_score({("abc", 0): "A bell rings."}, {("abc", 0): "A bell rings."})["ROUGE_L"]
        1.0
    """
    return score_segments(predictions, references, protocol=protocol, options=options)[0]


def score_segments(
    predictions: Mapping[Hashable, str],
    references: Mapping[Hashable, str],
    *,
    protocol: Protocol = "strict",
    options: ProtocolOptions | None = None,
) -> tuple[dict[str, float | int], dict[Hashable, dict[str, float]]]:
    """Return the scores of [`compute_score`], and the scores per reference by key (CIDEr with all frequencies).

    Example:
        >>> overall, each = score_segments({"a": "a dog", "b": "a bell"}, {"a": "a dog", "b": "a cat"})
        >>> each["a"]["ROUGE_L"], each["b"]["ROUGE_L"], overall["count"]
        (1.0, 0.5, 2)
    """
    options = protocol_options(protocol) if options is None else options
    keys = list(references)
    if options.paired_by_order:
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} captions but {len(references)} references cannot be paired by order")
        found = list(predictions.values())
    else:
        _check_keys(predictions, references)
        found = [predictions[key] for key in keys]
    scores = score_captions(
        found, list(references.values()), one_batch=options.one_batch, empty_alike=options.empty_alike
    )
    each = {key: {name: values[place] for name, values in scores.pairs.items()} for place, key in enumerate(keys)}
    return {**scores.corpus, "count": len(keys)}, each


def _check_keys(predictions: Mapping[Hashable, str], references: Mapping[Hashable, str]) -> None:
    for name, keys in (("prediction", references.keys() - predictions), ("reference", predictions.keys() - references)):
        if keys:
            raise ValueError(f"{len(keys)} captions have no {name}, for instance that of {min(keys, key=repr)!r}")
