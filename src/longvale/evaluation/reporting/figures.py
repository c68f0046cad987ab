"""Figures of the reports: scores by groups of questions, and training curves."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...plotting.charts import line_figure
from ...plotting.style import RUN_STYLES, WIDTH_IN, style_axes, svg_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..scoring.runs import Mean


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
        axes.set_xlabel(f"{score} x 100")
        style_axes(axes, name)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelbottom=True)
        axes.spines["left"].set_visible(False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    grid.flat[0].set_xlim(0, None)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False)
    return figure


def _draw_means(axes: Axes, groups: Mapping[str, Mapping[str, Mean]]) -> None:
    letters = list(next(iter(groups.values())))
    for place, letter in enumerate(letters):
        colour, _, marker = RUN_STYLES[ord(letter) - ord("A")]
        offset = 0.6 * ((place + 0.5) / len(letters) - 0.5)
        for row, means in enumerate(groups.values()):
            mean, y = means[letter], row + offset
            if mean.low is not None and mean.high is not None:
                axes.plot([100 * mean.low, 100 * mean.high], [y, y], color="black", linewidth=1)
            look = {"markerfacecolor": colour, "markeredgecolor": "black", "markersize": 5}
            axes.plot([100 * mean.value], [y], marker, **look, label=letter if row == 0 else None)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set_ylim(len(groups) - 0.5, -0.5)


def curves_figure(curves: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw training losses over steps.

    Args:
        curves: curves, each with `name` and the lists `steps` and `loss` of the same length.

    Raises:
        ValueError: if a curve's lists differ in length.
    """
    for curve in curves:
        if len(curve["steps"]) != len(curve["loss"]):
            raise ValueError(
                f"curve {curve['name']!r}: {len(curve['steps'])} steps but {len(curve['loss'])} losses; give both"
            )
    lines = [(str(curve["name"]), curve["steps"], curve["loss"]) for curve in curves]
    figure = line_figure(lines, x="step", y="loss", height_in=3.0)
    figure.axes[0].set_ylim(0, None)
    return figure


def svg_uri(figure: Figure) -> str:
    """Encode a figure as an SVG `data:` URI: deterministic, without scripts or external resources."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg_bytes(figure)).decode()
