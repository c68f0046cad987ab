"""What all tests share: no network, threads that do not spin, and a tiny corpus and checkpoint, once per worker."""

import functools
import gc
import os
import shutil
from pathlib import Path

import pytest
import typer.main
from hypothesis import HealthCheck, settings
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

# How long an example takes says more about the machine than about the library.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_collection_finish():
    """Leave all that is imported out of the garbage collections to come: a seventh of the time of the tests."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable():
    """Replace the halves of characters that odd file names put into outputs: what a worker sends is UTF-8."""
    return _encodable((yield))


def _encodable(value):
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return type(value)(map(_encodable, value)) if type(value) in (list, tuple) else value


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `--dist loadgroup`, run tests that share downloads, the browser or a Ray cluster in one worker each."""
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.partition("::")[0]
            return next((group for group in ("/real/", "/test_browser", "_ray_") if group in path), nodeid)

    return Scheduling(config, log)


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


@pytest.fixture(scope="session")
def preloaded():
    """Processes that begin with the library imported: see [`preloaded.Server`]."""
    from preloaded import Server

    with Server() as server:
        yield server


@pytest.fixture(scope="session")
def longvale():
    """Call the command line in this process: `longvale("score", path, ...)` -> result."""

    def call(*arguments):
        from longvale.cli import app

        return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="longvale")

    with pytest.MonkeyPatch.context() as patch:
        # typer would make the commands of our functions again for each call.
        patch.setattr("typer.main.get_group", functools.cache(typer.main.get_group))
        yield call


@pytest.fixture
def contents():
    """What is in a folder: `contents(folder)` -> bytes by path."""

    def read(folder):
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return read
