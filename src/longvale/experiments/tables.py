"""What an experiment leaves: a table that a person and a program can read, and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longvale.events import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Colour-blind-safe ones of Okabe and Ito.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table in Markdown; numbers that are not whole have four digits.

    Args:
        rows: with the same columns each.

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
    """Write `table.md`, `result.json` with the rows and how they were made, and `plot.svg` into a folder.

    Args:
        folder: made if it is not there.
        rows: of the table.
        how: model, data and options, so that the numbers can be made again.
        figure: the plot.
    """
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "result.json") as file:
        json.dump({"how": dict(how), "rows": [dict(row) for row in rows]}, file, indent=1)
    with rc_context({"svg.hashsalt": "longvale"}), atomic_write(folder / "plot.svg") as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
    with atomic_write(folder / "table.md") as file:
        file.write(format_table(rows) + "\n")


def bars(rows: Sequence[Mapping[str, Any]], name: str, columns: Sequence[str], label: str) -> Figure:
    """Groups of bars, one a row.

    Args:
        rows: of a table.
        name: the column that names a row.
        columns: one bar each.
        label: of the axis.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 3.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(columns)
    for index, column in enumerate(columns):
        places = [place + (index - (len(columns) - 1) / 2) * width for place in range(len(rows))]
        axes.bar(places, [row[column] for row in rows], width, label=column, color=COLOURS[index % len(COLOURS)])
    axes.set_xticks(range(len(rows)), [str(row[name]) for row in rows])
    axes.set(ylabel=label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
