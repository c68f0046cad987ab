"""Feature-space compositing: an endless stream of new training videos, made of features of stored videos.

A model that sees the same two thousand videos again and again memorizes them: it grounds them perfectly, and new videos
no better than without seeing them. So each example is a new timeline, drawn from the planner of the synthetic corpus.
It is filled with features of stored videos: a frame of a stored red circle where the plan shows a red circle, an audio
window of a stored bell where the bell rings. The plan is the ground truth. An example depends only on the seed and its
index.
"""

from __future__ import annotations

import logging
import math
import os
import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from longvale.data.dialogues import boundary_dialogue, fill_timecodes
from longvale.data.sources import ANNOTATION_FILES
from longvale.events import MODALITIES, Modality, Seconds, load_annotations
from longvale.features.store import FeatureStore
from longvale.io import load_json
from longvale.synthetic.corpus import SETTINGS_FILE, load_events
from longvale.synthetic.instructions import instruction_dialogue
from longvale.synthetic.planning import COLOURS, SHAPES, SOUNDS, WORDS, Piece, Plan, SyntheticOptions, plan_video

if TYPE_CHECKING:
    from datasets import Dataset

    from longvale.models.configuration_longvale import LongVALEConfig

logger = logging.getLogger(__name__)

Kind: TypeAlias = Literal["boundary_perception", "instruction"]
#: What is audible during an interval: a sound effect or None, and a word or None.
Audible: TypeAlias = tuple[str | None, str | None]
#: What is audible in a window, and the share of its time for each combination.
Parts: TypeAlias = list[tuple[Audible, float]]


@dataclass
class FeatureBank:
    """Stored features, grouped by content.

    Args:
        windows: seconds of one audio and one speech feature.
        frames: number of visual features per video.
        visual: runs of consecutive frames [n, width] by content; None is the empty background.
        sounds: features [width] of windows with the same sounds from start to end, by modality and content.
    """

    windows: Mapping[Modality, Seconds]
    frames: int = 0
    visual: dict[str | None, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    sounds: dict[Modality, dict[Audible, list[np.ndarray]]] = field(
        default_factory=lambda: {"audio": defaultdict(list), "speech": defaultdict(list)}
    )

    def add(self, pieces: Iterable[Piece], duration: Seconds, features: Mapping[Modality, np.ndarray | None]) -> None:
        """Add a stored video.

        Args:
            pieces: content and times of each lane.
            duration: of the video in seconds.
            features: [n, width] per modality.

        Raises:
            ValueError: if its number of frames differs from the videos before, or a modality is missing.
        """
        missing = [modality for modality in MODALITIES if features.get(modality) is None]
        if missing:
            raise ValueError(f"compositing needs all three modalities, but a video lacks {', '.join(missing)} features")
        visual, lanes = features["visual"], Lanes(pieces, duration)
        if self.frames not in (0, len(visual)):
            raise ValueError(f"videos have {self.frames} and {len(visual)} visual features; extract all alike")
        self.frames = len(visual)
        for content, first, last in _runs([lanes.shown(time) for time in frame_times(self.frames, duration)]):
            self.visual[content].append(visual[first:last])
        for modality, banked in self.sounds.items():
            for vector, parts in zip(features[modality], lanes.windows(self.windows[modality]), strict=False):
                if len(parts) == 1:
                    banked[parts[0][0]].append(vector)

    def lacking(self) -> list[str]:
        """Return planner contents that no stored video shows alone, with "silence" and "background" for no content."""
        shapes = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
        lacking = [content or "background" for content in [None, *shapes] if not self.visual.get(content)]
        for modality, contents in (("audio", SOUNDS), ("speech", WORDS)):
            for content in [None, *contents]:
                if not self.sounds[modality].get(_alone(modality, content)):
                    lacking.append(f"{content or 'silence'} ({modality})")
        return lacking

    def draw_frames(self, content: str | None, count: int, rng: random.Random) -> np.ndarray:
        """Return `count` frames [count, width] of one stored run that shows `content`, in their order.

        Raises:
            ValueError: if no stored video shows it.
        """
        runs = self.visual.get(content)
        if not runs:
            raise ValueError(f"no stored video shows {content or 'an empty background'!r}; store more videos")
        run = rng.choice(runs)
        return run[sorted(rng.choices(range(len(run)), k=count))]

    def draw_sound(self, modality: Modality, sounds: Audible, rng: random.Random) -> np.ndarray:
        """Return a stored window [width] of these sounds, or of the lane's own sound alone if no video has both.

        Raises:
            ValueError: if no stored video has it.
        """
        banked, content = self.sounds[modality], sounds[0] if modality == "audio" else sounds[1]
        for key in (sounds, _alone(modality, content)):
            if banked.get(key):
                return rng.choice(banked[key])
        raise ValueError(f"no stored video has a {modality} window of {content or 'silence'} alone; store more videos")


def _alone(modality: Modality, content: str | None) -> Audible:
    return (content, None) if modality == "audio" else (None, content)


class CompositeVideos:
    """Endless dataset: row `i` contains the messages of a new video and its features.

    Args:
        bank: stored features.
        options: of the planner: the durations and the grid of boundaries.
        kind: type of dialogues, `boundary_perception` or `instruction`.
        seed: of all choices.
        turns: maximum number of questions per video.
        modality_dropout: share of examples that lack one modality, so that the model does not depend on all three.

    Example:
        >>> composites.dataset(1000)[0]["messages"]  # doctest: +SKIP
    """

    def __init__(
        self,
        bank: FeatureBank,
        options: SyntheticOptions,
        kind: Kind = "boundary_perception",
        seed: int = 0,
        turns: int | None = None,
        modality_dropout: float = 0.0,
    ) -> None:
        if kind not in ("boundary_perception", "instruction"):
            raise ValueError(f"kind must be 'boundary_perception' or 'instruction', not {kind!r}")
        if not 0 <= modality_dropout <= 1:
            raise ValueError(f"modality_dropout must be 0 to 1, not {modality_dropout}")
        self.bank = bank
        self.options = options
        self.kind: Kind = kind
        self.seed = seed
        self.turns = turns
        self.modality_dropout = modality_dropout

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return `id`, `messages` and the three features, each [n, width] or None."""
        # The name seeds the plan.
        plan = plan_video(f"mosaic_{index}", self.seed, self.options)
        rng = random.Random(f"{self.seed}:{index}")
        features: dict[Modality, np.ndarray | None] = dict(compose(plan, self.bank, rng))
        if rng.random() < self.modality_dropout:
            features[rng.choice(MODALITIES)] = None
        return {
            "id": plan.annotation.video_id,
            "messages": fill_timecodes(self._dialogue(plan, rng)),
            **{f"{modality}_features": values for modality, values in features.items()},
        }

    def dataset(self, rows: int) -> Dataset:
        """Return the first rows as a dataset; a row is composed when it is accessed."""
        from datasets import Dataset

        return Dataset.from_dict({"index": range(rows)}).with_transform(self._transform)

    def _transform(self, batch: Mapping[str, Sequence[int]]) -> dict[str, list]:
        rows = [self[index] for index in batch["index"]]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _dialogue(self, plan: Plan, rng: random.Random) -> dict[str, Any]:
        if self.kind == "boundary_perception":
            return boundary_dialogue(plan.annotation, rng, turns=self.turns)
        return instruction_dialogue(plan.annotation, plan.pieces, rng, turns=self.turns)


def load_composites(
    data_dir: str | os.PathLike,
    features_dir: str | os.PathLike,
    config: LongVALEConfig,
    kind: Kind = "boundary_perception",
    seed: int = 0,
    turns: int | None = None,
    modality_dropout: float = 0.0,
) -> CompositeVideos:
    """Prepare composites of a synthetic corpus's training videos; videos without features are left out and counted.

    Args:
        data_dir: as `longvale synthesize` wrote it.
        features_dir: its feature store.
        config: of the model; defines the windows and widths of the features.
        kind, seed, turns, modality_dropout: of [`CompositeVideos`].

    Raises:
        FileNotFoundError: if a file of the corpus is missing (the message names it), or no training video has features.
        ValueError: if a file or a feature is invalid, or no video shows something that a plan may contain.
    """
    data_dir, store = Path(data_dir), FeatureStore(features_dir, widths=config.feature_sizes)
    settings_file = data_dir / SETTINGS_FILE
    if not settings_file.is_file():
        raise FileNotFoundError(
            f"{settings_file}: no such file; compositing needs a corpus made by `longvale synthesize`"
        )
    options = SyntheticOptions(**load_json(settings_file)["options"])
    annotations = load_annotations(data_dir / ANNOTATION_FILES["train"])
    pieces: dict[str, list[Piece]] = defaultdict(list)
    for record in load_events(data_dir):
        if record.split == "train":
            pieces[record.video_id] += record.pieces
    usable = [video_id for video_id in pieces if video_id in annotations and store.has(video_id)]
    if not usable:
        raise FileNotFoundError(
            f"{store.root}: holds no features of the {len(pieces)} training videos of {data_dir}; make them with "
            "`longvale features`"
        )
    if len(usable) < len(pieces):
        logger.warning(
            "%d of %d training videos have no features and are left out", len(pieces) - len(usable), len(pieces)
        )
    bank = FeatureBank({"audio": config.audio_window_frames / 100, "speech": config.speech_window_states / 50})
    for video_id in usable:
        try:
            bank.add(pieces[video_id], annotations[video_id].duration, store.load(video_id))
        except ValueError as error:
            raise ValueError(f"{store.root}: video {video_id!r}: {error}") from None
    if lacking := bank.lacking():
        first = ", ".join(lacking[:5]) + (", ..." if lacking[5:] else "")
        raise ValueError(
            f"{store.root}: none of {len(usable)} training videos shows {first}; make a corpus of more videos"
        )
    return CompositeVideos(bank, options, kind, seed, turns, modality_dropout)


def compose(plan: Plan, bank: FeatureBank, rng: random.Random) -> dict[Modality, np.ndarray]:
    """Compose the features of a planned video from the bank.

    A frame shows what the plan shows at its time. An audio window is the mean of the sounds in it, weighted by their
    duration: towers average over a window too.

    Returns:
        visual [F, width], audio [A, width], speech [S, width].
    """
    lanes = Lanes((piece for pieces in plan.pieces for piece in pieces), plan.annotation.duration)
    runs = _runs([lanes.shown(time) for time in frame_times(bank.frames, lanes.duration)])
    composed: dict[Modality, np.ndarray] = {
        "visual": np.concatenate([bank.draw_frames(content, last - first, rng) for content, first, last in runs])
    }
    windows = {length: lanes.windows(length) for length in set(bank.windows.values())}
    for modality in bank.sounds:
        vectors = [_mix(modality, parts, bank, rng) for parts in windows[bank.windows[modality]]]
        composed[modality] = np.stack(vectors).astype(np.float32, copy=False)
    return composed


def _mix(modality: Modality, parts: Parts, bank: FeatureBank, rng: random.Random) -> np.ndarray:
    if len(parts) == 1:
        return bank.draw_sound(modality, parts[0][0], rng)
    return sum(share * bank.draw_sound(modality, sounds, rng) for sounds, share in parts)


def frame_times(frames: int, duration: Seconds) -> list[Seconds]:
    """Return the centres of `frames` equal parts of a video, which the strict preprocessing samples."""
    return [(index + 0.5) * duration / frames for index in range(frames)]


class Lanes:
    """Visible and audible content of a video at any time.

    Args:
        pieces: of all lanes; those of one lane do not overlap.
        duration: of the video in seconds.

    Example:
        >>> pieces = [Piece("visual", 2, 4, "red ring"), Piece("audio", 0, 3, "bell"), Piece("speech", 2, 5, "stop")]
        >>> lanes = Lanes(pieces, duration=6.0)
        >>> lanes.shown(3.0), lanes.shown(4.0)
        ('red ring', None)
        >>> lanes.windows(4.0)[0]
        [(('bell', None), 0.5), (('bell', 'stop'), 0.25), ((None, 'stop'), 0.25)]
    """

    def __init__(self, pieces: Iterable[Piece], duration: Seconds) -> None:
        self.duration = duration
        pieces = list(pieces)
        self._visual = sorted((p.start, p.end, p.content) for p in pieces if p.modality == "visual")
        heard = [p for p in pieces if p.modality != "visual"]
        cuts = sorted({0.0, duration, *(time for p in heard for time in (p.start, p.end) if 0 < time < duration)})
        # Intervals with the same sounds from start to end: (start, end, sounds).
        self._stretches = [(a, b, _heard(heard, (a + b) / 2)) for a, b in pairwise(cuts)]

    def shown(self, time: Seconds) -> str | None:
        """Return the content of the visual lane; None for the empty background."""
        place = bisect_right(self._visual, time, key=lambda piece: piece[0]) - 1
        return self._visual[place][2] if place >= 0 and time < self._visual[place][1] else None

    def windows(self, length: Seconds) -> list[Parts]:
        """Return the sounds in each window of `length` seconds with their shares; the last window may be shorter."""
        windows, stretches, first = [], self._stretches, 0
        for index in range(math.ceil(round(self.duration / length, 6))):
            start, end = index * length, min((index + 1) * length, self.duration)
            while stretches[first][1] <= start:
                first += 1
            shares: dict[Audible, float] = {}
            for a, b, sounds in stretches[first:]:
                if a >= end:
                    break
                shares[sounds] = shares.get(sounds, 0.0) + (min(b, end) - max(a, start)) / (end - start)
            windows.append(list(shares.items()))
        return windows


def _heard(pieces: Iterable[Piece], time: Seconds) -> Audible:
    sounds = {piece.modality: piece.content for piece in pieces if piece.start <= time < piece.end}
    return sounds.get("audio"), sounds.get("speech")


def _runs(contents: Sequence[str | None]) -> list[tuple[str | None, int, int]]:
    """Return runs of equal neighbours: (value, first, one past the last)."""
    starts = [i for i in range(len(contents)) if i == 0 or contents[i] != contents[i - 1]]
    return [(contents[a], a, b) for a, b in zip(starts, [*starts[1:], len(contents)], strict=True)]
