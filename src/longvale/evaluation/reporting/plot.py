"""Timeline plots of one video: its annotation and a model's answers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...data.statistics import read_splits
from ...events import Annotation, Event
from ...plotting.style import STRIP_FRAMES, save_figure
from ...plotting.timeline import Answered, TrackLane, timeline_figure
from ...system.names import look_up, spellings
from ...tasks import Prediction, load_predictions
from ...timecodes import Span

if TYPE_CHECKING:
    import numpy as np

    from ..ask import Answer

T = TypeVar("T")

#: Shorter side of the film strip's frames in pixels.
_STRIP_SIZE = 96


def plot_video(
    video_id: str,
    data: str | os.PathLike,
    output: str | os.PathLike,
    predictions: str | os.PathLike | None = None,
    video: str | os.PathLike | None = None,
    tracks: Sequence[TrackLane] = (),
) -> list[Path]:
    """Draw the timeline of one video.

    Args:
        video_id: ID of the video in the annotations.
        data: folder with official annotation files, or one such file.
        output: name of the image files, see [`longvale.plotting.style.save_figure`].
        predictions: prediction log; answers about the video are drawn together with the annotation.
        video: video file for a film strip above; None omits it.
        tracks: lanes of what was found over the whole video.

    Returns:
        The paths of the PNG and of the SVG.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the annotations do not contain the video, or the log contains no answer about it.
    """
    annotation = find_video(video_id, data)
    answered = None
    if predictions is not None:
        answers = [p for p in load_predictions(predictions) if p.video_id in spellings(video_id)]
        if not answers:
            raise ValueError(f"{predictions}: holds no answer about video {video_id!r}")
        answered = read_answers(annotation, answers)
    frames = None if video is None else strip_frames(video)
    figure = timeline_figure(annotation, answered, captions=True, frames=frames, tracks=tracks, title=video_id)
    return save_figure(figure, output)


def strip_frames(video: str | os.PathLike) -> np.ndarray | None:
    """Read the frames of a video's film strip: uint8 [16, H, W, 3]; None for files with audio only.

    Raises:
        FileNotFoundError, ValueError: as in [`longvale.models.media.read_media`].
    """
    from ...models.media import read_media

    return read_media(video, num_frames=STRIP_FRAMES, size=_STRIP_SIZE, max_duration_s=None).frames


def plot_answer(answer: Answer, output: str | os.PathLike) -> list[Path]:
    """Draw the events of an answer on the video's timeline.

    Args:
        answer: result of [`longvale.evaluation.ask.ask`].
        output: name of the image files, see [`longvale.plotting.style.save_figure`].

    Returns:
        The paths of the PNG and of the SVG.

    Raises:
        ValueError: if the answer contains no event.
    """
    if not answer.events:
        raise ValueError(f"the answer names no event, so there is nothing to draw: {' '.join(answer.text.split())!r}")
    answered = Answered(answer.events)
    return save_figure(timeline_figure(Annotation("video", answer.duration), answered, captions=True), output)


def find_video(video_id: str, data: str | os.PathLike) -> Annotation:
    """Return the annotation of a video in any split.

    Raises:
        ValueError: if there is none; the message suggests similar IDs.
    """
    known = {video.video_id: video for videos in read_splits(data).values() for video in videos}
    return pick_video(known, video_id, data)


def pick_video(known: Mapping[str, T], video_id: str, place: str | os.PathLike) -> T:
    """Return the value of a video by its ID.

    Raises:
        ValueError: if there is none; the message suggests similar IDs.

    Example:
        >>> pick_video({"v10": 1}, "v1", "a.json")
        Traceback (most recent call last):
        ValueError: a.json: no video 'v1'; did you mean 'v10'?
    """
    value = look_up(known, video_id)
    if value is None:
        near = get_close_matches(video_id, known, n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
        hint = hint or (f"it knows {next(iter(known))!r}, for instance" if known else "it knows none")
        raise ValueError(f"{place}: no video {video_id!r}; {hint}")
    return value


def read_answers(annotation: Annotation, answers: Sequence[Prediction]) -> Answered:
    """Return the events in the answers about a video, in seconds.

    Args:
        annotation: annotation of the video.
        answers: answers about the video, of any task; grounding answers about events that the annotation does not have
            are left out.
    """
    dense, grounding = None, {}
    for answer in answers:
        found: Any = answer.parse()
        if answer.task == "dense_captioning":
            dense = [_event(span, annotation) for span in found]
        elif answer.task == "grounding" and answer.sentence_id in range(len(annotation.events)):
            grounding[answer.sentence_id] = found and _event(found, annotation)
    return Answered(dense, dict(sorted(grounding.items())))


def _event(span: Span, annotation: Annotation) -> Event:
    return Event(*span.seconds(annotation.duration), span.caption)
