"""Report of an evaluation: one self-contained HTML file with tables, timelines and answers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...events import Annotation
from ...metrics.dense_captioning.compute_score import THRESHOLDS
from ...metrics.grounding.compute_score import iou
from ...plotting.timeline import Answered
from ...tasks import TASKS, Prediction, Task
from ..scoring.score import TABLE
from .figures import curves_figure
from .page import TITLES, Table, percent, times, video_section, write_run_page
from .plot import read_answers

TITLE = "LongVALE evaluation"

#: Maximum length of an answer without events, in characters.
_UNREAD = 2000


def write_report(
    output_html: str | os.PathLike,
    scores: Mapping[str, Any],
    annotations: Mapping[str, Annotation],
    predictions: Sequence[Prediction],
    *,
    ablation: Mapping[str, Any] | None = None,
    training_curves: Sequence[Mapping[str, Any]] | None = None,
    videos: int = 5,
    title: str = TITLE,
) -> Path:
    """Write the report atomically.

    Args:
        output_html: file to write; its folder is created.
        scores: result of [`longvale.evaluation.scoring.score.score`].
        annotations: annotations by video ID; events with modalities are drawn in the lanes seen, heard and said.
        predictions: the scored answers.
        ablation: result of [`longvale.evaluation.analysis.ablation.ablation`].
        training_curves: curves, each with `name`, `steps` and `loss`.
        videos: number of videos to show, the first ones with answers.
        title: title of the page.

    Returns:
        The path of the file.
    """
    answers: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        answers.setdefault(prediction.video_id, []).append(prediction)
    shown = [video_id for video_id in answers if video_id in annotations][:videos]
    return write_run_page(
        output_html,
        scores,
        {task: (None, [_score_table(task, scores[task])]) for task in TASKS if task in scores},
        title=title,
        ablation=None if ablation is None else _ablation_table(ablation),
        curves=curves_figure(training_curves) if training_curves else None,
        videos=[_video(annotations[video_id], answers[video_id]) for video_id in shown],
    )


def _score_table(task: Task, scores: Mapping[str, Any]) -> Table:
    rows = [(label, [percent(row[name]) for name in TABLE[task]]) for label, row in _score_rows(task, scores)]
    return Table(TITLES[task], ["", *TABLE[task]], [[label, *cells] for label, cells in rows])


def _score_rows(task: Task, scores: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float | None]]]:
    if task == "grounding":
        groups = scores.get("by_modality", {})
        return [("all events", scores), *((f"{name} ({row['count']})", row) for name, row in groups.items())]
    if task == "dense_captioning":
        at = [(f"IoU {t}", {name: scores.get(f"{name}@{t}") for name in TABLE[task]}) for t in THRESHOLDS]
        return [("mean", scores), *at]
    return [("all events", scores)]


def _ablation_table(ablation: Mapping[str, Any]) -> Table:
    settings = list(ablation["settings"])
    rows = [
        [f"{group} ({ablation['count'][group]})", *(percent(row[name]) for name in settings)]
        for group, row in ablation["mIoU"].items()
    ]
    return Table("Grounding mIoU", ["events", *settings], rows)


def _video(annotation: Annotation, predictions: Sequence[Prediction]) -> dict[str, Any]:
    texts = {p.key: p.answer for p in predictions}
    answered = read_answers(annotation, predictions)
    unread = texts[annotation.video_id, "dense_captioning", None][:_UNREAD] if answered.dense == [] else None
    return {"unread": unread, **video_section(annotation, answered, _events_table(annotation, texts, answered))}


def _events_table(annotation: Annotation, texts: Mapping[tuple, str], answered: Answered) -> Table:
    rows = []
    for index, event in enumerate(annotation.events):
        found = answered.grounding.get(index)
        rows.append(
            [
                str(index + 1),
                times(event),
                ", ".join(event.modalities),
                event.caption,
                texts.get((annotation.video_id, "grounding", index), "-"),
                f"{iou((found.start, found.end), (event.start, event.end)):.2f}" if found else "-",
                texts.get((annotation.video_id, "segment_captioning", index), "-"),
            ]
        )
    head = ["", "time", "perceived", "reference", "grounding answer", "IoU", "segment captioning answer"]
    return Table("Reference events and answers", head, rows, numbers=(5,))
