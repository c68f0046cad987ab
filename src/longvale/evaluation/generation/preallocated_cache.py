"""A preallocated cache of keys and values.

The cache of transformers is copied completely for every generated token: for a batch of 25 questions about a video this
copy took as long as the layers themselves. With preallocated memory only the new tokens are copied.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """Selected rows of a full-attention cache layer, with memory for more tokens.

    Args:
        layer: source of the keys and values, [rows, heads, tokens, width].
        rows: indices of the selected rows; an index may be repeated.
        more: maximum number of tokens to append.

    `keys` and `values` are views of the filled part of larger tensors.
    """

    def __init__(self, layer: DynamicLayer, rows: torch.Tensor, more: int) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self._all_keys, self.keys = _preallocate(layer.keys, rows, more)
        self._all_values, self.values = _preallocate(layer.values, rows, more)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values, [rows, heads, new tokens, width], and return all keys and values.

        Raises:
            ValueError: if the preallocated memory is too small.
        """
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._all_keys.shape[-2]:
            raise ValueError(f"the cache has memory for {self._all_keys.shape[-2]} tokens, not for {end}")
        self._all_keys[..., start:end, :] = key_states
        self._all_values[..., start:end, :] = value_states
        self.keys, self.values = self._all_keys[..., :end, :], self._all_values[..., :end, :]
        return self.keys, self.values


def preallocated_cache(cache: Cache, rows: torch.Tensor, more: int) -> Cache:
    """Copy rows of a cache, with memory for more tokens in every layer; the original cache is not changed.

    Args:
        cache: cache with full-attention layers only.
        rows: indices of the selected rows, on the cache's device.
        more: maximum number of tokens to append.
    """
    return Cache(layers=[PreallocatedLayer(layer, rows, more) for layer in cache.layers])


def _preallocate(values: torch.Tensor, rows: torch.Tensor, more: int) -> tuple[torch.Tensor, torch.Tensor]:
    _, heads, tokens, width = values.shape
    buffer = values.new_empty(len(rows), heads, tokens + more, width)
    filled = buffer[..., :tokens, :]
    filled.copy_(values[rows])
    return buffer, filled
