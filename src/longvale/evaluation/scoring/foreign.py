"""Logs that other code wrote: rows of JSON, JSONL or CSV, matched with the questions of annotations."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...data.sources import load_videos
from ...events import Annotation
from ...io import parse_json, parse_lines
from ...reading.lists import find_any_spans
from ...reading.spans import Unit
from ...registry import time_formats
from ...tasks import LOG_NAMES, TASKS, Prediction, Question, Task, check_tasks, task_of_question
from ..adapters.prompts import parse_reply
from .score import score_predictions
from .validate import errors_named

#: Names of columns in the logs of other projects, the most common first.
_NAMES: dict[str, tuple[str, ...]] = {
    "video": ("video_id", "video", "vid", "video_name", "video_path", "videos", "clip_id"),
    "answer": (
        "answer",
        "pred",
        "prediction",
        "filtered_resps",
        "resps",
        "response",
        "output",
        "reply",
        "model_output",
        "text",
    ),
    "question": ("question", "query", "prompt", "caption", "sentence", "problem"),
    "event": ("sentence_id", "event_id", "info.sentence_id", "event", "index"),
    "task": ("task", "task_name", "type"),
    "id": ("custom_id", "doc.id", "id", "question_id"),
}
#: Where the results of a batch of OpenAI's API, or of vLLM, have the reply.
_BATCH = "response.body.choices.0.message.content"
_TASK_OF: dict[str, Task] = {name: task for task, name in LOG_NAMES.items()} | {task: task for task in TASKS}
#: `VIDEO/TASK/EVENT`, as `longvale data export --to openai-batch` names its requests.
_ID = re.compile(rf"(?P<video>.+)/(?P<task>{'|'.join(TASKS)})(?:/(?P<event>\d+))?")
#: Numbers of two digits: timecodes, if one of them in a log begins with 0.
_TWO_DIGITS = re.compile(r"\b\d\d\b(?![.,:]?\d)")
#: Number of rows that a report names.
_NAMED = 5
#: Number of rows in which columns with common names are searched.
_LOOKED_AT = 100


@dataclass(frozen=True)
class ForeignLog:
    """Answers of a log that other code wrote.

    Args:
        predictions: one per question that a row answers.
        unmatched: one line per row that answers no question, with the reason.
        columns: path of each column that was read.
        unit: unit of bare numbers.
    """

    predictions: list[Prediction]
    unmatched: list[str]
    columns: Mapping[str, str]
    unit: Unit | None

    def lines(self) -> list[str]:
        """Return what was read and what was not, as lines of text."""
        read = ", ".join(f"{name}={path}" for name, path in self.columns.items())
        bare = f"; bare numbers are {self.unit}" if self.unit else ""
        lines = [f"columns {read}{bare}"]
        if self.unmatched:
            lines.append(f"{len(self.unmatched)} rows match no question:")
            lines += [f"  {reason}" for reason in self.unmatched[:_NAMED]]
            lines += [f"  and {len(self.unmatched) - _NAMED} more"] if len(self.unmatched) > _NAMED else []
        return lines


def read_foreign_log(
    path: str | os.PathLike,
    annotations: Mapping[str, Annotation],
    *,
    reader: str = "auto",
    columns: Mapping[str, str] | None = None,
    tasks: Sequence[Task] | None = None,
) -> ForeignLog:
    """Read a log that other code wrote.

    A row answers the question whose id it has (`VIDEO/TASK/EVENT`), or that its columns name: the video (an ID, or a
    path of its file), the task, and the index of the event or a question that contains the event's caption. Without a
    task, the wording of the question decides, and `tasks` if it is one.

    Args:
        path: JSON (a list of objects, or an object that contains one), JSONL or CSV.
        annotations: annotations by video ID.
        reader: name of a registered time format. `auto` takes bare numbers for percent if all of the log are two-digit
            timecodes, else for seconds.
        columns: path of each column, such as {"video": "vid", "answer": "info.reply"}; default: common names.
        tasks: tasks that the rows may answer.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is invalid, a column is missing or unknown, or no row matches a question.
    """
    path, times = Path(path), time_formats.create(reader)
    rows = list(_read_rows(path))
    if not rows:
        raise ValueError(f"{path}: holds no row; give a list of objects, lines of JSON, or CSV with a header")
    found = _find_columns(path, rows, columns or {})
    matcher = _Matcher(annotations, tasks)
    matched: dict[tuple, tuple[Question, str, str]] = {}
    unmatched = []
    for where, row in rows:
        values = {name: _value(row, column) for name, column in found.items()}
        try:
            question = matcher.match(values)
            if question.key in matched:
                raise ValueError(f"answers the same question as {matched[question.key][2]}")
            matched[question.key] = question, _text(values.get("answer")), where
        except ValueError as error:
            unmatched.append(f"{where}: {error}")
    if not matched:
        raise ValueError(f"{path}: no row matches a question, the first: {unmatched[0]}; name the columns by --columns")
    replies = [reply for question, reply, _ in matched.values() if question.task != "segment_captioning"]
    unit = _bare_unit(replies) if reader == "auto" and replies else None
    predictions = []
    for question, reply, _ in matched.values():
        reading = parse_reply(question, reply, annotations[question.video_id].duration, times, unit)
        info = {"reply": reply, **reading.info()}
        predictions.append(
            Prediction(question.video_id, question.task, reading.answer, question.sentence_id, info=info)
        )
    return ForeignLog(predictions, unmatched, found, unit)


def score_foreign_log(
    path: str | os.PathLike,
    references: str | os.PathLike,
    *,
    reader: str = "auto",
    columns: Mapping[str, str] | None = None,
    tasks: Iterable[str] | None = None,
    **options: Any,
) -> tuple[dict[str, Any], ForeignLog]:
    """Score a log that other code wrote.

    Args:
        path, reader, columns: as in [`read_foreign_log`].
        references: official annotations (JSON).
        tasks: tasks of LongVALE that the rows may answer; default: all.
        options: `protocol`, `partial` and `metrics` of [`longvale.evaluation.scoring.score.score_predictions`].

    Returns:
        The scores, and the log as it was read.

    Raises:
        FileNotFoundError, ValueError: as in [`read_foreign_log`] and `score_predictions`.
    """
    annotations = {annotation.video_id: annotation for annotation in load_videos(Path(references))}
    wanted = None if tasks is None else [task for task in check_tasks(tasks) if task in TASKS]
    log = read_foreign_log(path, annotations, reader=reader, columns=columns, tasks=wanted)
    with errors_named(path):
        return score_predictions(log.predictions, annotations, **options), log


class _Matcher:
    """Questions by video, task and event, or by text."""

    def __init__(self, annotations: Mapping[str, Annotation], tasks: Sequence[Task] | None) -> None:
        self._annotations, self._tasks = annotations, tuple(tasks or TASKS)

    def match(self, values: Mapping[str, Any]) -> Question:
        """Return the question of a row; raise `ValueError` with the reason if there is none."""
        if named := _ID.fullmatch(str(values.get("id"))):
            values = {"video": named["video"], "task": named["task"], "event": named["event"], **values}
        annotation = self._annotations.get(video_id := self._video(values.get("video")))
        if annotation is None:
            raise ValueError(f"video {video_id!r} is not in the annotations")
        text = _text(values.get("question"))
        task = self._task(values.get("task"), text)
        if task not in self._tasks:
            raise ValueError(f"task {task} is not asked for")
        index = None if task == "dense_captioning" else self._event(values.get("event"), text, annotation)
        return Question(annotation.video_id, task, index, text, "")

    def _video(self, value: Any) -> str:
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        name = _text(value.get("path") if isinstance(value, Mapping) else value)
        if name in self._annotations:
            return name
        file = PurePosixPath(name.replace("\\", "/"))
        return file.name if file.name in self._annotations else file.stem

    def _task(self, value: Any, text: str) -> Task:
        if isinstance(value, str) and value:
            name = value.removeprefix("longvale_")
            if name not in _TASK_OF:
                raise ValueError(f"unknown task {value!r}; expected one of {', '.join(TASKS)}")
            return _TASK_OF[name]
        if published := task_of_question(text):
            return published
        if len(self._tasks) == 1:
            return self._tasks[0]
        raise ValueError("its task is not known; name the column by --columns task=..., or give --tasks")

    @staticmethod
    def _event(value: Any, text: str, annotation: Annotation) -> int:
        if value is not None and value != "":
            index = int(value) if isinstance(value, int) or str(value).isdecimal() else -1
            if not 0 <= index < len(annotation.events):
                raise ValueError(f"video {annotation.video_id!r} has no event {value!r}")
            return index
        words = _plain(text)
        found = [
            i for i, event in enumerate(annotation.events) if (caption := _plain(event.caption)) and caption in words
        ]
        longest = max((len(annotation.events[i].caption) for i in found), default=0)
        best = [i for i in found if len(annotation.events[i].caption) == longest]
        if len(best) != 1:
            reason = "contains the caption of no event" if not best else f"fits {len(best)} events of one caption"
            raise ValueError(f"its question {reason} of video {annotation.video_id!r}: {text[:60]!r}")
        return best[0]


def _bare_unit(replies: Iterable[str]) -> Unit:
    """Return the unit of bare numbers in a log: percent if all are two-digit timecodes, and one begins with 0.

    Example:
        >>> _bare_unit(["From 05 to 25.", "From 10 to 50."]), _bare_unit(["From 05 to 25.", "From 110 to 150."])
        ('percent', 'seconds')
    """
    timecodes = time_formats.create("auto")
    bare = [text for text in replies if any(span.notation is None for span in find_any_spans(text))]
    if any(timecodes.unit_of(text) == "percent" for text in bare) and all(
        len(_TWO_DIGITS.findall(text)) >= 2 for text in bare
    ):
        return "percent"
    return "seconds"


def _find_columns(
    path: Path, rows: Sequence[tuple[str, Mapping[str, Any]]], given: Mapping[str, str]
) -> dict[str, str]:
    """Return the path of each column; columns that are not given have one of their common names."""
    first, found = rows[0][1], {}
    looked_at = [row for _, row in rows[:_LOOKED_AT]]
    if unknown := [name for name in given if name not in _NAMES]:
        raise ValueError(f"unknown column {unknown[0]!r} in --columns; expected some of {', '.join(_NAMES)}")
    for name, names in _NAMES.items():
        usual = next((o for o in names if any(_value(row, o) is not None for row in looked_at)), None)
        if column := given.get(name, usual):
            found[name] = column
    if "answer" not in given and any(_value(row, _BATCH) is not None for row in looked_at):
        found["answer"] = _BATCH
    for name, column in given.items():
        if all(_value(row, column) is None for _, row in rows):
            raise ValueError(
                f"{path}: no row has {column!r}, the column of {name}; it has {', '.join(map(str, first))}"
            )
    if "answer" not in found or not {"video", "id"} & found.keys():
        missing = "answer" if "answer" not in found else "video"
        raise ValueError(
            f"{path}: has no column of the {missing} with a common name; "
            f"name it by --columns {missing}=NAME; it has {', '.join(map(str, first))}"
        )
    return found


def _value(row: Any, column: str) -> Any:
    """Return a value by its path, such as `info.reply`; a name that contains dots comes first."""
    if isinstance(row, Mapping) and column in row:
        return row[column]
    head, dot, rest = column.partition(".")
    if isinstance(row, Mapping):
        inner = row.get(head)
    elif isinstance(row, list) and head.isdecimal() and int(head) < len(row):
        inner = row[int(head)]
    else:
        return None
    return _value(inner, rest) if dot else inner


def _text(value: Any) -> str:
    """Return a value as text: the first text of a list, as lmms-eval writes replies."""
    while isinstance(value, list) and value:
        value = value[0]
    return "" if value is None or isinstance(value, list) else str(value)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _read_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the rows of a file with their place."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    content = path.read_bytes()
    if path.suffix.lower() in (".csv", ".tsv"):
        try:
            lines = io.StringIO(content.decode("utf-8-sig"), newline="")
            table = csv.DictReader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
            yield from ((f"line {table.line_num}", row) for row in table)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path}: not CSV in UTF-8 ({error}); save it as UTF-8") from None
        return
    if path.suffix.lower() != ".jsonl":
        try:
            yield from ((f"row {number}", row) for number, row in enumerate(_rows_of(parse_json(content)), 1))
            return
        except ValueError as error:
            if path.suffix.lower() == ".json" and content.lstrip()[:1] == b"[":
                raise ValueError(f"{path}: {error}") from None
    for number, row in parse_lines(path, io.BytesIO(content), parse_json):
        if not isinstance(row, Mapping):
            raise ValueError(f"{path}: line {number}: must be an object, not {str(row)[:60]!r}")
        yield f"line {number}", row


def _rows_of(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a list, of a list in an object, or of an object whose keys are ids."""
    if isinstance(value, Mapping):
        lists = [item for item in value.values() if isinstance(item, list) and item and isinstance(item[0], Mapping)]
        if lists:
            value = max(lists, key=len)
        elif value and all(isinstance(item, Mapping) for item in value.values()):
            value = [{"id": key, **item} for key, item in value.items()]
        else:
            raise ValueError("must be a list of objects, or contain one")
    if not isinstance(value, list) or not all(isinstance(row, Mapping) for row in value):
        raise ValueError("must be a list of objects, or contain one")
    yield from value
