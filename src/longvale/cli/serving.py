"""The command serve, which serves a checkpoint by the OpenAI API."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .base import ModelCommand, app, echo
from .groups import Group, arguments, grouped
from .options import Model, WeightOptions


@dataclass(eq=False, repr=False)
class LimitOptions(Group, panel="Limits"):
    """What requests may give."""

    max_size: Annotated[float, typer.Option(help="Largest video in MB.")] = 500
    max_length: Annotated[float, typer.Option(help="Longest video in seconds.")] = 1200
    max_total: Annotated[float, typer.Option(help="Maximum size of all stored uploads together, in MB.")] = 5000
    max_waiting: Annotated[int, typer.Option(help="Maximum number of requests at a time; more get status 429.")] = 256
    media_host: Annotated[
        list[str] | None,
        typer.Option(help="Host from which videos may be fetched by URL; * for all.", show_default="none"),
    ] = None
    media_dir: Annotated[
        list[Path] | None,
        typer.Option(help="Folder whose videos requests may name by file://.", show_default="none"),
    ] = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `serve`."""
        from longvale.serving.videos import ServingLimits

        limits = ServingLimits(
            int(self.max_size * 2**20), self.max_length, int(self.max_total * 2**20), self.max_waiting
        )
        return {"limits": limits, "media_hosts": self.media_host or (), "media_folders": self.media_dir or ()}


@app.command(cls=ModelCommand, epilog="Example: longvale serve demo/model --media-dir demo/corpus/videos")
@grouped
def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="Name of the model for clients.", show_default="MODEL")] = None,
    batch_size: Annotated[int, typer.Option(help="Maximum number of answers that are written together.")] = 32,
    batch_tokens: Annotated[
        int, typer.Option(help="Maximum number of their tokens in memory, prompts included.")
    ] = 32_768,
    keep_videos: Annotated[int, typer.Option(help="Number of videos whose features and prefixes are kept.")] = 16,
    engine: Annotated[
        str, typer.Option(help="Engine: longvale, or vllm, which gets the embeddings of prompts.")
    ] = "longvale",
    engine_url: Annotated[
        str | None,
        typer.Option(
            help="With vllm: URL of a server that runs with --enable-prompt-embeds.", show_default="vllm is started"
        ),
    ] = None,
    *,
    limits: LimitOptions,
    weights: WeightOptions,
) -> None:
    """Serve a checkpoint by the OpenAI API.

    Videos are uploaded to /v1/files, or given by URL. Answers to all requests are written together. Clients must send
    the token of LONGVALE_SERVE_TOKEN, if it is set. Needs `pip install "longvale[serve]"`.
    """
    from longvale.system.extras import require

    require("fastapi")
    require("uvicorn")
    from longvale.serving.server import serve as run
    from longvale.system.interruption import wait_for_end

    with run(
        model,
        name=name,
        host=host,
        port=port,
        rows=batch_size,
        row_tokens=batch_tokens,
        kept_videos=keep_videos,
        engine=engine,
        engine_url=engine_url,
        **arguments(limits, weights),
    ) as url:
        echo(f"serving at {url}; Ctrl-C ends it and deletes the uploads")
        wait_for_end()
