"""Towers inside a converted checkpoint."""

import numpy as np
import pytest
import torch
from test_conversion import WIDTHS, original  # noqa: F401 (a fixture)
from torch.testing import assert_close
from transformers import CLIPVisionModelWithProjection, WhisperModel

from longvale.checkpoints.conversion import convert
from longvale.checkpoints.loading import load_checkpoint
from longvale.models.modeling_beats import BeatsModel
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration


@pytest.fixture(scope="module")
def towers(write_towers):
    return write_towers(**WIDTHS)


@pytest.fixture(scope="module")
def whole(original, towers, tmp_path_factory):  # noqa: F811
    output = tmp_path_factory.mktemp("whole") / "model"
    convert(original, output, towers=towers)
    return load_checkpoint(output, LongVALEForConditionalGeneration, device="cpu")


def test_towers_are_those_that_were_given(whole, towers):
    model, processor = whole
    sources = {
        "visual": CLIPVisionModelWithProjection.from_pretrained(towers["clip"]),
        "audio": BeatsModel.from_pretrained(towers["beats"]),
        "speech": WhisperModel.from_pretrained(towers["whisper"]).encoder,
    }
    for modality, source in sources.items():
        tower = getattr(model.model, f"{modality}_tower")
        assert type(tower) is type(source)
        for (name, value), expected in zip(tower.state_dict().items(), source.state_dict().values(), strict=True):
            assert torch.equal(value, expected), (modality, name)
    assert not [name for name in model.state_dict() if "decoder" in name]
    assert processor.image_processor.crop_size["height"] == 16 and processor.feature_extractor.feature_size == 40
    assert processor.preprocessing == "official"


@torch.no_grad()
def test_raw_video_goes_in(whole):
    model, processor = whole
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (4, 20, 24, 3), dtype=np.uint8)
    sound = rng.normal(0, 0.1, 16_000).astype(np.float32)
    inputs = processor(text="USER: <video>\nWhat? ASSISTANT:", videos=[frames], audio=[sound])
    encoded = model.encode(**processor(videos=[frames], audio=[sound]))
    assert {name: values.shape[-1] for name, (values, _) in encoded.items()} == WIDTHS
    stored = {f"{name}_features": values[mask.bool()] for name, (values, mask) in encoded.items()}
    expected = model(**processor(text="USER: <video>\nWhat? ASSISTANT:", **stored)).logits
    assert_close(model(**inputs).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("spelling", ["together", "repeated"])
def test_towers_by_option(longvale, original, towers, whole, tmp_path, spelling):  # noqa: F811
    pairs = [f"{name}={path}" for name, path in towers.items()]
    options = ["--towers", *pairs] if spelling == "together" else [x for pair in pairs for x in ("--towers", pair)]
    result = longvale("convert", original, "--output", tmp_path / "model", *options)
    assert result.exit_code == 0, result.stderr
    model, _ = load_checkpoint(tmp_path / "model", LongVALEForConditionalGeneration, device="cpu")
    for name, value in whole[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| visual tower | clip_vision_model |" in card and 'videos="video.mp4"' in card


def refused(longvale, original, tmp_path, *pairs):  # noqa: F811
    result = longvale("convert", original, "--output", tmp_path / "model", "--towers", *pairs)
    assert result.exit_code == 2 and "Traceback" not in result.stderr, result.output
    assert not (tmp_path / "model").exists()
    return result.stderr.splitlines()[-1]  # progress of loading comes before it


def test_towers_that_are_refused(longvale, original, towers, write_towers, tmp_path):  # noqa: F811
    def told(*pairs):
        return refused(longvale, original, tmp_path, *pairs)

    assert "unknown tower 'clap'; towers are clip, beats, whisper" in told(f"clap={towers['clip']}")
    assert "--towers clip: must be NAME=PATH" in told("clip")
    assert "is a clip model; the speech tower is Whisper's encoder" in told(f"whisper={towers['clip']}")
    assert "gives features of width 20, but the projector reads 12" in told(f"clip={write_towers(20, 10, 14)['clip']}")
    assert "nowhere" in told(f"beats={tmp_path / 'nowhere.pt'}")
    (tmp_path / "damaged.pt").write_bytes(b"nonsense")
    assert "damaged.pt: not a PyTorch checkpoint" in told(f"beats={tmp_path / 'damaged.pt'}")
