"""The command plot, which draws figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .base import app, echo


@app.command(epilog="Example: longvale plot test_0000 --data demo/corpus --predictions demo/predictions.jsonl")
def plot(
    video_id: Annotated[str, typer.Argument(metavar="VIDEO_ID", help="ID of a video in the annotations.")],
    data: Annotated[
        Path,
        typer.Option(help="Folder with official annotation files, one such file, or NAME.stages of longvale annotate."),
    ],
    predictions: Annotated[
        Path | None, typer.Option(help="Log of answers (JSONL) to draw next to the annotation.", show_default="none")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="File of the video, for a film strip above.", show_default="none")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Name of the pictures, without suffix.", show_default="VIDEO_ID")
    ] = None,
) -> None:
    """Draw one video's timeline.

    Reference events in the lanes seen, heard and said, beside what a model answered; as PNG and as SVG. With the output
    of longvale annotate, also text on screen, sounds and speakers. With its stages: what each modality alone was cut
    into, hard cuts, and the events made of it.
    """
    from longvale.annotation.review.results import BOUNDARIES_FILE

    name = output or Path(video_id)
    if (data / BOUNDARIES_FILE).is_file():
        from longvale.annotation.review.figures import plot_annotated

        if predictions is not None:
            raise ValueError(f"{data}: are stages; give the annotation file beside it to draw --predictions")
        paths = plot_annotated(video_id, data, name, video)
    else:
        from longvale.annotation.review.figures import plot_with_tracks

        paths = plot_with_tracks(video_id, data, name, predictions, video)
    for path in paths:
        echo(path)
