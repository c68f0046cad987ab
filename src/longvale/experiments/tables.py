"""Output of an experiment: a table in Markdown and JSON, and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longvale.io import atomic_write
from longvale.plotting.charts import draw_bars
from longvale.plotting.style import WIDTH_IN, save_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format a table in Markdown; floats have four decimals.

    Args:
        rows: all with the same columns.

    Example:
        >>> print(format_table([{"model": "base", "mIoU": 0.25}, {"model": "tuned", "mIoU": 0.5}]))
        | model | mIoU |
        | --- | --- |
        | base | 0.2500 |
        | tuned | 0.5000 |
    """
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        cells = (f"{row[name]:.4f}" if isinstance(row[name], float) else str(row[name]) for name in columns)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_result(folder: Path, rows: Sequence[Mapping[str, Any]], how: Mapping[str, Any], figure: Figure) -> None:
    """Write `table.md`, `result.json` (rows and settings) and the plot (PNG, SVG) into a folder.

    Args:
        folder: created if missing.
        rows: of the table.
        how: model, data and options, to make the result reproducible.
        figure: the plot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "result.json") as file:
        json.dump({"how": dict(how), "rows": [dict(row) for row in rows]}, file, indent=1)
    save_figure(figure, folder / "plot")
    with atomic_write(folder / "table.md") as file:
        file.write(format_table(rows) + "\n")


def bars(rows: Sequence[Mapping[str, Any]], name: str, columns: Sequence[str], title: str) -> Figure:
    """Plot groups of bars, one group per row.

    Args:
        rows: of a table.
        name: the column that names a row.
        columns: one bar each, values of 0 to 1.
        title: of the plot.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, 3.4), layout="constrained")
    axes = figure.subplots()
    draw_bars(axes, [[row[column] for row in rows] for column in columns], [str(row[name]) for row in rows])
    for bars_of_column in axes.containers:
        axes.bar_label(bars_of_column, fmt=" %.2f", rotation=90, fontsize=7)
    axes.set(ylabel="0 to 1", ylim=(0, 1.15))
    style_axes(axes, title, grid="y")
    figure.legend(axes.containers, columns, loc="outside upper right", ncols=len(columns), frameon=False, fontsize=8)
    return figure
