"""Layers and tensor operations of the towers and the model: convolutions, attention, pooling, time embedding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.utils import torch_compilable_check

_LOW_PRECISION = (torch.bfloat16, torch.float16)

#: Value that an embedding of a placeholder consists of; exact in every floating-point type of weights.
PLACEHOLDER_VALUE = 2.0**14

#: Lowest and highest frequency of the time embedding, in turns per video.
TIME_TURNS = (0.25, 10.0)


def convolve_in_float32(
    convolve: Callable[..., torch.Tensor],
    inputs: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    **options: Any,
) -> torch.Tensor:
    """Convolve, on a CPU in float32 if the operands or autocast have a lower precision.

    On CPUs with AMX (Intel Xeon of 2023 and later), oneDNN computes grouped bfloat16 convolutions incorrectly if a
    group has few channels: with 4 or 8 channels the whole result is wrong, without an error (torch 2.9.1 and 2.15.0).

    Args:
        convolve: function such as `torch.nn.functional.conv1d`.
        inputs: [B, C, ...].
        weight: weight of the convolution.
        bias: bias of the convolution, or None.
        options: keyword arguments of `convolve`.

    Returns:
        The output of `convolve`, on a CPU in the dtype of `inputs`.

    Example:
        >>> ones = torch.ones(1, 8, 4, dtype=torch.bfloat16)
        >>> weight = torch.ones(8, 4, 1, dtype=torch.bfloat16)
        >>> convolve_in_float32(nn.functional.conv1d, ones, weight, None, groups=2)[0, 0]
        tensor([4., 4., 4., 4.], dtype=torch.bfloat16)
    """
    if inputs.device.type != "cpu":
        return convolve(inputs, weight, bias, **options)
    with torch.autocast("cpu", enabled=False):
        output = convolve(_raised(inputs), _raised(weight), None if bias is None else _raised(bias), **options)
    return output.to(inputs.dtype)


def _raised(operand: torch.Tensor) -> torch.Tensor:
    return operand.float() if operand.dtype in _LOW_PRECISION else operand


class _InFloat32:
    """Mixin for convolutions of torch, whose `forward` computes the weight and calls `_conv_forward`."""

    def _conv_forward(self, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return convolve_in_float32(super()._conv_forward, inputs, weight, bias)


class _Conv1d(_InFloat32, nn.Conv1d):
    pass


class _Conv2d(_InFloat32, nn.Conv2d):
    pass


class _Conv3d(_InFloat32, nn.Conv3d):
    pass


#: Classes at module level, so that models can still be pickled.
_RAISED = {nn.Conv1d: _Conv1d, nn.Conv2d: _Conv2d, nn.Conv3d: _Conv3d}


def guard_convolutions(model: nn.Module) -> nn.Module:
    """Make grouped and depthwise convolutions of any model use [`convolve_in_float32`].

    Args:
        model: model, changed in place; weights and their names stay.

    Returns:
        The model.

    Example:
        >>> depthwise = nn.Conv2d(8, 8, 3, groups=8, dtype=torch.bfloat16)
        >>> guard_convolutions(depthwise)(torch.ones(1, 8, 3, 3, dtype=torch.bfloat16)).dtype
        torch.bfloat16
    """
    for module in model.modules():
        kind = type(module)
        if isinstance(module, tuple(_RAISED)) and module.groups > 1 and not isinstance(module, _InFloat32):
            # For a parametrised weight, as in wav2vec 2.0, torch has created a separate class.
            module.__class__ = _RAISED.get(kind) or type(kind.__name__, (_InFloat32, kind), {})
    return model


class _MarksPlaceholders:
    """Mixin for embeddings, whose `forward` looks up ids."""

    placeholder_id: int

    def forward(self, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        placeholders = input_ids == self.placeholder_id
        embeddings = super().forward(input_ids.masked_fill(placeholders, 0), *args, **kwargs)
        return embeddings.masked_fill(placeholders.unsqueeze(-1), PLACEHOLDER_VALUE)


class _PlaceholderEmbedding(_MarksPlaceholders, nn.Embedding):
    pass


def mark_placeholders(embeddings: nn.Module, placeholder_id: int) -> nn.Module:
    """Make embeddings of any model return a constant for a placeholder, which may be outside the vocabulary.

    The placeholder can thus be found again in embeddings, and methods that embed prompts themselves, as prompt tuning
    does, need not know it.

    Args:
        embeddings: input embeddings, changed in place; weights and their names stay.
        placeholder_id: id of the placeholder.

    Returns:
        The embeddings.

    Example:
        >>> mark_placeholders(nn.Embedding(3, 2), 3)(torch.tensor([3]))
        tensor([[16384., 16384.]], grad_fn=<MaskedFillBackward0>)
    """
    kind = type(embeddings)
    if not isinstance(embeddings, _MarksPlaceholders):
        marked = _PlaceholderEmbedding if kind is nn.Embedding else type(kind.__name__, (_MarksPlaceholders, kind), {})
        embeddings.__class__ = marked
    embeddings.placeholder_id = placeholder_id
    return embeddings


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute attention without fused kernels; also returns the weights, [B, H, L, L]."""
    attn_weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        attn_weights = attn_weights + attention_mask
    attn_weights = nn.functional.softmax(attn_weights, dim=-1, dtype=torch.float32).to(query.dtype)
    attn_weights = nn.functional.dropout(attn_weights, p=dropout, training=module.training)
    attn_output = torch.matmul(attn_weights, value)
    return attn_output.transpose(1, 2).contiguous(), attn_weights


def reduce_padding_mask(padding_mask: torch.Tensor, length: int) -> torch.Tensor:
    """Shorten a padding mask; a new entry is padding if all entries that it covers are padding.

    Args:
        padding_mask: bool [B, M], True where there is padding.
        length: the new length, at most M; the last M mod `length` entries are dropped, as the published code does.

    Returns:
        bool [B, length].

    Raises:
        ValueError: if the mask is shorter than `length`.

    Example:
        >>> reduce_padding_mask(torch.tensor([[False, True, True, True, True]]), 2)
        tensor([[False,  True]])
    """
    if padding_mask.shape[1] == length:
        return padding_mask.bool()
    step = padding_mask.shape[1] // length
    if step == 0:
        raise ValueError(
            f"padding_mask has {padding_mask.shape[1]} entries a row for {length} positions; give one a frame"
        )
    return padding_mask[:, : step * length].bool().view(-1, length, step).all(-1)


def pool_windows(hidden_states: torch.Tensor, padding_mask: torch.Tensor | None = None) -> torch.Tensor:
    """Average the patches of each window.

    Args:
        hidden_states: [N, L, D], one window per row.
        padding_mask: bool [N, T] (frames) or [N, L] (patches), True for padding, which is excluded from the mean. None
            averages all patches, as the published preprocessing does.

    Returns:
        [N, D]; zeros for a window that contains only padding.

    Example:
        >>> pool_windows(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[False, True]]))
        tensor([[1.]])
    """
    if padding_mask is None:
        return hidden_states.mean(dim=1)
    keep = ~reduce_padding_mask(padding_mask, hidden_states.shape[1])  # [N, L]
    weights = keep / keep.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.bmm(weights.to(hidden_states.dtype).unsqueeze(1), hidden_states).squeeze(1)


def pool_states(states: torch.Tensor, mask: torch.Tensor, window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Average consecutive windows of `window` states, without padding.

    Args:
        states: [B, n, width].
        mask: [B, n], ones for states and zeros for padding, which is at the end of a row.
        window: states per window; the last window of a row may be shorter.

    Returns:
        Features [B, ceil(n / window), width] and their mask [B, ceil(n / window)].

    Example:

    ```python
    >>> features, mask = pool_states(torch.tensor([[[1.0], [3.0], [5.0], [9.0]]]), torch.tensor([[1, 1, 1, 0]]), 2)
    >>> features.flatten().tolist(), mask.tolist()
    ([2.0, 5.0], [[1, 1]])

    ```
    """
    padding = -states.shape[1] % window
    mask = nn.functional.pad(mask.bool(), (0, padding)).unflatten(1, (-1, window))  # [B, S, window]
    states = nn.functional.pad(states, (0, 0, 0, padding)).unflatten(1, (-1, window))  # [B, S, window, width]
    counts = mask.sum(dim=2)
    sums = states.masked_fill(~mask.unsqueeze(-1), 0.0).sum(dim=2)
    return sums / counts.clamp(min=1).unsqueeze(-1), (counts > 0).long()


def check_all(condition: torch.Tensor, message: Callable[[], str], short_message: str) -> None:
    """Raise an error unless a condition holds everywhere; a compiled or exported graph contains the check, too.

    Args:
        condition: bool [...].
        message: function that returns the message of a `ValueError`, which may read values.
        short_message: message of the `RuntimeError` of a graph, which cannot read values.

    Example:
        >>> check_all(torch.tensor([True, False]), lambda: "item 1 is false", "an item is false")
        Traceback (most recent call last):
            ...
        ValueError: item 1 is false
    """
    if torch.compiler.is_compiling():
        torch._assert_async(condition.all(), short_message)
    else:
        torch_compilable_check(condition, message)


def merge_embeddings(
    inputs_embeds: torch.Tensor, placeholders: torch.Tensor, video_embeddings: torch.Tensor, video_mask: torch.Tensor
) -> torch.Tensor:
    """Replace the k-th placeholder of each row by the k-th embedding of its video.

    Rows use gather, not one scatter: shapes stay static for the compiler, and no row reads the video of another.

    Args:
        inputs_embeds: [B, L, hidden].
        placeholders: bool [B, L].
        video_embeddings: [B, n, hidden].
        video_mask: bool [B, n], false for padding, which may be at any position.

    Example:

    ```python
    >>> text, video = torch.zeros(1, 4, 1), torch.tensor([[[7.0], [0.0], [8.0]]])
    >>> places = torch.tensor([[False, True, True, False]])
    >>> merge_embeddings(text, places, video, torch.tensor([[True, False, True]])).flatten().tolist()
    [0.0, 7.0, 8.0, 0.0]

    ```
    """
    if video_mask.shape[1] == 0:
        return inputs_embeds
    placeholders = placeholders.to(inputs_embeds.device)
    order = (~video_mask).to(inputs_embeds.device, torch.uint8).argsort(dim=1, stable=True)  # [B, n], padding last
    rank = (placeholders.cumsum(dim=1) - 1).clamp(min=0, max=order.shape[1] - 1)  # [B, L]
    index = order.gather(1, rank).unsqueeze(-1).expand(-1, -1, inputs_embeds.shape[-1])
    merged = video_embeddings.to(inputs_embeds).gather(1, index)
    return torch.where(placeholders.unsqueeze(-1), merged, inputs_embeds)


def fourier_times(mask: torch.Tensor, width: int) -> torch.Tensor:
    """Encode the position of each token in the video with [`fourier_features`].

    Every modality covers the whole video, so token i of n is centred at (i + 1/2) / n of the duration.

    Args:
        mask: [B, n], true for tokens; padding is at the end.
        width: width of the result.

    Returns:
        [B, n, width] in [-1, 1].
    """
    mask = mask.float()
    return fourier_features((mask.cumsum(dim=1) - 0.5) / mask.sum(dim=1, keepdim=True).clamp(min=1), width)


def fourier_features(shares: torch.Tensor, width: int) -> torch.Tensor:
    """Encode relative positions as cosines (first half) and sines (second half).

    The frequencies form a geometric series from a quarter of a turn per video, which distinguishes early from late, to
    ten turns, which distinguish neighbours.

    Args:
        shares: [...], relative positions in the duration, 0 to 1.
        width: width of the result; odd widths end with a zero.

    Returns:
        [..., width] in [-1, 1].
    """
    low, high = TIME_TURNS
    steps = torch.linspace(0, 1, width // 2, device=shares.device)
    angles = 2 * math.pi * shares.unsqueeze(-1) * low * (high / low) ** steps
    return nn.functional.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, width % 2))
