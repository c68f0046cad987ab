"""Commands for datasets: data stats, data prepare, data restore, push-dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .base import app, echo
from .options import Quiet

data = typer.Typer(no_args_is_help=True, help="Look at annotations; write them as a data set for the Hub.")
app.add_typer(data, name="data", epilog="Example: longvale data stats demo/corpus")


@data.command(epilog="Example: longvale data stats demo/corpus --output outputs/statistics")
def stats(
    path: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of official files or of longvale annotate, or one file.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="Folder for statistics.json, .png and .svg.", show_default="only the table")
    ] = None,
) -> None:
    """Print statistics of a corpus.

    Lengths of videos and events, events a video, relations of the modalities; how events cover the videos and overlap.
    """
    from longvale.data.statistics import format_statistics, measure, read_splits, save_statistics

    splits = {name: measure(videos) for name, videos in read_splits(path).items()}
    echo(format_statistics(splits))
    if output is not None:
        echo("\n" + "\n".join(str(path) for path in save_statistics(splits, output)))


@data.command(epilog="Example: longvale data ceiling demo/corpus")
def ceiling(
    path: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of official files or of longvale annotate, or one file.")
    ],
    times: Annotated[
        str | None,
        typer.Option(
            "--times", "--time-format", help="Formats with commas between, see longvale list.", show_default="built-in"
        ),
    ] = None,
) -> None:
    """Print what a perfect model can reach with each time format.

    The exact times of all events are written in the format, read again and scored as answers to grounding.
    """
    from longvale.evaluation.analysis.ceiling import format_ceilings, read_ceilings

    echo(format_ceilings(read_ceilings(path, None if times is None else times.split(","))))


@data.command(
    epilog="Example: longvale data select sampled-0.jsonl sampled-1.jsonl --data demo/corpus --output kept.json"
)
def select(
    logs: Annotated[
        list[Path], typer.Argument(metavar="LOG...", help="Answers to the same questions, of several seeds.")
    ],
    data: Annotated[Path, typer.Option("--data", "--data-dir", help="Folder of the annotations.")],
    output: Annotated[Path, typer.Option("--output", help="File to write.")],
    split: Annotated[str, typer.Option(help="Split that was asked about: train or test.")] = "train",
    min_iou: Annotated[
        float, typer.Option(help="Smallest mean IoU of a question that is kept; below: too hard.")
    ] = 0.1,
    max_iou: Annotated[float, typer.Option(help="Largest mean IoU of a question that is kept; above: too easy.")] = 0.9,
) -> None:
    """Select grounding questions for GRPO by several sampled answers.

    The logs are those of longvale generate --split train --temperature 1 --seed N. recipes/grpo.py --questions FILE
    trains on the questions that are kept.
    """
    from longvale.evaluation.analysis.selection import save_selection, select_questions

    found = select_questions(logs, data, split=split, least=min_iou, most=max_iou)
    save_selection(found, output)
    echo(
        f"{output}: {len(found.kept)} questions kept, {found.too_hard} too hard, {found.too_easy} too easy, by "
        f"{found.rollouts} answers to each"
    )


@data.command(
    epilog="Example: longvale data export demo/corpus --to swift --times seconds --split train --output swift"
)
def export(
    path: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of official files or of longvale annotate.")],
    to: Annotated[str, typer.Option(help="Project: swift, llamafactory, lmms-eval or openai-batch.")],
    output: Annotated[Path, typer.Option(help="Folder to write.")],
    times: Annotated[
        str, typer.Option("--times", "--time-format", help="Format of times, see longvale list time_formats.")
    ] = "seconds",
    split: Annotated[str, typer.Option(help="Split: test or train.")] = "test",
    tasks: Annotated[str, typer.Option(help="Tasks with commas between, or all.")] = "all",
    videos: Annotated[Path | None, typer.Option(help="Folder of videos.", show_default="DIR/videos")] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the model in the requests of openai-batch.", show_default="none")
    ] = None,
) -> None:
    """Write questions and answers in the format of another project.

    Answers that come back, with the same ids, are scored by: longvale score FILE --reader auto
    """
    from longvale.evaluation.question_files import export_questions

    options = {"times": times, "split": split, "tasks": tasks.split(","), "videos": videos, "model": model}
    echo("\n".join(str(file) for file in export_questions(path, output, to, **options)))


@data.command(epilog="Example: longvale data prepare demo/corpus --output longvale")
def prepare(
    official_dir: Annotated[
        Path,
        typer.Argument(metavar="OFFICIAL_DIR", help="Folder of official files or of longvale annotate, or one file."),
    ],
    output: Annotated[Path, typer.Option(help="Folder to write; it must not exist.")],
    invalid: Annotated[
        str, typer.Option(help="When rows are wrong: stop, drop them, or keep them where columns can hold them.")
    ] = "stop",
    max_shard_size: Annotated[str, typer.Option(help="Maximum size of a file before compression.")] = "500MB",
    card: Annotated[
        Path | None, typer.Option(help="README.md to use; its YAML is completed.", show_default="LongVALE's")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write the data as Parquet.

    Plain load_dataset and the Hub's viewer read it without this library. All rows are checked, and what is wrong is
    listed with its remedy.
    """
    from longvale.data.publish.prepare import InvalidData
    from longvale.data.publish.prepare import prepare as run

    try:
        result = run(
            official_dir, output, invalid=invalid, max_shard_size=max_shard_size, card=card, progress=not quiet
        )
    except InvalidData as error:
        echo("\n".join(map(str, error.problems)), err=True)
        raise ValueError(f"{len(error.problems)} problems; correct the files, or give --invalid drop or keep") from None
    for problem in result.problems:
        echo(str(problem), err=True)
    for name, splits in result.written.items():
        echo(f"{name}: " + ", ".join(f"{of.rows:,} {split}" for split, of in splits.items()))
    size = sum(of.file_bytes for splits in result.written.values() for of in splits.values())
    echo(f"{output}: {size / 1e6:,.1f} MB of Parquet, {len(result.problems)} problems")


@data.command(epilog="Example: longvale data restore longvale --output official")
def restore(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `longvale data prepare` wrote.")],
    output: Annotated[Path, typer.Option(help="Folder to write; it must not exist.")],
) -> None:
    """Write official files from Parquet.

    The reverse of prepare, without loss.
    """
    from longvale.data.publish.prepare import restore as run

    echo("\n".join(str(path) for path in run(folder, output)))


@app.command(epilog="Example: longvale push-dataset longvale me/longvale --dry-run")
def push_dataset(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `longvale data prepare` wrote.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Dataset on the Hub, such as me/longvale.")],
    private: Annotated[bool, typer.Option("--private", help="If the repository is made, make it private.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be uploaded, and upload nothing.")
    ] = False,
) -> None:
    """Put a prepared data set on the Hub.

    Its checksums are compared first. The account is that of `hf auth login`, or of the variable HF_TOKEN.
    """
    from longvale.data.publish.prepare import check_prepared
    from longvale.hub import format_upload, plan_upload, push

    check_prepared(folder)
    upload = plan_upload(folder, repo, "dataset")
    echo(format_upload(upload))
    echo("nothing sent: --dry-run" if dry_run else push(upload, private=private))
