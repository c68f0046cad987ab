import io
import json
import re
import subprocess
import zipfile

import datasets
import numpy as np
import pytest
import yaml

from longvale.events import Annotation, save_annotations
from longvale.extraction.check import check_features
from longvale.extraction.pack import pack_features
from longvale.features.manifest import Manifest
from longvale.features.store import FeatureStore, feature_path, save_features
from longvale.system.checksums import file_sha256

WIDTHS = {"visual": 8, "audio": 8, "speech": 12}


def features_of(video_id, rows=6):
    rng = np.random.default_rng(list(video_id.encode()))
    return {m: rng.normal(size=(rows if m != "visual" else 5, w)).astype(np.float32) for m, w in WIDTHS.items()}


@pytest.fixture
def store(tmp_path):
    """A store of 20 videos, of which "v03" has no sound."""
    root = tmp_path / "features"
    for index in range(20):
        video_id = f"v{index:02d}"
        save_features(root, video_id, features_of(video_id) | ({"audio": None, "speech": None} if index == 3 else {}))
    return root


def test_what_is_packed_is_loaded_as_half_precision(store, tmp_path, contents):
    before = contents(store)
    summary = pack_features(store, tmp_path / "packed", split="test", shard_bytes=3000, progress=False)
    assert (summary.videos, summary.absent) == (20, {"visual": 0, "audio": 1, "speech": 1})
    assert summary.shards > 2 and str(summary).endswith("MB, 1 without audio, 1 without speech")
    assert contents(store) == before
    packed = FeatureStore(tmp_path / "packed")
    assert packed.video_ids() == FeatureStore(store).video_ids() and packed.widths() == WIDTHS
    for video_id in packed.video_ids():
        loaded = packed.load(video_id)
        for modality, expected in FeatureStore(store).load(video_id).items():
            if expected is None:
                assert loaded[modality] is None
            else:
                np.testing.assert_array_equal(loaded[modality], expected.astype(np.float16).astype(np.float32))
    names = sorted(path.name for path in (tmp_path / "packed" / "data").iterdir())
    assert names[0] == f"test-00000-of-{summary.shards:05d}.parquet" and len(names) == summary.shards
    assert {path.name for path in (tmp_path / "packed").iterdir()} == {"README.md", "SHA256SUMS", "data"}


@pytest.mark.parametrize("streaming", [True, False])
def test_datasets_reads_the_folder_by_its_card(store, tmp_path, monkeypatch, streaming):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    pack_features(store, tmp_path / "packed", split="test", shard_bytes=3000, progress=False)
    save_features(tmp_path / "others", "w00", features_of("w00"))
    pack_features(tmp_path / "others", tmp_path / "packed", split="train", progress=False)
    rows = datasets.load_dataset(str(tmp_path / "packed"), "features", split="test", streaming=streaming)
    found = {row["video_id"]: row for row in rows.with_format("numpy")}
    assert len(found) == 20
    expected = FeatureStore(tmp_path / "packed").load("v07")
    for modality in WIDTHS:
        values = np.asarray(found["v07"][f"{modality}_features"], np.float32)
        np.testing.assert_array_equal(values, expected[modality])
    assert found["v03"]["visual_features"].shape == (5, 8)


def test_the_card_lists_the_splits(store, tmp_path):
    output = tmp_path / "packed"
    pack_features(store, output, split="train", progress=False)
    pack_features(store, output, split="test", progress=False)
    header = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", (output / "README.md").read_text(), re.DOTALL)[1])
    assert [entry["split"] for entry in header["configs"][0]["data_files"]] == ["test", "train"]
    assert [split["num_examples"] for split in header["dataset_info"]["splits"]] == [20, 20]
    assert header["license"] == "cc-by-nc-sa-4.0"
    assert "| test | 20 |" in (output / "README.md").read_text()


def test_checksums_are_those_of_sha256sum(store, tmp_path):
    pack_features(store, tmp_path / "packed", progress=False)
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert subprocess.run(command, cwd=tmp_path / "packed", capture_output=True, check=False).returncode == 0


def test_published_archives_are_packed_with_what_they_lack(store, tmp_path):
    archives = tmp_path / "archives"
    archives.mkdir()
    for modality in WIDTHS:
        with zipfile.ZipFile(archives / f"{modality}_features_20.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in (store / f"{modality}_features").iterdir():
                if path.stem != "v03" or modality == "visual":
                    content = io.BytesIO()
                    np.save(content, np.load(path).astype(np.float16))
                    archive.writestr(path.name, content.getvalue())
    summary = pack_features(archives, tmp_path / "packed", progress=False)
    assert summary.absent == {"visual": 0, "audio": 1, "speech": 1}
    pack_features(store, tmp_path / "other", progress=False)
    assert FeatureStore(tmp_path / "packed").load("v03")["audio"] is None
    for name in ("v00", "v19"):
        for modality, rows in FeatureStore(tmp_path / "other").load(name).items():
            np.testing.assert_array_equal(FeatureStore(tmp_path / "packed").load(name)[modality], rows)


def test_shards_weigh_what_the_published_archives_weigh(tmp_path):
    """In their layout: half floats of 768 and 1280, deflated."""
    root, zipped = tmp_path / "features", 0
    rng = np.random.default_rng(0)
    for index in range(4):
        features = {"visual": (100, 768), "audio": (40, 768), "speech": (40, 1280)}
        save_features(root, f"v{index}", {m: rng.normal(size=shape) for m, shape in features.items()})
    for modality in WIDTHS:
        path = tmp_path / f"{modality}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in (root / f"{modality}_features").iterdir():
                content = io.BytesIO()
                np.save(content, np.load(file).astype(np.float16))
                archive.writestr(file.name, content.getvalue())
        zipped += path.stat().st_size
    assert pack_features(root, tmp_path / "packed", progress=False).bytes < 1.1 * zipped


def test_nothing_is_written_when_a_video_is_refused(store, tmp_path, contents):
    output = tmp_path / "packed"
    pack_features(store, output, progress=False)
    before = contents(output)
    big = features_of("v05") | {"visual": np.full((5, 8), 1e6)}
    save_features(store, "v05", big)
    with pytest.raises(ValueError, match=r"visual_features/v05\.npy: holds 1e\+06, which float16 cannot"):
        pack_features(store, output, progress=False)
    feature_path(store, "v05", "visual").unlink()
    with pytest.raises(FileNotFoundError, match=r"visual_features/v05\.npy: no such file"):
        pack_features(store, output, progress=False)
    with pytest.raises(ValueError, match="split must be a name"):
        pack_features(store, output, split="../train", progress=False)
    assert contents(output) == before


def record(video_id, **more):
    return {"video_id": video_id, "file": f"{video_id}.mp4", **more}


def test_files_that_are_not_what_was_recorded_are_refused(store, tmp_path):
    with Manifest(store / "manifest.jsonl") as manifest:
        manifest.add(record("v02", sha256={"visual": "0" * 64}))
    with pytest.raises(ValueError, match=r"visual_features/v02\.npy: is not what the manifest recorded"):
        pack_features(store, tmp_path / "packed", progress=False)


def test_a_changed_shard_is_noticed(store, tmp_path):
    pack_features(store, tmp_path / "packed", progress=False)
    path = next((tmp_path / "packed" / "data").iterdir())
    content = path.read_bytes()
    wanted = features_of("v00")["visual"].astype(np.float16)
    values = wanted.tobytes()
    # Uncompressed, so that a value can be changed without the file falling apart.
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(path), path, row_group_size=8, compression="none", use_dictionary=False)
    content = path.read_bytes()
    place = content.index(values[:8])
    path.write_bytes(content[:place] + values[2:4] + content[place + 2 :])
    with pytest.raises(ValueError, match=r"parquet: video 'v00': visual_features: is not what was packed"):
        FeatureStore(tmp_path / "packed").load("v00")
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="not a shard of features"):
        FeatureStore(tmp_path / "packed")


# The report


def checksums(store, video_id):
    paths = {modality: feature_path(store, video_id, modality) for modality in WIDTHS}
    return {modality: file_sha256(path) for modality, path in paths.items() if path.is_file()}


@pytest.fixture
def annotations(tmp_path):
    path = tmp_path / "annotations.json"
    videos = [Annotation(f"v{index:02d}", 30.0, ()) for index in range(20)]
    save_annotations({video.video_id: video for video in videos}, path)
    return path


def test_a_whole_store_is_fine(store, annotations):
    report = check_features(store, annotations, progress=False)
    assert report.ok and report.complete == 20
    assert list(report.lines()) == [
        "20 of 20 videos are complete (2 absent, 1 unchecked)",
        "absent: v03: has no audio",
        "absent: v03: has no speech",
        f"unchecked: {store}: holds no manifest.jsonl: damage that keeps the form is not seen",
    ]


def test_videos_whose_checksums_are_lost_are_not_complete(store, annotations):
    recorded = [record(v, sha256=checksums(store, v)) for v in FeatureStore(store).video_ids()]
    with Manifest(store / "manifest.jsonl") as manifest:
        for line in recorded:
            manifest.add(line)
    assert next(check_features(store, annotations, progress=False).lines()) == "20 of 20 videos are complete (2 absent)"
    lines = (store / "manifest.jsonl").read_text().splitlines(keepends=True)
    (store / "manifest.jsonl").write_text("".join(lines[:12] + lines[17:]))
    report = check_features(store, annotations, progress=False)
    assert not report.ok and report.complete == 15
    assert list(report.lines())[:2] == [
        "15 of 20 videos are complete (5 unrecorded, 2 absent)",
        "unrecorded: v12: no checksums of visual_features, audio_features, speech_features in manifest.jsonl; "
        "run `longvale features` again",
    ]


def test_all_that_is_wrong_is_named(store, annotations, tmp_path):
    feature_path(store, "v00", "audio").unlink()
    np.save(feature_path(store, "v01", "visual"), np.full((5, 8), np.nan, np.float32))
    np.save(feature_path(store, "v02", "speech"), np.ones((6, 9), np.float32) * np.arange(6)[:, None])
    feature_path(store, "v04", "visual").write_bytes(b"no array")
    save_features(store, "v05", features_of("v05") | {"audio": np.ones((6, 8))})
    save_features(store, "v06", features_of("v06", rows=15))
    for modality in WIDTHS:
        feature_path(store, "v07", modality).unlink()
    save_features(store, "other", features_of("other"))
    with Manifest(store / "manifest.jsonl") as manifest:
        for index in range(20):
            manifest.add(record(f"v{index:02d}", sha256=checksums(store, f"v{index:02d}")))
        manifest.add(record("v07", error="v07.mp4: the file is empty"))
        manifest.add(record("v08", sha256=checksums(store, "v08") | {"audio": "f" * 64}))
    report = check_features(store, annotations, progress=False)
    assert not report.ok and report.complete == 14
    by_kind = {}
    for finding in report.findings:
        by_kind.setdefault(finding.kind, []).append(finding.message)
    assert by_kind["missing"] == [
        "v00: audio_features",
        "v07: visual_features, audio_features, speech_features (v07.mp4: the file is empty)",
    ]
    assert ["NaN" in by_kind["damaged"][0], "v04.npy" in by_kind["damaged"][1], "v08.npy" in by_kind["damaged"][2]]
    assert len(by_kind["damaged"]) == 3 and "recorded" in by_kind["damaged"][2]
    assert by_kind["width"] == [f"{store}/speech_features/v02.npy: 9 wide, expected 12"]
    assert by_kind["silent"] == ["v05: all 6 rows of audio are alike"]
    assert by_kind["length"] == [
        "v06: 15 rows of audio for 30.0 s, expected 6",
        "v06: 15 rows of speech for 30.0 s, expected 6",
    ]
    assert by_kind["extra"] == [f"1 videos are not in {annotations}, the first 'other'"]


def test_features_of_a_file_of_another_length_than_annotated_are_named(store, annotations):
    with Manifest(store / "manifest.jsonl") as manifest:
        manifest.add(record("v03", sha256=checksums(store, "v03")) | {"duration": 15.0})
        manifest.add(record("v04", sha256=checksums(store, "v04")) | {"duration": 30.4})
    report = check_features(store, annotations, progress=False)
    (named,) = [finding for finding in report.findings if "its annotation" in finding.message]
    assert (named.video_id, named.kind) == ("v03", "length")
    assert named.message.startswith("v03: the file lasts 15.0 s, its annotation 30.0 s; take the file")


def test_the_command_exits_with_1_if_training_would_miss_something(longvale, store, annotations, tmp_path):
    command = ["features", "check", store, "--annotations", annotations, "--quiet"]
    result = longvale(*command)
    assert result.exit_code == 0 and result.stdout.startswith("20 of 20 videos are complete"), result.stderr
    feature_path(store, "v00", "audio").unlink()
    result = longvale(*command, "--output", tmp_path / "findings.jsonl")
    assert result.exit_code == 1
    assert "missing: v00: audio_features" in result.stdout
    findings = [json.loads(line) for line in (tmp_path / "findings.jsonl").read_text().splitlines()]
    assert findings[0] == {"video_id": "v00", "kind": "missing", "message": "v00: audio_features"}
    result = longvale("features", "check", tmp_path / "none", "--annotations", annotations)
    assert result.exit_code == 2 and "none: no such folder" in result.stderr


def test_packed_features_are_checked_and_trained_on(longvale, store, annotations, tmp_path):
    result = longvale("features", "pack", store, "--output", tmp_path / "packed", "--split", "test", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{tmp_path / 'packed'}: 20 videos in 1 shards, ")
    assert check_features(tmp_path / "packed", annotations, progress=False).ok
    path = next((tmp_path / "packed" / "data").iterdir())
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="not a shard"):
        FeatureStore(tmp_path / "packed")


def test_what_a_killed_packing_left_is_removed(store, tmp_path):
    (tmp_path / "packed" / ".packing-abcd1234").mkdir(parents=True)
    pack_features(store, tmp_path / "packed", split="test", progress=False)
    assert not list(tmp_path.rglob(".*"))
