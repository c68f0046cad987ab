"""Commands about data sets: data stats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .base import app

data = typer.Typer(no_args_is_help=True, help="Look at annotations, and turn them into a data set for the Hub.")
app.add_typer(data, name="data", epilog="longvale data COMMAND --help has an example of each.")


@data.command(epilog="Example: longvale data stats demo/corpus --output outputs/statistics")
def stats(
    path: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder with official annotation files, or one such file.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="Folder for statistics.json, .png and .svg.", show_default="only the table")
    ] = None,
) -> None:
    """Tell what a corpus is made of.

    Lengths of videos and events, events a video, relations of the modalities; how events cover the videos and overlap.
    """
    from longvale.data.statistics import format_statistics, measure, read_splits, save_statistics

    splits = {name: measure(videos) for name, videos in read_splits(path).items()}
    typer.echo(format_statistics(splits))
    if output is not None:
        typer.echo("\n" + "\n".join(str(path) for path in save_statistics(splits, output)))
