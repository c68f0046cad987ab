"""The pictures of the report: timelines of a video's events, and training curves.

No picture shows text from a data set: captions stand in the page, events are numbered (predicted ones P1, P2, ...).
Each lane has its place, colour (the colour-blind-safe ones of Okabe and Ito) and hatching, so that it can also be told
in black and white.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ..events import Annotation, Event, Seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .runs import Mean

#: Lane of each modality.
_LANES = {
    "visual": ("seen", "#56B4E9", ""),
    "audio": ("heard", "#E69F00", "///"),
    "speech": ("said", "#009E73", "..."),
}
_REFERENCE = ("reference", "#BBBBBB", "")
_PREDICTED = ("predicted", "#FFFFFF", "\\\\\\\\")
#: Of each run in turn: colour and hatching of its bars, mark of its points. With or without colour, no two are alike.
_RUN_STYLES = (
    ("#FFFFFF", "\\\\\\\\", "o"),
    ("#0072B2", "", "s"),
    ("#E69F00", "xxxx", "^"),
    ("#CC79A7", "----", "D"),
    ("#009E73", "oo", "v"),
    ("#F0E442", "++++", "P"),
)
_CURVE_STYLES = (("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":"))

#: Name, colour and hatching of a lane.
Style: TypeAlias = tuple[str, str, str]
#: An event and the number that stands on it.
Numbered: TypeAlias = tuple[str, Event]

_WIDTH_IN, _ROW_IN = 9.0, 0.26


def timeline_figure(
    annotation: Annotation,
    dense: Sequence[Event] | None = None,
    grounding: Mapping[int, Event | None] | None = None,
) -> Figure:
    """Reference and predicted events of a video over its seconds.

    Args:
        annotation: the reference. Events whose modalities are known lie in the lanes seen, heard, said, in each that
            they can be perceived in; else in one lane.
        dense: the events of the dense captioning answer; None draws no lane for them.
        grounding: the event that each grounding answer names, by the event asked about, None where it names none. It
            is drawn below, a row a question.

    Returns:
        A figure whose events bear their number from 1: that of `annotation`, or after a P that of `dense`.
    """

    lanes = _reference_lanes(annotation.events)
    if dense is not None:
        lanes.append((_PREDICTED, [(f"P{number}", event) for number, event in enumerate(dense, start=1)]))
    stacks = [_stack(numbered) for _, numbered in lanes]
    rows = sum(max(len(stack), 1) for stack in stacks)
    heights = [rows, len(grounding)] if grounding else [rows]
    figure, axes = _stacked_axes(heights)
    _draw_lanes(axes[0], [style for style, _ in lanes], stacks, annotation.duration)
    if grounding:
        _draw_grounding(axes[1], annotation, {"predicted": grounding}, [_PREDICTED])
        title = "grounding: reference (grey) above, predicted (hatched) below"
        _frame(axes[1], len(grounding), annotation.duration, title)
    axes[-1].set_xlabel("seconds")
    return figure


def runs_figure(
    annotation: Annotation,
    dense: Mapping[str, Sequence[Event]],
    grounding: Mapping[str, Mapping[int, Event | None]],
) -> Figure:
    """Reference events of a video and those that several runs predicted.

    Args:
        annotation: the reference, drawn as in [`timeline_figure`].
        dense: the events of each run's dense captioning answer by the run's letter; empty where that was not asked.
        grounding: of each run, the event that each grounding answer names, by the event asked about; None where it
            names none. Empty where that was not asked.

    Returns:
        A figure with a lane a run, and below it a row a grounding question with a bar a run.
    """
    from matplotlib.patches import Patch

    styles = {letter: (letter, *_run_style(letter)[:2]) for letter in {**dense, **grounding}}
    lanes = _reference_lanes(annotation.events)
    for letter, events in dense.items():
        lanes.append((styles[letter], [(f"{letter}{number}", event) for number, event in enumerate(events, start=1)]))
    stacks = [_stack(numbered) for _, numbered in lanes]
    asked = list(dict.fromkeys(index for found in grounding.values() for index in found))
    rows = sum(max(len(stack), 1) for stack in stacks)
    row_height = (1 + len(grounding)) / 2
    figure, axes = _stacked_axes([rows, len(asked) * row_height] if asked else [rows])
    _draw_lanes(axes[0], [style for style, _ in lanes], stacks, annotation.duration)
    if asked:
        _draw_grounding(axes[1], annotation, grounding, [styles[letter] for letter in grounding])
        _frame(axes[1], len(asked), annotation.duration, "grounding: the runs below the reference")
        keys = [
            Patch(facecolor=colour, hatch=hatch, edgecolor="black", label=name)
            for name, colour, hatch in (_REFERENCE, *(styles[letter] for letter in grounding))
        ]
        axes[1].legend(
            handles=keys, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(keys), frameon=False, fontsize=8
        )
    axes[-1].set_xlabel("seconds")
    return figure


def means_figure(score: str, panels: Mapping[str, Mapping[str, Mapping[str, Mean]]]) -> Figure:
    """Scores by groups of questions: a panel a property, a row a group, a point with its interval a run.

    Args:
        score: what is shown, times 100.
        panels: means by property, label of the group and letter of the run.
    """
    from matplotlib.figure import Figure

    columns = 2 if len(panels) > 1 else 1
    names = [list(panels)[place : place + columns] for place in range(0, len(panels), columns)]
    heights = [max(len(panels[name]) for name in row) for row in names]
    figure = Figure(figsize=(_WIDTH_IN, sum(0.34 * height + 0.75 for height in heights)), layout="constrained")
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
    """Training losses over steps.

    Args:
        curves: each with `name`, `steps` and `loss`, two lists of the same length.

    Raises:
        ValueError: if a curve's lists differ in length.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_IN, 3.0), layout="constrained")
    axes = figure.subplots()
    for index, curve in enumerate(curves):
        if len(curve["steps"]) != len(curve["loss"]):
            raise ValueError(
                f"curve {curve['name']!r}: {len(curve['steps'])} steps but {len(curve['loss'])} losses; give both"
            )
        colour, line = _CURVE_STYLES[index % len(_CURVE_STYLES)]
        axes.plot(curve["steps"], curve["loss"], color=colour, linestyle=line, label=str(curve["name"]))
    axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
    axes.grid(color="#DDDDDD")
    axes.spines[["top", "right"]].set_visible(False)
    for text in axes.legend(frameon=False).get_texts():
        text.set_parse_math(False)
    return figure


def svg_uri(figure: Figure) -> str:
    """A figure as a `data:` URI: the same bytes for the same figure, and nothing in it can run or load."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "longvale"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _run_style(letter: str) -> tuple[str, str, str]:
    """Colour, hatching and mark of a run, by its letter from A."""
    return _RUN_STYLES[ord(letter) - ord("A")]


def _reference_lanes(events: Sequence[Event]) -> list[tuple[Style, list[Numbered]]]:
    numbered = [(str(number), event) for number, event in enumerate(events, start=1)]
    lanes = [(style, [(n, e) for n, e in numbered if modality in e.modalities]) for modality, style in _LANES.items()]
    unknown = [(number, event) for number, event in numbered if not event.modalities]
    if len(unknown) == len(events):
        lanes = []
    return lanes + ([(_REFERENCE, unknown)] if unknown or not lanes else [])


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


def _stacked_axes(heights: Sequence[float]) -> tuple[Figure, Sequence[Axes]]:
    """Axes below each other over the same seconds, so many rows high each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_IN, _ROW_IN * sum(heights) + 0.55 * len(heights) + 0.25), layout="constrained")
    return figure, figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]


def _draw_grounding(
    axes: Axes,
    annotation: Annotation,
    grounding: Mapping[str, Mapping[int, Event | None]],
    styles: Sequence[Style],
) -> None:
    """A row a question, in it the reference and a bar for each of `grounding`."""
    asked = list(dict.fromkeys(index for found in grounding.values() for index in found))
    height = 0.8 / (1 + len(grounding))
    for row, index in enumerate(asked):
        y = row - 0.4 + height / 2
        _bar(axes, annotation.events[index], y, height, _REFERENCE[1], _REFERENCE[2])
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


def _number(axes: Axes, event: Event, y: float, number: str) -> None:
    box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"}
    x = event.start + event.length / 2
    axes.text(x, y, number, ha="center", va="center", fontsize=7, bbox=box, clip_on=True)


def _frame(axes: Axes, rows: int, duration: Seconds, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=9)
    axes.set(xlim=(0, duration), ylim=(rows - 0.5, -0.5))
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelbottom=True)
    axes.grid(axis="x", color="#EEEEEE")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
