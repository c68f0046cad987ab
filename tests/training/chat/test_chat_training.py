"""Training of chat models by the recipe: in this process, and marked slow as a user runs it."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from tiny_hub import CHAT_BUILDERS

from longvale.evaluation.adapters.chat import load_chat_model
from longvale.training.chat.arguments import parse_chat_arguments
from longvale.training.chat.trainer import ChatRun, find_projectors
from longvale.training.recipes import recipes_dir

#: Two small batches a step; dropout of the LoRA makes the random states matter.
OPTIONS = {
    "dataset_config": "grounding", "frames": 4, "frame_size": 32, "per_device_train_batch_size": 2, "max_steps": 3,
    "gradient_accumulation_steps": 2, "logging_steps": 1, "save_steps": 1, "save_total_limit": 3, "lora_r": 4,
    "lora_dropout": 0.1, "learning_rate": 5e-3, "report_to": "none", "train_projector": True, "disable_tqdm": True,
}  # fmt: skip
LOAD = """
import sys
from longvale.evaluation.adapters.chat import ChatAdapter
from longvale.evaluation.adapters.media import RawVideos
videos = RawVideos(sys.argv[2], frames=4, size=32)
adapter = ChatAdapter(sys.argv[1], device="cpu", videos=videos, annotations={}, limits={})
print(type(adapter.model).__name__, adapter.model.config.time_format)
print(ascii(adapter.reply(adapter.watch("v0"), "When?", 4)))
"""


def words(model, corpus, output, **options):
    options = {"model_name_or_path": model, "data_dir": corpus, "output_dir": output, **OPTIONS, **options}
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


@pytest.fixture
def recipe(monkeypatch, capsys):
    """Run the recipe in this process and return what it prints."""

    def call(*arguments, code=None, **options):
        monkeypatch.setattr(sys, "argv", ["sft.py", *words(*arguments, **options)])
        try:
            runpy.run_path(str(recipes_dir() / "sft.py"), run_name="__main__")
        except SystemExit as stopped:
            assert stopped.code == code
        else:
            assert code is None
        return capsys.readouterr()

    return call


def losses(output):
    history = json.loads((output / "log_history.json").read_text())
    return {entry["step"]: float(entry["loss"]) for entry in history if "loss" in entry}


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def check_moved(before, after, model):
    """The LoRA of the language model and the projectors, and nothing else."""
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if ".lora_" in name or ".modules_to_save." in name}
    language = next(name for name, part in model.named_modules() if part is model.get_decoder())
    assert all(f".{language}." in name for name in moved if ".lora_" in name)
    # Of two layers or one, with A and B: four of attention, and three of the other part where it is not of experts.
    assert sum(".lora_" in name for name in moved) >= 8
    projectors = {
        name.split(".modules_to_save")[0].removeprefix("base_model.model.")
        for name in moved - {name for name in moved if ".lora_" in name}
    }
    assert projectors == set(find_projectors(model))
    for part in ("embed_tokens", "visual.blocks", "audio_tower.layers", "vision_model.encoder", "lm_head"):
        assert not any(part in name for name in moved)


def train_two_steps(name, folder, corpus, output):
    run = ChatRun(*parse_chat_arguments(words(folder, corpus, output, max_steps=2, save_strategy="no")))
    trainer = run.set_up()
    before = weights(trainer.model)
    trainer.train()
    check_moved(before, weights(trainer.model), CHAT_BUILDERS[name]()[0])
    return trainer


def check_videos_matter(trainer):
    collate = trainer.data_collator.collate
    rows = [trainer.train_dataset[index] for index in (0, 2, 4, 6)]  # one of each video
    shuffled = [row | {"video": other["video"]} for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)]
    model, batches = trainer.model.eval(), [collate(rows), collate(shuffled), collate(rows)]
    with torch.no_grad():
        right, wrong, again = (model(**batch) for batch in batches)
    # Repeated to the bit; other videos change it by ten times the rounding of a float32 or more, untrained as it is.
    assert torch.equal(right.loss, again.loss) and abs(float(right.loss - wrong.loss)) > 5e-6


@pytest.mark.parametrize(
    "name", ["Qwen2.5-VL", *(pytest.param(n, marks=pytest.mark.slow) for n in CHAT_BUILDERS if n != "Qwen2.5-VL")]
)
def test_what_is_to_be_trained_moves_and_videos_matter(name, chat_folder, chat_corpus, tmp_path):
    check_videos_matter(train_two_steps(name, chat_folder(name), chat_corpus, tmp_path / "out"))


def test_a_run_resumes_with_the_same_losses_and_leaves_a_checkpoint(chat_folder, chat_corpus, tmp_path, recipe):
    folder, whole, cut = chat_folder("Qwen2.5-VL"), tmp_path / "whole", tmp_path / "cut"
    printed = recipe(folder, chat_corpus, whole)
    assert "8 conversations (longvale, grounding; times: seconds; 4 frames, without sound), 4 a step" in printed.out
    expected = losses(whole)
    assert sorted(expected) == [1, 2, 3]
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoint-3")
    (cut / "config.json").unlink()  # a run that was killed has not merged
    assert f"starts from {cut / 'checkpoint-2'}" in recipe(folder, chat_corpus, cut).out
    assert losses(cut) == pytest.approx(expected, abs=1e-6)
    assert "finished by an earlier run" in recipe(folder, chat_corpus, cut).out

    merged, processor = load_chat_model(cut, "cpu")
    assert merged.config.time_format == "seconds" and processor.chat_template
    base, _ = load_chat_model(folder, "cpu")
    changed = {name for name, value in weights(base).items() if not torch.equal(value, weights(merged)[name])}
    assert any("q_proj" in name for name in changed) and any("merger" in name for name in changed)
    assert not any("embed_tokens" in name or "blocks" in name for name in changed)

    (cut / "config.json").unlink()  # killed before the merge
    assert f"merged {cut / 'checkpoint-3'}" in recipe(folder, chat_corpus, cut).out
    again, _ = load_chat_model(cut, "cpu")
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(merged).items())
    said = recipe(folder, chat_corpus, cut, code=2, times="clock").err
    assert "was made with times 'seconds', not 'clock'" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset_config": "events"}, "error: dataset_config: 'events' has no conversations"),
        ({"dtype": "bfloat16", "bf16": False}, "error: train_projector needs --bf16 true"),
        ({"lora_modules_to_save": "nothing"}, "error: lora_modules_to_save"),
        ({"load_in_4bit": True}, "error: --load-in-4bit needs"),
        ({"attn_implementation": "nothing"}, "error: "),
        ({"dataset_name": "nowhere"}, "error: "),
    ],
)
def test_what_is_wrong_is_told_in_one_line(chat_folder, chat_corpus, tmp_path, recipe, options, message):
    printed = recipe(chat_folder("Qwen2.5-VL"), chat_corpus, tmp_path / "out", code=2, **options)
    assert printed.err.splitlines()[-1].startswith(message)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_accumulation(chat_folder, chat_corpus, tmp_path, recipe):
    """Batches of a process may have no sound; without dropout, whose random states differ."""
    folder, shared = chat_folder("Qwen2.5-Omni"), {"max_steps": 2, "save_strategy": "no", "lora_dropout": 0.0}
    one = recipe(folder, chat_corpus, tmp_path / "one", **shared)
    assert "4 a step (processes: 1, batch: 2, accumulated: 2)" in one.out
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    script = [str(recipes_dir() / "accelerate" / "cpu_two_processes.yaml"), str(recipes_dir() / "sft.py")]
    given = words(folder, chat_corpus, tmp_path / "two", **shared, gradient_accumulation_steps=1)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([*launch, *script, *given], env=environment, check=True)
    first, second = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert second[1] == pytest.approx(first[1], abs=1e-5)
    assert second[2] == pytest.approx(first[2], abs=1e-4)  # after a step whose gradients were summed in another order


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAT_BUILDERS)
def test_a_killed_run_resumes_and_loads_in_a_new_interpreter(name, chat_folder, chat_corpus, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    python = [sys.executable, str(recipes_dir() / "sft.py")]

    def start(output):
        return subprocess.Popen([*python, *words(chat_folder(name), chat_corpus, output)], env=environment)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait() == 0
    process, deadline = start(killed), time.monotonic() + 120
    while not (killed / "checkpoint-1").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (killed / "checkpoint-1").exists() and not (killed / "config.json").exists()
    assert start(killed).wait() == 0
    assert losses(killed) == pytest.approx(losses(whole), abs=1e-6) and len(losses(killed)) == 3
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(killed), str(chat_corpus / "videos")],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    kind, reply = done.stdout.splitlines()
    assert kind == f"{type(CHAT_BUILDERS[name]()[0]).__name__} seconds" and len(reply) > 2
