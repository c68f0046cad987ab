"""Joint computation of METEOR, CIDEr, ROUGE-L and BLEU of captions; each text pair is processed once."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from . import bleu, cider, meteor, ptb, rouge
from .ngrams import ORDERS, NgramTable
from .references import References, as_lists

#: Names of the scores, in table order.
NAMES = ("METEOR", "CIDEr", "ROUGE_L", *(f"BLEU_{order + 1}" for order in range(ORDERS)))

#: A tokenized text and its tokenized references, one or more.
Pair: TypeAlias = tuple[str, tuple[str, ...]]

_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


@dataclass(frozen=True)
class CaptionScores:
    """Scores of pairs of texts.

    Args:
        corpus: corpus scores by name in [`NAMES`]: aggregate METEOR, corpus BLEU, and means of the other scores.
        pairs: scores per pair; CIDEr uses the document frequencies of all pairs.
    """

    corpus: dict[str, float]
    pairs: dict[str, list[float]]


def score_captions(
    predictions: Sequence[str],
    references: Sequence[References],
    *,
    one_batch: bool = False,
    empty_alike: bool = False,
) -> CaptionScores:
    """Score captions against their references, tokenized as coco-caption does.

    CIDEr uses document frequencies of all references. Its maximum is 10; the maximum of the other scores is 1. An empty
    prediction scores 0 and is included in the mean.

    Args:
        predictions: one text per pair, may be empty.
        references: one or several texts per pair, in the same order.
        one_batch, empty_alike: see [`longvale.metrics.protocol_options.ProtocolOptions`].

    Raises:
        ValueError: if there are no pairs, the lengths differ, or a prediction has no reference.

    Example:
        >>> scores = score_captions(["A dog barks at a cat."] * 2, ["a dog barks at a cat", "a bell rings"])
        >>> round(scores.corpus["ROUGE_L"], 3), scores.pairs["ROUGE_L"][0]
        (0.618, 1.0)
    """
    lists = as_lists(predictions, references)
    if not lists:
        raise ValueError("no caption to score: predictions and references are empty")
    found = tokenize(predictions, one_batch=one_batch)
    wanted = iter(tokenize([text for given in lists for text in given], one_batch=one_batch))
    pairs = [(text, tuple(next(wanted) for _ in given)) for text, given in zip(found, lists, strict=True)]
    scorer = CaptionScorer(pairs, empty_alike=empty_alike)
    return CaptionScores(scorer.corpus(pairs), scorer.each(pairs))


def tokenize(texts: Sequence[str], *, one_batch: bool = False, ascii_only: bool = False) -> list[str]:
    """Tokenize texts: lower-case words without punctuation, joined by spaces; a repeated text is processed once.

    Args:
        texts: raw texts.
        one_batch, ascii_only: see [`longvale.metrics.protocol_options.ProtocolOptions`].

    Example:
        >>> tokenize(["A dog barks, it's LOUD!", "Où?"], ascii_only=True)
        ["a dog barks it 's loud", 'o']
    """
    if ascii_only:
        texts = [_NOT_ASCII.sub(" ", text) for text in texts]
    if one_batch:
        return ptb.tokenize(texts, official_batch=True)
    distinct = list(dict.fromkeys(texts))
    words = dict(zip(distinct, ptb.tokenize(distinct), strict=True))
    return [words[text] for text in texts]


class CaptionScorer:
    """Scorer for arbitrary selections of text pairs; statistics of each pair are computed once.

    Args:
        pairs: all pairs that can be selected later.
        further_texts: tokenized texts for [`CaptionScorer.frequencies`] that are in no pair.
        empty_alike: see [`longvale.metrics.protocol_options.ProtocolOptions`].
    """

    def __init__(
        self,
        pairs: Iterable[Pair],
        *,
        further_texts: Iterable[str] = (),
        empty_alike: bool = False,
    ) -> None:
        self._number = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
        of_pairs = (text for found, wanted in self._number for text in (found, *wanted))
        self._table = NgramTable(itertools.chain(of_pairs, further_texts))
        self._found = self._table.rows([found for found, _ in self._number])
        self._wanted = [self._table.rows(wanted) for _, wanted in self._number]
        self._bleu = bleu.count_rows(self._table, self._found, self._wanted)  # [pairs, 9]
        self._rouge = np.array([rouge.score(*pair) if empty_alike or pair[0] else 0.0 for pair in self._number])
        self._meteor = np.array(  # [pairs, 23]
            meteor.batch_statistics([found for found, _ in self._number], [wanted for _, wanted in self._number])
        )

    def frequencies(self, references: Sequence[Sequence[str]]) -> cider.Frequencies:
        """Compute CIDEr's document frequencies of references known to the scorer, one or more per document."""
        return cider.frequencies(self._table, [self._table.rows(given) for given in references])

    def corpus(self, pairs: Sequence[Pair], known: cider.Frequencies | None = None) -> dict[str, float]:
        """Compute the corpus scores of the pairs; all are 0 if there are no pairs.

        Args:
            pairs: a selection of the scorer's pairs, with repetitions.
            known: CIDEr's document frequencies; by default those of the pairs' references.
        """
        if not pairs:
            return dict.fromkeys(NAMES, 0.0)
        numbers = [self._number[pair] for pair in pairs]
        scores = {
            "METEOR": meteor.aggregate(self._meteor[numbers]),
            "CIDEr": self._cider(numbers, known).mean(),
            "ROUGE_L": self._rouge[numbers].mean(),
            **_by_order(bleu.of_counts(self._bleu[numbers].sum(axis=0))),
        }
        return {name: float(score) for name, score in scores.items()}

    def each(self, pairs: Sequence[Pair], known: cider.Frequencies | None = None) -> dict[str, list[float]]:
        """Compute the scores of each pair; arguments as in [`CaptionScorer.corpus`]."""
        numbers = [self._number[pair] for pair in pairs]
        return {
            "METEOR": [meteor.score_of(counts) for counts in self._meteor[numbers].tolist()],
            "CIDEr": self._cider(numbers, known).tolist(),
            "ROUGE_L": self._rouge[numbers].tolist(),
            **{name: values.tolist() for name, values in _by_order(bleu.of_counts(self._bleu[numbers])).items()},
        }

    def _cider(self, numbers: list[int], known: cider.Frequencies | None) -> np.ndarray:
        wanted = [self._wanted[number] for number in numbers]
        known = cider.frequencies(self._table, wanted) if known is None else known
        return cider.score_rows(self._table, self._found[numbers], wanted, known)


def _by_order(scores: np.ndarray) -> dict[str, np.ndarray]:
    return {f"BLEU_{order + 1}": scores[..., order] for order in range(ORDERS)}
