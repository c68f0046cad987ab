"""Experiments that tune the same model in several ways and evaluate each on the same questions."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from longvale.data.dialogues import boundary_dialogue, save_dialogues
from longvale.data.sources import ANNOTATION_FILES, DIALOGUE_STEMS
from longvale.evaluation.analysis.ablation import ablation
from longvale.evaluation.generation.generate import annotations_path, generate
from longvale.evaluation.scoring.score import score
from longvale.events import Annotation, load_annotations, save_annotations
from longvale.experiments.tables import bars, write_result
from longvale.synthetic.corpus import load_events
from longvale.synthetic.planning import Piece, plain_caption
from longvale.training.recipes import run_sft

_RECALLS = ("R@0.3", "R@0.5", "R@0.7")


def boundary_only(
    model: str,
    data: str | os.PathLike,
    output: str | os.PathLike,
    *,
    features: str | os.PathLike | None = None,
    configs: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    **evaluation: Any,
) -> list[dict[str, Any]]:
    """Measure whether boundary perception is enough to ground: first stage alone, second alone, both, and neither.

    Models that are already tuned in `output` are not tuned again.

    Args:
        model: base model of the stages.
        data: folder of the corpus.
        output: folder for the tuned models, the answers, `table.md`, `result.json` and the plot.
        features: feature store; by default `features` in `data`.
        configs: configuration of the recipe by stage; by default those of the demo.
        options: further options of `recipes/sft.py`, for example `("--max_steps", "20")`.
        evaluation: options of [`longvale.evaluation.generation.generate.generate`].

    Returns:
        One row per variant with the strict grounding scores.
    """
    output, features = Path(output), Path(features or Path(data, "features"))
    configs = {stage: f"demo_{stage}.yaml" for stage in ("boundary_perception", "instruction")} | dict(configs or {})
    stages = {
        "neither": (),
        "boundary perception": ("boundary_perception",),
        "instruction": ("instruction",),
        "both": ("boundary_perception", "instruction"),
    }
    rows = []
    for variant, steps in stages.items():
        source = model
        for number, stage in enumerate(steps, start=1):
            target = output / "models" / "+".join(steps[:number])
            _tune(configs[stage], source, data, features, target, options)
            source = str(target)
        log = generate(
            source, data, output / f"{variant.replace(' ', '_')}.jsonl", tasks=["grounding"], features=features,
            **evaluation,
        )  # fmt: skip
        found = _score(log, data, evaluation)["grounding"]
        rows.append({"stages": variant, **{name: float(found[name]) for name in ("mIoU", *_RECALLS)}})
    how = {"model": model, "data": str(data), "configs": configs, "options": list(options)}
    write_result(output, rows, how, bars(rows, "stages", ("mIoU", *_RECALLS), "Grounding after which stages"))
    return rows


def correlation_captions(
    model: str,
    data: str | os.PathLike,
    output: str | os.PathLike,
    *,
    plain: str | os.PathLike | None = None,
    features: str | os.PathLike | None = None,
    config: str = "boundary_perception.yaml",
    options: Sequence[str] = (),
    seed: int = 0,
    **evaluation: Any,
) -> list[dict[str, Any]]:
    """Measure the value of captions that state how the modalities are related: train and test on both kinds.

    Args:
        model: to start from.
        data: folder of the corpus; its captions are those with correlation.
        output: folder for the tuned models, their data, the answers, `table.md`, `result.json` and the plot.
        plain: folder with the official annotation files whose captions do not state relations; by default, for a
            synthetic corpus, captions that describe each event's pieces one after the other.
        features: feature store; by default `features` in `data`.
        config: of the recipe.
        options: further options of `recipes/sft.py`.
        seed: of the dialogues.
        evaluation: options of [`longvale.evaluation.generation.generate.generate`].

    Returns:
        One row per kind of training and kind of test captions, with grounding and segment captioning scores.
    """
    output, features = Path(output), Path(features or Path(data, "features"))
    kinds = {"with correlation": Path(data), "without": Path(plain) if plain else output / "data" / "without"}
    if plain is None:
        _write_plain(Path(data), kinds["without"])
    for kind, folder in kinds.items():
        target = output / "data" / f"dialogues_{kind.replace(' ', '_')}"
        target.mkdir(parents=True, exist_ok=True)
        rng = random.Random(seed)
        videos = load_annotations(folder / ANNOTATION_FILES["train"]).values()
        dialogues = [boundary_dialogue(video, rng) for video in videos if video.events]
        save_dialogues(dialogues, target / f"{DIALOGUE_STEMS['boundary_perception']}.json")
        _tune(config, model, target, features, output / "models" / kind.replace(" ", "_"), options)
    rows = []
    for trained in kinds:
        for asked, folder in kinds.items():
            log = generate(
                str(output / "models" / trained.replace(" ", "_")), folder,
                output / f"{trained}_asked_{asked}.jsonl".replace(" ", "_"),
                tasks=["grounding", "segment_captioning"], features=features, **evaluation,
            )  # fmt: skip
            found = _score(log, folder, evaluation)
            captions = found["segment_captioning"]
            rows.append(
                {"trained": trained, "asked": asked, "mIoU": float(found["grounding"]["mIoU"])}
                | {name: float(captions[name]) for name in ("CIDEr", "METEOR", "ROUGE_L")}
            )
    how = {"model": model, "data": str(data), "plain": str(plain), "config": config, "options": list(options)}
    named = [{**row, "captions": f"trained {row['trained']},\nasked {row['asked']}"} for row in rows]
    write_result(
        output,
        rows,
        how,
        bars(named, "captions", ("mIoU", "METEOR", "ROUGE_L"), "Captions with and without correlation"),
    )
    return rows


def modality_ablation(
    model: str, data: str | os.PathLike, output: str | os.PathLike, **evaluation: Any
) -> list[dict[str, Any]]:
    """Measure the value of each modality: grounding with V, V+A, V+S, V+A+S, and none; see [`ablation`].

    Args:
        model: folder or Hub id.
        data: folder of the corpus.
        output: folder for the answers, `ablation.json`, `table.md`, `result.json` and the plot.
        evaluation: options of [`longvale.evaluation.generation.generate.generate`].

    Returns:
        One row per group of events with the mIoU of each setting.
    """
    found = ablation(model, data, output, **evaluation)
    names = {"none": "nothing", "visual": "V", "visual+audio": "V+A", "visual+speech": "V+S", "all": "V+A+S"}
    rows = [
        {"events": group, "count": found["count"][group]} | {names[s]: float(value) for s, value in scores.items()}
        for group, scores in found["mIoU"].items()
    ]
    how = {"model": model, "data": str(data), "metric": found["metric"], "protocol": found["protocol"]}
    write_result(
        Path(output), rows, how, bars(rows, "events", list(names.values()), "Grounding mIoU by what the model gets")
    )
    return rows


def _tune(
    config: str, model: str, data: str | os.PathLike, features: Path, output: Path, options: Sequence[str]
) -> None:
    """Tune a model; for a tuned one, the recipe reports that it is finished or that the settings differ."""
    run_sft(config, model=model, data_dir=data, features_dir=features, output_dir=output, options=options)


def _score(log: Path, data: str | os.PathLike, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    return score(log, annotations_path(data), partial=evaluation.get("limit") is not None)


def _write_plain(data: Path, target: Path) -> None:
    """Write a synthetic corpus's annotations with captions that describe each event's pieces one after the other."""
    pieces: dict[str, dict[int, tuple[Piece, ...]]] = defaultdict(dict)
    for record in load_events(data):
        pieces[record.video_id][record.event_id] = record.pieces
    target.mkdir(parents=True, exist_ok=True)
    for name in ANNOTATION_FILES.values():
        plain: dict[str, Annotation] = {}
        for video_id, video in load_annotations(data / name).items():
            events = [replace(e, caption=plain_caption(pieces[video_id][i])) for i, e in enumerate(video.events)]
            plain[video_id] = replace(video, events=tuple(events))
        save_annotations(plain, target / name)
