"""BLEU-1 to BLEU-4: the precision of n-grams of one to four words against the references.

Papineni et al., "BLEU: a method for automatic evaluation of machine translation", ACL 2002. The numbers equal those of
coco-caption: the brevity penalty uses the reference closest in length, and tiny constants avoid divisions by 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .cider import shared_counts
from .ngrams import ORDERS, Entries, NgramTable
from .references import References, as_lists

#: Columns of the counts of a pair: length of the closest reference, numbers of n-grams of 1 to 4 words in the
#: hypothesis, and numbers of those that are also in a reference.
COLUMNS = 1 + 2 * ORDERS

_TINY, _SMALL = 1e-15, 1e-9
_BLOCK = 2000  # pairs per block, to limit memory


def scores(hypotheses: Sequence[str], references: Sequence[References]) -> np.ndarray:
    """Compute BLEU-1 to BLEU-4 of each hypothesis.

    Args:
        hypotheses: tokenized texts, words joined by spaces.
        references: one or several tokenized texts per hypothesis.

    Returns:
        [n, 4], fractions.

    Raises:
        ValueError: if the numbers differ, or a hypothesis has no reference.

    Example:
        >>> scores(["a dog barks"], ["a dog barks loudly"]).round(3)
        array([[0.717, 0.717, 0.717, 0.023]])
    """
    return of_counts(_counts(hypotheses, references))


def corpus(hypotheses: Sequence[str], references: Sequence[References]) -> np.ndarray:
    """Compute corpus BLEU-1 to BLEU-4 of all hypotheses, [4]; arguments and errors as in [`scores`].

    Example:
        >>> corpus(["a dog barks", "a bell rings"], ["a dog barks loudly", "the bell rings"]).round(3)
        array([0.705, 0.669, 0.574, 0.02 ])
    """
    return of_counts(_counts(hypotheses, references).sum(axis=0))


def of_counts(counts: np.ndarray) -> np.ndarray:
    """Compute BLEU-1 to BLEU-4 [..., 4] from counts [..., 9] of one pair, or summed over several pairs."""
    runs, shared = counts[..., 1 : 1 + ORDERS], counts[..., 1 + ORDERS :]
    products = np.cumprod((shared + _TINY) / (runs + _SMALL), axis=-1)
    means = products ** (1 / np.arange(1, ORDERS + 1))
    ratio = (runs[..., 0] + _TINY) / (counts[..., 0] + _SMALL)
    return means * np.exp(np.minimum(1 - 1 / ratio, 0))[..., None]


def count_rows(table: NgramTable, hypotheses: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
    """Compute the BLEU counts of texts in an n-gram table.

    Args:
        table: table of all texts.
        hypotheses: rows of the table, [n].
        references: rows of the table, n arrays [k] with k of 1 or more.

    Returns:
        [n, 9], see [`COLUMNS`].
    """
    blocks = [
        _count_block(table, hypotheses[a : a + _BLOCK], references[a : a + _BLOCK])
        for a in range(0, len(hypotheses), _BLOCK)
    ]
    return np.concatenate([*blocks, np.zeros((0, COLUMNS))])


def _counts(hypotheses: Sequence[str], references: Sequence[References]) -> np.ndarray:
    lists = as_lists(hypotheses, references)
    table = NgramTable([*hypotheses, *(text for given in lists for text in given)])
    return count_rows(table, table.rows(hypotheses), [table.rows(given) for given in lists])


def _count_block(table: NgramTable, hypotheses: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
    one = table.entries(hypotheses)
    shared = np.minimum(one.counts, shared_counts(table, one, _most(table, references)))
    correct = np.bincount(one.owner * ORDERS + one.orders, shared, minlength=len(hypotheses) * ORDERS)
    lengths = table.lengths[hypotheses]
    closest = [
        min((abs(length - other), other) for other in table.lengths[rows].tolist())[1]
        for length, rows in zip(lengths.tolist(), references, strict=True)
    ]
    runs = np.maximum(lengths[:, None] - np.arange(ORDERS), 0)
    return np.column_stack([closest, runs, correct.reshape(-1, ORDERS)])


def _most(table: NgramTable, references: Sequence[np.ndarray]) -> Entries:
    """Merge the n-grams of each hypothesis's references, with the maximum count over the references."""
    entries = table.entries(np.concatenate(references))
    if len(references) == sum(map(len, references)):
        return entries
    owner = np.repeat(np.arange(len(references)), [len(rows) for rows in references])[entries.owner]
    order = np.lexsort((-entries.counts, entries.ids, owner))
    keys, first = np.unique((owner * table.size + entries.ids)[order], return_index=True)
    places = order[first]
    return Entries(keys // table.size, keys % table.size, entries.orders[places], entries.counts[places])
