"""What is surely heard of an event: silence, changes of loudness, sounds of a tagger, voices, speakers and words.

Without a tagger, of a sound only this is claimed: that it is a steady tone or a steady noise, if its spectrum does not
change, and how loud it is. That a sound is music is left to a tagger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...events import Seconds
from ...models.media import SAMPLING_RATE
from ..boundaries.descriptors import STEP_S, loudness
from ..boundaries.fusion import Interval
from ..boundaries.speech import voice_probability
from ..clip_reader import ClipReader
from ..measurements import SILENT_DB, measure_sound
from ..tracks import Span, Track
from .fact import Fact

#: Shortest silence that is mentioned, and shortest part of an event at another loudness.
_SILENCE_S: Seconds = 1.0
_LEVEL_S: Seconds = 3.0
#: Shortest silence that is mentioned beside speech, which has pauses.
_PAUSE_S: Seconds = 3.0
#: Change of the mean loudness that is mentioned in dB.
_CHANGE_DB = 8.0
#: Share of an event with a sound outside of voices up to which that sound is not mentioned.
_OTHER_SHARE = 0.2
#: Mean probability of speech from which a voice is claimed: read and spoken sentences of five real files have .77 to
#: .89 (.60 with music at equal loudness), turns found in music and noise of five others 0 to .48.
_VOICE = 0.6
#: Shortest time that a speaker speaks, and shortest time at which two speak at once.
_SPEAKER_S: Seconds = 0.5
#: Mean change of the bands of 32 Hz from second to second up to which a sound is steady, in powers of ten: at most
#: .12 for white noise; for the sound of ten real clips .2 to 2 at some time. Share of energy in one peak of a tone.
_STEADY, _TONE = 0.13, 0.8
#: Power below the strongest that is not compared: 50 dB, where codecs leave noise.
_FLOOR = 1e-5
#: Labels of AudioSet's ontology for voices and for no sound; compared in lower case with the first name of a label.
VOICE_LABELS = frozenset(
    {"speech", "male speech", "female speech", "child speech", "conversation", "narration", "speech synthesizer"}
)
_NO_SOUND = frozenset({"silence", "inside", "outside"})


def find_spoken(
    reader: ClipReader,
    start: Seconds,
    end: Seconds,
    speech: Sequence[Interval],
    tracks: Mapping[Track, Sequence[Span]],
) -> list[Fact]:
    """Find voices, speakers and words of an event.

    A speech turn counts as a voice if the speech detector also finds speech in the sound as it is, or if the tagger or
    the speakers agree: it was found after steady sounds had been subtracted, which leaves voices, but also music.

    Args:
        reader: sound of the video.
        start, end: start and end of the event in seconds.
        speech: speech turns of the video in seconds.
        tracks: tracks within the event.
    """
    words = [
        Fact("speech", "transcript", s.text, s.start, s.end, s.score, s.speaker)
        for s in tracks.get("transcript", ())
        if s.text
    ]
    speakers = [Fact("speech", "speakers", s.text, s.start, s.end, s.score) for s in tracks.get("speakers", ())]
    agreed = [(s.start, s.end) for s in tracks.get("sounds", ()) if first_name(s.text) in VOICE_LABELS]
    agreed += [(fact.start, fact.end) for fact in speakers]
    voices = []
    for a, b in speech:
        a, b = max(a, start), min(b, end)
        if b - a < _SPEAKER_S:
            continue
        sure = voice_probability(reader.audio(a, b))
        if sure >= _VOICE or sum(max(0.0, min(b, d) - max(a, c)) for c, d in agreed) >= 0.5 * (b - a):
            voices.append(Fact("speech", "voices", "somebody speaks", a, b, round(sure, 3)))
    return [*voices, *speakers, *words]


def find_heard(
    reader: ClipReader,
    start: Seconds,
    end: Seconds,
    tracks: Mapping[Track, Sequence[Span]],
    spoken: Sequence[Fact],
) -> list[Fact]:
    """Find silence, sounds and changes of loudness of an event.

    Args:
        reader: sound of the video.
        start, end: start and end of the event in seconds.
        tracks: tracks within the event.
        spoken: what `find_spoken` found: loudness within speech is not mentioned.
    """
    if reader.waveform is None:
        return [Fact("audio", "silence", "there is no sound", start, end)]
    levels = loudness(reader.audio(start, end))
    if not len(levels):
        return []
    least = _PAUSE_S if any(fact.source == "voices" for fact in spoken) else _SILENCE_S
    quiet = [(start + a, start + b) for a, b in _runs(levels < SILENT_DB) if b - a >= min(least, end - start)]
    found = [Fact("audio", "silence", "silence", a, min(b, end)) for a, b in quiet]
    if levels.max() < SILENT_DB:
        return [Fact("audio", "silence", "silence", start, end)]
    labels = [s for s in tracks.get("sounds", ()) if first_name(s.text) not in _NO_SOUND]
    if spoken:
        labels = [s for s in labels if first_name(s.text) not in VOICE_LABELS]
    found += [Fact("audio", "sounds", s.text, s.start, s.end, s.score) for s in labels]
    voiced = _only_voices(levels, start, spoken)
    if not labels and not voiced:
        found += _sounding(levels, reader.audio(start, end), start, end)
    if not voiced and (change := _loudness_change(levels)):
        found.append(Fact("audio", "loudness", change[0], start + change[1], end))
    return found


def _only_voices(levels: np.ndarray, start: Seconds, spoken: Sequence[Fact]) -> bool:
    """Whether there are voices, and hardly a sound at other times."""
    times = start + (np.arange(len(levels)) + 0.5) * STEP_S
    voice = np.zeros(len(levels), bool)
    for fact in spoken:
        voice |= (times >= fact.start) & (times <= fact.end)
    return bool(voice.any()) and float((~voice & (levels >= SILENT_DB)).mean()) <= _OTHER_SHARE


def first_name(label: str) -> str:
    """Return the first of the names in a label, in lower case.

    Example:
        >>> first_name("Male speech, man speaking")
        'male speech'
    """
    return label.split(",")[0].strip().lower()


def _runs(flags: np.ndarray) -> list[tuple[Seconds, Seconds]]:
    """Return start and end in seconds of each run of true steps of the loudness."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(float(a) * STEP_S, float(b) * STEP_S) for a, b in edges.reshape(-1, 2)]


def _sounding(levels: np.ndarray, sound: np.ndarray, start: Seconds, end: Seconds) -> list[Fact]:
    """Return what a sound without a label is: a steady tone or noise, or a sound, and how loud."""
    heard = [(a, b) for a, b in _runs(levels >= SILENT_DB) if b - a >= STEP_S]
    first, last = heard[0][0], heard[-1][1]
    kind = _steady_kind(sound[round(first * SAMPLING_RATE) : round(last * SAMPLING_RATE)]) or "sound"
    word = measure_sound(sound).loudness_word
    name = f"{word} {kind}" if word in ("quiet", "loud") else kind
    return [Fact("audio", "sound", name, start + first, min(end, start + last))]


def _steady_kind(sound: np.ndarray) -> str:
    """Return "steady tone" or "steady noise" if the spectrum keeps its shape from second to second, else ""."""
    count = min(30, len(sound) // SAMPLING_RATE)
    if count < 3:
        return ""
    rows = sound[: count * SAMPLING_RATE].reshape(count, SAMPLING_RATE)
    power = np.abs(np.fft.rfft(rows * np.hanning(SAMPLING_RATE), axis=1)) ** 2  # [seconds, hertz]
    bands = power[:, :7680].reshape(count, 240, 32).sum(axis=2)  # 32 Hz each
    bands = np.log10(np.maximum(bands, bands.max() * _FLOOR))
    if np.abs(np.diff(bands, axis=0)).mean(axis=1).max() > _STEADY:
        return ""
    peak = power.sum(axis=0).argmax()
    share = power[:, max(0, peak - 4) : peak + 5].sum() / power.sum()
    return "steady tone" if share >= _TONE else "steady noise"


def _loudness_change(levels: np.ndarray) -> tuple[str, Seconds] | None:
    """Return "louder" or "quieter", and seconds after the start: the largest lasting change of the loudness."""
    per = round(1 / STEP_S)
    count = len(levels) // per
    seconds = levels[: count * per].reshape(count, per).max(axis=1)
    sounding = np.flatnonzero(seconds >= SILENT_DB)  # silence is a fact of its own
    seconds, count = seconds[sounding], len(sounding)
    least = max(round(_LEVEL_S), round(0.1 * count))
    best: tuple[float, int] | None = None
    for split in range(least, count - least + 1):
        before, after = seconds[:split], seconds[split:]
        up = np.percentile(after, 20) - np.percentile(before, 80)
        down = np.percentile(before, 20) - np.percentile(after, 80)
        if max(up, down) < 1.0:  # the two parts overlap
            continue
        step = float(after.mean() - before.mean())
        if abs(step) >= _CHANGE_DB and (best is None or abs(step) > abs(best[0])):
            best = step, split
    return None if best is None else ("louder" if best[0] > 0 else "quieter", float(sounding[best[1]]))
