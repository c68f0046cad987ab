"""Temporal mosaic: an endless stream of new training videos, composed of the stored features of real ones.

A model that sees the same two thousand videos again and again learns them by heart: it grounds them perfectly and new
videos no better than blindly. So each example is a new timeline, drawn from the planner of the synthetic corpus, that
is filled with features of stored videos: a frame of a stored red circle where the plan shows a red circle, a sound
window of a stored bell where it rings. The truth is the plan's. An example depends on the seed and its number alone.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from longvale.data.dialogues import boundary_dialogue, fill_timecodes
from longvale.data.instructions import instruction_dialogue
from longvale.data.planning import Piece, Plan, SyntheticOptions, plan_video
from longvale.events import MODALITIES, Modality, Seconds

Kind: TypeAlias = Literal["boundary_perception", "instruction"]
#: What sounds during a stretch of time: a sound effect or None, and a word or None.
Sounding: TypeAlias = tuple[str | None, str | None]


@dataclass
class FeatureBank:
    """Stored features, sorted by what they show.

    Args:
        windows: seconds of an audio and of a speech feature.
        frames: number of visual features a video.
        visual: runs of consecutive frames [n, width] by content; None is the empty background.
        sounds: features [width] of windows in which the same sounds from begin to end, by modality and what sounds.
    """

    windows: Mapping[Modality, Seconds]
    frames: int = 0
    visual: dict[str | None, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    sounds: dict[Modality, dict[Sounding, list[np.ndarray]]] = field(
        default_factory=lambda: {"audio": defaultdict(list), "speech": defaultdict(list)}
    )

    def add(self, pieces: Iterable[Piece], duration: Seconds, features: Mapping[Modality, np.ndarray | None]) -> None:
        """Take in a stored video.

        Args:
            pieces: what each lane shows, and when.
            duration: of the video in seconds.
            features: [n, width] a modality.

        Raises:
            ValueError: if it has another number of frames than the videos before, or a modality is missing.
        """
        missing = [modality for modality in MODALITIES if features.get(modality) is None]
        if missing:
            raise ValueError(f"a mosaic needs all three modalities, but a video lacks {', '.join(missing)} features")
        pieces = list(pieces)
        visual = features["visual"]
        if self.frames not in (0, len(visual)):
            raise ValueError(f"videos have {self.frames} and {len(visual)} visual features; extract all alike")
        self.frames = len(visual)
        contents = [_showing(pieces, "visual", time) for time in frame_times(self.frames, duration)]
        for content, first, last in _runs(contents):
            self.visual[content].append(visual[first:last])
        for modality, banked in self.sounds.items():
            window = self.windows[modality]
            for index, vector in enumerate(features[modality]):
                parts = sounding(pieces, index * window, min((index + 1) * window, duration))
                if len(parts) == 1:
                    banked[parts[0][0]].append(vector)

    def draw_frames(self, content: str | None, count: int, rng: random.Random) -> np.ndarray:
        """`count` frames [count, width] of one stored run that shows `content`, in their order.

        Raises:
            ValueError: if no stored video shows it.
        """
        runs = self.visual.get(content)
        if not runs:
            raise ValueError(f"no stored video shows {content or 'an empty background'!r}; store more videos")
        run = rng.choice(runs)
        return run[sorted(rng.randrange(len(run)) for _ in range(count))]

    def draw_sound(self, modality: Modality, sounds: Sounding, rng: random.Random) -> np.ndarray:
        """A stored window [width] of these sounds; of the lane's own sound alone where no video has both together.

        Raises:
            ValueError: if no stored video has it.
        """
        banked = self.sounds[modality]
        own = (sounds[0], None) if modality == "audio" else (None, sounds[1])
        for key in (sounds, own):
            if banked.get(key):
                return rng.choice(banked[key])
        raise ValueError(f"no stored video has a whole {modality} window of {own}; store more or longer videos")


class TemporalMosaic:
    """Row `i` of an endless dataset: the messages of a new video and its features.

    Args:
        bank: stored features.
        options: of the planner; the durations and the grid of boundaries.
        kind: which dialogues: `boundary_perception`, or `instruction`.
        seed: of all choices.
        turns: questions a video at most.
        modality_dropout: share of examples that lack one modality, so that the model does not depend on all three.

    Example:
        >>> rows = Dataset.from_dict({"index": range(1000)}).with_transform(mosaic.transform)  # doctest: +SKIP
        >>> rows[0]["messages"]  # doctest: +SKIP
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
        """`id`, `messages` and the three features, each [n, width] or None."""
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

    def transform(self, batch: Mapping[str, Sequence[int]]) -> dict[str, list]:
        """For `datasets.Dataset.with_transform`: a batch of numbers in `index` to a batch of rows."""
        rows = [self[index] for index in batch["index"]]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _dialogue(self, plan: Plan, rng: random.Random) -> dict[str, Any]:
        if self.kind == "boundary_perception":
            return boundary_dialogue(plan.annotation, rng, turns=self.turns)
        return instruction_dialogue(plan.annotation, plan.pieces, rng, turns=self.turns)


def compose(plan: Plan, bank: FeatureBank, rng: random.Random) -> dict[Modality, np.ndarray]:
    """Features of a planned video, drawn from the bank.

    A frame is what the plan shows at its time. A sound window is the mean of what sounds in it, weighted by how long:
    towers average over a window too.

    Returns:
        visual [F, width], audio [A, width], speech [S, width].
    """
    pieces = [piece for event_pieces in plan.pieces for piece in event_pieces]
    duration = plan.annotation.duration
    contents = [_showing(pieces, "visual", time) for time in frame_times(bank.frames, duration)]
    visual = [bank.draw_frames(content, last - first, rng) for content, first, last in _runs(contents)]
    composed: dict[Modality, np.ndarray] = {"visual": np.concatenate(visual)}
    for modality in bank.sounds:
        window = bank.windows[modality]
        tokens = []
        for index in range(int(np.ceil(round(duration / window, 6)))):
            parts = sounding(pieces, index * window, min((index + 1) * window, duration))
            vectors = [share * bank.draw_sound(modality, sounds, rng) for sounds, share in parts]
            tokens.append(np.sum(vectors, axis=0))
        composed[modality] = np.stack(tokens).astype(np.float32)
    return composed


def frame_times(frames: int, duration: Seconds) -> list[Seconds]:
    """Centres of `frames` equal parts of a video, as the strict preprocessing takes them."""
    return [(index + 0.5) * duration / frames for index in range(frames)]


def sounding(pieces: Iterable[Piece], start: Seconds, end: Seconds) -> list[tuple[Sounding, float]]:
    """What sounds from `start` to `end`, and each combination's share of that time.

    Example:
        >>> sounding([Piece("audio", 0, 3, "bell"), Piece("speech", 2, 9, "stop")], 1, 5)
        [(('bell', None), 0.25), (('bell', 'stop'), 0.25), ((None, 'stop'), 0.5)]
    """
    heard = [p for p in pieces if p.modality != "visual" and p.start < end and p.end > start]
    cuts = sorted({start, end, *(min(max(t, start), end) for p in heard for t in (p.start, p.end))})
    shares: dict[Sounding, float] = defaultdict(float)
    for first, last in zip(cuts, cuts[1:], strict=False):
        middle = (first + last) / 2
        key = (_showing(heard, "audio", middle), _showing(heard, "speech", middle))
        shares[key] += (last - first) / (end - start)
    return list(shares.items())


def _showing(pieces: Iterable[Piece], modality: Modality, time: Seconds) -> str | None:
    return next((p.content for p in pieces if p.modality == modality and p.start <= time < p.end), None)


def _runs(contents: Sequence[str | None]) -> list[tuple[str | None, int, int]]:
    """Stretches of equal neighbours: (value, first, one past the last)."""
    starts = [i for i in range(len(contents)) if i == 0 or contents[i] != contents[i - 1]]
    return [(contents[a], a, b) for a, b in zip(starts, [*starts[1:], len(contents)], strict=True)]
