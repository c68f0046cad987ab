"""ROUGE-L: the longest common subsequence of the words of a text and its references.

Lin, "ROUGE: a package for automatic evaluation of summaries", 2004. The numbers equal those of coco-caption: F with
beta 1.2 of the best precision and the best recall over the references.
"""

from __future__ import annotations

from collections.abc import Sequence

from .references import References, as_lists

#: Weight of recall relative to precision.
BETA = 1.2


def scores(hypotheses: Sequence[str], references: Sequence[References]) -> list[float]:
    """Compute ROUGE-L of each hypothesis; the corpus score is the mean.

    Args:
        hypotheses: tokenized texts, words joined by single spaces.
        references: one or several tokenized texts per hypothesis.

    Returns:
        Fractions. Two empty texts score 1, because coco-caption treats an empty text as one empty word.

    Raises:
        ValueError: if the numbers differ, or a hypothesis has no reference.

    Example:
        >>> [round(score, 4) for score in scores(["a dog barks"], [["a big dog barks", "a cat"]])]
        [0.8356]
    """
    lists = as_lists(hypotheses, references)
    return [score(hypothesis, given) for hypothesis, given in zip(hypotheses, lists, strict=True)]


def score(hypothesis: str, references: Sequence[str]) -> float:
    """Compute ROUGE-L of one text against one or more references."""
    words, others = hypothesis.split(" "), [reference.split(" ") for reference in references]
    common = [longest_common_subsequence(words, other) for other in others]
    precision = max(common) / len(words)
    recall = max(shared / len(other) for shared, other in zip(common, others, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence.

    A row of the dynamic programming table is the bits of one number (Hyyrö, "Bit-parallel LCS-length computation
    revisited", 2004): time is linear in the second sequence instead of the product of the lengths.

    Example:
        >>> longest_common_subsequence("a b c d".split(), "b x d a".split())
        2
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(first)) - 1
    row = every  # a bit is 0 where the row grows by one
    for word in second:
        if matches := row & places.get(word, 0):
            row = (row + matches | row - matches) & every
    return len(first) - row.bit_count()
