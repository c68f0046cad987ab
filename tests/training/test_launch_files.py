"""Two steps with each launch file that a CPU can run; the others are read by accelerate in test_stage_config.py."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from longvale.checkpoints.loading import load_checkpoint
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.training.recipes import recipes_dir

ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "HF_HUB_OFFLINE": "1",
    "DS_ACCELERATOR": "cpu",
}  # fmt: skip


def losses(corpus, base, output, launch, processes):
    recipes = recipes_dir()
    options = {
        "config": recipes / "configs" / "boundary_perception.yaml", "model": base, "data_dir": corpus,
        "features_dir": corpus / "features", "output_dir": output, "max_steps": 2, "effective_batch_size": 8,
        "per_device_train_batch_size": 2, "logging_steps": 1, "save_steps": 1, "lora_dropout": 0.0, "lora_r": 4,
        "learning_rate": 1e-3, "warmup_steps": 0, "dataloader_num_workers": 0, "report_to": "none",
        "gradient_checkpointing": False, "weight_decay": 0.0,
    }  # fmt: skip
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    command += [str(recipes / "accelerate" / f"{launch}.yaml"), "--num_processes", str(processes)]
    command += [str(recipes / "sft.py"), "--use_cpu", "true"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    history = json.loads((output / "log_history.json").read_text())
    return [float(entry["loss"]) for entry in history if "loss" in entry]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed (pip install deepspeed)")
@pytest.mark.parametrize("launch", ["zero2", "zero3"])
def test_zero_gives_the_losses_of_one_process_and_a_checkpoint(corpus, base, tmp_path, launch):
    expected = losses(corpus, base, tmp_path / "one", "cpu", 1)
    found = losses(corpus, base, tmp_path / launch, launch, 2)
    assert len(expected) == 2 and found == pytest.approx(expected, abs=1e-3)  # logged with four digits
    alone = load_checkpoint(tmp_path / "one", LongVALEForConditionalGeneration, device="cpu")[0].state_dict()
    split = load_checkpoint(tmp_path / launch, LongVALEForConditionalGeneration, device="cpu")[0].state_dict()
    start = load_checkpoint(base, LongVALEForConditionalGeneration, device="cpu")[0].state_dict()
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    assert (alone[name] - start[name]).abs().max() > 1e-4
    assert (split[name] - alone[name]).abs().max() < 1e-5
