"""A corpus whose features tell what a video shows, in place of those of towers."""

import json
import random
from dataclasses import asdict

import numpy as np

from longvale.data.dialogues import boundary_dialogue, save_dialogues
from longvale.demo.checkpoint import AUDIO_WINDOW_FRAMES, NUM_FRAMES, TOWER_SIZE
from longvale.events import save_annotations
from longvale.features.store import save_features
from longvale.synthetic.compositing import Lanes, frame_times
from longvale.synthetic.corpus import EventRecord
from longvale.synthetic.instructions import instruction_dialogue
from longvale.synthetic.planning import COLOURS, SHAPES, SOUNDS, WORDS, SyntheticOptions, plan_video

TRAIN_VIDEOS, TEST_VIDEOS = 150, 2

#: Seconds of a sound window of the tiny model.
WINDOW_S = AUDIO_WINDOW_FRAMES / 100
OPTIONS = SyntheticOptions()
SHOWN = [None, *(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)]


def telling_features(plan):
    """Features that spell what they show: visual[:, i] for SHOWN[i], sound[:, i] for its share of the window."""
    duration = plan.annotation.duration
    lanes = Lanes((piece for pieces in plan.pieces for piece in pieces), duration)
    visual = np.eye(TOWER_SIZE, dtype=np.float32)[
        [SHOWN.index(lanes.shown(time)) for time in frame_times(NUM_FRAMES, duration)]
    ]
    windows = lanes.windows(WINDOW_S)
    audio = np.zeros((len(windows), TOWER_SIZE), np.float32)
    speech = np.zeros((len(windows), TOWER_SIZE), np.float32)
    for index, parts in enumerate(windows):
        for (sound, word), share in parts:
            if sound:
                audio[index, SOUNDS.index(sound)] += share
            if word:
                speech[index, WORDS.index(word)] += share
    return {"visual": visual, "audio": audio, "speech": speech}


def write_corpus(folder):
    """Write the files of a synthetic corpus without its videos, and such features; return the folder."""
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
