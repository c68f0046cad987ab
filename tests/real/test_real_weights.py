"""A real language model and real towers: put together, tuned, asked, saved, and asked again without longvale."""

import json
import os
import subprocess
import sys

import pytest
import torch
from weights import dinov2_small, smollm2, whisper_base

from longvale.checkpoints.loading import load_checkpoint
from longvale.models.configuration_beats import BeatsConfig
from longvale.models.modeling_beats import BeatsModel
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.synthetic.corpus import SyntheticOptions, synthesize
from longvale.training.recipes import recipes_dir

pytestmark = [pytest.mark.real, pytest.mark.timeout(1500)]

ENVIRONMENT = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "HF_HUB_OFFLINE": "1"}

ANSWER = """
import json, sys
sys.modules["longvale"] = None  # importing it fails
import torch, transformers
folder, video, question = sys.argv[1:]
model = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
prompt = processor.apply_chat_template(
    [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
)
inputs = processor(text=prompt, videos=video, return_tensors="pt")
with torch.inference_mode():
    print(json.dumps(model.generate(**inputs, max_new_tokens=12, do_sample=False)[0].tolist()))
"""


def run(*command, **environment):
    done = subprocess.run(
        [str(part) for part in command], env=ENVIRONMENT | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """SmolLM2, a DINOv2-style ViT, Whisper's encoder and a small random BEATs, by the command."""
    folder = tmp_path_factory.mktemp("real")
    torch.manual_seed(0)
    beats = BeatsConfig(hidden_size=192, num_hidden_layers=2, num_attention_heads=4, intermediate_size=384)
    BeatsModel(beats).save_pretrained(folder / "beats")
    options = ["--llm", smollm2(), "--vision", dinov2_small(), "--speech", whisper_base(), "--audio", folder / "beats"]
    run(sys.executable, "-m", "longvale", "init", *options, "--output", folder / "untrained")
    return folder / "untrained"


@pytest.fixture(scope="module")
def corpus(untrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "corpus"
    options = SyntheticOptions(size=32, fps=4, min_length_s=5, max_length_s=6)
    synthesize(folder, videos=1, test_videos=1, options=options, workers=1, progress=False)
    path = untrained / "processor_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"num_frames": 8}))  # a hundred of a video of five seconds are many
    videos, features = folder / "videos", folder / "features"
    run(sys.executable, "-m", "longvale", "features", videos, "--output", features, "--model", untrained, "-q")
    return folder


def tune(recipe, model, corpus, output):
    options = {
        "config": recipes_dir() / "configs" / f"{recipe}.yaml", "model": model, "data_dir": corpus,
        "features_dir": corpus / "features", "output_dir": output, "max_steps": 2, "effective_batch_size": 1,
        "per_device_train_batch_size": 1, "lora_r": 4, "dataloader_num_workers": 0, "learning_rate": 1e-3,
        "logging_steps": 1, "use_cpu": "true", "bf16": "false",
    }  # fmt: skip
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    run(sys.executable, recipes_dir() / "sft.py", *arguments)
    return output


def test_the_language_model_knows_its_words(untrained):
    """Its weights are where they belong: it goes on as anyone would."""
    model, processor = load_checkpoint(untrained, LongVALEForConditionalGeneration, device="cpu")
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=prompt, return_tensors="pt")
    answer = model.generate(**inputs, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
    assert "Paris" in processor.tokenizer.decode(answer)


def test_tuned_asked_saved_and_asked_again(untrained, corpus, tmp_path):
    stage2 = tune("boundary_perception", untrained, corpus, tmp_path / "boundary_perception")
    stage3 = tune("instruction", stage2, corpus, tmp_path / "instruction")
    model, processor = load_checkpoint(stage3, LongVALEForConditionalGeneration, device="cpu")
    start, _ = load_checkpoint(untrained, LongVALEForConditionalGeneration, device="cpu")
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, start.state_dict()[name])}
    assert {"model.audio_projector.weight", "model.speech_projector.weight"} <= moved
    assert any("q_proj" in name and "language_model" in name for name in moved)
    assert not [name for name in moved if "_tower." in name or "visual_projector" in name or "embed_tokens" in name]

    question, video = "<video>\nWhat happens?", next((corpus / "videos").glob("test_*.mp4"))
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
    )
    with torch.inference_mode():
        inputs = processor(text=prompt, videos=video, return_tensors="pt")
        expected = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0].tolist()
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    del model, start
    told = run(
        sys.executable, "-c", ANSWER, tmp_path / "saved", video, question, HF_MODULES_CACHE=str(tmp_path / "modules")
    )
    assert json.loads(told.splitlines()[-1]) == expected
