"""AVSD: dialogues about videos of people at home (Alamri et al., CVPR 2019), the track of DSTC7.

There are two tasks. `avsd` asks the last question of each dialogue, with the dialogue history, as in the track.
`avsd_first` asks the first question, without history, as in VideoLLaMA2. The official files are
`{train,valid,test}_set4DSTC7-AVSD.json`. The test file does not disclose the last answers; six references per question
are in `test_set4DSTC7-AVSD_multiref.json` of the official scorer, which must be in the same folder. The files
`avsd_{split}.json` of later work, by video ID, are also supported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ...events import check_video_id
from ...io import load_json
from ...metrics.text.captions import score_captions
from ...registry import benchmarks
from ...tasks import Prediction, Question
from .base import Benchmark
from .prompting import ask_about_video, load_prompt

#: Placeholder for undisclosed answers in the test file.
UNDISCLOSED = "__UNDISCLOSED__"


@dataclass(frozen=True)
class Dialogue:
    """Questions and answers about a video, in order."""

    video_id: str
    turns: tuple[tuple[str, str], ...]


def load_dialogues(path: str | os.PathLike) -> list[Dialogue]:
    """Read a file of dialogues in either format.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: with the file, dialogue and turn of an invalid entry.
    """
    value = load_json(path)
    if isinstance(value, Mapping) and isinstance(value.get("dialogs"), list):
        items = [
            (item.get("image_id") if isinstance(item, Mapping) else item, item, "dialog") for item in value["dialogs"]
        ]
    elif isinstance(value, Mapping) and value:
        items = [(video_id, item, "data") for video_id, item in value.items()]
    else:
        raise ValueError(f"{path}: must be an object with a list of 'dialogs', or dialogues by video id")
    dialogues: dict[str, Dialogue] = {}
    for place, (video_id, item, field) in enumerate(items):
        try:
            check_video_id(video_id)
            if video_id in dialogues:
                raise ValueError(f"video {video_id!r} has two dialogues; keep one")
            dialogues[video_id] = Dialogue(video_id, _read_turns(item, field))
        except ValueError as error:
            raise ValueError(f"{path}: dialogue {place}: {error}") from None
    if not dialogues:
        raise ValueError(f"{path}: holds no dialogue")
    return list(dialogues.values())


def _read_turns(item: Any, field: str) -> tuple[tuple[str, str], ...]:
    turns = item.get(field) if isinstance(item, Mapping) else None
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"field '{field}' must be a list of turns")
    for number, turn in enumerate(turns):
        for name in ("question", "answer"):
            if not isinstance(turn, Mapping) or not isinstance(turn.get(name), str):
                raise ValueError(f"turn {number}: field '{name}' must be a text")
    return tuple((turn["question"].strip(), turn["answer"].strip()) for turn in turns)


def questions(dialogues: Sequence[Dialogue], tasks: Sequence[str], prompt: str | None = None) -> list[Question]:
    """Build the questions of `tasks`.

    Args:
        dialogues: result of [`load_dialogues`].
        tasks: `avsd`, `avsd_first` or both.
        prompt: path of a text file with `$question` and, for the dialogue history, `$history`.

    Example:
        >>> dialogue = Dialogue("v", (("is it day ?", "yes"), ("who is there ?", "a man")))
        >>> print(questions([dialogue], ["avsd"])[0].question)
        <video>
        Question: is it day ?
        Answer: yes
        Question: who is there ?
        Answer in one short sentence.
    """
    template, asked = load_prompt("avsd", prompt), []
    for dialogue in dialogues:
        for task in tasks:
            turn = 0 if task == "avsd_first" else len(dialogue.turns) - 1
            question, answer = dialogue.turns[turn]
            history = "".join(f"Question: {q}\nAnswer: {a}\n" for q, a in dialogue.turns[:turn])
            text = ask_about_video(template, question=question, history=history)
            asked.append(Question(dialogue.video_id, task, turn, text, answer))
    return asked


def load_references(path: Path, dialogues: Sequence[Dialogue], tasks: Sequence[str]) -> dict[tuple, list[str]]:
    """Return the reference answers by question key, from the dialogues or, if undisclosed, from the reference file.

    Raises:
        FileNotFoundError: if answers are undisclosed and the reference file is missing.
        ValueError: if the reference file lacks a question.
    """
    wanted = {question.key: [question.reference] for question in questions(dialogues, tasks)}
    hidden = [key for key, texts in wanted.items() if texts == [UNDISCLOSED]]
    if hidden:
        beside = path.with_name(f"{path.stem}_multiref.json")
        given = _load_multiple(beside)
        for key in hidden:
            if key[0] not in given:
                raise ValueError(f"{beside}: has no reference for the last question about video {key[0]!r}")
            wanted[key] = given[key[0]]
    return wanted


def _load_multiple(path: Path) -> dict[str, list[str]]:
    """Read references by video ID from a COCO file whose images are named `<video_id>_<turn>`, one per video."""
    value = load_json(path)
    try:
        video_of = {image["id"]: image["name"].rpartition("_")[0] for image in value["images"]}
        found: dict[str, list[str]] = {}
        for item in value["annotations"]:
            found.setdefault(video_of[item["image_id"]], []).append(item["caption"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: must hold 'images' with id and name, and 'annotations' of them ({error!r})"
        ) from None
    if len(set(video_of.values())) != len(video_of):
        raise ValueError(f"{path}: has several questions about one video; expected its last one only")
    return found


def score_dialogues(
    answers: Sequence[Prediction], references: Mapping[tuple, Sequence[str]]
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Compute BLEU, METEOR, ROUGE-L and CIDEr as in coco-caption, for all answers and as one row per answer."""
    scores = score_captions([p.answer for p in answers], [list(references[p.key]) for p in answers])
    rows = [{name: values[place] for name, values in scores.pairs.items()} for place in range(len(answers))]
    return {**scores.corpus, "count": len(answers)}, rows


@benchmarks.register("avsd", "avsd_first")
class AVSD(Benchmark):
    """AVSD: dialogues about videos of people at home."""

    files: ClassVar = {
        "train": ("train_set4DSTC7-AVSD.json", "avsd_train.json"),
        "validation": ("valid_set4DSTC7-AVSD.json", "avsd_val.json"),
        "test": ("test_set4DSTC7-AVSD.json", "avsd_test.json"),
    }
    titles: ClassVar = {
        "avsd": "AVSD: the last question of a dialogue",
        "avsd_first": "AVSD: the first question of a dialogue",
    }
    columns = ("BLEU_4", "METEOR", "ROUGE_L", "CIDEr")
    number_name = "turn"

    def __init__(self, path: Path, tasks: Sequence[str]) -> None:
        super().__init__(path, tasks)
        self._dialogues = load_dialogues(path)

    def questions(self, prompt: str | None = None) -> list[Question]:
        """Return the questions, see [`questions`]."""
        return questions(self._dialogues, self.tasks, prompt)

    @cached_property
    def _references(self) -> dict[tuple, list[str]]:
        return load_references(self.path, self._dialogues, self.tasks)

    def references(self) -> dict[tuple, list[str]]:
        """Return the reference answers, see [`load_references`]."""
        return self._references

    def score(self, answers: Sequence[Prediction], protocol: str) -> tuple[dict[str, Any], list[dict[str, float]]]:
        """Compute the metrics of coco-caption, see [`score_dialogues`]."""
        return score_dialogues(answers, self._references)
