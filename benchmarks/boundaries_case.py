"""Videos with exactly known visual and audio events, and with content that makes boundaries hard to find.

Frames: scenes follow each other by cuts, dissolves, fades through black and slow changes. Within a scene the camera
pans and jumps to a closer view, single frames flash, the exposure drifts, and grain covers all frames: none of these is
a boundary. Audio: effects and speech start, end and overlap at any time over white or pink noise. Speech is that of
espeak-ng, or of the synthetic corpus' formant voice, of which speech detectors find less than half.

The drawing code is not longvale's own: textures and blobs, not the shapes of the synthetic corpus.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from longvale.synthetic.planning import SOUNDS, WORDS
from longvale.synthetic.sounds import EFFECTS, WORD_PERIOD_S, speak

FPS, SIZE, RATE = 12, 96, 16_000

Voice = Literal["espeak", "formant"]

#: Sentences for espeak-ng, one per turn.
SENTENCES = (
    "I did not think that you would come back so early.",
    "Could you hold this for a moment, please?",
    "The train leaves in ten minutes, so we have to hurry.",
    "Nobody told me that the road was closed.",
    "Put the kettle on and sit down with us.",
    "That was the best game we have seen in years.",
    "Wait, there is somebody at the door.",
    "She said that the results will be here by Friday.",
    "Look at the size of that bird over there!",
    "We are going to need a much longer rope.",
)

Span = tuple[float, float]


@dataclass(frozen=True)
class Case:
    """Ground truth of one video: events in seconds, by modality."""

    video_id: str
    duration: float
    visual: tuple[Span, ...]
    audio: tuple[Span, ...]
    speech: tuple[Span, ...]


@dataclass(frozen=True)
class _Scene:
    start: float  # the middle of the transition to this scene
    end: float
    change: str  # type of the transition to this scene
    change_s: float
    picture: np.ndarray  # [2 * SIZE, 2 * SIZE, 3]
    pan: tuple[float, float]
    closer_at: float | None
    flash_at: float | None
    drift: float
    blobs: tuple[tuple[float, float, float, tuple[float, float, float]], ...]


def make_video(video_id: str, seed: int, folder: Path, voice: Voice = "espeak") -> Case:
    """Write `<folder>/<video_id>.mp4` and return its ground truth."""
    rng = random.Random(f"{seed}:{video_id}")
    duration = rng.randint(300, 450) / 10
    scenes = _plan_scenes(rng, duration)
    sounds, turns = _plan_sounds(rng, duration, voice)
    track = _render_track(rng, duration, sounds, turns)
    _encode(folder / f"{video_id}.mp4", _frames(rng, scenes, duration), track)
    return Case(
        video_id,
        duration,
        tuple((scene.start, scene.end) for scene in scenes),
        tuple((start, end) for start, end, _ in sounds),
        tuple((start, end) for start, end, _ in turns),
    )


# --- frames ----------------------------------------------------------------------------------------------------------


def _plan_scenes(rng: random.Random, duration: float) -> list[_Scene]:
    starts = [0.0]
    while starts[-1] + 8 < duration:
        starts.append(round(min(starts[-1] + rng.uniform(4, 11), duration - 4), 2))
    scenes = []
    for index, start in enumerate(starts):
        end = starts[index + 1] if index + 1 < len(starts) else duration
        change = rng.choice(("cut", "dissolve", "black", "slow")) if index else "cut"
        length = {"cut": 0.0, "dissolve": rng.uniform(0.4, 1.5), "black": rng.uniform(0.6, 1.6)}.get(change)
        length = rng.uniform(2.0, 3.0) if length is None else length
        inside = (start + 1.8, end - 1.8)
        scenes.append(
            _Scene(
                start,
                end,
                change,
                length,
                _texture(rng),
                (rng.uniform(-3, 3), rng.uniform(-3, 3)),
                rng.uniform(*inside) if rng.random() < 0.3 else None,
                rng.uniform(*inside) if rng.random() < 0.15 else None,
                rng.uniform(-0.25, 0.25) if rng.random() < 0.3 else 0.0,
                tuple(
                    (rng.random(), rng.random(), rng.uniform(0.05, 0.12), tuple(rng.uniform(0, 255) for _ in range(3)))
                    for _ in range(rng.randint(1, 3))
                ),
            )
        )
    return scenes


def _texture(rng: random.Random) -> np.ndarray:
    """Draw smooth random colours around a base tone, twice the size of a frame: room to pan."""
    noise = np.random.default_rng(rng.getrandbits(64))
    base = noise.uniform(40, 215, 3)
    cells = rng.randint(3, 8)
    grid = base + noise.normal(0, rng.uniform(18, 45), (cells + 1, cells + 1, 3))
    at = np.linspace(0, cells, 2 * SIZE, endpoint=False)
    low, part = at.astype(int), (at % 1)[:, None, None]
    rows = grid[low] * (1 - part) + grid[low + 1] * part
    part = (at % 1)[None, :, None]
    return np.clip(rows[:, low] * (1 - part) + rows[:, low + 1] * part, 0, 255).astype(np.float32)


def _frames(rng: random.Random, scenes: list[_Scene], duration: float):
    noise = np.random.default_rng(rng.getrandbits(64))
    grain = rng.uniform(0, 8)
    for index in range(round(duration * FPS)):
        time = index / FPS
        picture = _mixed(scenes, time)
        picture = picture + grain * noise.standard_normal((SIZE, SIZE, 1), dtype=np.float32)
        yield np.clip(picture, 0, 255).astype(np.uint8)


def _mixed(scenes: list[_Scene], time: float) -> np.ndarray:
    for before, after in itertools.pairwise(scenes):
        if abs(time - after.start) < after.change_s / 2:
            share = (time - after.start) / after.change_s + 0.5
            if after.change == "black":
                scene, light = (before, 1 - 2 * share) if share < 0.5 else (after, 2 * share - 1)
                return _view(scene, time) * light
            return _view(before, time) * (1 - share) + _view(after, time) * share
    return _view(next(scene for scene in reversed(scenes) if scene.start <= time), time)


def _view(scene: _Scene, time: float) -> np.ndarray:
    since = time - scene.start
    if scene.flash_at is not None and 0 <= time - scene.flash_at < 1.5 / FPS:
        return np.full((SIZE, SIZE, 3), 250, np.float32)
    x, y = (int(np.clip(SIZE / 2 + speed * since, 0, SIZE - 1)) for speed in scene.pan)
    picture = scene.picture[y : y + SIZE, x : x + SIZE].copy()
    columns, rows = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    for x, y, radius, colour in scene.blobs:
        centre_x = SIZE * (0.5 + 0.4 * np.sin(6.28 * (x + 0.1 * since)))
        centre_y = SIZE * (0.5 + 0.4 * np.sin(6.28 * (y + 0.07 * since)))
        picture[np.hypot(columns - centre_x, rows - centre_y) < radius * SIZE] = colour
    if scene.closer_at is not None and time >= scene.closer_at:
        quarter = SIZE // 6
        inner = picture[quarter:-quarter, quarter:-quarter]
        pick = (np.arange(SIZE) * len(inner) / SIZE).astype(int)
        picture = inner[pick][:, pick]
    return picture * (1 + scene.drift * since / (scene.end - scene.start))


# --- audio -----------------------------------------------------------------------------------------------------------


def _plan_sounds(rng: random.Random, duration: float, voice: Voice):
    """Plan sounds as (start, end, name), and turns of speech as (start, end, samples)."""
    effects = rng.sample(SOUNDS, len(SOUNDS))
    sounds, time = [], rng.uniform(0.5, 4)
    while effects and time + 3 < duration:
        end = round(min(time + rng.uniform(2.5, 8), duration - 0.3), 2)
        sounds.append((round(time, 2), end, effects.pop()))
        time = end + rng.choice((rng.uniform(-1.5, -0.8), 0.0, rng.uniform(1, 4), rng.uniform(1, 4)))
    say = _sentences(rng) if voice == "espeak" else _words(rng)
    turns, time = [], rng.uniform(1, 12)
    while time + 3 < duration:
        samples = say(duration - 0.3 - time)
        if samples is None:
            break
        end = time + len(samples) / RATE
        turns.append((round(time, 2), round(end, 2), samples))
        time = end + rng.uniform(3, 14)
    return sounds, turns


def _sentences(rng: random.Random) -> Callable[[float], np.ndarray | None]:
    """Return a function that speaks a sentence of at most `most_s` seconds; None if no sentence is left."""
    sentences, hz = rng.sample(SENTENCES, len(SENTENCES)), rng.uniform(95, 210)

    def say(most_s: float) -> np.ndarray | None:
        while sentences:
            samples = _trimmed(speak(sentences.pop(), RATE, hz, "espeak"))
            if len(samples) <= most_s * RATE:
                return samples
        return None

    return say


def _trimmed(samples: np.ndarray) -> np.ndarray:
    """Remove surrounding silence: the true times are those of audible speech."""
    (loud,) = np.nonzero(np.abs(samples) > 0.02)
    return samples[loud[0] : loud[-1] + 1]


def _words(rng: random.Random) -> Callable[[float], np.ndarray | None]:
    """Return a function that repeats a word once per second for at most `most_s` seconds; None if no word is left."""
    words, hz = rng.sample(WORDS, len(WORDS)), rng.uniform(95, 210)

    def say(most_s: float) -> np.ndarray | None:
        if not words:
            return None
        spoken, period = speak(words.pop(), RATE, hz), round(WORD_PERIOD_S * RATE)
        count = min(rng.randint(2, 5), int(most_s))  # the last one ends the turn
        return np.resize(np.pad(spoken, (0, period - len(spoken))), (count - 1) * period + len(spoken))

    return say


def _render_track(rng: random.Random, duration: float, sounds, turns) -> np.ndarray:
    noise = np.random.default_rng(rng.getrandbits(64))
    track = _noise(noise, round(duration * RATE), pink=rng.random() < 0.5) * 10 ** rng.uniform(-2.7, -1.7)
    for start, end, name in sounds:
        sound = np.resize(EFFECTS[name](RATE, rng.uniform(0.92, 1.08), noise), round((end - start) * RATE))
        _add(track, start, rng.uniform(0.15, 0.4) * sound)
    for start, _, samples in turns:
        _add(track, start, rng.uniform(0.25, 0.5) * samples)
    return np.clip(track, -1, 1).astype(np.float32)


def _noise(noise: np.random.Generator, count: int, pink: bool) -> np.ndarray:
    white = noise.standard_normal(count)
    if not pink:
        return white
    spectrum = np.fft.rfft(white) / np.sqrt(np.maximum(np.arange(count // 2 + 1), 20))
    shaped = np.fft.irfft(spectrum, count)
    return shaped / shaped.std()


def _add(track: np.ndarray, start: float, sound: np.ndarray) -> None:
    ramp = np.minimum(np.arange(1, len(sound) + 1) / (0.02 * RATE), 1)
    begin = round(start * RATE)
    track[begin : begin + len(sound)] += sound * ramp * ramp[::-1]


# --- the file --------------------------------------------------------------------------------------------------------


def _encode(path: Path, frames, track: np.ndarray) -> None:
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "20"})
        video.width = video.height = SIZE
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        for start in range(0, len(track), 1024):
            frame = av.AudioFrame.from_ndarray(track[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            container.mux(audio.encode(frame))
        container.mux(audio.encode())
