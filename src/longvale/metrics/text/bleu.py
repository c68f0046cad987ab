"""BLEU-1 to BLEU-4: how many runs of one to four words of a text its references have too.

Papineni et al., "BLEU: a method for automatic evaluation of machine translation", ACL 2002. The numbers are those of
coco-caption: the reference closest in length counts for the brevity penalty, and tiny constants keep 0 from dividing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .cider import shared_counts
from .ngrams import ORDERS, Entries, NgramTable
from .references import References, as_lists

#: Columns of the counts of a pair: length of the closest reference, then runs of 1 to 4 words of the hypothesis, then
#: those of them that a reference has too.
COLUMNS = 1 + 2 * ORDERS

_TINY, _SMALL = 1e-15, 1e-9
_BLOCK = 2000  # pairs counted together: bounds the memory


def scores(hypotheses: Sequence[str], references: Sequence[References]) -> np.ndarray:
    """BLEU-1 to BLEU-4 of each hypothesis by itself.

    Args:
        hypotheses: tokenized texts, words joined by spaces.
        references: one tokenized text, or several, a hypothesis.

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
    """BLEU-1 to BLEU-4 of all hypotheses together, [4]; arguments and errors as those of [`scores`].

    Example:
        >>> corpus(["a dog barks", "a bell rings"], ["a dog barks loudly", "the bell rings"]).round(3)
        array([0.705, 0.669, 0.574, 0.02 ])
    """
    return of_counts(_counts(hypotheses, references).sum(axis=0))


def of_counts(counts: np.ndarray) -> np.ndarray:
    """BLEU-1 to BLEU-4 [..., 4] of counts [..., 9]: those of a pair, or the sum of several pairs'."""
    runs, shared = counts[..., 1 : 1 + ORDERS], counts[..., 1 + ORDERS :]
    products = np.cumprod((shared + _TINY) / (runs + _SMALL), axis=-1)
    means = products ** (1 / np.arange(1, ORDERS + 1))
    ratio = (runs[..., 0] + _TINY) / (counts[..., 0] + _SMALL)
    return means * np.exp(np.minimum(1 - 1 / ratio, 0))[..., None]


def count_rows(table: NgramTable, hypotheses: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
    """What BLEU counts of texts that stand in a table.

    Args:
        table: of all the texts.
        hypotheses: rows, [n].
        references: rows, n times [k], k of 1 or more.

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
    """n-grams of the references of each hypothesis as if of one text: each as often as the one with most has it."""
    entries = table.entries(np.concatenate(references))
    if len(references) == sum(map(len, references)):
        return entries
    owner = np.repeat(np.arange(len(references)), [len(rows) for rows in references])[entries.owner]
    order = np.lexsort((-entries.counts, entries.ids, owner))
    keys, first = np.unique((owner * table.size + entries.ids)[order], return_index=True)
    places = order[first]
    return Entries(keys // table.size, keys % table.size, entries.orders[places], entries.counts[places])
