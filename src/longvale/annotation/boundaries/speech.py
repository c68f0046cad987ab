"""Detection of speech turns with silero-vad, after steady sounds are removed.

The detector misses speech over an engine or a tone. Such sounds keep their frequencies, while those of speech change
with each phoneme: magnitude that stays at one frequency for seconds is not speech (spectral subtraction, Boll 1979,
"Suppression of acoustic noise in speech using spectral subtraction", with medians instead of an interval without
speech).

Music without its steady tones can resemble speech for a moment. In speech the detector is certain at least once per
turn, in music it is not: a turn must contain a window of probability `SpeechOptions.peak`.
"""

from __future__ import annotations

import threading
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

from ...events import Seconds
from ...models.media import SAMPLING_RATE
from ...system.extras import require
from .fusion import Interval
from .options import SpeechOptions

if TYPE_CHECKING:
    import numpy as np


#: The detector keeps state between windows, so it processes one waveform at a time.
_VAD_LOCK = threading.Lock()


@cache
def _load_vad() -> Any:
    with warnings.catch_warnings():  # silero-vad loads with a function that newer versions of PyTorch deprecate
        warnings.filterwarnings("ignore", message=".*torch.jit.load.*deprecated", category=FutureWarning)
        return require("silero_vad").load_silero_vad()


def find_speech(waveform: np.ndarray | None, options: SpeechOptions | None = None) -> list[Interval]:
    """Find speech turns with silero-vad: start and end in seconds.

    Args:
        waveform: float32 [samples], mono, 16 kHz; None for a silent video.
        options: default [`SpeechOptions`].

    Raises:
        ValueError: if silero-vad is missing.
    """
    options = options or SpeechOptions()
    if waveform is None or not len(waveform):
        return []
    import torch

    silero = require("silero_vad")
    cleaned = without_steady_sounds(waveform, options.steady)
    with _VAD_LOCK:
        detector = _Recorder(_load_vad())
        found = silero.get_speech_timestamps(
            torch.from_numpy(cleaned),
            detector,
            threshold=options.threshold,
            sampling_rate=SAMPLING_RATE,
            min_speech_duration_ms=round(options.min_length_s * 1000),
            min_silence_duration_ms=round(options.pause_s * 1000),
        )
    turns = [(part["start"] / SAMPLING_RATE, part["end"] / SAMPLING_RATE) for part in found]
    return [turn for turn in turns if detector.peak(*turn) >= options.peak]


class _Recorder:
    """Detector that keeps the probability of each window."""

    def __init__(self, model: Any) -> None:
        self._model, self._window_s = model, 0.0
        self._probabilities: list[float] = []

    def __call__(self, window: Any, rate: int) -> Any:
        probability = self._model(window, rate)
        self._window_s = len(window) / rate
        self._probabilities.append(float(probability))
        return probability

    def reset_states(self) -> None:
        self._model.reset_states()

    def peak(self, start: Seconds, end: Seconds) -> float:
        """Return the maximum probability between two times."""
        first = int(start / self._window_s)
        return max(self._probabilities[first : int(end / self._window_s) + 1], default=0.0)


def voice_probability(waveform: np.ndarray) -> float:
    """Return silero-vad's mean probability of speech in a sound as it is, nothing subtracted; 0 if it is too short.

    Args:
        waveform: float32 [samples], 16 kHz.

    Raises:
        ValueError: if silero-vad is missing.
    """
    import torch

    if len(waveform) < _VAD_STEP:
        return 0.0
    with _VAD_LOCK, torch.inference_mode():
        probabilities = _load_vad().audio_forward(torch.from_numpy(waveform)[None], sr=SAMPLING_RATE)
    return float(probabilities.mean())


def without_steady_sounds(waveform: np.ndarray, factor: float = 1.5) -> np.ndarray:
    """Subtract from each frequency `factor` times its median magnitude over the surrounding two seconds.

    Args:
        waveform: float32 [samples], 16 kHz; returned unchanged if shorter than two seconds.
        factor: 0 or more.

    Returns:
        float32 [samples]. The waveform is processed in chunks, so memory stays small.

    Example:
        >>> import numpy as np
        >>> tone = np.sin(np.arange(80_000) * 0.4).astype(np.float32)
        >>> bool(np.abs(without_steady_sounds(tone)[8000:-8000]).max() < 0.1)
        True
    """
    import numpy as np

    context = round(_STEADY_S * SAMPLING_RATE)
    if factor == 0 or len(waveform) < context:
        return waveform
    length = _STRETCH * context
    parts = []
    for begin in range(0, len(waveform), length):
        end = min(begin + length, len(waveform))
        first = max(0, min(begin, len(waveform) - context) - context)
        part = _subtract(waveform[first : end + context], factor)
        parts.append(part[begin - first : end - first])
    return np.concatenate(parts)


def _subtract(waveform: np.ndarray, factor: float) -> np.ndarray:
    import numpy as np
    import torch

    window = torch.hann_window(_FFT)
    spectrum = torch.stft(torch.from_numpy(waveform), _FFT, _HOP, window=window, return_complex=True)  # [257, frames]
    magnitude = spectrum.abs().numpy()
    usual = _moving_median(magnitude[:, ::_SPARSE], round(_STEADY_S * SAMPLING_RATE / _HOP / _SPARSE))
    usual = np.repeat(usual, _SPARSE, axis=1)[:, : magnitude.shape[1]]
    gain = np.maximum(1 - factor * usual / np.maximum(magnitude, 1e-9), _LEFT)
    return torch.istft(spectrum * torch.from_numpy(gain), _FFT, _HOP, window=window, length=len(waveform)).numpy()


def _moving_median(rows: np.ndarray, window: int) -> np.ndarray:
    """Compute the median of the `window` columns around each; near the ends, of the first or last: [rows, columns]."""
    import numpy as np

    count = rows.shape[1]
    window = min(window, count)
    at = np.arange(0, count, _SPARSE)
    views = np.lib.stride_tricks.sliding_window_view(rows, window, axis=1)
    medians = np.median(views[:, np.clip(at - window // 2, 0, count - window)], axis=2)
    return np.repeat(medians, _SPARSE, axis=1)[:, :count]


#: Samples per probability of silero-vad at 16 kHz.
_VAD_STEP = 512
_FFT, _HOP = 512, 160  # 32 ms every 10 ms
#: Window of the median: magnitude that lasts longer than half of this at one frequency is steady.
_STEADY_S: Seconds = 2.0
#: Only every fourth STFT frame is used, and a median is computed at every fourth of these.
_SPARSE = 4
#: Minimum gain of each frequency: a gain of zero causes clicks.
_LEFT = 0.05
#: Length of a chunk in units of `_STEADY_S`: one minute.
_STRETCH = 30
