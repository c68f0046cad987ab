"""Measurements of an event without a model: colours, motion, loudness, pitch, voice activity."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..events import Seconds
from ..models.media import SAMPLING_RATE
from .boundaries.descriptors import loudness
from .boundaries.fusion import Interval
from .clip_reader import FRAME_RATE, ClipReader

#: Mean change of a pixel between two frames (0 to 255) below which an event counts as still.
STILL_BELOW = 2.0
_LIVELY_FROM = 12.0
#: Level in dB of full scale below which nothing is heard.
SILENT_DB = -60.0
_QUIET_DB, _LOUD_DB = -40.0, -20.0
_PITCH_HZ = (60.0, 1000.0)
#: Minimum autocorrelation of a sound with a pitch, at most 1.
_PITCHED = 0.5
#: Upper limit of the hue of each colour name, in degrees.
_HUES = (
    (15, "red"),
    (40, "orange"),
    (70, "yellow"),
    (165, "green"),
    (200, "cyan"),
    (260, "blue"),
    (330, "purple"),
    (360, "red"),
)


@dataclass(frozen=True)
class Measurements:
    """Measurements between two times of a video; None if there is nothing to measure.

    Args:
        brightness: mean, 0 to 1.
        colours: names of the most frequent colours, at most two, most frequent first.
        motion: mean change of a pixel between frames, 0 to 255.
        loudness_db: power of the sound in dB relative to full scale.
        pitch_hz: median pitch of the windows that have one.
        voiced: fraction of the time that lies in speech turns, 0 to 1.
        centroid_hz: spectral centroid of the sound: low for a hum, high for a hiss.
    """

    brightness: float | None = None
    colours: tuple[str, ...] = ()
    motion: float | None = None
    loudness_db: float | None = None
    pitch_hz: float | None = None
    voiced: float | None = None
    centroid_hz: float | None = None

    @property
    def silent(self) -> bool:
        """Whether nothing can be heard."""
        return self.loudness_db is None or self.loudness_db < SILENT_DB

    @property
    def motion_word(self) -> str | None:
        """The motion as a word: still, moving or lively; None without frames."""
        if self.motion is None:
            return None
        return "still" if self.motion < STILL_BELOW else "lively" if self.motion >= _LIVELY_FROM else "moving"

    @property
    def loudness_word(self) -> str:
        """The loudness as a word: silent, quiet, clear or loud."""
        if self.silent:
            return "silent"
        return "quiet" if self.loudness_db < _QUIET_DB else "loud" if self.loudness_db >= _LOUD_DB else "clear"


def measure(reader: ClipReader, start: Seconds, end: Seconds, speech: Sequence[Interval] = ()) -> Measurements:
    """Measure a part of a video.

    Args:
        reader: frames and sound of the video.
        start: seconds.
        end: seconds, after `start`.
        speech: speech turns of the video.
    """
    seen, heard = _look(reader, start, end), _listen(reader.audio(start, end))
    if heard:
        spoken = sum(max(0.0, min(b, end) - max(a, start)) for a, b in speech)
        heard["voiced"] = round(min(1.0, spoken / (end - start)), 3)
    return Measurements(**seen, **heard)


def measure_sound(sound: np.ndarray) -> Measurements:
    """Measure a sound: float32 [samples], 16 kHz."""
    return Measurements(**_listen(sound))


def _look(reader: ClipReader, start: Seconds, end: Seconds) -> dict:
    if reader.frames is None:
        return {}
    inside = (reader.times >= start) & (reader.times < end)
    if not inside.any():
        inside = np.arange(len(reader.times)) == np.abs(reader.times - (start + end) / 2).argmin()
    frames = reader.frames[inside].astype(np.float32)
    motion = float(np.abs(np.diff(frames, axis=0)).mean()) if len(frames) > 1 else 0.0
    rate = len(reader.times) / reader.duration
    return {
        "brightness": round(float(frames.mean()) / 255, 3),
        "colours": colours(frames[:: max(1, len(frames) // 8)]),
        "motion": round(motion * rate / FRAME_RATE, 2),
    }


def colours(frames: np.ndarray) -> tuple[str, ...]:
    """Return the most frequent colour of cells of 6 x 6 pixels, and the next if it covers at least a fifth of them."""
    height, width = (size // 6 * 6 for size in frames.shape[1:3])
    cells = (
        frames[:, :height, :width].reshape(len(frames), height // 6, 6, width // 6, 6, 3).mean((2, 4)).reshape(-1, 3)
    )
    names, counts = np.unique([_colour_name(*cell) for cell in cells / 255], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple(str(names[i]) for rank, i in enumerate(order[:2]) if rank == 0 or counts[i] * 5 >= len(cells))


def _colour_name(red: float, green: float, blue: float) -> str:
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if value < 0.15:
        return "black"
    if saturation < 0.2:
        return "white" if value > 0.8 else "grey"
    return next(name for limit, name in _HUES if hue * 360 <= limit)


def _listen(sound: np.ndarray) -> dict:
    levels = loudness(sound)
    if not len(levels):
        return {}
    level = round(float(10 * np.log10(np.mean(10 ** (levels / 10)))), 1)  # the rounded level decides what is silent
    heard = {"loudness_db": level}
    if level >= SILENT_DB:
        sound = sound[: 30 * SAMPLING_RATE]
        spectrum = np.abs(np.fft.rfft(sound)) ** 2
        hertz = np.fft.rfftfreq(len(sound), 1 / SAMPLING_RATE)
        heard["centroid_hz"] = round(float((spectrum * hertz).sum() / max(spectrum.sum(), 1e-12)))
        heard["pitch_hz"] = _pitch(sound)
    return heard


def _pitch(sound: np.ndarray) -> float | None:
    """Return the median pitch in Hz of windows of 64 ms, from their autocorrelation; None if few windows have one."""
    length = 1024
    windows = sound[: len(sound) // length * length].reshape(-1, length)
    windows = windows[np.sqrt((windows**2).mean(axis=1)) > 10 ** (SILENT_DB / 20)]
    if not len(windows):
        return None
    spectra = np.abs(np.fft.rfft(windows - windows.mean(axis=1, keepdims=True), 2 * length)) ** 2
    correlation = np.fft.irfft(spectra)[:, :length]
    correlation /= np.maximum(correlation[:, :1], 1e-12) * (1 - np.arange(length) / length)
    low, high = (int(SAMPLING_RATE / hertz) for hertz in reversed(_PITCH_HZ))
    part = correlation[:, low:high]
    pitched = part.max(axis=1) >= _PITCHED
    if pitched.mean() < 0.3:
        return None
    # The first peak nearly as high as the highest: multiples of a period have peaks as high as the period itself.
    peak = (part >= np.roll(part, 1, axis=1)) & (part >= np.roll(part, -1, axis=1))
    lags = (peak & (part >= 0.95 * part.max(axis=1, keepdims=True))).argmax(axis=1)[pitched] + low
    return round(float(np.median(SAMPLING_RATE / lags)), 1)
