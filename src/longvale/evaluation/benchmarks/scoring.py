"""Scoring of the zero-shot benchmarks: read, check and pair answers in the same way as for LongVALE."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...registry import benchmarks
from ...system.locks import hold
from ...tasks import TASKS, Prediction, Question
from ..scoring.validate import check_answers, errors_named, format_counts, means_by_video
from .base import Benchmark
from .judge import Judge, judge_answers, judge_log, score_verdicts, verdict_rubric


def benchmark_of(tasks: Sequence[str]) -> type[Benchmark]:
    """Return the benchmark of tasks.

    Raises:
        ValueError: if they belong to several.
    """
    found = {task: benchmarks.registered(task) for task in tasks}
    if len(set(found.values())) > 1:
        raise ValueError(f"tasks {', '.join(tasks)} are of several benchmarks; ask one at a time")
    return found[tasks[0]]


def load_questions(
    data: str | os.PathLike, split: str, tasks: Sequence[str], prompt: str | None = None
) -> tuple[Path, list[Question]]:
    """Return the path of a zero-shot benchmark's official file in a folder, and its questions.

    Args:
        data: folder that contains the file.
        split: "train", "validation" or "test".
        tasks: tasks of one benchmark.
        prompt: prompt template, see [`longvale.evaluation.benchmarks.prompting.load_prompt`].

    Raises:
        FileNotFoundError: if the file or the prompt is missing.
        ValueError: if the tasks belong to several benchmarks, the split is unknown, or the file is invalid.
    """
    benchmark = benchmark_of(tasks)
    path = benchmark.find(Path(data), split)
    return path, benchmark(path, tasks).questions(prompt)


def score_zero_shot(
    predictions_path: str | os.PathLike,
    predictions: Sequence[Prediction],
    references_path: str | os.PathLike,
    tasks: Sequence[str],
    *,
    protocol: str = "strict",
    partial: bool = False,
    judge: Judge | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Score answers to a zero-shot benchmark.

    Args:
        predictions_path: prediction log; a judge's replies are written next to it.
        predictions: the answers of the log.
        references_path: official file of the benchmark.
        tasks: tasks to score, all of one benchmark.
        protocol: one of the benchmark's protocols, such as [`longvale.evaluation.benchmarks.music_avqa.PROTOCOLS`].
        partial: allow questions without an answer; they are counted, but excluded from the scores.
        judge: language model that also judges the answers.
        progress: show a progress bar while the judge works.

    Returns:
        Scores as in [`longvale.evaluation.scoring.score.score_predictions`], with `judge` among a task's scores.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: with the file or the server, and the problem.
    """
    kind = benchmark_of(tasks)
    if protocol not in kind.protocols:
        raise ValueError(f"unknown protocol {protocol!r} of {tasks[0]}; expected one of {', '.join(kind.protocols)}")
    benchmark = kind(Path(references_path), tasks)
    asked, references = {question.key: question for question in benchmark.questions()}, benchmark.references()
    scores: dict[str, Any] = {"protocol": protocol, "counts": {}}
    videos: dict[str, dict[str, dict[str, float]]] = {}
    for task in tasks:
        answers = [p for p in predictions if p.task == task]
        with errors_named(predictions_path):
            counts = check_answers(task, answers, [key for key in asked if key[1] == task], partial=partial)
        parsed = sum(benchmark.is_parsed(answer.answer) for answer in answers)
        scores["counts"][task] = {**counts, "parsed": parsed, "parsed_share": parsed / len(answers)}
        scores[task], rows = benchmark.score(answers, protocol)
        if judge is not None:
            log = judge_log(predictions_path, task)
            with hold(log.parent, log.name, work="judging answers"):
                rubric = verdict_rubric(asked, references)
                replies = judge_answers(judge, answers, asked, rubric, log, progress=progress)
            scores[task]["judge"], verdicts = score_verdicts(replies, judge)
            rows = [row | verdict for row, verdict in zip(rows, verdicts, strict=True)]
        for video_id, means in means_by_video((answer.video_id for answer in answers), rows).items():
            videos.setdefault(video_id, {})[task] = means
    return {**scores, "videos": videos}


def format_zero_shot(scores: Mapping[str, Any]) -> list[str]:
    """Format the scores of the zero-shot tasks as lines of a text table, times 100."""
    lines = []
    for task, of_task in zero_shot_scores(scores).items():
        lines += benchmarks.registered(task).lines(task, of_task)
        if judge := of_task.get("judge"):
            lines.append(
                f"  judged by {judge['model']}: accuracy {100 * judge['accuracy']:.2f}, "
                f"score {judge['score']:.2f} of 5, {judge['unread']} of {judge['count']} replies unread"
            )
        lines.append(f"  {format_counts(scores['counts'][task])}")
    return lines


def zero_shot_scores(scores: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the scores of each zero-shot task."""
    return {task: scores[task] for task in scores["counts"] if task not in TASKS}
