"""Figures of the reports: timelines of a video's events, scores by groups, and training curves.

Events are numbered (predicted ones P1, P2, ...). Captions are drawn only on request, as plain text without math markup.
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ...events import Annotation, Event, Modality, Seconds
from ...plotting import LANES, LINE_STYLES, PREDICTED, REFERENCE, WIDTH_IN, Style, film_strip, frame, svg_bytes

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from ..scoring.runs import Mean

#: Color and hatching of the bars and marker of the points, per run. All styles differ, also without color.
_RUN_STYLES = (
    ("#FFFFFF", "\\\\\\\\", "o"),
    ("#0072B2", "", "s"),
    ("#E69F00", "xxxx", "^"),
    ("#CC79A7", "----", "D"),
    ("#009E73", "oo", "v"),
    ("#F0E442", "++++", "P"),
)

#: An event and the number on its bar, which may be empty.
Numbered: TypeAlias = tuple[str, Event]

_ROW_IN, _CAPTION_ROW_IN, _STRIP_IN = 0.26, 0.18, 0.62
#: Width of the axes, of a character of a number and of the padding around the number.
_AXES_IN, _CHARACTER_IN, _PADDING_IN = 8.0, 0.065, 0.06
#: Maximum caption length in characters, by number of caption columns.
_CAPTION_CHARACTERS = {2: 68, 1: 140}
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


def timeline_figure(
    annotation: Annotation,
    dense: Sequence[Event] | None = None,
    grounding: Mapping[int, Event | None] | None = None,
    captions: bool = False,
    *,
    pictures: np.ndarray | None = None,
    boundaries: Boundaries | None = None,
    title: str = "events",
) -> Figure:
    """Draw the reference and predicted events of a video on a time axis in seconds.

    Args:
        annotation: the reference. Events with modalities are drawn in the lanes seen, heard and said, one per modality;
            events without modalities in one lane.
        dense: events of the dense captioning answer; None omits their lane.
        grounding: predicted event per grounding question, by index of the reference event; None if the answer has no
            interval. Drawn below, one row per question.
        captions: list the captions below by number, cut to the width of the figure.
        pictures: frames, uint8 [n, H, W, 3], evenly spaced over the video, for a film strip above.
        boundaries: segments of each modality, for the lanes seen, heard and said. The events formed from them are drawn
            in a lane below.
        title: title above the events.

    Returns:
        A figure with events numbered from 1; events of `dense` have the prefix P.
    """
    from matplotlib.figure import Figure

    if boundaries is not None:
        lanes = _boundary_lanes(boundaries, annotation.events)
    else:
        lanes = _reference_lanes(annotation.events) if annotation.events or not dense else []
    if dense is not None:
        lanes.append((PREDICTED, _numbered(dense, "P")))
    stacks = [_stack(numbered, annotation.duration) for _, numbered in lanes]
    rows = sum(max(len(stack), 1) for stack in stacks)
    heights = [rows, len(grounding)] if grounding else [rows]
    if pictures is not None:
        heights = [_STRIP_IN / _ROW_IN, *heights]
    lists = _caption_columns(_numbered(annotation.events), _numbered(dense or (), "P")) if captions else []
    listed_in = _CAPTION_ROW_IN * (max(map(len, lists), default=-1) + 1)
    height_in = _height_in(heights)
    whole = Figure(figsize=(WIDTH_IN, height_in + listed_in), layout="constrained")
    figure, *below = whole.subfigures(2, 1, height_ratios=(height_in, listed_in)) if lists else [whole]
    strip, *axes = _stacked_axes(figure, heights) if pictures is not None else (None, *_stacked_axes(figure, heights))
    if pictures is not None:
        film_strip(strip, pictures, annotation.duration)
    _draw_lanes(axes[0], [style for style, _ in lanes], stacks, annotation.duration, title)
    for second in boundaries.cuts if boundaries is not None else ():
        axes[0].axvline(second, ymin=0, ymax=1, color="black", linewidth=0.6, linestyle=(0, (1, 2)), zorder=3)
    if grounding:
        _draw_grounding(axes[1], annotation, {"predicted": grounding}, [PREDICTED])
        above = "grounding: reference (grey) above, predicted (hatched) below"
        _frame(axes[1], len(grounding), annotation.duration, above)
    axes[-1].set_xlabel("seconds")
    if lists:
        _list_captions(below[0], lists)
    return whole


def runs_figure(
    annotation: Annotation,
    dense: Mapping[str, Sequence[Event]],
    grounding: Mapping[str, Mapping[int, Event | None]],
) -> Figure:
    """Draw the reference events of a video and the predicted events of several runs.

    Args:
        annotation: the reference, drawn as in [`timeline_figure`].
        dense: events of each run's dense captioning answer, by the run's letter; empty if the task was not asked.
        grounding: per run, the predicted event per grounding question, by index of the reference event; None if the
            answer has no interval. Empty if the task was not asked.

    Returns:
        A figure with one lane per run and, below, one row per grounding question with one bar per run.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    styles = {letter: (letter, *_run_style(letter)[:2]) for letter in {**dense, **grounding}}
    lanes = _reference_lanes(annotation.events)
    for letter, events in dense.items():
        lanes.append((styles[letter], [(f"{letter}{number}", event) for number, event in enumerate(events, start=1)]))
    stacks = [_stack(numbered, annotation.duration) for _, numbered in lanes]
    asked = list(dict.fromkeys(index for found in grounding.values() for index in found))
    rows = sum(max(len(stack), 1) for stack in stacks)
    row_height = (1 + len(grounding)) / 2
    heights = [rows, len(asked) * row_height] if asked else [rows]
    figure = Figure(figsize=(WIDTH_IN, _height_in(heights)), layout="constrained")
    axes = _stacked_axes(figure, heights)
    _draw_lanes(axes[0], [style for style, _ in lanes], stacks, annotation.duration, "events")
    if asked:
        _draw_grounding(axes[1], annotation, grounding, [styles[letter] for letter in grounding])
        _frame(axes[1], len(asked), annotation.duration, "grounding: the runs below the reference")
        keys = [
            Patch(facecolor=colour, hatch=hatch, edgecolor="black", label=name)
            for name, colour, hatch in (REFERENCE, *(styles[letter] for letter in grounding))
        ]
        axes[1].legend(
            handles=keys, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(keys), frameon=False, fontsize=8
        )
    axes[-1].set_xlabel("seconds")
    return figure


def means_figure(score: str, panels: Mapping[str, Mapping[str, Mapping[str, Mean]]]) -> Figure:
    """Draw scores by groups of questions: one panel per property, one row per group, one point and interval per run.

    Args:
        score: name of the score, shown times 100.
        panels: means by property, group label and letter of the run.
    """
    from matplotlib.figure import Figure

    columns = 2 if len(panels) > 1 else 1
    names = [list(panels)[place : place + columns] for place in range(0, len(panels), columns)]
    heights = [max(len(panels[name]) for name in row) for row in names]
    figure = Figure(figsize=(WIDTH_IN, sum(0.34 * height + 0.75 for height in heights)), layout="constrained")
    grid = figure.subplots(len(names), columns, squeeze=False, sharex=True, height_ratios=heights)
    for axes, name in zip(grid.flat, panels, strict=False):
        _draw_means(axes, panels[name])
        axes.set_title(name, loc="left", fontsize=9)
        axes.set_xlabel(f"{score} x 100")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    grid.flat[0].set_xlim(0, None)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False)
    return figure


def curves_figure(curves: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw training losses over steps.

    Args:
        curves: curves, each with `name` and the lists `steps` and `loss` of the same length.

    Raises:
        ValueError: if a curve's lists differ in length.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, 3.0), layout="constrained")
    axes = figure.subplots()
    for index, curve in enumerate(curves):
        if len(curve["steps"]) != len(curve["loss"]):
            raise ValueError(
                f"curve {curve['name']!r}: {len(curve['steps'])} steps but {len(curve['loss'])} losses; give both"
            )
        colour, line = LINE_STYLES[index % len(LINE_STYLES)]
        axes.plot(curve["steps"], curve["loss"], color=colour, linestyle=line, label=str(curve["name"]))
    axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
    frame(axes, "", "both")
    for text in axes.legend(frameon=False).get_texts():
        text.set_parse_math(False)
    return figure


def svg_uri(figure: Figure) -> str:
    """Encode a figure as an SVG `data:` URI: deterministic, without scripts or external resources."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg_bytes(figure)).decode()


def _run_style(letter: str) -> tuple[str, str, str]:
    """Return the color, hatching and marker of a run by its letter, starting at A."""
    return _RUN_STYLES[ord(letter) - ord("A")]


def _reference_lanes(events: Sequence[Event]) -> list[tuple[Style, list[Numbered]]]:
    numbered = _numbered(events)
    lanes = [(style, [(n, e) for n, e in numbered if modality in e.modalities]) for modality, style in LANES.items()]
    unknown = [(number, event) for number, event in numbered if not event.modalities]
    if len(unknown) == len(events):
        lanes = []
    return lanes + ([(REFERENCE, unknown)] if unknown or not lanes else [])


def _boundary_lanes(boundaries: Boundaries, events: Sequence[Event]) -> list[tuple[Style, list[Numbered]]]:
    lanes = [
        (style, [("", Event(start, end, "")) for start, end in boundaries.spans.get(modality, ())])
        for modality, style in LANES.items()
    ]
    return [*lanes, (("events", *REFERENCE[1:]), _numbered(events))]


def _numbered(events: Sequence[Event], prefix: str = "") -> list[Numbered]:
    return [(f"{prefix}{number}", event) for number, event in enumerate(events, start=1)]


def _caption_columns(*lists: Sequence[Numbered]) -> list[Sequence[Numbered]]:
    """Return one column per non-empty list; a long single list is split into two columns."""
    columns = [numbered for numbered in lists if numbered]
    if len(columns) == 1 and len(columns[0]) > _LONG_LIST:
        half = (len(columns[0]) + 1) // 2
        columns = [columns[0][:half], columns[0][half:]]
    return columns


def _list_captions(figure: SubFigure, lists: Sequence[Sequence[Numbered]]) -> None:
    """Draw captions with their numbers, one column per list."""
    limit = _CAPTION_CHARACTERS[len(lists)]
    for axes, numbered in zip(figure.subplots(1, len(lists), squeeze=False)[0], lists, strict=True):
        for row, (number, event) in enumerate(numbered):
            words = "".join(c if c.isprintable() else " " for c in event.caption).split()
            perceived = ", ".join(LANES[modality][0] for modality in event.modalities)
            text = f"{event.start:.1f}-{event.end:.1f} s  {' '.join(words)}{f'  ({perceived})' if perceived else ''}"
            axes.text(0, row, number, fontsize=7, va="center", weight="bold")
            line = textwrap.shorten(text, limit, placeholder=" ...")
            axes.text(0.03 * len(lists), row, line, fontsize=7, va="center", parse_math=False)
        axes.set(xlim=(0, 1), ylim=(max(map(len, lists)) - 0.5, -0.5))
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
            axes.axhline(y - 0.5, color="#DDDDDD", linewidth=0.8)
    axes.set_yticks(ticks, [name for name, _, _ in styles])
    _frame(axes, y, duration, title)


def _height_in(heights: Sequence[float]) -> float:
    """Return the total height of stacked axes in inches, given their numbers of rows."""
    return _ROW_IN * sum(heights) + 0.55 * len(heights) + 0.25


def _stacked_axes(figure: Figure | SubFigure, heights: Sequence[float]) -> Sequence[Axes]:
    """Create stacked axes with a shared time axis, given their numbers of rows."""
    return figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]


def _draw_grounding(
    axes: Axes,
    annotation: Annotation,
    grounding: Mapping[str, Mapping[int, Event | None]],
    styles: Sequence[Style],
) -> None:
    """Draw one row per question with the reference and one bar per entry of `grounding`."""
    asked = list(dict.fromkeys(index for found in grounding.values() for index in found))
    height = 0.8 / (1 + len(grounding))
    for row, index in enumerate(asked):
        y = row - 0.4 + height / 2
        _bar(axes, annotation.events[index], y, height, REFERENCE[1], REFERENCE[2])
        for (_, colour, hatch), found in zip(styles, grounding.values(), strict=True):
            y += height
            if found.get(index) is not None:
                _bar(axes, found[index], y, height, colour, hatch)
            elif index in found:
                axes.text(0, y, " no interval named", va="center", fontsize=7)
    axes.set_yticks(range(len(asked)), [str(index + 1) for index in asked])


def _draw_means(axes: Axes, groups: Mapping[str, Mapping[str, Mean]]) -> None:
    letters = list(next(iter(groups.values())))
    for place, letter in enumerate(letters):
        colour, _, marker = _run_style(letter)
        offset = 0.6 * ((place + 0.5) / len(letters) - 0.5)
        for row, means in enumerate(groups.values()):
            mean, y = means[letter], row + offset
            if mean.low is not None:
                axes.plot([100 * mean.low, 100 * mean.high], [y, y], color="black", linewidth=1)
            label = letter if row == 0 else None
            axes.plot(
                [100 * mean.value],
                [y],
                marker,
                markerfacecolor=colour,
                markeredgecolor="black",
                markersize=5,
                label=label,
            )
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.tick_params(axis="x", labelbottom=True)
    axes.grid(axis="x", color="#EEEEEE")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _bar(axes: Axes, event: Event, y: float, height: float, colour: str, hatch: str) -> None:
    axes.barh(y, event.length, height, left=event.start, color=colour, hatch=hatch, edgecolor="black", linewidth=0.8)


def _number(axes: Axes, x: Seconds, y: float, number: str) -> None:
    box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"}
    axes.text(x, y, number, ha="center", va="center", fontsize=7, bbox=box, clip_on=True)


def _frame(axes: Axes, rows: int, duration: Seconds, title: str) -> None:
    frame(axes, title)
    axes.set(xlim=(0, duration), ylim=(rows - 0.5, -0.5))
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelbottom=True)
    axes.spines["left"].set_visible(False)
