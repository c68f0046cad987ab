"""The whole evaluation of a model: answers, scores and the report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.sources import load_videos
from ..tasks import check_tasks, load_predictions
from .ablation import ablation
from .generate import Split, annotations_path, generate
from .model import ModelLike, load_model
from .report import TITLE, write_report
from .score import save_scores, score


def evaluate(
    model: ModelLike,
    data: str | os.PathLike,
    output: str | os.PathLike,
    *,
    split: Split = "test",
    device: str | None = None,
    with_ablation: bool = False,
    training_curves: Sequence[Mapping[str, Any]] | None = None,
    report_videos: int = 5,
    title: str = TITLE,
    **options: Any,
) -> dict[str, Any]:
    """Generate, score and report into `output/{predictions.jsonl,scores.json,report.html}`.

    A call that was killed goes on where it stopped and gives the same files.

    Args:
        model: folder, Hub id, or (model, processor) pair.
        data: folder that holds `longvale-annotations-eval.json` and `features` or `videos`.
        output: folder, made where needed.
        split: "test" or "train".
        device: such as "cpu"; by default an accelerator if there is one.
        with_ablation: also ask with modalities left out, see [`ablation`]; writes `ablation.json`.
        training_curves: to show in the report, each with `name`, `steps` and `loss`.
        report_videos: how many videos to show in the report.
        title: of the report.
        options: of [`generate`], for instance `tasks`, `features`, `batch_size`, `limit`, `overwrite`, `progress`. With
            `limit` or `skip_missing` the scores are of the questions that were asked, and count the others as missing.

    Returns:
        The scores.

    Raises:
        FileNotFoundError, ValueError: as [`generate`] and [`score`] do.
    """
    output, references = Path(output), annotations_path(data, split)
    # Before the model is loaded, which may take minutes.
    check_tasks(options.get("tasks", ["all"]))
    annotations = {annotation.video_id: annotation for annotation in load_videos(references)}
    pair = load_model(model, device)
    log = generate(pair, data, output / "predictions.jsonl", split=split, **options)
    partial = options.get("limit") is not None or options.get("skip_missing", False)
    scores = score(log, references, partial=partial)
    save_scores(scores, output / "scores.json")
    ablated = None
    if with_ablation:
        left_out = ("tasks", "modalities", "zero_features")
        ablated = ablation(pair, data, output, split=split, **{k: v for k, v in options.items() if k not in left_out})
    write_report(
        output / "report.html",
        scores,
        annotations,
        load_predictions(log),
        ablation=ablated,
        training_curves=training_curves,
        videos=report_videos,
        title=title,
    )
    return scores
