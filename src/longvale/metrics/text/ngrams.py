"""N-grams of one to four words for CIDEr and BLEU, counted once per text and stored as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

#: Maximum n-gram length in words of CIDEr and BLEU.
ORDERS = 4


@dataclass(frozen=True)
class Entries:
    """Distinct n-grams of several texts, concatenated; all arrays have the same length.

    Args:
        owner: index of the text of an entry, ascending.
        ids: ID of the n-gram, ascending within an owner.
        orders: number of words of the n-gram minus 1, 0 to 3.
        counts: number of occurrences in the text.
    """

    owner: np.ndarray
    ids: np.ndarray
    orders: np.ndarray
    counts: np.ndarray


class NgramTable:
    """Counts of the n-grams of texts; a repeated text is counted once.

    Args:
        texts: tokenized texts, words joined by spaces.

    Example:
        >>> table = NgramTable(["a dog a dog", "a cat"])
        >>> table.entries(table.rows(["a dog a dog"])).counts
        array([2, 2, 2, 1, 1, 1, 1])
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._row = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        words = [text.split() for text in self._row]
        #: Number of words per row.
        self.lengths = np.array([len(text) for text in words], dtype=np.int64)
        number: dict[str, int] = {}
        tokens = np.array([number.setdefault(word, len(number)) for text in words for word in text], dtype=np.int64)
        rows, ids, ends = _number_ngrams(tokens, len(number), self.lengths)
        #: Upper bound (exclusive) of the IDs.
        self.size = max(ends[-1], 1)
        keys, self._counts = np.unique(rows * self.size + ids, return_counts=True)
        self._ids = keys % self.size
        self._orders = sum((self._ids >= end for end in ends[:-1]), np.zeros(len(keys), np.int64))
        self._starts = np.searchsorted(keys, np.arange(len(words) + 1) * self.size)  # [rows + 1]

    def rows(self, texts: Sequence[str]) -> np.ndarray:
        """Return the rows of texts in the table, [n]; raises KeyError for a text that is not in the table."""
        return np.array([self._row[text] for text in texts], dtype=np.int64)

    def entries(self, rows: np.ndarray) -> Entries:
        """Return the n-grams of the texts in these rows [n]; the owner of an entry is its index in `rows`."""
        starts, sizes = self._starts[rows], self._starts[rows + 1] - self._starts[rows]
        owner = np.repeat(np.arange(len(rows)), sizes)
        places = np.arange(len(owner)) + np.repeat(starts - np.cumsum(sizes) + sizes, sizes)
        return Entries(owner, self._ids[places], self._orders[places], self._counts[places])


def _number_ngrams(tokens: np.ndarray, words: int, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return row and ID of every n-gram of texts with these `lengths` and concatenated `tokens`, 0 to `words` - 1.

    An n-gram is numbered by its first n - 1 words and its last word. The IDs of an order follow those of the previous
    order; the returned list contains the end of each order.
    """
    row_of = np.repeat(np.arange(len(lengths)), lengths)  # [tokens]
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(tokens))  # words to the end of the text, inclusive
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
