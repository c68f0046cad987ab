"""Timelines of one video: lanes of events on a time axis in seconds, with film strip, boundaries, answers and captions.

Events are numbered (those of answers after a letter). Captions are drawn only on request, as plain text without math
markup.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ..events import Annotation, Event, Modality, Seconds
from .style import GRID, LANES, PREDICTED, REFERENCE, RUN_STYLES, WIDTH_IN, Style, film_strip, style_axes

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

#: An event and the number on its bar, which may be empty.
Numbered: TypeAlias = tuple[str, Event]
#: A style, and the events drawn in it.
Lane: TypeAlias = tuple[Style, list[Numbered]]
#: A number, and the lines of its caption.
Listed: TypeAlias = tuple[str, list[str]]

_ROW_IN, _CAPTION_ROW_IN, _STRIP_IN = 0.26, 0.18, 0.62
#: Width of the axes, of a character of a number and of the padding around the number.
_AXES_IN, _CHARACTER_IN, _PADDING_IN = 8.0, 0.065, 0.06
#: Maximum length of a line of a caption in characters, which several columns divide among them, and number of lines.
_CAPTION_CHARACTERS, _CAPTION_LINES = 136, 3
#: How much wider than other characters a capital is.
_EXTRA_WIDTH = 0.6
#: Maximum length of the name of a lane in characters.
_LANE_CHARACTERS = 18
#: Opacity of the lanes of tracks, the last two digits of a colour.
_TRACK_ALPHA = "66"
#: A single list with more captions than this is split into two columns.
_LONG_LIST = 16


@dataclass(frozen=True)
class Boundaries:
    """The segments of each modality.

    Args:
        spans: (start, end) in seconds by modality.
        cuts: times of the hard cuts in seconds, drawn as dotted lines.
    """

    spans: Mapping[Modality, Sequence[Sequence[Seconds]]]
    cuts: Sequence[Seconds] = ()


@dataclass(frozen=True)
class TrackLane:
    """What a model found over a whole video, drawn under the lane of its modality.

    Args:
        name: name of the lane, such as "text", "Music" or "speaker 1"; cut if it is long.
        modality: modality, whose colour and hatching the lane has.
        events: what was found; captions are listed below the figure if `listed`.
        listed: number the events, and list their captions with those of the events.
    """

    name: str
    modality: Modality
    events: Sequence[Event]
    listed: bool = False


@dataclass(frozen=True)
class Answered:
    """The events that one model answered about a video.

    Args:
        dense: events of the dense captioning answer; None if it was not asked.
        grounding: predicted event per grounding question, by index of the reference event; None if the answer has no
            interval.
    """

    dense: Sequence[Event] | None = None
    grounding: Mapping[int, Event | None] = field(default_factory=dict)


def timeline_figure(
    annotation: Annotation,
    answers: Answered | Mapping[str, Answered] | None = None,
    captions: bool = False,
    *,
    frames: np.ndarray | None = None,
    boundaries: Boundaries | None = None,
    tracks: Sequence[TrackLane] = (),
    title: str = "events",
) -> Figure:
    """Draw the reference and predicted events of a video on a time axis in seconds.

    Args:
        annotation: the reference. Events with modalities are drawn in the lanes seen, heard and said, one per modality;
            events without modalities in one lane.
        answers: of one model, or of several runs by their letter, "A" to "F". Each gets a lane with the events of its
            dense captioning; below, there is one row per grounding question with one bar per model.
        captions: list the captions below by number, each in up to three lines.
        frames: uint8 [n, H, W, 3], evenly spaced over the video, for a film strip above.
        boundaries: segments of each modality, for the lanes seen, heard and said. The events formed from them are drawn
            in a lane below.
        tracks: lanes of what was found over the whole video, each under the lane of its modality.
        title: title above the events.

    Returns:
        A figure with events numbered from 1; those of answers have the prefix P, or the letter of their run, those of
        listed tracks the prefix t.

    Example:
        >>> video = Annotation("abc", 60.0, (Event(0, 20, "A bell rings."), Event(20, 60, "A dog barks.")))
        >>> figure = timeline_figure(video, Answered(dense=[Event(0, 18, "a bell")], grounding={0: Event(0, 15, "")}))
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['reference', 'predicted']
    """
    from matplotlib.figure import Figure

    alone = isinstance(answers, Answered)
    runs = {PREDICTED[0]: answers} if isinstance(answers, Answered) else answers or {}
    styles = {name: PREDICTED if alone else _run_style(name) for name in runs}
    predicted = {name: _numbered(run.dense, name[0].upper()) for name, run in runs.items() if run.dense is not None}
    lanes = [(styles[name], numbered) for name, numbered in predicted.items()]
    if boundaries is not None:
        lanes = _boundary_lanes(boundaries, annotation.events) + lanes
    elif annotation.events or not any(predicted.values()):
        lanes = _reference_lanes(annotation.events) + lanes
    listed = [numbered for lane in tracks if lane.listed and (numbered := _numbered(lane.events, "t"))]
    lanes = _with_tracks(lanes, tracks)
    stacks = [_stack(numbered, annotation.duration) for _, numbered in lanes]
    grounding = {name: run.grounding for name, run in runs.items() if run.grounding}
    asked = list(dict.fromkeys(index for found in grounding.values() for index in found))
    heights: list[float] = [sum(max(len(stack), 1) for stack in stacks)]
    heights += [len(asked) * (1 + len(grounding)) / 2] if asked else []
    heights[:0] = [_STRIP_IN / _ROW_IN] if frames is not None else []
    columns = _caption_columns(_numbered(annotation.events), *predicted.values(), *listed) if captions else []
    lists = [_caption_lines(numbered, _CAPTION_CHARACTERS // len(columns)) for numbered in columns]
    listed_in = _CAPTION_ROW_IN * (max((sum(len(lines) for _, lines in rows) for rows in lists), default=-1) + 1)
    titled = len(heights) - (frames is not None)  # the film strip has neither a title nor an axis
    height_in = _ROW_IN * sum(heights) + 0.55 * titled + 0.3
    whole = Figure(figsize=(WIDTH_IN, height_in + listed_in), layout="constrained")
    figure, below = _subfigures(whole, height_in, listed_in) if lists else (whole, None)
    axes = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
    if frames is not None:
        film_strip(axes.pop(0), frames, annotation.duration, aspect=_AXES_IN / len(frames) / _STRIP_IN)
    _draw_lanes(axes[0], [style for style, _ in lanes], stacks, annotation.duration, title)
    for second in boundaries.cuts if boundaries is not None else ():
        axes[0].axvline(second, ymin=0, ymax=1, color="black", linewidth=0.6, linestyle=(0, (1, 2)), zorder=3)
    if asked:
        _draw_grounding(axes[1], annotation, asked, [(styles[name], found) for name, found in grounding.items()])
        if not alone:
            _draw_keys(axes[1], [REFERENCE, *(styles[name] for name in grounding)])
    axes[-1].set_xlabel("seconds")
    if below is not None:
        _list_captions(below, lists)
    return whole


def _subfigures(figure: Figure, *heights_in: float) -> Any:
    return figure.subfigures(len(heights_in), 1, height_ratios=heights_in)


def _run_style(letter: str) -> Style:
    return (letter, *RUN_STYLES[ord(letter) - ord("A")][:2])


def _reference_lanes(events: Sequence[Event]) -> list[Lane]:
    numbered = _numbered(events)
    lanes = [(style, [(n, e) for n, e in numbered if modality in e.modalities]) for modality, style in LANES.items()]
    unknown = [(number, event) for number, event in numbered if not event.modalities]
    if len(unknown) == len(events):
        lanes = []
    return lanes + ([(REFERENCE, unknown)] if unknown or not lanes else [])


def _boundary_lanes(boundaries: Boundaries, events: Sequence[Event]) -> list[Lane]:
    lanes = [
        (style, [("", Event(start, end, "")) for start, end in boundaries.spans.get(modality, ())])
        for modality, style in LANES.items()
    ]
    return [*lanes, (("events", *REFERENCE[1:]), _numbered(events))]


def _with_tracks(lanes: Sequence[Lane], tracks: Sequence[TrackLane]) -> list[Lane]:
    """Return the lanes with those of tracks, each after the lane of its modality, or else at the end."""
    of_modality = {modality: [_track_lane(lane) for lane in tracks if lane.modality == modality] for modality in LANES}
    placed: list[Lane] = []
    for lane in lanes:
        placed.append(lane)
        for modality, style in LANES.items():
            if lane[0] == style:
                placed += of_modality.pop(modality, [])
    return placed + [lane for left in of_modality.values() for lane in left]


def _track_lane(lane: TrackLane) -> Lane:
    _, colour, hatch = LANES[lane.modality]
    printable = "".join(c if c.isprintable() else " " for c in lane.name)
    name = printable if len(printable) <= _LANE_CHARACTERS else printable[: _LANE_CHARACTERS - 3] + "..."
    numbered = _numbered(lane.events, "t") if lane.listed else [("", event) for event in lane.events]
    return (name, colour + _TRACK_ALPHA, hatch), numbered


def _numbered(events: Sequence[Event], prefix: str = "") -> list[Numbered]:
    return [(f"{prefix}{number}", event) for number, event in enumerate(events, start=1)]


def _caption_columns(*lists: Sequence[Numbered]) -> list[Sequence[Numbered]]:
    """Return one column per non-empty list; a long single list is split into two columns."""
    columns = [numbered for numbered in lists if numbered]
    if len(columns) == 1 and len(columns[0]) > _LONG_LIST:
        half = (len(columns[0]) + 1) // 2
        columns = [columns[0][:half], columns[0][half:]]
    return columns


def _caption_lines(numbered: Sequence[Numbered], limit: int) -> list[Listed]:
    """Return each number with the lines of its caption, of at most `limit` characters."""
    rows: list[Listed] = []
    for number, event in numbered:
        words = "".join(c if c.isprintable() else " " for c in event.caption).split()
        perceived = ", ".join(LANES[modality][0] for modality in event.modalities)
        text = f"{event.start:.1f}-{event.end:.1f} s {' '.join(words)}{f' ({perceived})' if perceived else ''}"
        wide = sum(c.isupper() or ord(c) > 0x2E7F for c in text)  # capitals, and characters of East Asian scripts
        width = round(limit / (1 + _EXTRA_WIDTH * wide / len(text)))
        rows.append((number, textwrap.wrap(text, width, max_lines=_CAPTION_LINES, placeholder=" ...")))
    return rows


def _list_captions(figure: SubFigure, lists: Sequence[Sequence[Listed]]) -> None:
    """Draw captions with their numbers, one column per list."""
    height = max(sum(len(lines) for _, lines in rows) for rows in lists)
    for axes, rows in zip(figure.subplots(1, len(lists), squeeze=False)[0], lists, strict=True):
        y = 0
        for number, lines in rows:
            axes.text(0, y, number, fontsize=7, va="center", weight="bold")
            for line in lines:
                axes.text(0.03 * len(lists), y, line, fontsize=7, va="center", parse_math=False)
                y += 1
        axes.set(xlim=(0, 1), ylim=(height - 0.5, -0.5))
        axes.set_axis_off()


def _stack(numbered: Sequence[Numbered], duration: Seconds) -> list[list[Numbered]]:
    """Assign each event to the first row in which no events or numbers overlap."""
    rows: list[list[Numbered]] = []
    for item in sorted(numbered, key=lambda item: item[1].start):
        start = _extent(item, duration)[0]
        row = next((row for row in rows if _extent(row[-1], duration)[1] <= start), None)
        if row is None:
            rows.append([item])
        else:
            row.append(item)
    return rows


def _extent(numbered: Numbered, duration: Seconds) -> tuple[Seconds, Seconds]:
    """Return the start and end of a bar including its number, in seconds."""
    number, event = numbered
    middle, half = _number_place(number, event, duration)
    return (min(event.start, middle - half), max(event.end, middle + half)) if number else (event.start, event.end)


def _number_place(number: str, event: Event, duration: Seconds) -> tuple[Seconds, Seconds]:
    """Return the center and half the width of an event's number, in seconds: on the bar, but inside the axes."""
    half = (len(number) * _CHARACTER_IN + _PADDING_IN) / 2 / _AXES_IN * duration
    return min(max(event.start + event.length / 2, half), max(duration - half, half)), half


def _draw_lanes(
    axes: Axes,
    styles: Sequence[Style],
    stacks: Sequence[Sequence[Sequence[Numbered]]],
    duration: Seconds,
    title: str,
) -> None:
    y, ticks = 0, []
    for (_, colour, hatch), stack in zip(styles, stacks, strict=True):
        height = max(len(stack), 1)
        ticks.append(y + (height - 1) / 2)
        for offset, row in enumerate(stack):
            for number, event in row:
                _bar(axes, event, y + offset, 0.8, colour, hatch)
                if number:
                    _number(axes, _number_place(number, event, duration)[0], y + offset, number)
        y += height
        if (colour, hatch) != styles[-1][1:]:
            axes.axhline(y - 0.5, color=GRID, linewidth=0.8)
    axes.set_yticks(ticks, [name for name, _, _ in styles])
    _frame(axes, y, duration, title)


def _draw_grounding(
    axes: Axes,
    annotation: Annotation,
    asked: Sequence[int],
    runs: Sequence[tuple[Style, Mapping[int, Event | None]]],
) -> None:
    """Draw one row per question with the reference and one bar per run."""
    height = 0.8 / (1 + len(runs))
    for row, index in enumerate(asked):
        y = row - 0.4 + height / 2
        _bar(axes, annotation.events[index], y, height, REFERENCE[1], REFERENCE[2])
        for (_, colour, hatch), found in runs:
            y += height
            event = found.get(index)
            if event is not None:
                _bar(axes, event, y, height, colour, hatch)
            elif index in found:
                axes.text(0, y, " no interval named", va="center", fontsize=7)
    axes.set_yticks(range(len(asked)), [str(index + 1) for index in asked])
    predicted = [style for style, _ in runs] == [PREDICTED]
    below = "reference (grey) above, predicted (hatched) below" if predicted else "the runs below the reference"
    _frame(axes, len(asked), annotation.duration, f"grounding: {below}")


def _draw_keys(axes: Axes, styles: Sequence[Style]) -> None:
    from matplotlib.patches import Patch

    keys = [Patch(facecolor=colour, hatch=hatch, edgecolor="black", label=name) for name, colour, hatch in styles]
    axes.legend(handles=keys, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(keys), frameon=False, fontsize=8)


def _bar(axes: Axes, event: Event, y: float, height: float, colour: str, hatch: str) -> None:
    axes.barh(y, event.length, height, left=event.start, color=colour, hatch=hatch, edgecolor="black", linewidth=0.8)


def _number(axes: Axes, x: Seconds, y: float, number: str) -> None:
    box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"}
    axes.text(x, y, number, ha="center", va="center", fontsize=7, bbox=box, clip_on=True)


def _frame(axes: Axes, rows: int, duration: Seconds, title: str) -> None:
    style_axes(axes, title)
    axes.set(xlim=(0, duration), ylim=(rows - 0.5, -0.5))
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelbottom=True)
    axes.spines["left"].set_visible(False)
