"""HTML report of a zero-shot evaluation: scores, scores under the other protocols, and settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from ...tasks import ZERO_SHOT_TASKS, ZeroShotTask
from ..reporting.html import percent, table, write_page
from ..scoring.validate import format_counts
from . import avsd

_TITLES: dict[ZeroShotTask, str] = {
    "music_avqa": "MUSIC-AVQA: one-word answers about performances",
    "avsd": "AVSD: the last question of a dialogue",
    "avsd_first": "AVSD: the first question of a dialogue",
}


def write_zero_shot_report(
    output_html: str | os.PathLike, scores: Mapping[str, Any], manifest: Mapping[str, Any], *, title: str
) -> Path:
    """Write the report atomically.

    Args:
        output_html: file to write; its folder must exist.
        scores: result of [`longvale.evaluation.scoring.score.score`].
        manifest: manifest of the run that generated the answers.
        title: title of the page.

    Returns:
        The path of the file.
    """
    told = [[name, str(value)] for name, value in manifest.items() if name != "inputs"]
    parts = [
        "<h2>Scores</h2>",
        f"<p class=note>Protocol {escape(scores['protocol'])}. All scores are multiplied by 100.</p>",
    ]
    for task in (task for task in ZERO_SHOT_TASKS if task in scores):
        parts.append(f"<h3>{_TITLES[task]}</h3>")
        parts += _music_avqa(scores[task]) if task == "music_avqa" else _avsd(scores[task])
        parts.append(f"<p class=note>{escape(format_counts(scores['counts'][task]))}.</p>")
    parts.append(table("How the answers were made", ["", ""], told, numbers=()))
    return write_page(output_html, title, parts)


def _music_avqa(scores: Mapping[str, Any]) -> list[str]:
    rows = [["all", percent(scores["accuracy"]), str(scores["count"])]]
    counts = scores["counts_by_type"]
    for group, value in scores["by_group"].items():
        types = {name: n for name, n in counts.items() if name.rpartition(" ")[0] == group}
        rows.append([group, percent(value), str(sum(types.values()))])
        rows += [[f"- {name}", percent(scores["by_type"][name]), str(count)] for name, count in types.items()]
    others = [[name, percent(value)] for name, value in scores["protocols"].items()]
    return [
        table("Accuracy by type", ["", "accuracy", "questions"], rows),
        table("The same answers by each protocol", ["protocol", "accuracy"], others),
    ]


def _avsd(scores: Mapping[str, Any]) -> list[str]:
    parts = [table("Likeness to the references", [*avsd.SCORES], [[percent(scores[name]) for name in avsd.SCORES]])]
    if judge := scores.get("judge"):
        row = [judge["model"], percent(judge["accuracy"]), f"{judge['score']:.2f}", f"{judge['unread']}"]
        parts.append(table("Judged", ["judge", "accuracy", "score of 5", "replies that cannot be read"], [row]))
    return parts
