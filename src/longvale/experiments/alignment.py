"""Temporal alignment: are embeddings of the modalities more similar at the same moment than at different moments?

The embeddings are those that the language model receives, after the projectors. Each modality is averaged over the same
equal parts of a video, and its mean over the video is subtracted, so that only changes over time are compared.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from longvale.data.sources import load_videos
from longvale.evaluation.generation.generate import annotations_path
from longvale.evaluation.generation.inputs import VideoInputs
from longvale.evaluation.generation.model import ModelLike, load_model
from longvale.events import MODALITIES, Modality
from longvale.experiments.tables import write_result
from longvale.plotting.charts import line_figure
from longvale.plotting.style import REFERENCE


def alignment(
    model: ModelLike,
    data: str | os.PathLike,
    output: str | os.PathLike,
    *,
    features: str | os.PathLike | None = None,
    parts: int = 20,
    limit: int | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Compare the modalities' embeddings over time on the test videos.

    Args:
        model: folder, Hub id, or (model, processor) pair.
        data: folder of the annotations.
        output: folder for `table.md`, `result.json` and the plot.
        features: feature store; by default `features` in `data`.
        parts: number of equal parts per video; if a video has fewer features of a modality, they are repeated.
        limit: maximum number of videos.
        progress: show a progress bar.

    Returns:
        One row per pair of modalities: mean cosine `at_the_same_time` and `at_other_times`; `found`, the share of parts
        whose nearest part of the other modality is at the same time (mean of both directions), and `chance`.

    Raises:
        FileNotFoundError, ValueError: if the model or data are missing or invalid, or no video has two modalities.
    """
    from tqdm.auto import tqdm

    if parts < 2:
        raise ValueError(f"parts must be 2 or more, not {parts}")
    model, processor = load_model(model)
    inputs = VideoInputs(data, features)
    names = [video.video_id for video in load_videos(annotations_path(data))][:limit]
    cosines: dict[tuple[Modality, Modality], list[np.ndarray]] = defaultdict(list)
    for name in tqdm(names, desc="alignment", unit="video", disable=not progress):
        embedded = _embed(model, inputs.load(name, model, processor), parts)
        for pair in combinations(embedded, 2):
            cosines[pair].append(cosine(embedded[pair[0]], embedded[pair[1]]))
    if not cosines:
        raise ValueError(f"{data}: no video has two modalities to compare")
    rows = [{"pair": f"{a} - {b}", **compare(np.stack(found))} for (a, b), found in cosines.items()]
    how = {"model": str(getattr(model, "name_or_path", "")), "data": str(data), "videos": len(names), "parts": parts}
    write_result(Path(output), rows, how, _figure({pair: np.stack(found) for pair, found in cosines.items()}))
    return rows


def compare(cosines: np.ndarray) -> dict[str, float]:
    """Compute the similarity of a pair of modalities over time.

    Args:
        cosines: [videos, T, T], part i of one modality with part j of the other.

    Example:
        >>> compare(np.eye(4)[None])
        {'at_the_same_time': 1.0, 'at_other_times': 0.0, 'found': 1.0, 'chance': 0.25}
    """
    count = cosines.shape[1]
    same = np.eye(count, dtype=bool)
    found = [(cosines.argmax(axis=axis) == np.arange(count)).mean() for axis in (1, 2)]
    return {
        "at_the_same_time": float(cosines[:, same].mean()),
        "at_other_times": float(cosines[:, ~same].mean()),
        "found": float(np.mean(found)),
        "chance": 1 / count,
    }


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return cosines [T, T] of two sequences [T, width], each minus its mean over time; 0 where nothing changes.

    Example:
        >>> cosine(np.array([[0.0, 1.0], [0.0, 3.0]]), np.array([[0.0, 2.0], [0.0, 1.0]])).tolist()
        [[-1.0, 1.0], [1.0, -1.0]]
    """
    sides = []
    for values in (first, second):
        centred = values - values.mean(axis=0)
        norm = np.linalg.norm(centred, axis=1, keepdims=True)
        sides.append(np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 1e-9))
    return sides[0] @ sides[1].T


def resample(values: np.ndarray, parts: int) -> np.ndarray:
    """Return means [parts, width] over equal parts of the time that a sequence [n, width] covers evenly.

    Example:
        >>> resample(np.array([[0.0], [2.0], [4.0], [6.0]]), 2).tolist()
        [[1.0], [5.0]]
        >>> resample(np.array([[0.0], [3.0]]), 4).tolist()
        [[0.0], [0.0], [3.0], [3.0]]
    """
    edges = np.linspace(0, len(values), parts + 1)
    sums = np.vstack([np.zeros((1, values.shape[1])), values.cumsum(axis=0)])
    whole = np.minimum(edges.astype(int), len(values) - 1)
    at_edges = sums[whole] + (edges - whole)[:, None] * values[whole]
    return np.diff(at_edges, axis=0) / np.diff(edges)[:, None]


def _embed(model: Any, features: Mapping[Modality, np.ndarray | None], parts: int) -> dict[Modality, np.ndarray]:
    import torch

    embedded: dict[Modality, np.ndarray] = {}
    for modality in MODALITIES:
        values = features[modality]
        if values is not None and len(values):
            projector = getattr(model.model, f"{modality}_projector")
            with torch.inference_mode():
                projected = projector(torch.from_numpy(np.array(values)).to(projector.weight)).float().cpu().numpy()
            embedded[modality] = resample(projected.astype(np.float64), parts)
    return embedded


def _figure(cosines: Mapping[tuple[Modality, Modality], np.ndarray]) -> Any:
    """Plot the mean cosine against the distance in time."""
    lines = []
    for pair, found in cosines.items():
        count = found.shape[1]
        offsets = range(-(count - 1), count)
        means = [np.mean([np.diagonal(video, offset).mean() for video in found]) for offset in offsets]
        lines.append((" - ".join(pair), [100 * offset / count for offset in offsets], means))
    title = "How alike the embeddings of two modalities are"
    figure = line_figure(lines, x="distance in time, % of the video", y="mean cosine", title=title)
    figure.axes[0].axvline(0, color=REFERENCE[1], linewidth=0.8)
    return figure
