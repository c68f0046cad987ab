"""CIDEr-D: how many rare words a caption shares with its references.

Vedantam, Zitnick and Parikh, "CIDEr: Consensus-based image description evaluation", CVPR 2015, section 4. The numbers
are those of coco-caption, which calls it CIDEr: cosine of tf-idf vectors with clipped counts, sigma 6, no stemming.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .ngrams import ORDERS, Entries, NgramTable
from .references import References, as_lists

#: Width, in words, of the penalty on a difference in length.
SIGMA = 6.0

#: Pairs that are scored together: bounds the memory.
_BLOCK = 2000


@dataclass(frozen=True)
class Frequencies:
    """In how many of `documents` n-grams occur; a document is the references of one hypothesis.

    Args:
        ids: of the n-grams, ascending.
        counts: documents with each.
        documents: how many there are.
    """

    ids: np.ndarray
    counts: np.ndarray
    documents: int

    def weights(self, ids: np.ndarray) -> np.ndarray:
        """Inverse document frequency of n-grams, natural logarithm; an n-gram of no document counts as one of one."""
        if not len(self.ids):
            return np.full(len(ids), np.log(self.documents))
        places = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        found = np.where(self.ids[places] == ids, self.counts[places], 1)
        return np.log(self.documents) - np.log(found)


def scores(hypotheses: Sequence[str], references: Sequence[References]) -> list[float]:
    """CIDEr of each hypothesis, document frequencies from all the references; the corpus score is the mean.

    Args:
        hypotheses: tokenized texts, words joined by spaces.
        references: one tokenized text, or several, a hypothesis.

    Returns:
        0 to 10 each. A single hypothesis scores 0: all its n-grams are in all documents.

    Raises:
        ValueError: if the numbers differ, or a hypothesis has no reference.

    Example:
        >>> cider = scores(["a dog barks", "a bell"], ["a dog barks loudly", ["a cat", "a bell"]])
        >>> [round(score, 3) for score in cider]
        [5.77, 2.5]
    """
    lists = as_lists(hypotheses, references)
    if not lists:
        return []
    table = NgramTable([*hypotheses, *(text for given in lists for text in given)])
    rows = [table.rows(given) for given in lists]
    return score_rows(table, table.rows(hypotheses), rows, frequencies(table, rows)).tolist()


def frequencies(table: NgramTable, references: Sequence[np.ndarray]) -> Frequencies:
    """Document frequencies of references, given as rows of the table, [k] a hypothesis."""
    entries = table.entries(np.concatenate([*references, np.array([], dtype=np.int64)]))
    document = np.repeat(np.arange(len(references)), [len(rows) for rows in references])
    ids = entries.ids
    if len(document) > len(references):  # an n-gram that two references of a document share counts once
        ids = np.unique(document[entries.owner] * table.size + ids) % table.size
    return Frequencies(*np.unique(ids, return_counts=True), documents=len(references))


def score_rows(
    table: NgramTable, hypotheses: np.ndarray, references: Sequence[np.ndarray], known: Frequencies
) -> np.ndarray:
    """CIDEr of texts that stand in a table.

    Args:
        table: of all the texts.
        hypotheses: rows, [n].
        references: rows, n times [k], k of 1 or more.
        known: document frequencies.

    Returns:
        [n], 0 to 10 each.
    """
    ks = np.array([len(rows) for rows in references], dtype=np.int64)
    pair = np.repeat(np.arange(len(hypotheses)), ks)  # which hypothesis a reference belongs to
    flat = np.concatenate([*references, np.array([], dtype=np.int64)])
    alike = [
        _similarities(table, hypotheses[pair[a : a + _BLOCK]], flat[a : a + _BLOCK], known)
        for a in range(0, len(pair), _BLOCK)
    ]
    return 10 * np.bincount(pair, np.concatenate([*alike, np.array([])]), minlength=len(hypotheses)) / ks


def _similarities(table: NgramTable, hypotheses: np.ndarray, references: np.ndarray, known: Frequencies) -> np.ndarray:
    """Similarity 0 to 1 of rows [n] to rows [n]: the mean over the orders, with the penalty for the lengths."""
    n = len(hypotheses)
    one, other = table.entries(hypotheses), table.entries(references)
    weights, weights_other = known.weights(one.ids) ** 2, known.weights(other.ids) ** 2
    in_other = shared_counts(table, one, other)
    cell = one.owner * ORDERS + one.orders
    dot = np.bincount(cell, np.minimum(one.counts, in_other) * in_other * weights, minlength=n * ORDERS)
    squares = np.bincount(cell, one.counts**2 * weights, minlength=n * ORDERS) * np.bincount(
        other.owner * ORDERS + other.orders, other.counts**2 * weights_other, minlength=n * ORDERS
    )
    # Without a weight on one side the product is 0 too.
    cosines = np.divide(dot, np.sqrt(squares), out=np.zeros(len(dot)), where=squares > 0).reshape(n, ORDERS)
    # Lengths are counted in pairs of words: those of texts without one are alike.
    delta = np.maximum(table.lengths[hypotheses] - 1, 0) - np.maximum(table.lengths[references] - 1, 0)
    return cosines.mean(axis=1) * np.exp(-(delta**2) / (2 * SIGMA**2))


def shared_counts(table: NgramTable, one: Entries, other: Entries) -> np.ndarray:
    """How often the n-gram of each entry of `one` occurs in the text of `other` of the same owner, [entries of one]."""
    if not len(other.ids):
        return np.zeros(len(one.ids), dtype=np.int64)
    keys, wanted = other.owner * table.size + other.ids, one.owner * table.size + one.ids
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, other.counts[places], 0)
