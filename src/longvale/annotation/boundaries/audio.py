"""Sounds: split where MFCCs change, stitch what sounds the same, leave silence out. Speech turns are found apart.

The published pipeline names these steps but no thresholds; those here were chosen on synthetic sounds, see
`benchmarks/boundaries.py`, which also compares the peak picker used here with the change points of ruptures.
"""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from ...events import Seconds
from ...models.media import SAMPLING_RATE
from ..descriptors import STEP_S, SoundEmbedder, TimbreEmbedder, loudness, mel_power, mfcc_rows
from ..extras import require
from .fusion import Interval
from .novelty import novelty, peaks

if TYPE_CHECKING:
    import numpy as np

Splitter = Literal["peaks", "ruptures"]

#: An even mix of windows: short ones place a boundary well, long ones do not split sounds that repeat.
WINDOWS_S: tuple[Seconds, ...] = (0.6, 1.2, 2.4)


@dataclass(frozen=True)
class AudioOptions:
    """How sounds are found.

    Args:
        splitter: `peaks` of how much MFCCs change over windows, or `ruptures`' kernel change points.
        change: least change of the windows, in spreads of an MFCC.
        apart_s: of changes this near each other only the greatest counts.
        penalty: of ruptures, for one more change point.
        stitch: neighbours that differ by at most this are one sound.
        goes_on: share of a sound that must still be there after a change for it to go on.
        silence_db: what is quieter than this, relative to full scale, is silence.
        noise_factor: and so is, in each band, what is not this many times the power of the video's quietest tenth.
        min_length_s: sounds shorter than this are dropped.
    """

    splitter: Splitter = "peaks"
    change: float = 0.35
    apart_s: Seconds = 0.7
    penalty: float = 2.0
    stitch: float = 0.3
    goes_on: float = 0.44
    silence_db: float = -60.0
    noise_factor: float = 16.0
    min_length_s: Seconds = 0.5

    def __post_init__(self) -> None:
        if self.splitter not in get_args(Splitter):
            raise ValueError(f"splitter must be one of {', '.join(get_args(Splitter))}, not {self.splitter!r}")


@dataclass(frozen=True)
class AudioBoundaries:
    """What came of it: the change points, the clips before stitching, and the sounds."""

    changes: tuple[Seconds, ...]
    clips: tuple[Interval, ...]
    events: tuple[Interval, ...]


def find_sounds(
    waveform: np.ndarray | None, options: AudioOptions | None = None, embedder: SoundEmbedder | None = None
) -> AudioBoundaries:
    """Find the sounds of a video.

    Args:
        waveform: float32 [samples], mono, 16 kHz; None for a silent video.
        options: default [`AudioOptions`].
        embedder: decides what is stitched; default [`TimbreEmbedder`].

    Raises:
        ValueError: if the splitter's package is missing.
    """
    options, embedder = options or AudioOptions(), embedder or TimbreEmbedder()
    if waveform is None or len(waveform) < 2 * STEP_S * SAMPLING_RATE:
        return AudioBoundaries((), (), ())
    duration = len(waveform) / SAMPLING_RATE
    rows = mfcc_rows(waveform)
    splitters: dict[str, Callable[[], list[int]]] = {
        "peaks": lambda: peaks(change_curve(rows), options.change, round(options.apart_s / STEP_S)),
        "ruptures": lambda: _change_points(rows, options.penalty),
    }
    changes = [index * STEP_S for index in splitters[options.splitter]() if 0 < index * STEP_S < duration]
    clips = list(zip([0.0, *changes], [*changes, duration], strict=True))
    joined = stitch_sounds(clips, waveform, embedder, options.stitch)
    events = trace_sounds(joined, clean_bands(waveform, options), options)
    return AudioBoundaries(tuple(changes), tuple(clips), tuple(events))


def change_curve(rows: np.ndarray) -> np.ndarray:
    """How much mean and spread of MFCCs change around each row: [n], in spreads of a coefficient."""
    import numpy as np

    curves = []
    for window_s in WINDOWS_S:
        window = round(window_s / STEP_S)
        spread = _moving_spread(rows, window)
        means = novelty(rows, window)
        at = np.arange(len(rows))
        before, after = spread[np.maximum(at - window, 0)], spread[at]
        spreads = np.linalg.norm(before - after, axis=1)
        curves.append(np.hypot(means, spreads) / np.sqrt(rows.shape[1]))
    curve = np.mean(curves, axis=0)
    curve[: round(WINDOWS_S[0] / STEP_S / 2)] = 0  # too near the ends for windows to be compared
    curve[len(curve) - round(WINDOWS_S[0] / STEP_S / 2) :] = 0
    return curve


def _moving_spread(rows: np.ndarray, window: int) -> np.ndarray:
    """Standard deviation of rows `i` to `i + window - 1`, fewer at the end: [n, d]."""
    import numpy as np

    sums, squares = (
        np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(x, axis=0)]) for x in (rows, rows.astype(float) ** 2)
    )
    at = np.arange(len(rows))
    end = np.minimum(at + window, len(rows))
    count = (end - at)[:, None]
    mean = (sums[end] - sums[at]) / count
    return np.sqrt(np.maximum((squares[end] - squares[at]) / count - mean**2, 0))


def _change_points(rows: np.ndarray, penalty: float) -> list[int]:
    ruptures = require("ruptures")
    if len(rows) < 10:
        return []
    return ruptures.KernelCPD(kernel="rbf", min_size=5).fit(rows).predict(pen=penalty)[:-1]


def stitch_sounds(
    clips: Sequence[Interval], waveform: np.ndarray, embedder: SoundEmbedder, threshold: float
) -> list[Interval]:
    """Join the two neighbours that sound most alike, until none differ by `threshold` or less.

    Args:
        clips: start and end in seconds, each beginning where the one before ends.
        waveform: float32 [samples], 16 kHz.
        embedder: of stretches of sound.
        threshold: Euclidean.
    """
    import numpy as np

    def embed(parts: Sequence[Interval]) -> np.ndarray:
        return embedder([waveform[round(a * SAMPLING_RATE) : round(b * SAMPLING_RATE)] for a, b in parts])

    joined = list(clips)
    points = list(embed(joined))
    while len(joined) > 1:
        distances = [float(np.linalg.norm(a - b)) for a, b in itertools.pairwise(points)]
        index = int(np.argmin(distances))
        if distances[index] > threshold:
            break
        joined[index : index + 2] = [(joined[index][0], joined[index + 1][1])]
        points[index : index + 2] = embed(joined[index : index + 1])
    return joined


# --- which sounds go on ----------------------------------------------------------------------------------------------


def clean_bands(waveform: np.ndarray, options: AudioOptions) -> np.ndarray:
    """Magnitude of each mel band in steps of 0.1 s, without noise and silence: [n, 40]."""
    import numpy as np

    power = mel_power(waveform)
    if not len(power):
        return power
    noise = np.minimum(np.quantile(power, _QUIET, axis=0), _MOST_NOISE)
    bands = np.sqrt(np.maximum(power - options.noise_factor * noise, 0))
    bands[loudness(waveform)[: len(bands)] < options.silence_db] = 0
    return bands


def trace_sounds(clips: Sequence[Interval], bands: np.ndarray, options: AudioOptions) -> list[Interval]:
    """Follow sounds through the clips: where another joins one that goes on, the two overlap.

    Args:
        clips: start and end in seconds, each beginning where the one before ends.
        bands: [n, bands] in steps of 0.1 s, of [`clean_bands`].
        options: thresholds.

    Returns:
        Start and end of each sound by start; they may overlap.
    """
    import numpy as np

    def level(start: Seconds, end: Seconds) -> np.ndarray:
        first, last = round(start / STEP_S), max(round(end / STEP_S), round(start / STEP_S) + 1)
        trim = 1 if last - first > 2 else 0  # the steps at a change hold some of both sides
        return bands[first + trim : last - trim].mean(axis=0)

    sounds: list[Interval] = []
    going: list[tuple[Seconds, np.ndarray]] = []  # since when, and what was there before it joined
    for index, (start, end) in enumerate(clips):
        after = level(start, min(end, start + _COMPARED_S))
        before = level(max(clips[index - 1][0], start - _COMPARED_S), start) if index else np.zeros_like(after)
        if not going or _shared(before, after) < options.goes_on:
            sounds += [(since, start) for since, _ in going]
            going = [(start, before)] if after.sum() else []
        elif after.sum() > before.sum():
            going.append((start, before))
        else:
            sounds.append((_ending(going, after), start))
    sounds += [(since, clips[-1][1]) for since, _ in going]
    return sorted({(a, b) for a, b in sounds if b - a >= options.min_length_s})


def _ending(going: list[tuple[Seconds, np.ndarray]], left: np.ndarray) -> Seconds:
    """When the sound began that ends and leaves `left`; it is taken off `going`, unless it is the only one.

    If it leaves what was there before the last one joined, the last one ends; else the first.
    """
    if len(going) == 1:  # of two that began together one goes on
        return going[0][0]
    return going.pop(-1 if _alike(going[-1][1], left) else 0)[0]


def _shared(first: np.ndarray, second: np.ndarray) -> float:
    """Share of the quieter of two spectra that is in the other, too: 0 to 1; 0 if one is silent."""
    import numpy as np

    least = min(first.sum(), second.sum())
    return float(np.minimum(first, second).sum() / least) if least > 0 else 0.0


def _alike(first: np.ndarray, second: np.ndarray) -> bool:
    import numpy as np

    most = np.maximum(first, second).sum()
    return bool(most > 0 and np.minimum(first, second).sum() > 0.5 * most)


#: The quietest tenth of a video tells its noise.
_QUIET = 0.1
#: Power of a mel band above which it is no noise but a sound that never stops; white noise of -30 dB reaches it.
_MOST_NOISE = 2.0
#: How much of both sides of a change is compared.
_COMPARED_S: Seconds = 1.5


# --- speech ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SpeechOptions:
    """How speech turns are found.

    Args:
        threshold: probability of speech from which silero-vad takes it for speech.
        pause_s: shorter pauses do not end a turn.
        min_length_s: shorter speech is dropped.
    """

    threshold: float = 0.5
    pause_s: Seconds = 1.0
    min_length_s: Seconds = 0.25


#: The detector keeps a state from window to window: one sound at a time.
_VAD_LOCK = threading.Lock()


@cache
def _load_vad() -> Any:
    with warnings.catch_warnings():  # silero-vad loads in a way that newer versions of PyTorch advise against
        warnings.filterwarnings("ignore", message=".*torch.jit.load.*deprecated", category=FutureWarning)
        return require("silero_vad").load_silero_vad()


def find_speech(waveform: np.ndarray | None, options: SpeechOptions | None = None) -> list[Interval]:
    """Speech turns: start and end in seconds, found by silero-vad.

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
    with _VAD_LOCK:
        found = silero.get_speech_timestamps(
            torch.from_numpy(waveform),
            _load_vad(),
            threshold=options.threshold,
            sampling_rate=SAMPLING_RATE,
            min_speech_duration_ms=round(options.min_length_s * 1000),
            min_silence_duration_ms=round(options.pause_s * 1000),
        )
    return [(part["start"] / SAMPLING_RATE, part["end"] / SAMPLING_RATE) for part in found]
