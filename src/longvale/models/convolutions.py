"""Grouped convolutions that are right on every CPU.

oneDNN computes a grouped convolution in bfloat16 wrongly on CPUs with AMX (Intel Xeon of 2023 and later) where a group
has few channels: with 4 or 8 of them nothing of the result is right, without an error (torch 2.9.1 and 2.15.0). So on a
CPU they are computed in float32, whatever the precision of the module or of autocast.
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
    """Convolve; on a CPU in float32 where the operands or autocast are of lower precision.

    Args:
        convolve: such as `torch.nn.functional.conv1d`.
        inputs: [B, C, ...].
        weight: of the convolution.
        bias: of the convolution, or None.
        options: of `convolve`.

    Returns:
        What `convolve` gives, on a CPU in the precision of `inputs`.

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
    """Mixed into a convolution of torch, whose `forward` computes the weight and calls `_conv_forward`."""

    def _conv_forward(self, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return convolve_in_float32(super()._conv_forward, inputs, weight, bias)


class _Conv1d(_InFloat32, nn.Conv1d):
    pass


class _Conv2d(_InFloat32, nn.Conv2d):
    pass


class _Conv3d(_InFloat32, nn.Conv3d):
    pass


#: By class, so that models can still be pickled.
_RAISED = {nn.Conv1d: _Conv1d, nn.Conv2d: _Conv2d, nn.Conv3d: _Conv3d}


def guard_convolutions(model: nn.Module) -> nn.Module:
    """Let the grouped and depthwise convolutions of a model of others compute as [`convolve_in_float32`] does.

    Args:
        model: changed in place; weights and their names stay.

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
            # With a parametrised weight, as of wav2vec 2.0, torch has made a class of its own.
            module.__class__ = _RAISED.get(kind) or type(kind.__name__, (_InFloat32, kind), {})
    return model
