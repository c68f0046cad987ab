"""Pages of the reports: Jinja2 templates, filled in with scores, tables and figures; each page is one file."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...events import Annotation, Event
from ...io import atomic_write
from ...plotting.timeline import Answered, timeline_figure
from ...tasks import Task
from ..scoring.validate import format_counts
from .figures import svg_uri

if TYPE_CHECKING:
    from jinja2 import Environment

TITLES: dict[Task, str] = {
    "grounding": "Grounding: when does an event happen?",
    "dense_captioning": "Dense captioning: which events happen, and when?",
    "segment_captioning": "Segment captioning: what happens in a stretch?",
}


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Args:
        caption: text above it.
        head: title of each column.
        rows: texts, which are escaped.
        numbers: columns that are aligned to the right; by default all but the first. Other first columns name the rows.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Collection[int] | None = None

    def classes(self) -> list[str]:
        """Return the style of each column: "number", "time" or none."""
        numbers = range(1, len(self.head)) if self.numbers is None else self.numbers
        return ["number" if place in numbers else "time" * (name == "time") for place, name in enumerate(self.head)]


def video_section(
    annotation: Annotation,
    answered: Answered | Mapping[str, Answered],
    answers: Table,
    *,
    kind: str = "",
    marks: str | None = None,
) -> dict[str, Any]:
    """Return the values of the macro `answers`: timeline and tables of a video.

    Args:
        annotation: annotation of the video.
        answered: events that one model, or each of several runs, answered.
        answers: table of the reference events and the answers.
        kind: text before the video ID.
        marks: scores of the video.
    """
    runs = {"P": answered} if isinstance(answered, Answered) else answered
    listed = [
        [f"{letter}{number}", times(event), event.caption]
        for letter, some in runs.items()
        for number, event in enumerate(some.dense or (), start=1)
    ]
    dense = [Table("Dense captioning", ["", "time", "predicted caption"], listed, numbers=())] if listed else []
    return {
        "name": f"{kind}{annotation.video_id}, {annotation.duration:.1f} s",
        "marks": marks,
        "events": len(annotation.events),
        "timeline": timeline_figure(annotation, answered),
        "tables": [answers, *dense],
    }


def write_page(path: str | os.PathLike, template: str, **values: Any) -> Path:
    """Fill in a template and write the page atomically.

    Args:
        path: file to write; its folder is created.
        template: file name in `templates`.
        values: variables of the template; every text is escaped.

    Returns:
        The path of the file.
    """
    text = _environment().get_template(template).render(values)
    with atomic_write(path) as file:
        file.write(text)
    return Path(path)


def write_run_page(
    path: str | os.PathLike,
    scores: Mapping[str, Any],
    tasks: Mapping[str, tuple[str | None, Sequence[Table]]],
    *,
    title: str,
    settings: Table | None = None,
    ablation: Table | None = None,
    curves: Any = None,
    videos: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write the page of one run.

    Args:
        path: file to write; its folder is created.
        scores: result of [`longvale.evaluation.scoring.score.score`].
        tasks: title and tables of each task.
        title: title of the page.
        settings, ablation: further tables.
        curves: figure of the training.
        videos: results of [`video_section`].

    Returns:
        The path of the file.
    """
    shown = [
        {"title": of_task, "tables": tables, "counts": format_counts(scores["counts"][task])}
        for task, (of_task, tables) in tasks.items()
    ]
    parts = {"settings": settings, "ablation": ablation, "curves": curves, "videos": videos}
    return write_page(path, "report.html", title=title, protocol=scores["protocol"], tasks=shown, **parts)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["svg_uri"] = svg_uri
    return environment


def times(event: Event) -> str:
    """Format the start and end of an event in seconds."""
    return f"{event.start:.1f}-{event.end:.1f} s"


def percent(value: float | None) -> str:
    """Format a score times 100; an empty string for None."""
    return "" if value is None else f"{value * 100:.2f}"
