"""Detection of sounds: split where MFCCs change, stitch clips that sound the same, trace overlapping sounds.

Tracing is in `tracing.py`; speech turns are found separately, see `speech.py`. The published pipeline names splitting
and stitching, but no thresholds. The thresholds here were chosen on synthetic sounds, see `benchmarks/boundaries.py`,
which also compares the change points found here with those of ruptures.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...events import Seconds
from ...models.media import SAMPLING_RATE
from .calibration import calibrate
from .descriptors import STEP_S, AudioEmbedder, TimbreEmbedder, mfcc_rows
from .fusion import Interval
from .novelty import novelty, peaks
from .options import AudioOptions
from .tracing import clean_bands, place_sounds, trace_sounds

if TYPE_CHECKING:
    import numpy as np

#: A change must show in all of these windows: short ones locate it, long ones do not split repetitive sounds.
WINDOWS_S: tuple[Seconds, ...] = (0.6, 1.2, 2.4)


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
    """
    options, embedder = options or AudioOptions(), embedder or TimbreEmbedder()
    if waveform is None or len(waveform) < 2 * STEP_S * SAMPLING_RATE:
        return AudioBoundaries((), (), ())
    duration = len(waveform) / SAMPLING_RATE
    rows = mfcc_rows(waveform)
    found = peaks(change_curve(rows), options.change, round(options.apart_s / STEP_S))
    changes = [index * STEP_S for index in found if 0 < index * STEP_S < duration]
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
