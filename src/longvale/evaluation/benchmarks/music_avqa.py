"""MUSIC-AVQA: questions about musical performances with one-word answers (Li et al., CVPR 2022).

The official files are `avqa-{train,val,test}.json` of github.com/GeWu-Lab/MUSIC-AVQA; corrected versions are in
`data/json_update`. The official scorer selects the most probable of 42 answers. Generated text needs a matching rule,
and published rules differ, see [`PROTOCOLS`].
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ...events import check_video_id
from ...io import load_json, parse_json
from ...registry import benchmarks
from ...tasks import Prediction, Question
from ...text_table import align
from .base import Benchmark, Table, format_columns
from .prompting import ask_about_video, load_prompt

_SLOT = re.compile(r"<[A-Za-z]+>")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_MANY = "more than ten"


@dataclass(frozen=True)
class Row:
    """One question of the file.

    Args:
        video_id, question_id: as in the file.
        group, kind: the two parts of the question type, such as "Audio-Visual" and "Counting".
        template, values: the question with slots such as `<Object>`, and the values of the slots.
        answer: reference answer such as "yes", "two", "acoustic_guitar".
    """

    video_id: str
    question_id: int
    group: str
    kind: str
    template: str
    values: tuple[str, ...]
    answer: str

    @property
    def key(self) -> tuple[str, str, int]:
        """Return the key, as [`Question.key`]."""
        return self.video_id, "music_avqa", self.question_id

    def question(self, *, repeat_first: bool = False) -> str:
        """Return the question with its slots filled from left to right.

        Args:
            repeat_first: fill a repeated slot name with its first value, as CREMA's code does.

        Example:
            >>> template = "Is the <Object> louder than the <Object>?"
            >>> row = Row("v", 0, "Audio", "Comparative", template, ("flute", "drum"), "no")
            >>> row.question()
            'Is the flute louder than the drum?'
        """
        left, filled = iter(self.values), {}

        def fill(slot: re.Match) -> str:
            value = next(left)
            return filled.setdefault(slot[0], value) if repeat_first else value

        return _SLOT.sub(fill, self.template)


def load_rows(path: str | os.PathLike) -> list[Row]:
    """Read an official file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: with the file, question and field of an invalid entry.
    """
    values = load_json(path)
    if not isinstance(values, list) or not values:
        raise ValueError(f"{path}: must be a list of questions of MUSIC-AVQA")
    rows, seen = [], set()
    for place, value in enumerate(values):
        try:
            row = _read_row(value)
        except ValueError as error:
            raise ValueError(f"{path}: question {place}: {error}") from None
        # The first release of the test file contains 55 questions twice.
        if row.key not in seen:
            seen.add(row.key)
            rows.append(row)
    return rows


def _read_row(value: Any) -> Row:
    if not isinstance(value, Mapping):
        raise ValueError(f"must be an object, not {value!r:.60}")
    for name in ("video_id", "type", "question_content", "templ_values", "anser"):
        if not isinstance(value.get(name), str):
            raise ValueError(f"field '{name}' must be a text, not {value.get(name)!r:.60}")
    number = value.get("question_id")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError(f"field 'question_id' must be a whole number, not {number!r:.60}")
    check_video_id(value["video_id"])
    kinds, filling = parse_json(value["type"]), parse_json(value["templ_values"])
    if not (isinstance(kinds, list) and len(kinds) == 2 and all(isinstance(kind, str) for kind in kinds)):
        raise ValueError(f"field 'type' must hold a list of two texts, not {value['type']!r:.60}")
    slots = _SLOT.findall(value["question_content"])
    if not isinstance(filling, list) or len(filling) != len(slots):
        raise ValueError(
            f"field 'templ_values' must hold a list of {len(slots)} texts, one a slot, not {filling!r:.60}"
        )
    return Row(
        video_id=value["video_id"],
        question_id=number,
        group=kinds[0],
        kind=kinds[1],
        template=value["question_content"].strip(),
        values=tuple(map(str, filling)),
        answer=value["anser"].strip(),
    )


def questions(rows: Sequence[Row], prompt: str | None = None) -> list[Question]:
    """Build the questions, grouped by video.

    Args:
        rows: result of [`load_rows`].
        prompt: "crema" or "tdc_video" for their published prompts, or the path of a text file with `$question`.
    """
    template = load_prompt("music_avqa", prompt)
    asked: dict[str, list[Question]] = {}
    for row in rows:
        text = ask_about_video(template, question=row.question(repeat_first=prompt == "crema"))
        question = Question(row.video_id, "music_avqa", row.question_id, text, row.answer)
        asked.setdefault(row.video_id, []).append(question)
    return [question for some in asked.values() for question in some]


def normalize(answer: str) -> str:
    """Normalize an answer: lower case, spaces for underscores, words for numbers, no leading or trailing punctuation.

    Example:
        >>> normalize(" Acoustic_guitar. "), normalize("2"), normalize("12")
        ('acoustic guitar', 'two', 'more than ten')
    """
    text = " ".join(answer.replace("_", " ").lower().split()).strip(" .,;:!?\"'`")
    return _spell(text)


def _spell(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        return text
    return _NUMBERS[int(text)] if int(text) <= 10 else _MANY


def _crema(prediction: str, answer: str) -> bool:
    words = " ".join(_spell(word) for word in prediction.replace("_", " ").split())
    return words in answer.replace("_", " ")


#: Matching rules for generated answers. `strict`: prediction and answer are equal after [`normalize`]. `videollama2`
#: (VideoLLaMA2, branch audio_visual): equal in upper case, without trailing spaces and full stops. `crema` (CREMA,
#: a76043b): the prediction is a substring of the answer, so an empty prediction is correct. `tdc_video` (TDC-Video,
#: score_music.py): the answer is a substring of the lower-case prediction, so "piano" matches "no".
PROTOCOLS: dict[str, Callable[[str, str], bool]] = {
    "strict": lambda prediction, answer: normalize(prediction) == normalize(answer),
    "videollama2": lambda prediction, answer: prediction.rstrip(" .").upper() == answer.rstrip(" .").upper(),
    "crema": _crema,
    "tdc_video": lambda prediction, answer: answer in prediction.lower(),
}


def score_rows(
    answers: Sequence[Prediction], rows: Mapping[tuple, Row], protocol: str = "strict"
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Compute the accuracy of generated answers.

    Args:
        answers: answers to questions of `rows`.
        rows: rows by key.
        protocol: one of [`PROTOCOLS`].

    Returns:
        `accuracy` over all questions, `by_group` ("Audio"), `by_type` ("Audio Counting"), each a plain mean over its
        questions as in the official scorer, `counts_by_type`; `protocols`, the accuracy under each protocol; and one
        row per answer.
    """
    asked = [rows[answer.key] for answer in answers]
    right = {
        name: [bool(is_right(p.answer, row.answer)) for p, row in zip(answers, asked, strict=True)]
        for name, is_right in PROTOCOLS.items()
    }
    groups: dict[str, list[bool]] = {}
    types: dict[str, list[bool]] = {}
    for row, hit in sorted(zip(asked, right[protocol], strict=True), key=lambda pair: (pair[0].group, pair[0].kind)):
        groups.setdefault(row.group, []).append(hit)
        types.setdefault(f"{row.group} {row.kind}", []).append(hit)
    scores = {
        "accuracy": _mean(right[protocol]),
        "by_group": {name: _mean(hits) for name, hits in groups.items()},
        "by_type": {name: _mean(hits) for name, hits in types.items()},
        "counts_by_type": {name: len(hits) for name, hits in types.items()},
        "protocols": {name: _mean(hits) for name, hits in right.items()},
        "count": len(answers),
    }
    return scores, [{"accuracy": float(hit)} for hit in right[protocol]]


def known_answers(rows: Sequence[Row]) -> set[str]:
    """Return the normalized answers of the file; a prediction that matches one of them counts as parsed."""
    return {normalize(row.answer) for row in rows}


def _mean(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


@benchmarks.register("music_avqa")
class MusicAVQA(Benchmark):
    """MUSIC-AVQA: questions about musical performances, with one-word answers."""

    files: ClassVar = {"train": ("avqa-train.json",), "validation": ("avqa-val.json",), "test": ("avqa-test.json",)}
    titles: ClassVar = {"music_avqa": "MUSIC-AVQA: one-word answers about performances"}
    columns = ("accuracy",)
    protocols = tuple(PROTOCOLS)
    max_new_tokens = 32

    def __init__(self, path: Path, tasks: Sequence[str]) -> None:
        super().__init__(path, tasks)
        self._rows = load_rows(path)
        self._by_key = {row.key: row for row in self._rows}
        self._known = known_answers(self._rows)

    def questions(self, prompt: str | None = None) -> list[Question]:
        """Return the questions, see [`questions`]."""
        return questions(self._rows, prompt)

    def score(self, answers: Sequence[Prediction], protocol: str) -> tuple[dict[str, Any], list[dict[str, float]]]:
        """Compute the accuracy, see [`score_rows`]."""
        return score_rows(answers, self._by_key, protocol)

    def is_parsed(self, answer: str) -> bool:
        """Whether an answer is, normalized, one of the answers of the file."""
        return normalize(answer) in self._known

    @classmethod
    def lines(cls, task: str, scores: Mapping[str, Any]) -> list[str]:
        """Format the accuracy of all questions, of each group and type, and under each protocol."""
        counts = scores["counts_by_type"]
        by_protocol = ", ".join(f"{name} {100 * value:.2f}" for name, value in scores["protocols"].items())
        return [
            *format_columns(task, {"accuracy": scores["accuracy"], **scores["by_group"]}),
            *align([(f"  {n}", f"{100 * value:.2f}", f"({counts[n]})") for n, value in scores["by_type"].items()]),
            f"  the same answers by each protocol: {by_protocol}",
        ]

    @classmethod
    def tables(cls, scores: Mapping[str, Any]) -> list[Table]:
        """Return the accuracy by group and type, and under each protocol."""
        rows: list[list[str | int | float]] = [["all", scores["accuracy"], scores["count"]]]
        counts = scores["counts_by_type"]
        for group, value in scores["by_group"].items():
            types = {name: count for name, count in counts.items() if name.rpartition(" ")[0] == group}
            rows.append([group, value, sum(types.values())])
            rows += [[f"- {name}", scores["by_type"][name], count] for name, count in types.items()]
        return [
            Table("Accuracy by type", ["", "accuracy", "questions"], rows),
            Table("The same answers by each protocol", ["protocol", "accuracy"], list(scores["protocols"].items())),
        ]
