"""Pictures of annotation: the funnel of admission, and a video's boundaries under its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..events import atomic_write
from ..names import printable
from .filters import Rejection, funnel
from .footage import Footage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LANES = {
    "visual": ("seen", "#56B4E9", ""),
    "audio": ("heard", "#E69F00", "///"),
    "speech": ("said", "#009E73", "..."),
    "events": ("events", "#BBBBBB", ""),
}
_THUMBNAILS = 16


def funnel_figure(rejections: Mapping[str, Sequence[Rejection]]) -> Figure:
    """How many videos are left after each filter.

    Args:
        rejections: by video id; no rejection for those admitted.
    """
    from matplotlib.figure import Figure

    rows = [("all", len(rejections), 0), *funnel(rejections)]
    figure = Figure(figsize=(7, 0.35 * len(rows) + 0.8), layout="constrained")
    axes = figure.subplots()
    for y, (_, left, against) in enumerate(rows):
        axes.barh(y, left, color="#56B4E9", edgecolor="black", linewidth=0.6)
        axes.text(left, y, f" {left}" + (f"  (-: {against})" if against else ""), va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.invert_yaxis()
    axes.set(xlim=(0, max(1, len(rejections)) * 1.15), xlabel="videos left; in brackets those a filter speaks against")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def timeline_figure(title: str, found: Mapping[str, Any], footage: Footage) -> Figure:
    """Pictures, cuts, visual events, sounds, speech turns and events of a video over its seconds.

    Args:
        title: such as the video's id.
        found: a line of `boundaries.jsonl`.
        footage: of the video.
    """
    import numpy as np
    from matplotlib.figure import Figure

    duration = found["duration"]
    stacks = {name: _stack(found[name]) for name in _LANES}
    rows = sum(max(1, len(stack)) for stack in stacks.values()) + 1
    figure = Figure(figsize=(14, 1.2 + 0.28 * rows + 0.9), layout="constrained")
    strip, axes = figure.subplots(2, 1, sharex=True, height_ratios=[1.2, 0.28 * rows])
    if footage.frames is not None:
        width = duration / _THUMBNAILS
        pictures = footage.frames_at([(i + 0.5) * width for i in range(_THUMBNAILS)])
        for i, picture in enumerate(pictures):
            strip.imshow(picture, extent=(i * width, (i + 1) * width, 0, 1), aspect="auto")
    strip.set(ylim=(0, 1), yticks=[])
    name = strip.set_title(printable(title), loc="left", fontsize=9)
    name.set_parse_math(False)
    axes.vlines(found["cuts"], -0.4, 0.4, color="black", linewidth=0.8)
    ticks, y = [(0.0, "cuts")], 1
    for lane, (label, colour, hatch) in _LANES.items():
        ticks.append((y + (max(1, len(stacks[lane])) - 1) / 2, label))
        for row in stacks[lane] or [[]]:
            spans = np.array(row).reshape(-1, 2)
            axes.barh(
                [y] * len(spans), spans[:, 1] - spans[:, 0], 0.8, left=spans[:, 0], color=colour, hatch=hatch,
                edgecolor="black", linewidth=0.6,
            )  # fmt: skip
            y += 1
    axes.set_yticks(*zip(*ticks, strict=True))
    axes.set(xlim=(0, duration), ylim=(y - 0.4, -0.6), xlabel="seconds")
    axes.grid(axis="x", color="#EEEEEE")
    axes.set_axisbelow(True)
    return figure


def _stack(spans: Sequence[Sequence[float]]) -> list[list[Sequence[float]]]:
    """Rows in which no two spans overlap."""
    rows: list[list[Sequence[float]]] = []
    for span in sorted(spans):
        row = next((row for row in rows if row[-1][1] <= span[0]), None)
        if row is None:
            rows.append([span])
        else:
            row.append(span)
    return rows


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; the file appears whole or not at all, its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=100, metadata={"Software": None})
