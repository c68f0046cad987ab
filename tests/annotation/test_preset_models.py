"""Each role of each preset is played by a tiny untrained model of exactly its architecture, without the Hub."""

import json

import numpy as np
import pytest
import tiny_hub
from huggingface_hub import constants
from needs import needs_annotation
from transformers import AutoConfig

from longvale.annotation.boundaries.embedders import TransformersAudioEmbedder, TransformersFrameEmbedder
from longvale.annotation.captions import Clip
from longvale.annotation.language_models import ModelOptions
from longvale.annotation.measurements import Measurements
from longvale.annotation.presets.preset import load_preset, preset_names
from longvale.registry import captioners, recognisers, taggers

MODELS = [model for name in preset_names() for model in load_preset(name).roles.values() if model.downloads]
#: The model of each role; the same one of two presets is tried once.
ROLES = {(model.role, model.reference): model for model in MODELS}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A cache of the Hub with all of them."""
    pytest.importorskip("num2words", reason="the processor of SmolVLM needs it: pip install 'longvale[annotation]'")
    cache = tmp_path_factory.mktemp("hub")
    tiny_hub.fill_cache(cache, MODELS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        yield cache


@pytest.mark.parametrize("model", ROLES.values(), ids=[f"{role}-{name}" for role, name in ROLES])
def test_a_role(hub, model):
    assert AutoConfig.from_pretrained(model.model, revision=model.revision).model_type == model.model_type
    options = ModelOptions(model.reference, device="cpu", max_tokens=5)
    frames = np.random.default_rng(0).integers(0, 255, (8, 48, 64, 3), dtype=np.uint8)
    sound = np.random.default_rng(0).normal(0, 0.3, 2 * 16_000).astype(np.float32)
    if model.role.endswith("captioner"):
        captioner = captioners.create("transformers", model.role.removesuffix("_captioner"), options)
        assert captioner(Clip(0.0, 2.0, frames, sound, Measurements(loudness_db=-15.0, voiced=0.8))).strip()
        assert captioner.name.startswith(model.reference)
    elif model.role == "speech_recogniser":
        recogniser = recognisers.create("transformers", options)
        (heard,) = recogniser([sound])
        assert heard.log_probability < 0 and recogniser.name == model.reference
    elif model.role == "tagger":
        tagger = taggers.create("transformers", options)
        windows = np.resize(sound, (2, round(tagger.window_s * 16_000)))
        scores = tagger(windows)
        assert scores.shape == (2, len(tagger.labels)) and (scores >= 0).all() and (scores <= 1).all()
    elif model.role == "visual_model":
        assert np.isfinite(TransformersFrameEmbedder(model.reference, "cpu")(frames)).all()
    elif model.role == "audio_model":
        assert np.isfinite(TransformersAudioEmbedder(model.reference, "cpu")([sound])).all()
    else:
        chat = options.chat()
        assert isinstance(chat([{"role": "user", "content": "Who speaks?"}]), str)
        assert chat.name.startswith(model.reference)


@needs_annotation
def test_a_whole_preset(hub, film, longvale, tmp_path):
    """From the command line, offline: what each model said is in the stages, and the provenance says whose it is."""
    output = tmp_path / "out.json"
    done = longvale(
        "annotate", film("a.mp4", 4.0), "--output", output, "--preset", "small", "--device", "cpu",
        "--text-reader", "none",
        "--max-refusals", 99, "--max-tokens", 5,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    provenance = json.loads(output.with_suffix(".provenance.json").read_text())
    preset = load_preset("small")
    assert provenance["preset"] == "small"
    assert provenance["models"] == {
        role: {"model": model.model, "revision": model.revision, "license": model.license}
        for role, model in preset.roles.items()
        if role != "text_reader"
    }
    roles = preset.roles
    names = [provenance["pictures"], provenance["sounds"], provenance["captioners"]["video"], provenance["reasoner"]]
    wanted = [roles[role].reference for role in ("visual_model", "audio_model", "video_captioner", "language_model")]
    assert all(name.startswith(reference) for name, reference in zip(names, wanted, strict=True))
    (first, *_) = map(json.loads, (output.with_suffix(".stages") / "captions.jsonl").read_text().splitlines())
    assert first["captions"]["video"] and first["captions"]["keyframe"]


def test_a_package_that_a_model_needs_is_named(hub, longvale, film, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", None)
    done = longvale("annotate", film("a.mp4", 4.0), "--output", tmp_path / "out.json", "--preset", "small")
    assert done.exit_code == 2 and not (tmp_path / "out.stages").exists()
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("longvale: error"))
    assert "HuggingFaceTB/SmolVLM2-500M-Video-Instruct" in line and "pip install num2words" in line
