"""The command line, `longvale ...`: parses, calls, prints.

Heavy packages are imported inside the commands, so that help and errors of spelling come at once.
"""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from longvale import __version__

#: Exit code of bad input, as of errors in the command line itself; of Ctrl-C, as shells have it.
BAD_INPUT, INTERRUPTED = 2, 130

#: Set unless the user has: idle threads of torch that spin make small machines many times slower, and what transformers
#: notes while it loads is checked by us.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "TRANSFORMERS_VERBOSITY": "error"}


class _Group(TyperGroup):
    """Turns what a command raises about its input into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # whoever read our output has gone, as `| head` does
            raise
        except (ValueError, OSError) as error:
            if os.environ.get("LONGVALE_DEBUG"):
                traceback.print_exc()
            typer.echo(f"longvale: error: {_one_line(error)}", err=True)
            raise typer.Exit(BAD_INPUT) from None
        except KeyboardInterrupt:
            typer.echo("\nlongvale: interrupted; finished work is kept, the same command goes on from there", err=True)
            raise typer.Exit(INTERRUPTED) from None


def _one_line(error: ValueError | OSError) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror.lower()}"
    return " ".join(str(error).split()) or type(error).__name__


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of `longvale` and of `python -m longvale`."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    app(prog_name="longvale")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"longvale {__version__}")
        raise typer.Exit


@app.callback(epilog="LONGVALE_DEBUG=1 shows where an error comes from.")
def _longvale(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Videos that are seen, heard and spoken: data, features, answers and scores of LongVALE."""


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="Checkpoint: a folder written by save_pretrained, or a Hub id.")
]
Device = Annotated[
    str | None, typer.Option(help="Such as cpu or cuda:1.", show_default="an accelerator if there is one")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin anew instead of going on.")]

Data = Annotated[Path, typer.Option(help="Folder that holds longvale-annotations-eval.json.")]
Tasks = Annotated[
    str, typer.Option(help="all, or some of grounding,dense_captioning,segment_captioning with commas between.")
]
Split = Annotated[str, typer.Option(help="test or train.")]
Features = Annotated[
    Path | None, typer.Option(help="Folder of stored features.", show_default="DATA/features, if it exists")
]
Videos = Annotated[
    Path | None, typer.Option(help="Folder of videos, if not features.", show_default="DATA/videos, without features")
]
BatchSize = Annotated[int, typer.Option(help="Questions answered together.")]
MaxNewTokens = Annotated[
    int | None, typer.Option(help="Longest answer in tokens.", show_default="enough for each task")
]
Limit = Annotated[int | None, typer.Option(help="Only the first so many videos.", show_default="all")]
SkipMissing = Annotated[bool, typer.Option("--skip-missing", help="Leave out videos that have no file.")]


@app.command(epilog="Example: longvale demo --output demo")
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the corpus, the models, the scores and the report.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the corpus and of the training.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Run the whole system on synthetic videos, offline.

    It synthesizes a corpus, extracts features, tunes a tiny model in two stages, evaluates it and writes a report.
    """
    from longvale.demo.run import run_demo
    from longvale.evaluation.ablation import format_ablation
    from longvale.evaluation.score import format_scores
    from longvale.events import load_json

    run_demo(output, seed=seed, progress=not quiet)
    typer.echo(format_scores(load_json(output / "scores.json")))
    typer.echo(f"\n{format_ablation(load_json(output / 'ablation.json'))}")
    typer.echo(f"report: {output / 'report.html'}")


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


@app.command(epilog="Example: longvale generate demo/model --data demo/corpus --output predictions.jsonl")
def generate(
    model: Model,
    data: Data,
    output: Annotated[Path, typer.Option(help="Log of answers to write, or to go on with.")],
    tasks: Tasks = "all",
    split: Split = "test",
    features: Features = None,
    videos: Videos = None,
    modalities: Annotated[str, typer.Option(help="What the model is given of a video.")] = "visual,audio,speech",
    batch_size: BatchSize = 16,
    max_new_tokens: MaxNewTokens = None,
    limit: Limit = None,
    skip_missing: SkipMissing = False,
    overwrite: Overwrite = False,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Let a model answer a benchmark's questions.

    Answers are on disk as soon as their batch is done, and are not asked for again.
    """
    from longvale.evaluation.generate import generate as run

    log = run(
        model,
        data,
        output,
        tasks=tasks.split(","),
        split=split,
        features=features,
        videos=videos,
        modalities=modalities.split(","),
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        limit=limit,
        skip_missing=skip_missing,
        overwrite=overwrite,
        device=device,
        progress=not quiet,
    )
    typer.echo(f"answers: {log}")


@app.command(
    epilog="Example: longvale score predictions.jsonl --references demo/corpus/longvale-annotations-eval.json "
    "--output scores.json"
)
def score(
    predictions: Annotated[
        Path | None, typer.Argument(metavar="PREDICTIONS", help="Log of answers (JSONL).", show_default=False)
    ] = None,
    references: Annotated[Path | None, typer.Option(help="Annotations (JSON).", show_default=False)] = None,
    output: Annotated[Path | None, typer.Option(help="File to write.", show_default="none, only the table")] = None,
    per_video: Annotated[
        Path | None, typer.Option(help="File to write with the scores of each video too.", show_default="none")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Tasks with commas between, or all.", show_default="those answered")
    ] = None,
    protocol: Annotated[str, typer.Option(help="strict, or official as published.")] = "strict",
    partial: Annotated[bool, typer.Option("--partial", help="Leave out questions without an answer.")] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Instead, compare two files of --per-video.", show_default=False),
    ] = None,
) -> None:
    """Score a log of answers against annotations.

    Or, with --compare, tell how sure the difference of two is: a paired bootstrap over the videos.
    """
    from longvale.evaluation.compare import compare_files, format_comparison
    from longvale.evaluation.score import format_scores, save_scores
    from longvale.evaluation.score import score as run

    if compare is not None:
        if predictions is not None or references is not None:
            raise ValueError("--compare stands alone: it takes two files that --per-video wrote")
        typer.echo(format_comparison(compare_files(*compare), [str(path) for path in compare]))
        return
    if predictions is None or references is None:
        raise ValueError("give PREDICTIONS and --references ANNOTATIONS, or --compare A B")
    names = None if tasks is None else tasks.split(",")
    scores = run(predictions, references, tasks=names, protocol=protocol, partial=partial)
    for path, by_video in ((output, False), (per_video, True)):
        if path is not None:
            save_scores(scores, path, by_video=by_video)
    typer.echo(format_scores(scores))


@app.command(epilog="Example: longvale evaluate demo/model --data demo/corpus --output evaluation")
def evaluate(
    model: Model,
    data: Data,
    output: Annotated[Path, typer.Option(help="Folder for answers, scores and report, or to go on with.")],
    tasks: Tasks = "all",
    split: Split = "test",
    features: Features = None,
    videos: Videos = None,
    batch_size: BatchSize = 16,
    max_new_tokens: MaxNewTokens = None,
    limit: Limit = None,
    skip_missing: SkipMissing = False,
    ablation: Annotated[bool, typer.Option("--ablation", help="Also ask with modalities left out.")] = False,
    overwrite: Overwrite = False,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Generate, score and report.

    Leaves predictions.jsonl, scores.json and report.html, and ablation.json if asked for.
    """
    from longvale.evaluation.ablation import format_ablation
    from longvale.evaluation.evaluate import evaluate as run
    from longvale.evaluation.score import format_scores
    from longvale.events import load_json

    scores = run(
        model,
        data,
        output,
        tasks=tasks.split(","),
        split=split,
        features=features,
        videos=videos,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        limit=limit,
        skip_missing=skip_missing,
        with_ablation=ablation,
        overwrite=overwrite,
        device=device,
        progress=not quiet,
    )
    typer.echo(format_scores(scores))
    if ablation:
        typer.echo(f"\n{format_ablation(load_json(output / 'ablation.json'))}")
    typer.echo(f"report: {output / 'report.html'}")


@app.command(epilog='Example: longvale ask demo/model demo/corpus/videos/test_0000.mp4 "When does the bell ring?"')
def ask(
    model: Model,
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="Video file.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="About the video.")],
    task: Annotated[
        str | None,
        typer.Option(
            help="How to read the answer: grounding, dense_captioning or segment_captioning.",
            show_default="by what it says",
        ),
    ] = None,
    max_new_tokens: MaxNewTokens = None,
    device: Device = None,
) -> None:
    """Ask a model one question about a video.

    Events that the answer names are drawn on a timeline.
    """
    from longvale.evaluation.ask import ask as run
    from longvale.evaluation.ask import format_answer

    typer.echo(format_answer(run(model, video, question, task=task, max_new_tokens=max_new_tokens, device=device)))


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
    from longvale.data.conversion import convert as run

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
