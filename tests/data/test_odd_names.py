"""Videos whose names are no UTF-8, too long, composed in two ways, or links to nothing."""

import json
import os
import shutil
import unicodedata
import zipfile

import datasets
import numpy as np
import pytest

import longvale  # noqa: F401 - registers the data set
from longvale.evaluation.generation.inputs import VideoInputs
from longvale.extraction.extract import extract_features
from longvale.extraction.pack import pack_features
from longvale.features.backends import NpyArchive
from longvale.features.store import FeatureStore, remove_unfinished, save_features

NFC, NFD = unicodedata.normalize("NFC", "caf\u00e9"), unicodedata.normalize("NFD", "caf\u00e9")
RAW = os.fsdecode(b"bad\xff")
LONG = "x" * 251  # 255 bytes with .mp4, as with .npy


def test_every_video_is_done_or_named_with_the_reason(tiny_model, tiny_corpus, tmp_path):
    videos, source = tmp_path / "v", tiny_corpus / "videos" / "test_0000.mp4"
    videos.mkdir()
    for name in ("a", RAW, NFD, LONG, "-4wsu", "\u9577" * 80):
        shutil.copy(source, videos / f"{name}.mp4")
    (videos / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    summary = extract_features(videos, tmp_path / "f", model=tiny_model, workers=0, progress=False)
    assert set(summary.done) == {"a", RAW, NFD, LONG, "-4wsu", "\u9577" * 80}
    assert [(video_id, "no such file" in reason) for video_id, reason in summary.failed] == [("gone", True)]
    assert extract_features(videos, tmp_path / "f", model=tiny_model, workers=0, progress=False).skipped
    store = FeatureStore(tmp_path / "f")
    assert store.has(NFC) and store.load(NFC)["visual"] is not None and store.has(LONG)
    assert not store.has("y" * 300) and not store.has("gone")
    assert store.fingerprint() == FeatureStore(tmp_path / "f").fingerprint()
    with pytest.raises(ValueError, match=r"the name 'bad\\udcff' is not UTF-8, which Parquet needs; rename"):
        pack_features(tmp_path / "f", tmp_path / "packed", progress=False)
    assert not (tmp_path / "packed").exists()


def test_a_name_that_leaves_no_room_for_the_suffix_does_not_stop_the_run(tiny_model, tiny_corpus, tmp_path):
    video = tmp_path / f"{'m' * 253}.a"
    shutil.copy(tiny_corpus / "videos" / "test_0000.mp4", video)
    ((_, reason),) = extract_features(video, tmp_path / "f", model=tiny_model, workers=0, progress=False).failed
    assert "its name is too long for the file system with .npy behind it; rename the video" in reason
    assert [json.loads(line)["error"] for line in (tmp_path / "f/manifest.jsonl").read_text().splitlines()] == [reason]


def test_what_a_killed_run_left_of_a_long_name_is_removed(tmp_path):
    def leave(path):
        from longvale.system.names import temporary_prefix

        (path.parent / f"{temporary_prefix(path.name)}abcd1234.tmp").write_bytes(b"half")

    folder = tmp_path / "visual_features"
    folder.mkdir()
    for name in (LONG, "a", LONG[:-1] + "y"):
        leave(folder / f"{name}.npy")
    remove_unfinished(tmp_path, [LONG, "a"])
    assert len(list(folder.iterdir())) == 1


def test_videos_are_found_under_either_composition(tiny_corpus, tmp_path):
    shutil.copy(tiny_corpus / "videos" / "test_0000.mp4", tmp_path / f"{NFD}.mp4")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nothing")
    inputs = VideoInputs(tmp_path, videos_dir=tmp_path)
    inputs.check(NFC)
    for video_id, reason in {"gone": "gone.mp4: a link to nothing", "x": "x.mp4: no such file"}.items():
        with pytest.raises(FileNotFoundError, match=rf"{reason}; add it"):
            inputs.check(video_id)


@pytest.mark.parametrize("flagged", [True, False], ids=["with the flag", "without, as macOS packs"])
def test_members_of_archives_are_found_under_either_composition(tmp_path, flagged):
    save_features(tmp_path, "a", {"visual": np.ones((2, 4))})
    name = f"{NFD}.npy".encode()
    written = name.decode() if flagged else "_" * len(name)  # zipfile flags all that is not ASCII
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "visual_features/a.npy", written)
    raw = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(raw.replace(written.encode(), name))
    archive = NpyArchive(tmp_path / "a.zip")
    assert list(archive.ids()) == [NFD] and archive.has(NFC) and not archive.has("cafe")
    assert archive.read(NFC).shape == (2, 4) and archive.place(NFC).endswith(f"{NFD}.npy")


def test_rows_of_odd_names_are_loaded_or_refused_by_name(tiny_corpus, tmp_path):
    path = tiny_corpus / "longvale-annotations-eval.json"
    value = json.loads(path.read_text())["test_0000"]
    (tiny_corpus / "events.jsonl").unlink()
    path.write_text(json.dumps({NFC: value, RAW: value, "gone": value}))
    videos = tmp_path / "v"
    videos.mkdir()
    shutil.copy(tiny_corpus / "videos" / "test_0000.mp4", videos / f"{NFD}.mp4")
    (videos / "gone.mp4").symlink_to(tmp_path / "nothing")

    def load():
        options = {"data_dir": str(tiny_corpus), "videos_dir": str(videos), "cache_dir": str(tmp_path / "cache")}
        return datasets.load_dataset("longvale", "videos", split="test", **options)

    rows = {row["video_id"]: row["video"] for row in load()}
    assert rows == {NFC: str(videos / f"{NFD}.mp4"), "bad\ufffd": None, "gone": None}
    shutil.copy(tiny_corpus / "videos" / "test_0000.mp4", videos / f"{RAW}.mp4")
    with pytest.raises(ValueError, match="the name is not UTF-8, which Arrow needs; rename the file"):
        load()
