"""Commands about checkpoints: convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .base import app


@app.command(epilog="Example: longvale convert longvalellm-vicuna-v1-5-7b --base vicuna-7b-v1.5 --output longvale-7b")
def convert(
    folder: Annotated[Path, typer.Argument(metavar="OFFICIAL_DIR", help="Folder that holds the parts, at any depth.")],
    output: Annotated[Path, typer.Option(help="Folder to write; it must not exist.")],
    base: Annotated[
        Path | None, typer.Option(help="Folder of the language model.", show_default="found in OFFICIAL_DIR")
    ] = None,
    visual_projector: Annotated[
        Path | None, typer.Option(help="File of the stage-1 projector.", show_default="*mm_projector.bin")
    ] = None,
    stage2: Annotated[
        Path | None, typer.Option(help="Folder of the stage-2 adapter.", show_default="named stage2 or bp")
    ] = None,
    stage3: Annotated[
        Path | None, typer.Option(help="Folder of the stage-3 adapter.", show_default="named stage3 or it")
    ] = None,
    merge_dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16, to merge and store in.")] = "float32",
    max_shard_size: Annotated[str, typer.Option(help="Of a file of weights.")] = "5GB",
) -> None:
    """Turn the published checkpoint into one of ours.

    Merges both adapters into the base model. The towers are not included: the model reads stored features.
    """
    from longvale.checkpoints.conversion import convert as run

    parts = run(
        folder,
        output,
        merge_dtype=merge_dtype,
        max_shard_size=max_shard_size,
        base=base,
        visual_projector=visual_projector,
        stage2=stage2,
        stage3=stage3,
    )
    for part, path in vars(parts).items():
        typer.echo(f"{part.replace('_', ' ')}: {path}")
    typer.echo(f"checkpoint: {output}")
