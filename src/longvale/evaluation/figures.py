"""The pictures of the report: timelines of a video's events, and training curves.

Events are numbered (predicted ones P1, P2, ...); their captions, texts of a data set, stand in a picture only where
they are asked for, and are shown as they are.
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ..events import Annotation, Event, Seconds
from ..plotting import LANES, LINE_STYLES, PREDICTED, REFERENCE, WIDTH_IN, Style, frame, svg_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

#: An event and the number that stands on it.
Numbered: TypeAlias = tuple[str, Event]

_ROW_IN, _CAPTION_ROW_IN = 0.26, 0.18
#: Characters of a caption that fit into the width of a picture, beside a second column of captions or alone.
_CAPTION_CHARACTERS = {2: 68, 1: 140}


def timeline_figure(
    annotation: Annotation,
    dense: Sequence[Event] | None = None,
    grounding: Mapping[int, Event | None] | None = None,
    captions: bool = False,
) -> Figure:
    """Reference and predicted events of a video over its seconds.

    Args:
        annotation: the reference. Events whose modalities are known lie in the lanes seen, heard, said, in each that
            they can be perceived in; else in one lane.
        dense: the events of the dense captioning answer; None draws no lane for them.
        grounding: the event that each grounding answer names, by the event asked about, None where it names none. It
            is drawn below, a row a question.
        captions: list them below by number, cut to the width of the picture.

    Returns:
        A figure whose events bear their number from 1: that of `annotation`, or after a P that of `dense`.
    """
    from matplotlib.figure import Figure

    lanes = _reference_lanes(annotation.events) if annotation.events or not dense else []
    if dense is not None:
        lanes.append((PREDICTED, _numbered(dense, "P")))
    stacks = [_stack(numbered) for _, numbered in lanes]
    rows = sum(max(len(stack), 1) for stack in stacks)
    heights = [rows, len(grounding)] if grounding else [rows]
    lists = [lane for lane in (_numbered(annotation.events), _numbered(dense or (), "P")) if lane] if captions else []
    listed_in = _CAPTION_ROW_IN * (max(map(len, lists), default=-1) + 1)
    height_in = _ROW_IN * sum(heights) + 0.55 * len(heights) + 0.25
    whole = Figure(figsize=(WIDTH_IN, height_in + listed_in), layout="constrained")
    figure, *below = whole.subfigures(2, 1, height_ratios=(height_in, listed_in)) if lists else [whole]
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    _draw_lanes(axes[0], [style for style, _ in lanes], stacks, annotation.duration)
    if grounding:
        _draw_grounding(axes[1], annotation, grounding)
    axes[-1].set_xlabel("seconds")
    if lists:
        _list_captions(below[0], lists)
    return whole


def curves_figure(curves: Sequence[Mapping[str, Any]]) -> Figure:
    """Training losses over steps.

    Args:
        curves: each with `name`, `steps` and `loss`, two lists of the same length.

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
    """A figure as a `data:` URI: the same bytes for the same figure, and nothing in it can run or load."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg_bytes(figure)).decode()


def _reference_lanes(events: Sequence[Event]) -> list[tuple[Style, list[Numbered]]]:
    numbered = _numbered(events)
    lanes = [(style, [(n, e) for n, e in numbered if modality in e.modalities]) for modality, style in LANES.items()]
    unknown = [(number, event) for number, event in numbered if not event.modalities]
    if len(unknown) == len(events):
        lanes = []
    return lanes + ([(REFERENCE, unknown)] if unknown or not lanes else [])


def _numbered(events: Sequence[Event], prefix: str = "") -> list[Numbered]:
    return [(f"{prefix}{number}", event) for number, event in enumerate(events, start=1)]


def _list_captions(figure: SubFigure, lists: Sequence[Sequence[Numbered]]) -> None:
    """Captions by number, a column a list."""
    limit = _CAPTION_CHARACTERS[len(lists)]
    for axes, numbered in zip(figure.subplots(1, len(lists), squeeze=False)[0], lists, strict=True):
        for row, (number, event) in enumerate(numbered):
            words = "".join(c if c.isprintable() else " " for c in event.caption).split()
            text = f"{event.start:.1f}-{event.end:.1f} s  {' '.join(words)}"
            axes.text(0, row, number, fontsize=7, va="center", weight="bold")
            line = textwrap.shorten(text, limit, placeholder=" ...")
            axes.text(0.03 * len(lists), row, line, fontsize=7, va="center", parse_math=False)
        axes.set(xlim=(0, 1), ylim=(max(map(len, lists)) - 0.5, -0.5))
        axes.set_axis_off()


def _stack(numbered: Sequence[Numbered]) -> list[list[Numbered]]:
    """Rows in which no two events overlap, each event in the first row that has room."""
    rows: list[list[Numbered]] = []
    for number, event in sorted(numbered, key=lambda item: item[1].start):
        row = next((row for row in rows if row[-1][1].end <= event.start), None)
        if row is None:
            rows.append([(number, event)])
        else:
            row.append((number, event))
    return rows


def _draw_lanes(
    axes: Axes,
    styles: Sequence[Style],
    stacks: Sequence[Sequence[Sequence[Numbered]]],
    duration: Seconds,
) -> None:
    y, ticks = 0, []
    for (_, colour, hatch), stack in zip(styles, stacks, strict=True):
        height = max(len(stack), 1)
        ticks.append(y + (height - 1) / 2)
        for offset, row in enumerate(stack):
            for number, event in row:
                _bar(axes, event, y + offset, 0.8, colour, hatch)
                _number(axes, event, y + offset, number)
        y += height
        if (colour, hatch) != styles[-1][1:]:
            axes.axhline(y - 0.5, color="#DDDDDD", linewidth=0.8)
    axes.set_yticks(ticks, [name for name, _, _ in styles])
    _frame(axes, y, duration, "events")


def _draw_grounding(axes: Axes, annotation: Annotation, grounding: Mapping[int, Event | None]) -> None:
    for row, (index, found) in enumerate(grounding.items()):
        _bar(axes, annotation.events[index], row - 0.2, 0.4, REFERENCE[1], REFERENCE[2])
        if found is None:
            axes.text(0, row + 0.22, " no interval named", va="center", fontsize=7)
        else:
            _bar(axes, found, row + 0.2, 0.4, PREDICTED[1], PREDICTED[2])
    axes.set_yticks(range(len(grounding)), [str(index + 1) for index in grounding])
    _frame(axes, len(grounding), annotation.duration, "grounding: reference (grey) above, predicted (hatched) below")


def _bar(axes: Axes, event: Event, y: float, height: float, colour: str, hatch: str) -> None:
    axes.barh(y, event.length, height, left=event.start, color=colour, hatch=hatch, edgecolor="black", linewidth=0.8)


def _number(axes: Axes, event: Event, y: float, number: str) -> None:
    box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"}
    x = event.start + event.length / 2
    axes.text(x, y, number, ha="center", va="center", fontsize=7, bbox=box, clip_on=True)


def _frame(axes: Axes, rows: int, duration: Seconds, title: str) -> None:
    frame(axes, title)
    axes.set(xlim=(0, duration), ylim=(rows - 0.5, -0.5))
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelbottom=True)
    axes.spines["left"].set_visible(False)
