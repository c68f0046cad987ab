"""Tracing of overlapping sounds: which sounds continue across a change, and when exactly each is heard.

Each sound has its own spectrum. The sounds are first traced from change to change. The observed spectrum of each step
is then divided among the sounds' spectra, and a sound lasts as long as its part does. The start or end of a sound is
therefore found even if a louder sound continues.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...events import Seconds
from .descriptors import STEP_S, loudness, mel_power
from .fusion import Interval

if TYPE_CHECKING:
    import numpy as np

    from .options import AudioOptions


class Sound(NamedTuple):
    """A sound: start and end in seconds, and its spectrum, the magnitude that it adds to each mel band, [bands]."""

    start: Seconds
    end: Seconds
    spectrum: np.ndarray


def clean_bands(waveform: np.ndarray, options: AudioOptions) -> np.ndarray:
    """Compute the magnitude of each mel band in steps of 0.1 s, without noise and silence: [n, 40]."""
    import numpy as np

    power = mel_power(waveform)
    if not len(power):
        return power
    noise = np.minimum(np.quantile(power, _QUIET, axis=0), _MOST_NOISE)
    bands = np.sqrt(np.maximum(power - options.noise_factor * noise, 0))
    bands[loudness(waveform)[: len(bands)] < options.silence_db] = 0
    return bands


def trace_sounds(clips: Sequence[Interval], bands: np.ndarray, options: AudioOptions) -> list[Sound]:
    """Trace sounds through the clips; each has its own spectrum, so that overlapping sounds can end independently.

    At each change, a sound continues if enough of its spectrum remains. If the change adds energy that none of the
    continuing sounds had, that energy is the spectrum of another sound.

    Args:
        clips: start and end in seconds, each starting where the previous one ends.
        bands: [n, bands] in steps of 0.1 s, from [`clean_bands`].
        options: thresholds.

    Returns:
        Sounds by start; they may overlap.

    Example:
        A low sound from 0 to 4 s and a high one from 2 to 6 s.

        >>> import numpy as np
        >>> from longvale.annotation.boundaries.options import AudioOptions
        >>> bands = np.zeros((60, 2))
        >>> bands[:40, 0], bands[20:, 1] = 1, 1
        >>> sounds = trace_sounds([(0.0, 2.0), (2.0, 4.0), (4.0, 6.0)], bands, AudioOptions())
        >>> [(sound.start, sound.end, sound.spectrum.tolist()) for sound in sounds]
        [(0.0, 4.0, [1.0, 0.0]), (2.0, 6.0, [0.0, 1.0])]
    """
    import numpy as np

    def heard(clip: Interval) -> np.ndarray:
        first, last = round(clip[0] / STEP_S), max(round(clip[1] / STEP_S), round(clip[0] / STEP_S) + 1)
        trim = 1 if last - first > 2 else 0  # the steps at a change contain some of both sides
        return bands[first + trim : last - trim]

    compared = round(_COMPARED_S / STEP_S)
    sounds: list[Sound] = []
    going: list[tuple[Seconds, np.ndarray]] = []  # start and spectrum
    before = np.zeros(bands.shape[1])
    for clip in clips:
        after = heard(clip)[:compared].mean(axis=0)
        stays = [_share(spectrum, after) >= options.continue_share for _, spectrum in going]
        sounds += [Sound(since, clip[0], own) for (since, own), stay in zip(going, stays, strict=True) if not stay]
        going = list(itertools.compress(going, stays))
        known = np.max([before, *(spectrum for _, spectrum in going)], axis=0)
        if not going:
            going = [(clip[0], after)] if after.sum() > 0 else []
        elif (
            len(going) < options.max_overlap and np.maximum(after - known, 0).sum() > options.added_share * after.sum()
        ):
            going.append((clip[0], np.maximum(after - before, 0)))
        elif len(going) == 1:  # a single sound is all that is heard, however it changed
            going = [(going[0][0], after)]
        before = heard(clip)[-compared:].mean(axis=0)
    sounds += [Sound(since, clips[-1][1], spectrum) for since, spectrum in going]
    return sorted((x for x in sounds if x.end - x.start >= options.min_length_s), key=lambda x: x[:2])


def _share(spectrum: np.ndarray, heard: np.ndarray) -> float:
    """Return the fraction of a spectrum, which must not be silent, that is heard: 0 to 1."""
    import numpy as np

    return float(np.minimum(spectrum, heard).sum() / spectrum.sum())


def place_sounds(
    sounds: Sequence[Sound],
    turns: Sequence[Interval],
    bands: np.ndarray,
    changes: Sequence[Seconds],
    options: AudioOptions,
) -> list[Interval]:
    """Refine the start and end of each sound to the time in which its own spectrum is heard.

    Args:
        sounds: from [`trace_sounds`]; each may shrink or grow at both ends, and grow by at most one second.
        turns: start and end of each speech turn in seconds; what is heard in a turn may be its speech.
        bands: [n, bands] in steps of 0.1 s, from [`clean_bands`].
        changes: times of changes in seconds, including the ends of the video. A start or end within `apart_s` of one of
            them, or of the start or end of a turn, is moved there.
        options: `level_floor`, `pause_s`, `apart_s` and `min_length_s` are used.

    Returns:
        Start and end of each sound, sorted by start; they may overlap. Sounds that are not heard are dropped.

    Example:
        A sound traced from 0 to 6 s is heard until 4 s.

        >>> import numpy as np
        >>> from longvale.annotation.boundaries.options import AudioOptions
        >>> bands = np.zeros((60, 2))
        >>> bands[:40, 0] = 1
        >>> place_sounds([Sound(0.0, 6.0, np.array([1.0, 0.0]))], [], bands, [], AudioOptions())
        [(0.0, 4.0)]
    """
    import numpy as np

    spectra = [sound.spectrum for sound in sounds]
    windows = [_steps(sound[:2], _GROWS_S, len(bands)) for sound in sounds]
    for turn in turns:
        spoken = bands[slice(*_steps(turn, 0.0, len(bands)))]
        spectra.append(spoken.mean(axis=0) if len(spoken) else np.zeros(bands.shape[1]))
        windows.append(_steps(turn, _TURN_GROWS_S, len(bands)))
    marks = np.array([*changes, *itertools.chain(*turns)])

    def mark(time: Seconds) -> Seconds:
        nearest = marks[np.abs(marks - time).argmin()] if len(marks) else np.inf
        return float(nearest) if abs(nearest - time) <= options.apart_s else time

    placed = set()
    for sound, (first, _), own in zip(sounds, windows, fit_levels(bands, spectra, windows), strict=False):
        begin, end = _steps(sound[:2], 0.0, len(bands))
        loudest = own[begin - first : end - first].max(initial=0.0)
        loud = first + np.flatnonzero(own > options.level_floor * loudest) if loudest > 0 else np.empty(0, int)
        if not len(loud):
            continue
        runs = np.split(loud, np.flatnonzero(np.diff(loud) * STEP_S > options.pause_s) + 1)
        run = max(runs, key=lambda run: min(run[-1] + 1, end) - max(run[0], begin))
        start, stop = mark(float(run[0]) * STEP_S), mark(float(run[-1] + 1) * STEP_S)
        if stop - start >= options.min_length_s:
            placed.add((start, stop))
    return sorted(placed)


def fit_levels(
    bands: np.ndarray, spectra: Sequence[np.ndarray], windows: Sequence[tuple[int, int]]
) -> list[np.ndarray]:
    """Compute the level of each spectrum at each step, so that their sum fits the observed bands best.

    This is a non-negative matrix factorization (Lee and Seung 2001, "Algorithms for non-negative matrix factorization",
    the update for the divergence) in which the spectra are fixed. Steps are independent of each other.

    Args:
        bands: [n, bands].
        spectra: [bands] each.
        windows: for each spectrum the first step at which it may be heard, and the one after the last.

    Returns:
        One array per spectrum, of its window's length.

    Example:
        >>> import numpy as np
        >>> bands, low, both = np.array([[2.0, 0.0], [3.0, 1.0]]), np.array([1.0, 0.0]), np.array([1.0, 1.0])
        >>> [loud.round(2).tolist() for loud in fit_levels(bands, [low, both], [(0, 2), (0, 2)])]
        [[2.0, 2.0], [0.0, 2.0]]
    """
    import numpy as np

    shares = [np.zeros(end - begin) for begin, end in windows]
    for first in range(0, len(bands), _STEPS_AT_ONCE):
        heard = bands[first : first + _STEPS_AT_ONCE].T  # [bands, steps]
        last = first + heard.shape[1]
        here = [i for i, (begin, end) in enumerate(windows) if begin < last and end > first]
        if not here:
            continue
        steps = np.arange(first, last)
        allowed = np.array([(steps >= windows[i][0]) & (steps < windows[i][1]) for i in here])
        basis = np.array([spectra[i] for i in here]).T + _TINY
        basis /= basis.sum(axis=0)
        loud = allowed * heard.sum(axis=0) / np.maximum(allowed.sum(axis=0), 1)
        for _ in range(_ROUNDS):
            loud *= basis.T @ (heard / (basis @ loud + _TINY))
        for i, own in zip(here, loud, strict=True):
            begin, end = max(windows[i][0], first), min(windows[i][1], last)
            shares[i][begin - windows[i][0] : end - windows[i][0]] = own[begin - first : end - first]
    return shares


def _steps(interval: Interval, margin: Seconds, count: int) -> tuple[int, int]:
    """Return the first step of an interval with margins, and the one after the last."""
    return (
        max(0, round((interval[0] - margin) / STEP_S)),
        min(count, round((interval[1] + margin) / STEP_S)),
    )


#: Quantile of the power of a band that is taken as its noise: the quietest tenth of the video.
_QUIET = 0.1
#: Power of a mel band above which it is a continuous sound, not noise; white noise of -30 dB reaches it.
_MOST_NOISE = 2.0
#: Length in seconds that is compared on both sides of a change.
_COMPARED_S: Seconds = 1.5
#: Seconds by which a sound may extend beyond its traced interval, and speech beyond its turn.
_GROWS_S: Seconds = 1.0
_TURN_GROWS_S: Seconds = 0.3
#: Iterations after which levels hardly change, steps processed at a time, and a constant that keeps divisions finite.
_ROUNDS, _STEPS_AT_ONCE, _TINY = 50, 600, 1e-9
