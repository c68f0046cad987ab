"""Instruction dialogues about synthetic videos: free-form questions that require seeing and hearing the video."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ..data.dialogues import Turn, dense_turn, grounding_turn, make_dialogue, segment_turn
from ..events import Annotation, Event, Seconds
from .planning import Piece, with_article

#: Minimum and maximum number of turns of a dialogue if the caller sets none.
TURNS = (1, 4)
#: Share of questions about times and whole events; the rest is about single objects and sounds, and reasons.
BOUNDARY_SHARE = 0.4

_WHEN = "From <s0> to <e0>."


def instruction_dialogue(
    annotation: Annotation, pieces: Sequence[Sequence[Piece]], rng: random.Random, turns: int | None = None
) -> dict[str, Any]:
    """Make a dialogue for the instruction stage about one synthetic video.

    Args:
        annotation: with modalities and relations, as [`longvale.synthetic.planning.plan_video`] makes them.
        pieces: `pieces[i]` are the pieces of event `i`.
        rng: random generator for all choices.
        turns: number of questions; None draws 1 to 4. No question is repeated, so there may be fewer.

    Raises:
        ValueError: if the video has no event, `turns` is below 1, or the numbers of events and pieces differ.

    Example:
        >>> bell = Piece("audio", 3.0, 9.0, "bell")
        >>> event = Event(3.0, 9.0, "A bell is heard off screen.", ("audio",), "audio-only")
        >>> dialogue = instruction_dialogue(Annotation("abc", 60.0, (event,)), [(bell,)], random.Random(5), turns=1)
        >>> [turn["value"] for turn in dialogue["conversations"]]
        ['<video>\\nWhat makes the sound from <s0> to <e0>?', 'A bell.']
    """
    if not annotation.events:
        raise ValueError(f"video {annotation.video_id!r} has no event to ask about")
    if len(annotation.events) != len(pieces):
        raise ValueError(
            f"video {annotation.video_id!r} has {len(annotation.events)} events but pieces of {len(pieces)}"
        )
    if turns is not None and turns < 1:
        raise ValueError(f"turns must be 1 or more, not {turns}")
    wanted = rng.randint(*TURNS) if turns is None else turns
    boundary, free = boundary_turns(annotation, rng), free_turns(annotation, pieces)
    chosen: list[Turn] = []
    while len(chosen) < wanted and (boundary or free):
        pool = boundary if not free or (boundary and rng.random() < BOUNDARY_SHARE) else free
        chosen.append(pool.pop(rng.randrange(len(pool))))
    return make_dialogue(annotation, chosen)


def boundary_turns(annotation: Annotation, rng: random.Random) -> list[Turn]:
    """Make one question of dense captioning, and one of grounding and one of segment captioning per event.

    Args:
        annotation: of the video.
        rng: chooses between the published wording and a natural one.
    """
    dense = dense_turn(annotation)
    turns = [rng.choice((dense, Turn("What happens in this video, and when?", dense.answer, dense.spans)))]
    for event in annotation.events:
        when, what = grounding_turn(event, annotation.duration), segment_turn(event, annotation.duration)
        turns += [
            rng.choice((when, Turn(f"When does this happen: {event.caption}", when.answer, when.spans))),
            rng.choice((what, Turn("What happens from <s0> to <e0>?", what.answer, what.spans))),
        ]
    return turns


def free_turns(annotation: Annotation, pieces: Sequence[Sequence[Piece]]) -> list[Turn]:
    """Make questions about the contents of a video: what, who, which colour, when, and why."""
    turns = []
    for event, shown in zip(annotation.events, pieces, strict=True):
        things = {piece.modality: piece.content for piece in shown}
        for piece in shown:
            turns += _PIECE_TURNS[piece.modality](piece)
        key = event.relation if event.relation != "audio-only" else event.modalities[0]
        turns += _RELATION_TURNS[key](event, things)
    return turns


def _visual_turns(piece: Piece) -> list[Turn]:
    colour, shape = piece.content.split()
    span = _span(piece)
    return [
        Turn("What is shown from <s0> to <e0>?", _sentence(with_article(piece.content)), span),
        Turn("Which colour is shown from <s0> to <e0>?", _sentence(colour), span),
        Turn("Which shape is shown from <s0> to <e0>?", _sentence(with_article(shape)), span),
        Turn(f"When is the {piece.content} on the screen?", _WHEN, span),
        Turn(f"Which shape is {colour}?", f"The {shape}."),
    ]


def _audio_turns(piece: Piece) -> list[Turn]:
    return [
        Turn("What makes the sound from <s0> to <e0>?", _sentence(with_article(piece.content)), _span(piece)),
        Turn(f"When is the {piece.content} heard?", _WHEN, _span(piece)),
    ]


def _speech_turns(piece: Piece) -> list[Turn]:
    return [
        Turn("What does the voice say from <s0> to <e0>?", _sentence(piece.content), _span(piece)),
        Turn(f"When does the voice say {piece.content}?", _WHEN, _span(piece)),
    ]


_PIECE_TURNS: dict[str, Callable[[Piece], list[Turn]]] = {
    "visual": _visual_turns,
    "audio": _audio_turns,
    "speech": _speech_turns,
}


def _visual_only(event: Event, things: dict[str, str]) -> list[Turn]:
    return [_does(things["visual"], "It slides across the screen.")]


def _sound_only(event: Event, things: dict[str, str]) -> list[Turn]:
    return [Turn(f"Does a shape move in time with the {things['audio']}?", "No, it is heard off screen.")]


def _speech_only(event: Event, things: dict[str, str]) -> list[Turn]:
    return [Turn(f"Who says {things['speech']}?", "A voice off screen.")]


def _synchronicity(event: Event, things: dict[str, str]) -> list[Turn]:
    shape, sound = things["visual"], things["audio"]
    return [
        _does(shape, f"It jumps in time with {with_article(sound)}."),
        Turn(f"Does a shape move in time with the {sound}?", f"Yes, {with_article(shape)} jumps."),
        Turn(f"Why does the {shape} jump?", f"Because it keeps time with the {sound}."),
        Turn(f"What jumps in time with the {sound}?", _sentence(with_article(shape))),
    ]


def _complementary(event: Event, things: dict[str, str]) -> list[Turn]:
    shape, word = things["visual"], things["speech"]
    return [
        _does(shape, f"It turns while a voice says {word}."),
        Turn(f"Who says {word}?", f"A voice, while the {shape} turns."),
        Turn(f"What does the voice say while the {shape} turns?", _sentence(word)),
        Turn(f"What turns while the voice says {word}?", _sentence(with_article(shape))),
    ]


def _causality(event: Event, things: dict[str, str]) -> list[Turn]:
    shape, sound = things["visual"], things["audio"]
    return [
        _does(shape, f"It hits the wall and {with_article(sound)} starts."),
        Turn(f"Why does the {sound} start?", f"Because the {shape} hits the wall."),
        Turn(f"What happens when the {shape} hits the wall?", f"{_capital(with_article(sound))} starts."),
    ]


def _temporal(event: Event, things: dict[str, str]) -> list[Turn]:
    shape, sound = things["visual"], things["audio"]
    return [
        _does(shape, f"It appears after {with_article(sound)}."),
        Turn(f"What happens after the {sound}?", f"{_capital(with_article(shape))} appears."),
        Turn(f"What comes before the {shape} appears?", _sentence(with_article(sound))),
    ]


#: By relation; audio-only events by their modality.
_RELATION_TURNS: dict[str, Callable[[Event, dict[str, str]], list[Turn]]] = {
    "visual-only": _visual_only,
    "audio": _sound_only,
    "speech": _speech_only,
    "synchronicity": _synchronicity,
    "complementary": _complementary,
    "causality": _causality,
    "temporal association": _temporal,
}


def _does(shape: str, answer: str) -> Turn:
    return Turn(f"What does the {shape} do?", answer)


def _span(piece: Piece) -> tuple[tuple[Seconds, Seconds], ...]:
    return ((piece.start, piece.end),)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _sentence(text: str) -> str:
    return f"{_capital(text)}."
