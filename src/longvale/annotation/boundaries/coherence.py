"""Coherence of events: the published "max running semantic difference"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .fusion import Interval

if TYPE_CHECKING:
    import numpy as np


def coherence(embeddings: np.ndarray, times: np.ndarray, events: Sequence[Interval]) -> list[float | None]:
    """Compute the max running semantic difference of each event; lower is more coherent.

    The paper names the measure and reports its mean (.53 for visual events), without a formula. Here it is the largest
    distance between two consecutive embeddings, so the embeddings should be about one second apart.

    Args:
        embeddings: [n, d] of frames or audio windows.
        times: [n], ascending, the time of each embedding in seconds.
        events: start and end in seconds.

    Returns:
        One Euclidean distance per event; None for events with fewer than two embeddings.

    Raises:
        ValueError: if the numbers of times and embeddings differ.

    Example:
        >>> import numpy as np
        >>> rows = np.array([[0.0], [0.1], [1.0], [1.1]])
        >>> [round(value, 3) for value in coherence(rows, np.arange(4.0), [(0, 4), (0, 2)])]
        [0.9, 0.1]
    """
    import numpy as np

    embeddings, times = np.asarray(embeddings), np.asarray(times)
    if len(embeddings) != len(times):
        raise ValueError(f"{len(embeddings)} embeddings but {len(times)} times; each embedding needs one")
    differences = []
    for start, end in events:
        inside = embeddings[(times >= start) & (times < end)]
        steps = np.linalg.norm(np.diff(inside, axis=0), axis=1) if len(inside) > 1 else np.empty(0)
        differences.append(float(steps.max()) if steps.size else None)
    return differences
