"""Selection of questions for GRPO: those that a model sometimes answers well, by several sampled answers to each.

If all answers to a question get the same reward, nothing is learned from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ...data.sources import annotation_file, load_videos
from ...events import Annotation
from ...io import atomic_write, load_json
from ...metrics.grounding.compute_score import iou
from ...tasks import Prediction, load_predictions
from ...timecodes import Span

Key = tuple[str, str, int | None]


@dataclass(frozen=True)
class Selection:
    """Questions that are neither too easy nor too hard.

    Args:
        kept: keys of the questions: video, task, index of the event.
        too_hard, too_easy: number of questions whose mean IoU is below or above the range.
        rollouts: number of answers to each question.
    """

    kept: tuple[Key, ...]
    too_hard: int
    too_easy: int
    rollouts: int


def select_questions(
    logs: Sequence[str | os.PathLike],
    data: str | os.PathLike,
    *,
    split: str = "train",
    least: float = 0.1,
    most: float = 0.9,
) -> Selection:
    """Select grounding questions by the mean IoU of several answers to each.

    Args:
        logs: prediction logs of the same questions, sampled with different seeds.
        data: folder of the annotations.
        split: "train" or "test".
        least, most: range of the mean IoU of questions that are kept, 0 to 1.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the range is invalid, a log is about other questions, or nothing is left.
    """
    if not 0 <= least <= most <= 1:
        raise ValueError(f"min-iou and max-iou must be 0 to 1, the first not above the second, not {least} and {most}")
    path = annotation_file(data, split)
    videos = {video.video_id: video for video in load_videos(path)}
    ious: dict[Key, list[float]] = {}
    for number, log in enumerate(logs):
        answers = {answer.key: answer for answer in load_predictions(log) if answer.task == "grounding"}
        if not answers:
            raise ValueError(f"{log}: has no answer to grounding")
        if number and answers.keys() != ious.keys():
            other = next(iter(answers.keys() ^ ious.keys()))
            raise ValueError(
                f"{log}: {other[0]}/{other[2]} is not answered in all logs; give logs of the same questions"
            )
        for key, answer in answers.items():
            ious.setdefault(key, []).append(_iou(answer, videos, Path(log), path))
    means = {key: fmean(values) for key, values in ious.items()}
    kept = tuple(key for key, mean in means.items() if least <= mean <= most)
    if not kept:
        raise ValueError(f"{logs[0]}: no question has a mean IoU of {least} to {most}; give a wider range")
    hard = sum(mean < least for mean in means.values())
    return Selection(kept, hard, len(means) - len(kept) - hard, len(logs))


def _iou(answer: Prediction, videos: Mapping[str, Annotation], log: Path, path: Path) -> float:
    video, index = videos.get(answer.video_id), answer.sentence_id
    if video is None or index is None or not 0 <= index < len(video.events):
        raise ValueError(f"{log}: {answer.video_id}/{index} is no event of {path}; give the split that was asked about")
    span, event = answer.parse(), video.events[index]
    if not isinstance(span, Span):
        return 0.0
    return iou((span.start / 100, span.end / 100), (event.start / video.duration, event.end / video.duration))


def save_selection(selection: Selection, path: str | os.PathLike) -> None:
    """Write the kept questions as JSON."""
    content = {
        "questions": [list(key) for key in selection.kept],
        "rollouts": selection.rollouts,
        "too_hard": selection.too_hard,
        "too_easy": selection.too_easy,
    }
    with atomic_write(path) as file:
        json.dump(content, file, indent=1)


def load_selection(path: str | os.PathLike) -> frozenset[Key]:
    """Read the keys of the questions that [`save_selection`] has written.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not such a file.
    """
    content = load_json(path)
    listed = content.get("questions") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"{path}: has no list of questions; write it with `longvale data select`")
    for key in listed:
        if not (isinstance(key, list) and len(key) == 3 and isinstance(key[0], str) and isinstance(key[1], str)):
            raise ValueError(
                f"{path}: {str(key)[:60]!r} is not video, task and event; write it with `longvale data select`"
            )
    return frozenset((video_id, task, index) for video_id, task, index in listed)
