"""Report of an evaluation: one self-contained HTML file with tables, timelines and answers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ...events import Annotation, Event
from ...metrics.dense_captioning.compute_score import THRESHOLDS
from ...metrics.grounding.compute_score import iou
from ...tasks import TASKS, Prediction, Task
from ...timecodes import parse_events, parse_span
from ..scoring.score import TABLE
from ..scoring.validate import format_counts
from .figures import curves_figure, svg_uri, timeline_figure
from .html import details, image, percent, table, times, write_page

TITLE = "LongVALE evaluation"

TASK_TITLES: dict[Task, str] = {
    "grounding": "Grounding: when does an event happen?",
    "dense_captioning": "Dense captioning: which events happen, and when?",
    "segment_captioning": "Segment captioning: what happens in a stretch?",
}


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
        output_html: file to write; its folder must exist.
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
    parts = [_scores_section(scores)]
    if ablation is not None:
        parts.append(_ablation_section(ablation))
    if training_curves:
        parts += ["<h2>Training</h2>", image(svg_uri(curves_figure(training_curves)), "loss over training steps")]
    answered = dict.fromkeys(prediction.video_id for prediction in predictions)
    shown = [video_id for video_id in answered if video_id in annotations][:videos]
    if shown:
        parts += ["<h2>Videos</h2>", "<p class=note>The numbers in a picture are those of the answers below it.</p>"]
    for video_id in shown:
        parts.append(_video_section(annotations[video_id], [p for p in predictions if p.video_id == video_id]))
    return write_page(output_html, title, parts)


def _scores_section(scores: Mapping[str, Any]) -> str:
    parts = [
        "<h2>Scores</h2>",
        f"<p class=note>Protocol {escape(scores['protocol'])}. All scores are multiplied by 100.</p>",
    ]
    for task in (task for task in TASKS if task in scores):
        rows = [(label, [percent(row[name]) for name in TABLE[task]]) for label, row in _score_rows(task, scores[task])]
        parts.append(table(TASK_TITLES[task], ["", *TABLE[task]], [[label, *cells] for label, cells in rows]))
        parts.append(f"<p class=note>{escape(format_counts(scores['counts'][task]))}.</p>")
    return "\n".join(parts)


def _score_rows(task: Task, scores: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float | None]]]:
    if task == "grounding":
        groups = scores.get("by_modality", {})
        return [("all events", scores), *((f"{name} ({row['count']})", row) for name, row in groups.items())]
    if task == "dense_captioning":
        at = [(f"IoU {t}", {name: scores.get(f"{name}@{t}") for name in TABLE[task]}) for t in THRESHOLDS]
        return [("mean", scores), *at]
    return [("all events", scores)]


def _ablation_section(ablation: Mapping[str, Any]) -> str:
    settings = list(ablation["settings"])
    rows = [
        [f"{group} ({ablation['count'][group]})", *(percent(row[name]) for name in settings)]
        for group, row in ablation["mIoU"].items()
    ]
    return (
        "<h2>What each modality is worth</h2>\n"
        "<p class=note>The same questions to the same model, which gets all features set to 0 (none), or only the "
        "modalities named. Rows are groups of events by the modality that they can be perceived in; joint events have "
        "several.</p>\n" + table("Grounding mIoU", ["events", *settings], rows)
    )


def _video_section(annotation: Annotation, predictions: Sequence[Prediction]) -> str:
    answers = {p.key: p.answer for p in predictions}
    dense_text = answers.get((annotation.video_id, "dense_captioning", None))
    dense = None if dense_text is None else dense_events(dense_text, annotation)
    grounding = {
        index: grounded(answers[key], annotation)
        for index in range(len(annotation.events))
        if (key := (annotation.video_id, "grounding", index)) in answers
    }
    figure = timeline_figure(annotation, dense, grounding)
    parts = [
        f"<h3>{escape(annotation.video_id)}, {annotation.duration:.1f} s</h3>",
        image(svg_uri(figure), f"timeline of the {len(annotation.events)} reference events and of the predicted ones"),
    ]
    tables = [_events_table(annotation, answers, grounding)]
    if dense:
        rows = [[f"P{number}", times(event), event.caption] for number, event in enumerate(dense, start=1)]
        tables.append(table("Dense captioning", ["", "time", "predicted caption"], rows, numbers=()))
    parts.append(details("The answers", "\n".join(tables)))
    if not dense and dense_text is not None:
        parts.append(f"<p>The dense captioning answer names no event:</p>\n<pre>{escape(dense_text[:2000])}</pre>")
    return "\n".join(parts)


def dense_events(answer: str, annotation: Annotation) -> list[Event]:
    """Parse the events of a dense captioning answer, in seconds."""
    return [Event(*span.seconds(annotation.duration), span.caption) for span in parse_events(answer)]


def grounded(answer: str, annotation: Annotation) -> Event | None:
    """Parse the event of a grounding answer, in seconds; return None if it has no interval."""
    span = parse_span(answer)
    return span and Event(*span.seconds(annotation.duration), "")


def _events_table(annotation: Annotation, answers: Mapping[tuple, str], grounding: Mapping[int, Event | None]) -> str:
    rows = []
    for index, event in enumerate(annotation.events):
        found = grounding.get(index)
        rows.append(
            [
                str(index + 1),
                times(event),
                ", ".join(event.modalities),
                event.caption,
                answers.get((annotation.video_id, "grounding", index), "-"),
                f"{iou((found.start, found.end), (event.start, event.end)):.2f}" if found else "-",
                answers.get((annotation.video_id, "segment_captioning", index), "-"),
            ]
        )
    head = ["", "time", "perceived", "reference", "grounding answer", "IoU", "segment captioning answer"]
    return table("Reference events and answers", head, rows, numbers=(5,))
