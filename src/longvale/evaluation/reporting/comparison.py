"""Report of several runs: one HTML page with scores, differences, breakdowns and example videos."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...events import Annotation
from ...metrics.grounding.compute_score import iou
from ...plotting.timeline import Answered
from ...tasks import Prediction, Task
from ...timecodes import Protocol
from ..scoring.breakdowns import breakdowns
from ..scoring.compare import Comparison, compare_rows
from ..scoring.runs import Mean, Run, TaskScores, choose_videos, load_runs, mean_of, rank_videos, score_runs
from ..scoring.score import TABLE
from ..scoring.validate import format_counts
from .figures import means_figure
from .page import TITLES, Table, percent, times, video_section, write_page
from .plot import read_answers
from .published import load_published, published_tables

TITLE = "LongVALE runs compared"

#: Manifest fields shown after the model and its decoding.
_MANIFEST_FIELDS = ("revision", "weights", "modalities", "prompt", "versions")

#: Tolerance for treating an overall score and the mean over videos as equal.
_SAME = 1e-9


def write_run_report(
    paths: Sequence[str | os.PathLike],
    references: str | os.PathLike,
    output_html: str | os.PathLike,
    *,
    protocol: Protocol = "strict",
    partial: bool = False,
    videos: int = 2,
    published: bool = False,
    title: str = TITLE,
) -> Path:
    """Score runs on the same questions and write a report atomically.

    Args:
        paths: prediction logs, or output folders of `longvale evaluate`. The first run is the baseline.
        references: annotations (JSON); an `events.jsonl` next to them provides modalities and relations.
        output_html: file to write; its folder is created.
        protocol: `strict` or `official`.
        partial: score the questions that all runs answered, instead of raising an error for missing answers.
        videos: number of best, of worst and of most different videos to show.
        published: also show scores that others report, see [`longvale.evaluation.reporting.published`].
        title: title of the page.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError, ValueError: as in [`load_runs`] and [`score_runs`], before anything is written.

    Example:
        >>> write_run_report(["a", "b"], "longvale-annotations-eval.json", "report.html")  # doctest: +SKIP
        PosixPath('report.html')
    """
    if videos < 0:
        raise ValueError(f"videos must be 0 or more, not {videos}")
    runs = load_runs(paths)
    others = load_published() if published else []
    scores, annotations = score_runs(runs, references, protocol=protocol, partial=partial)
    ranked_by = next(iter(scores))
    return write_page(
        output_html,
        "comparison.html",
        title=title,
        runs=Table(
            "",
            ["", "answers", "how they were made"],
            [[run.letter, str(run.path), _manifest_text(run)] for run in runs],
            numbers=(),
        ),
        protocol=protocol,
        references=str(references),
        shared=", ".join(f"{len(some.asked)} of {task.replace('_', ' ')}" for task, some in scores.items()),
        tasks=[
            {
                **_task(task, some, annotations),
                "published": published_tables(task, some.overall, protocol, len(some.asked), others) if others else [],
            }
            for task, some in scores.items()
        ],
        ranked_by=f"{ranked_by.replace('_', ' ')} {TABLE[ranked_by][0]}",
        videos=_videos(runs, scores[ranked_by], TABLE[ranked_by][0], annotations, videos),
    )


def _manifest_text(run: Run) -> str:
    if run.manifest is None:
        return "unknown: there is no manifest (.run.json) next to the answers"
    named = run.manifest.get("model")
    parts = [f"model {_plain(named)}"] if named is not None else []
    parts += [_decoding_words(run.manifest["decoding"])] if run.manifest.get("decoding") is not None else []
    known = {name: run.manifest[name] for name in _MANIFEST_FIELDS if run.manifest.get(name) is not None}
    parts += [f"{name} {_plain(value)}" for name, value in known.items()]
    return "; ".join(parts) or "the manifest names no model"


def _decoding_words(decoding: object) -> str:
    """Describe the decoding settings in words.

    Example:
        >>> _decoding_words({"greedy": True}), _decoding_words({"temperature": 0.05, "seed": 3})
        ('greedy decoding', 'sampled at temperature 0.05, seed 3')
    """
    settings = dict(decoding) if isinstance(decoding, Mapping) else {}
    if settings.pop("greedy", None) is True:
        how = "greedy decoding"
    elif "temperature" in settings:
        how = f"sampled at temperature {_plain(settings.pop('temperature'))}"
    else:
        return f"decoding {_plain(decoding)}"
    return ", ".join([how, *_named(settings)])


def _named(values: Mapping[str, object]) -> list[str]:
    return [f"{name} {_plain(value)}" for name, value in values.items()]


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(_named(value))
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _task(task: Task, scores: TaskScores, annotations: Mapping[str, Annotation]) -> dict[str, Any]:
    """Return the values of a task's section."""
    name = TABLE[task][0]
    found, lacking = breakdowns(task, scores.asked, annotations)
    values = {letter: [row[name] for row in rows] for letter, rows in scores.rows.items()}
    panels = {
        breakdown.name: {
            f"{label} ({len(places)})": {letter: mean_of(scores.asked, mine, places) for letter, mine in values.items()}
            for label, places in breakdown.groups.items()
        }
        for breakdown in found
    }
    rows = [
        [breakdown, label, *(_score_cell(mean.value, mean) for mean in means.values())]
        for breakdown, groups in panels.items()
        for label, means in groups.items()
    ]
    numbers = range(2, 2 + len(values))
    return {
        "title": TITLES[task],
        "counts": [f"{letter}: {format_counts(count)}" for letter, count in scores.counts.items()],
        "scores": _scores_table(task, scores),
        "differences": _differences_table(task, scores),
        "figure": means_figure(name, panels) if panels else None,
        "description": f"{name} by {', '.join(panels)}; the numbers follow",
        "means": Table(f"{name} by groups", ["", "group (questions)", *values], rows, numbers),
        "lacking": lacking,
    }


def _scores_table(task: Task, scores: TaskScores) -> Table:
    everything = range(len(scores.asked))
    rows = [
        [name]
        + [
            _score_cell(overall[name], mean_of(scores.asked, [row[name] for row in scores.rows[letter]], everything))
            for letter, overall in scores.overall.items()
        ]
        for name in TABLE[task]
    ]
    return Table("Scores", ["", *scores.overall], rows)


def _differences_table(task: Task, scores: TaskScores) -> Table | None:
    first, *others = scores.rows
    compared = {f"{letter} - {first}": _compare(task, scores, first, letter) for letter in others}
    if not any(compared.values()):
        return None
    rows = [[name, *(_difference_cell(row[name]) for row in compared.values())] for name in TABLE[task]]
    return Table("Differences", ["", *compared], rows)


def _score_cell(overall: float, mean: Mean) -> str:
    interval = "" if mean.low is None else f"[{percent(mean.low)}, {percent(mean.high)}]"
    if abs(overall - mean.value) < _SAME:
        return f"{percent(overall)} {interval}".rstrip()
    return f"{percent(overall)}, over videos {percent(mean.value)} {interval}".rstrip()


def _compare(task: Task, scores: TaskScores, first: str, second: str) -> dict[str, Comparison]:
    """Compare two runs; the result is empty for a single video."""
    one, other = scores.by_video(first), scores.by_video(second)
    return compare_rows([(one[v], other[v]) for v in one], TABLE[task]) if len(one) > 1 else {}


def _difference_cell(row: Comparison) -> str:
    star = " *" if row.is_clear else ""
    return f"{100 * row.difference:+.2f} [{100 * row.low:+.2f}, {100 * row.high:+.2f}]{star}"


def _videos(
    runs: Sequence[Run], scores: TaskScores, score: str, annotations: Mapping[str, Annotation], number: int
) -> list[dict[str, Any]]:
    """Return the values of the sections of the best, worst and most different videos."""
    ranked = rank_videos(scores, score)
    answers: dict[str, dict[str, list[Prediction]]] = {}
    for run in runs:
        for prediction in run.predictions:
            if not prediction.query_id:
                answers.setdefault(prediction.video_id, {}).setdefault(run.letter, []).append(prediction)
    sections = []
    for kind, some in choose_videos(ranked, number).items():
        for video_id in some:
            annotation, mine = annotations[video_id], answers[video_id]
            answered = {letter: read_answers(annotation, given) for letter, given in mine.items()}
            marks = f"{score} x 100: " + ", ".join(f"{x} {percent(mean)}" for x, mean in ranked[video_id].items())
            table = _events_table(annotation, mine, answered)
            sections.append(video_section(annotation, answered, table, kind=f"{kind.capitalize()}: ", marks=marks))
    return sections


def _events_table(
    annotation: Annotation, answers: Mapping[str, Sequence[Prediction]], answered: Mapping[str, Answered]
) -> Table:
    """Return a table with one row per reference event and the answers of each run."""
    grounding = {letter: some.grounding for letter, some in answered.items() if some.grounding}
    captions = {
        letter: {p.sentence_id: p.answer for p in some if p.task == "segment_captioning"}
        for letter, some in answers.items()
    }
    captions = {letter: some for letter, some in captions.items() if some}
    rows = []
    for index, event in enumerate(annotation.events):
        row = [str(index + 1), times(event), ", ".join(event.modalities), event.caption]
        for found in grounding.values():
            span = found.get(index)
            shared = span and iou((span.start, span.end), (event.start, event.end))
            row.append("-" if span is None else f"{times(span)} ({shared:.2f})")
        rows.append(row + [some.get(index, "-") for some in captions.values()])
    head = [*(f"{x}: time (IoU)" for x in grounding), *(f"{x}: caption" for x in captions)]
    return Table("Reference events and answers", ["", "time", "perceived", "reference", *head], rows, numbers=())
