"""Keys and values of answers that are generated together, one row per answer; rows are filled and emptied at any time.

All rows have memory for the same number of tokens, and each writes at its own position. Nothing is copied for a new
token; the memory grows in steps, when the longest row needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

#: Memory grows by this many tokens, and attention reads multiples of it.
_STEP = 64


class _Layer(DynamicLayer):
    """Keys and values of one layer, both [rows, heads, capacity, width]; `slots` says where new ones are written."""

    def __init__(self, slots: Slots, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._slots, self.keys, self.values = slots, keys, values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new keys and values, [rows written, heads, new tokens, width]; return all of these rows."""
        return self._slots.write(self.keys, key_states), self._slots.write(self.values, value_states)


class Slots(Cache):
    """Rows of keys and values, with an attention mask and positions.

    Args:
        like: a cache of full-attention layers, whose number of layers, heads and types this one has.
        rows: number of rows.
        mask_dtype: type of the additive attention mask, that of the model's activations.

    Attributes:
        mask: additive attention mask [rows, 1, 1, capacity].
        ends: number of tokens of each row that are written, padding included; int64 [rows].
        lengths: the same, as a list.
        positions: position of each row's next token, padding not included; int64 [rows].
    """

    def __init__(self, like: Cache, rows: int, mask_dtype: torch.dtype) -> None:
        first = like.layers[0].keys
        self._hidden = torch.finfo(mask_dtype).min
        self.mask = torch.full((rows, 1, 1, _STEP), self._hidden, dtype=mask_dtype, device=first.device)
        self.ends = torch.zeros(rows, dtype=torch.long, device=first.device)
        self.positions, self.lengths = torch.zeros_like(self.ends), [0] * rows
        self._all, self._written, self._start, self._length = torch.arange(rows, device=first.device), None, 0, 0
        layers = []
        for layer in like.layers:
            pair = (layer.keys, layer.values)
            layers.append(_Layer(self, *(v.new_zeros(rows, v.shape[1], _STEP, v.shape[3]) for v in pair)))
        super().__init__(layers=layers)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def longest(self) -> int:
        """Return the number of tokens of the longest row, padding included."""
        return max(self.lengths)

    @property
    def capacity(self) -> int:
        """Return the number of tokens that a row has memory for."""
        return self.mask.shape[-1]

    def write(self, memory: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Write new keys or values into a layer's memory, and return what attention reads."""
        if self._written is None:  # a token of every row
            memory[self._all, :, self.ends] = new[:, :, 0]
            return memory[:, :, : self._length]
        end = self._start + new.shape[2]
        memory[self._written, :, self._start : end] = new
        return memory[self._written, :, :end]

    def reserve(self, tokens: int) -> None:
        """Make room for at least this many tokens per row."""
        more = -(-(tokens - self.capacity) // _STEP) * _STEP
        if more <= 0:
            return
        self.mask = torch.nn.functional.pad(self.mask, (0, more), value=self._hidden)
        for layer in self.layers:
            layer.keys, layer.values = (torch.nn.functional.pad(v, (0, 0, 0, more)) for v in (layer.keys, layer.values))

    def select(self, rows: Sequence[int], count: int) -> None:
        """Keep some rows, in this order, and add empty ones until there are `count`."""
        chosen = torch.tensor([*rows, *[0] * (count - len(rows))], dtype=torch.long, device=self.ends.device)
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[chosen], layer.values[chosen]
        self.mask, self.ends, self.positions = self.mask[chosen], self.ends[chosen], self.positions[chosen]
        self._all = torch.arange(count, device=self.ends.device)
        self.lengths = [self.lengths[row] for row in chosen.tolist()]
        self.clear(range(len(rows), count))

    def clear(self, rows: Sequence[int]) -> None:
        """Empty rows: their next token is their first."""
        chosen = torch.tensor(list(rows), dtype=torch.long, device=self.ends.device)
        self.mask[chosen], self.ends[chosen], self.positions[chosen] = self._hidden, 0, 0
        for row in rows:
            self.lengths[row] = 0

    def begin_tokens(self) -> None:
        """Prepare a step that writes one token to every row."""
        self.reserve(longest := self.longest + 1)
        self._written, self._length = None, min(-(-longest // _STEP) * _STEP, self.capacity)
        self.mask[self._all, 0, 0, self.ends] = 0

    def step_mask(self) -> torch.Tensor:
        """Return the attention mask of the tokens that are being written, [rows, 1, 1, tokens]."""
        return self.mask[..., : self._length]

    def end_tokens(self, rows: Sequence[int], alive: torch.Tensor) -> None:
        """Advance rows.

        Args:
            rows: their indices.
            alive: 1 for these rows, 0 for the others, int64 [all rows].
        """
        self.ends += alive
        self.positions += alive
        for row in rows:
            self.lengths[row] += 1

    def begin_rows(self, rows: torch.Tensor, prefixes: Sequence[tuple[Cache, int]], masks: torch.Tensor) -> None:
        """Fill rows with prefixes and prepare the forward pass of their suffixes.

        Args:
            rows: indices of empty rows, int64 [n].
            prefixes: for each of them a cache and the row of it that contains the prefix, padded on the left.
            masks: of prefix and suffix, int64 [n, longest prefix + longest suffix].
        """
        longest = max(cache.layers[0].keys.shape[2] for cache, _ in prefixes)
        self.reserve(masks.shape[1])
        by_cache: dict[int, list[int]] = {}
        for place, (cache, _) in enumerate(prefixes):
            by_cache.setdefault(id(cache), []).append(place)
        for places in by_cache.values():
            cache = prefixes[places[0]][0]
            theirs = torch.tensor([prefixes[place][1] for place in places], device=rows.device)
            ours = rows[torch.tensor(places, device=rows.device)]
            start = longest - cache.layers[0].keys.shape[2]
            for layer, source in zip(self.layers, cache.layers, strict=True):
                layer.keys[ours, :, start:longest] = source.keys[theirs]
                layer.values[ours, :, start:longest] = source.values[theirs]
        total = masks.shape[1]
        self.mask[rows, 0, 0, :total] = torch.where(masks.bool(), 0, self._hidden).to(self.mask.dtype)
        self.ends[rows], self.positions[rows] = total, masks.sum(dim=1)
        for row in rows.tolist():
            self.lengths[row] = total
        self._written, self._start = rows, longest

    def rows_mask(self, rows: torch.Tensor, total: int) -> torch.Tensor:
        """Return the attention mask of the suffixes that are being written, [n, 1, suffix, tokens]."""
        suffix = total - self._start
        later = torch.full((suffix, total), self._hidden, dtype=self.mask.dtype, device=self.mask.device)
        later = later.triu(self._start + 1)
        return torch.minimum(self.mask[rows, :, :, :total], later)
