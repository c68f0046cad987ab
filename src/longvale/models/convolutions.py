"""Grouped convolutions with correct results on every CPU.

On CPUs with AMX (Intel Xeon of 2023 and later), oneDNN computes grouped bfloat16 convolutions incorrectly if a group
has few channels: with 4 or 8 channels the whole result is wrong, without an error (torch 2.9.1 and 2.15.0). On a CPU
they are therefore computed in float32, whatever the precision of the module or of autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_LOW_PRECISION = (torch.bfloat16, torch.float16)


def convolve_in_float32(
    convolve: Callable[..., torch.Tensor],
    inputs: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    **options: Any,
) -> torch.Tensor:
    """Convolve, on a CPU in float32 if the operands or autocast have a lower precision.

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
