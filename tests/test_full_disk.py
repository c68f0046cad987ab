"""A disk that is full: the error names the file, whoever writes it."""

from contextlib import contextmanager

import numpy as np
import pytest

from longvale.annotation.stages import StageLog
from longvale.checkpoints.writing import saving
from longvale.evaluation.generation.prediction_log import AnswerLog
from longvale.extraction.pack import pack_features
from longvale.features.manifest import Manifest
from longvale.features.store import save_features
from longvale.io import atomic_folder, atomic_write
from longvale.tasks import Prediction, Question

resource = pytest.importorskip("resource")

LIMIT = 2000
LONG = "x" * 10 * LIMIT


@contextmanager
def little_room():
    """Files of this process end after so many bytes: the system refuses the rest as it does when a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_text(folder):
    with atomic_write(folder / "out") as file:
        file.write(LONG)


def write_folder(folder):
    with atomic_folder(folder / "out") as partial:
        (partial / "unnamed").write_text(LONG)


def write_record(folder):
    StageLog(folder / "out", ("video_id",)).add({"video_id": "a", "caption": LONG})


def write_line(folder):
    with Manifest(folder / "out") as manifest:
        manifest.add({"video_id": "a", "error": LONG})


def write_answer(folder):
    log = AnswerLog(folder / "out", {}, [Question("a", "grounding", 0, "?", "")])
    log.append([Prediction("a", "grounding", LONG, 0)])


@pytest.mark.parametrize("write", [write_text, write_folder, write_record, write_line, write_answer])
def test_whoever_writes_a_file_names_it(tmp_path, write):
    with little_room(), pytest.raises(OSError) as caught:
        write(tmp_path)
    assert caught.value.filename == str(tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]  # nothing half-written


def test_shards_and_features_name_what_they_write(tmp_path):
    features = {"visual": np.random.default_rng(0).normal(size=(40, 64)), "audio": None, "speech": None}
    with little_room(), pytest.raises(OSError, match=r"visual_features/a\.npy"):
        save_features(tmp_path / "small", "a", features)
    save_features(tmp_path / "store", "a", features)
    with little_room(), pytest.raises(OSError) as caught:
        pack_features(tmp_path / "store", tmp_path / "packed", progress=False)
    assert caught.value.filename == str(tmp_path / "packed")


def test_weights_name_what_they_write(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    weights = {"weight": torch.zeros(10 * LIMIT)}
    for save in (save_file, torch.save):
        refused = pytest.raises(ValueError, match=r"out: cannot be written \(.*\); make room on the disk$")
        with little_room(), refused, saving(tmp_path / "out"):
            save(weights, tmp_path / "out")
