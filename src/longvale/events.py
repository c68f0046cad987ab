"""Events and annotations of the benchmark: what happens in a video, and when.

The file format is the one that LongVALE published
(``longvale-annotations-{training,eval}.json`` of ``ttgeng233/LongVALE`` on the Hub)::

    {video_id: {"duration": s, "timestamps": [[s, e], ...], "sentences": [...]}}
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from .io import atomic_write, is_number, load_json, shorten

Seconds: TypeAlias = float
Modality: TypeAlias = Literal["visual", "audio", "speech"]

MODALITIES: tuple[Modality, ...] = get_args(Modality)

#: The audio-visual correlation types of the paper (figure 3), most frequent first.
RELATIONS = (
    "complementary",
    "synchronicity",
    "enhancement",
    "scene-aware",
    "temporal association",
    "causality",
    "visual-only",
    "corrective",
    "audio-only",
)

#: How much the end of an event may exceed the video's duration: published durations are rounded, boundaries are not.
DURATION_TOLERANCE_S: Seconds = 0.5


@dataclass(frozen=True)
class Event:
    """One row of the benchmark: something that happens from `start` to `end`, and its caption.

    Args:
        start: start of the event in seconds from the start of the video.
        end: end of the event in seconds, after `start`.
        caption: one sentence or more; may contain any characters.
        modalities: the modalities in which the event can be perceived, in the order visual, audio, speech. Empty if not
            known, as in the published files.
        relation: how its modalities are related, one of [`RELATIONS`], or None if not known.

    Raises:
        ValueError: if a time is not a finite number, is negative, or the event does not end after it starts; if a
            modality or the relation is unknown.

    Example:
        >>> Event(4.7, 39.6, "A man speaks while a car passes.").length
        34.9
    """

    start: Seconds
    end: Seconds
    caption: str
    modalities: tuple[Modality, ...] = ()
    relation: str | None = None

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            _check_seconds(getattr(self, name), name)
        if self.end <= self.start:
            raise ValueError(
                f"ends ({self.end} s) before it starts ({self.start} s)"
                if self.end < self.start
                else f"has no length: it starts and ends at {self.start} s"
            )
        if not isinstance(self.caption, str):
            raise ValueError(f"caption must be a text, not {self.caption!r}")
        object.__setattr__(self, "modalities", tuple(self.modalities))
        if self.modalities != tuple(m for m in MODALITIES if m in self.modalities):
            raise ValueError(f"modalities must be among {MODALITIES}, each once and in this order: {self.modalities}")
        if self.relation is not None and self.relation not in RELATIONS:
            raise ValueError(f"relation {self.relation!r} is not one of {', '.join(RELATIONS)}")

    @property
    def length(self) -> Seconds:
        """Return the seconds from start to end."""
        return self.end - self.start


@dataclass(frozen=True)
class Annotation:
    """A video's id, its duration and its events, in the order of the file.

    Args:
        video_id: name of the video, without folder and suffix.
        duration: length of the video in seconds, above 0.
        events: what happens in it; may be empty.
        extra: other fields of the file, kept unchanged.

    Raises:
        ValueError: if the id is empty or contains a path, the duration is not above 0, or an event ends more than
            [`DURATION_TOLERANCE_S`] after it.

    Example:
        >>> Annotation("abc", 60.0, (Event(0, 12.5, "A dog barks."),)).to_official()
        {'duration': 60.0, 'timestamps': [[0, 12.5]], 'sentences': ['A dog barks.']}
    """

    video_id: str
    duration: Seconds
    events: tuple[Event, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_video_id(self.video_id)
        _check_seconds(self.duration, "duration")
        if self.duration <= 0:
            raise ValueError(f"duration must be above 0 s, not {self.duration}")
        object.__setattr__(self, "events", tuple(self.events))
        for index, event in enumerate(self.events):
            if event.end > self.duration + DURATION_TOLERANCE_S:
                raise ValueError(
                    f"event {index} ends at {event.end} s, after the video's duration of {self.duration} s; "
                    "correct its end or the duration"
                )

    @classmethod
    def from_official(cls, video_id: str, value: Mapping[str, Any]) -> Annotation:
        """Read one value of the official JSON.

        Args:
            video_id: the key of `value`.
            value: `{"duration": s, "timestamps": [[s, e], ...], "sentences": [...]}`; other fields are kept in `extra`.

        Raises:
            ValueError: if a field is missing or has another type, naming it; or if [`Event`] or [`Annotation`] refuses
                a value.
        """
        if not isinstance(value, Mapping):
            raise ValueError(f"must be an object with duration, timestamps and sentences, not {shorten(value)}")
        missing = [name for name in ("duration", "timestamps", "sentences") if name not in value]
        if missing:
            raise ValueError(f"field '{missing[0]}' is missing")
        timestamps, sentences = value["timestamps"], value["sentences"]
        for name, items in (("timestamps", timestamps), ("sentences", sentences)):
            if not isinstance(items, list | tuple):
                raise ValueError(f"field '{name}' must be a list, not {shorten(items)}")
        if len(timestamps) != len(sentences):
            raise ValueError(
                f"{len(timestamps)} timestamps but {len(sentences)} sentences; each event needs one of both"
            )
        events = []
        for index, (times, caption) in enumerate(zip(timestamps, sentences, strict=True)):
            if not isinstance(times, list | tuple) or len(times) != 2:
                raise ValueError(f"event {index}: timestamps must be [start, end] in seconds, not {shorten(times)}")
            try:
                events.append(Event(times[0], times[1], caption))
            except ValueError as error:
                raise ValueError(f"event {index} {error}") from None
        extra = {k: v for k, v in value.items() if k not in ("duration", "timestamps", "sentences")}
        return cls(video_id, value["duration"], tuple(events), extra)

    def to_official(self) -> dict[str, Any]:
        """Return the value for `video_id` in the official JSON; numbers are returned as they were read."""
        return {
            "duration": self.duration,
            "timestamps": [[event.start, event.end] for event in self.events],
            "sentences": [event.caption for event in self.events],
            **self.extra,
        }


def load_annotations(path: str | os.PathLike) -> dict[str, Annotation]:
    """Read a file of annotations in the official JSON format.

    Args:
        path: for example `longvale-annotations-eval.json`.

    Returns:
        Annotations by video id, in the order of the file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not JSON, is empty, names a video twice, or an annotation is invalid; the message names
            file, video, event and value.
    """
    path = Path(path)
    values = load_json(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must be an object {{video_id: annotation}}, not {shorten(values)}")
    if not values:
        raise ValueError(f"{path}: holds no annotation; expected {{video_id: {{duration, timestamps, sentences}}}}")
    annotations = {}
    for video_id, value in values.items():
        try:
            annotations[video_id] = Annotation.from_official(video_id, value)
        except ValueError as error:
            raise ValueError(f"{path}: video {video_id!r}: {error}") from None
    return annotations


def save_annotations(annotations: Mapping[str, Annotation], path: str | os.PathLike) -> None:
    """Write annotations as official JSON; the file is written completely or not at all.

    Args:
        annotations: by video id.
        path: file to write; its folder is created if missing.
    """
    with atomic_write(path) as file:
        json.dump({key: value.to_official() for key, value in annotations.items()}, file, ensure_ascii=False)


def check_video_id(video_id: str) -> None:
    """Refuse ids that are empty or could name a file outside a folder.

    Raises:
        ValueError: for empty ids, and those with a slash, a backslash, a NUL, or consisting of dots.
    """
    if not isinstance(video_id, str) or not video_id.strip():
        raise ValueError(f"video id must be a text that is not empty, not {video_id!r}")
    if any(c in video_id for c in "/\\\0") or video_id.strip(".") == "":
        raise ValueError(f"video id {video_id!r} must not hold a path; use the file's name without folder and suffix")


def _check_seconds(value: object, name: str) -> None:
    if not is_number(value):
        raise ValueError(f"{name} must be a finite number of seconds, not {shorten(value)}")
    if value < 0:
        raise ValueError(f"{name} must not be negative: {value}")
