import json

import numpy as np
import pytest
import torch
from media_files import write
from tiny_hub import CHAT_BUILDERS


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory):
    """A folder of a tiny model by its name, saved once."""
    folders = {}

    def of(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("chat") / name
            torch.manual_seed(0)
            for part in CHAT_BUILDERS[name]():
                part.save_pretrained(folders[name])
        return folders[name]

    return of


@pytest.fixture(scope="session")
def chat_corpus(tmp_path_factory):
    """Official files of four videos with exact times, in `videos`; the last two have no sound."""
    root = tmp_path_factory.mktemp("chat-corpus")
    (root / "videos").mkdir()
    annotations, dialogues = {}, []
    for number in range(4):
        name, length = f"v{number}", 6.0 + 2 * number
        noise = np.random.default_rng(number).normal(0, 0.2, (1, int(length * 16_000))).astype(np.float32)
        write(
            root / "videos" / f"{name}.mp4", pictures=int(length * 5), rate=5, first_number=16 * number, per_number=4,
            sound=noise if number < 2 else None, sound_rate=16_000,
        )  # fmt: skip
        annotations[name] = {
            "duration": length, "timestamps": [[1.0, 2.5], [3.0, length]],
            "sentences": [f"Picture {number} is seen.", f"Noise {number} is heard."],
        }  # fmt: skip
        turns = [
            ("human", f"<video>\nWhen is picture {number} seen?"), ("gpt", "From <s0> to <e0>."),
            ("human", "What happens from <s1> to <e1>?"), ("gpt", f"Noise {number} is heard."),
        ]  # fmt: skip
        times = {"<s0>": 1.0, "<e0>": 2.5, "<s1>": 3.0, "<e1>": length}
        dialogues.append({
            "id": name, "conversations": [{"from": who, "value": text} for who, text in turns],
            "meta": {"duration": length, "token": times},
        })  # fmt: skip
    (root / "longvale-annotations-training.json").write_text(json.dumps(annotations))
    (root / "longvale-annotations-eval.json").write_text(json.dumps(annotations))
    (root / "longvale-sft-bp.json").write_text(json.dumps(dialogues))
    return root
