"""From which distance on two stretches differ, measured on the video itself: embedders have scales of their own.

Distances of CLIP, of DINOv2 and of colour histograms between the same two pictures differ several times, so that no
number fits them all. A file shows both levels, what an embedder makes of the same scene and of different ones:

- `same`, the median of distances within clips (and of pictures to the same pictures seen a little closer);
- `different`, the 75% quantile of distances between clips with a change in between: some of those may show one scene
  again, so their median could lie on either level, while a quarter of pairs that differ is enough here.

The threshold lies a share of the way from `same` to `different`. Shares are where the tuned thresholds of the
measured descriptors lie between these two levels on the videos of the training seed of `benchmarks/boundaries.py`: .4
of the way for pictures (.36 to .42), .1 for sounds, which mix, so that what is new changes only a part of what is
heard. For pictures the threshold is also at least 1.5 times `same`: an embedder that sees no more difference across
changes than within clips gives no reason to split. A video without any change says nothing about `different`; there
the published threshold holds, which is that of embeddings of length 1 as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_DIFFERENT_QUANTILE = 0.75
#: Of longer videos so many clips, evenly spread, are compared with each other.
_MAX_CLIPS = 500


def calibrate(
    same: np.ndarray, points: np.ndarray, groups: np.ndarray, published: float, *, share: float, least: float = 1.0
) -> float:
    """Distance up to which neighbours are stitched.

    Args:
        same: distances between what is the same, at least one.
        points: [clips, d], an embedding of each clip.
        groups: [clips], equal for clips with no change in between, which are not compared.
        published: threshold of a video in which nothing changes.
        share: of the way from what is the same to what is different, 0 to 1.
        least: the threshold is no less than so many times the distance of what is the same.

    Example:
        >>> import numpy as np
        >>> points = np.array([[0.0], [0.05], [0.4]])
        >>> round(calibrate(np.array([0.02, 0.05]), points, np.array([0, 0, 1]), 0.6, share=0.4), 3)
        0.176
    """
    import numpy as np

    level = float(np.median(same))
    chosen = np.unique(np.linspace(0, len(points) - 1, _MAX_CLIPS).astype(int))
    points, groups = points[chosen].astype(np.float64), groups[chosen]
    squares = (points**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0))
    different = distances[groups[:, None] < groups]
    if not len(different):
        return max(published, least * level)
    return max(level + share * (float(np.quantile(different, _DIFFERENT_QUANTILE)) - level), least * level)
