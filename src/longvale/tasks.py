"""The three tasks of the benchmark: the question and reference for an event, and the log format of answers.

The questions are those of the published evaluation, letter for letter ("fromat" included), because the published model
was tuned on them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from .events import Annotation, Event, Seconds
from .io import is_number, parse_json, parse_lines
from .reading.reasoning import strip_reasoning
from .registry import benchmarks
from .timecodes import Protocol, Span, parse_events, parse_span, render_events, render_span, to_timecode

Task: TypeAlias = Literal["grounding", "dense_captioning", "segment_captioning"]

TASKS: tuple[Task, ...] = get_args(Task)

#: One of [`TASKS`], or a zero-shot task of a benchmark in [`longvale.registry.benchmarks`], such as "music_avqa".
AnyTask: TypeAlias = str

#: Placeholder of the video in a question.
VIDEO_TOKEN = "<video>"

#: Names of the tasks in the published log.
LOG_NAMES: dict[Task, str] = {
    "grounding": "grounding",
    "dense_captioning": "captioning",
    "segment_captioning": "seg_captioning",
}
_TASK_OF_LOG_NAME: dict[str, Task] = {name: task for task, name in LOG_NAMES.items()} | {task: task for task in TASKS}

_GROUNDING = (
    "<video>\nAt which time interval can we find {} taking place in the video? "
    "Give the timestamps in the fromat: From xx to xx."
)
_DENSE_CAPTIONING = (
    "<video>\n Could you please detail the events that took place during different time segments in the video? "
    "List the events in the format: From xx to xx, event1. \n From xx to xx, event2. \n ..."
)
_SEGMENT_CAPTIONING = (
    "<video>\n Can you describe what occurred from {} to {} in the video? Please give the event description directly."
)

_PUBLISHED: dict[Task, str] = {
    "grounding": _GROUNDING,
    "dense_captioning": _DENSE_CAPTIONING,
    "segment_captioning": _SEGMENT_CAPTIONING,
}
_WORDINGS = {
    task: re.compile("(.+)".join(map(re.escape, " ".join(text.replace(VIDEO_TOKEN, "").split()).split("{}"))))
    for task, text in _PUBLISHED.items()
}


@dataclass(frozen=True)
class Question:
    """One question about a video, with the answer of the annotation.

    Args:
        video_id: of the annotation.
        task: one of [`TASKS`] or a zero-shot task.
        sentence_id: index of the event; None for dense captioning, which asks about all. For a zero-shot task the
            number of the question.
        question: the text, with `<video>` as the placeholder of the video.
        reference: the answer in the requested form.
    """

    video_id: str
    task: AnyTask
    sentence_id: int | None
    question: str
    reference: str

    @property
    def key(self) -> tuple[str, AnyTask, int | None]:
        """Return the key that identifies the question in a dataset."""
        return self.video_id, self.task, self.sentence_id


@dataclass(frozen=True)
class Prediction:
    """One line of the official log: a model's answer.

    Args:
        video_id: of the annotation.
        task: one of [`TASKS`], which the log names by [`LOG_NAMES`], or a zero-shot task.
        answer: the text as generated.
        sentence_id: index of the event, None for dense captioning; see [`Question`].
        query_id: 0 unless a question is asked more than once.
        info: other values of the line's `info`, kept unchanged.
    """

    video_id: str
    task: AnyTask
    answer: str
    sentence_id: int | None = None
    query_id: int = 0
    info: Mapping[str, Any] | None = None
    _parsed: dict[Protocol, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def key(self) -> tuple[str, AnyTask, int | None]:
        """Return the [`Question.key`] of the answered question."""
        return self.video_id, self.task, self.sentence_id

    def parse(self, protocol: Protocol = "strict") -> Span | list[Span] | str | None:
        """Parse the answer as [`parse_answer`] does; only the first call with a protocol does the work.

        The strict protocol takes the times that were read of another model's reply from `info`, which are more exact
        than timecodes: `read` holds start and end in seconds, and the caption, and `duration` is what they refer to.
        """
        if protocol not in self._parsed:
            info = self.info or {}
            exact = protocol == "strict" and isinstance(info.get("read"), list)
            self._parsed[protocol] = self._exact(info) if exact else parse_answer(self.task, self.answer, protocol)
        return self._parsed[protocol]

    def _exact(self, info: Mapping[str, Any]) -> Span | list[Span] | None:
        duration, read = info.get("duration"), info["read"]
        spans = [Span(100 * start / duration, 100 * end / duration, *caption) for start, end, *caption in read]
        return spans if self.task == "dense_captioning" else next(iter(spans), None)

    def to_log(self) -> str:
        """Return the line of the official log, without the line break.

        Example:
            >>> Prediction("abc", "grounding", "05 to 25", sentence_id=0).to_log()
            '{"video_id": "abc", "task": "grounding", "query_id": 0, "answer": "05 to 25", "info": {"sentence_id": 0}}'
        """
        line: dict[str, Any] = {
            "video_id": self.video_id,
            "task": LOG_NAMES[self.task] if self.task in TASKS else self.task,
            "query_id": self.query_id,
            "answer": self.answer,
        }
        info = dict(self.info or {})
        if self.sentence_id is not None:
            info = {_number_name(self.task): self.sentence_id, **info}
        if info:
            line["info"] = info
        return json.dumps(line, ensure_ascii=False)

    @classmethod
    def from_log(cls, line: str | bytes) -> Prediction:
        """Read a line of the official log.

        Raises:
            ValueError: if it is not JSON, a field is missing or of another type, or the task is unknown.
        """
        value = parse_json(line)
        if not isinstance(value, dict):
            raise ValueError(f"must be an object, not {str(value)[:60]!r}")
        for name in ("video_id", "task", "answer"):
            if not isinstance(value.get(name), str):
                raise ValueError(f"field '{name}' must be a text, not {value.get(name)!r}")
        name = str(value["task"])
        task: AnyTask = _TASK_OF_LOG_NAME.get(name, name)
        if task not in TASKS and task not in benchmarks.names():
            known = (*LOG_NAMES.values(), *benchmarks.names())
            expected = f"{', '.join(known)}, or of the benchmark in --tasks package.module:Name"
            raise ValueError(f"unknown task {task!r}; expected one of {expected}")
        info = value.get("info") or {}
        if not isinstance(info, dict):
            raise ValueError(f"field 'info' must be an object, not {info!r}")
        name = _number_name(task)
        number, query_id = info.get(name), value.get("query_id", 0)
        if task != "dense_captioning" and not _is_index(number):
            of_what = "an event" if task in TASKS else "a question"
            raise ValueError(f"info.{name} must be the index of {of_what}, not {number!r}")
        if not _is_index(query_id):
            raise ValueError(f"query_id must be a whole number, 0 or more, not {query_id!r}")
        extra = {k: v for k, v in info.items() if k != name}
        _check_read(task, extra)
        return cls(
            video_id=value["video_id"],
            task=task,
            answer=value["answer"],
            sentence_id=None if task == "dense_captioning" else number,
            query_id=query_id,
            info=extra or None,
        )


def parse_answer(task: AnyTask, answer: str, protocol: Protocol = "strict") -> Span | list[Span] | str | None:
    """Parse an answer by its task.

    Args:
        task: task of the question.
        answer: the text as generated.
        protocol: see [`longvale.timecodes.parse_span`] and [`longvale.timecodes.parse_events`]; `strict` also removes
            reasoning before a caption.

    Returns:
        For grounding the interval, None without one; for dense captioning the events; for other tasks the text.

    Example:
        >>> parse_answer("grounding", "From 05 to 25."), parse_answer("dense_captioning", "I do not know.")
        (Span(start=5.0, end=25.0, caption=''), [])
        >>> parse_answer("segment_captioning", "<think>A cat? No.</think> A dog barks.")
        'A dog barks.'
    """
    if task == "grounding":
        return parse_span(answer, protocol)
    if task == "dense_captioning":
        return parse_events(answer, protocol)
    return strip_reasoning(answer) if protocol == "strict" else answer


def check_tasks(names: Iterable[str]) -> tuple[AnyTask, ...]:
    """Convert names to tasks in their usual order.

    Args:
        names: tasks; "all" for the benchmark's three; `package.module:Name` for the tasks of a benchmark elsewhere.

    Raises:
        ValueError: naming the unknown one and the known ones.

    Example:
        >>> check_tasks(["segment_captioning", "grounding"])
        ('grounding', 'segment_captioning')
    """
    chosen: set[str] = set()
    for name in list(names) or [""]:
        if name == "all":
            chosen.update(TASKS)
        elif name in TASKS or ":" not in name:
            chosen.add(name)
        else:
            chosen.update(benchmarks.names_of(name))
    known = [*TASKS, *(benchmarks.names() if chosen.difference(TASKS) else ())]
    if unknown := sorted(chosen.difference(known)):
        raise ValueError(f"unknown task {unknown[0]!r}; expected one of {', '.join(known)}, or all")
    return tuple(task for task in known if task in chosen)


def grounding_question(caption: str) -> str:
    """Return the published question for an event's time: the caption in lower case, without one final full stop.

    Example:
        >>> grounding_question("A dog barks.")[:57]
        '<video>\\nAt which time interval can we find a dog barks ta'
    """
    query = caption.strip().lower()
    return _GROUNDING.format(query.removesuffix("."))


def dense_captioning_question() -> str:
    """Return the published question for all events and their times."""
    return _DENSE_CAPTIONING


def segment_captioning_question(start: Seconds, end: Seconds, duration: Seconds) -> str:
    """Return the published question for what happens between two times.

    Example:
        >>> segment_captioning_question(6, 30, 120)[9:60]
        'Can you describe what occurred from 05 to 25 in the'
    """
    return _SEGMENT_CAPTIONING.format(to_timecode(start, duration), to_timecode(end, duration))


def task_of_question(question: str) -> Task | None:
    """Return the task whose published wording a question has; None for a free question.

    Args:
        question: with or without [`VIDEO_TOKEN`]; differences in white space are ignored.

    Example:
        >>> task_of_question(grounding_question("A dog barks.")), task_of_question("When does the dog bark?")
        ('grounding', None)
    """
    words = " ".join(question.replace(VIDEO_TOKEN, "").split())
    return next((task for task, wording in _WORDINGS.items() if wording.fullmatch(words)), None)


def questions(annotation: Annotation, tasks: Iterable[Task] = TASKS) -> Iterator[Question]:
    """Yield all questions of a video: one per event for grounding and segment captioning, one for dense captioning.

    Args:
        annotation: a video without events has none.
        tasks: to include, in this order.

    Example:
        >>> video = Annotation("abc", 60.0, (Event(0, 30, "A bell rings."),))
        >>> [(q.task, q.reference) for q in questions(video)]  # doctest: +NORMALIZE_WHITESPACE
        [('grounding', 'From 00 to 50.'), ('dense_captioning', 'From 00 to 50, A bell rings.'),
         ('segment_captioning', 'A bell rings.')]
    """
    for task in tasks:
        if task == "dense_captioning":
            if annotation.events:
                reference = render_events(annotation.events, annotation.duration)
                yield Question(annotation.video_id, task, None, dense_captioning_question(), reference)
            continue
        for index, event in enumerate(annotation.events):
            text, reference = _ask(task, event, annotation.duration)
            yield Question(annotation.video_id, task, index, text, reference)


def _ask(task: Task, event: Event, duration: Seconds) -> tuple[str, str]:
    if task == "grounding":
        return grounding_question(event.caption), f"{render_span(event.start, event.end, duration)}."
    return segment_captioning_question(event.start, event.end, duration), event.caption


def load_predictions(path: str | os.PathLike) -> list[Prediction]:
    """Read an official log (JSONL).

    Args:
        path: file with one answer per line; blank lines are skipped.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it contains no answer, or a line is invalid; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with path.open("rb") as file:
        predictions = [prediction for _, prediction in parse_lines(path, file, Prediction.from_log)]
    if not predictions:
        raise ValueError(f"{path}: holds no answer")
    return predictions


def _check_read(task: AnyTask, info: Mapping[str, Any]) -> None:
    """Check the times in `info.read`.

    Raises:
        ValueError: if they are not start and end in seconds, and captions, or their duration is missing.
    """
    read, duration = info.get("read"), info.get("duration")
    if not isinstance(read, list) or task not in ("grounding", "dense_captioning"):
        return
    texts = 0 if task == "grounding" else 1
    for item in read:
        if not (isinstance(item, list) and len(item) == 2 + texts and all(is_number(t) and t >= 0 for t in item[:2])):
            caption = " and a caption" if texts else ""
            raise ValueError(f"info.read must list start and end in seconds{caption}, not {str(item)[:60]}")
    if read and not (is_number(duration) and duration > 0):
        raise ValueError(f"info.duration must be a number of seconds above 0, not {str(duration)[:60]}")


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number_name(task: AnyTask) -> str:
    """Return the name of a question's number in the log; in the official log it is the index of the event."""
    return "sentence_id" if task in TASKS else benchmarks.registered(task).number_name
