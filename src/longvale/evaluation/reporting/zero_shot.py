"""Report of a zero-shot evaluation: scores, scores under the other protocols, and settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...tasks import ZERO_SHOT_TASKS
from ..benchmarks import avsd
from ..scoring.validate import format_counts
from .page import TITLES, Table, percent, write_page


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
    return write_page(
        output_html,
        "report.html",
        title=title,
        protocol=scores["protocol"],
        tasks=[
            {
                "title": TITLES[task],
                "tables": _music_avqa(scores[task]) if task == "music_avqa" else _avsd(scores[task]),
                "counts": format_counts(scores["counts"][task]),
            }
            for task in ZERO_SHOT_TASKS
            if task in scores
        ],
        settings=Table("How the answers were made", ["", ""], settings, numbers=()),
        ablation=None,
        curves=None,
        videos=(),
    )


def _music_avqa(scores: Mapping[str, Any]) -> list[Table]:
    rows = [["all", percent(scores["accuracy"]), str(scores["count"])]]
    counts = scores["counts_by_type"]
    for group, value in scores["by_group"].items():
        types = {name: n for name, n in counts.items() if name.rpartition(" ")[0] == group}
        rows.append([group, percent(value), str(sum(types.values()))])
        rows += [[f"- {name}", percent(scores["by_type"][name]), str(count)] for name, count in types.items()]
    others = [[name, percent(value)] for name, value in scores["protocols"].items()]
    return [
        Table("Accuracy by type", ["", "accuracy", "questions"], rows),
        Table("The same answers by each protocol", ["protocol", "accuracy"], others),
    ]


def _avsd(scores: Mapping[str, Any]) -> list[Table]:
    names = avsd.SCORES
    likeness = [percent(scores[name]) for name in names]
    tables = [Table("Likeness to the references", names, [likeness], numbers=range(len(names)))]
    if judge := scores.get("judge"):
        row = [judge["model"], percent(judge["accuracy"]), f"{judge['score']:.2f}", f"{judge['unread']}"]
        tables.append(Table("Judged", ["judge", "accuracy", "score of 5", "replies that cannot be read"], [row]))
    return tables
