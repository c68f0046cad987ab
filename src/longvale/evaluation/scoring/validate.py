"""Validation of answers against questions: count unknown, repeated and missing answers, or raise an error."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ...tasks import AnyTask, Prediction


def check_answers(
    task: AnyTask, answers: Sequence[Prediction], asked: Iterable[tuple], *, partial: bool = False
) -> dict[str, int]:
    """Compare the answers of a task with its questions.

    Args:
        task: task of all answers.
        answers: answers to check.
        asked: keys of all questions of the task.
        partial: allow questions without an answer.

    Returns:
        The number of `questions`, `answers`, `missing`, `repeated` and `unknown`.

    Raises:
        ValueError: on the first kind of mismatch, or if there are no answers.

    Example:
        >>> answers = [Prediction("abc", "grounding", "From 00 to 20.", 0)]
        >>> check_answers("grounding", answers, [("abc", "grounding", 0), ("abc", "grounding", 1)], partial=True)
        {'questions': 2, 'answers': 1, 'missing': 1, 'repeated': 0, 'unknown': 0}
    """
    asked = dict.fromkeys(asked)
    times = Counter((p.key, p.query_id) for p in answers)
    unknown = [p.key for p in answers if p.key not in asked]
    repeated = [key for (key, _), count in times.items() if count > 1]
    answered = {p.key for p in answers}
    missing = [key for key in asked if key not in answered]
    for keys, problem, remedy in (
        (
            unknown,
            "about a video or event that is not in the annotations",
            "score with the annotations it was made for",
        ),
        (repeated, "given more than once", "keep one line a question"),
        (missing if not partial or not answered else [], "missing", "finish the run, or leave them out with --partial"),
    ):
        if keys:
            video_id, _, sentence_id = keys[0]
            where = f"video {video_id!r}" + ("" if sentence_id is None else f", sentence {sentence_id}")
            raise ValueError(f"{len(keys)} {task} answers are {problem}, the first of {where}; {remedy}")
    if not answered:
        raise ValueError(f"holds no {task} answer, and the annotations ask no {task} question")
    return {
        "questions": len(asked),
        "answers": len(answers),
        "missing": len(missing),
        "repeated": len(repeated),
        "unknown": len(unknown),
    }


@contextmanager
def errors_named(path: str | os.PathLike) -> Iterator[None]:
    """Add the path of a prediction log to the message of a `ValueError`."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def format_counts(counts: Mapping[str, Any]) -> str:
    """Format the number of answered questions, the share of parsed answers and the mismatches, in one line."""
    answered = counts["questions"] - counts["missing"]
    return (
        f"{answered} of {counts['questions']} questions answered, {counts['parsed_share']:.1%} parsed; "
        f"{counts['missing']} missing, {counts['repeated']} repeated, {counts['unknown']} unknown"
        + (f"; {counts['events']} events" if "events" in counts else "")
    )


def means_by_video(video_ids: Iterable[str], rows: Iterable[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the mean scores and the number of answers per video, given the video ID and the scores of each answer."""
    of_videos: dict[str, list[Mapping[str, float]]] = {}
    for video_id, row in zip(video_ids, rows, strict=True):
        of_videos.setdefault(video_id, []).append(row)
    return {
        video_id: {**{name: sum(row[name] for row in some) / len(some) for name in some[0]}, "count": len(some)}
        for video_id, some in of_videos.items()
    }
