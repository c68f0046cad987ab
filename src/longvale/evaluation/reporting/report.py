"""Report of several runs: one HTML page with scores, differences, breakdowns and example videos."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from ...events import Annotation, Event
from ...metrics.grounding.compute_score import iou
from ...tasks import Prediction, Task
from ...timecodes import Protocol
from ..scoring.breakdowns import facets
from ..scoring.compare import Comparison, compare_rows
from ..scoring.runs import Mean, Run, TaskScores, choose_videos, load_runs, mean_of, rank_videos, score_runs
from ..scoring.score import TABLE
from ..scoring.validate import format_counts
from .comparison import TASK_TITLES, dense_events, grounded
from .figures import means_figure, runs_figure, svg_uri
from .html import details, image, percent, table, times, write_page

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
    scores, annotations = score_runs(runs, references, protocol=protocol, partial=partial)
    parts = [_runs_section(runs, scores, references, protocol)]
    for task, some in scores.items():
        parts += [
            f"<h2>{escape(TASK_TITLES[task])}</h2>",
            *(f"<p class=note>{letter}: {escape(format_counts(count))}.</p>" for letter, count in some.counts.items()),
            _scores_table(task, some),
            _facets_section(task, some, annotations),
        ]
    parts += _videos_sections(runs, scores, annotations, videos)
    Path(output_html).parent.mkdir(parents=True, exist_ok=True)
    return write_page(output_html, title, parts)


def _runs_section(
    runs: Sequence[Run], scores: Mapping[Task, TaskScores], references: str | os.PathLike, protocol: Protocol
) -> str:
    rows = [[run.letter, str(run.path), _manifest_text(run)] for run in runs]
    shared = ", ".join(f"{len(some.asked)} of {task.replace('_', ' ')}" for task, some in scores.items())
    return "\n".join(
        [
            "<h2>Runs</h2>",
            table("", ["", "answers", "how they were made"], rows, numbers=()),
            f"<p class=note>Scored with protocol {escape(protocol)} against {escape(str(references))}, on the same "
            f"questions: {escape(shared)}. All scores are multiplied by 100. In brackets: the 95% interval "
            "of a bootstrap over the videos. Where the score of all answers together is not a mean over videos, the "
            "mean over videos is added, and intervals and differences are about that.</p>",
        ]
    )


def _manifest_text(run: Run) -> str:
    if run.manifest is None:
        return "unknown: there is no manifest (.run.json) beside the answers"
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
    if not isinstance(decoding, Mapping):
        return f"decoding {_plain(decoding)}"
    if decoding.get("greedy") is True:
        return ", ".join(["greedy decoding", *_named({k: v for k, v in decoding.items() if k != "greedy"})])
    if "temperature" in decoding:
        others = {name: value for name, value in decoding.items() if name != "temperature"}
        return ", ".join([f"sampled at temperature {_plain(decoding['temperature'])}", *_named(others)])
    return f"decoding {_plain(decoding)}"


def _named(values: Mapping[str, object]) -> list[str]:
    return [f"{name} {_plain(value)}" for name, value in values.items()]


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(_named(value))
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _scores_table(task: Task, scores: TaskScores) -> str:
    everything = range(len(scores.asked))
    rows = [
        [name]
        + [
            _score_cell(overall[name], mean_of(scores.asked, [row[name] for row in scores.rows[letter]], everything))
            for letter, overall in scores.overall.items()
        ]
        for name in TABLE[task]
    ]
    parts = [table("Scores", ["", *scores.overall], rows)]
    first, *others = scores.rows
    compared = {f"{letter} - {first}": _compare(task, scores, first, letter) for letter in others}
    if any(compared.values()):
        rows = [[name, *(_difference_cell(row[name]) for row in compared.values())] for name in TABLE[task]]
        parts.append(table("Differences", ["", *compared], rows))
        parts.append("<p class=note>A star marks differences whose interval leaves out 0.</p>")
    return "\n".join(parts)


def _score_cell(overall: float, mean: Mean) -> str:
    interval = "" if mean.low is None else f"[{percent(mean.low)}, {percent(mean.high)}]"
    if abs(overall - mean.value) < _SAME:
        return f"{percent(overall)} {interval}".rstrip()
    return f"{percent(overall)}, over videos {percent(mean.value)} {interval}".rstrip()


def _compare(task: Task, scores: TaskScores, first: str, second: str) -> dict[str, Comparison]:
    """Compare two runs; the result is empty for a single video."""
    videos: dict[str, list[int]] = {}
    for place, (video_id, _) in enumerate(scores.asked):
        videos.setdefault(video_id, []).append(place)
    if len(videos) < 2:
        return {}

    def means(letter: str, places: Sequence[int]) -> dict[str, float]:
        rows = [scores.rows[letter][place] for place in places]
        return {"count": len(rows), **{n: float(np.mean([row[n] for row in rows])) for n in TABLE[task]}}

    return compare_rows([(means(first, p), means(second, p)) for p in videos.values()], TABLE[task])


def _difference_cell(row: Comparison) -> str:
    star = " *" if row.is_clear else ""
    return f"{100 * row.difference:+.2f} [{100 * row.low:+.2f}, {100 * row.high:+.2f}]{star}"


def _facets_section(task: Task, scores: TaskScores, annotations: Mapping[str, Annotation]) -> str:
    name = TABLE[task][0]
    found, lacking = facets(task, scores.asked, annotations)
    values = {letter: [row[name] for row in rows] for letter, rows in scores.rows.items()}
    panels = {
        facet.name: {
            f"{label} ({len(places)})": {letter: mean_of(scores.asked, mine, places) for letter, mine in values.items()}
            for label, places in facet.groups.items()
        }
        for facet in found
    }
    parts = []
    if panels:
        parts.append(image(svg_uri(means_figure(name, panels)), f"{name} by {', '.join(panels)}; the numbers follow"))
        rows = [
            [facet, label, *(_score_cell(mean.value, mean) for mean in means.values())]
            for facet, groups in panels.items()
            for label, means in groups.items()
        ]
        numbers = table(
            f"{name} by groups", ["", "group (questions)", *values], rows, numbers=range(2, 2 + len(values))
        )
        parts.append(details("The numbers of the picture", numbers))
    if lacking:
        parts.append(
            f"<p class=note>Not shown: {', '.join(lacking)}. All questions are alike in this, or the annotations do "
            "not tell.</p>"
        )
    return "\n".join(parts)


def _videos_sections(
    runs: Sequence[Run], scores: Mapping[Task, TaskScores], annotations: Mapping[str, Annotation], number: int
) -> list[str]:
    task = next(iter(scores))
    name = TABLE[task][0]
    ranked = rank_videos(scores[task], name)
    chosen = choose_videos(ranked, number)
    if not chosen:
        return []
    of_video = {
        run.letter: {
            video_id: {(p.task, p.sentence_id): p for p in run.predictions if p.video_id == video_id and not p.query_id}
            for some in chosen.values()
            for video_id in some
        }
        for run in runs
    }
    parts = [
        "<h2>Videos</h2>",
        f"<p class=note>Ranked by their {task.replace('_', ' ')} {name}. Events bear their numbers of the tables, "
        "those of a run after its letter.</p>",
    ]
    for kind, some in chosen.items():
        for video_id in some:
            answers = {letter: videos[video_id] for letter, videos in of_video.items()}
            parts.append(_video_section(kind, name, annotations[video_id], ranked[video_id], answers))
    return parts


def _video_section(
    kind: str,
    score: str,
    annotation: Annotation,
    means: Mapping[str, float],
    answers: Mapping[str, Mapping[tuple[Task, int | None], Prediction]],
) -> str:
    dense, grounding = {}, {}
    for letter, mine in answers.items():
        if ("dense_captioning", None) in mine:
            dense[letter] = dense_events(mine["dense_captioning", None].answer, annotation)
        found = {index: grounded(p.answer, annotation) for (task, index), p in mine.items() if task == "grounding"}
        if found:
            grounding[letter] = found
    marks = ", ".join(f"{letter} {percent(value)}" for letter, value in means.items())
    figure = runs_figure(annotation, dense, grounding)
    head, rows = _event_rows(annotation, answers, grounding)
    tables = table("Reference events and answers", ["", "time", "perceived", "reference", *head], rows, numbers=())
    listed = [[f"{x}{n}", times(e), e.caption] for x, some in dense.items() for n, e in enumerate(some, start=1)]
    if listed:
        tables += table("Dense captioning", ["", "time", "predicted caption"], listed, numbers=())
    return "\n".join(
        [
            f"<h3>{kind.capitalize()}: {escape(annotation.video_id)}, {annotation.duration:.1f} s</h3>",
            f"<p class=note>{score} x 100: {escape(marks)}</p>",
            image(svg_uri(figure), f"timeline of {len(annotation.events)} reference events and of those predicted"),
            details("The answers", tables),
        ]
    )


def _event_rows(
    annotation: Annotation,
    answers: Mapping[str, Mapping[tuple[Task, int | None], Prediction]],
    grounding: Mapping[str, Mapping[int, Event | None]],
) -> tuple[list[str], list[list[str]]]:
    """Return the column titles of the runs' answers, and one row per reference event."""
    captioned = [x for x, mine in answers.items() if any(task == "segment_captioning" for task, _ in mine)]
    head = [f"{x}: time (IoU)" for x in grounding] + [f"{x}: caption" for x in captioned]
    rows = []
    for index, event in enumerate(annotation.events):
        row = [str(index + 1), times(event), ", ".join(event.modalities), event.caption]
        for found in grounding.values():
            span = found.get(index)
            shared = span and iou((span.start, span.end), (event.start, event.end))
            row.append("-" if span is None else f"{times(span)} ({shared:.2f})")
        for letter in captioned:
            answer = answers[letter].get(("segment_captioning", index))
            row.append("-" if answer is None else answer.answer)
        rows.append(row)
    return head, rows
