"""Scoring of a prediction log: read and check the answers, pair them with annotations, compute the metrics."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ...data.sources import load_videos
from ...events import Annotation, Event
from ...io import atomic_write
from ...metrics.answers import pair
from ...metrics.dense_captioning.compute_score import score_videos
from ...metrics.grounding.compute_score import compute_score as score_grounding
from ...metrics.segment_captioning.compute_score import score_segments
from ...registry import benchmarks
from ...tasks import TASKS, Prediction, Task, check_tasks, load_predictions, questions
from ...text_table import align
from ...timecodes import PROTOCOLS, Protocol
from ..benchmarks.judge import Judge
from ..benchmarks.scoring import format_zero_shot, score_zero_shot, zero_shot_scores
from .checklist import add_checklist
from .metrics import choose_metrics
from .readings import asked_times, count_readings, format_readings, reader_warnings
from .validate import check_answers, errors_named, format_counts, means_by_video

#: Groups of events in tables: events perceived in a single modality, and events in several.
GROUPS = ("visual", "audio", "speech", "joint")

#: Table columns of each task, in this order; scores.json contains more.
TABLE: dict[Task, tuple[str, ...]] = {
    "grounding": ("mIoU", "R@0.3", "R@0.5", "R@0.7"),
    "dense_captioning": ("soda_c", "METEOR", "CIDEr", "BLEU_4", "ROUGE_L", "precision", "recall", "F1"),
    "segment_captioning": ("METEOR", "CIDEr", "BLEU_4", "ROUGE_L"),
}

#: Error message.
ADDED = "metrics are added to those of LongVALE's tasks; a zero-shot benchmark has its own"

#: Scores of a task by name; and scores per answer, in the order of the answers.
Scores: TypeAlias = dict[str, Any]
Rows: TypeAlias = list[dict[str, float]]


def score(
    predictions_path: str | os.PathLike,
    references_path: str | os.PathLike,
    *,
    tasks: Iterable[str] | None = None,
    protocol: str = "strict",
    partial: bool = False,
    judge: Judge | None = None,
    metrics: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, Any]:
    """Score a prediction log.

    Args:
        predictions_path: official log (JSONL).
        references_path: official annotations (JSON). If an `events.jsonl` next to them contains the events' modalities,
            grounding is also scored per group of events. For zero-shot tasks, the official file of the benchmark.
        tasks: tasks to score; by default the tasks with answers in the log.
        protocol: `official` reproduces the published scorers, see [`longvale.metrics.protocol_options`]; for MUSIC-AVQA
            one of [`longvale.evaluation.benchmarks.music_avqa.PROTOCOLS`].
        partial: allow questions without an answer. They are counted, but excluded from the scores.
        judge: language model that also judges dense captions, see [`longvale.evaluation.scoring.checklist`], or the
            answers to zero-shot tasks.
        metrics: names of further metrics of LongVALE's tasks, see [`longvale.evaluation.scoring.metrics`].
        progress: show a progress bar while the judge works.

    Returns:
        As in [`score_predictions`].

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is invalid, or the log does not match the annotations; see [`score_predictions`].
    """
    wanted = None if tasks is None else check_tasks(tasks)
    predictions = load_predictions(predictions_path)  # after the tasks, which may name a benchmark outside the package
    wanted = wanted or check_tasks({prediction.task for prediction in predictions})
    if zero_shot := [task for task in wanted if task not in TASKS]:
        if len(zero_shot) < len(wanted):
            raise ValueError(f"{predictions_path}: holds answers of several benchmarks; name the tasks of one")
        if metrics:
            raise ValueError(ADDED)
        options = {"protocol": protocol, "partial": partial, "judge": judge, "progress": progress}
        return score_zero_shot(predictions_path, predictions, references_path, zero_shot, **options)
    annotations = {annotation.video_id: annotation for annotation in load_videos(Path(references_path))}
    with errors_named(predictions_path):
        scores = score_predictions(
            predictions,
            annotations,
            tasks=wanted,
            protocol=protocol,
            partial=partial,
            metrics=metrics,
            times=asked_times(predictions_path),
        )
    if judge is None:
        return scores
    return add_checklist(scores, predictions_path, predictions, annotations, judge, progress=progress)


def save_scores(scores: Mapping[str, Any], path: str | os.PathLike, *, by_video: bool = False) -> None:
    """Write scores as JSON at full precision, atomically.

    Args:
        scores: result of [`score_predictions`].
        path: path of the file.
        by_video: include the scores per video, which [`longvale.evaluation.scoring.compare.compare`] needs.
    """
    with atomic_write(path) as file:
        json.dump({name: value for name, value in scores.items() if by_video or name != "videos"}, file, indent=2)
        file.write("\n")


def score_predictions(
    predictions: Sequence[Prediction],
    annotations: Mapping[str, Annotation],
    *,
    tasks: Iterable[str] | None = None,
    protocol: Protocol = "strict",
    partial: bool = False,
    metrics: Sequence[str] = (),
    times: str | None = None,
) -> dict[str, Any]:
    """Score answers against annotations.

    Args:
        predictions: answers to the questions of [`longvale.tasks.questions`].
        annotations: annotations by video ID. If events have modalities, grounding is also scored per group of events.
        tasks: tasks to score; by default the tasks with answers.
        protocol: `strict`, or `official`, which reproduces the published scorers.
        partial: allow questions without an answer; they are excluded from the scores.
        metrics: names of further metrics, see [`longvale.evaluation.scoring.metrics`].
        times: format of times that the questions asked for, recorded in the scores.

    Returns:
        One key per task with its scores as fractions (CIDEr up to 10); `counts` per task: `questions`, `answers`,
        `parsed`, `parsed_share`, `missing`, `repeated`, `unknown`, `events` of the videos with answers, and, of other
        models, `readers` and `past_end`, see [`longvale.evaluation.scoring.readings.count_readings`]; `protocol`;
        `videos`: scores by video ID and task; with further metrics, `metrics`: the names of their scores by task.

    Raises:
        ValueError: if an answer is about an unknown video or event, is repeated, is missing (unless `partial`), or if
            there is nothing to score.
    """
    asked = tuple(task for task in TASKS if any(p.task == task for p in predictions))
    tasks = asked if tasks is None else check_tasks(tasks)
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; expected one of {', '.join(PROTOCOLS)}")
    scores: dict[str, Any] = {"protocol": protocol, **({"times": times} if times else {}), "counts": {}}
    videos: dict[str, dict[Task, dict[str, float]]] = {}
    chosen, added = choose_metrics(metrics, tasks), {}
    for task in tasks:
        answers = [p for p in predictions if p.task == task and (protocol == "strict" or p.query_id == 0)]
        scores["counts"][task] = count_answers(task, answers, annotations, protocol=protocol, partial=partial)
        scores[task], rows = score_answers(task, answers, annotations, protocol)
        for name, metric in chosen.items():
            if task in metric.tasks:
                more, more_rows = metric(answers, annotations, protocol)
                if taken := sorted(more.keys() & scores[task].keys()):
                    raise ValueError(f"metric {name}: {taken[0]} is a score of {task} already; name it differently")
                scores[task] |= more
                rows = [row | other for row, other in zip(rows, more_rows, strict=True)]
                added.setdefault(task, []).extend(more)
        for video_id, values in means_by_video((answer.video_id for answer in answers), rows).items():
            videos.setdefault(video_id, {})[task] = values
    if not tasks:
        raise ValueError("holds no answer to score")
    return {**scores, **({"metrics": added} if added else {}), "videos": videos}


def modality_group(event: Event) -> str | None:
    """Return one of [`GROUPS`], or None if the event's modalities are unknown.

    Example:
        >>> modality_group(Event(0, 1, "", ("audio",))), modality_group(Event(0, 1, "", ("visual", "audio")))
        ('audio', 'joint')
    """
    if not event.modalities:
        return None
    return event.modalities[0] if len(event.modalities) == 1 else "joint"


def count_answers(
    task: Task,
    answers: Sequence[Prediction],
    annotations: Mapping[str, Annotation],
    *,
    protocol: Protocol = "strict",
    partial: bool = False,
) -> dict[str, Any]:
    """Count the answers of a task against the questions of the annotations; see [`score_predictions`].

    Raises:
        ValueError: on the first kind of mismatch.
    """
    asked = [q.key for annotation in annotations.values() for q in questions(annotation, (task,))]
    counts = check_answers(task, answers, asked, partial=partial)
    found = [answer.parse(protocol) for answer in answers]
    parsed = sum(bool(value.strip() if isinstance(value, str) else value) for value in found)
    return {
        **counts,
        "events": sum(len(annotations[video_id].events) for video_id in {p.video_id for p in answers}),
        "parsed": parsed,
        "parsed_share": parsed / len(answers),
        **count_readings(answers),
    }


def score_answers(
    task: Task, answers: Sequence[Prediction], annotations: Mapping[str, Annotation], protocol: Protocol = "strict"
) -> tuple[Scores, Rows]:
    """Score the answers of one task, together and individually.

    Args:
        task: task of all answers.
        answers: answers without repetition; each video and event must be in the annotations.
        annotations: annotations by video ID.
        protocol: `strict` or `official`.

    Returns:
        The scores of all answers, and one row per answer with the scores of [`TABLE`].

    Example:
        >>> video = Annotation("abc", 100.0, (Event(0, 20, "A bell."), Event(50, 60, "A dog.")))
        >>> answers = [Prediction("abc", "grounding", text, i) for i, text in enumerate(["From 00 to 20.", "?"])]
        >>> overall, rows = score_answers("grounding", answers, {"abc": video})
        >>> overall["mIoU"], [row["mIoU"] for row in rows]
        (0.5, [1.0, 0.0])
    """
    found, wanted = pair(
        task, answers, [_reference(answer, annotations[answer.video_id]) for answer in answers], protocol
    )
    if task == "dense_captioning":
        return score_videos(found, wanted, protocol=protocol)
    if task == "segment_captioning":
        overall, each = score_segments(dict(enumerate(found)), dict(enumerate(wanted)), protocol=protocol)
        return overall, list(each.values())
    events = [annotations[answer.video_id].events[answer.sentence_id] for answer in answers]
    return _score_grounding(found, wanted, events, protocol)


def _reference(answer: Prediction, annotation: Annotation) -> dict[str, Any]:
    """Return what the answer is compared with, like a row of the dataset."""
    if answer.sentence_id is None:
        events = [{"start": event.start, "end": event.end, "caption": event.caption} for event in annotation.events]
        return {"duration": annotation.duration, "events": events}
    event = annotation.events[answer.sentence_id]
    return {"start": event.start, "end": event.end, "duration": annotation.duration, "reference": event.caption}


def _score_grounding(
    found: Sequence, wanted: Sequence, events: Sequence[Event], protocol: Protocol
) -> tuple[Scores, Rows]:
    groups: dict[str, tuple[list, list]] = {group: ([], []) for group in ("all", *GROUPS)}
    rows = []
    for span, reference, event in zip(found, wanted, events, strict=True):
        for group in {"all", modality_group(event) or "all"}:
            groups[group][0].append(span)
            groups[group][1].append(reference)
        row = score_grounding([span], [reference], protocol=protocol)
        rows.append({name: row[name] for name in TABLE["grounding"]})
    scores = {group: score_grounding(*pairs, protocol=protocol) for group, pairs in groups.items() if pairs[0]}
    overall = scores.pop("all")
    return {**overall, "by_modality": scores} if scores else overall, rows


def format_scores(scores: Mapping[str, Any]) -> str:
    """Format scores as a text table, times 100, with the protocol and the share of parsed answers.

    Example:
        >>> print(format_scores(
        ...     {"protocol": "strict",
        ...      "counts": {"grounding": {"questions": 4, "missing": 0, "repeated": 0, "unknown": 0, "events": 4,
        ...                               "parsed_share": 0.75}},
        ...      "grounding": {"mIoU": 0.5, "R@0.3": 0.75, "R@0.5": 0.5, "R@0.7": 0.25}}))
        grounding   mIoU  R@0.3  R@0.5  R@0.7
                   50.00  75.00  50.00  25.00
          4 of 4 questions answered, 75.0% parsed; 0 missing, 0 repeated, 0 unknown; 4 events
        protocol strict; scores times 100
    """
    lines = []
    for task in (task for task in TASKS if task in scores):
        names = table_columns(scores)[task]
        rows = [(label, *(_percent(row.get(name)) for name in names)) for label, row in _rows(scores[task])]
        lines += align([(task, *names), *rows])
        if judge := scores[task].get("judge"):
            lines.append(f"  checked off by {judge['model']}: {judge['unread']} of {judge['count']} replies unread")
        lines += [
            f"  {line}" for line in (format_counts(scores["counts"][task]), *format_readings(scores["counts"][task]))
        ]
    lines += format_zero_shot(scores)
    lines += [f"protocol {scores['protocol']}; scores times 100", *reader_warnings(scores)]
    return "\n".join(lines)


def table_columns(scores: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the names of the scores that tables show, by task of `scores`."""
    further = scores.get("metrics", {})
    of_longvale = {task: (*TABLE[task], *further.get(task, ())) for task in TASKS if task in scores}
    return of_longvale | {task: tuple(benchmarks.registered(task).columns) for task in zero_shot_scores(scores)}


def _rows(scores: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [("", scores), *((f"  {group}", row) for group, row in scores.get("by_modality", {}).items())]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
