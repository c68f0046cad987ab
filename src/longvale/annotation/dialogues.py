"""Dialogues for both tuning stages from annotations, in the official format.

Boundary perception needs no model: questions about times come from templates. The instruction set is written by a
language model from the captions. Its output is checked, since a dialogue with times other than those of the events
would teach wrong times.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..chat_client import Chat, NoAnswer
from ..data.dialogues import Turn, boundary_dialogue, check_grounded, make_dialogue, save_dialogues
from ..events import Annotation, load_annotations
from ..run_log import fingerprint
from ..system.locks import hold
from .captions import read_prompt
from .stages import StageLog, claim_stages

logger = logging.getLogger(__name__)

#: Number of questions in an instruction dialogue.
TURNS = 3
#: Longest dialogue in tokens.
_MAX_TOKENS = 1024
_EVENT_TOKEN = re.compile(r"<event (\d+)>")


def boundary_dialogues(annotations: Iterable[Annotation], seed: int = 0) -> list[dict[str, Any]]:
    """Make one boundary-perception dialogue per video with events: a fifth dense captioning, the rest multi-turn.

    Args:
        annotations: annotations of the videos.
        seed: random seed, combined with the video id.
    """
    return [
        boundary_dialogue(annotation, random.Random(f"{seed}:{annotation.video_id}"), varied=True)
        for annotation in annotations
        if annotation.events
    ]


def write_instruction(annotation: Annotation, chat: Chat, *, attempts: int = 3) -> dict[str, Any]:
    """Write an instruction dialogue about a video with a language model.

    Args:
        annotation: annotation with at least one event.
        chat: the language model.
        attempts: maximum number of requests for a usable dialogue.

    Raises:
        ValueError: if no answer can be used; the message names the problem of the last one.
        NoAnswer: if the model wrote no answer.
        ServerError: if a server gives no answer.
    """
    events = "\n".join(f"{i}. {json.dumps(e.caption, ensure_ascii=False)}" for i, e in enumerate(annotation.events, 1))
    messages = [{"role": "user", "content": read_prompt("instruction").format(events=events, turns=TURNS)}]
    for attempt in range(1, attempts + 1):
        answer = chat(messages, max_tokens=_MAX_TOKENS)
        try:
            dialogue = read_dialogue(answer, annotation)
            check_grounded(dialogue, annotation)
            return dialogue
        except ValueError as error:
            if attempt == attempts:
                raise
            retry = read_prompt("retry").format(problem=error).replace("JSON object", "JSON list")
            messages = [
                messages[0],
                {"role": "assistant", "content": answer[:2000]},
                {"role": "user", "content": retry},
            ]
    raise ValueError(f"attempts must be 1 or more, not {attempts}")


def read_dialogue(text: str, annotation: Annotation) -> dict[str, Any]:
    """Read a language model's list of questions and answers; `<event N>` becomes the time tokens of that event.

    Raises:
        ValueError: if the text cannot be used; the message names the problem.

    Example:
        >>> from longvale.events import Event
        >>> video = Annotation("abc", 60.0, (Event(0, 30, "A bell rings."),))
        >>> answer = '[{"question": "When does it ring?", "answer": "It rings <event 1>."}]'
        >>> read_dialogue(answer, video)["conversations"][1]["value"]
        'It rings from <s0> to <e0>.'
    """
    start, end = text.find("["), text.rfind("]")
    try:
        items = json.loads(text[start : end + 1]) if start >= 0 else None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(items, list) or not items:
        raise ValueError("it holds no JSON list")
    turns = []
    for item in items:
        parts = [item.get(name) if isinstance(item, dict) else None for name in ("question", "answer")]
        if not all(isinstance(part, str) and part.strip() for part in parts):
            raise ValueError("each item must have a question and an answer")
        turns.append(_with_times(*(" ".join(part.split()) for part in parts), annotation))
    return make_dialogue(annotation, turns)


def _with_times(question: str, answer: str, annotation: Annotation) -> Turn:
    spans: list[tuple[float, float]] = []
    numbers: dict[int, int] = {}

    def tokens(match: re.Match[str]) -> str:
        number = int(match[1])
        if not 1 <= number <= len(annotation.events):
            raise ValueError(f"<event {number}> is none of the {len(annotation.events)} events")
        if number not in numbers:
            numbers[number] = len(spans)
            event = annotation.events[number - 1]
            spans.append((event.start, event.end))
        return f"from <s{numbers[number]}> to <e{numbers[number]}>"

    for text in (question, answer):
        if re.search(r"<[A-Za-z]\d+>|<video>|<image>", text):
            raise ValueError("it holds a token that only the program may set")
    question, answer = (_EVENT_TOKEN.sub(tokens, text) for text in (question, answer))
    return Turn(question, answer, tuple(spans))


def make_dialogues(
    annotations: str | os.PathLike, output: str | os.PathLike, *, chat: Chat | None = None, seed: int = 0
) -> dict[str, int]:
    """Write `longvale-sft-bp.json` and, with a language model, `longvale-sft-it.json`; the latter is resumable.

    Args:
        annotations: JSON of annotations.
        output: folder to write.
        chat: the language model; None to write no instruction set.
        seed: random seed of the boundary-perception set.

    Returns:
        Counts: `boundary_perception`, and with a model `instruction` and `refused`.

    Raises:
        FileNotFoundError, ValueError: as [`longvale.events.load_annotations`]; if no video has an event.
        Locked: if another run works on the same folder.
        ServerError: if a server gives no answer; finished work is kept.
    """
    videos = [annotation for annotation in load_annotations(annotations).values() if annotation.events]
    if not videos:
        raise ValueError(f"{annotations}: no video has an event to ask about")
    output = Path(output)
    with hold(output, "dialogues", work="longvale annotate dialogues"):
        return _write_dialogues(videos, output, chat, seed)


def _write_dialogues(videos: Sequence[Annotation], output: Path, chat: Chat | None, seed: int) -> dict[str, int]:
    save_dialogues(boundary_dialogues(videos, seed), output / "longvale-sft-bp.json")
    counts = {"boundary_perception": len(videos)}
    if chat is None:
        return counts
    claim_stages(output / "stages", {"language model": chat.name, "prompt": read_prompt("instruction")})
    log = StageLog(output / "stages" / "instruction.jsonl", ("video_id",))
    events = {video.video_id: fingerprint(json.dumps(_asked_about(video))) for video in videos}
    _forget_changed(log, events)
    for video in videos:
        if log.get(video.video_id) is None:
            dialogue, refused = None, None
            try:
                dialogue = write_instruction(video, chat)
            except (ValueError, NoAnswer) as error:
                refused = str(error)
            record = {"video_id": video.video_id, "dialogue": dialogue, "refused": refused}
            log.add(record | {"events": events[video.video_id]})
    records = [log.get(video.video_id) for video in videos]
    written = [record["dialogue"] for record in records if record["dialogue"]]
    if written:
        save_dialogues(written, output / "longvale-sft-it.json")
    return counts | {"instruction": len(written), "refused": len(records) - len(written)}


def _asked_about(video: Annotation) -> list[Any]:
    """Return what a dialogue depends on: the duration, and the times and captions of the events."""
    return [video.duration, [[event.start, event.end, event.caption] for event in video.events]]


def _forget_changed(log: StageLog, events: Mapping[str, str]) -> None:
    """Remove the dialogues about other events than those of today; records of earlier versions do not say which."""
    changed = {v for v, found in events.items() if (log.get(v) or {}).get("events", found) != found}
    if changed:
        log.rewrite(lambda record: None if record["video_id"] in changed else record)
        names = ", ".join(sorted(changed))
        logger.warning("%s: written again because the annotation changed: %s", log.path, names)
