"""Base class of zero-shot benchmarks: official file, questions, scores, and how scores are shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ...tasks import Prediction, Question
from ...text_table import align


class Table(NamedTuple):
    """A table of the report: title, names of the columns, and rows of texts, counts and scores as fractions."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]


class Benchmark(ABC):
    """Questions of an official file that a model answers without having been tuned on them.

    Subclasses implement `questions` and `score`, and register with [`longvale.registry.benchmarks`] under the names of
    their tasks.

    Args:
        path: official file.
        tasks: tasks to ask or to score, a selection of those that the class is registered for.

    Raises:
        FileNotFoundError, ValueError: by subclasses that read the file here, naming it and what is wrong.

    Example:
        >>> class Colours(Benchmark):
        ...     "One question about a video."
        ...     files = {"test": ("colours.json",)}
        ...     titles = {"colours": "Colours: which one is seen"}
        ...     columns = ("accuracy",)
        ...     def questions(self, prompt=None):
        ...         return [Question("abc", "colours", 0, "<video>\\nWhich colour?", "red")]
        ...     def score(self, answers, protocol):
        ...         rows = [{"accuracy": float(answer.answer == "red")} for answer in answers]
        ...         return {"accuracy": sum(row["accuracy"] for row in rows) / len(rows)}, rows
        >>> colours = Colours(Path("colours.json"), ["colours"])
        >>> colours.score([Prediction("abc", "colours", "red", 0)], "strict")[0]
        {'accuracy': 1.0}
    """

    #: File names of each split; the first file that exists is read.
    files: ClassVar[Mapping[str, Sequence[str]]]
    #: Title of each task in the report.
    titles: ClassVar[Mapping[str, str]]
    #: Scores of a task in tables, in this order.
    columns: ClassVar[Sequence[str]]
    #: Rules of scoring, by name.
    protocols: ClassVar[Sequence[str]] = ("strict",)
    #: Name of a question's number in the prediction log.
    number_name: ClassVar[str] = "question_id"
    #: Maximum length of an answer in tokens.
    max_new_tokens: ClassVar[int] = 128

    def __init__(self, path: Path, tasks: Sequence[str]) -> None:
        self.path, self.tasks = path, tasks

    @classmethod
    def find(cls, data: Path, split: str) -> Path:
        """Return the path of a split's file in a folder; if no file exists, the path with the first name.

        Raises:
            ValueError: if the split is unknown.
        """
        if split not in cls.files:
            raise ValueError(f"unknown split {split!r}; expected one of {', '.join(cls.files)}")
        paths = [data / name for name in cls.files[split]]
        return next((path for path in paths if path.is_file()), paths[0])

    @abstractmethod
    def questions(self, prompt: str | None = None) -> list[Question]:
        """Return the questions of the tasks, grouped by video.

        Args:
            prompt: name of a published prompt, or path of a text file; None for the default.
        """

    def references(self) -> Mapping[tuple, Sequence[str]]:
        """Return the reference answers by question key; by default the one of each question."""
        return {question.key: [question.reference] for question in self.questions()}

    @abstractmethod
    def score(self, answers: Sequence[Prediction], protocol: str) -> tuple[dict[str, Any], list[dict[str, float]]]:
        """Return the scores of all answers to a task, as fractions, and one row per answer."""

    def is_parsed(self, answer: str) -> bool:
        """Whether an answer can be read; by default, whether it contains text."""
        return bool(answer.strip())

    @classmethod
    def lines(cls, task: str, scores: Mapping[str, Any]) -> list[str]:
        """Format the scores of a task as lines of text, times 100."""
        return format_columns(task, {name: scores[name] for name in cls.columns})

    @classmethod
    def tables(cls, scores: Mapping[str, Any]) -> list[Table]:
        """Return the tables of a task in the report."""
        return [Table("Scores", cls.columns, [[float(scores[name]) for name in cls.columns]])]


def format_columns(task: str, values: Mapping[str, float]) -> list[str]:
    """Format values under their names, times 100, as two lines that begin with the task.

    Example:
        >>> print("\\n".join(format_columns("avsd", {"METEOR": 0.25, "CIDEr": 1.0})))
        avsd  METEOR   CIDEr
               25.00  100.00
    """
    return align([(task, *values), ("", *(f"{100 * value:.2f}" for value in values.values()))])
