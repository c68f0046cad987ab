"""Sounds: split where MFCCs change, stitch what sounds the same, follow each sound through the changes around it.

Speech turns are found apart, see `speech.py`. The published pipeline names splitting and stitching but no thresholds;
those here were chosen on synthetic sounds, see `benchmarks/boundaries.py`, which also compares the peak picker used
here with the change points of ruptures.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from ...events import Seconds
from ...extras import require
from ...models.media import SAMPLING_RATE
from ..descriptors import STEP_S, SoundEmbedder, TimbreEmbedder, loudness, mel_power, mfcc_rows
from .fusion import Interval
from .novelty import novelty, peaks

if TYPE_CHECKING:
    import numpy as np

Splitter = Literal["peaks", "ruptures"]

#: A change is one that all of these windows see: short ones place it, long ones do not split sounds that repeat.
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
        goes_on: share of a sound's spectrum that must still be there after a change for it to go on.
        joins: share that a change must add to what is heard for another sound to begin beside those that go on.
        at_once: sounds that are told apart at a time at most: listeners lose count of like voices beyond three (Huron,
            "Voice Denumerability in Polyphonic Music of Homogeneous Timbres", 1989), and an orchestra would otherwise
            begin a new sound with each instrument.
        silence_db: what is quieter than this, relative to full scale, is silence.
        noise_factor: and so is, in each band, what is not this many times the power of the video's quietest tenth.
        min_length_s: sounds shorter than this are dropped.
    """

    splitter: Splitter = "peaks"
    change: float = 0.25
    apart_s: Seconds = 0.5
    penalty: float = 2.0
    stitch: float = 0.25
    goes_on: float = 0.4
    joins: float = 0.1
    at_once: int = 4
    silence_db: float = -60.0
    noise_factor: float = 32.0
    min_length_s: Seconds = 0.5

    def __post_init__(self) -> None:
        if self.splitter not in get_args(Splitter):
            raise ValueError(f"splitter must be one of {', '.join(get_args(Splitter))}, not {self.splitter!r}")
        if self.at_once < 1:
            raise ValueError(f"at_once must be 1 or more, not {self.at_once!r}")


@dataclass(frozen=True)
class AudioBoundaries:
    """What came of it: the change points, the clips before stitching, and the sounds."""

    changes: tuple[Seconds, ...]
    clips: tuple[Interval, ...]
    events: tuple[Interval, ...]


def find_sounds(
    waveform: np.ndarray | None,
    options: AudioOptions | None = None,
    embedder: SoundEmbedder | None = None,
    turns: Sequence[Interval] = (),
) -> AudioBoundaries:
    """Find the sounds of a video.

    Args:
        waveform: float32 [samples], mono, 16 kHz; None for a silent video.
        options: default [`AudioOptions`].
        embedder: decides what is stitched; default [`TimbreEmbedder`].
        turns: start and end of each speech turn in seconds. What sounds no longer than one of them is its speech, and
            not told again.

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
    sounds = [sound for sound in events if not any(_within(sound, turn) for turn in turns)]
    return AudioBoundaries(tuple(changes), tuple(clips), tuple(sounds))


def _within(sound: Interval, turn: Interval) -> bool:
    return turn[0] - _TURN_MARGIN_S <= sound[0] and sound[1] <= turn[1] + _TURN_MARGIN_S


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
    curve = np.min(curves, axis=0)
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
    """Follow sounds through the clips: each keeps a spectrum of its own, so that sounds which overlap end apart.

    At each change every sound that is heard goes on if enough of its spectrum is still there. What a change adds that
    none of those ever had is another sound, whose spectrum is what was added.

    Args:
        clips: start and end in seconds, each beginning where the one before ends.
        bands: [n, bands] in steps of 0.1 s, of [`clean_bands`].
        options: thresholds.

    Returns:
        Start and end of each sound by start; they may overlap.

    Example:
        A low sound from 0 to 4 s and a high one from 2 to 6 s.

        >>> import numpy as np
        >>> bands = np.zeros((60, 2))
        >>> bands[:40, 0], bands[20:, 1] = 1, 1
        >>> trace_sounds([(0.0, 2.0), (2.0, 4.0), (4.0, 6.0)], bands, AudioOptions())
        [(0.0, 4.0), (2.0, 6.0)]
    """
    import numpy as np

    def heard(clip: Interval) -> np.ndarray:
        first, last = round(clip[0] / STEP_S), max(round(clip[1] / STEP_S), round(clip[0] / STEP_S) + 1)
        trim = 1 if last - first > 2 else 0  # the steps at a change hold some of both sides
        return bands[first + trim : last - trim]

    compared = round(_COMPARED_S / STEP_S)
    sounds: list[Interval] = []
    going: list[tuple[Seconds, np.ndarray]] = []  # since when, and its spectrum
    before = np.zeros(bands.shape[1])
    for clip in clips:
        after = heard(clip)[:compared].mean(axis=0)
        stays = [_share(spectrum, after) >= options.goes_on for _, spectrum in going]
        sounds += [(since, clip[0]) for (since, _), stay in zip(going, stays, strict=True) if not stay]
        going = list(itertools.compress(going, stays))
        known = np.max([before, *(spectrum for _, spectrum in going)], axis=0)
        if not going:
            going = [(clip[0], after)] if after.sum() > 0 else []
        elif len(going) < options.at_once and np.maximum(after - known, 0).sum() > options.joins * after.sum():
            going.append((clip[0], np.maximum(after - before, 0)))
        elif len(going) == 1:  # alone, it is all that is heard, however it has changed
            going = [(going[0][0], after)]
        before = heard(clip)[-compared:].mean(axis=0)
    sounds += [(since, clips[-1][1]) for since, _ in going]
    return sorted({(a, b) for a, b in sounds if b - a >= options.min_length_s})


def _share(spectrum: np.ndarray, heard: np.ndarray) -> float:
    """Share of a spectrum, which is not silent, that is heard: 0 to 1."""
    import numpy as np

    return float(np.minimum(spectrum, heard).sum() / spectrum.sum())


#: The quietest tenth of a video tells its noise.
_QUIET = 0.1
#: Power of a mel band above which it is no noise but a sound that never stops; white noise of -30 dB reaches it.
_MOST_NOISE = 2.0
#: How much of both sides of a change is compared.
_COMPARED_S: Seconds = 1.5
#: How far beyond a speech turn its sound may be found: detectors of speech start late and end early or late.
_TURN_MARGIN_S: Seconds = 0.7
