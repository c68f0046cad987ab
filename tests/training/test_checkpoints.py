import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from longvale.training.checkpoints import checkpoint_to_resume, find_checkpoint, find_fault, publish
from longvale.training.config import SFTStageConfig

FILES = (
    "manifest.json",
    "adapter_model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
)


def write_checkpoint(checkpoint, processes=1):
    folder = checkpoint.parent / "unfinished"
    folder.mkdir(parents=True)
    save_file({"a": torch.ones(1000)}, folder / "adapter_model.safetensors")
    torch.save({"state": torch.ones(1000)}, folder / "optimizer.pt")
    torch.save({"last_epoch": 3}, folder / "scheduler.pt")
    for rank in range(processes):
        name = "rng_state.pth" if processes == 1 else f"rng_state_{rank}.pth"
        torch.save({"numpy": np.random.get_state()}, folder / name)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 3}))
    publish(folder, checkpoint)
    assert not folder.exists()
    return checkpoint


def options(folder, **given):
    return SFTStageConfig(model="m", data_dir="d", features_dir="f", output_dir=str(folder), **given)


def damage(path, how):
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize("how", ["missing", "cut", "empty"])
@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_with_a_faulty_file_is_passed_over(tmp_path, caplog, name, how):
    older = write_checkpoint(tmp_path / "checkpoint-9")
    newer = write_checkpoint(tmp_path / "checkpoint-10")
    assert find_checkpoint(tmp_path) == str(newer)
    damage(newer / name, how)
    assert name in find_fault(newer)
    assert find_checkpoint(tmp_path) == str(older)
    assert f"{newer / name}" in caplog.text
    damage(older / name, how)
    assert find_checkpoint(tmp_path) is None


@pytest.mark.parametrize("name", FILES[1:])
def test_a_flipped_byte_is_seen(tmp_path, name):
    path = write_checkpoint(tmp_path / "checkpoint-1") / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert find_fault(path.parent) == f"{path}: the file is damaged"


def test_every_process_needs_its_random_states(tmp_path):
    folder = write_checkpoint(tmp_path / "checkpoint-1", processes=2)
    assert find_fault(folder, processes=2) is None
    assert "rng_state_2.pth" in find_fault(folder, processes=3)
    assert "rng_state.pth" in find_fault(folder, processes=1)


def test_a_new_run_does_not_mix_with_an_earlier_one(tmp_path):
    assert checkpoint_to_resume(options(tmp_path, resume_from_checkpoint="auto")) is None
    newest = write_checkpoint(tmp_path / "checkpoint-3")
    assert checkpoint_to_resume(options(tmp_path, resume_from_checkpoint="auto")) == str(newest)
    with pytest.raises(ValueError, match=r"checkpoint-3: left by an earlier run; .* --resume_from_checkpoint auto"):
        checkpoint_to_resume(options(tmp_path))
    with pytest.raises(ValueError, match=r"settings\.json: was made with lora_r 64, not 8; give another output_dir"):
        checkpoint_to_resume(options(tmp_path, resume_from_checkpoint="auto", lora_r=8))
    # What does not shape the result may change.
    assert checkpoint_to_resume(options(tmp_path, resume_from_checkpoint="auto", logging_steps=7)) == str(newest)


def test_a_named_checkpoint_must_be_whole(tmp_path):
    folder = write_checkpoint(tmp_path / "checkpoint-3")
    assert checkpoint_to_resume(options(tmp_path / "out", resume_from_checkpoint=str(folder))) == str(folder)
    damage(folder / "scheduler.pt", "missing")
    with pytest.raises(ValueError, match=r"scheduler\.pt: no such file; set resume_from_checkpoint to another one"):
        checkpoint_to_resume(options(tmp_path / "out", resume_from_checkpoint=str(folder)))
    with pytest.raises(FileNotFoundError, match="checkpoint-4: no such checkpoint"):
        checkpoint_to_resume(options(tmp_path / "out", resume_from_checkpoint=str(tmp_path / "checkpoint-4")))
