"""Rows of the dataset's configurations, without media: what `load_dataset`, training and evaluation read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from ..events import Annotation, Event
from ..tasks import TASKS, questions
from .dialogues import TimeWriter, fill_timecodes, load_dialogues
from .sources import DIALOGUE_STEMS, load_videos


def read_records(name: str, path: str | os.PathLike) -> list[tuple[str, Any]]:
    """Read what the rows of a configuration are made of: an annotation per video, or the dialogues, with their ids.

    Args:
        name: of the configuration, see [`longvale.data.builder`].
        path: file of annotations or dialogues.

    Raises:
        FileNotFoundError, ValueError: as in [`load_dialogues`] and [`load_videos`].
    """
    if name in DIALOGUE_STEMS:
        return [(dialogue["id"], dialogue) for dialogue in load_dialogues(path)]
    return [(annotation.video_id, annotation) for annotation in load_videos(path)]


def rows(name: str, record: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of one video (an [`Annotation`]) or one dialogue in a configuration, without media."""
    if name in DIALOGUE_STEMS:
        yield dialogue_row(record)
    elif name == "videos":
        yield {"video_id": record.video_id, "duration": record.duration, "events": event_rows(record)}
    elif name in TASKS:
        yield from _question_rows(name, record)
    else:
        for row in event_rows(record):
            yield {"video_id": record.video_id, **row, "duration": record.duration}


def event_rows(video: Annotation) -> list[dict[str, Any]]:
    """Return the events of a video as the `events` column of `videos`."""
    return [
        {"event_id": index, "start": e.start, "end": e.end, "caption": e.caption, **_facts(e)}
        for index, e in enumerate(video.events)
    ]


def _question_rows(task: str, video: Annotation) -> Iterator[dict[str, Any]]:
    for question in questions(video, [task]):
        row = {"video_id": video.video_id, "question": question.question, "reference": question.reference}
        row["duration"] = video.duration
        if question.sentence_id is None:
            yield row | {"events": event_rows(video)}
        else:
            event = video.events[question.sentence_id]
            span = {"start": event.start, "end": event.end}
            yield row | {"sentence_id": question.sentence_id, **span, **_facts(event)}


def _facts(event: Event) -> dict[str, Any]:
    return {"modalities": list(event.modalities) or None, "relation": event.relation}


def dialogue_row(dialogue: Mapping[str, Any], times: TimeWriter | None = None) -> dict[str, Any]:
    """Return the row of a dialogue, with timecodes filled in, or times as `times` writes them."""
    meta = dialogue.get("meta") or {}
    return {
        "id": dialogue["id"],
        "source": dialogue.get("source"),
        "messages": fill_timecodes(dialogue, times),
        "duration": meta.get("duration"),
        "split": meta.get("split"),
    }
