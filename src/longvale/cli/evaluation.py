"""Commands for evaluation: generate, score, evaluate, report, ask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .base import ModelCommand, app, echo
from .groups import PanelCommand, arguments, grouped
from .options import (
    Data,
    GenerationOptions,
    InputOptions,
    JudgeOptions,
    MaxNewTokens,
    Metrics,
    Model,
    QuestionOptions,
    RunOptions,
    ThirdPartyOptions,
    WeightOptions,
)


@app.command(
    cls=ModelCommand, epilog="Example: longvale generate demo/model --data demo/corpus --output predictions.jsonl"
)
@grouped
def generate(
    model: Model,
    data: Data,
    output: Annotated[Path, typer.Option(help="Prediction log to write; an unfinished run is resumed.")],
    questions: QuestionOptions,
    inputs: InputOptions,
    modalities: Annotated[str, typer.Option(help="Modalities that the model receives.")] = "visual,audio,speech",
    *,
    generation: GenerationOptions,
    adapter: ThirdPartyOptions,
    weights: WeightOptions,
    run: RunOptions,
) -> None:
    """Let a model answer a benchmark's questions.

    Answers are on disk as soon as their batch is done, and are not asked for again. Over several processes:
    accelerate launch -m longvale generate ...
    """
    from longvale.evaluation.generation import generate as library
    from longvale.evaluation.generation.prediction_log import format_skipped

    options = arguments(questions, inputs, generation, adapter, weights, run)
    log = library.generate(model, data, output, modalities=modalities.split(","), **options)
    echo("\n".join([f"answers: {log}", *format_skipped(log)]))


@app.command(
    cls=PanelCommand,
    epilog="Example: longvale score predictions.jsonl --references demo/corpus/longvale-annotations-eval.json "
    "--output scores.json",
)
@grouped
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
    protocol: Annotated[
        str,
        typer.Option(
            help="Protocol: strict, or official as published; of music_avqa strict, videollama2, crema, tdc_video."
        ),
    ] = "strict",
    partial: Annotated[bool, typer.Option("--partial", help="Leave out questions without an answer.")] = False,
    metric: Metrics = None,
    reader: Annotated[
        str | None,
        typer.Option(
            help="Time format of a log that other code wrote (JSON, JSONL or CSV): auto, or see longvale list.",
            show_default="a log of longvale; auto with --columns",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Columns of such a log: some of video,answer,question,event,task,id as video=vid,answer=info.reply.",
            show_default="common names",
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Instead, compare two files of --per-video.", show_default=False),
    ] = None,
    *,
    judge: JudgeOptions,
) -> None:
    """Score a log of answers against annotations.

    Or, with --compare, print the difference of two runs and its confidence interval (paired bootstrap over videos).
    """
    from longvale.evaluation.scoring.compare import compare_files, format_comparison
    from longvale.evaluation.scoring.score import format_scores, save_scores
    from longvale.evaluation.scoring.score import score as run

    if compare is not None:
        if predictions is not None or references is not None:
            raise ValueError("--compare takes no other options: it takes two files that --per-video wrote")
        echo(format_comparison(compare_files(*compare), [str(path) for path in compare]))
        return
    if predictions is None or references is None:
        raise ValueError("give PREDICTIONS and --references ANNOTATIONS, or --compare A B")
    names = None if tasks is None else tasks.split(",")
    if reader is not None or columns is not None:
        from longvale.evaluation.scoring.foreign import score_foreign_log

        if judge.judge is not None:
            raise ValueError("--judge is for zero-shot tasks; leave it out with --reader and --columns")
        kept = {"protocol": protocol, "partial": partial, "metrics": metric or ()}
        named = {"reader": reader or "auto", "columns": _columns(columns), "tasks": names}
        scores, log = score_foreign_log(predictions, references, **named, **kept)
        echo("\n".join(log.lines()), err=True)
    else:
        options = {"tasks": names, "protocol": protocol, "partial": partial, "metrics": metric or ()}
        scores = run(predictions, references, **options, **judge.arguments())
    for path, by_video in ((output, False), (per_video, True)):
        if path is not None:
            save_scores(scores, path, by_video=by_video)
    echo(format_scores(scores))


def _columns(text: str | None) -> dict[str, str]:
    """Read `name=path,name=path`."""
    pairs = [pair.partition("=") for pair in (text or "").split(",") if pair]
    if wrong := next((name for name, equals, path in pairs if not equals or not path), None):
        raise ValueError(f"--columns must be pairs such as video=vid,answer=pred, not {wrong!r}")
    return {name.strip(): path.strip() for name, _, path in pairs}


@app.command(cls=ModelCommand, epilog="Example: longvale evaluate demo/model --data demo/corpus --output evaluation")
@grouped
def evaluate(
    model: Model,
    data: Data,
    output: Annotated[Path, typer.Option(help="Folder for answers, scores and report; an unfinished run is resumed.")],
    questions: QuestionOptions,
    inputs: InputOptions,
    generation: GenerationOptions,
    adapter: ThirdPartyOptions,
    judge: JudgeOptions,
    metric: Metrics = None,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Also answer with modalities left out (ablation).")
    ] = False,
    card: Annotated[
        Path | None,
        typer.Option(
            help="Model card whose table of scores to fill in; if all of LongVALE's test split was asked, also writes "
            ".eval_results/longvale.yaml next to it, for the Hub.",
            show_default="none",
        ),
    ] = None,
    *,
    weights: WeightOptions,
    run: RunOptions,
) -> None:
    """Generate, score and report.

    Leaves predictions.jsonl, scores.json and report.html, and ablation.json if asked for. Over several processes:
    accelerate launch -m longvale.evaluation ...
    """
    from longvale.evaluation import evaluate as library
    from longvale.evaluation.analysis.ablation import format_ablation
    from longvale.evaluation.generation.prediction_log import format_skipped
    from longvale.evaluation.scoring.runs import LOG_NAME
    from longvale.evaluation.scoring.score import format_scores
    from longvale.io import load_json

    options = arguments(questions, inputs, generation, adapter, judge, weights, run)
    scores = library.evaluate(model, data, output, with_ablation=ablation, metrics=metric or (), **options)
    if scores is None:
        return  # the first process prints the scores
    echo("\n".join([format_scores(scores), *format_skipped(output / LOG_NAME)]))
    if ablation:
        echo(f"\n{format_ablation(load_json(output / 'ablation.json'))}")
    echo(f"report: {output / 'report.html'}")
    if card is not None:
        from longvale.checkpoints.card import fill_evaluation
        from longvale.evaluation.reporting.hub_results import save_hub_results
        from longvale.evaluation.scoring.score import table_columns

        fill_evaluation(card, scores, table_columns(scores), f"{data.name}, {questions.split} split")
        echo(f"card: {card}")
        if results := save_hub_results(card.parent, scores):
            echo(f"scores for the Hub: {results}")


@app.command(
    epilog="Example: longvale report base tuned --references demo/corpus/longvale-annotations-eval.json "
    "--output report.html"
)
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Logs of answers, or folders of longvale evaluate.")
    ],
    references: Annotated[Path, typer.Option(help="Annotations (JSON).")],
    output: Annotated[Path, typer.Option(help="Page to write (HTML).")],
    protocol: Annotated[str, typer.Option(help="Protocol: strict, or official as published.")] = "strict",
    partial: Annotated[bool, typer.Option("--partial", help="Compare the questions that all runs answered.")] = False,
    videos: Annotated[int, typer.Option(help="Number of the best, worst and most different videos to show.")] = 2,
    published: Annotated[
        bool, typer.Option("--published", help="Show scores that others report, a table per protocol and parser.")
    ] = False,
) -> None:
    """Compare runs on one page.

    Scores with their intervals, what they depend on, timelines of the best, worst and most different videos. The runs
    have answered the same questions; the others are compared with the first.
    """
    from longvale.evaluation.reporting.comparison import write_run_report

    options = {"protocol": protocol, "partial": partial, "videos": videos, "published": published}
    page = write_run_report(runs, references, output, **options)
    echo(f"report: {page}")


@app.command(
    cls=ModelCommand,
    epilog='Example: longvale ask demo/model demo/corpus/videos/test_0000.mp4 --task grounding "A bell rings."',
)
@grouped
def ask(
    model: Model,
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="Video file.")],
    question: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUESTION...",
            help="About the video; with --task grounding the EVENT, with --task segment_captioning FROM TO in seconds. "
            "Without a question: which events there are, and when.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Task in the benchmark's wording: grounding, dense_captioning or segment_captioning.",
            show_default="a free question",
        ),
    ] = None,
    max_new_tokens: MaxNewTokens = None,
    plot: Annotated[
        Path | None, typer.Option(help="Name of a picture to draw them in, as PNG and SVG.", show_default="none")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="File for them: .json, .vtt, .srt, .csv or .activitynet.json.", show_default="none"),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", help="Exporter for --output; see longvale list exporters.", show_default="by its suffix"
        ),
    ] = None,
    *,
    weights: WeightOptions,
) -> None:
    """Ask a model one question about a video.

    Without a question it is asked for all events. Events that the answer names are drawn on a timeline, and saved if
    asked for. --task words the question as the model was tuned on it.
    """
    from longvale.evaluation.ask import ask as run
    from longvale.evaluation.ask import format_answer
    from longvale.events import Annotation
    from longvale.exports import exporter_of, save_events

    if format is not None and output is None:
        raise ValueError("--format is the format of --output; give the file by --output")
    exporter = None if output is None else exporter_of(output, format)  # before the model is loaded, which takes long
    words, span = _question(question or [], task)
    answer = run(model, video, words, task=task, span=span, max_new_tokens=max_new_tokens, **weights.arguments())
    echo(format_answer(answer))
    if output is not None:
        save_events(Annotation(video.stem, answer.duration, answer.events), output, exporter)
        echo(f"events: {output}")
    if plot is not None and not answer.events:
        echo("longvale: note: the answer names no event, so there is nothing to draw", err=True)
    elif plot is not None:
        from longvale.evaluation.reporting.plot import plot_answer

        echo("\n" + "\n".join(str(path) for path in plot_answer(answer, plot)))


def _question(words: list[str], task: str | None) -> tuple[str | None, tuple[float, float] | None]:
    """Return the question, or the time range of segment captioning."""
    if task == "segment_captioning" and len(words) == 2:
        try:
            return None, (float(words[0]), float(words[1]))
        except ValueError:
            raise ValueError(f"FROM and TO must be seconds, such as 6 30, not {' '.join(words)!r}") from None
    return " ".join(words) if words else None, None
