"""Measured descriptors of frames and audio: embeddings that need no model weights.

The bins of the colour histograms are chosen so that the published threshold for stitching applies to them;
`benchmarks/boundaries.py --tune` shows it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ...events import Seconds
from ...models.media import SAMPLING_RATE

if TYPE_CHECKING:
    import torch


class FrameEmbedder(Protocol):
    """Interface of a frame embedder: frames that show the same get nearby embeddings."""

    name: str
    #: Shorter side in pixels of the input frames.
    size: int

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Embed frames: uint8 [n, H, W, 3] -> float [n, d]."""


class AudioEmbedder(Protocol):
    """Interface of an audio embedder: clips that sound the same get nearby embeddings."""

    name: str

    def __call__(self, clips: list[np.ndarray]) -> np.ndarray:
        """Embed audio clips: float32 [samples] each, 16 kHz -> float [n, d]."""


#: Number of bins of brightness and of the two colour differences, and the spread of the latter: with these values the
#: published threshold for stitching, .6, separates scenes best.
_BINS = (5, 8, 8)
_SPREAD = 3.0


class ColourEmbedder:
    """Frame embedder: the square root of a joint colour histogram, independent of the position in the frame.

    The Euclidean distance of two embeddings is sqrt(2) times the Hellinger distance of the histograms, 0 to sqrt(2).
    Each pixel is shared between neighbouring bins, so that small changes of light or grain do not move it to another.

    Example:
        >>> red, blue = np.zeros((2, 1, 4, 4, 3), np.uint8)
        >>> red[..., 0], blue[..., 2] = 255, 255
        >>> rows = ColourEmbedder()(np.concatenate([red, red, blue]))
        >>> rows.shape, [round(float(np.linalg.norm(rows[0] - row)), 2) for row in rows[1:]]
        ((3, 320), [0.0, 1.41])
    """

    name = "colour histograms"
    size = 48

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Embed frames: uint8 [n, H, W, 3] -> float32 [n, 320]."""
        rows = [self._embed(frames[begin : begin + 256]) for begin in range(0, len(frames), 256)]
        return np.concatenate(rows) if rows else np.empty((0, int(np.prod(_BINS))), np.float32)

    def _embed(self, frames: np.ndarray) -> np.ndarray:
        red, green, blue = np.moveaxis(frames.reshape(len(frames), -1, 3).astype(np.float32) / 255, -1, 0)
        differences = (np.tanh(_SPREAD * (red - green)), np.tanh(_SPREAD * (red + green - 2 * blue) / 2))
        channels = ((red + green + blue) / 3, *(difference / 2 + 0.5 for difference in differences))
        at = [channel * (bins - 1) for channel, bins in zip(channels, _BINS, strict=True)]
        low = [np.clip(value.astype(int), 0, bins - 2) for value, bins in zip(at, _BINS, strict=True)]
        size = int(np.prod(_BINS))
        histogram = np.zeros(len(frames) * size)
        row = np.arange(len(frames))[:, None] * size
        for corner in np.ndindex(2, 2, 2):  # the eight bins around each pixel
            weight, index = np.ones_like(red), np.zeros(red.shape, int)
            for upper, value, floor, bins in zip(corner, at, low, _BINS, strict=True):
                share = value - floor
                weight = weight * (share if upper else 1 - share)
                index = index * bins + floor + upper
            histogram += np.bincount((row + index).ravel(), weight.ravel(), minlength=len(histogram))
        return np.sqrt(histogram.reshape(len(frames), size) / red.shape[1]).astype(np.float32)


#: Rows and columns of the cells of a frame, and the share of a frame's width and height that a closer view shows.
_CELLS = 4
_CLOSER_SHARES = (1.0, 2 / 3)


class LayoutEmbedder:
    """Frame embedder: a colour histogram of each of 4 x 4 cells, so that what is where in the frame matters.

    The lowest level of a spatial pyramid (Lazebnik et al. 2006, doi 10.1109/CVPR.2006.68) with the histograms of
    [`ColourEmbedder`]; the Euclidean distance of two embeddings is the root mean square of the distances of the cells,
    0 to sqrt(2).

    Example:
        >>> left = np.zeros((1, 8, 8, 3), np.uint8)
        >>> left[:, :, :4] = 255
        >>> rows = LayoutEmbedder()(np.concatenate([left, left[:, :, ::-1]]))
        >>> rows.shape, round(float(np.linalg.norm(rows[0] - rows[1])), 2)
        ((2, 5120), 1.41)
    """

    name = "colour layouts"
    size = 48

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Embed frames: uint8 [n, H, W, 3] -> float32 [n, 5120]."""
        embed = ColourEmbedder()
        rows, columns = (np.linspace(0, side, _CELLS + 1).astype(int) for side in frames.shape[1:3])
        cells = [
            embed(np.ascontiguousarray(frames[:, top:bottom, left:right]))
            for top, bottom in itertools.pairwise(rows)
            for left, right in itertools.pairwise(columns)
        ]
        return np.concatenate(cells, axis=1) / _CELLS


def layout_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the distance of the layouts of two frames; a closer view of a scene is near the whole scene.

    Args:
        first: uint8 [H, W, 3].
        second: uint8 [H, W, 3].

    Returns:
        The smallest distance of a frame and the inner two thirds of the other, or of both frames, 0 to sqrt(2).

    Example:
        >>> frame = np.arange(48 * 48 * 3).reshape(48, 48, 3).astype(np.uint8)
        >>> layout_distance(frame, frame)
        0.0
    """
    views = [enlarge(np.stack([first, second]), share) for share in _CLOSER_SHARES]
    whole, *closer = (LayoutEmbedder()(view) for view in views)
    pairs = [(whole[0], whole[1]), *((row[i], whole[1 - i]) for row in closer for i in (0, 1))]
    return min(float(np.linalg.norm(a - b)) for a, b in pairs)


def enlarge(frames: np.ndarray, share: float) -> np.ndarray:
    """Enlarge the inner part of frames to their full size.

    Args:
        frames: uint8 [n, H, W, 3].
        share: share of height and width that remains visible, above 0 and at most 1.
    """
    margin = (1 - share) / 2
    rows, columns = (np.linspace(margin * n, (1 - margin) * n - 1, n).round().astype(int) for n in frames.shape[1:3])
    return frames[:, rows][:, :, columns]


# --- audio -----------------------------------------------------------------------------------------------------------

#: Length of an audio step.
STEP_S: Seconds = 0.1

MFCC_COUNT = 20
_MEL = {"n_fft": 512, "hop_length": 160, "n_mels": 40}  # 32 ms every 10 ms
_STEPS_AT_ONCE = 6000  # ten minutes

#: Spread of each MFCC over the sounds of the benchmark's training seed; coefficients are divided by it.
_MFCC_SPREAD = (
    56.3,
    39.1,
    20.6,
    16.3,
    13.4,
    13.3,
    10.9,
    9.4,
    13.2,
    9.0,
    9.6,
    7.5,
    8.9,
    7.8,
    7.9,
    8.8,
    8.4,
    7.0,
    6.1,
    5.9,
)

_SILENT_DB = -120.0


def mfcc_rows(waveform: np.ndarray) -> np.ndarray:
    """Compute MFCCs in steps of [`STEP_S`], each in units of its spread.

    Args:
        waveform: float32 [samples], 16 kHz.

    Returns:
        float32 [n, 20]; an incomplete last step is dropped.
    """
    import torchaudio

    transform = torchaudio.transforms.MFCC(SAMPLING_RATE, n_mfcc=MFCC_COUNT, melkwargs=_MEL)
    return _in_steps(waveform, transform, MFCC_COUNT) / np.array(_MFCC_SPREAD, np.float32)


def mel_power(waveform: np.ndarray) -> np.ndarray:
    """Compute the power of 40 mel bands in steps of [`STEP_S`]: float32 [n, 40]."""
    import torchaudio

    return _in_steps(waveform, torchaudio.transforms.MelSpectrogram(SAMPLING_RATE, **_MEL), _MEL["n_mels"])


def _in_steps(waveform: np.ndarray, transform: Callable[[torch.Tensor], torch.Tensor], width: int) -> np.ndarray:
    """Average the output of a transform, one value per 10 ms, over steps: [n, width]; in chunks to bound memory."""
    import torch

    hops = round(STEP_S * SAMPLING_RATE) // _MEL["hop_length"]
    step = hops * _MEL["hop_length"]
    rows = [np.empty((0, width), np.float32)]
    for begin in range(0, len(waveform) // step, _STEPS_AT_ONCE):
        part = waveform[begin * step : (begin + _STEPS_AT_ONCE) * step]
        values = transform(torch.from_numpy(part[: len(part) // step * step])).numpy()  # [width, hops + 1]
        rows.append(values[:, : len(part) // step * hops].reshape(width, -1, hops).mean(axis=2).T)
    return np.concatenate(rows)


def loudness(waveform: np.ndarray) -> np.ndarray:
    """Compute the level of each step of [`STEP_S`] in dB of full scale, -120 for silence: [n].

    Example:
        >>> loudness(np.full(3200, 0.1, np.float32)).round(1)
        array([-20., -20.])
    """
    length = round(STEP_S * SAMPLING_RATE)
    steps = waveform[: len(waveform) // length * length].reshape(-1, length)
    power = np.einsum("ij,ij->i", steps, steps, dtype=np.float64) / length
    return 10 * np.log10(np.maximum(power, 10 ** (_SILENT_DB / 10)))


class TimbreEmbedder:
    """Audio embedder: mean and standard deviation of the MFCCs, divided by the square root of their number."""

    name = "MFCC statistics"

    def __call__(self, clips: list[np.ndarray]) -> np.ndarray:
        """Embed audio clips: float32 [samples] each, 16 kHz -> float [n, 40]."""
        points = []
        for clip in clips:
            rows = mfcc_rows(clip)
            if not len(rows):
                rows = mfcc_rows(np.pad(clip, (0, round(STEP_S * SAMPLING_RATE) - len(clip))))
            points.append(np.concatenate([rows.mean(axis=0), rows.std(axis=0)]) / np.sqrt(MFCC_COUNT))
        return np.stack(points) if points else np.empty((0, 2 * MFCC_COUNT))
