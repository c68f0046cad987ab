"""References of a text: one, or several equivalent ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

#: One or several references.
References: TypeAlias = str | Sequence[str]


def as_lists(hypotheses: Sequence[str], references: Sequence[References]) -> list[Sequence[str]]:
    """Convert references to one list per hypothesis.

    Raises:
        ValueError: if the numbers differ, or a hypothesis has no reference.

    Example:
        >>> as_lists(["a", "b"], ["c", ["d", "e"]])
        [['c'], ['d', 'e']]
    """
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} captions but {len(references)} references; give one of both a pair")
    lists = [[given] if isinstance(given, str) else given for given in references]
    for place, given in enumerate(lists):
        if not given:
            raise ValueError(f"caption {place} has no reference; give one or more")
    return lists
