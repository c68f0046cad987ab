"""Comparison of several runs: answers of several models to the same questions, scored per question."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...data.sources import load_videos
from ...events import Annotation
from ...run_log import load_settings
from ...tasks import TASKS, Prediction, Task, load_predictions
from ...timecodes import Protocol
from ..generation.prediction_log import run_path
from .bootstrap import mean_intervals
from .score import count_answers, score_answers
from .validate import errors_named, means_by_video

#: Labels of runs in tables and figures; a page with more runs would be unreadable.
LETTERS = "ABCDEF"

#: Name of the log in an output folder of `longvale evaluate`.
LOG_NAME = "predictions.jsonl"


@dataclass(frozen=True)
class Run:
    """The answers of one run.

    Args:
        letter: one of [`LETTERS`].
        path: path of the log.
        predictions: the answers.
        manifest: settings of the run, from the manifest of the log; None without a manifest.
    """

    letter: str
    path: Path
    predictions: Sequence[Prediction]
    manifest: Mapping[str, Any] | None


@dataclass(frozen=True)
class TaskScores:
    """The scores of all runs in one task.

    Args:
        asked: video ID and sentence ID of each question that all runs answered.
        overall: scores of each run by letter.
        counts: counts of each run by letter, see [`longvale.evaluation.scoring.score.score_predictions`].
        rows: scores per question in the order of `asked`, by the run's letter.
    """

    asked: Sequence[tuple[str, int | None]]
    overall: Mapping[str, Mapping[str, Any]]
    counts: Mapping[str, Mapping[str, Any]]
    rows: Mapping[str, Sequence[Mapping[str, float]]]

    def by_video(self, letter: str) -> dict[str, dict[str, float]]:
        """Return the mean scores of a run and the number of questions per video, by video ID."""
        return means_by_video((video_id for video_id, _ in self.asked), self.rows[letter])


@dataclass(frozen=True)
class Mean:
    """A mean over questions and its bootstrap interval over videos; no interval for a single video."""

    value: float
    low: float | None = None
    high: float | None = None


def load_runs(paths: Sequence[str | os.PathLike]) -> list[Run]:
    """Read the prediction logs of runs.

    Args:
        paths: logs (JSONL), or folders that contain a [`LOG_NAME`].

    Raises:
        FileNotFoundError: if a log is missing.
        ValueError: if there are no paths or more than [`LETTERS`], a path is repeated, or a log is invalid.
    """
    if not 1 <= len(paths) <= len(LETTERS):
        raise ValueError(f"give 1 to {len(LETTERS)} runs, not {len(paths)}")
    logs = [Path(path, LOG_NAME) if Path(path).is_dir() else Path(path) for path in paths]
    resolved = [log.resolve() for log in logs]
    if repeated := [str(log) for log, whole in zip(logs, resolved, strict=True) if resolved.count(whole) > 1]:
        raise ValueError(f"{repeated[0]}: given more than once; name each run once")
    return [Run(letter, log, load_predictions(log), _manifest(log)) for letter, log in zip(LETTERS, logs, strict=False)]


def _manifest(log: Path) -> Mapping[str, Any] | None:
    path = run_path(log)
    return load_settings(path) if path.is_file() else None


def score_runs(
    runs: Sequence[Run],
    references: str | os.PathLike,
    *,
    protocol: Protocol = "strict",
    partial: bool = False,
) -> tuple[dict[Task, TaskScores], dict[str, Annotation]]:
    """Score the tasks that all runs answered.

    Args:
        runs: result of [`load_runs`].
        references: annotations (JSON).
        protocol: `strict` or `official`.
        partial: score the questions that all runs answered, instead of raising an error for missing answers.

    Returns:
        The scores by task, and the annotations by video ID.

    Raises:
        FileNotFoundError, ValueError: as in [`longvale.evaluation.scoring.score.score`], with the path of the log.
        ValueError: if the runs have no common task or no common question.
    """
    annotations = {annotation.video_id: annotation for annotation in load_videos(Path(references))}
    answered = [{p.task for p in run.predictions} for run in runs]
    tasks = [task for task in TASKS if all(task in some for some in answered)]
    if not tasks:
        raise ValueError("the runs have no task in common; give runs that answered the same questions")
    return {task: _score_task(task, runs, annotations, protocol, partial) for task in tasks}, annotations


def _score_task(
    task: Task, runs: Sequence[Run], annotations: Mapping[str, Annotation], protocol: Protocol, partial: bool
) -> TaskScores:
    counts, answers = {}, {}
    for run in runs:
        # If a question was asked more than once, only the first answer counts.
        mine = [p for p in run.predictions if p.task == task and p.query_id == 0]
        with errors_named(run.path):
            counts[run.letter] = count_answers(task, mine, annotations, protocol=protocol, partial=partial)
        answers[run.letter] = {(p.video_id, p.sentence_id): p for p in mine}
    common = set.intersection(*(set(some) for some in answers.values()))
    asked = [key for key in answers[runs[0].letter] if key in common]
    if not asked:
        raise ValueError(f"{task}: no question was answered by all runs")
    overall, rows = {}, {}
    for letter, some in answers.items():
        overall[letter], rows[letter] = score_answers(task, [some[key] for key in asked], annotations, protocol)
    return TaskScores(asked, overall, counts, rows)


def mean_of(asked: Sequence[tuple[str, int | None]], values: Sequence[float], places: Sequence[int]) -> Mean:
    """Return the mean of selected questions' scores, and its interval.

    Example:
        >>> mean_of([("a", 0), ("a", 1), ("b", 0)], [0.5, 1.0, 0.0], [0, 1])
        Mean(value=0.75, low=None, high=None)
    """
    videos: dict[str, list[float]] = {}
    for place in places:
        videos.setdefault(asked[place][0], []).append(values[place])
    counts = np.array([len(some) for some in videos.values()], dtype=float)
    means = np.array([sum(some) for some in videos.values()]) / counts
    value = float(counts @ means / counts.sum())
    if len(videos) < 2:
        return Mean(value)
    low, high = mean_intervals(means[:, None], counts)
    return Mean(value, float(low[0]), float(high[0]))


def rank_videos(scores: TaskScores, score: str) -> dict[str, dict[str, float]]:
    """Return the mean score of each video by ID and run, best video first (by the mean over runs)."""
    runs = {letter: scores.by_video(letter) for letter in scores.rows}
    videos = dict.fromkeys(video_id for video_id, _ in scores.asked)
    means = {video_id: {letter: of[video_id][score] for letter, of in runs.items()} for video_id in videos}
    return dict(sorted(means.items(), key=lambda item: (-sum(item[1].values()), item[0])))


def choose_videos(ranked: Mapping[str, Mapping[str, float]], number: int) -> dict[str, list[str]]:
    """Choose videos to show, each once: the best, the worst, and those on which the runs differ most.

    Example:
        >>> choose_videos({"a": {"A": 1.0, "B": 1.0}, "b": {"A": 0.9, "B": 0.1}, "c": {"A": 0.0, "B": 0.1}}, 1)
        {'best': ['a'], 'worst': ['c'], 'most different': ['b']}
    """
    order = list(ranked)
    best = order[:number]
    worst = [video_id for video_id in reversed(order) if video_id not in best][:number]
    spread = {key: max(runs.values()) - min(runs.values()) for key, runs in ranked.items() if key not in best + worst}
    different = [key for key in sorted(spread, key=lambda key: (-spread[key], key)) if spread[key] > 0][:number]
    return {name: some for name, some in (("best", best), ("worst", worst), ("most different", different)) if some}
