"""CIDEr, BLEU-4 and ROUGE-L of captions, by the pure-Python scorers of pycocoevalcap.

The words are found by [`tokenize`], not by the Stanford tokenizer of the published evaluation: scores are comparable
with each other, not with published ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"\d+(?:[.,]\d+)+|\w+(?:['’-]\w+)*")


def tokenize(text: str) -> list[str]:
    """Lower-cased words and numbers, without punctuation; apostrophes and hyphens inside a word and points inside a
    number stay.

    Example:
        >>> tokenize("A dog barks -- it's LOUD, 2.5 m away.")
        ['a', 'dog', 'barks', "it's", 'loud', '2.5', 'm', 'away']
    """
    return _WORD.findall(text.lower())


def score_captions(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Score captions against one reference each, over the whole corpus.

    CIDEr takes its document frequencies from all references given and reaches 10; BLEU-4 is the corpus BLEU with its
    brevity penalty; CIDEr and ROUGE-L are means over the pairs. An empty prediction scores 0 and stays in the mean.

    Args:
        predictions: one text a pair, may be empty.
        references: one text a pair, in the same order.

    Returns:
        `CIDEr`, `BLEU_4`, `ROUGE_L`.

    Raises:
        ValueError: if there is no pair or the lengths differ.

    Example:
        >>> scores = score_captions(["a dog barks at a cat"] * 2, ["a dog barks at a cat", "a bell rings"])
        >>> round(scores["ROUGE_L"], 3)
        0.618
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} captions but {len(references)} references; give one of both a pair")
    if not references:
        raise ValueError("no caption to score: predictions and references are empty")
    # pycocoevalcap takes {id: [text]}, the words joined by one space.
    found = {index: [" ".join(tokenize(text))] for index, text in enumerate(predictions)}
    wanted = {index: [" ".join(tokenize(text))] for index, text in enumerate(references)}
    return {"CIDEr": _cider(found, wanted), "BLEU_4": _bleu_4(found, wanted), "ROUGE_L": _rouge_l(found, wanted)}


def _cider(found: dict[int, list[str]], wanted: dict[int, list[str]]) -> float:
    from pycocoevalcap.cider.cider import Cider

    if not any(text for (text,) in wanted.values()):
        return 0.0  # without a single word there are no document frequencies
    return float(Cider().compute_score(wanted, found)[0])


def _bleu_4(found: dict[int, list[str]], wanted: dict[int, list[str]]) -> float:
    from pycocoevalcap.bleu.bleu import Bleu

    if not any(text for (text,) in found.values()):
        return 0.0  # the scorer's smoothing would divide 0 by 0 into a tiny number
    return float(Bleu(4).compute_score(wanted, found, verbose=0)[0][3])


def _rouge_l(found: dict[int, list[str]], wanted: dict[int, list[str]]) -> float:
    from pycocoevalcap.rouge.rouge import Rouge

    rouge = Rouge()
    # The scorer splits "" into one empty word, which would match that of an empty reference.
    return sum(float(rouge.calc_score(found[i], wanted[i])) for i in wanted if found[i] != [""]) / len(wanted)
