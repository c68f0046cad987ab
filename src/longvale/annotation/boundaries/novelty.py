"""Novelty curves: how much a sequence of descriptors changes at each position, over windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def novelty(rows: np.ndarray, window: int) -> np.ndarray:
    """Compute the distance between the mean of the rows before and the mean of the rows after each position.

    Args:
        rows: [n, d].
        window: number of rows on each side; fewer at both ends.

    Returns:
        [n]: value `i` compares rows `i - window` to `i - 1` with rows `i` to `i + window - 1`; 0 at the first row.

    Example:
        >>> import numpy as np
        >>> novelty(np.array([[0.0], [0.0], [1.0], [1.0]]), 2)
        array([0. , 0.5, 1. , 0.5])
    """
    import numpy as np

    rows = np.asarray(rows, np.float64)
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    at = np.arange(1, len(rows))
    before, after = np.maximum(at - window, 0), np.minimum(at + window, len(rows))
    left = (sums[at] - sums[before]) / (at - before)[:, None]
    right = (sums[after] - sums[at]) / (after - at)[:, None]
    return np.concatenate([[0.0], np.linalg.norm(left - right, axis=1)])


def peaks(curve: np.ndarray, threshold: float, distance: int) -> list[int]:
    """Return the indices where a curve is at least `threshold` and the maximum within `distance` on both sides.

    Example:
        >>> import numpy as np
        >>> peaks(np.array([0, 1, 3, 2, 0, 2.0]), 1.5, 2)
        [2, 5]
    """
    found = []
    for index in (int(i) for i in (curve >= threshold).nonzero()[0]):
        if found and index - found[-1] <= distance and curve[index] <= curve[found[-1]]:  # of equal ones the first
            continue
        if curve[index] >= curve[max(0, index - distance) : index + distance + 1].max():
            found.append(index)
    return found
