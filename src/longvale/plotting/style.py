"""Common style of all figures: colours, hatching, frames, and saving.

Everything that a figure shows by colour it also shows by position, hatching or line style, so that it can be read in
black and white; the colours are those that Okabe and Ito chose for the colour-blind (https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from ..events import Modality, Seconds
from ..io import atomic_write
from ..system.names import printable

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

#: Name, colour and hatching of a lane, or of a series of bars.
Style: TypeAlias = tuple[str, str, str]

#: Lane of each modality.
LANES: dict[Modality, Style] = {
    "visual": ("seen", "#56B4E9", ""),
    "audio": ("heard", "#E69F00", "///"),
    "speech": ("said", "#009E73", "..."),
}
REFERENCE: Style = ("reference", "#BBBBBB", "")
PREDICTED: Style = ("predicted", "#FFFFFF", "\\\\\\\\")

#: Colour and hatching of the first, second, ... series of bars: each of the first three lighter than the one before.
BAR_STYLES = (("#0072B2", ""), ("#E69F00", "///"), ("#FFFFFF", "..."), ("#56B4E9", "xxx"), ("#BBBBBB", "|||"))
#: Colour and dashes of the first, second, ... line.
LINE_STYLES = (("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":"))

#: Colour and hatching of the bars and marker of the points, per run. All styles differ, also without colour.
RUN_STYLES = (
    ("#FFFFFF", "\\\\\\\\", "o"),
    ("#0072B2", "", "s"),
    ("#E69F00", "xxxx", "^"),
    ("#CC79A7", "----", "D"),
    ("#009E73", "oo", "v"),
    ("#F0E442", "++++", "P"),
)

#: Colour of grid lines, and of the lines between lanes.
GRID = "#DDDDDD"

#: Width of every figure in inches, and the resolution of its PNG in dots per inch.
WIDTH_IN, DPI = 9.0, 150

#: Number of frames in a film strip.
STRIP_FRAMES = 16

_COLOURS = 64

_TITLE_SIZE, _TEXT_SIZE = 9, 8


def style_axes(axes: Axes, title: str, grid: Literal["x", "y", "both"] = "x") -> None:
    """Style axes: title at the left, a light grid behind the data, no box.

    Args:
        axes: to style.
        title: shown literally: a "$" starts no formula, control characters are escaped.
        grid: direction of the lines: "x", "y" or "both".
    """
    axes.set_title(printable(title), loc="left", fontsize=_TITLE_SIZE, parse_math=False)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=_TEXT_SIZE)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_fontsize(_TEXT_SIZE)
    axes.spines[["top", "right"]].set_visible(False)


def film_strip(axes: Axes, frames: np.ndarray, duration: Seconds, aspect: float | None = None) -> None:
    """Draw frames side by side over the seconds of a video.

    Args:
        axes: of the strip.
        frames: uint8 [n, H, W, 3], evenly spaced; see [`strip_times`].
        duration: of the video in seconds.
        aspect: width of a frame on the page over its height: of wider frames the middle is shown; None to stretch them.
    """
    width = duration / len(frames)
    if aspect is not None:
        shown = min(frames.shape[2], max(1, round(frames.shape[1] * aspect)))
        left = (frames.shape[2] - shown) // 2
        frames = frames[:, :, left : left + shown]
    for place, frame in enumerate(frames):
        axes.imshow(frame, extent=(place * width, (place + 1) * width, 0, 1), aspect="auto")
    axes.set(xlim=(0, duration), ylim=(0, 1), yticks=[])
    axes.tick_params(axis="x", labelbottom=False, length=0)
    axes.spines[:].set_visible(False)


def strip_times(duration: Seconds) -> list[Seconds]:
    """Return the times in seconds of the frames of a film strip: the centres of equal parts.

    Example:
        >>> strip_times(32.0)[:3]
        [1.0, 3.0, 5.0]
    """
    return [(place + 0.5) * duration / STRIP_FRAMES for place in range(STRIP_FRAMES)]


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as PNG; without photographs its few colours are stored as a palette: a third of the size.

    Photographs are compressed as usual: the last 4% would take four times as long.
    """
    from PIL import Image

    buffer, packed = io.BytesIO(), io.BytesIO()
    with _fonts_for(figure):
        figure.savefig(buffer, format="raw", dpi=DPI)  # RGBA, rows of whole pixels as savefig rounds them
    width, height = (int(inches * DPI) for inches in figure.get_size_inches())
    image = Image.frombuffer("RGBA", (width, height), buffer.getvalue()).convert("RGB")
    photographs = any(axes.images for axes in figure.axes)
    if not photographs:
        image = image.quantize(_COLOURS, dither=Image.Dither.NONE)
    image.save(packed, "png", optimize=not photographs)
    return packed.getvalue()


def svg_bytes(figure: Figure) -> bytes:
    """Return a figure as SVG: the same bytes for the same figure, with nothing that can run or load."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "longvale"}), _fonts_for(figure):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


@contextmanager
def _fonts_for(figure: Figure) -> Iterator[None]:
    """Draw characters that the usual font lacks with any installed font that has them; log those that no font has."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    usual = FontProperties().get_family()
    missing = {c for text in texts for c in text.get_text() if c.isprintable()}
    missing -= {c for c in missing if get_font(findfont(FontProperties())).get_char_index(ord(c))}
    lacking, others = frozenset(missing), []
    for entry in sorted(fontManager.ttflist, key=lambda entry: entry.name) if missing else ():
        if entry.name.startswith("Last Resort") or entry.weight not in (400, "normal", "regular"):
            continue  # "Last Resort" draws boxes for all characters
        try:
            found = {c for c in missing if get_font(entry.fname).get_char_index(ord(c))}
        except RuntimeError:  # colour emoji fonts cannot be loaded
            continue
        if found:
            others.append(entry.name)
            missing -= found
    for text in texts:
        if others and lacking & set(text.get_text()):
            text.set_fontfamily([*usual, *others])
    if missing:
        shown = " ".join(sorted(missing)[:8])
        logger.warning("no installed font draws %s; boxes stand for them; install one, such as Noto", shown)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support .* natively")
        yield


def save_figure(figure: Figure, path: str | os.PathLike) -> list[Path]:
    """Write a figure as PNG and as SVG; each file is written completely or not at all.

    Args:
        figure: to write.
        path: of the files; a suffix `.png` or `.svg` is removed, any other is part of the name. Parent folders are
            created.

    Returns:
        The paths of the PNG and of the SVG.

    Raises:
        ValueError: if the path contains no file name.
    """
    path = Path(path)
    if path.suffix.lower() in (".png", ".svg"):
        path = path.with_suffix("")
    if not path.name:
        raise ValueError(f"{path}: names no file; give a name for the pictures, such as {path / 'timeline'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, content in ((".png", png_bytes(figure)), (".svg", svg_bytes(figure))):
        target = path.with_name(path.name + suffix)
        with atomic_write(target, "wb") as file:
            file.write(content)
        paths.append(target)
    return paths
