"""Commands for corpora and features: synthesize, features, features pack, features check."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import click
import typer
from typer.core import TyperGroup

from .base import OutputCommand, app, echo
from .options import AttnImplementation, Device, DeviceMap, Overwrite, Quiet


@app.command(cls=OutputCommand, epilog="Example: longvale synthesize corpus --videos 100 --seed 1")
def synthesize(
    output: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; an unfinished run is resumed.")],
    videos: Annotated[int, typer.Option(help="Number of training videos.")],
    test_videos: Annotated[
        int | None, typer.Option(help="Number of test videos.", show_default="a quarter as many")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed, which gives the same corpus on every machine.")] = 0,
    size: Annotated[int, typer.Option(help="Width and height in pixels.")] = 64,
    fps: Annotated[int, typer.Option(help="Frames per second.")] = 8,
    min_length: Annotated[float, typer.Option(help="Shortest video in seconds.")] = 20.0,
    max_length: Annotated[float, typer.Option(help="Longest video in seconds.")] = 60.0,
    grid: Annotated[
        int, typer.Option(help="Number of equal steps per video on which boundaries lie; 0 for anywhere.")
    ] = 20,
    voice: Annotated[str, typer.Option(help="Voice: formant, or espeak of longvale[voice].")] = "formant",
    workers: Annotated[int | None, typer.Option(help="Number of processes.", show_default="one a CPU")] = None,
    quiet: Quiet = False,
) -> None:
    """Make a corpus of videos with known events.

    MP4 files, annotations and dialogues, in the files and formats of the published data.
    """
    from longvale.synthetic.corpus import SyntheticOptions
    from longvale.synthetic.corpus import synthesize as run

    options = SyntheticOptions(
        size=size, fps=fps, min_length_s=min_length, max_length_s=max_length, grid=grid, voice=voice
    )
    counts = run(
        output, videos=videos, test_videos=test_videos, seed=seed, options=options, workers=workers, progress=not quiet
    )
    echo(f"{output}: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))


class _Features(TyperGroup):
    """Command group: `features VIDEO_DIR` makes features; `features pack` and `features check` are subcommands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["make", *args]
        return super().parse_args(ctx, args)


features = typer.Typer(cls=_Features, no_args_is_help=False)
_EXAMPLE = "Example: longvale features videos --output features --model demo/model"
app.add_typer(features, name="features", epilog=_EXAMPLE)


@features.callback()
def _features() -> None:
    """Store, pack or check what the towers see and hear.

    `longvale features VIDEO_DIR --output DIR` is `longvale features make VIDEO_DIR --output DIR`.
    """


@features.command(epilog=_EXAMPLE)
def make(
    video_dir: Annotated[Path, typer.Argument(metavar="VIDEO_DIR", help="Folder of videos, or one file.")],
    output: Annotated[Path, typer.Option(help="Folder of stored features to write; an unfinished run is resumed.")],
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint whose towers are used: a folder or a Hub id.", show_default="untrained towers"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that read videos; 0 for none.", show_default="one a CPU; none below 32 MB"),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Batch size of the towers, in frames or windows of audio.")] = 32,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Only the I-th of N parts of the videos, for N jobs.", show_default="all"),
    ] = None,
    engine: Annotated[str, typer.Option(help="Engine: local, or ray for the machines of a Ray cluster.")] = "local",
    overwrite: Overwrite = False,
    device: Device = None,
    dtype: Annotated[
        str | None, typer.Option(help="Data type of the towers, such as bfloat16.", show_default="the checkpoint's")
    ] = None,
    attn_implementation: AttnImplementation = None,
    device_map: DeviceMap = None,
    quiet: Quiet = False,
) -> None:
    """Store what the towers see and hear of videos.

    Three .npy files a video in the official layout. Videos that have theirs are passed over.
    """
    from longvale.extraction.extract import extract, extract_features

    options = {"workers": workers, "batch_size": batch_size, "shard": _shard(shard), "engine": engine}
    options |= {"progress": not quiet, "overwrite": overwrite}
    if model is None:
        from longvale.demo.checkpoint import build_checkpoint

        echo(
            "longvale: warning: no --model, so the towers are tiny and untrained: these features only try out the "
            "plumbing",
            err=True,
        )
        towers, processor = build_checkpoint(vocab_videos=50)  # features do not depend on the tokenizer
        summary = extract(video_dir, output, processor, towers, **options)
    else:
        options |= {"dtype": dtype, "attn_implementation": attn_implementation, "device_map": device_map}
        summary = extract_features(video_dir, output, model=model, device=device, **options)
    if summary.failed:
        raise ValueError(str(summary))
    echo(f"{output}: {summary}")


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise ValueError(f"--shard must be I/N, such as 1/4, not {text!r}")
    return int(match[1]), int(match[2])


@features.command(epilog="Example: longvale features pack demo/corpus/features --output packed --split test")
def pack(
    store: Annotated[Path, typer.Argument(metavar="DIR", help="Stored features: .npy files or published archives.")],
    output: Annotated[Path, typer.Option(help="Folder for the shards, their checksums and the dataset card.")],
    split: Annotated[str, typer.Option(help="Name of the split that the shards make.")] = "train",
    quiet: Quiet = False,
) -> None:
    """Turn stored features into Parquet shards for the Hub.

    float16, one row per video, for streaming with datasets. Shards of other splits in the folder stay.
    """
    from longvale.extraction.pack import pack_features

    echo(f"{output}: {pack_features(store, output, split=split, progress=not quiet)}")


@features.command(
    epilog="Example: longvale features check demo/corpus/features "
    "--annotations demo/corpus/longvale-annotations-eval.json"
)
def check(
    store: Annotated[Path, typer.Argument(metavar="DIR", help="Stored features, archives or packed shards.")],
    annotations: Annotated[Path, typer.Option(help="Annotations whose videos must have features.")],
    output: Annotated[
        Path | None, typer.Option(help="File for all findings, one JSON object per line.", show_default="none")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Say what would be missing in training.

    Reads everything: which videos lack what, damage, NaN, other widths, silence, lengths that do not fit the duration.
    Exits with 1 if an annotated video lacks a file or has one that cannot be used.
    """
    import json
    from dataclasses import asdict

    from longvale.extraction.check import check_features
    from longvale.io import atomic_write

    report = check_features(store, annotations, progress=not quiet)
    for line in report.lines(most=None if output is None and len(report.findings) < 100 else 20):
        echo(line)
    if output is not None:
        with atomic_write(output) as file:
            file.writelines(json.dumps(asdict(finding)) + "\n" for finding in report.findings)
    if not report.ok:
        raise typer.Exit(1)
