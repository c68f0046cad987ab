"""Diarization with a segmentation network and an embedding network, on windows of 10 s.

1. The segmentation finds the local speakers of each window, and how many people speak at each moment.
2. The speech of each local speaker is embedded; clusters of these embeddings are the speakers.
3. Who speaks at a moment is decided by the local speakers of all windows that contain it, and by how much the sound
   around it resembles each speaker: the segmentation takes similar voices that follow each other without a pause for
   one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ...events import Seconds
from .clustering import ClusterOptions, Piece, cluster, find_voices
from .segmentation import FRAME, FRAME_STEP, WINDOW
from .turns import Turn, TurnOptions, combine, count_active, find_turns

_RATE = 16_000
#: float32 [B, samples] -> activity, float [B, frames, local speakers], probabilities.
Segment = Callable[[np.ndarray], np.ndarray]
#: float32 [samples] -> float32 [d] of length 1.
Embed = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class DiarizationOptions:
    """Options of diarization; the defaults were chosen by benchmarks/speakers.py --tune.

    Args:
        step_s: seconds between two windows.
        piece_s: longest stretch of speech that is embedded at once.
        least_s: shortest one.
        split: a local speaker whose pieces are farther apart than this (mean cosine distance) is two people.
        moment_s: seconds of sound that are compared with the speakers, around each moment.
        moment_step_s: seconds between two moments.
        likeness: weight of the similarity (cosine) to a speaker, beside the activity of that speaker (0 to 1).
        clusters: options of the clustering.
        turns: options of the turns.
        batch: windows per forward pass.
    """

    step_s: Seconds = 2.5
    piece_s: Seconds = 2.5
    least_s: Seconds = 0.5
    split: float = 0.6
    moment_s: Seconds = 1.5
    moment_step_s: Seconds = 0.5
    likeness: float = 2.0
    clusters: ClusterOptions = field(default_factory=ClusterOptions)
    turns: TurnOptions = field(default_factory=TurnOptions)
    batch: int = 8


@dataclass(frozen=True)
class Local:
    """Local speakers of all windows.

    Args:
        activity: float16 [windows, frames, speakers], probabilities.
        starts: int [windows], first sample of each.
        pieces: embedded speech, by window and local speaker.
        moments: float [moments], seconds: middles of the sounds that were compared with the speakers, ascending.
        sounds: float32 [moments, d] of length 1, their embeddings.
    """

    activity: np.ndarray
    starts: np.ndarray
    pieces: list[Piece]
    moments: np.ndarray
    sounds: np.ndarray


def find_local(waveform: np.ndarray, segment: Segment, embed: Embed, options: DiarizationOptions) -> Local:
    """Find the speakers of each window, and embed their speech.

    Time and memory grow with the length: each second is segmented and embedded 10 / `step_s` times, and embedded
    another `moment_s` / `moment_step_s` times.
    """
    step = round(options.step_s * _RATE)
    starts = np.arange(0, max(len(waveform) - WINDOW + step, 1), step)
    activity = []
    for first in range(0, len(starts), options.batch):
        windows = np.zeros((len(starts[first : first + options.batch]), WINDOW), np.float32)
        for row, start in zip(windows, starts[first : first + options.batch], strict=True):
            part = waveform[start : start + WINDOW]
            row[: len(part)] = part
        activity.append(segment(windows).astype(np.float16))
    found = np.concatenate(activity)
    pieces = []
    for window, start in enumerate(starts.tolist()):
        for local, first, last, clean in _stretches(found[window], options):
            sound = waveform[start + first * FRAME_STEP : start + last * FRAME_STEP]
            if len(sound) >= options.least_s * _RATE:
                seconds = len(sound) / _RATE if clean else 0.0
                pieces.append(Piece(window, local, first, last, seconds, embed(sound)))
    moments, sounds = _embed_moments(waveform, count_active(found, starts, len(waveform) / _RATE), embed, options)
    return Local(found, starts, pieces, moments, sounds)


def _embed_moments(
    waveform: np.ndarray, active: np.ndarray, embed: Embed, options: DiarizationOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Embed the sound around each moment at which somebody may speak: seconds, and embeddings."""
    size, step = round(options.moment_s * _RATE), round(options.moment_step_s * _RATE)
    moments, sounds = [], []
    for start in range(0, max(len(waveform) - size, 0) + step, step):
        sound = waveform[start : start + size]
        first, last = start // FRAME_STEP, (start + len(sound)) // FRAME_STEP
        if len(sound) >= options.least_s * _RATE and active[first:last].max(initial=0.0) > options.turns.offset:
            moments.append((start + len(sound) / 2) / _RATE)
            sounds.append(embed(sound))
    return np.array(moments), np.stack(sounds) if sounds else np.zeros((0, 0), np.float32)


def _stretches(activity: np.ndarray, options: DiarizationOptions) -> Iterator[tuple[int, int, int, bool]]:
    """Yield what to embed of a window: local speaker, first and last frame, and whether nobody else speaks."""
    active = activity > 0.5
    alone = active.sum(axis=1) == 1
    size, least = options.piece_s * _RATE / FRAME_STEP, options.least_s * _RATE / FRAME_STEP
    for local in range(active.shape[1]):
        runs = [(first, last, True) for first, last in _runs(active[:, local] & alone) if last - first > least]
        if not runs:  # never alone for long enough: the longest stretch, though others speak
            others = _runs(active[:, local])
            runs = [(*max(others, key=lambda run: run[1] - run[0]), False)] if others else []
        for first, last, clean in runs:
            cuts = np.linspace(first, last, math.ceil((last - first) / size) + 1).round().astype(int).tolist()
            yield from ((local, a, b, clean) for a, b in itertools.pairwise(cuts))


def _runs(values: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], values, [False])).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def join(local: Local, duration: Seconds, options: DiarizationOptions) -> list[Turn]:
    """Join the local speakers of all windows; speakers are numbered from 0 by their first turn."""
    voices = find_voices(local.pieces, options.split)
    speakers, centroids = cluster(voices, options.clusters)
    labels = np.full(local.activity.shape, -1, np.int8)
    for (window, number), group in itertools.groupby(
        sorted(zip(voices, speakers.tolist(), strict=True), key=lambda item: item[0].place),
        key=lambda item: item[0].place,
    ):
        frames = np.arange(local.activity.shape[1])
        near = [(piece, speaker) for voice, speaker in group for piece in voice.pieces]
        away = [np.maximum(np.maximum(piece.first - frames, frames - piece.last + 1), 0) for piece, _ in near]
        labels[window, :, number] = np.array([speaker for _, speaker in near])[np.argmin(away, axis=0)]
    activity = combine(local.activity, local.starts, labels, len(centroids), duration)
    if len(centroids) and len(local.moments):
        activity += options.likeness * _likeness(local, centroids, len(activity))
    active = count_active(local.activity, local.starts, duration)
    turns = find_turns(activity, active, duration, options.turns)
    order = {speaker: number for number, speaker in enumerate(dict.fromkeys(turn.speaker for turn in turns))}
    return [turn._replace(speaker=order[turn.speaker]) for turn in turns]


def _likeness(local: Local, centroids: np.ndarray, frames: int) -> np.ndarray:
    """Return how much the sound around each frame resembles each speaker: cosines, float [frames, speakers]."""
    times = (np.arange(frames) * FRAME_STEP + FRAME / 2) / _RATE
    similarity = local.sounds @ centroids.T
    return np.stack([np.interp(times, local.moments, column) for column in similarity.T], axis=1)


def diarize(
    waveform: np.ndarray, segment: Segment, embed: Embed, options: DiarizationOptions | None = None
) -> list[Turn]:
    """Find who speaks when.

    Args:
        waveform: float32 [samples], 16 kHz, mono.
        segment: windows to activity of local speakers.
        embed: speech to an embedding.
        options: thresholds.

    Returns:
        Turns in order of their start, which overlap where several people speak; speakers are numbered from 0 by their
        first turn.
    """
    options = options or DiarizationOptions()
    local = find_local(waveform, segment, embed, options)
    return join(local, len(waveform) / _RATE, options)
