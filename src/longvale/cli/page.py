"""The command app, which serves the web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .base import ModelCommand, echo
from .base import app as longvale
from .groups import grouped
from .options import Model, WeightOptions


@longvale.command(cls=ModelCommand, epilog="Example: longvale app demo/model --examples demo/corpus/videos")
@grouped
def app(
    model: Model,
    examples: Annotated[
        Path | None, typer.Option(help="Folder of videos to offer.", show_default="three synthetic ones")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="Folder NAME.stages of longvale annotate, to show with EXAMPLES.", show_default="none"),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Port to listen on.", show_default="the first free from 7860")
    ] = None,
    max_size: Annotated[float, typer.Option(help="Largest upload in MB.")] = 500,
    max_length: Annotated[float, typer.Option(help="Longest video in seconds.")] = 1200,
    max_total: Annotated[
        float | None,
        typer.Option(help="Maximum size of all stored uploads together, in MB.", show_default="ten of the largest"),
    ] = None,
    *,
    weights: WeightOptions,
) -> None:
    """Ask about videos in a web page.

    Answers are drawn on a timeline and can be saved. Uploads stay in a private folder and are deleted. Needs
    `pip install "longvale[app]"`.
    """
    from longvale.system.extras import require

    require("gradio")
    from longvale.app.limits import Limits
    from longvale.app.server import serve
    from longvale.system.interruption import wait_for_end

    total = None if max_total is None else int(max_total * 2**20)
    limits = Limits(size=int(max_size * 2**20), length=max_length, total=total)
    with serve(
        model,
        examples=examples,
        annotations=annotations,
        host=host,
        port=port,
        limits=limits,
        **weights.arguments(),
    ) as url:
        echo(f"open {url} in a browser; Ctrl-C ends it and deletes the uploads")
        wait_for_end()
