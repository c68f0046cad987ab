"""Dense captions judged by a language model: which true events were named, and which captions are true.

SODA and its kin compare words. A judge reads both lists of events and checks them off, so that other words for the same
thing count, and what a caption adds does not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ...events import Annotation
from ...system.locks import hold
from ...tasks import Prediction, questions
from ...timecodes import Protocol
from ..benchmarks.judge import Judge, Rubric, judge_answers, judge_log, read_objects
from .validate import means_by_video

#: Judged events per answer, and characters per caption: what is beyond is not read, and its captions count as untrue.
MAX_EVENTS, MAX_CHARACTERS = 100, 400

#: Names of the scores, in the order of tables.
SCORES = ("checklist_recall", "checklist_precision", "checklist_F1")


def add_checklist(
    scores: dict[str, Any],
    predictions_path: str | os.PathLike,
    predictions: Sequence[Prediction],
    annotations: Mapping[str, Annotation],
    judge: Judge,
    *,
    progress: bool = True,
) -> dict[str, Any]:
    """Add the scores of a judge to those of dense captions.

    Recall is the share of the true events that an answer names, precision the share of its captions that are true; both
    and their F1 are means over answers. An answer without events, and a reply that cannot be parsed, count as 0.

    Args:
        scores: result of [`longvale.evaluation.scoring.score.score_predictions`].
        predictions_path: prediction log; the judge's replies are written next to it, and are read again.
        predictions: answers of the log.
        annotations: annotations by video ID.
        judge: the judge.
        progress: show a progress bar while the judge works.

    Returns:
        The scores, with `checklist_recall`, `checklist_precision`, `checklist_F1` and `judge` in `dense_captioning`.

    Raises:
        ValueError: if the log has no dense captions.
        ConnectionError: if the server fails; earlier replies are kept.
    """
    task, protocol = "dense_captioning", scores["protocol"]
    answers = [p for p in predictions if p.task == task and (protocol == "strict" or p.query_id == 0)]
    if task not in scores or not answers:
        raise ValueError("--judge judges dense captions and zero-shot answers; the log holds neither")
    asked = {q.key: q for annotation in annotations.values() for q in questions(annotation, (task,))}
    named = [answer for answer in answers if answer.parse(protocol)]
    replies: dict[tuple, str] = {}
    if named:
        log = judge_log(predictions_path, task)
        with hold(log.parent, log.name, work="judging answers"):
            judged = judge_answers(judge, named, asked, _rubric(annotations, protocol), log, progress=progress)
        replies = {reply.key: reply.answer for reply in judged}
    rows, unread = [], 0
    for answer in answers:
        verdict = read_checklist(replies.get(answer.key, ""))
        unread += answer.key in replies and verdict is None
        rows.append(_score(verdict, len(annotations[answer.video_id].events), len(answer.parse(protocol) or ())))
    means = {name: sum(row[name] for row in rows) / len(rows) for name in SCORES}
    counts = {"model": judge.model, "unread": unread, "count": len(named)}
    further = scores.get("metrics", {})
    videos = {video_id: dict(tasks) for video_id, tasks in scores["videos"].items()}
    for video_id, values in means_by_video((answer.video_id for answer in answers), rows).items():
        videos[video_id][task] = {**videos[video_id][task], **values}
    return {
        **scores,
        task: {**scores[task], **means, "judge": counts},
        "metrics": {**further, task: [*further.get(task, ()), *SCORES]},
        "videos": videos,
    }


def read_checklist(reply: str) -> tuple[frozenset[int], frozenset[int]] | None:
    """Parse a reply into the numbers of the named events and of the true captions; None if it cannot be parsed.

    Example:
        >>> read_checklist('{"named": [1, 3], "true": [2]}') == (frozenset({1, 3}), frozenset({2}))
        True
        >>> read_checklist("All of them.") is None
        True
    """
    for value in read_objects(reply):
        lists = value.get("named"), value.get("true")
        if all(isinstance(some, list) and all(type(number) is int for number in some) for some in lists):
            return frozenset(lists[0]), frozenset(lists[1])
    return None


def _rubric(annotations: Mapping[str, Annotation], protocol: Protocol) -> Rubric:
    def fields(answer: Prediction) -> dict[str, str]:
        annotation = annotations[answer.video_id]
        scale = annotation.duration / 100
        found = [(span.start * scale, span.end * scale, span.caption) for span in answer.parse(protocol)]
        true = [(event.start, event.end, event.caption) for event in annotation.events]
        return {"reference": _numbered(true), "prediction": _numbered(found[:MAX_EVENTS])}

    return Rubric("judge_events", fields, read_checklist)


def _numbered(events: Sequence[tuple[float, float, str]]) -> str:
    lines = []
    for number, (start, end, caption) in enumerate(events, 1):
        lines.append(f"{number}. {start:.1f} to {end:.1f} s: {' '.join(caption.split())[:MAX_CHARACTERS]}")
    return "\n".join(lines)


def _score(verdict: tuple[frozenset[int], frozenset[int]] | None, events: int, captions: int) -> dict[str, float]:
    named, true = verdict or (frozenset(), frozenset())
    recall = len(named & set(range(1, events + 1))) / events if events else 0.0
    precision = len(true & set(range(1, captions + 1))) / captions if captions else 0.0
    both = recall + precision
    return dict(zip(SCORES, (recall, precision, 2 * recall * precision / both if both else 0.0), strict=True))
