"""The whole system on synthetic videos: corpus, towers, base model, two tuning stages, evaluation, report."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longvale.checkpoints.writing import saving
from longvale.demo.checkpoint import build_checkpoint, corpus_options, sample_texts
from longvale.io import atomic_write, load_json
from longvale.run_log import claim, save_settings
from longvale.system.locks import hold

SETTINGS_FILE = "demo.json"
STAGES = ("boundary_perception", "instruction")


@dataclass(frozen=True)
class DemoSettings:
    """Sizes and numbers of steps; the defaults make a demo of some minutes on two cores.

    Args:
        seed: of the corpus, the weights and all orders.
        train_videos, test_videos: of the corpus.
        tower_epochs: passes of each tower over the training videos: visual, audio, speech.
        text_steps, look_up_steps: of the base model.
        stage_steps: of boundary perception and of instruction.
    """

    seed: int = 0
    train_videos: int = 160
    test_videos: int = 40
    tower_epochs: tuple[int, int, int] = (12, 3, 6)
    text_steps: int = 40
    look_up_steps: int = 650
    stage_steps: tuple[int, int] = (80, 64)


def run_demo(
    output: str | os.PathLike, seed: int = 0, progress: bool = True, settings: DemoSettings | None = None
) -> dict[str, Any]:
    """Run the demo, or resume it; finished parts are not run again.

    Args:
        output: folder. It gets `corpus/`, `models/{base,boundary_perception,instruction}`, `model/` (the last of them),
            `predictions.jsonl`, `scores.json`, `ablation.json`, `report.html` and `demo.json`, with the settings and
            the seconds that each part took.
        seed: used when no settings are given.
        progress: show progress bars.
        settings: sizes and numbers of steps.

    Returns:
        The scores, as [`longvale.evaluation.evaluate.evaluate`] returns them.

    Raises:
        Locked: if another run is using the same folder.
        ValueError: if `output` contains a demo with other settings.
        RuntimeError: if a tuning stage fails; it prints its own message before.
    """
    settings = settings or DemoSettings(seed=seed)
    output = Path(output)
    with hold(output, "demo", work="longvale demo"):
        return _run(output, settings, progress)


def _run(output: Path, settings: DemoSettings, progress: bool) -> dict[str, Any]:
    record = _Record(output / SETTINGS_FILE, settings)
    corpus, models = output / "corpus", output / "models"
    with record.part("corpus"):
        _make_corpus(corpus, settings, progress)
    if not (models / "base" / "config.json").is_file():
        with record.part("base"):
            _make_base(corpus, models, settings, progress)
    source = "base"
    for stage, steps in zip(STAGES, settings.stage_steps, strict=True):
        if not (models / stage / "config.json").is_file():
            with record.part(stage):
                tune(stage, models / source, corpus, models / stage, steps, settings.seed)
        source = stage
    _copy_checkpoint(models / source, output / "model")
    with record.part("evaluation"):
        return _evaluate(output, models, progress)


class _Record:
    """Content of `demo.json`: the settings that a folder was made with, and the seconds that each part took."""

    def __init__(self, path: Path, settings: DemoSettings) -> None:
        self.path, wanted = path, {"settings": asdict(settings), "seconds": {}}
        self.value = claim(path, wanted, recorded=["seconds"], remedy="give another output folder or delete this one")

    def part(self, name: str) -> _Timer:
        return _Timer(self, name)

    def add(self, name: str, seconds: float) -> None:
        before = self.value["seconds"].get(name, 0.0)
        self.value["seconds"][name] = round(before + seconds, 1)
        save_settings(self.path, self.value)


class _Timer:
    def __init__(self, record: _Record, name: str) -> None:
        self.record, self.name = record, name

    def __enter__(self) -> None:
        self.start = time.monotonic()

    def __exit__(self, *exception: object) -> None:
        self.record.add(self.name, time.monotonic() - self.start)


def _make_corpus(corpus: Path, settings: DemoSettings, progress: bool) -> None:
    from longvale.synthetic.corpus import synthesize

    synthesize(
        corpus,
        videos=settings.train_videos,
        test_videos=settings.test_videos,
        seed=settings.seed,
        options=corpus_options(),
        progress=progress,
    )


def _make_base(corpus: Path, models: Path, settings: DemoSettings, progress: bool) -> None:
    """Make the towers, the features, and the base model that the recipes start from."""
    from longvale.demo.base import fit_projectors, learn_to_look_up, name_times, pretrain_language_model
    from longvale.demo.towers import pretrain_towers
    from longvale.events import MODALITIES
    from longvale.extraction.extract import extract
    from longvale.synthetic.compositing import load_composites

    model, processor = build_checkpoint(settings.seed)
    epochs = dict(zip(MODALITIES, settings.tower_epochs, strict=True))
    pretrain_towers(model, processor, corpus, epochs=epochs, seed=settings.seed, progress=progress)
    # A stopped run may have left features of other towers: all are extracted again.
    shutil.rmtree(corpus / "features", ignore_errors=True)
    extract(corpus / "videos", corpus / "features", processor, model, progress=progress)

    composites = load_composites(corpus, corpus / "features", model.config)
    texts = list(sample_texts(800, settings.seed, corpus_options()))
    curves = {
        "language model": pretrain_language_model(
            model, processor, texts, steps=settings.text_steps, seed=settings.seed, progress=progress
        )
    }
    fit_projectors(model, processor, composites.bank)
    name_times(model, processor)
    curves["looking up"] = learn_to_look_up(
        model, processor, composites, steps=settings.look_up_steps, seed=settings.seed, progress=progress
    )
    models.mkdir(exist_ok=True)
    partial = models / ".base.partial"
    shutil.rmtree(partial, ignore_errors=True)
    with saving(partial):
        model.save_pretrained(partial)
    processor.save_pretrained(partial)
    with atomic_write(partial / "curves.json") as file:
        json.dump(curves, file)
    partial.rename(models / "base")


def tune(stage: str, model: Path, corpus: Path, output: Path, steps: int, seed: int) -> None:
    """Run a recipe as a user would: `accelerate launch recipes/sft.py --config ...`.

    Raises:
        RuntimeError: if it fails.
    """
    from longvale.training.recipes import run_sft

    run_sft(
        f"demo_{stage}.yaml",
        model=model,
        data_dir=corpus,
        features_dir=corpus / "features",
        output_dir=output,
        options=("--max_steps", str(steps), "--seed", str(seed)),
    )


def _copy_checkpoint(source: Path, target: Path) -> None:
    if (target / "config.json").is_file():
        return
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    leave = shutil.ignore_patterns("checkpoint-*", "adapter", "log_history.json", "settings.json", "runs")
    shutil.copytree(source, partial, ignore=leave)
    partial.rename(target)


def _evaluate(output: Path, models: Path, progress: bool) -> dict[str, Any]:
    from longvale.evaluation.evaluate import evaluate

    return evaluate(
        str(output / "model"),
        output / "corpus",
        output,
        with_ablation=True,
        training_curves=_curves(models),
        title="LongVALE demo",
        batch_size=32,
        max_new_tokens={"grounding": 12, "dense_captioning": 256, "segment_captioning": 32},
        progress=progress,
    )


def _curves(models: Path) -> list[Mapping[str, Any]]:
    """Return the loss curves of all trainings, for the report."""
    named: dict[str, list[Mapping[str, float]]] = dict(load_json(models / "base" / "curves.json"))
    for stage in STAGES:
        history = load_json(models / stage / "log_history.json")
        named[stage.replace("_", " ")] = [entry for entry in history if "loss" in entry]
    return [
        {"name": name, "steps": [point["step"] for point in curve], "loss": [point["loss"] for point in curve]}
        for name, curve in named.items()
    ]
