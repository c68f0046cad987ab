"""Times of words from the cross-attention of Whisper, by dynamic time warping, as in openai/whisper `timing.py`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ....events import Seconds

#: Seconds per frame of Whisper's encoder.
FRAME_S: Seconds = 0.02
#: Median filter of the attention in frames, as in openai/whisper.
_MEDIAN = 7


@dataclass
class _Watched:
    """Queries and keys of the cross-attention of some layers, by layer."""

    heads: Sequence[tuple[int, int]]
    sizes: dict[int, int]
    queries: dict[int, Any]
    keys: dict[int, Any]

    def attention(self) -> Any:
        """Return the attention of the heads: float [n, heads, tokens, frames]; None without heads."""
        import torch

        rows = []
        for layer, head in self.heads:
            size = self.sizes[layer]
            part = slice(head * size, (head + 1) * size)
            scores = self.queries[layer][..., part] @ self.keys[layer][..., part].transpose(-1, -2) / size**0.5
            rows.append(scores.float().softmax(dim=-1))
        return torch.stack(rows, dim=1) if rows else None


@contextmanager
def watch_heads(model: Any, heads: Sequence[Sequence[int]] | None) -> Any:
    """Record queries and keys of the cross-attention of the given (layer, head) pairs during a forward pass."""
    watched = _Watched([(layer, head) for layer, head in heads or ()], {}, {}, {})
    hooks = []
    try:
        for layer in {layer for layer, _ in watched.heads}:
            attention = model.get_decoder().layers[layer].encoder_attn
            watched.sizes[layer] = attention.head_dim
            for store, module in ((watched.queries, attention.q_proj), (watched.keys, attention.k_proj)):
                hooks.append(module.register_forward_hook(lambda _, __, out, s=store, n=layer: s.__setitem__(n, out)))
        yield watched
    finally:
        for hook in hooks:
            hook.remove()


def token_times(attention: np.ndarray) -> np.ndarray:
    """Return when each token begins, in seconds, by dynamic time warping of the attention.

    Args:
        attention: float32 [heads, tokens + 1, frames]; each row predicts a token, the last one the end of the text.

    Returns:
        float64 [tokens + 1]: the start of each token, and the end of the last; ascending.

    Example:
        >>> diagonal = np.eye(4, dtype=np.float32).repeat(10, axis=1)[None]  # 4 tokens of 10 frames each
        >>> token_times(diagonal).tolist()
        [0.0, 0.2, 0.4, 0.6]
    """
    from scipy.ndimage import median_filter

    spread = attention.std(axis=-2, keepdims=True)
    weights = (attention - attention.mean(axis=-2, keepdims=True)) / np.maximum(spread, 1e-9)
    if weights.shape[-1] > _MEDIAN:
        weights = median_filter(weights, size=(1, 1, _MEDIAN), mode="reflect")
    token, frame = _warp(-weights.mean(axis=0).astype(np.float64))
    first = np.concatenate([[True], np.diff(token) > 0])
    return frame[first] * FRAME_S


def _warp(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cheapest monotonic path through a cost matrix [rows, columns]: row and column of each step."""
    moves = _compiled_moves()(cost)
    path = []
    row, column = cost.shape[0] - 1, cost.shape[1] - 1
    while row > 0 or column > 0:
        path.append((row, column))
        move = moves[row, column]
        row, column = row - (move != 2), column - (move != 1)
    path.append((0, 0))
    steps = np.array(path[::-1])
    return steps[:, 0], steps[:, 1]


@cache
def _compiled_moves() -> Any:
    from numba import njit  # slow to import

    return njit(cache=True)(_moves)


def _moves(cost: np.ndarray) -> np.ndarray:
    """Return from where the cheapest path enters each cell: 0 diagonally, 1 from above, 2 from the left."""
    rows, columns = cost.shape
    moves = np.zeros((rows, columns), np.int8)
    total = np.zeros((rows, columns))
    for row in range(rows):
        for column in range(columns):
            best, move = np.inf, 0
            if row > 0 and column > 0:
                best, move = total[row - 1, column - 1], 0
            if row > 0 and (total[row - 1, column] < best):
                best, move = total[row - 1, column], 1
            if column > 0 and (total[row, column - 1] < best):
                best, move = total[row, column - 1], 2
            total[row, column] = cost[row, column] + (0.0 if row + column == 0 else best)
            moves[row, column] = move
    return moves
