"""Commands for checkpoints: init, convert, push-model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .base import ModelCommand, app, echo


@app.command(
    epilog="Example: longvale init --llm Qwen/Qwen3-0.6B --vision openai/clip-vit-large-patch14 "
    "--audio BEATs_iter3_plus_AS20K.pt --speech openai/whisper-base --output untrained"
)
def init(
    llm: Annotated[str, typer.Option("--llm", "--model", help="Causal language model: a folder or a Hub id.")],
    output: Annotated[Path, typer.Option(help="Folder to write; it must not exist.")],
    vision: Annotated[
        str | None, typer.Option(help="Vision model: a folder or a Hub id.", show_default="none, stored features")
    ] = None,
    audio: Annotated[
        str | None, typer.Option(help="BEATs: a .pt file as published, or a folder.", show_default="likewise")
    ] = None,
    speech: Annotated[str | None, typer.Option(help="Whisper: a folder or a Hub id.", show_default="likewise")] = None,
    dtype: Annotated[str, typer.Option(help="Data type to store: float32, bfloat16 or float16.")] = "float32",
    preprocessing: Annotated[str, typer.Option(help="Preprocessing: strict, or official as published.")] = "strict",
    seed: Annotated[int, typer.Option(help="Random seed of the projectors.")] = 0,
    max_shard_size: Annotated[str, typer.Option(help="Maximum size of a file of weights.")] = "5GB",
) -> None:
    """Put an untrained model together.

    From a language model and, if wanted, towers. The projectors are drawn from the seed; recipes/sft.py tunes them.
    """
    from longvale.checkpoints.initialization import initialize

    made = initialize(
        output,
        llm=llm,
        vision=vision,
        audio=audio,
        speech=speech,
        dtype=dtype,
        preprocessing=preprocessing,
        seed=seed,
        max_shard_size=max_shard_size,
    )
    for name, width in made.model.config.feature_sizes.items():
        tower = getattr(made.model.model, f"{name}_tower")
        echo(f"{name}: {type(tower).__name__ if tower is not None else 'stored features'}, {width} wide")
    if not made.marks:
        echo(
            "note: the chat template does not mark what to train on; put {% generation %} marks into "
            f"{output / 'chat_template.jinja'} before tuning"
        )
    echo(f"checkpoint: {output}")


@app.command(
    epilog="Example: longvale convert longvalellm-vicuna-v1-5-7b --base vicuna-7b-v1.5 --output longvale-7b "
    "--towers clip=openai/clip-vit-large-patch14 beats=BEATs_iter3_plus_AS20K.pt whisper=openai/whisper-large-v2"
)
def convert(
    folder: Annotated[Path, typer.Argument(metavar="OFFICIAL_DIR", help="Folder that holds the parts, at any depth.")],
    output: Annotated[Path, typer.Option(help="Folder to write; it must not exist.")],
    more_towers: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="")] = None,
    towers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH...",
            help="Towers to include: clip and whisper (folders or Hub ids), beats (.pt file).",
            show_default="none: the model reads stored features",
        ),
    ] = None,
    keep_adapters: Annotated[
        bool,
        typer.Option(
            "--keep-adapters", help="Also write base/, the model before its stages, and adapters/, each stage for peft."
        ),
    ] = False,
    back: Annotated[
        bool,
        typer.Option(
            "--back", help="Convert in the other direction: OFFICIAL_DIR is our adapter; write the published layout."
        ),
    ] = False,
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
    merge_dtype: Annotated[
        str,
        typer.Option(
            "--merge-dtype", "--dtype", help="Data type for merging and storing: float32, bfloat16 or float16."
        ),
    ] = "float32",
    max_shard_size: Annotated[str, typer.Option(help="Maximum size of a file of weights.")] = "5GB",
) -> None:
    """Turn the published checkpoint into one of ours.

    Merges both adapters into the base model, and writes a model card.
    """
    parts = {"base": base, "visual_projector": visual_projector, "stage2": stage2, "stage3": stage3}
    named = [*(towers or []), *(more_towers or [])]
    if back:
        if named or keep_adapters or any(parts.values()):
            raise ValueError("--back takes an adapter and --output alone")
        from longvale.checkpoints.adapters import convert_back

        convert_back(folder, output)
        echo(f"adapter in the published layout: {output}")
        return
    from longvale.checkpoints.conversion import convert as run

    used = run(
        folder,
        output,
        towers=_read_pairs(named),
        keep_adapters=keep_adapters,
        merge_dtype=merge_dtype,
        max_shard_size=max_shard_size,
        **parts,
    )
    for part, path in vars(used).items():
        echo(f"{part.replace('_', ' ')}: {path}")
    echo(f"checkpoint: {output}")


def _read_pairs(values: list[str]) -> dict[str, str]:
    pairs = dict(value.split("=", 1) if "=" in value else (value, "") for value in values)
    for name, path in pairs.items():
        if not path:
            raise ValueError(f"--towers {name}: must be NAME=PATH, as clip=openai/clip-vit-large-patch14")
    return pairs


@app.command("push-model", cls=ModelCommand, epilog="Example: longvale push-model longvale-7b me/longvale-7b --dry-run")
def push_model(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Checkpoint with a model card.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Model on the Hub, such as me/longvale-7b.")],
    private: Annotated[bool, typer.Option("--private", help="If the repository is made, make it private.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be uploaded, and upload nothing.")
    ] = False,
) -> None:
    """Send a checkpoint to the Hub.

    Only what belongs to the checkpoint goes. The account is that of `hf auth login`, or of the variable HF_TOKEN.
    """
    from longvale.checkpoints.push import plan_model
    from longvale.hub import format_upload, push

    upload = plan_model(folder, repo)
    echo(format_upload(upload))
    echo("nothing sent: --dry-run" if dry_run else push(upload, private=private))
