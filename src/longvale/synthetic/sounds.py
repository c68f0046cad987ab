"""Waveforms of synthetic videos: sound effects and a voice that speaks a few words, synthesized with numpy.

Effects are periods of fixed length that are repeated through a piece. The voice is a formant synthesizer: the harmonics
of a glottal pulse train, weighted by three resonances that glide from sound to sound, and noise for consonants
(Klatt 1980, "Software for a cascade/parallel formant synthesizer", with far fewer parameters).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..events import Event, Seconds
from .espeak import say
from .planning import PULSE_S, WORDS, Piece, Plan, SyntheticOptions

#: Time from the start of one utterance of a word to the start of the next.
WORD_PERIOD_S: Seconds = 1.0

_NOISE_FLOOR = 0.002
_PEAK = 0.95
_RAMP_S: Seconds = 0.01

Array = np.ndarray


def render_sound(plan: Plan, options: SyntheticOptions | None = None) -> Array:
    """Render the audio track of a plan.

    Pitch, loudness and the speaker's voice are drawn from the plan's seed.

    Args:
        plan: events of the video.
        options: `sound_rate` and `voice` are used; default [`SyntheticOptions`].

    Returns:
        float32 [duration * sound_rate], within -0.95 to 0.95.

    Raises:
        ValueError: if `voice` is "espeak" and espeakng-loader is missing.

    Example:
        >>> from longvale.synthetic.planning import plan_video
        >>> render_sound(plan_video("train_0000", seed=0)).shape  # 46.5 s
        (744000,)
    """
    options = options or SyntheticOptions()
    rate = options.sound_rate
    tuning = random.Random(f"{plan.seed}:sounds")
    pitch, volume = tuning.uniform(0.92, 1.08), tuning.uniform(0.25, 0.4)
    voice_hz, voice_volume = tuning.uniform(95, 210), tuning.uniform(0.35, 0.5)
    noise = np.random.default_rng(tuning.getrandbits(64))
    track = noise.standard_normal(round(plan.annotation.duration * rate), dtype=np.float32) * np.float32(_NOISE_FLOOR)
    for event, piece in plan.lane("audio"):
        _add(track, piece, volume * _play_effect(event, piece, rate, pitch, noise), rate)
    for _, piece in plan.lane("speech"):
        word = speak(piece.content, rate, voice_hz, options.voice)
        _add(track, piece, voice_volume * _repeat(word, WORD_PERIOD_S, piece, rate), rate)
    peak = np.abs(track).max()
    return track * np.float32(_PEAK / peak) if peak > _PEAK else track


def _add(track: Array, piece: Piece, sound: Array, rate: int) -> None:
    """Mix `sound` into `track` at the piece's time, with short ramps to avoid clicks."""
    ramp = np.minimum(np.arange(1, len(sound) + 1) / (_RAMP_S * rate), 1).astype(np.float32)
    start = round(piece.start * rate)
    track[start : start + len(sound)] += (sound * ramp * ramp[::-1]).astype(np.float32)


def _samples(piece: Piece, rate: int) -> int:
    return round(piece.end * rate) - round(piece.start * rate)


def _repeat(sound: Array, period_s: Seconds, piece: Piece, rate: int) -> Array:
    """Repeat `sound` once per period, padded with silence or cut, until the piece ends."""
    period = np.zeros(round(period_s * rate), np.float32)
    period[: len(sound)] = sound[: len(period)]
    return np.resize(period, _samples(piece, rate))


def _play_effect(event: Event, piece: Piece, rate: int, pitch: float, noise: np.random.Generator) -> Array:
    effect = EFFECTS[piece.content]
    if event.relation != "synchronicity":
        return np.resize(effect(rate, pitch, noise), _samples(piece, rate))
    # One beat per pulse: the start of the effect, decaying before the next.
    beat = np.resize(effect(rate, pitch, noise), round(PULSE_S * rate))
    return _repeat(beat * np.exp(-5 * _time(PULSE_S, rate) / PULSE_S), PULSE_S, piece, rate)


def _time(length_s: Seconds, rate: int) -> Array:
    return np.arange(round(length_s * rate), dtype=np.float32) / np.float32(rate)


def _tone(hz: Array | float, length_s: Seconds, rate: int) -> Array:
    """Return a sine whose frequency is a number or an array with one value per sample."""
    phase = np.cumsum(np.broadcast_to(np.float64(hz) / rate, round(length_s * rate)))
    return np.sin(2 * math.pi * phase)


def _bell(rate: int, pitch: float, noise: np.random.Generator) -> Array:
    time = _time(1.0, rate)
    partials = ((1.0, 1.0, 3.0), (2.76, 0.6, 5.0), (5.4, 0.35, 8.0))  # of a struck bar: ratio, weight, decay
    return sum(
        weight * np.exp(-decay * time) * _tone(660 * pitch * ratio, 1.0, rate) for ratio, weight, decay in partials
    )


def _drum(rate: int, pitch: float, noise: np.random.Generator) -> Array:
    time = _time(0.5, rate)
    skin = 1.4 * np.exp(-9 * time) * _tone((70 + 90 * np.exp(-25 * time)) * pitch, 0.5, rate)
    return skin + 0.4 * np.exp(-80 * time) * noise.standard_normal(len(time), dtype=np.float32)


def _chirp(rate: int, pitch: float, noise: np.random.Generator) -> Array:
    time = _time(0.25, rate)
    sweep = _tone((2200 + 1300 * np.minimum(time / 0.12, 1)) * pitch, 0.25, rate)
    return sweep * np.sin(math.pi * np.minimum(time / 0.12, 1))


def _hiss(rate: int, pitch: float, noise: np.random.Generator) -> Array:
    return 0.35 * np.diff(noise.standard_normal(2 * rate + 1, dtype=np.float32))  # the difference removes the bass


def _engine(rate: int, pitch: float, noise: np.random.Generator) -> Array:
    time = _time(1.0, rate)
    base = round(48 * pitch)  # a whole number of cycles per second closes the period without a click
    hum = sum(_tone(base * k, 1.0, rate) / k for k in range(1, 10))
    return hum * (0.7 + 0.3 * np.cos(2 * math.pi * 12 * time))


def _siren(rate: int, pitch: float, noise: np.random.Generator) -> Array:
    time = _time(2.0, rate)
    return _tone((900 - 350 * np.cos(math.pi * time)) * pitch, 2.0, rate)


def _whistle(rate: int, pitch: float, noise: np.random.Generator) -> Array:
    time = _time(1.0, rate)
    return 0.8 * _tone(round(1800 * pitch) + 25 * np.cos(2 * math.pi * 6 * time), 1.0, rate)


def _buzzer(rate: int, pitch: float, noise: np.random.Generator) -> Array:
    square = sum(_tone(170 * pitch * k, 0.3, rate) / k for k in range(1, 16, 2))
    return np.concatenate([square, np.zeros(round(0.2 * rate))])


#: Synthesizers of [`longvale.synthetic.planning.SOUNDS`]: `effect(rate, pitch, noise)` returns the samples to repeat.
EFFECTS: dict[str, Callable[[int, float, np.random.Generator], Array]] = {
    "bell": _bell,
    "drum": _drum,
    "chirp": _chirp,
    "hiss": _hiss,
    "engine": _engine,
    "siren": _siren,
    "whistle": _whistle,
    "buzzer": _buzzer,
}


@dataclass(frozen=True)
class Phone:
    """One sound of a word; the synthesizer glides from one to the next.

    Args:
        length_s: seconds.
        voice: weight of the harmonics, 0 to 1.
        noise: weight of the noise, 0 to 1.
        formants: resonances in Hz. For pure noise, the position that the mouth moves to.
    """

    length_s: Seconds
    voice: float
    noise: float
    formants: tuple[float, float, float]


# Formants of vowels after Peterson and Barney (1952), men; consonants by their usual loci.
PHONES = {
    "hello": (Phone(0.08, 0.0, 0.25, (580, 1800, 2500)), Phone(0.14, 1.0, 0.0, (530, 1840, 2480)),
              Phone(0.10, 0.5, 0.0, (360, 1050, 2600)), Phone(0.16, 1.0, 0.0, (520, 900, 2400)),
              Phone(0.12, 0.6, 0.0, (350, 780, 2300))),
    "stop": (Phone(0.18, 0.0, 1.0, (400, 1700, 2600)), Phone(0.08, 0.0, 0.0, (400, 1700, 2600)),
             Phone(0.20, 1.0, 0.0, (730, 1090, 2440)), Phone(0.06, 0.0, 0.0, (400, 900, 2300)),
             Phone(0.03, 0.0, 0.4, (400, 900, 2300))),
    "yes": (Phone(0.10, 0.7, 0.0, (270, 2290, 3010)), Phone(0.20, 1.0, 0.0, (530, 1840, 2480)),
            Phone(0.24, 0.0, 1.0, (400, 1800, 2600))),
    "go": (Phone(0.03, 0.0, 0.4, (300, 1400, 2300)), Phone(0.18, 1.0, 0.0, (500, 900, 2400)),
           Phone(0.26, 0.9, 0.0, (300, 700, 2250))),
    "away": (Phone(0.12, 0.8, 0.0, (640, 1190, 2390)), Phone(0.14, 0.5, 0.0, (290, 610, 2150)),
             Phone(0.20, 1.0, 0.0, (480, 2000, 2600)), Phone(0.16, 0.8, 0.0, (290, 2300, 3000))),
    "more": (Phone(0.18, 0.35, 0.0, (250, 1000, 2200)), Phone(0.22, 1.0, 0.0, (570, 840, 2410)),
             Phone(0.22, 0.8, 0.0, (470, 1270, 1640))),
}  # fmt: skip

_BANDWIDTHS = (80.0, 110.0, 160.0)
_FORMANT_WEIGHTS = (1.0, 0.6, 0.3)
_TOP_HZ = 3800
#: Pitch in Hz of the lowest of espeak-ng's 100 steps, and Hz per step.
_LOWEST_HZ, _STEP_HZ = 60, 2


def speak(word: str, rate: int = 16000, pitch_hz: float = 120.0, voice: str = "formant") -> Array:
    """Synthesize one utterance of a word.

    Args:
        word: one of [`longvale.synthetic.planning.WORDS`]; espeak-ng accepts any.
        rate: samples per second.
        pitch_hz: pitch of the voice at its start; it falls by a fifth. espeak-ng has steps from a low voice, here 60,
            to a high one, here 258, which sounds lower than that.
        voice: "formant" or "espeak".

    Returns:
        float32 [samples], peak 1.

    Raises:
        ValueError: if the formant voice does not have the word; if espeak-ng is selected and missing, or fails.

    Example:
        >>> len(speak("yes", rate=16000))  # 0.54 s
        8640
    """
    if voice == "espeak":
        return say(word, rate, min(99, max(0, round((pitch_hz - _LOWEST_HZ) / _STEP_HZ))))
    if word not in PHONES:
        raise ValueError(f"the formant voice knows {', '.join(WORDS)}, not {word!r}; use one of these or espeak")
    phones = PHONES[word]
    lengths = np.array([phone.length_s for phone in phones])
    time = _time(float(lengths.sum()), rate)
    middles = np.cumsum(lengths) - lengths / 2
    formants = [np.interp(time, middles, [phone.formants[k] for phone in phones]) for k in range(3)]
    voiced, breath = (_glide(time, lengths, [getattr(phone, name) for phone in phones]) for name in ("voice", "noise"))
    hz = pitch_hz * (1 - 0.2 * time / time[-1])
    phase = 2 * math.pi * np.cumsum(hz) / rate
    sound = np.zeros_like(time)
    for harmonic in range(1, int(_TOP_HZ / pitch_hz) + 1):
        sound += _resonance(harmonic * hz, formants) / harmonic**0.5 * np.sin(harmonic * phase)
    hiss = np.diff(np.random.default_rng(0).standard_normal(len(time) + 1, dtype=np.float32))
    mixed = voiced * sound / np.abs(sound).max() + 0.12 * breath * hiss
    return (mixed / np.abs(mixed).max()).astype(np.float32)


def _glide(time: Array, lengths: Array, values: list[float]) -> Array:
    """Keep each phone's value, with glides of 20 ms at its borders."""
    ends = np.cumsum(lengths)
    knots = np.sort(np.concatenate([ends - lengths + 0.01, ends - 0.01]))
    return np.interp(time, knots, np.repeat(values, 2))


def _resonance(hz: Array, formants: list[Array]) -> Array:
    """Return the gain of the vocal tract at a frequency: a sum of resonance curves."""
    return sum(
        weight / (1 + ((hz - centre) / width) ** 2)
        for centre, width, weight in zip(formants, _BANDWIDTHS, _FORMANT_WEIGHTS, strict=True)
    )
