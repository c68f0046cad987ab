"""Segmentation network: who of up to three speakers is active in each frame of a window, overlaps included.

The network is PyanNet of pyannote.audio (MIT), as its segmentation-3.0 configures it: SincNet filters, LSTM, linear
layers, and a powerset output: one class per set of speakers (Plaquet and Bredin, Interspeech 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import nn
from torch.nn import functional

#: Window and frame sizes in samples at 16 kHz: the network was trained on windows of 10 s. A frame covers 991 samples
#: (filter of 251, pools of 3 and convolutions of 5), every 270.
WINDOW, FRAME, FRAME_STEP = 160_000, 991, 270
#: Speakers per window, and at most at the same time.
LOCAL_SPEAKERS, AT_ONCE = 3, 2

#: Lowest frequency and least width of a filter in Hz, and sampling rate, of SincNet in pyannote.audio.
_LOWEST_HZ, _LEAST_BAND_HZ, _RATE = 50.0, 50.0, 16_000


def powerset(speakers: int = LOCAL_SPEAKERS, at_once: int = AT_ONCE) -> torch.Tensor:
    """Return which speakers each class contains, by number of speakers, then in lexical order.

    Returns:
        float32 [classes, speakers].

    Example:
        >>> powerset(2, 2).tolist()
        [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    sets = [chosen for size in range(at_once + 1) for chosen in combinations(range(speakers), size)]
    return torch.tensor([[float(speaker in chosen) for speaker in range(speakers)] for chosen in sets])


class SegmentationNet(nn.Module):
    """Network from windows of sound to log probabilities of the classes of [`powerset`].

    Args:
        filters: filters of the first layer.
        channels: channels of the convolutions.
        hidden: size of the LSTM per direction.
        layers: layers of the LSTM.
        linear: size of the two linear layers.
        classes: number of classes.
    """

    def __init__(
        self,
        filters: int = 80,
        channels: int = 60,
        hidden: int = 128,
        layers: int = 4,
        linear: int = 128,
        classes: int = 7,
    ) -> None:
        super().__init__()
        self.wav_norm1d = nn.InstanceNorm1d(1, affine=True)
        self.conv1d = nn.ModuleList(
            [
                nn.Conv1d(1, filters, 251, stride=10, bias=False),
                nn.Conv1d(filters, channels, 5),
                nn.Conv1d(channels, channels, 5),
            ]
        )
        self.norm1d = nn.ModuleList(nn.InstanceNorm1d(size, affine=True) for size in (filters, channels, channels))
        self.lstm = nn.LSTM(channels, hidden, layers, bidirectional=True, batch_first=True)
        self.linear = nn.ModuleList([nn.Linear(2 * hidden, linear), nn.Linear(linear, linear)])
        self.classifier = nn.Linear(linear, classes)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Compute log probabilities: float32 [B, samples] -> [B, frames, classes]."""
        hidden = self.wav_norm1d(waveforms.unsqueeze(1))
        for index, (convolve, norm) in enumerate(zip(self.conv1d, self.norm1d, strict=True)):
            hidden = convolve(hidden)
            if index == 0:
                hidden = hidden.abs()  # magnitude of the response of a band
            hidden = functional.leaky_relu(norm(functional.max_pool1d(hidden, 3)))
        hidden = self.lstm(hidden.transpose(1, 2))[0]
        for linear in self.linear:
            hidden = functional.leaky_relu(linear(hidden))
        return self.classifier(hidden).log_softmax(dim=-1)


def sinc_filters(
    low_hz: torch.Tensor, band_hz: torch.Tensor, window: torch.Tensor, turns: torch.Tensor
) -> torch.Tensor:
    """Compute the band-pass filters of SincNet from their learned frequencies (Ravanelli and Bengio, 2018).

    Args:
        low_hz: float [bands, 1], lowest frequency of each above 50 Hz.
        band_hz: float [bands, 1], width of each above 50 Hz.
        window: float [h], left half of the window function.
        turns: float [1, h], 2 pi t of the left half in seconds.

    Returns:
        float32 [2 bands, 1, 2 h + 1]: the even filters of all bands, then the odd ones, which are shifted by a quarter.
    """
    low = _LOWEST_HZ + low_hz.abs()
    high = (low + _LEAST_BAND_HZ + band_hz.abs()).clamp(_LOWEST_HZ, _RATE / 2)
    width = high - low
    scale = window / (turns / 2)
    even = (torch.sin(high @ turns) - torch.sin(low @ turns)) * scale
    odd = (torch.cos(low @ turns) - torch.cos(high @ turns)) * scale
    filters = torch.cat(
        [
            torch.cat([even, 2 * width, even.flip(1)], dim=1) / (2 * width),
            torch.cat([odd, torch.zeros_like(width), -odd.flip(1)], dim=1) / (2 * width),
        ]
    )
    return filters.unsqueeze(1)


def load_segmentation(state: Mapping[str, torch.Tensor]) -> SegmentationNet:
    """Build the network from the weights of pyannote's segmentation-3.0; sizes are those of the weights.

    Args:
        state: state dict of the lightning module, from `torch.load(..., weights_only=True)`.

    Raises:
        KeyError, RuntimeError: if weights are missing or do not fit.
    """
    named = {name.removeprefix("sincnet."): value for name, value in state.items()}
    bands = [named.pop(f"conv1d.0.filterbank.{name}_") for name in ("low_hz", "band_hz", "window", "n")]
    named["conv1d.0.weight"] = sinc_filters(*bands)
    net = SegmentationNet(
        filters=len(named["conv1d.0.weight"]),
        channels=len(named["conv1d.1.weight"]),
        hidden=named["lstm.weight_hh_l0"].shape[1],
        layers=sum(name.startswith("lstm.weight_hh_l") and "reverse" not in name for name in named),
        linear=len(named["linear.0.weight"]),
        classes=len(named["classifier.weight"]),
    )
    net.load_state_dict(named)
    return net.eval()
