"""A cache of keys and values that new tokens are written into.

The cache of transformers is copied whole for every token that is generated: for a batch of 25 questions about a video
that took as long as the layers themselves. With room for what is to come nothing is copied but the new tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer


class RoomyLayer(DynamicLayer):
    """Chosen rows of a layer of full attention, with room for more tokens.

    Args:
        layer: its keys and values, [rows, heads, tokens, width].
        rows: indices of the rows wanted, repeated as often as needed.
        room: tokens that will come at most.

    `keys` and `values` are the beginnings that are filled of larger tensors.
    """

    def __init__(self, layer: DynamicLayer, rows: torch.Tensor, room: int) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self._all_keys, self.keys = _with_room(layer.keys, rows, room)
        self._all_values, self.values = _with_room(layer.values, rows, room)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values, [rows, heads, new tokens, width], and return all.

        Raises:
            ValueError: if there is no room for them.
        """
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._all_keys.shape[-2]:
            raise ValueError(f"the cache has room for {self._all_keys.shape[-2]} tokens, not for {end}")
        self._all_keys[..., start:end, :] = key_states
        self._all_values[..., start:end, :] = value_states
        self.keys, self.values = self._all_keys[..., :end, :], self._all_values[..., :end, :]
        return self.keys, self.values


def roomy_cache(cache: Cache, rows: torch.Tensor, room: int) -> Cache:
    """Rows of a cache, with room for more tokens in every layer; the cache itself stays as it is.

    Args:
        cache: of layers of full attention only.
        rows: indices of the rows wanted, on the cache's device.
        room: tokens that will come at most.
    """
    return Cache(layers=[RoomyLayer(layer, rows, room) for layer in cache.layers])


def _with_room(values: torch.Tensor, rows: torch.Tensor, room: int) -> tuple[torch.Tensor, torch.Tensor]:
    _, heads, tokens, width = values.shape
    buffer = values.new_empty(len(rows), heads, tokens + room, width)
    filled = buffer[..., :tokens, :]
    filled.copy_(values[rows])
    return buffer, filled
