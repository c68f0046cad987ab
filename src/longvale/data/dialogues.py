"""Dialogues: reading and writing the official SFT format, filling in timecodes, making dialogues from annotations.

The format is the one of ``longvale-sft-{bp,it}[-SIZE].json`` of ``ttgeng233/LongVALE`` on the Hub, a list of::

    {"id": video_id, "source"?: str,
     "conversations": [{"from": "human", "value": "<video>\\n..."}, {"from": "gpt", "value": "..."}, ...],
     "meta"?: {"duration": s, "split"?: [s, e], "token": {"<s0>": s, "<e0>": s, ...}}}

The text contains times as tokens, `<s0>` for the start and `<e0>` for the end of the first interval; `meta.token` maps
them to seconds. A dialogue without `meta` contains no times.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

from ..events import Annotation, Event, Seconds
from ..io import atomic_write, is_number, load_json
from ..tasks import VIDEO_TOKEN, dense_captioning_question, grounding_question, segment_captioning_question
from ..timecodes import render_span, to_timecode

#: Placeholder of a single image in a question (dialogues mixed in from the published image-text data).
IMAGE_TOKEN = "<image>"

#: Share of single-turn dense captioning among the published boundary-perception dialogues; the rest is multi-turn.
DENSE_SHARE = 0.2

_ROLES = {"human": "user", "gpt": "assistant"}
_MEDIA_TOKEN = re.compile(f"{VIDEO_TOKEN}|{IMAGE_TOKEN}")
_TIME_TOKEN = re.compile(r"<[A-Za-z]\d+>")
_SPAN_TOKEN = re.compile(r"<([se])(\d+)>")
_SPAN_WORDS = re.compile(r"\b[Ff]rom <s(\d+)> to <e\1>")


def load_dialogues(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Read a file of dialogues in the official format.

    Args:
        path: for example `longvale-sft-bp-7k.json`.

    Returns:
        The dialogues as they are in the file, checked by [`check_dialogue`]. A video may have several.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not JSON or is empty, or a dialogue is invalid; the message names file, index, id, field.
    """
    path = Path(path)
    dialogues = load_json(path)
    if not isinstance(dialogues, list):
        raise ValueError(f"{path}: must be a list of dialogues, not {_short(dialogues)}")
    if not dialogues:
        raise ValueError(f"{path}: holds no dialogue; expected a list of {{id, conversations, meta}}")
    for index, dialogue in enumerate(dialogues):
        try:
            check_dialogue(dialogue)
        except ValueError as error:
            name = f" (id {_short(dialogue['id'])})" if isinstance(dialogue, dict) and "id" in dialogue else ""
            raise ValueError(f"{path}: dialogue {index}{name}: {error}") from None
    return dialogues


def save_dialogues(dialogues: Iterable[Mapping[str, Any]], path: str | os.PathLike) -> None:
    """Write dialogues in the official format; the file is written completely or not at all.

    Args:
        dialogues: as [`load_dialogues`] returns them.
        path: file to write; its folder must exist.
    """
    with atomic_write(path) as file:
        json.dump(list(dialogues), file, ensure_ascii=False)


def check_dialogue(dialogue: object) -> None:
    """Check that an object is a dialogue of the official format.

    Args:
        dialogue: one item of the list; fields that the format does not define are allowed.

    Raises:
        ValueError: naming the field and its value, if the id is not a non-empty string; the turns do not alternate
            from human to gpt or one is not a string; `<video>` or `<image>` occurs more than once or after the first
            turn; the duration is not above 0; a time is not a finite number, 0 or more; or `meta.token` lacks a time
            token of the text.

    Example:
        >>> check_dialogue({"id": "abc", "conversations": [{"from": "human", "value": "Hello"}]})
        Traceback (most recent call last):
            ...
        ValueError: field 'conversations': the last turn must be from 'gpt', not 'human'
    """
    if not isinstance(dialogue, dict):
        raise ValueError(f"must be an object with id and conversations, not {_short(dialogue)}")
    if not isinstance(dialogue.get("id"), str) or not dialogue["id"]:
        raise ValueError(f"field 'id' must be a text that is not empty, not {_short(dialogue.get('id'))}")
    turns = _check_turns(dialogue.get("conversations"))
    tokens = _check_meta(dialogue["meta"]) if dialogue.get("meta") is not None else {}
    for index, text in enumerate(turns):
        for match in _SPAN_TOKEN.finditer(text):
            if match[0] not in tokens:
                raise ValueError(f"turn {index} holds {match[0]}, which is not in meta.token; give its time in seconds")


class TimeWriter(Protocol):
    """How times are written in a dialogue, such as a [`longvale.evaluation.adapters.time_formats.TimeFormat`]."""

    def write(self, time: Seconds, duration: Seconds) -> str:
        """Format a time."""

    def render(self, start: Seconds, end: Seconds, duration: Seconds) -> str:
        """Format a span, as `From ... to ...`."""


def fill_timecodes(dialogue: Mapping[str, Any], times: TimeWriter | None = None) -> list[dict[str, str]]:
    """Return the messages of a dialogue, with each time token replaced by its timecode.

    As in the published training code, a timecode is a percentage of `meta.duration`. Where `meta.split` is given, the
    code that loads the visual features cuts them to that part of the video. `duration` and the tokens already count
    from the start of that part, so `split` changes nothing here.

    Args:
        dialogue: one that [`check_dialogue`] accepts.
        times: how times are written instead.

    Returns:
        Messages `{"role": "user" | "assistant", "content": text}`; `<video>` keeps its position.

    Raises:
        ValueError: if the text contains `<sN>` or `<eN>` that is not in `meta.token`.

    Example:
        >>> turns = [{"from": "human", "value": "<video>\\nWhen?"}, {"from": "gpt", "value": "From <s0> to <e0>."}]
        >>> meta = {"duration": 60.0, "token": {"<s0>": 3.0, "<e0>": 30.0}}
        >>> fill_timecodes({"id": "abc", "conversations": turns, "meta": meta})[1]
        {'role': 'assistant', 'content': 'From 05 to 50.'}
    """
    meta = dialogue.get("meta") or {}
    seconds = meta.get("token", {})
    duration: Seconds = meta["duration"] if seconds else 0.0
    write = to_timecode if times is None else times.write
    codes = {token: write(time, duration) for token, time in seconds.items()}

    def code(match: re.Match[str]) -> str:
        # Other short tags in angle brackets are text; a start or end token without a time is an error.
        if match[0] not in codes and _SPAN_TOKEN.fullmatch(match[0]):
            raise ValueError(f"dialogue {dialogue.get('id')!r} holds {match[0]}, which is not in meta.token")
        return codes.get(match[0], match[0])

    def span(match: re.Match[str]) -> str:
        start, end = (seconds.get(f"<{kind}{match[1]}>") for kind in "se")
        if times is None or start is None or end is None:
            return match[0]
        return match[0][0] + times.render(start, end, duration)[1:]

    return [
        {"role": _ROLES[turn["from"]], "content": _TIME_TOKEN.sub(code, _SPAN_WORDS.sub(span, turn["value"]))}
        for turn in dialogue["conversations"]
    ]


def boundary_dialogue(
    annotation: Annotation,
    rng: random.Random,
    dense_share: float = DENSE_SHARE,
    turns: int | None = None,
    varied: bool = False,
) -> dict[str, Any]:
    """Make a dialogue for the boundary-perception stage: when events happen, and what happens when.

    With probability `dense_share` it has one turn of dense captioning, else one turn per event, in shuffled order,
    each either grounding or segment captioning.

    Args:
        annotation: a video with at least one event.
        rng: random generator for all choices.
        dense_share: probability of dense captioning, 0 to 1.
        turns: maximum number of questions in a multi-turn dialogue; None for one per event.
        varied: word questions by the templates of `data/templates` instead of as published.

    Raises:
        ValueError: if the video has no event, or `turns` is below 1.

    Example:
        >>> video = Annotation("abc", 60.0, (Event(0, 30, "A bell rings."),))
        >>> boundary_dialogue(video, random.Random(0), dense_share=1.0)["conversations"][1]
        {'from': 'gpt', 'value': 'From <s0> to <e0>, A bell rings.'}
    """
    if not annotation.events:
        raise ValueError(f"video {annotation.video_id!r} has no event to ask about")
    if turns is not None and turns < 1:
        raise ValueError(f"turns must be 1 or more, not {turns}")
    if rng.random() < dense_share:
        chosen = [("dense_captioning", dense_turn(annotation), "")]
    else:
        events = rng.sample(annotation.events, len(annotation.events))[:turns]
        kinds = (("grounding", grounding_turn), ("segment_captioning", segment_turn))
        picked = [(*rng.choice(kinds), event) for event in events]
        chosen = [(task, make(event, annotation.duration), event.caption) for task, make, event in picked]
    if not varied:
        return make_dialogue(annotation, [turn for _, turn, _ in chosen])
    worded = [
        replace(turn, question=rng.choice(read_templates(task)).replace("{caption}", _as_phrase(caption)))
        for task, turn, caption in chosen
    ]
    return make_dialogue(annotation, worded)


@cache
def read_templates(task: str) -> tuple[str, ...]:
    """Return the wordings of a task's question, one per line of `data/templates/<task>.txt`.

    Example:
        >>> read_templates("segment_captioning")[1]
        'What happens from <s0> to <e0>?'
    """
    text = files(__package__).joinpath("templates", f"{task}.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line)


def _as_phrase(caption: str) -> str:
    """Return a caption for use within a sentence: on one line, without its last full stop."""
    return _plain(" ".join(caption.split()).removesuffix("."))


def _plain(caption: str) -> str:
    """Return a caption in which text that looks like a time token no longer matches one."""
    return _SPAN_TOKEN.sub(r"<\1 \2>", caption)


def check_grounded(dialogue: Mapping[str, Any], annotation: Annotation) -> None:
    """Check that a dialogue agrees with its annotation; used for dialogues that a language model wrote.

    Args:
        dialogue: the dialogue; it is checked by [`check_dialogue`] first.
        annotation: of the same video.

    Raises:
        ValueError: if it is about another video; a start and end token are not the times of one event; an end token
            has no start token; or a text spells out seconds or timecodes, or contains prompt or template tokens.

    Example:
        >>> video = Annotation("abc", 60.0, (Event(0, 30, "A bell rings."),))
        >>> check_grounded(make_dialogue(video, [Turn("When?", "From <s0> to <e0>.", ((0, 31),))]), video)
        Traceback (most recent call last):
            ...
        ValueError: <s0> to <e0> is 0-31 s, which is not an event of the annotation
    """
    check_dialogue(dialogue)
    if dialogue["id"] != annotation.video_id:
        raise ValueError(f"is about video {dialogue['id']!r}, not {annotation.video_id!r}")
    tokens = dialogue.get("meta", {}).get("token", {})
    spans = {(event.start, event.end) for event in annotation.events}
    for token, start in tokens.items():
        match = _SPAN_TOKEN.fullmatch(token)
        kind, number = match.groups() if match else ("", "")
        if kind == "s" and (start, tokens.get(f"<e{number}>")) not in spans:
            end = tokens.get(f"<e{number}>")
            raise ValueError(f"{token} to <e{number}> is {start}-{end} s, which is not an event of the annotation")
        if kind == "e" and f"<s{number}>" not in tokens:
            raise ValueError(f"{token} has no <s{number}>")
    for index, turn in enumerate(dialogue["conversations"]):
        leaked = _LEAKED.search(turn["value"])
        if leaked:
            raise ValueError(f"turn {index} holds {leaked[0]!r}; times stand in tokens, and prompts stay outside")


#: Times that a language model spells out, and tokens of chat templates and prompts.
_LEAKED = re.compile(
    r"<\|\w+\|>|</?s>|\[/?INST\]|\{\w*\}|\b(?:USER|ASSISTANT|HUMAN|GPT):|"
    r"\b\d+(?:\.\d+)?\s?(?:s|sec|secs|seconds?|minutes?)\b|\b\d{1,2}:\d{2}\b|\b[Ff]rom \d+ to \d+\b"
)


@dataclass(frozen=True)
class Turn:
    """A question and its answer.

    Args:
        question: with or without `<video>` in front.
        answer: the text to learn.
        spans: start and end in seconds of `<s0>`/`<e0>`, `<s1>`/`<e1>`, ... in this turn.
    """

    question: str
    answer: str
    spans: tuple[tuple[Seconds, Seconds], ...] = ()


def dense_turn(annotation: Annotation) -> Turn:
    """Ask for all events of a video, in the published wording."""
    lines = [f"From <s{i}> to <e{i}>, {_plain(' '.join(e.caption.split()))}" for i, e in enumerate(annotation.events)]
    return Turn(dense_captioning_question(), "\n".join(lines), tuple((e.start, e.end) for e in annotation.events))


def grounding_turn(event: Event, duration: Seconds) -> Turn:
    """Ask when an event happens, in the published wording.

    Example:
        >>> grounding_turn(Event(0, 30, "A bell rings."), 60.0).answer
        'From <s0> to <e0>.'
    """
    return Turn(grounding_question(_plain(event.caption)), "From <s0> to <e0>.", ((event.start, event.end),))


def segment_turn(event: Event, duration: Seconds) -> Turn:
    """Ask what happens during an event, in the published wording.

    Example:
        >>> segment_turn(Event(0, 30, "A bell rings."), 60.0).question[9:60]
        'Can you describe what occurred from <s0> to <e0> in'
    """
    question = segment_captioning_question(event.start, event.end, duration)
    span = render_span(event.start, event.end, duration).lower()
    return Turn(question.replace(span, "from <s0> to <e0>", 1), _plain(event.caption), ((event.start, event.end),))


def make_dialogue(annotation: Annotation, turns: Iterable[Turn]) -> dict[str, Any]:
    """Combine turns in the official format, with `<video>` before the first only and tokens numbered across turns.

    Args:
        annotation: source of the id and the duration.
        turns: at least one.
    """
    conversations: list[dict[str, str]] = []
    tokens: dict[str, Seconds] = {}
    for turn in turns:
        offset = len(tokens) // 2
        question, answer = (_renumber(text, offset) for text in (turn.question, turn.answer))
        if conversations:
            question = question.removeprefix(VIDEO_TOKEN).lstrip()
        elif not question.startswith(VIDEO_TOKEN):
            question = f"{VIDEO_TOKEN}\n{question}"
        conversations += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        for index, (start, end) in enumerate(turn.spans, start=offset):
            tokens |= {f"<s{index}>": start, f"<e{index}>": end}
    meta = {"duration": annotation.duration, "token": tokens}
    return {"id": annotation.video_id, "conversations": conversations, "meta": meta}


def _renumber(text: str, offset: int) -> str:
    return _SPAN_TOKEN.sub(lambda match: f"<{match[1]}{int(match[2]) + offset}>", text)


def _check_turns(turns: object) -> list[str]:
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"field 'conversations' must be a list of turns, not {_short(turns)}")
    for index, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise ValueError(f"turn {index} must be an object with from and value, not {_short(turn)}")
        speaker = ("human", "gpt")[index % 2]
        if turn.get("from") != speaker:
            raise ValueError(f"turn {index} must be from {speaker!r}, not {_short(turn.get('from'))}")
        if not isinstance(turn.get("value"), str):
            raise ValueError(f"turn {index}: field 'value' must be a text, not {_short(turn.get('value'))}")
    if len(turns) % 2:
        raise ValueError("field 'conversations': the last turn must be from 'gpt', not 'human'")
    media = [(i, tag) for i, turn in enumerate(turns) for tag in _MEDIA_TOKEN.findall(turn["value"])]
    if len(media) > 1:
        raise ValueError(f"turn {media[1][0]} holds a second {media[1][1]}; a dialogue is about one video or image")
    if media and media[0][0] != 0:
        raise ValueError(f"turn {media[0][0]} holds {media[0][1]}; move it to the first turn")
    return [turn["value"] for turn in turns]


def _check_meta(meta: object) -> dict[str, Seconds]:
    if not isinstance(meta, dict):
        raise ValueError(f"field 'meta' must be an object with duration and token, not {_short(meta)}")
    if not is_number(meta.get("duration")) or meta["duration"] <= 0:
        raise ValueError(f"meta.duration must be seconds above 0, not {_short(meta.get('duration'))}")
    split = meta.get("split")
    if split is not None:
        right = isinstance(split, list) and len(split) == 2 and all(is_number(x) for x in split)
        if not right or not 0 <= split[0] < split[1]:
            raise ValueError(f"meta.split must be [start, end] in seconds, not {_short(split)}")
    tokens = meta.get("token", {})
    if not isinstance(tokens, dict):
        raise ValueError(f"meta.token must be an object like {{'<s0>': seconds}}, not {_short(tokens)}")
    for token, time in tokens.items():
        if not _TIME_TOKEN.fullmatch(token):
            raise ValueError(f"meta.token: {_short(token)} is not a time token such as <s0> or <e0>")
        if not is_number(time) or time < 0:
            raise ValueError(f"meta.token {token} must be a finite number of seconds, 0 or more, not {_short(time)}")
    return tokens


def _short(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
