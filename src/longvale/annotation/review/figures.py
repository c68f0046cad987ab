"""Figures of the annotation: the admission funnel, and a video's film strip with its boundaries."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...evaluation.reporting.plot import pick_video, plot_video, strip_frames
from ...events import MODALITIES, Annotation, Event, Seconds
from ...io import atomic_write
from ...plotting.charts import draw_bars
from ...plotting.style import WIDTH_IN, png_bytes, save_figure, style_axes
from ...plotting.timeline import Boundaries, TrackLane, timeline_figure
from ...system.names import look_up
from ..filters import Rejection, funnel
from .results import load_annotated, load_tracks

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure


#: Most sounds, and most speakers, that have a lane.
_MOST_LANES = 6


def funnel_figure(rejections: Mapping[str, Sequence[Rejection]]) -> Figure:
    """Draw how many videos are left after each filter.

    Args:
        rejections: rejections by video id; empty for admitted videos.
    """
    from matplotlib.figure import Figure

    rows = [("all", len(rejections), 0), *funnel(rejections)]
    figure = Figure(figsize=(WIDTH_IN, 0.35 * len(rows) + 0.8), layout="constrained")
    axes = figure.subplots()
    draw_bars(axes, [[left for _, left, _ in rows]], [name for name, _, _ in rows], sideways=True)
    labels = [f" {left}" + (f"  (-: {against})" if against else "") for _, left, against in rows]
    axes.bar_label(axes.containers[0], labels, fontsize=8)
    axes.set(xlim=(0, max(1, len(rejections)) * 1.15), xlabel="videos left; in brackets those a filter speaks against")
    style_axes(axes, "")
    return figure


def boundaries_figure(found: Mapping[str, Any], frames: np.ndarray | None) -> Figure:
    """Draw a video's film strip, the segments of each modality alone, and the events made from them, over time.

    Args:
        found: a record of `boundaries.jsonl`.
        frames: uint8 [n, H, W, 3], frames of the film strip; None to draw none.
    """
    events = tuple(Event(start, end, "") for start, end in found["events"])
    return timeline_figure(
        Annotation(found["video_id"], found["duration"], events),
        frames=frames,
        boundaries=Boundaries({modality: found[modality] for modality in MODALITIES}, found["cuts"]),
        title=_title(found["video_id"], found["cuts"]),
    )


def plot_annotated(
    video_id: str, folder: str | os.PathLike, output: str | os.PathLike, video: str | os.PathLike | None = None
) -> list[Path]:
    """Draw the results of `longvale annotate` for a video: film strip, boundaries per modality, events with captions.

    Args:
        video_id: id of the video.
        folder: stage folder, such as `annotations.stages`.
        output: name of the figure files, see [`longvale.plotting.style.save_figure`].
        video: video file, for the film strip; None draws none.

    Returns:
        The paths of the PNG and of the SVG.

    Raises:
        FileNotFoundError: if the folder contains no stages, or the video is missing.
        ValueError: if the stages do not contain the video, or a file is damaged.
    """
    found = pick_video(load_annotated(folder), video_id, folder)
    frames = None if video is None else strip_frames(video)
    boundaries = Boundaries(found.boundaries, found.cuts)
    return save_figure(
        timeline_figure(
            found.annotation,
            captions=True,
            frames=frames,
            boundaries=boundaries,
            tracks=track_lanes(found.tracks),
            title=_title(video_id, found.cuts),
        ),
        output,
    )


def plot_with_tracks(
    video_id: str,
    annotations: str | os.PathLike,
    output: str | os.PathLike,
    predictions: str | os.PathLike | None = None,
    video: str | os.PathLike | None = None,
) -> list[Path]:
    """Draw annotations that `longvale annotate` wrote: events by modality, and the tracks in the stages beside them.

    Args:
        annotations: file of annotations; without stages beside it, no tracks are drawn.

    Other arguments, results and errors are those of [`longvale.evaluation.reporting.plot.plot_video`].
    """
    tracks = load_tracks(Path(annotations).with_suffix(".stages")) if Path(annotations).is_file() else {}
    lanes = track_lanes(look_up(tracks, video_id) or {})
    return plot_video(video_id, annotations, output, predictions, video, lanes)


def track_lanes(tracks: Mapping[str, Sequence[tuple[Seconds, Seconds, str]]]) -> list[TrackLane]:
    """Return the lanes of tracks: text on screen, the sounds and the speakers with the most time, one lane each.

    Args:
        tracks: start, end and text of each span, by track.

    Example:
        >>> found = {"text": [(0, 5, "THE END")], "sounds": [(0, 2, "Dog"), (1, 9, "Music")], "transcript": []}
        >>> [(lane.name, lane.modality) for lane in track_lanes(found)]
        [('text', 'visual'), ('Music', 'audio'), ('Dog', 'audio')]
    """
    text = _events_of(tracks.get("text", ()))
    lanes = [TrackLane("text", "visual", text, listed=True)] if text else []
    for track, modality in (("sounds", "audio"), ("speakers", "speech")):
        by_name: dict[str, list[Event]] = {}
        for event in _events_of(tracks.get(track, ())):
            by_name.setdefault(event.caption, []).append(event)
        ranked = sorted(by_name, key=lambda name: (-sum(event.length for event in by_name[name]), name))[:_MOST_LANES]
        if track == "speakers":  # in the order in which they first speak
            ranked.sort(key=lambda name: by_name[name][0].start)
        lanes += [TrackLane(name, modality, by_name[name]) for name in ranked]
    return lanes


def _events_of(spans: Sequence[tuple[Seconds, Seconds, str]]) -> list[Event]:
    return [Event(start, end, text) for start, end, text in spans if end > start]


def _title(video_id: str, cuts: Sequence[Seconds]) -> str:
    return f"{video_id} (dotted: hard cuts)" if cuts else video_id


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG atomically, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as file:
        file.write(png_bytes(figure))
