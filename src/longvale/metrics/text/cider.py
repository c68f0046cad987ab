"""CIDEr-D: tf-idf similarity of the n-grams of a caption and its references.

Vedantam, Zitnick and Parikh, "CIDEr: Consensus-based image description evaluation", CVPR 2015, section 4. The numbers
equal those of coco-caption, which calls it CIDEr: cosine of tf-idf vectors with clipped counts, sigma 6, no stemming.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .ngrams import ORDERS, Entries, NgramTable
from .references import References, as_lists

#: Standard deviation, in words, of the Gaussian length penalty.
SIGMA = 6.0

#: Pairs per block, to limit memory.
_BLOCK = 2000


@dataclass(frozen=True)
class Frequencies:
    """Document frequencies of n-grams; a document is the references of one hypothesis.

    Args:
        ids: IDs of the n-grams, ascending.
        counts: number of documents that contain each n-gram.
        documents: number of documents.
    """

    ids: np.ndarray
    counts: np.ndarray
    documents: int

    def weights(self, ids: np.ndarray) -> np.ndarray:
        """Return inverse document frequencies (natural log); an unknown n-gram counts as being in one document."""
        if not len(self.ids):
            return np.full(len(ids), np.log(self.documents))
        places = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        found = np.where(self.ids[places] == ids, self.counts[places], 1)
        return np.log(self.documents) - np.log(found)


def scores(hypotheses: Sequence[str], references: Sequence[References]) -> list[float]:
    """Compute CIDEr of each hypothesis, with document frequencies of all references; the corpus score is the mean.

    Args:
        hypotheses: tokenized texts, words joined by spaces.
        references: one or several tokenized texts per hypothesis.

    Returns:
        Scores from 0 to 10. A single hypothesis scores 0, because its inverse document frequencies are 0.

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
    """Compute document frequencies of references, given as rows of the table, [k] per hypothesis."""
    entries = table.entries(np.concatenate([*references, np.array([], dtype=np.int64)]))
    document = np.repeat(np.arange(len(references)), [len(rows) for rows in references])
    ids = entries.ids
    if len(document) > len(references):  # count an n-gram once per document, also if several references contain it
        ids = np.unique(document[entries.owner] * table.size + ids) % table.size
    return Frequencies(*np.unique(ids, return_counts=True), documents=len(references))


def score_rows(
    table: NgramTable, hypotheses: np.ndarray, references: Sequence[np.ndarray], known: Frequencies
) -> np.ndarray:
    """Compute CIDEr of texts in an n-gram table.

    Args:
        table: table of all texts.
        hypotheses: rows of the table, [n].
        references: rows of the table, n arrays [k] with k of 1 or more.
        known: document frequencies.

    Returns:
        [n], from 0 to 10.
    """
    ks = np.array([len(rows) for rows in references], dtype=np.int64)
    pair = np.repeat(np.arange(len(hypotheses)), ks)  # index of the hypothesis of each reference
    flat = np.concatenate([*references, np.array([], dtype=np.int64)])
    alike = [
        _similarities(table, hypotheses[pair[a : a + _BLOCK]], flat[a : a + _BLOCK], known)
        for a in range(0, len(pair), _BLOCK)
    ]
    return 10 * np.bincount(pair, np.concatenate([*alike, np.array([])]), minlength=len(hypotheses)) / ks


def _similarities(table: NgramTable, hypotheses: np.ndarray, references: np.ndarray, known: Frequencies) -> np.ndarray:
    """Return similarities of rows [n] and rows [n] from 0 to 1: the mean over n-gram orders with the length penalty."""
    n = len(hypotheses)
    one, other = table.entries(hypotheses), table.entries(references)
    weights, weights_other = known.weights(one.ids) ** 2, known.weights(other.ids) ** 2
    in_other = shared_counts(table, one, other)
    cell = one.owner * ORDERS + one.orders
    dot = np.bincount(cell, np.minimum(one.counts, in_other) * in_other * weights, minlength=n * ORDERS)
    squares = np.bincount(cell, one.counts**2 * weights, minlength=n * ORDERS) * np.bincount(
        other.owner * ORDERS + other.orders, other.counts**2 * weights_other, minlength=n * ORDERS
    )
    # If one side has no weight, the dot product is also 0.
    cosines = np.divide(dot, np.sqrt(squares), out=np.zeros(len(dot)), where=squares > 0).reshape(n, ORDERS)
    # Lengths are numbers of bigrams, so texts of 0 and 1 words have the same length.
    delta = np.maximum(table.lengths[hypotheses] - 1, 0) - np.maximum(table.lengths[references] - 1, 0)
    return cosines.mean(axis=1) * np.exp(-(delta**2) / (2 * SIGMA**2))


def shared_counts(table: NgramTable, one: Entries, other: Entries) -> np.ndarray:
    """Return the counts of the n-grams of `one` in the text of `other` with the same owner, [entries of one]."""
    if not len(other.ids):
        return np.zeros(len(one.ids), dtype=np.int64)
    keys, wanted = other.owner * table.size + other.ids, one.owner * table.size + one.ids
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, other.counts[places], 0)
