"""Full evaluation of a model: generation, scoring and report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoints.loading import split_weights
from ..data.sources import load_videos
from ..io import load_json
from ..tasks import TASKS, check_tasks, load_predictions
from .analysis.ablation import ablation
from .benchmarks.judge import Judge
from .generation.distributed import join_processes
from .generation.generate import Split, annotations_path, generate, load_questions
from .generation.model import ModelLike, load_model
from .generation.prediction_log import run_path
from .reporting.report import TITLE, write_report
from .reporting.zero_shot import write_zero_shot_report
from .scoring.checklist import add_checklist
from .scoring.metrics import choose_metrics
from .scoring.readings import asked_times
from .scoring.score import ADDED, save_scores, score, score_predictions
from .scoring.validate import errors_named


def evaluate(
    model: ModelLike,
    data: str | os.PathLike,
    output: str | os.PathLike,
    *,
    split: Split = "test",
    device: str | None = None,
    protocol: str = "strict",
    judge: Judge | None = None,
    metrics: Sequence[str] = (),
    with_ablation: bool = False,
    training_curves: Sequence[Mapping[str, Any]] | None = None,
    report_videos: int = 5,
    title: str = TITLE,
    **options: Any,
) -> dict[str, Any] | None:
    """Generate answers, score them and write `output/{predictions.jsonl,scores.json,report.html}`.

    Repeating an interrupted call resumes it and produces the same files.

    Args:
        model: folder, Hub ID, or (model, processor) pair.
        data: folder that contains `longvale-annotations-eval.json`, or the official file of a zero-shot benchmark, and
            `features` or `videos`.
        output: output folder, created if needed.
        split: "test" or "train"; for zero-shot benchmarks also "validation".
        device: device such as "cpu"; by default an accelerator if available.
        protocol, judge, metrics: scoring options, see [`score`].
        with_ablation: also run the modality ablation, see [`ablation`]; writes `ablation.json`.
        training_curves: curves to show in the report, each with `name`, `steps` and `loss`.
        report_videos: number of videos to show in the report.
        title: title of the report.
        options: options of [`generate`], such as `tasks`, `features`, `batch_size`, `limit`, `overwrite`, `progress`,
            and those of [`longvale.checkpoints.loading.Weights`]. With `limit` or `skip_missing`, only answered
            questions are scored; the others are counted as missing.

    Returns:
        The scores as in `scores.json` and, under `videos`, the scores per video. With several processes, the first
        returns the scores and the others None.

    Raises:
        FileNotFoundError, ValueError: as in [`generate`] and [`score`].
    """
    output, tasks = Path(output), check_tasks(options.get("tasks", ["all"]))
    processes = join_processes()
    if any(task not in TASKS for task in tasks):
        if metrics:
            raise ValueError(ADDED)
        if with_ablation:
            raise ValueError("the ablation is of LongVALE's grounding; leave it out with zero-shot tasks")
        references, _, _ = load_questions(data, tasks, split, prompt=options.get("prompt"))
        annotations = {}
    else:
        if judge is not None and "dense_captioning" not in tasks:
            raise ValueError(f"--judge judges dense captions and zero-shot answers; the tasks are {', '.join(tasks)}")
        choose_metrics(metrics, tasks)  # before the questions are answered
        references = annotations_path(data, split)
        # Validate the annotations before loading the model, which may take minutes.
        annotations = {annotation.video_id: annotation for annotation in load_videos(references)}
    if with_ablation and options.get("adapter"):
        raise ValueError("the ablation is of LongVALE's own model; leave it out with an adapter")
    if options.get("adapter"):
        pair = model
    else:
        weights, options = split_weights(options)
        pair = load_model(model, device or processes.device, **weights)
    log = generate(pair, data, output / "predictions.jsonl", split=split, device=device, **options)
    ablated = None
    if with_ablation:
        left_out = ("tasks", "modalities", "zero_features")
        ablated = ablation(pair, data, output, split=split, **{k: v for k, v in options.items() if k not in left_out})
    if processes.rank:
        return None
    partial = options.get("limit") is not None or options.get("skip_missing", False)
    progress = options.get("progress", True)
    if not annotations:
        scores = score(log, references, protocol=protocol, partial=partial, judge=judge, progress=progress)
        save_scores(scores, output / "scores.json")
        write_zero_shot_report(output / "report.html", scores, load_json(run_path(log)), title=title)
        return scores
    predictions = load_predictions(log)
    with errors_named(log):
        options = {"protocol": protocol, "partial": partial, "metrics": metrics, "times": asked_times(log)}
        scores = score_predictions(predictions, annotations, **options)
    if judge is not None:
        scores = add_checklist(scores, log, predictions, annotations, judge, progress=progress)
    save_scores(scores, output / "scores.json")
    write_report(
        output / "report.html",
        scores,
        annotations,
        predictions,
        ablation=ablated,
        training_curves=training_curves,
        videos=report_videos,
        title=title,
    )
    return scores
