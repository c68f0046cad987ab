"""Speaker embedding network CAM++: a vector per stretch of speech, close for the same voice.

Wang et al., "CAM++: A Fast and Efficient Network for Speaker Verification Using Context-Aware Masking", Interspeech
2023: a residual front end over mel bins, three dense blocks of time-delay layers, each masked by its context, and the
mean and standard deviation over time. Weights of 3D-Speaker (Apache-2.0) load under their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from ...models.feature_extraction_beats import kaldi_fbank

#: Mel bins of the filterbank.
MEL_BINS = 80
#: Layers and dilations of the three dense blocks, and channels that a layer adds and works in.
_BLOCKS, _GROWTH, _BOTTLENECK = ((12, 1), (24, 2), (16, 2)), 32, 128
#: Frames of 20 ms whose mean is the local context of a mask.
_CONTEXT = 100


class _NormRelu(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.batchnorm = nn.BatchNorm1d(channels)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.batchnorm(inputs).relu()


class _Residual(nn.Module):
    """Two convolutions over mel bins and time with a shortcut; `stride` is that of the mel bins."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, (stride, 1), 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.extend([nn.Conv2d(channels, channels, 1, (stride, 1), bias=False), nn.BatchNorm2d(channels)])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.bn1(self.conv1(inputs)).relu()
        return (self.bn2(self.conv2(hidden)) + self.shortcut(inputs)).relu()


class _FrontEnd(nn.Module):
    """Residual front end: [B, mel bins, T] -> [B, channels * mel bins / 8, T]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = nn.Sequential(_Residual(channels, 2), _Residual(channels, 1))
        self.layer2 = nn.Sequential(_Residual(channels, 2), _Residual(channels, 1))
        self.conv2 = nn.Conv2d(channels, channels, 3, (2, 1), 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.bn1(self.conv1(inputs.unsqueeze(1))).relu()
        hidden = self.bn2(self.conv2(self.layer2(self.layer1(hidden)))).relu()
        return hidden.flatten(1, 2)


class _MaskedLayer(nn.Module):
    """Time-delay layer whose output is weighted by the mean of the whole sound and of its neighbourhood."""

    def __init__(self, channels: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(channels, outputs, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(channels, channels // 2, 1)
        self.linear2 = nn.Conv1d(channels // 2, outputs, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        near = functional.avg_pool1d(inputs, _CONTEXT, _CONTEXT, ceil_mode=True)
        near = near.repeat_interleave(_CONTEXT, dim=-1)[..., : inputs.shape[-1]]
        mask = self.linear2(self.linear1(inputs.mean(-1, keepdim=True) + near).relu()).sigmoid()
        return self.linear_local(inputs) * mask


class _DenseLayer(nn.Module):
    """Layer of a dense block: its outputs are appended to its inputs."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1, self.linear1 = _NormRelu(channels), nn.Conv1d(channels, _BOTTLENECK, 1, bias=False)
        self.nonlinear2, self.cam_layer = _NormRelu(_BOTTLENECK), _MaskedLayer(_BOTTLENECK, _GROWTH, dilation)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.nonlinear2(self.linear1(self.nonlinear1(inputs)))
        return torch.cat([inputs, self.cam_layer(hidden)], dim=1)


class _Step(nn.Module):
    """A 1 x 1 or wider convolution after, or before, its normalization."""

    def __init__(self, channels: int, outputs: int, size: int = 1, stride: int = 1, *, first: bool = False) -> None:
        super().__init__()
        self.linear = nn.Conv1d(channels, outputs, size, stride, size // 2, bias=False)
        self.nonlinear, self._first = _NormRelu(outputs if first else channels), first

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.nonlinear(self.linear(inputs)) if self._first else self.linear(self.nonlinear(inputs))


class _Output(nn.Module):
    """Last layer: mean and standard deviation over time to the embedding."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(2 * channels, size, 1, bias=False)
        self.nonlinear = nn.ModuleDict({"batchnorm": nn.BatchNorm1d(size, affine=False)})

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        moments = torch.cat([inputs.mean(-1), inputs.std(-1)], dim=1)
        return self.nonlinear["batchnorm"](self.linear(moments.unsqueeze(-1)).squeeze(-1))


class EmbeddingNet(nn.Module):
    """CAM++: log mel filterbanks, their mean over time removed, to embeddings.

    Args:
        size: size of an embedding.
        blocks: layers and dilation of each dense block.
        channels: channels of the front end.
    """

    def __init__(self, size: int = 192, blocks: Sequence[tuple[int, int]] = _BLOCKS, channels: int = 32) -> None:
        super().__init__()
        self.head = _FrontEnd(channels)
        layers: dict[str, nn.Module] = {"tdnn": _Step(channels * MEL_BINS // 8, 128, 5, 2, first=True)}
        width = 128
        for number, (count, dilation) in enumerate(blocks, 1):
            block = {f"tdnnd{i + 1}": _DenseLayer(width + i * _GROWTH, dilation) for i in range(count)}
            width += count * _GROWTH
            layers |= {f"block{number}": nn.Sequential(), f"transit{number}": _Step(width, width // 2)}
            for name, layer in block.items():
                layers[f"block{number}"].add_module(name, layer)
            width //= 2
        layers |= {"out_nonlinear": _NormRelu(width), "dense": _Output(width, size)}
        self.xvector = nn.Sequential()
        for name, layer in layers.items():
            self.xvector.add_module(name, layer)

    def forward(self, fbank: torch.Tensor) -> torch.Tensor:
        """Compute embeddings: float32 [B, T, 80] -> [B, size]."""
        return self.xvector(self.head(fbank.transpose(1, 2)))

    @torch.inference_mode()
    def embed(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Embed sounds of one length.

        Args:
            waveforms: float32 [B, samples], 16 kHz, at least 0.1 s.

        Returns:
            float32 [B, size] of length 1.
        """
        fbank = torch.stack(kaldi_fbank(list(waveforms), MEL_BINS))
        return functional.normalize(self(fbank - fbank.mean(dim=1, keepdim=True)))


def load_embedding(state: Mapping[str, torch.Tensor]) -> EmbeddingNet:
    """Build the network from the weights of 3D-Speaker's CAM++.

    Args:
        state: state dict, from `torch.load(..., weights_only=True)`.

    Raises:
        KeyError, RuntimeError: if weights are missing or do not fit.
    """
    net = EmbeddingNet(len(state["xvector.dense.linear.weight"]))
    net.load_state_dict(state)
    return net.eval()
