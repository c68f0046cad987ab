"""Confidence intervals of means over videos: percentile intervals of a bootstrap that resamples videos, not answers.

The answers about one video share its features and its annotation, so they are resampled together (Efron and Tibshirani,
"An Introduction to the Bootstrap", 1993, chapter 13).
"""

from __future__ import annotations

import numpy as np

#: Number of resamples, and number of resamples in memory at once.
RESAMPLES, _BATCH = 5000, 250


def mean_intervals(
    values: np.ndarray,
    weights: np.ndarray,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return bootstrap confidence intervals of weighted means over videos.

    Args:
        values: [videos, columns], one score per column; all columns are resampled together.
        weights: [videos], number of answers per video.
        confidence: level of the intervals, above 0 and below 1.
        resamples: number of resamples.
        seed: random seed.

    Returns:
        Lower and upper bounds, [columns] each.

    Raises:
        ValueError: if there are fewer than two videos, or a weight is not above 0.

    Example:
        >>> low, high = mean_intervals(np.array([[0.0], [1.0]] * 50), np.ones(100))
        >>> bool(0.38 < low[0] < 0.42 and 0.58 < high[0] < 0.62)
        True
    """
    if len(values) < 2:
        raise ValueError("one video is too few to draw from; two or more are needed")
    if not (weights > 0).all():
        raise ValueError("a video without answers has no mean; leave it out")
    rng = np.random.default_rng(seed)
    evenly = np.full(len(values), 1 / len(values))
    means = []
    for start in range(0, resamples, _BATCH):
        drawn = rng.multinomial(len(values), evenly, size=min(_BATCH, resamples - start)) * weights  # [draws, videos]
        means.append(drawn @ values / drawn.sum(axis=1, keepdims=True))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return low, high
