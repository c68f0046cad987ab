"""What `import longvale` costs and does, each time in a fresh interpreter."""

import json
import os
import subprocess
import sys

import pytest

TELL = """
import json, os, sys, time, warnings
environment, path, filters = dict(os.environ), list(sys.path), list(warnings.filters)
start = time.perf_counter()
import longvale
seconds = time.perf_counter() - start
heavy = [name for name in ("torch", "transformers", "datasets", "av", "matplotlib", "numba") if name in sys.modules]
import datasets.load
print(json.dumps({
    "seconds": seconds,
    "heavy": heavy,
    "environment": dict(os.environ) == environment,
    "path": sys.path == path,
    "registered": "longvale" in datasets.load._PACKAGED_DATASETS_MODULES,
}))
"""

#: Puts both orders of import to the same test; `{first}` and `{second}` are statements.
AUTO_CLASSES = """
import json, sys
{first}
{second}
folder, beats = sys.argv[1:]
loaded = {{
    name: getattr(transformers, name).from_pretrained(folder)
    for name in (
        "AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM",
        "AutoProcessor", "AutoTokenizer",
    )
}}
for name in ("AutoConfig", "AutoModel", "AutoFeatureExtractor", "AutoModelForAudioClassification"):
    loaded["beats " + name] = getattr(transformers, name).from_pretrained(beats)
made = transformers.AutoModelForCausalLM.from_config(loaded["AutoConfig"])
assert type(made) is type(loaded["AutoModelForCausalLM"])
print(json.dumps({{name: type(value).__module__ + "." + type(value).__name__ for name, value in loaded.items()}}))
"""

IMPORT_AUTO = (
    "import transformers; from transformers import AutoConfig, AutoModel, AutoProcessor, AutoFeatureExtractor, "
    "AutoModelForCausalLM"
)


def run(program, *arguments, home):
    environment = os.environ | {"HOME": str(home), "HF_HOME": str(home / "hf"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def tell(tmp_path):
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    done = run(TELL, home=home)
    return json.loads(done.stdout), done.stderr


def test_import_takes_less_than_two_seconds(tmp_path):
    assert any(tell(tmp_path)[0]["seconds"] < 2.0 for _ in range(3))  # other processes share the machine


def test_import_registers_the_builder_and_does_nothing_else(tmp_path):
    told, errors = tell(tmp_path)
    assert told["registered"]
    assert told["heavy"] == []
    assert told["environment"] and told["path"]
    assert errors == ""
    assert list((tmp_path / "home").rglob("*")) == []


@pytest.fixture(scope="module")
def beats(tmp_path_factory):
    from longvale.models.configuration_beats import BeatsConfig
    from longvale.models.feature_extraction_beats import BeatsFeatureExtractor
    from longvale.models.modeling_beats import BeatsForAudioClassification

    folder = tmp_path_factory.mktemp("beats")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BeatsConfig(embed_dim=8, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, **small)
    BeatsForAudioClassification(config).save_pretrained(folder)
    BeatsFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("import longvale", "import transformers"),
        (IMPORT_AUTO, "import longvale"),
        ("import longvale.models.modeling_longvale, longvale.models.processing_longvale", "import transformers"),
        (
            "import longvale, importlib; importlib.reload(longvale)",
            "import transformers.modeling_layers, transformers",
        ),
    ],
    ids=["longvale first", "auto classes first", "own modules first", "twice, and in the middle of an import"],
)
def test_auto_classes_know_the_models_without_remote_code(tiny_model, beats, tmp_path, first, second):
    done = run(AUTO_CLASSES.format(first=first, second=second), tiny_model, beats, home=tmp_path)
    generating = "longvale.models.modeling_longvale.LongVALEForConditionalGeneration"
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "AutoConfig": "longvale.models.configuration_longvale.LongVALEConfig",
        "AutoModel": "longvale.models.modeling_longvale.LongVALEModel",
        "AutoModelForCausalLM": generating,
        "AutoModelForImageTextToText": generating,
        "AutoModelForMultimodalLM": generating,
        "AutoProcessor": "longvale.models.processing_longvale.LongVALEProcessor",
        "AutoTokenizer": "transformers.models.llama.tokenization_llama.LlamaTokenizer",
        "beats AutoConfig": "longvale.models.configuration_beats.BeatsConfig",
        "beats AutoModel": "longvale.models.modeling_beats.BeatsModel",
        "beats AutoFeatureExtractor": "longvale.models.feature_extraction_beats.BeatsFeatureExtractor",
        "beats AutoModelForAudioClassification": "longvale.models.modeling_beats.BeatsForAudioClassification",
    }


OTHERS = """
import json, sys, threading
import longvale, longvale
finders = [finder for finder in sys.meta_path if type(finder).__module__ == "longvale.system.after_import"]
imports = ["configuration_auto", "modeling_auto", "processing_auto", "feature_extraction_auto"]
def load(name):
    __import__("transformers.models.auto." + name)
threads = [threading.Thread(target=load, args=(name,)) for name in imports for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoModel, LlamaConfig
from transformers.models.auto import configuration_auto
small = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=8)
print(json.dumps({
    "finders": len(finders),
    "other": type(AutoModel.from_config(LlamaConfig(**small))).__name__,
    "known": [name in CONFIG_MAPPING for name in ("longvale", "beats")],
    "models": MODEL_MAPPING[CONFIG_MAPPING["longvale"]].__name__,
    "imported": [name for name in sys.modules if name.startswith("longvale.models.") and "configuration" not in name],
    "loader": [type(configuration_auto.__loader__).__name__, "exec_module" in vars(configuration_auto.__loader__)],
}))
"""


@pytest.mark.slow
def test_registering_leaves_other_imports_alone(tmp_path):
    """Also when threads import at once. Our models are not imported until somebody uses one."""
    told = json.loads(run(OTHERS, home=tmp_path).stdout)
    assert told == {
        "finders": 2,  # of datasets and of transformers, each once
        "other": "LlamaModel",
        "known": [True, True],
        "models": "LongVALEModel",
        "imported": [],
        "loader": ["SourceFileLoader", False],
    }


def test_stand_ins_behave_as_the_classes_they_stand_for():
    from longvale.auto import _lazy_class
    from longvale.models.configuration_beats import BeatsConfig
    from longvale.models.feature_extraction_beats import BeatsFeatureExtractor

    lazy = _lazy_class("longvale.models.feature_extraction_beats", "BeatsFeatureExtractor", BeatsConfig)
    assert (lazy.__name__, lazy.__module__) == ("BeatsFeatureExtractor", "longvale.models.feature_extraction_beats")
    assert type(lazy(window_frames=64)) is BeatsFeatureExtractor
    assert isinstance(BeatsFeatureExtractor(), lazy) and not isinstance(1, lazy)
    assert issubclass(BeatsFeatureExtractor, lazy) and not issubclass(int, lazy)
    assert lazy.model_input_names == BeatsFeatureExtractor.model_input_names
