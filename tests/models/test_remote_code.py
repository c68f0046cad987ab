"""A saved checkpoint carries its code: it works where longvale cannot be imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import longvale

PROMPT = "USER: <video>\nWhat happens? ASSISTANT:"

#: Runs in a fresh interpreter: what the checkpoint answers about a video, without longvale.
ANSWER = """
import importlib.abc, json, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "longvale":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
try:
    import longvale
except ModuleNotFoundError:
    pass
else:
    sys.exit("longvale is there")

import torch
import transformers

folder, video, prompt = sys.argv[1:]
names = ["AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM"]
models = {name: getattr(transformers, name).from_pretrained(folder, trust_remote_code=True).eval() for name in names}
processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
inputs = processor(text=prompt, videos=video, return_tensors="pt")
generated = models["AutoModelForCausalLM"].generate(**inputs, max_new_tokens=8, do_sample=False)
with torch.no_grad():
    hidden_states = models["AutoModel"](**inputs).last_hidden_state
# What was loaded as remote code is saved with its code, and loads again.
again = folder + "-again"
models["AutoModelForCausalLM"].save_pretrained(again)
processor.save_pretrained(again)
model = transformers.AutoModelForCausalLM.from_pretrained(again, trust_remote_code=True).eval()
processor = transformers.AutoProcessor.from_pretrained(again, trust_remote_code=True)
inputs_again = processor(text=prompt, videos=video, return_tensors="pt")
print(json.dumps({
    "again": [type(part).__module__.split(".")[1] for part in (model, processor)],
    "generated again": model.generate(**inputs_again, max_new_tokens=8, do_sample=False).tolist(),
    "classes": {name: f"{type(part).__module__} {type(part).__name__}" for name, part in models.items()},
    "processor": f"{type(processor).__module__} {type(processor).__name__}",
    "generated": generated.tolist(),
    "sum": hidden_states.abs().sum().item(),
    "inputs": {name: list(value.shape) for name, value in inputs.items()},
}))
"""


@pytest.fixture(scope="module")
def checkpoint(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("remote") / "checkpoint"
    for part in shared:
        part.save_pretrained(folder)
    return folder


def run(program, *arguments, home):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(home / "modules"), "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_code_is_saved_with_the_weights(checkpoint):
    """Although the Auto classes know the model without it."""
    assert {path.name for path in checkpoint.glob("*.py")} == {
        "configuration_beats.py",
        "configuration_longvale.py",
        "feature_extraction_beats.py",
        "layers.py",
        "media.py",
        "media_decoder.py",
        "media_formats.py",
        "media_frames.py",
        "media_source.py",
        "modeling_beats.py",
        "modeling_longvale.py",
        "modeling_towers.py",
        "processing_longvale.py",
        "prompts.py",
        "video_processing_longvale.py",
    }
    package = Path(longvale.__file__).parent / "models"
    for path in checkpoint.glob("*.py"):
        assert path.read_bytes() == (package / path.name).read_bytes()
    assert len(json.loads((checkpoint / "config.json").read_text())["auto_map"]) == 6


@pytest.mark.slow
def test_a_process_without_longvale_gives_the_same_answer(checkpoint, shared, clip, tmp_path):
    told = run(ANSWER, checkpoint, clip, PROMPT, home=tmp_path)
    for name, where in told["classes"].items():
        module, _, kind = where.partition(" ")
        assert module.startswith("transformers_modules.") and module.endswith(".modeling_longvale")
        assert kind == ("LongVALEModel" if name == "AutoModel" else "LongVALEForConditionalGeneration")
    assert told["processor"].startswith("transformers_modules.")
    assert told["processor"].endswith(".processing_longvale LongVALEProcessor")

    model, processor = shared
    inputs = processor(text=PROMPT, videos=clip)
    assert told["inputs"] == {name: list(value.shape) for name, value in inputs.items()}
    generated = model.eval().generate(**inputs, max_new_tokens=8, do_sample=False)
    assert told["generated"] == generated.tolist()
    with torch.no_grad():
        assert told["sum"] == pytest.approx(model.model(**inputs).last_hidden_state.abs().sum().item(), rel=1e-4)

    again = checkpoint.with_name(f"{checkpoint.name}-again")
    assert {path.name for path in again.glob("*.py")} == {path.name for path in checkpoint.glob("*.py")}
    assert told["generated again"] == told["generated"]
    assert all(name.startswith("checkpoint") and name.endswith("again") for name in told["again"])  # its own code
