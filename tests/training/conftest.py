import json
import random
from dataclasses import asdict

import pytest
from telling import OPTIONS, telling_features

from longvale.data.dialogues import boundary_dialogue, save_dialogues
from longvale.demo.checkpoint import build_checkpoint
from longvale.events import save_annotations
from longvale.features.store import save_features
from longvale.synthetic.corpus import EventRecord
from longvale.synthetic.instructions import instruction_dialogue
from longvale.synthetic.planning import plan_video

TRAIN_VIDEOS, TEST_VIDEOS = 150, 2


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """The files of a synthetic corpus without its videos, and features that tell what they show."""
    folder = tmp_path_factory.mktemp("corpus")
    plans = {
        "train": [plan_video(f"train_{i:04d}", 0, OPTIONS) for i in range(TRAIN_VIDEOS)],
        "test": [plan_video(f"test_{i:04d}", 0, OPTIONS) for i in range(TEST_VIDEOS)],
    }
    (folder / "synthetic.json").write_text(json.dumps({"format": 1, "seed": 0, "options": asdict(OPTIONS)}))
    with open(folder / "events.jsonl", "w") as file:
        for split, items in plans.items():
            name = {"train": "training", "test": "eval"}[split]
            annotations = {plan.annotation.video_id: plan.annotation for plan in items}
            save_annotations(annotations, folder / f"longvale-annotations-{name}.json")
            for plan in items:
                save_features(folder / "features", plan.annotation.video_id, telling_features(plan))
                for i, (event, pieces) in enumerate(zip(plan.annotation.events, plan.pieces, strict=True)):
                    record = EventRecord(plan.annotation.video_id, split, i, event, pieces)
                    file.write(json.dumps(record.to_json()) + "\n")
    rng = random.Random(0)
    save_dialogues(
        [boundary_dialogue(plan.annotation, rng, turns=2) for plan in plans["train"]], folder / "longvale-sft-bp.json"
    )
    save_dialogues(
        [instruction_dialogue(plan.annotation, plan.pieces, rng) for plan in plans["train"]],
        folder / "longvale-sft-it.json",
    )
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """An untrained tiny checkpoint."""
    folder = tmp_path_factory.mktemp("base")
    model, processor = build_checkpoint(vocab_videos=100)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def processor(base):
    from longvale.models.processing_longvale import LongVALEProcessor

    return LongVALEProcessor.from_pretrained(base)
