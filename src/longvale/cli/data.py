"""Commands about corpora and features: synthesize, features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .base import app
from .options import Device, Overwrite, Quiet


@app.command(epilog="Example: longvale synthesize corpus --videos 100 --seed 1")
def synthesize(
    output: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write, or to go on with.")],
    videos: Annotated[int, typer.Option(help="Training videos.")],
    test_videos: Annotated[int | None, typer.Option(help="Test videos.", show_default="a quarter as many")] = None,
    seed: Annotated[int, typer.Option(help="Decides everything, on any machine.")] = 0,
    size: Annotated[int, typer.Option(help="Width and height in pixels.")] = 64,
    fps: Annotated[int, typer.Option(help="Frames a second.")] = 8,
    min_length: Annotated[float, typer.Option(help="Shortest video in seconds.")] = 20.0,
    max_length: Annotated[float, typer.Option(help="Longest video in seconds.")] = 60.0,
    grid: Annotated[int, typer.Option(help="Boundaries lie on so many steps of a video, 0 for anywhere.")] = 20,
    voice: Annotated[str, typer.Option(help="formant, or espeak if espeak-ng is installed.")] = "formant",
    workers: Annotated[int | None, typer.Option(help="Processes at a time.", show_default="one a CPU")] = None,
    quiet: Quiet = False,
) -> None:
    """Make a corpus of videos with known events.

    MP4 files, annotations and dialogues, in the files and formats of the published data.
    """
    from longvale.data.synthetic import SyntheticOptions
    from longvale.data.synthetic import synthesize as run

    options = SyntheticOptions(
        size=size, fps=fps, min_length_s=min_length, max_length_s=max_length, grid=grid, voice=voice
    )
    counts = run(
        output, videos=videos, test_videos=test_videos, seed=seed, options=options, workers=workers, progress=not quiet
    )
    typer.echo(f"{output}: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))


@app.command(epilog="Example: longvale features videos --output features --model demo/model")
def features(
    video_dir: Annotated[Path, typer.Argument(metavar="VIDEO_DIR", help="Folder of videos, or one file.")],
    output: Annotated[Path, typer.Option(help="Folder of stored features to write, or to go on with.")],
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint whose towers are used: a folder or a Hub id.", show_default="untrained towers"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Videos decoded at a time.", show_default="one a CPU, at most 4")
    ] = None,
    overwrite: Overwrite = False,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Store what the towers see and hear of videos.

    Three .npy files a video in the official layout. Videos that have theirs are passed over.
    """
    from longvale.data.extraction import extract, extract_features

    options = {"workers": workers, "progress": not quiet, "overwrite": overwrite}
    if model is None:
        from longvale.demo.checkpoint import build_checkpoint

        typer.echo(
            "longvale: warning: no --model, so the towers are tiny and untrained: these features only try out the "
            "plumbing",
            err=True,
        )
        towers, processor = build_checkpoint(vocab_videos=50)  # the tokenizer has no part in features
        summary = extract(video_dir, output, processor, towers, **options)
    else:
        summary = extract_features(video_dir, output, model=model, device=device, **options)
    if summary.failed:
        raise ValueError(str(summary))
    typer.echo(f"{output}: {summary}")
