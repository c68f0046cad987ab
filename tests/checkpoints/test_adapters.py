"""Stages as adapters of peft, and back in the published layout."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from test_conversion import STAGES, edit_json, load_all, original  # noqa: F401 (a fixture)

from longvale.checkpoints.adapters import convert_back
from longvale.checkpoints.conversion import convert
from longvale.checkpoints.loading import load_checkpoint
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration


@pytest.fixture(scope="module")
def kept(original, tmp_path_factory):  # noqa: F811
    output = tmp_path_factory.mktemp("kept") / "model"
    convert(original, output, keep_adapters=True)
    return output


def test_stages_put_on_the_base_one_after_the_other_give_the_merged_model(kept):
    model, _ = load_checkpoint(kept / "base", LongVALEForConditionalGeneration, device="cpu")
    assert not model.model.audio_projector.weight.any() and model.model.visual_projector.weight.any()
    for stage in ("boundary_perception", "instruction"):
        model = PeftModel.from_pretrained(model, kept / "adapters" / stage).merge_and_unload()
    merged = load_all(kept)
    state = model.state_dict()
    assert state.keys() == merged.keys()
    for name, expected in merged.items():
        torch.testing.assert_close(state[name], expected, rtol=0, atol=1e-6)


def test_adapters_name_their_base(kept):
    for stage in ("boundary_perception", "instruction"):
        config = json.loads((kept / "adapters" / stage / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(kept / "base")
        assert sorted(config["modules_to_save"]) == ["audio_projector", "speech_projector"]


@pytest.mark.parametrize(("stage", "published"), zip(("boundary_perception", "instruction"), STAGES, strict=True))
def test_the_way_back_gives_the_published_files(longvale, kept, original, tmp_path, stage, published):  # noqa: F811
    result = longvale("convert", kept / "adapters" / stage, "--back", "--output", tmp_path / "back")
    assert result.exit_code == 0, result.stderr
    for name in ("adapter_model.bin", "non_lora_trainables.bin"):
        found = torch.load(tmp_path / "back" / name, weights_only=True)
        expected = torch.load(original / published / name, weights_only=True)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key].dtype == value.dtype and torch.equal(found[key], value)
    found, expected = (
        json.loads((path / "adapter_config.json").read_text()) for path in (tmp_path / "back", original / published)
    )
    assert {name: found[name] for name in expected} == expected


def test_what_was_written_back_converts_again(kept, original, tmp_path):  # noqa: F811
    for stage, option in (("boundary_perception", "stage2"), ("instruction", "stage3")):
        convert_back(kept / "adapters" / stage, tmp_path / option)
    stages = {name: tmp_path / name for name in ("stage2", "stage3")}
    convert(original, tmp_path / "model", **stages)
    expected, found = load_all(kept), load_all(tmp_path / "model")
    assert expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def change_tensors(change):
    def damage(folder):
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")

    return damage


VISUAL = "base_model.model.model.visual_projector.weight"
REFUSED = {
    "no adapter": (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json: no such file"),
    "more than the layout holds": (
        change_tensors(lambda t: t.update({VISUAL: torch.ones(2, 2)})),
        f"{VISUAL} has no place in the published layout",
    ),
    "without a projector": (
        change_tensors(lambda t: t.pop("base_model.model.model.speech_projector.bias")),
        "lacks asr_mm_projector.bias",
    ),
    "DoRA": (lambda folder: edit_json(folder / "adapter_config.json", use_dora=True), "use_dora is True"),
    "damaged": (
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"nonsense"),
        "adapter_model.safetensors: the weights are damaged",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_the_published_layout_is_refused(longvale, kept, tmp_path, case):
    import shutil

    damage, message = REFUSED[case]
    folder = shutil.copytree(kept / "adapters" / "instruction", tmp_path / "adapter")
    damage(folder)
    result = longvale("convert", folder, "--back", "--output", tmp_path / "back")
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "back").exists()


def test_back_stands_alone(longvale, kept, tmp_path):
    result = longvale("convert", kept, "--back", "--keep-adapters", "--output", tmp_path / "back")
    assert result.exit_code == 2 and "--back takes an adapter and --output alone" in result.stderr
