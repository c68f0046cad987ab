"""Options under the names of the recipes and of the commands, and messages that contain the option that helps."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

# Imported before any test replaces `generate`, whose name it takes over when it is first imported.
import longvale.evaluation.evaluate  # noqa: F401
from longvale.checkpoints.loading import load_checkpoint, weight_options
from longvale.evaluation.generation.model import load_model
from longvale.training.config import recipe_arguments

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture
def called(longvale, monkeypatch, tmp_path):
    """Arguments that a command hands to the function behind it: `called(path of the function, *words)`."""

    def call(target, *words):
        calls = []
        monkeypatch.setattr(target, lambda *a, **k: calls.append((a, k)) or tmp_path / "p")
        longvale(*words)
        ((positional, options),) = calls
        return [str(value) for value in positional], options

    return call


@pytest.mark.parametrize(
    "words",
    [
        "m --data d --output p",
        "--model m --data d --output p",
        "--data-dir d --model=m --output-dir p",
        "--data_dir d --output_dir=p --model_name_or_path m",
    ],
)
def test_a_command_takes_the_names_of_the_recipes(called, words):
    target = "longvale.evaluation.generation.generate.generate"
    positional, options = called(target, "generate", *words.split(), "--features_dir", "f", "--batch_size", 3)
    assert positional == ["m", "d", "p"] and str(options["features"]) == "f" and options["batch_size"] == 3


WEIGHTS = ["--dtype", "bfloat16", "--load-in-4bit", "--attn-implementation", "eager", "--device_map", "auto"]
LOADED = {"dtype": "bfloat16", "load_in_4bit": True, "attn_implementation": "eager", "device_map": "auto"}


def test_precision_reaches_the_models(called, tmp_path):
    words = ["--data", "d", "--output", "o", *WEIGHTS]
    for module in ("generation.generate", "evaluate"):
        command = module.rpartition(".")[2]
        _, options = called(f"longvale.evaluation.{module}.{command}", command, "m", *words)
        assert {name: options[name] for name in LOADED} == LOADED
    positional, _ = called("longvale.synthetic.corpus.synthesize", "synthesize", "--output", tmp_path, "--videos", 1)
    assert positional == [str(tmp_path)]


def test_ask_and_app_take_model_and_precision(longvale, tiny_model, tiny_corpus, monkeypatch):
    given = []

    def load(model, device=None, **options):
        given.append((str(model), options))
        raise ValueError("seen")

    video = tiny_corpus / "videos" / "test_0000.mp4"
    monkeypatch.setattr("longvale.evaluation.ask.load_model", load)
    longvale("ask", "--model", tiny_model, video, "What?", *WEIGHTS)
    pytest.importorskip("gradio")
    monkeypatch.setattr("longvale.app.server.load_model", load)
    longvale("app", "--model", tiny_model, *WEIGHTS)
    monkeypatch.setattr("longvale.serving.server.load_model", load)
    longvale("serve", tiny_model, *WEIGHTS)
    assert given == [(str(tiny_model), LOADED)] * 3


def test_a_device_map_instead_of_a_device(tiny_model, monkeypatch):
    from longvale.models.modeling_longvale import LongVALEForConditionalGeneration as Model

    load, given = Model.from_pretrained, {}
    monkeypatch.setattr(Model, "from_pretrained", lambda *a, **options: given.update(options) or load(*a, **options))
    model, _ = load_checkpoint(tiny_model, Model, device_map="auto", attn_implementation="eager")
    assert given["device_map"] == "auto" and not model.training
    assert model.config.get_text_config()._attn_implementation == "eager"
    with pytest.raises(ValueError, match="--device cpu and --device-map auto: give one of them"):
        load_checkpoint(tiny_model, Model, device="cpu", device_map="auto")
    with pytest.raises(ValueError, match="loaded already; give dtype and device_map where it is loaded"):
        load_model((model, None), dtype="bfloat16", device_map="auto")


def test_dtype_of_a_checkpoint(tiny_model):
    from longvale.models.modeling_longvale import LongVALEForConditionalGeneration

    model, _ = load_checkpoint(tiny_model, LongVALEForConditionalGeneration, device="cpu", dtype="bfloat16")
    assert model.lm_head.weight.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="--dtype must be one of float32, bfloat16, float16, not 'int3'"):
        load_checkpoint(tiny_model, LongVALEForConditionalGeneration, dtype="int3")


def test_what_four_bits_need_is_said_with_the_remedy(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr("longvale.checkpoints.loading.is_installed", lambda *modules: False)
    with pytest.raises(ValueError, match="needs bitsandbytes; pip install bitsandbytes, or give --dtype bfloat16"):
        weight_options(cpu, load_in_4bit=True)
    monkeypatch.setattr("longvale.checkpoints.loading.is_installed", lambda *modules: True)
    with pytest.raises(ValueError, match="needs a GPU, and the device is cpu; give --dtype bfloat16 instead"):
        weight_options(cpu, load_in_4bit=True)
    options = weight_options(torch.device("cuda:1"), dtype="float16", load_in_4bit=True)
    quantization = options["quantization_config"]
    assert quantization.bnb_4bit_compute_dtype == torch.float16 and quantization.load_in_4bit
    assert {"lm_head", "visual_tower", "speech_projector"} <= set(quantization.llm_int8_skip_modules)
    assert options["device_map"] == {"": torch.device("cuda:1")}


def test_a_folder_that_does_not_exist_is_named_before_the_hub(longvale, tiny_corpus, tmp_path):
    video = tiny_corpus / "videos" / "test_0000.mp4"
    words = {
        "ask": ["demo/modle", video, "What?"],
        "features": [video, "--output", tmp_path / "f", "--model", "demo/modle"],
        "init": ["--llm", "demo/modle", "--output", tmp_path / "i"],
        "annotate": [video, "--output", tmp_path / "a.json", "--visual-model", "demo/modle"],
    }
    for command, arguments in words.items():
        result = longvale(command, *arguments)
        assert result.exit_code == 2
        assert "demo/modle: cannot be loaded: the folder does not exist, and the Hub: " in result.stderr, result.stderr


def test_help_of_annotate_lists_the_commands_beside_it(longvale):
    result = longvale("annotate", "--help")
    listed = re.findall(r"^  annotate (\w+)  ", result.stdout, re.MULTILINE)
    assert listed == ["presets", "check", "export", "import", "agreement", "dialogues"]


def test_what_a_recipe_is_called_with():
    words = ["--output", "o", "--data=d", "--features", "f", "--videos-dir", "v", "--model_name_or_path", "m", "-x"]
    names = ["--output_dir", "o", "--data_dir=d", "--features_dir", "f", "--videos_dir", "v", "--model", "m", "-x"]
    assert recipe_arguments(words) == names
    unchanged = ["--max_steps", "3", "--config", "a-b.yaml", "--lora_r=4"]
    assert recipe_arguments(unchanged) == unchanged


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["sft.py", "grpo.py"])
def test_recipes_take_the_names_of_the_commands(recipe, tmp_path):
    words = ["--model", tmp_path / "none", "--data", tmp_path, "--features", tmp_path, "--output", tmp_path / "o"]
    command = [sys.executable, RECIPES / recipe, *words, "--use_cpu"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and f"error: {tmp_path / 'none'}: no such model folder" in done.stderr, done.stderr
