"""Report of a zero-shot evaluation: scores, scores under the other protocols, and settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...registry import benchmarks
from ..benchmarks.scoring import zero_shot_scores
from .page import Table, percent, write_run_page


def write_zero_shot_report(
    output_html: str | os.PathLike, scores: Mapping[str, Any], manifest: Mapping[str, Any], *, title: str
) -> Path:
    """Write the report atomically.

    Args:
        output_html: file to write; its folder is created.
        scores: result of [`longvale.evaluation.scoring.score.score`].
        manifest: manifest of the run that generated the answers.
        title: title of the page.

    Returns:
        The path of the file.
    """
    settings = [[name, str(value)] for name, value in manifest.items() if name != "inputs"]
    tasks = {
        task: (benchmarks.registered(task).titles[task], _tables(task, of_task))
        for task, of_task in zero_shot_scores(scores).items()
    }
    made = Table("How the answers were made", ["", ""], settings, numbers=())
    return write_run_page(output_html, scores, tasks, title=title, settings=made)


def _tables(task: str, scores: Mapping[str, Any]) -> list[Table]:
    tables = []
    for title, columns, rows in benchmarks.registered(task).tables(scores):
        cells = [[percent(cell) if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
        named = isinstance(rows[0][0], str)  # the first column names the rows
        tables.append(Table(title, columns, cells, None if named else range(len(columns))))
    if judge := scores.get("judge"):
        row = [judge["model"], percent(judge["accuracy"]), f"{judge['score']:.2f}", f"{judge['unread']}"]
        tables.append(Table("Judged", ["judge", "accuracy", "score of 5", "replies that cannot be read"], [row]))
    return tables
