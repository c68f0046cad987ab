"""Plans of synthetic videos: what happens when. Frames, audio, annotations and dialogues are made from a plan.

A video has three lanes, visual, audio and speech. Each shows one thing at a time (a coloured shape, a sound effect, a
spoken word); the lanes overlap freely. A thing appears once per video, so that a caption identifies its event.
Planning is a pure function, takes well below a millisecond, and gives the same plan on every machine.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..events import MODALITIES, Annotation, Event, Modality, Seconds

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
SHAPES = ("circle", "square", "triangle", "star", "ring")
SOUNDS = ("bell", "drum", "chirp", "hiss", "engine", "siren", "whistle", "buzzer")
WORDS = ("hello", "stop", "yes", "go", "away", "more")

#: Length of one piece in percent of the duration; consecutive pieces of one event share the upper bound.
PIECE_PERCENT = (10, 30)
#: Durations are multiples of this, so that whole frames fill a video at even frame rates and grid times are whole ms.
DURATION_STEP_S: Seconds = 0.5

#: A shape and a sound in synchronicity pulse together, with this period.
PULSE_S: Seconds = 1.0

Kind: TypeAlias = Literal["visual", "sound", "speech", "synchronicity", "complementary", "causality", "temporal"]

#: Every video has these kinds of event and one of [`_JOINT`]; up to [`_MAX_EXTRA`] others are added where they fit.
_REQUIRED: tuple[Kind, ...] = ("visual", "visual", "sound", "speech")
_JOINT: tuple[Kind, ...] = ("synchronicity", "complementary", "causality", "temporal")
_MAX_EXTRA = 3

#: Lanes of a kind; lanes of one group run together, the groups one after the other.
_LANES: dict[Kind, tuple[tuple[Modality, ...], ...]] = {
    "visual": (("visual",),),
    "sound": (("audio",),),
    "speech": (("speech",),),
    "synchronicity": (("visual", "audio"),),
    "complementary": (("visual", "speech"),),
    "causality": (("visual",), ("audio",)),
    "temporal": (("audio",), ("visual",)),
}
_RELATIONS: dict[Kind, str] = {
    "visual": "visual-only",
    "sound": "audio-only",
    "speech": "audio-only",
    "synchronicity": "synchronicity",
    "complementary": "complementary",
    "causality": "causality",
    "temporal": "temporal association",
}
#: One pattern per kind. Each is true whatever the other lanes show at the same time.
_CAPTIONS: dict[Kind, str] = {
    "visual": "{visual} slides across the screen.",
    "sound": "{audio} is heard off screen.",
    "speech": "A voice off screen says {speech}.",
    "synchronicity": "{visual} jumps in time with {audio}.",
    "complementary": "{visual} turns while a voice says {speech}.",
    "causality": "{visual} hits the wall and {audio} starts.",
    "temporal": "After {audio} {visual} appears.",
}
_PLACEMENT_TRIES = 24


@dataclass(frozen=True)
class SyntheticOptions:
    """Size, frame rate, duration, grid and sound of synthetic videos.

    Args:
        size: width and height in pixels, even, 32 to 1024.
        fps: frames per second, 1 to 60.
        min_length_s: shortest duration in seconds, 5 or more.
        max_length_s: longest duration in seconds, up to 3600.
        grid: event boundaries are multiples of duration / grid, 10 to 100; 0 for any time, to the millisecond.
        sound_rate: samples per second, a rate that AAC supports, 8000 to 48000.
        voice: "formant" is synthesized here and the same everywhere; "espeak" is espeak-ng's (`longvale[voice]`).

    Raises:
        ValueError: naming the option, its value and the allowed values.

    Example:
        >>> SyntheticOptions(fps=4).fps
        4
    """

    size: int = 64
    fps: int = 8
    min_length_s: Seconds = 20.0
    max_length_s: Seconds = 60.0
    grid: int = 20
    sound_rate: int = 16000
    voice: Literal["formant", "espeak"] = "formant"

    def __post_init__(self) -> None:
        for name in ("size", "fps", "grid", "sound_rate"):
            if not isinstance(getattr(self, name), int) or isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be a whole number, not {getattr(self, name)!r}")
        if not 32 <= self.size <= 1024 or self.size % 2:
            raise ValueError(f"size must be an even number of pixels, 32 to 1024, not {self.size}")
        if not 1 <= self.fps <= 60:
            raise ValueError(f"fps must be 1 to 60 frames a second, not {self.fps}")
        if not 5 <= self.min_length_s <= self.max_length_s <= 3600:
            raise ValueError(
                f"min_length_s ({self.min_length_s}) and max_length_s ({self.max_length_s}) must be 5 to 3600 s, "
                "the first not above the second"
            )
        if math.floor(self.max_length_s / DURATION_STEP_S) < math.ceil(self.min_length_s / DURATION_STEP_S):
            raise ValueError(
                f"no multiple of {DURATION_STEP_S} s lies between min_length_s ({self.min_length_s}) and "
                f"max_length_s ({self.max_length_s})"
            )
        if self.grid != 0 and not 10 <= self.grid <= 100:
            raise ValueError(f"grid must be 10 to 100 steps, or 0 for none, not {self.grid}")
        if self.sound_rate not in (8000, 16000, 22050, 24000, 32000, 44100, 48000):
            raise ValueError(
                f"sound_rate must be a usual rate from 8000 to 48000, such as 16000, not {self.sound_rate}"
            )
        if self.voice not in ("formant", "espeak"):
            raise ValueError(f"voice must be 'formant' or 'espeak', not {self.voice!r}")


@dataclass(frozen=True)
class Piece:
    """Content of one modality during an event.

    Args:
        modality: the lane.
        start: seconds.
        end: seconds.
        content: "red circle" (visual), one of [`SOUNDS`] (audio) or one of [`WORDS`] (speech).
    """

    modality: Modality
    start: Seconds
    end: Seconds
    content: str


@dataclass(frozen=True)
class Plan:
    """Plan of one synthetic video.

    Args:
        annotation: id, duration and events, sorted by start, with modalities and relation.
        pieces: `pieces[i]` belong to event `i`, sorted by start.
        seed: random seed of the appearance and sound of this video.
    """

    annotation: Annotation
    pieces: tuple[tuple[Piece, ...], ...]
    seed: str

    def lane(self, modality: Modality) -> Iterator[tuple[Event, Piece]]:
        """Yield the pieces of one modality with their events, in the order of time."""
        pairs = [(e, p) for e, pieces in zip(self.annotation.events, self.pieces, strict=True) for p in pieces]
        yield from sorted((pair for pair in pairs if pair[1].modality == modality), key=lambda pair: pair[1].start)


def plan_video(video_id: str, seed: int | str, options: SyntheticOptions | None = None) -> Plan:
    """Plan one synthetic video.

    Every video has at least two visual-only events, one sound-only event, one speech-only event, and one joint event;
    five to eight in all.

    Args:
        video_id: name of the video; with the seed and the options it determines everything.
        seed: of the corpus.
        options: default [`SyntheticOptions`].

    Raises:
        ValueError: if the id is invalid (see [`longvale.events.check_video_id`]).

    Example:
        >>> plan = plan_video("train_0000", seed=0)
        >>> plan == plan_video("train_0000", seed=0)
        True
        >>> plan.annotation.duration, plan.annotation.events[0].caption
        (46.5, 'A voice off screen says away.')
    """
    options = options or SyntheticOptions()
    name = f"{seed}:{video_id}"
    rng = random.Random(name)
    duration = _draw_duration(rng, options)
    ticks = options.grid or round(duration * 1000)
    layouts = _draw_layouts(rng, ticks)
    contents = _Contents(rng)

    def piece(lane: Modality, start: int, end: int) -> Piece:
        return Piece(lane, round(start * duration / ticks, 3), round(end * duration / ticks, 3), contents.take(lane))

    planned = [(kind, tuple(piece(*span) for span in spans)) for kind, spans in layouts]
    planned.sort(key=lambda item: (item[1][0].start, max(p.end for p in item[1]), item[1][0].content))
    events = tuple(_event(kind, pieces) for kind, pieces in planned)
    return Plan(Annotation(video_id, duration, events), tuple(pieces for _, pieces in planned), name)


class _Contents:
    """Shuffled contents of the three lanes; each is used once."""

    def __init__(self, rng: random.Random) -> None:
        shapes = [f"{colour} {rng.choice(SHAPES)}" for colour in rng.sample(COLOURS, len(COLOURS))]
        sounds, words = rng.sample(SOUNDS, len(SOUNDS)), rng.sample(WORDS, len(WORDS))
        self._left = {"visual": shapes, "audio": sounds, "speech": words}

    def take(self, lane: Modality) -> str:
        return self._left[lane].pop()


def _draw_duration(rng: random.Random, options: SyntheticOptions) -> Seconds:
    low, high = math.ceil(options.min_length_s / DURATION_STEP_S), math.floor(options.max_length_s / DURATION_STEP_S)
    return rng.randint(low, high) * DURATION_STEP_S


_Span: TypeAlias = tuple[Modality, int, int]


def _draw_layouts(rng: random.Random, ticks: int) -> list[tuple[Kind, list[_Span]]]:
    """Draw kinds of events with the lane, start and end of their pieces in ticks, again until the required ones fit."""
    required = [*_REQUIRED, rng.choice(_JOINT)]
    extra: list[Kind] = [rng.choice((*_JOINT, "visual", "sound", "speech")) for _ in range(rng.randint(0, _MAX_EXTRA))]
    while True:
        busy: dict[Modality, list[tuple[int, int]]] = {modality: [] for modality in MODALITIES}
        taken: set[tuple[int, int]] = set()
        layouts = [(kind, _place(rng, kind, ticks, busy, taken)) for kind in required + extra]
        if all(spans for _, spans in layouts[: len(required)]):
            return [(kind, spans) for kind, spans in layouts if spans]


def _place(
    rng: random.Random,
    kind: Kind,
    ticks: int,
    busy: dict[Modality, list[tuple[int, int]]],
    taken: set[tuple[int, int]],
) -> list[_Span] | None:
    """Find a place for an event of this kind and mark it; return None if a few tries found none.

    Args:
        rng: draws lengths and starts.
        kind: of the event.
        ticks: of the whole video.
        busy: occupied spans per lane, changed here.
        taken: spans of whole events, changed here; no two are equal, so that a span identifies its event.
    """
    groups = _LANES[kind]
    low, high = -(-ticks * PIECE_PERCENT[0] // 100), ticks * PIECE_PERCENT[1] // 100 // len(groups)
    for _ in range(_PLACEMENT_TRIES):
        lengths = [rng.randint(low, max(low, high)) for _ in groups]
        start = time = rng.randint(0, ticks - sum(lengths))
        spans = []
        for lanes, length in zip(groups, lengths, strict=True):
            spans += [(lane, time, time + length) for lane in lanes]
            time += length
        if (start, time) not in taken and all(y <= a or b <= x for lane, x, y in spans for a, b in busy[lane]):
            taken.add((start, time))
            for lane, *span in spans:
                busy[lane].append(tuple(span))
            return spans
    return None


def _event(kind: Kind, pieces: tuple[Piece, ...]) -> Event:
    words = {p.modality: p.content if p.modality == "speech" else with_article(p.content) for p in pieces}
    caption = _CAPTIONS[kind].format(**words)
    return Event(
        start=pieces[0].start,
        end=max(p.end for p in pieces),
        caption=caption[0].upper() + caption[1:],
        modalities=tuple(m for m in MODALITIES if m in words),
        relation=_RELATIONS[kind],
    )


def plain_caption(pieces: Iterable[Piece]) -> str:
    """Describe an event's pieces one after the other: a caption that does not state how they are related.

    Example:
        >>> plain_caption([Piece("audio", 0, 2, "bell"), Piece("speech", 0, 2, "stop")]).count(".")
        2
    """
    kinds: dict[Modality, Kind] = {"visual": "visual", "audio": "sound", "speech": "speech"}
    return " ".join(_event(kinds[piece.modality], (piece,)).caption for piece in pieces)


def with_article(noun: str) -> str:
    """Return the noun with "a" or "an" in front.

    Example:
        >>> with_article("orange ring"), with_article("bell")
        ('an orange ring', 'a bell')
    """
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
