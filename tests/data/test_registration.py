"""Fails when `datasets` moves the internals that the registration touches; it has no public way to add a builder."""

import inspect
import json
import pickle
import subprocess
import sys

import datasets
import datasets.inspect
import datasets.load
import datasets.packaged_modules
import pytest

import longvale  # noqa: F401 (registers the builder)
from longvale.data import registration
from longvale.data.builder import COLUMNS, LongVALE

ANNOTATIONS = {"abc": {"duration": 60.0, "timestamps": [[0, 30]], "sentences": ["A bell rings."]}}


@pytest.fixture
def data_dir(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    (path / "longvale-annotations-eval.json").write_text(json.dumps(ANNOTATIONS))
    return path


def test_the_table_of_packaged_modules_is_where_it_was():
    assert datasets.load._PACKAGED_DATASETS_MODULES is datasets.packaged_modules._PACKAGED_DATASETS_MODULES
    for module, digest in datasets.load._PACKAGED_DATASETS_MODULES.values():
        assert isinstance(module, str) and isinstance(digest, str)
    assert datasets.load._PACKAGED_DATASETS_MODULES["longvale"][0] == LongVALE.__module__


def test_the_factory_is_still_looked_up_and_called_as_expected():
    source = inspect.getsource(datasets.load.dataset_module_factory)
    assert "if path in _PACKAGED_DATASETS_MODULES:\n        return PackagedDatasetModuleFactory(\n" in source
    base = datasets.load.PackagedDatasetModuleFactory.__mro__[1]
    assert base.__module__ == "datasets.load" and base.__name__ == "PackagedDatasetModuleFactory"
    assert list(inspect.signature(base).parameters) == [
        "name",
        "data_dir",
        "data_files",
        "download_config",
        "download_mode",
    ]
    assert list(inspect.signature(datasets.load.DatasetModule).parameters)[:3] == [
        "module_path",
        "hash",
        "builder_kwargs",
    ]


def test_a_version_of_datasets_without_them_is_refused_by_name(monkeypatch):
    monkeypatch.delattr(datasets.load, "PackagedDatasetModuleFactory")
    with pytest.raises(ImportError, match=rf"datasets {datasets.__version__} .*install datasets>="):
        registration.register()


def test_registering_again_changes_nothing():
    factory = datasets.load.PackagedDatasetModuleFactory
    registration.register()
    assert datasets.load.PackagedDatasetModuleFactory is factory


@pytest.mark.parametrize("content", [(), ("train.csv", "longvale/train.csv", "longvale/longvale.py")])
@pytest.mark.parametrize("streaming", [False, True])
def test_the_working_directory_does_not_matter(data_dir, tmp_path, monkeypatch, content, streaming):
    here = tmp_path / "here"
    for name in content:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("a,b\n1,2\n")
    here.mkdir(exist_ok=True)
    monkeypatch.chdir(here)
    cache_dir = str(tmp_path / "cache")
    for directory in (data_dir, "../data"):
        rows = datasets.load_dataset(
            "longvale", data_dir=directory, split="test", streaming=streaming, cache_dir=cache_dir
        )
        assert [row["caption"] for row in rows] == ["A bell rings."]


def test_no_server_is_asked(data_dir, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(datasets.load, "increase_load_count", asked.append)
    datasets.load_dataset("longvale", data_dir=data_dir, cache_dir=str(tmp_path / "cache"))
    assert asked == []


def test_configurations_can_be_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert datasets.get_dataset_config_names("longvale") == list(COLUMNS)
    assert datasets.inspect.get_dataset_default_config_name("longvale") == "events"


def test_unknown_configurations_options_and_data_files_are_refused(data_dir, tmp_path):
    cache_dir = str(tmp_path / "cache")
    with pytest.raises(ValueError, match=r"'stories' not found\. Available: \['events', 'videos', 'grounding'"):
        datasets.load_dataset("longvale", "stories", data_dir=data_dir, cache_dir=cache_dir)
    with pytest.raises(ValueError, match="feature_dir"):
        datasets.load_dataset("longvale", data_dir=data_dir, feature_dir=data_dir, cache_dir=cache_dir)
    with pytest.raises(ValueError, match="pass data_dir=, not data_files="):
        datasets.load_dataset("longvale", data_files="a.json", cache_dir=cache_dir)


def test_other_packaged_builders_work_as_before(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    rows = datasets.load_dataset(
        "csv", data_files=str(tmp_path / "rows.csv"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert rows[0] == {"a": 1, "b": 2}


@pytest.mark.slow
def test_a_stream_reaches_a_process_that_has_not_imported_longvale(data_dir, tmp_path):
    stream = datasets.load_dataset(
        "longvale", data_dir=data_dir, split="test", streaming=True, cache_dir=str(tmp_path / "cache")
    )
    (tmp_path / "stream.pkl").write_bytes(pickle.dumps(stream))
    code = "import pickle, sys; print([r['caption'] for r in pickle.load(open(sys.argv[1], 'rb'))])"
    command = [sys.executable, "-c", code, str(tmp_path / "stream.pkl")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['A bell rings.']"
