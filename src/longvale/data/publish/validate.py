"""Checks of official files that list all problems, not only the first; used by `longvale data prepare`.

[`longvale.events.load_annotations`] and [`longvale.data.dialogues.load_dialogues`] refuse a file at its first error.
Here each video, event and dialogue is checked separately, so that the rest can be used.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ...events import DURATION_TOLERANCE_S, Annotation, Seconds
from ...io import is_number
from ..dialogues import check_dialogue

#: Allowed difference between the length of a file and its annotation: as a share, and at most so many seconds. Up to
#: `DURATION_TOLERANCE_S` is always allowed: durations are rounded, and the streams of a file rarely end together.
LENGTH_TOLERANCE = 0.01
LENGTH_TOLERANCE_S: Seconds = 1.0


@dataclass(frozen=True)
class Problem:
    """One problem in a file.

    Args:
        file: its name.
        place: for example "video 'abc': event 3".
        message: the problem, with the value and the remedy.
        keepable: whether the columns of a table can hold the row as it is, for users who want the file as published.
    """

    file: str
    place: str
    message: str
    keepable: bool = False

    def __str__(self) -> str:
        return f"{self.file}: {self.place}: {self.message}"


@dataclass(frozen=True)
class CheckedVideo:
    """A video of an annotation file.

    Args:
        video_id: its key.
        value: its value in the file.
        annotation: with the valid events; None if the whole video is invalid.
        places: indices of the events of `annotation` in the file.
        problems: all problems of the video.
        in_test: whether it is in the training file and also in the test split.
    """

    video_id: str
    value: Any
    annotation: Annotation | None
    places: tuple[int, ...]
    problems: tuple[Problem, ...] = ()
    in_test: bool = False


def check_video(video_id: str, value: Any, file: str, test_ids: Collection[str] = ()) -> CheckedVideo:
    """Check a video and each of its events.

    In addition to what [`Annotation.from_official`] refuses, an event is invalid if its caption is empty or it repeats
    an earlier event, and a training video is invalid if it is also in the test split.

    Args:
        video_id: its key in the file.
        value: its value in the file.
        file: name for messages.
        test_ids: videos of the test split, if this is the training file.

    Example:
        >>> value = {"duration": 9.0, "timestamps": [[0, 2], [5, 3]], "sentences": ["A bell.", "A dog."]}
        >>> checked = check_video("abc", value, "a.json")
        >>> print(checked.places, *checked.problems)
        (0,) a.json: video 'abc': event 1: ends (3 s) before it starts (5 s); correct its times
    """
    place = f"video {video_id!r}"
    try:
        _check_whole(video_id, value)
    except ValueError as error:
        return CheckedVideo(video_id, value, None, (), (Problem(file, place, str(error)),))
    events, places, problems, seen = [], [], [], set()
    for index, (times, caption) in enumerate(zip(value["timestamps"], value["sentences"], strict=True)):
        try:
            one = {**value, "timestamps": [times], "sentences": [caption]}
            (event,) = Annotation.from_official(video_id, one).events
            if not caption.strip():
                raise ValueError("the caption is empty; write one")
            if event in seen:
                raise ValueError("repeats an earlier event; keep one of them")
        except ValueError as error:
            message = str(error).removeprefix("event 0").lstrip(": ")
            remedy = "" if ";" in message else "; correct its times" if "start" in message else "; correct it"
            problems.append(Problem(file, f"{place}: event {index}", message + remedy, fits_columns(times, caption)))
            continue
        seen.add(event)
        events.append(event)
        places.append(index)
    in_test = video_id in test_ids
    if in_test:
        problems.append(Problem(file, place, "is in the test split too; leave it out of training", True))
    extra = {name: item for name, item in value.items() if name not in ("duration", "timestamps", "sentences")}
    annotation = Annotation(video_id, value["duration"], tuple(events), extra)
    return CheckedVideo(video_id, value, annotation, tuple(places), tuple(problems), in_test)


def other_length(video_id: str, lasts: Seconds, annotated: Seconds) -> str | None:
    """Return a message if a file is longer or shorter than its annotation by more than the tolerance, else None.

    Args:
        video_id: of both.
        lasts: duration of the file in seconds.
        annotated: duration of the annotation in seconds.

    Example:
        >>> other_length("abc", 30.0, 60.0)
        'abc: the file lasts 30.0 s, its annotation 60.0 s; take the file that was annotated, or correct the annotation'
        >>> other_length("abc", 30.4, 30.5)
    """
    allowed = max(min(LENGTH_TOLERANCE * annotated, LENGTH_TOLERANCE_S), DURATION_TOLERANCE_S)
    if abs(lasts - annotated) <= allowed:
        return None
    return (
        f"{video_id}: the file lasts {lasts:.1f} s, its annotation {annotated:.1f} s; "
        "take the file that was annotated, or correct the annotation"
    )


def fits_columns(times: Any, caption: Any) -> bool:
    """Return whether an event, valid or not, fits into columns of two numbers and a string."""
    right = isinstance(times, list) and len(times) == 2 and all(is_number(time) for time in times)
    return right and isinstance(caption, str)


def check_training_dialogue(index: int, dialogue: Any, file: str, test_ids: Collection[str]) -> Problem | None:
    """Check the format of a dialogue, and that its video is not in the test split.

    Args:
        index: its index in the file.
        dialogue: an item of the file.
        file: name for messages.
        test_ids: videos of the test split.
    """
    name = f" (id {dialogue['id']!r})" if isinstance(dialogue, Mapping) and isinstance(dialogue.get("id"), str) else ""
    try:
        check_dialogue(dialogue)
    except ValueError as error:
        return Problem(file, f"dialogue {index}{name}", str(error))
    if dialogue["id"] in test_ids:
        message = "is about a video of the test split; leave it out of training"
        return Problem(file, f"dialogue {index}{name}", message, True)
    return None


def _check_whole(video_id: str, value: Any) -> None:
    """Check a video apart from its single events."""
    times, sentences = (value.get(n) if isinstance(value, Mapping) else None for n in ("timestamps", "sentences"))
    if not isinstance(times, list) or not isinstance(sentences, list) or len(times) != len(sentences):
        Annotation.from_official(video_id, value)  # raises the error
    Annotation.from_official(video_id, {**value, "timestamps": [], "sentences": []})
