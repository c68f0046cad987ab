"""Scoring of the zero-shot benchmarks: read, check and pair answers in the same way as for LongVALE."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...system.locks import hold
from ...tasks import ZERO_SHOT_TASKS, AnyTask, Prediction, Question, ZeroShotTask
from ..scoring.validate import check_answers, errors_named, format_counts, means_by_video
from . import avsd, music_avqa
from .judge import Judge, judge_answers, judge_log, score_verdicts

#: Table columns of each task, in this order.
TABLE: dict[ZeroShotTask, tuple[str, ...]] = {
    "music_avqa": ("accuracy",),
    "avsd": avsd.SCORES,
    "avsd_first": avsd.SCORES,
}

#: One row of scores per answer, in the order of the answers.
Rows = list[dict[str, float]]


def load_questions(
    data: str | os.PathLike, split: str, tasks: Sequence[AnyTask], prompt: str | None = None
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
    if split not in music_avqa.FILES:
        raise ValueError(f"unknown split {split!r}; expected one of {', '.join(music_avqa.FILES)}")
    if "music_avqa" in tasks and len(tasks) > 1:
        raise ValueError("music_avqa has data of its own; ask it by itself")
    if "music_avqa" in tasks:
        return music_avqa.load_questions(Path(data), split, prompt)
    path = avsd.find_file(Path(data), split)
    return path, avsd.questions(avsd.load_dialogues(path), tasks, prompt)


def score_zero_shot(
    predictions_path: str | os.PathLike,
    predictions: Sequence[Prediction],
    references_path: str | os.PathLike,
    tasks: Sequence[ZeroShotTask],
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
        protocol: for MUSIC-AVQA, one of [`longvale.evaluation.benchmarks.music_avqa.PROTOCOLS`].
        partial: allow questions without an answer; they are counted, but excluded from the scores.
        judge: language model that also judges the answers.
        progress: show a progress bar while the judge works.

    Returns:
        Scores as in [`longvale.evaluation.scoring.score.score_predictions`], with `judge` among a task's scores.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: with the file or the server, and the problem.
    """
    load = _load_music_avqa if "music_avqa" in tasks else _load_avsd
    if "music_avqa" in tasks and len(tasks) > 1:
        raise ValueError(f"{predictions_path}: holds answers of several benchmarks; name the tasks of one")
    benchmark = load(Path(references_path), tasks, protocol)
    scores: dict[str, Any] = {"protocol": protocol, "counts": {}}
    videos: dict[str, dict[str, dict[str, float]]] = {}
    for task in tasks:
        answers = [p for p in predictions if p.task == task]
        with errors_named(predictions_path):
            counts = check_answers(task, answers, [key for key in benchmark.asked if key[1] == task], partial=partial)
        parsed = sum(benchmark.is_parsed(answer.answer) for answer in answers)
        scores["counts"][task] = {**counts, "parsed": parsed, "parsed_share": parsed / len(answers)}
        scores[task], rows = benchmark.score(answers)
        if judge is not None:
            log = judge_log(predictions_path, task)
            with hold(log.parent, log.name, work="judging answers"):
                replies = judge_answers(judge, answers, benchmark.asked, benchmark.references, log, progress=progress)
            scores[task]["judge"], verdicts = score_verdicts(replies, judge)
            rows = [row | verdict for row, verdict in zip(rows, verdicts, strict=True)]
        for video_id, means in means_by_video((answer.video_id for answer in answers), rows).items():
            videos.setdefault(video_id, {})[task] = means
    return {**scores, "videos": videos}


@dataclass(frozen=True)
class _Benchmark:
    """Content of an official file: questions and reference answers by key, and functions to score and parse answers."""

    asked: Mapping[tuple, Question]
    references: Mapping[tuple, Sequence[str]]
    score: Callable[[Sequence[Prediction]], tuple[dict[str, Any], Rows]]
    is_parsed: Callable[[str], bool]


def _load_music_avqa(path: Path, tasks: Sequence[ZeroShotTask], protocol: str) -> _Benchmark:
    rows = music_avqa.load_rows(path)
    asked = {question.key: question for question in music_avqa.questions(rows)}
    by_key, known = {row.key: row for row in rows}, music_avqa.known_answers(rows)
    return _Benchmark(
        asked,
        {key: [question.reference] for key, question in asked.items()},
        lambda answers: music_avqa.score_rows(answers, by_key, protocol),
        lambda text: music_avqa.normalize(text) in known,
    )


def _load_avsd(path: Path, tasks: Sequence[ZeroShotTask], protocol: str) -> _Benchmark:
    if protocol != "strict":
        raise ValueError(f"unknown protocol {protocol!r} of AVSD; its metrics are those of coco-caption, give strict")
    dialogues = avsd.load_dialogues(path)
    references = avsd.load_references(path, dialogues, tasks)
    return _Benchmark(
        {question.key: question for question in avsd.questions(dialogues, tasks)},
        references,
        lambda answers: avsd.score_dialogues(answers, references),
        lambda text: bool(text.strip()),
    )


def format_zero_shot(scores: Mapping[str, Any]) -> list[str]:
    """Format the scores of the zero-shot tasks as lines of a text table, times 100."""
    lines = []
    for task in (task for task in ZERO_SHOT_TASKS if task in scores):
        of_task = scores[task]
        if task == "music_avqa":
            lines += _columns(task, {"accuracy": of_task["accuracy"], **of_task["by_group"]})
            lines += [
                f"  {name:<32}{100 * value:>7.2f}  ({of_task['counts_by_type'][name]})"
                for name, value in of_task["by_type"].items()
            ]
            said = ", ".join(f"{name} {100 * value:.2f}" for name, value in of_task["protocols"].items())
            lines.append(f"  the same answers by each protocol: {said}")
        else:
            lines += _columns(task, {name: of_task[name] for name in avsd.SCORES})
        if judge := of_task.get("judge"):
            lines.append(
                f"  judged by {judge['model']}: accuracy {100 * judge['accuracy']:.2f}, "
                f"score {judge['score']:.2f} of 5, {judge['unread']} of {judge['count']} replies unread"
            )
        lines.append(f"  {format_counts(scores['counts'][task])}")
    return lines


def _columns(task: str, values: Mapping[str, float]) -> list[str]:
    widths = [max(len(name), 6) + 2 for name in values]
    head = "".join(f"{name:>{width}}" for name, width in zip(values, widths, strict=True))
    row = "".join(f"{100 * value:>{width}.2f}" for value, width in zip(values.values(), widths, strict=True))
    return [f"{task:<12}{head}", f"{'':<12}{row}"]
