"""How far an event drifts from what it began with: the published "max running semantic difference"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .fusion import Interval

if TYPE_CHECKING:
    import numpy as np


def coherence(embeddings: np.ndarray, times: np.ndarray, events: Sequence[Interval]) -> list[float | None]:
    """Max running semantic difference of each event; lower is more coherent.

    The paper names the measure and reports its mean (.53 for visual events), without a formula. Here it is the largest
    distance between two embeddings that follow each other, so embeddings should stand about a second apart.

    Args:
        embeddings: [n, d] of frames or sound windows.
        times: [n], rising, the second that each embedding stands for.
        events: start and end in seconds.

    Returns:
        One number an event, Euclidean; None for events that hold fewer than two embeddings.

    Raises:
        ValueError: if there are not as many times as embeddings.

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
