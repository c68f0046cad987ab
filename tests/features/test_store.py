import io
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from longvale.features.store import FeatureStore, check_width, feature_path, is_complete, save_features

FEATURES = {
    "visual": np.arange(12, dtype=np.float64).reshape(3, 4),
    "audio": np.ones((2, 4), np.float16),
    "speech": None,
}


@pytest.fixture
def root(tmp_path):
    save_features(tmp_path, "abc", FEATURES)
    return tmp_path


def write(root, modality, array, video_id="abc"):
    path = feature_path(root, video_id, modality)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def test_what_is_saved_is_loaded_as_float32(root):
    features = FeatureStore(root).load("abc")
    assert list(features) == ["visual", "audio", "speech"]
    assert features["visual"].dtype == features["audio"].dtype == np.float32
    np.testing.assert_array_equal(features["visual"], FEATURES["visual"])
    assert features["speech"] is None
    features["visual"][0, 0] = 7  # a copy: neither read-only nor the file
    assert FeatureStore(root).load("abc")["visual"][0, 0] == 0


def test_a_modality_that_the_video_does_not_have_is_on_record(root):
    assert feature_path(root, "abc", "speech").is_file()
    assert is_complete(root, "abc")
    assert FeatureStore(root).has("abc")


def test_published_files_of_half_precision_and_single_images_are_read(tmp_path):
    write(tmp_path, "visual", np.ones((100, 768), np.float16), "video")
    write(tmp_path, "visual", np.ones(768, np.float16), "image")
    store = FeatureStore(tmp_path)
    assert store.load("video")["visual"].shape == (100, 768)
    assert store.load("image")["visual"].shape == (1, 768)
    assert store.load("image")["audio"] is None  # the store has no folder for it


def test_a_missing_file_is_an_error_unless_it_stands_for_absence(root):
    write(root, "visual", np.ones((1, 4)), "silent")
    store = FeatureStore(root)
    assert store.missing("silent") == ("audio", "speech")
    with pytest.raises(FileNotFoundError, match=r"audio_features/silent\.npy: no such file"):
        store.load("silent")
    features = store.load("silent", missing="none")
    assert features["visual"].shape == (1, 4) and features["audio"] is None
    with pytest.raises(ValueError, match="missing must be"):
        store.load("silent", missing="ignore")


def test_widths_come_from_the_first_file_that_is_not_empty(root):
    save_features(root, "aaa", {"visual": np.ones((1, 4)), "audio": None, "speech": None})
    assert FeatureStore(root).widths() == {"visual": 4, "audio": 4}


def test_widths_are_checked_by_the_headers(root):
    store = FeatureStore(root)
    store.check_widths("abc", {"visual": 4, "audio": 4, "speech": 6})
    store.check_widths("without_files", {"visual": 9})
    with pytest.raises(ValueError, match=r"audio_features/abc\.npy: features are 4 wide, expected 768"):
        store.check_widths("abc", {"visual": 4, "audio": 768})


def test_another_width_is_refused_with_file_and_both_widths(root):
    store = FeatureStore(root, widths={"visual": 768})
    with pytest.raises(ValueError, match=r"visual_features/abc\.npy: features are 4 wide, expected 768"):
        store.load("abc")
    check_width((3, 768), 768, "any.npy")


def header_of(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


HOSTILE = {
    "empty": b"",
    "text": b"not an array",
    "beyond the file": header_of((10**9, 768)) + bytes(64),
    "beyond any integer": header_of((10**30, 768)) + bytes(64),
    "negative": header_of((-1, 768)) + bytes(64),
    "nested": b"\x93NUMPY\x01\x00\x28\x23" + b"(" * 9000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_are_no_arrays_are_refused_by_name(root, name):
    feature_path(root, "abc", "visual").write_bytes(HOSTILE[name])
    with pytest.raises(ValueError, match=r"visual_features/abc\.npy: not a whole \.npy file"):
        FeatureStore(root).load("abc")


def test_a_truncated_file_is_refused(root):
    path = write(root, "visual", np.ones((100, 8), np.float32))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="not a whole"):
        FeatureStore(root).load("abc")


def test_an_array_of_objects_is_never_unpickled(root):
    class Boom:
        def __reduce__(self):
            return os.mkdir, (str(root / "executed"),)

    array = np.empty((1, 1), object)
    array[0, 0] = Boom()
    np.save(feature_path(root, "abc", "visual"), array, allow_pickle=True)
    with pytest.raises(ValueError, match="not a whole"):
        FeatureStore(root).load("abc")
    assert not (root / "executed").exists()


@pytest.mark.parametrize(
    "array", [np.ones((2, 3, 4)), np.ones((2, 3), int), np.full((2, 3), np.nan), np.full((2, 3), np.inf), np.array(1.0)]
)
def test_only_finite_floats_of_two_dimensions_pass(root, array):
    path = write(root, "visual", array)
    with pytest.raises(ValueError, match=path.name):
        FeatureStore(root).load("abc")
    with pytest.raises(ValueError, match="visual features"):
        save_features(root, "xyz", {"visual": array})
    assert not feature_path(root, "xyz", "visual").exists()


@pytest.mark.parametrize("video_id", ["../abc", "a/b", "..", "", "a\0b"])
def test_ids_cannot_leave_the_store(root, video_id):
    with pytest.raises(ValueError, match="video id"):
        FeatureStore(root).has(video_id)
    with pytest.raises(ValueError, match="video id"):
        save_features(root, video_id, {"visual": np.ones((1, 1))})


def test_roots_that_are_no_store_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="visual_features"):
        FeatureStore(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        FeatureStore(tmp_path / "nowhere")


@pytest.mark.parametrize("features", [{}, {"smell": np.ones((1, 1))}])
def test_saving_nothing_or_an_unknown_modality_is_refused(tmp_path, features):
    with pytest.raises(ValueError, match="visual, audio, speech"):
        save_features(tmp_path, "abc", features)


def test_nothing_is_left_when_one_array_cannot_be_written(root, monkeypatch):
    before = {path: path.read_bytes() for path in root.rglob("*.npy")}
    save = np.save

    def full_disk(file, array, **kwargs):
        if array.shape == (0, 0):
            raise OSError("no space left on device")
        save(file, array, **kwargs)

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_features(root, "abc", FEATURES | {"visual": np.zeros((1, 4))})
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


KILLED_BETWEEN_RENAMES = """
import os, signal, sys
import numpy as np
from longvale.features import store as features
rename, done = os.replace, []
def replace(source, target):
    rename(source, target)
    done.append(target)
    if len(done) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
new = np.full((5, 4), 9.0)
features.save_features(sys.argv[1], "abc", {"visual": new, "audio": new, "speech": new})
"""


@pytest.mark.parametrize("renames", [1, 2])
def test_a_run_killed_while_replacing_features_never_looks_finished(root, renames):
    command = [sys.executable, "-c", KILLED_BETWEEN_RENAMES, str(root), str(renames)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not is_complete(root, "abc")
    save_features(root, "abc", FEATURES)
    assert is_complete(root, "abc")
    np.testing.assert_array_equal(FeatureStore(root).load("abc")["visual"], FEATURES["visual"])


def test_completeness_asks_for_the_modalities_of_the_run_only(tmp_path):
    assert not is_complete(tmp_path / "not made yet", "abc")
    save_features(tmp_path, "abc", {"visual": np.ones((1, 4))})
    assert is_complete(tmp_path, "abc", ["visual"])
    assert not is_complete(tmp_path, "abc")


def test_the_fingerprint_follows_the_files(root):
    first = FeatureStore(root).fingerprint()
    assert FeatureStore(root).fingerprint() == first
    save_features(root, "xyz", FEATURES)
    second = FeatureStore(root).fingerprint()
    feature_path(root, "xyz", "audio").unlink()
    assert len({first, second, FeatureStore(root).fingerprint()}) == 3
