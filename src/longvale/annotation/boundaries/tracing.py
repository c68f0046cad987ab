"""Which sounds go on through the changes around them, and when exactly each is heard.

Each sound keeps a spectrum of its own. Following them from change to change tells which sounds there are; then what is
heard is shared out among their spectra, step by step, and each sound lasts as long as its share does. So that the one
starts or ends is found even where another that is louder goes on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...events import Seconds
from ..descriptors import STEP_S, loudness, mel_power
from .fusion import Interval

if TYPE_CHECKING:
    import numpy as np

    from .audio import AudioOptions


class Sound(NamedTuple):
    """A sound: start and end in seconds, and the magnitude of each mel band that it adds, [bands]."""

    start: Seconds
    end: Seconds
    spectrum: np.ndarray


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


def trace_sounds(clips: Sequence[Interval], bands: np.ndarray, options: AudioOptions) -> list[Sound]:
    """Follow sounds through the clips: each keeps a spectrum of its own, so that sounds which overlap end apart.

    At each change every sound that is heard goes on if enough of its spectrum is still there. What a change adds that
    none of those ever had is another sound, whose spectrum is what was added.

    Args:
        clips: start and end in seconds, each beginning where the one before ends.
        bands: [n, bands] in steps of 0.1 s, of [`clean_bands`].
        options: thresholds.

    Returns:
        Sounds by start; they may overlap.

    Example:
        A low sound from 0 to 4 s and a high one from 2 to 6 s.

        >>> import numpy as np
        >>> from longvale.annotation.boundaries.audio import AudioOptions
        >>> bands = np.zeros((60, 2))
        >>> bands[:40, 0], bands[20:, 1] = 1, 1
        >>> sounds = trace_sounds([(0.0, 2.0), (2.0, 4.0), (4.0, 6.0)], bands, AudioOptions())
        >>> [(sound.start, sound.end, sound.spectrum.tolist()) for sound in sounds]
        [(0.0, 4.0, [1.0, 0.0]), (2.0, 6.0, [0.0, 1.0])]
    """
    import numpy as np

    def heard(clip: Interval) -> np.ndarray:
        first, last = round(clip[0] / STEP_S), max(round(clip[1] / STEP_S), round(clip[0] / STEP_S) + 1)
        trim = 1 if last - first > 2 else 0  # the steps at a change hold some of both sides
        return bands[first + trim : last - trim]

    compared = round(_COMPARED_S / STEP_S)
    sounds: list[Sound] = []
    going: list[tuple[Seconds, np.ndarray]] = []  # since when, and its spectrum
    before = np.zeros(bands.shape[1])
    for clip in clips:
        after = heard(clip)[:compared].mean(axis=0)
        stays = [_share(spectrum, after) >= options.goes_on for _, spectrum in going]
        sounds += [Sound(since, clip[0], own) for (since, own), stay in zip(going, stays, strict=True) if not stay]
        going = list(itertools.compress(going, stays))
        known = np.max([before, *(spectrum for _, spectrum in going)], axis=0)
        if not going:
            going = [(clip[0], after)] if after.sum() > 0 else []
        elif len(going) < options.at_once and np.maximum(after - known, 0).sum() > options.joins * after.sum():
            going.append((clip[0], np.maximum(after - before, 0)))
        elif len(going) == 1:  # alone, it is all that is heard, however it has changed
            going = [(going[0][0], after)]
        before = heard(clip)[-compared:].mean(axis=0)
    sounds += [Sound(since, clips[-1][1], spectrum) for since, spectrum in going]
    return sorted((x for x in sounds if x.end - x.start >= options.min_length_s), key=lambda x: x[:2])


def _share(spectrum: np.ndarray, heard: np.ndarray) -> float:
    """Share of a spectrum, which is not silent, that is heard: 0 to 1."""
    import numpy as np

    return float(np.minimum(spectrum, heard).sum() / spectrum.sum())


def place_sounds(
    sounds: Sequence[Sound],
    turns: Sequence[Interval],
    bands: np.ndarray,
    changes: Sequence[Seconds],
    options: AudioOptions,
) -> list[Interval]:
    """Let each sound last as long as its own spectrum is heard.

    Args:
        sounds: of [`trace_sounds`]; each may grow or shrink at both ends by what its spectrum tells, grow by no more
            than a second.
        turns: start and end of each speech turn in seconds: what is heard in them may be theirs.
        bands: [n, bands] in steps of 0.1 s, of [`clean_bands`].
        changes: in seconds, the ends of the video among them. A start or end that is near to one of them, or to that of
            a turn, is moved there.
        options: `fades`, `pause_s`, `apart_s` and `min_length_s`.

    Returns:
        Start and end of each sound by start; they may overlap. Those that are nowhere heard are left out.

    Example:
        What was traced from 0 to 6 s is heard until 4 s.

        >>> import numpy as np
        >>> from longvale.annotation.boundaries.audio import AudioOptions
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
    for sound, (first, _), own in zip(sounds, windows, share_out(bands, spectra, windows), strict=False):
        begin, end = _steps(sound[:2], 0.0, len(bands))
        loudest = own[begin - first : end - first].max(initial=0.0)
        loud = first + np.flatnonzero(own > options.fades * loudest) if loudest > 0 else np.empty(0, int)
        if not len(loud):
            continue
        runs = np.split(loud, np.flatnonzero(np.diff(loud) * STEP_S > options.pause_s) + 1)
        run = max(runs, key=lambda run: min(run[-1] + 1, end) - max(run[0], begin))
        start, stop = mark(float(run[0]) * STEP_S), mark(float(run[-1] + 1) * STEP_S)
        if stop - start >= options.min_length_s:
            placed.add((start, stop))
    return sorted(placed)


def share_out(bands: np.ndarray, spectra: Sequence[np.ndarray], windows: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """How loud each spectrum is at each step, such that together they are most like what is heard.

    The factors of a non-negative matrix factorization (Lee and Seung 2001, "Algorithms for non-negative matrix
    factorization", the update for the divergence) whose other factors, the spectra, are known. Steps do not depend on
    each other.

    Args:
        bands: [n, bands].
        spectra: [bands] each.
        windows: first step at which each may be heard, and the one after the last.

    Returns:
        One array a spectrum, of its window's length.

    Example:
        >>> import numpy as np
        >>> bands, low, both = np.array([[2.0, 0.0], [3.0, 1.0]]), np.array([1.0, 0.0]), np.array([1.0, 1.0])
        >>> [loud.round(2).tolist() for loud in share_out(bands, [low, both], [(0, 2), (0, 2)])]
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
    """The first step of an interval with margins, and the one after its last."""
    return (
        max(0, round((interval[0] - margin) / STEP_S)),
        min(count, round((interval[1] + margin) / STEP_S)),
    )


#: The quietest tenth of a video tells its noise.
_QUIET = 0.1
#: Power of a mel band above which it is no noise but a sound that never stops; white noise of -30 dB reaches it.
_MOST_NOISE = 2.0
#: How much of both sides of a change is compared.
_COMPARED_S: Seconds = 1.5
#: How far from where it was traced a sound may be heard, and speech from where its turn was found.
_GROWS_S: Seconds = 1.0
_TURN_GROWS_S: Seconds = 0.3
#: Rounds after which shares hardly change, steps that are worked on at a time, and what keeps divisions finite.
_ROUNDS, _STEPS_AT_ONCE, _TINY = 50, 600, 1e-9
