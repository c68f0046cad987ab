"""Runs of one to four words, counted once a text and kept as arrays: what CIDEr and BLEU are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

#: CIDEr and BLEU look at runs of one to this many words.
ORDERS = 4


@dataclass(frozen=True)
class Entries:
    """Distinct n-grams of several texts, one after another; arrays of one length.

    Args:
        owner: which of the texts an entry belongs to, ascending.
        ids: number of the n-gram, ascending within an owner.
        orders: words of the n-gram less one, 0 to 3.
        counts: how often the owner has it.
    """

    owner: np.ndarray
    ids: np.ndarray
    orders: np.ndarray
    counts: np.ndarray


class NgramTable:
    """Counts of the n-grams of texts; a text that is given twice is counted once.

    Args:
        texts: tokenized, words joined by spaces.

    Example:
        >>> table = NgramTable(["a dog a dog", "a cat"])
        >>> table.entries(table.rows(["a dog a dog"])).counts
        array([2, 2, 2, 1, 1, 1, 1])
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._row = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        words = [text.split() for text in self._row]
        #: Words of each row.
        self.lengths = np.array([len(text) for text in words], dtype=np.int64)
        number: dict[str, int] = {}
        tokens = np.array([number.setdefault(word, len(number)) for text in words for word in text], dtype=np.int64)
        rows, ids, ends = _number_ngrams(tokens, len(number), self.lengths)
        #: Ids are below this number.
        self.size = max(ends[-1], 1)
        keys, self._counts = np.unique(rows * self.size + ids, return_counts=True)
        self._ids = keys % self.size
        self._orders = sum((self._ids >= end for end in ends[:-1]), np.zeros(len(keys), np.int64))
        self._starts = np.searchsorted(keys, np.arange(len(words) + 1) * self.size)  # [rows + 1]

    def rows(self, texts: Sequence[str]) -> np.ndarray:
        """Where texts stand in the table, [n]; KeyError for a text that the table was not made of."""
        return np.array([self._row[text] for text in texts], dtype=np.int64)

    def entries(self, rows: np.ndarray) -> Entries:
        """n-grams of the texts in these rows [n]; the owner of an entry is the place in `rows`, 0 to n - 1."""
        starts, sizes = self._starts[rows], self._starts[rows + 1] - self._starts[rows]
        owner = np.repeat(np.arange(len(rows)), sizes)
        places = np.arange(len(owner)) + np.repeat(starts - np.cumsum(sizes) + sizes, sizes)
        return Entries(owner, self._ids[places], self._orders[places], self._counts[places])


def _number_ngrams(tokens: np.ndarray, words: int, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Row and id of every n-gram of texts of `lengths` whose `tokens`, 0 to `words` - 1, follow one another.

    A run of n words is numbered by its first n - 1 and its last; ids of an order follow those of the order before, and
    the list tells where those of each order end.
    """
    row_of = np.repeat(np.arange(len(lengths)), lengths)  # [tokens]
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(tokens))  # words to the end of the text, itself too
    places, codes = np.arange(len(tokens)), tokens
    rows, ids, ends = [row_of], [tokens], [words]
    for order in range(1, ORDERS):
        longer = left[places] > order
        places, codes = places[longer], codes[longer]
        distinct, codes = np.unique(codes * words + tokens[places + order], return_inverse=True)
        rows.append(row_of[places])
        ids.append(codes + ends[-1])
        ends.append(ends[-1] + len(distinct))
    return np.concatenate(rows), np.concatenate(ids), ends
