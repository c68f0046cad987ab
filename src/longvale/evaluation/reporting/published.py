"""Scores that others report, next to those of runs; only scores of equal conditions are in one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ...io import is_number
from ...tasks import TASKS, Task
from ..scoring.score import TABLE
from .page import Table

#: Questions about the published test split, by task: a run that answered as many answered all of it.
TEST_QUESTIONS: dict[Task, int] = {"grounding": 13_867, "dense_captioning": 1_171, "segment_captioning": 13_867}

_TEXTS = ("model", "task", "subset", "protocol", "parser", "source")
_STATED = "not stated"

#: Subset, protocol and parser: what scores must share to be compared.
Conditions: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True)
class PublishedScore:
    """Scores of a model that others report.

    Args:
        model: its name.
        task: one of [`longvale.tasks.TASKS`].
        scores: by name, as fractions.
        conditions: subset, protocol and parser.
        source: publication or address.
        trained_on: data sets of the benchmark that it was trained on; empty if none is known.
        secondary: whether the numbers were not seen in the publication itself.
    """

    model: str
    task: Task
    scores: Mapping[str, float]
    conditions: Conditions
    source: str
    trained_on: str = ""
    secondary: bool = False


def published_file() -> Path:
    """Return the path of `results/published.yaml`, in the source checkout or in the installed wheel.

    Raises:
        FileNotFoundError: if the package was installed without it.
    """
    package = Path(__file__).resolve().parents[2]
    for folder in (package, package.parents[1]):
        if (path := folder / "results" / "published.yaml").is_file():
            return path
    raise FileNotFoundError(f"{package / 'results'}: no published.yaml; install longvale again")


def load_published(path: Path | None = None) -> list[PublishedScore]:
    """Read scores that others report.

    Args:
        path: YAML file; default: the one of this package.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if an entry is invalid; the message names file, entry and field.

    Example:
        >>> next(score.scores["mIoU"] for score in load_published() if score.model == "LongVALE-LLM")
        0.11
    """
    import yaml

    path = path or published_file()
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path}: must be a list of entries, not {str(entries)[:60]!r}")
    return [_read(f"{path}: entry {number}", entry) for number, entry in enumerate(entries, 1)]


def _read(where: str, entry: Any) -> PublishedScore:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}: must be an object, not {str(entry)[:60]!r}")
    for name in _TEXTS:
        if not isinstance(entry.get(name), str) or not entry[name]:
            raise ValueError(f"{where}: {name} must be a text, not {entry.get(name)!r}")
    if entry["task"] not in TASKS:
        raise ValueError(f"{where}: unknown task {entry['task']!r}; expected one of {', '.join(TASKS)}")
    scores = entry.get("scores")
    if not isinstance(scores, Mapping) or not scores or not all(map(is_number, scores.values())):
        raise ValueError(f"{where}: scores must be numbers by name, not {scores!r}")
    if unknown := [name for name in scores if name not in TABLE[entry["task"]]]:
        raise ValueError(f"{where}: unknown score {unknown[0]!r}; expected some of {', '.join(TABLE[entry['task']])}")
    return PublishedScore(
        entry["model"],
        entry["task"],
        {name: round(value / 100, 6) for name, value in scores.items()},
        (entry["subset"], entry["protocol"], entry["parser"]),
        entry["source"],
        str(entry.get("trained_on") or ""),
        bool(entry.get("secondary")),
    )


def published_tables(
    task: Task,
    runs: Mapping[str, Mapping[str, float]],
    protocol: str,
    questions: int,
    published: Iterable[PublishedScore],
) -> list[Table]:
    """Return one table per conditions, best first: a ranking needs the same questions, protocol and parser.

    Scores of others whose conditions are not stated are in a table of their own, in the order of the file.

    Args:
        task: task of all scores.
        runs: scores of the runs, as fractions, by name of the run.
        protocol: of the runs; its parser reads the answers.
        questions: number of questions that the runs answered.
        published: scores of others.
    """
    subset = "test" if questions == TEST_QUESTIONS[task] else f"{questions:,} questions of these runs"
    groups: dict[Conditions, list[tuple[str, Mapping[str, float], str, str]]] = {
        (subset, protocol, protocol): [(f"run {name}", scores, "", "") for name, scores in runs.items()]
    }
    for score in published:
        if score.task == task:
            source = f"{score.source}{' (secondary)' if score.secondary else ''}"
            groups.setdefault(score.conditions, []).append((score.model, score.scores, score.trained_on, source))
    names = TABLE[task]
    tables = []
    for (of, how, parser), rows in groups.items():
        if _STATED not in (how, parser):
            rows.sort(key=lambda row: -row[1].get(names[0], -1.0))
        cells = [
            [model, *(f"{100 * scores[name]:.2f}" if name in scores else "" for name in names), trained, source]
            for model, scores, trained, source in rows
        ]
        ranked = "" if _STATED not in (how, parser) else "; not ranked, since conditions may differ"
        caption = f"{of}; protocol {how}; parser {parser}{ranked}"
        tables.append(Table(caption, ["", *names, "trained on", "source"], cells, range(1, 1 + len(names))))
    return tables
