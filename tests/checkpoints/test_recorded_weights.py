"""Weights beside which a checksum lies."""

import hashlib
import json
import shutil

import pytest

from longvale.checkpoints import loading
from longvale.checkpoints.loading import check_weights_recorded


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


@pytest.mark.parametrize("kind", ["manifest.json", "SHA256SUMS"])
def test_weights_that_are_not_what_was_recorded_are_refused(folder, monkeypatch, kind):
    check_weights_recorded(folder)  # nothing to compare with
    digest = hashlib.sha256(b"weights").hexdigest()
    text = json.dumps({"model.safetensors": digest}) if kind == "manifest.json" else f"{digest}  model.safetensors\n"
    (folder / kind).write_text(text)
    check_weights_recorded(folder)
    (folder / "model.safetensors").write_bytes(b"weightt")
    with pytest.raises(ValueError, match=r"model\.safetensors: is not what its checksum says"):
        check_weights_recorded(folder)
    monkeypatch.setattr(loading, "_COMPARED_BYTES", 6)  # larger ones are compared on request
    check_weights_recorded(folder)


def test_a_checkpoint_is_compared_when_it_is_loaded(longvale, tiny_model, tiny_corpus, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "SHA256SUMS").write_text(f"{'0' * 64}  model.safetensors\n")
    result = longvale("generate", model, "--data", tiny_corpus, "--output", tmp_path / "p")
    assert result.exit_code == 2 and "model.safetensors: is not what its checksum says" in result.stderr
