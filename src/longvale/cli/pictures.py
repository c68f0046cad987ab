"""Pictures: plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .base import app


@app.command(epilog="Example: longvale plot test_0000 --data demo/corpus --predictions demo/predictions.jsonl")
def plot(
    video_id: Annotated[str, typer.Argument(metavar="VIDEO_ID", help="Of a video in the annotations.")],
    data: Annotated[Path, typer.Option(help="Folder with official annotation files, or one such file.")],
    predictions: Annotated[
        Path | None, typer.Option(help="Log of answers (JSONL) to draw beside the annotation.", show_default="none")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Name of the pictures, without suffix.", show_default="VIDEO_ID")
    ] = None,
) -> None:
    """Draw one video's timeline.

    Reference events in the lanes seen, heard and said, beside what a model answered; as PNG and as SVG.
    """
    from longvale.evaluation.plot import plot_video

    for path in plot_video(video_id, data, output or Path(video_id), predictions):
        typer.echo(path)
