"""Detection of sounds: split where MFCCs change, stitch clips that sound the same, trace overlapping sounds.

Tracing is in `tracing.py`; speech turns are found separately, see `speech.py`. The published pipeline names splitting
and stitching, but no thresholds. The thresholds here were chosen on synthetic sounds, see `benchmarks/boundaries.py`,
which also compares the peak picker used here with the change points of ruptures.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from ...events import Seconds
from ...models.media import SAMPLING_RATE
from ...system.extras import require
from .calibration import calibrate
from .descriptors import STEP_S, AudioEmbedder, TimbreEmbedder, mfcc_rows
from .fusion import Interval
from .novelty import novelty, peaks
from .tracing import clean_bands, place_sounds, trace_sounds

if TYPE_CHECKING:
    import numpy as np

Splitter = Literal["peaks", "ruptures"]

#: A change must show in all of these windows: short ones locate it, long ones do not split repetitive sounds.
WINDOWS_S: tuple[Seconds, ...] = (0.6, 1.2, 2.4)


@dataclass(frozen=True)
class AudioOptions:
    """Options of the detection of sounds.

    Args:
        splitter: `peaks` of the change of MFCCs over windows, or the kernel change points of `ruptures`.
        change: minimum change between windows, in spreads of an MFCC.
        apart_s: distance in seconds within which only the largest change is kept; the start or end of a sound within
            this distance of a change is moved to it.
        penalty: penalty of ruptures for one more change point.
        stitch: maximum distance of neighbours that are joined to one sound. For embedders other than MFCC statistics it
            is measured on the video, see `calibration.py`.
        goes_on: fraction of a sound's spectrum that must remain after a change for the sound to continue.
        joins: minimum fraction of the audible spectrum that a change must add to start another sound in addition to
            those that continue.
        at_once: maximum number of simultaneous sounds: listeners lose count of similar voices beyond three (Huron,
            "Voice Denumerability in Polyphonic Music of Homogeneous Timbres", 1989), and an orchestra would otherwise
            start a new sound with each instrument.
        fades: a sound is heard while its level is above this fraction of its maximum.
        pause_s: a sound ends unless it is heard again within this time in seconds.
        silence_db: level below which a step is silent, in dB relative to full scale.
        noise_factor: multiple of the power of the video's quietest tenth that is subtracted from each band as noise.
        min_length_s: sounds shorter than this in seconds are dropped.
    """

    splitter: Splitter = "peaks"
    change: float = 0.25
    apart_s: Seconds = 0.5
    penalty: float = 2.0
    stitch: float = 0.25
    goes_on: float = 0.4
    joins: float = 0.1
    at_once: int = 4
    fades: float = 0.1
    pause_s: Seconds = 1.2
    silence_db: float = -60.0
    noise_factor: float = 32.0
    min_length_s: Seconds = 0.5

    def __post_init__(self) -> None:
        if self.splitter not in get_args(Splitter):
            raise ValueError(f"splitter must be one of {', '.join(get_args(Splitter))}, not {self.splitter!r}")
        if self.at_once < 1:
            raise ValueError(f"at_once must be 1 or more, not {self.at_once!r}")
        if not 0 <= self.fades < 1:
            raise ValueError(f"fades must be 0 or more and below 1, not {self.fades!r}")


@dataclass(frozen=True)
class AudioBoundaries:
    """Result of [`find_audio_events`]: the change points, the clips before stitching, and the sounds."""

    changes: tuple[Seconds, ...]
    clips: tuple[Interval, ...]
    events: tuple[Interval, ...]


def find_audio_events(
    waveform: np.ndarray | None,
    options: AudioOptions | None = None,
    embedder: AudioEmbedder | None = None,
    turns: Sequence[Interval] = (),
) -> AudioBoundaries:
    """Find the sounds of a video.

    Args:
        waveform: float32 [samples], mono, 16 kHz; None for a silent video.
        options: default [`AudioOptions`].
        embedder: embeds the clips for stitching; default [`TimbreEmbedder`].
        turns: start and end of each speech turn in seconds. A sound within a turn (with a margin of 0.7 s) is taken for
            its speech and dropped.

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
    threshold = options.stitch
    if not isinstance(embedder, TimbreEmbedder) and len(clips) > 1:  # options.stitch applies to MFCC statistics
        threshold = _threshold_of(embedder, clips, waveform, options.stitch)
    joined = stitch_clips(clips, waveform, embedder, threshold)
    bands = clean_bands(waveform, options)
    traced = [sound for sound in trace_sounds(joined, bands, options) if not _spoken(sound[:2], turns)]
    placed = place_sounds(traced, turns, bands, [0.0, *changes, duration], options)
    return AudioBoundaries(tuple(changes), tuple(clips), tuple(x for x in placed if not _spoken(x, turns)))


def _spoken(sound: Interval, turns: Sequence[Interval]) -> bool:
    return any(a - _TURN_MARGIN_S <= sound[0] and sound[1] <= b + _TURN_MARGIN_S for a, b in turns)


def change_curve(rows: np.ndarray) -> np.ndarray:
    """Compute how much mean and standard deviation of the MFCCs change around each row: [n], in spreads of an MFCC."""
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
    curve[: round(WINDOWS_S[0] / STEP_S / 2)] = 0  # too close to the ends to compare windows
    curve[len(curve) - round(WINDOWS_S[0] / STEP_S / 2) :] = 0
    return curve


def _moving_spread(rows: np.ndarray, window: int) -> np.ndarray:
    """Compute the standard deviation of rows `i` to `i + window - 1`, fewer at the end: [n, d]."""
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


def stitch_clips(
    clips: Sequence[Interval], waveform: np.ndarray, embedder: AudioEmbedder, threshold: float
) -> list[Interval]:
    """Join the two most similar neighbours repeatedly, until no distance is `threshold` or less.

    Args:
        clips: start and end in seconds, each starting where the previous one ends.
        waveform: float32 [samples], 16 kHz.
        embedder: embeds the clips.
        threshold: Euclidean distance.
    """
    import numpy as np

    joined = list(clips)
    points = list(_embed(embedder, waveform, joined))
    while len(joined) > 1:
        distances = [float(np.linalg.norm(a - b)) for a, b in itertools.pairwise(points)]
        index = int(np.argmin(distances))
        if distances[index] > threshold:
            break
        joined[index : index + 2] = [(joined[index][0], joined[index + 1][1])]
        points[index : index + 2] = _embed(embedder, waveform, joined[index : index + 1])
    return joined


def _threshold_of(embedder: AudioEmbedder, clips: Sequence[Interval], waveform: np.ndarray, published: float) -> float:
    """Calibrate the threshold of an embedder on this video, see `calibration.py`; clip halves give the level `same`."""
    import numpy as np

    halves = [half for a, b in clips for half in ((a, (a + b) / 2), ((a + b) / 2, b))]
    rows = _embed(embedder, waveform, halves).reshape(len(clips), 2, -1)
    same = np.linalg.norm(rows[:, 0] - rows[:, 1], axis=1)
    return calibrate(same, _embed(embedder, waveform, clips), np.arange(len(clips)), published, share=0.1)


def _embed(embedder: AudioEmbedder, waveform: np.ndarray, parts: Sequence[Interval]) -> np.ndarray:
    return embedder([waveform[round(a * SAMPLING_RATE) : round(b * SAMPLING_RATE)] for a, b in parts])


#: Seconds by which the sound of speech may extend beyond its turn: speech detectors start late and end early or late.
_TURN_MARGIN_S: Seconds = 0.7
