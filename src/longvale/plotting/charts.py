"""Charts of numbers: lines, and groups of bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from .style import BAR_STYLES, LINE_STYLES, WIDTH_IN, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Name of a line, and its values on the two axes.
Line: TypeAlias = tuple[str, Sequence[float], Sequence[float]]


def line_figure(lines: Sequence[Line], *, x: str, y: str, title: str = "", height_in: float = 3.4) -> Figure:
    """Draw lines, which differ in colour and dashes.

    Args:
        lines: at most as many as [`longvale.plotting.style.LINE_STYLES`]; more repeat the styles.
        x, y: labels of the axes, with units.
        title: title of the chart.
        height_in: height of the figure in inches.

    Example:
        >>> (axes,) = line_figure([("a", [1, 2], [3.0, 2.0])], x="step", y="loss").axes
        >>> axes.get_xlabel(), [float(value) for value in axes.lines[0].get_ydata()]
        ('step', [3.0, 2.0])
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = figure.subplots()
    for place, (name, at, values) in enumerate(lines):
        colour, dashes = LINE_STYLES[place % len(LINE_STYLES)]
        axes.plot(at, values, color=colour, linestyle=dashes, label=name)
    axes.set(xlabel=x, ylabel=y)
    style_axes(axes, title, grid="both")
    for text in axes.legend(frameon=False, fontsize=8).get_texts():
        text.set_parse_math(False)
    return figure


def draw_bars(axes: Axes, series: Sequence[Sequence[float]], names: Sequence[str], *, sideways: bool = False) -> None:
    """Draw groups of bars: one group per name, in it one bar per series.

    Args:
        axes: of the chart; the caller sets labels, title and legend.
        series: one value per name; series differ in colour and hatching.
        names: of the groups.
        sideways: draw horizontal bars from top to bottom, for long names.
    """
    width = 0.8 / len(series)
    for index, (values, (colour, hatch)) in enumerate(zip(series, BAR_STYLES, strict=False)):
        places = [place + (index - (len(series) - 1) / 2) * width for place in range(len(names))]
        draw = axes.barh if sideways else axes.bar
        draw(places, values, width, color=colour, hatch=hatch, edgecolor="black", linewidth=0.8)
    if sideways:
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
    else:
        axes.set_xticks(range(len(names)), names)
