"""Calibration of the stitching threshold on the video itself, since embedders have different scales.

The distances of CLIP, of DINOv2 and of colour histograms between the same two frames differ by several times, so that
one threshold does not fit all embedders. Two levels are measured on each video, for the same scene and for different
scenes:

- `same`, the median of distances within clips (and of distances between frames and slightly enlarged copies of them);
- `different`, the 75% quantile of distances between clips with a change in between. Some of these pairs may show the
  same scene again, so their median could be at either level; for the quantile a quarter of differing pairs is enough.

The threshold is `same + share * (different - same)`. The shares come from the tuned thresholds of the measured
descriptors, on the videos of the training seed of `benchmarks/boundaries.py`: .4 for frames (.36 to .42), .1 for
sounds, because sounds mix and a new one changes only a part of what is heard. For frames the threshold is also at least
1.5 times `same`: an embedder whose distances are not larger across changes than within clips gives no reason to split.
A video without changes has no `different` level; the published threshold is used, which is also that of embeddings of
length 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_DIFFERENT_QUANTILE = 0.75
#: Maximum number of clips that are compared with each other; longer videos are sampled evenly.
_MAX_CLIPS = 500


def calibrate(
    same: np.ndarray, points: np.ndarray, groups: np.ndarray, published: float, *, share: float, least: float = 1.0
) -> float:
    """Compute the maximum distance of neighbours that are stitched.

    Args:
        same: distances within the same scene, at least one.
        points: [clips, d], an embedding of each clip.
        groups: [clips], equal for clips with no change in between, which are not compared.
        published: threshold for a video without changes.
        share: position of the threshold between the levels of same and different scenes, 0 to 1.
        least: minimum threshold, as a multiple of the median of `same`.

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
