"""What all tests share: no network, threads that do not spin, and a tiny corpus and checkpoint made once a session."""

import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

# Before the libraries that read them are imported. The tests' tensors are small: more threads than one only cost.
for _name, _value in {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_name, _value)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A checkpoint of the demo's architecture, untrained: folder, not to be changed."""
    from longvale.demo.checkpoint import build_checkpoint

    folder = tmp_path_factory.mktemp("tiny") / "model"
    for part in build_checkpoint(vocab_videos=50):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def _corpus(tmp_path_factory, tiny_model):
    from longvale.extraction.extract import extract_features
    from longvale.synthetic.corpus import SyntheticOptions, synthesize

    folder = tmp_path_factory.mktemp("tiny") / "corpus"
    options = SyntheticOptions(size=32, fps=4, min_length_s=5, max_length_s=8)
    synthesize(folder, videos=1, test_videos=3, options=options, workers=1, progress=False)
    extract_features(folder / "videos", folder / "features", model=tiny_model, progress=False)
    return folder


@pytest.fixture
def tiny_corpus(_corpus, tmp_path):
    """A copy of a synthetic corpus, one training video and three test videos of 5 to 8 s, with features."""
    return Path(shutil.copytree(_corpus, tmp_path / "corpus"))


@pytest.fixture(scope="session")
def telling_corpus(tmp_path_factory):
    """The files of a synthetic corpus of 152 videos without the videos, and features that tell what they show."""
    from telling import write_corpus

    return write_corpus(tmp_path_factory.mktemp("telling"))


@pytest.fixture
def longvale():
    """Call the command line in this process: `longvale("score", path, ...)` -> result."""

    def call(*arguments):
        from longvale.cli import app

        return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="longvale")

    return call


@pytest.fixture
def contents():
    """What is in a folder: `contents(folder)` -> bytes by path."""

    def read(folder):
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return read
