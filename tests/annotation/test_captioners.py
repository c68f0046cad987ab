"""Models of transformers in their roles: tiny and untrained ones of real architectures, from folders."""

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from tiny_chat import build_omni, build_vision

from longvale.annotation.captions import Clip, TransformersCaptioner, read_prompt
from longvale.annotation.language_models import ModelOptions
from longvale.annotation.measurements import Measurements
from longvale.registry import recognisers

HEARD = Measurements(loudness_db=-15.0, voiced=0.8)


def draw_clip(picture=0, sound=0, measured=HEARD):
    frames = np.random.default_rng(picture).integers(0, 255, (8, 48, 64, 3), dtype=np.uint8)
    waveform = np.random.default_rng(sound).normal(0, 0.3, 5 * 16_000).astype(np.float32)
    return Clip(0.0, 5.0, frames, waveform, measured)


def watch_generate(captioner, monkeypatch):
    """A list that gets what the model is given, each time."""
    seen, generate = [], captioner._model.generate
    monkeypatch.setattr(captioner._model, "generate", lambda **inputs: seen.append(inputs) or generate(**inputs))
    return seen


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of checkpoints by name."""
    made = {}
    for name, parts in {"vision": build_vision(), "omni": build_omni(2)}.items():
        made[name] = tmp_path_factory.mktemp("models") / name
        for part in parts:
            part.save_pretrained(made[name])
    return {name: str(folder) for name, folder in made.items()}


@pytest.mark.parametrize(("model", "role", "tokens"), [
    ("vision", "video", "image_pad"), ("vision", "keyframe", "image_pad"), ("omni", "video", "image_pad"),
    ("omni", "audio", "audio_pad"),
])  # fmt: skip
def test_a_model_is_given_what_its_role_describes(folders, monkeypatch, model, role, tokens):
    captioner = TransformersCaptioner(role, folders[model], "cpu")
    seen = watch_generate(captioner, monkeypatch)
    first = captioner(draw_clip(0, 0))
    captioner(draw_clip(1, 1))
    assert captioner(draw_clip(0, 0)) == first != ""
    assert captioner.name == f"{folders[model]} ({role})"
    prompt = captioner._processor.tokenizer.decode(seen[0]["input_ids"][0])
    assert "".join(read_prompt(role).split()) in "".join(prompt.split())
    name = "input_features" if role == "audio" else "pixel_values"
    assert torch.equal(seen[0][name], seen[2][name]) and not torch.equal(seen[0][name], seen[1][name])
    if role == "audio":
        assert seen[0]["feature_attention_mask"].sum() == 500 and "pixel_values" not in seen[0]  # 5 s in steps of 10 ms
    else:
        assert len(seen[0]["image_grid_thw"]) == {"video": 8, "keyframe": 1}[role] and "input_features" not in seen[0]
    assert prompt.count("<|image_pad|>") + prompt.count("<|audio_pad|>") == prompt.count(f"<|{tokens}|>") > 0


def test_what_is_not_there_is_not_described(folders):
    see, hear = TransformersCaptioner("video", folders["omni"], "cpu"), TransformersCaptioner("audio", folders["omni"])
    clip = draw_clip()
    assert see(Clip(0.0, 5.0, None, clip.audio, HEARD)) == ""
    assert hear(draw_clip(measured=Measurements(loudness_db=-90.0, voiced=0.0))) == ""


def test_roles_with_one_model_share_its_weights_and_a_revision_is_part_of_the_name(folders, monkeypatch):
    see, hear = (TransformersCaptioner(role, folders["omni"], "cpu") for role in ("video", "audio"))
    assert see._model is hear._model and see._processor is hear._processor
    asked = []
    monkeypatch.setattr(
        transformers.AutoProcessor, "from_pretrained", lambda path, **options: asked.append((path, options)) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        TransformersCaptioner("video", "some/model@v1.0")
    assert asked == [("some/model", {"revision": "v1.0"})]
    monkeypatch.undo()
    with pytest.raises(
        FileNotFoundError, match=r"some/model: .*; to fetch it: hf download some/model --revision v1.0$"
    ):
        recognisers.create("transformers", ModelOptions("some/model@v1.0"))


def test_models_stored_in_half_precision(tmp_path, monkeypatch):
    """They are given numbers of their own precision: not all of them convert what they are given."""
    for part in build_omni(2):
        (part.to(torch.bfloat16) if isinstance(part, torch.nn.Module) else part).save_pretrained(tmp_path)
    for role, name in (("video", "pixel_values"), ("audio", "input_features")):
        captioner = TransformersCaptioner(role, str(tmp_path), "cpu")
        seen = watch_generate(captioner, monkeypatch)
        assert captioner(draw_clip())
        assert (
            seen[0][name].dtype == captioner._model.dtype == torch.bfloat16 and seen[0]["input_ids"].dtype == torch.long
        )


def test_weights_are_loaded_as_asked(folders):
    captioner = TransformersCaptioner("audio", folders["omni"], "cpu", dtype="bfloat16", attn_implementation="eager")
    assert captioner._model.dtype == torch.bfloat16 and captioner._model.config._attn_implementation == "eager"
    assert captioner.name == f"{folders['omni']} (bfloat16) (audio)"
    assert TransformersCaptioner("audio", folders["omni"], "cpu")._model.dtype == torch.float32
    with pytest.raises(ValueError, match="--dtype must be one of"):
        TransformersCaptioner("audio", folders["omni"], "cpu", dtype="float8")


def test_of_a_whole_omni_model_the_part_that_writes_is_loaded(folders, tmp_path):
    """As it is published: a thinker that writes, a talker that speaks. Its own `generate` gives text and sound."""
    model, processor = build_omni(2)
    processor.save_pretrained(tmp_path)
    save_file({f"thinker.{name}": value for name, value in model.state_dict().items()}, tmp_path / "model.safetensors")
    transformers.Qwen2_5OmniConfig(thinker_config=model.config.to_dict()).save_pretrained(tmp_path)
    captioner = TransformersCaptioner("audio", str(tmp_path), "cpu")
    assert captioner(draw_clip()) == TransformersCaptioner("audio", folders["omni"], "cpu")(draw_clip())


def test_models_that_cannot_play_a_role_are_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="cannot play the role 'audio': it does not hear"):
        TransformersCaptioner("audio", folders["vision"], "cpu")
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}/none: cannot be loaded"):
        TransformersCaptioner("video", f"{tmp_path}/none", "cpu")
    model, processor = build_vision()
    processor.chat_template = None
    for part in (model, processor):
        part.save_pretrained(tmp_path / "silent")
    with pytest.raises(ValueError, match="silent: cannot play the role 'video': it has no chat template"):
        TransformersCaptioner("video", str(tmp_path / "silent"), "cpu")
    with pytest.raises(FileNotFoundError, match=f"^{folders['vision']}: cannot be loaded: Can't load feature"):
        recognisers.create("transformers", ModelOptions(folders["vision"]))
