"""Extraction with the tiny checkpoint's towers and processor, on videos of two seconds."""

import copy
import functools
import hashlib
import json
import os
import shutil
import signal
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from longvale.checkpoints.loading import load_checkpoint, weights_digest
from longvale.extraction import extract as extraction
from longvale.extraction import workers
from longvale.extraction.encode import Encoder, encode_video
from longvale.extraction.extract import (
    ExtractionSummary,
    Manifest,
    extract,
    extract_features,
    find_videos,
)
from longvale.extraction.preprocess import describe_processor
from longvale.features.manifest import load_records
from longvale.features.store import FeatureStore, feature_path
from longvale.models.media import read_media
from longvale.models.modeling_longvale import LongVALEModel
from longvale.system.checksums import file_identity


@pytest.fixture(scope="module")
def loaded(tiny_model):
    """(towers, processor) of the tiny checkpoint, not to be changed."""
    return load_checkpoint(tiny_model, LongVALEModel, device="cpu")


@pytest.fixture(scope="module")
def other_towers(loaded):
    model = copy.deepcopy(loaded[0])
    with torch.no_grad():
        next(model.audio_tower.parameters()).add_(1.0)
    return model


def encode_plainly(model, processor, path):
    """Features of a whole video at once, by the model alone."""
    with torch.inference_mode():
        encoded = model.encode(**processor(videos=[path]))
    return {modality: values[0][mask[0].bool()].numpy() for modality, (values, mask) in encoded.items()}


def write_video(path, gray=128, seconds=2, picture=True, sound=True):
    path.write_bytes(_encoded(path.suffix, gray, seconds, picture, sound))


@functools.cache
def _encoded(suffix, gray, seconds, picture, sound):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"video{suffix}")
        _encode(path, gray, seconds, picture, sound)
        return path.read_bytes()


def _encode(path, gray, seconds, picture, sound):
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10) if picture else None
        audio = container.add_stream("aac", rate=16_000, layout="mono") if sound else None
        if picture:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            for index in range(10 * seconds):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), gray, np.uint8))
                frame.pts, frame.time_base = index, Fraction(1, 10)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if sound:
            wave = np.sin(np.arange(16_000 * seconds) / gray)[None].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
            frame.sample_rate, frame.pts = 16_000, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for index, name in enumerate(["c.mp4", "a.mp4", "b.mkv"]):
        write_video(folder / name, gray=60 + 60 * index, seconds=2 + 3 * index)
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifest(output):
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]


@pytest.fixture
def run(loaded):
    def call(videos, output, model=None, **kwargs):
        return extract(videos, output, loaded[1], model or loaded[0], progress=False, **kwargs)

    return call


@pytest.fixture
def encoded(monkeypatch):
    """How many videos were read, by id."""
    read, original = [], workers._messages

    def counting(video_id, *args):
        read.append(video_id)
        return original(video_id, *args)

    monkeypatch.setattr(workers, "_messages", counting)
    return read


@pytest.fixture(scope="module")
def encoded_plainly(loaded):
    """Features of a video: `encoded_plainly(path)`, computed once for equal files."""
    known = {}

    def encode(path):
        content = path.read_bytes()
        if content not in known:
            known[content] = encode_plainly(*loaded, path)
        return known[content]

    return encode


@pytest.mark.parametrize(
    "options",
    [{"workers": 0}, pytest.param({"workers": 2}, marks=pytest.mark.slow), {"batch_size": 1}, {"batch_size": 7}],
)
def test_features_are_those_of_the_towers(videos, tmp_path, run, loaded, encoded_plainly, options):
    """However videos are read and windows of different videos are put together."""
    output = tmp_path / "features"
    assert run(videos, output, **options) == ExtractionSummary(done=("a", "b", "c"))
    store = FeatureStore(output)
    for video_id, path in find_videos(videos).items():
        expected = encoded_plainly(path)
        for modality, rows in store.load(video_id).items():
            # Products of matrices of other heights may round differently.
            np.testing.assert_allclose(rows, expected[modality], atol=1e-5)
    assert manifest(output)[1] == {
        "video_id": "b",
        "file": "b.mkv",
        "bytes": (videos / "b.mkv").stat().st_size,
        "identity": file_identity(videos / "b.mkv"),
        "towers": weights_digest(loaded[0], part="_tower."),
        "preprocessing": describe_processor(loaded[1]),
        "duration": pytest.approx(8.0, abs=0.1),
        "features": {"visual": 10, "audio": 3, "speech": 3},
        "widths": {"visual": 64, "audio": 64, "speech": 64},
        "sha256": {
            modality: hashlib.sha256(feature_path(output, "b", modality).read_bytes()).hexdigest()
            for modality in ("visual", "audio", "speech")
        },
        "warnings": [],
    }


def test_batches_are_of_one_size_and_hold_several_videos(videos, tmp_path, run, monkeypatch):
    sizes, original = [], Encoder._encode

    def noting(self, modality, inputs):
        sizes.append((modality, inputs[0].shape[1]))
        return original(self, modality, inputs)

    monkeypatch.setattr(Encoder, "_encode", noting)
    run(videos, tmp_path / "features", batch_size=12)
    # 30 frames, 2 + 3 + 1 windows of sound, a chunk of speech a video or so.
    assert [size for modality, size in sizes if modality == "visual"] == [12, 12, 12]
    assert [size for modality, size in sizes if modality == "audio"] == [12]
    assert {size for modality, size in sizes if modality == "speech"} == {2}


def test_a_long_sound_in_pieces_gives_the_same_features(tmp_path, run, loaded, monkeypatch):
    folder = tmp_path / "videos"
    folder.mkdir()
    processor = loaded[1]
    piece_s = processor.piece_samples / 16_000
    assert piece_s == 16.0  # windows of 3.2 s, chunks of 16 s
    # Ends in the middle of a window, just after a piece, and exactly with one.
    for name, seconds in (("middle", 2.4 * piece_s), ("after", 2 * piece_s + 0.01), ("exact", 2 * piece_s)):
        rng = np.random.default_rng(0)
        with av.open(str(folder / f"{name}.mkv"), "w") as container:
            audio = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
            wave = (rng.normal(0, 0.1, (1, round(seconds * 16_000)))).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(np.round(wave * 32767).astype(np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = 16_000, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    for preprocessing in ("strict", "official"):
        either = copy.deepcopy(processor)
        either.video_processor.preprocessing = either.audio_extractor.preprocessing = preprocessing
        output = tmp_path / preprocessing
        extract(folder, output, either, loaded[0], progress=False)
        for video_id, path in find_videos(folder).items():
            expected = encode_plainly(loaded[0], either, path)
            features = FeatureStore(output).load(video_id)
            for modality in ("audio", "speech"):
                np.testing.assert_allclose(features[modality], expected[modality], atol=1e-5)


def test_a_missing_modality_is_recorded_as_absent(tmp_path, run):
    folder, output = tmp_path / "videos", tmp_path / "features"
    folder.mkdir()
    write_video(folder / "silent.mp4", sound=False)
    write_video(folder / "dark.mp4", picture=False)
    assert run(folder, output).done == ("dark", "silent")
    store = FeatureStore(output)
    assert [modality for modality, rows in store.load("silent").items() if rows is not None] == ["visual"]
    assert [modality for modality, rows in store.load("dark").items() if rows is not None] == ["audio", "speech"]
    assert [line["features"]["visual"] for line in manifest(output)] == [0, 10]
    assert run(folder, output).skipped == ("dark", "silent")


def test_finished_videos_are_not_made_again(videos, tmp_path, run, encoded):
    output = tmp_path / "features"
    run(videos, output)
    first = contents(output)
    encoded.clear()
    assert run(videos, output) == ExtractionSummary(skipped=("a", "b", "c"))
    assert not encoded and contents(output) == first


def test_overwrite_makes_them_again(videos, tmp_path, run):
    output = tmp_path / "features"
    run(videos, output)
    path = output / "visual_features" / "a.npy"
    np.save(path, np.zeros((1, 3), np.float32))
    assert run(videos, output, overwrite=True).done == ("a", "b", "c")
    assert np.load(path).shape == (10, 64)


def test_a_replaced_video_is_made_again_and_named(videos, tmp_path, run, encoded):
    output = tmp_path / "features"
    run(videos, output)
    before = contents(output)
    encoded.clear()
    os.utime(videos / "a.mp4")  # copied, not replaced
    shutil.copyfile(videos / "a.mp4", videos / "b.mkv")
    summary = run(videos, output)
    assert encoded == ["b"] and summary.replaced == ("b",)
    assert str(summary) == "1 done, 2 there already, 0 failed; made again because the video was replaced: b"
    after = contents(output)
    assert {name for name in before if before[name] != after[name]} == {
        "manifest.jsonl", *(f"{m}_features/b.npy" for m in ("visual", "audio", "speech")),
    }  # fmt: skip
    assert after["audio_features/a.npy"] == after["audio_features/b.npy"]
    assert run(videos, output) == ExtractionSummary(skipped=("a", "b", "c"))


def test_a_video_replaced_by_a_bad_one_keeps_no_features(videos, tmp_path, run):
    output = tmp_path / "features"
    run(videos, output)
    (videos / "b.mkv").write_bytes((videos / "b.mkv").read_bytes()[:1000])
    summary = run(videos, output)
    assert summary.replaced == ("b",) and summary.failed[0][0] == "b"
    assert not list(output.glob("*/b.npy")) and len(list(output.glob("*/*.npy"))) == 6


@pytest.mark.parametrize("kill", ["add", "save_features"])
def test_a_run_killed_while_redoing_a_replaced_video_does_it_again(videos, tmp_path, run, monkeypatch, kill):
    output = tmp_path / "features"
    run(videos, output)
    shutil.copyfile(videos / "a.mp4", videos / "b.mkv")
    owner = Manifest if kill == "add" else extraction
    with monkeypatch.context() as patched:
        patched.setattr(owner, kill, lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(videos, output)
    assert run(videos, output).done == ("b",)
    whole = contents(output)
    assert whole["visual_features/a.npy"] == whole["visual_features/b.npy"]


def test_damaged_features_and_lost_lines_are_repaired(videos, tmp_path, run, encoded):
    output = tmp_path / "features"
    run(videos, output)
    before = contents(output)
    damaged = bytearray(before["audio_features/b.npy"])
    damaged[-1] ^= 1  # a bit of the last number
    (output / "audio_features" / "b.npy").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"audio_features/b\.npy: is not what the manifest recorded"):
        FeatureStore(output).load("b")
    lines = [line for line in manifest(output) if line["video_id"] != "a"]
    (output / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    encoded.clear()
    summary = run(videos, output)
    assert encoded == ["b"] and summary.repaired == ("b",) and summary.restored == 1
    assert str(summary) == (
        "1 done, 2 there already, 0 failed; made again because the features were damaged: b; "
        "1 lines of the manifest restored from the features that are there"
    )
    assert all(contents(output)[name] == before[name] for name in before if name != "manifest.jsonl")
    restored = manifest(output)[0]
    expected = next(json.loads(line) for line in before["manifest.jsonl"].splitlines() if b'"a"' in line)
    assert restored == {
        k: v for k, v in expected.items() if k not in ("towers", "preprocessing", "duration", "warnings")
    }


def test_records_of_earlier_versions_are_kept_and_completed(videos, tmp_path, run, encoded, caplog):
    output = tmp_path / "features"
    run(videos, output)
    lines = [{k: v for k, v in line.items() if k != "identity"} for line in manifest(output)]
    (output / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.copyfile(videos / "a.mp4", videos / "c.mp4")  # its size tells
    encoded.clear()
    assert run(videos, output).replaced == ("c",) and encoded == ["c"]
    assert "2 videos were recorded without the identity" in caplog.text
    caplog.clear()
    assert run(videos, output) == ExtractionSummary(skipped=("a", "b", "c")) and not caplog.text
    assert [line["identity"] for line in manifest(output)] == [
        file_identity(path) for path in find_videos(videos).values()
    ]


def test_a_new_video_joins_the_others(videos, tmp_path, run):
    output = tmp_path / "features"
    run(videos, output)
    write_video(videos / "aa.mp4")
    assert run(videos, output) == ExtractionSummary(done=("aa",), skipped=("a", "b", "c"))
    assert [line["video_id"] for line in manifest(output)] == ["a", "aa", "b", "c"]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_bad_video_does_not_stop_the_others(videos, tmp_path, run, workers):
    output = tmp_path / "features"
    (videos / "b.mkv").write_text("no video")
    (videos / "bb.mp4").touch()
    summary = run(videos, output, workers=workers)
    assert summary.done == ("a", "c")
    assert [video_id for video_id, _ in summary.failed] == ["b", "bb"]
    line = str(summary)
    assert line.startswith("2 done, 0 there already, 2 failed: b.mkv: not a media file") and "\n" not in line
    assert "bb.mp4: the file is empty" in line and str(tmp_path) not in line
    assert manifest(output)[1]["error"].startswith("b.mkv: not a media file")
    assert not (output / "visual_features" / "b.npy").exists()

    # Once it is repaired, the next run makes it.
    write_video(videos / "b.mkv")
    summary = run(videos, output)
    assert (summary.done, summary.skipped, len(summary.failed)) == (("b",), ("a", "c"), 1)
    assert "error" not in manifest(output)[1]


def test_features_that_are_no_numbers_fail_their_video(videos, tmp_path, run, monkeypatch):
    original = Encoder.finished

    def broken(self):
        for video_id, features in original(self):
            if video_id == "b":
                features["visual"][0, 0] = np.nan
            yield video_id, features

    monkeypatch.setattr(Encoder, "finished", broken)
    summary = run(videos, tmp_path / "features")
    assert summary.done == ("a", "c") and summary.failed[0][0] == "b"
    assert summary.failed[0][1].startswith("b.mkv: ") and "NaN" in summary.failed[0][1]
    assert "error" in manifest(tmp_path / "features")[1]


def test_one_file(videos, tmp_path, run):
    assert run(videos / "b.mkv", tmp_path / "features").done == ("b",)
    (tmp_path / "fake.mp4").write_text("no video")
    summary = run(tmp_path / "fake.mp4", tmp_path / "features")
    assert not summary.done and summary.failed[0][0] == "fake"


# Stopped, killed, shared


def test_a_stopped_run_goes_on_and_gives_the_same_files(videos, tmp_path, run, monkeypatch):
    """Stopped wherever it can be: before, in and after each video."""
    run(videos, tmp_path / "whole", batch_size=1)
    expected = contents(tmp_path / "whole")
    original = Encoder.complete
    for limit in range(3):
        output, calls = tmp_path / f"stopped{limit}", []

        def stopping(self, video_id, calls=calls, limit=limit):
            calls.append(video_id)
            if len(calls) > limit:
                raise KeyboardInterrupt
            original(self, video_id)

        with monkeypatch.context() as patch:
            patch.setattr(Encoder, "complete", stopping)
            with pytest.raises(KeyboardInterrupt):
                run(videos, output, batch_size=1)
        assert run(videos, output, batch_size=1).skipped == ("a", "b", "c")[:limit]
        assert contents(output) == expected


SCRIPT = """
import os, signal, sys
from longvale.extraction import extract as extraction
from longvale.checkpoints.loading import load_checkpoint
from longvale.models.modeling_longvale import LongVALEModel

def main():
    model, processor = load_checkpoint(sys.argv[3], LongVALEModel, device="cpu")
    save, saved = extraction.save_features, []

    def deadly(*args):
        save(*args)
        saved.append(args[1])
        print(os.getpid(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    extraction.save_features = deadly
    extraction.extract(sys.argv[1], sys.argv[2], processor, model, workers=2, batch_size=1, progress=False)

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_goes_on_and_leaves_no_process(videos, tmp_path, run, preloaded, tiny_model):
    run(videos, tmp_path / "whole", batch_size=1)
    output, script = tmp_path / "killed", tmp_path / "script.py"
    script.write_text(SCRIPT)
    # A group of its own: whoever is left of it can be found.
    process = preloaded.start(script, videos, output, tiny_model, new_session=True)
    assert process.wait() == -signal.SIGKILL, process.stdout.read()
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("worker processes outlive the run")
    with (output / "manifest.jsonl").open("a") as file:
        file.write('{"video_id": "b", "fi')  # as if it had been killed while writing
    assert len(run(videos, output, batch_size=1).skipped) == 1
    assert contents(output) == contents(tmp_path / "whole")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_worker_costs_an_attempt(videos, tmp_path, run, monkeypatch):
    """Each process is killed when it has given the first part of its first video; two tries are left for it."""
    run(videos, tmp_path / "whole")
    killed, original = [], workers._Worker.start

    def start(self, video_id, path):
        original(self, video_id, path)
        if len(killed) < 2:
            killed.append(video_id)
            os.kill(self._process.pid, signal.SIGKILL)

    monkeypatch.setattr(workers._Worker, "start", start)
    summary = run(videos, tmp_path / "killed", workers=2)
    assert summary.done == ("a", "b", "c") and len(killed) == 2
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_video_that_kills_its_reader_fails_alone(videos, tmp_path, run, monkeypatch):
    original = workers._Worker.start

    def start(self, video_id, path):
        if video_id == "b":
            self._process.kill()
            self._process.join()
        original(self, video_id, path)

    monkeypatch.setattr(workers._Worker, "start", start)
    summary = run(videos, tmp_path / "features", workers=1)
    assert summary.done == ("a", "c")
    assert summary.failed == (
        ("b", "b.mkv: the process that read it died 3 times (SIGKILL); give it memory, or repair the file"),
    )
    assert manifest(tmp_path / "features")[1]["error"] == summary.failed[0][1]


def test_what_had_come_of_a_video_whose_reader_died_is_forgotten(videos, tmp_path, run, monkeypatch):
    original = extraction._messages

    def stuttering(todo, processor, number):
        """The first parts of each video come twice."""
        for video_id, path in todo.items():
            whole = list(original({video_id: path}, processor, number))
            yield from whole[:-1]
            yield workers.Message(video_id, "again")
            yield from whole

    monkeypatch.setattr(extraction, "_messages", stuttering)
    run(videos, tmp_path / "stuttered")
    monkeypatch.undo()
    run(videos, tmp_path / "whole")
    assert contents(tmp_path / "stuttered") == contents(tmp_path / "whole")


def test_shards_do_all_once_into_one_folder(videos, tmp_path, run):
    for index in range(5):
        write_video(videos / f"v{index}.mp4")
    run(videos, tmp_path / "whole")
    output = tmp_path / "shards"
    unfinished = output / "visual_features" / ".other.npy.x.tmp"
    unfinished.parent.mkdir(parents=True)
    unfinished.touch()  # of a video that another job may be at
    summaries = [run(videos, output, shard=(number, 3)) for number in (1, 2, 3)]
    done = [video_id for summary in summaries for video_id in summary.done]
    assert sorted(done) == sorted(find_videos(videos)) and all(summary.done for summary in summaries)
    assert unfinished.exists()
    unfinished.unlink()
    assert {p.name for p in output.glob("*.jsonl")} == {f"manifest-{number}-of-3.jsonl" for number in (1, 2, 3)}
    made, whole = contents(output), contents(tmp_path / "whole")
    assert {p: b for p, b in made.items() if "npy" in p} == {p: b for p, b in whole.items() if "npy" in p}
    assert load_records(output) == load_records(tmp_path / "whole")


def test_a_shard_without_a_video_is_done(videos, tmp_path, run):
    summaries = [run(videos, tmp_path / "features", shard=(number, 50)) for number in range(1, 51)]
    assert sum(len(summary.done) for summary in summaries) == 3


def test_memory_is_bounded_by_the_batches(tmp_path, run, monkeypatch):
    folder = tmp_path / "videos"
    folder.mkdir()
    write_video(tmp_path / "any.mp4")
    for index in range(12):
        (folder / f"{index:02d}.mp4").write_bytes((tmp_path / "any.mp4").read_bytes())
    waiting, run_towers = [], Encoder.run

    def noting(self, partial=False):
        run_towers(self, partial)
        waiting.append(sum(len(queue) for queue in self._queues.values()))

    monkeypatch.setattr(Encoder, "run", noting)
    run(folder, tmp_path / "features", batch_size=8)
    assert max(waiting) < 3 * 8


# Refused before anything is written


@pytest.fixture
def refused(run):
    def check(error, words, videos, output, **kwargs):
        with pytest.raises(error) as caught:
            run(videos, output, **kwargs)
        assert words in str(caught.value) and "\n" not in str(caught.value)

    return check


def test_bad_input_is_refused_before_anything_is_written(videos, tmp_path, refused):
    output = tmp_path / "features"
    refused(FileNotFoundError, "none: no such file or directory", tmp_path / "none", output)
    (tmp_path / "void").mkdir()
    (tmp_path / "void" / "notes.txt").write_text("no video")
    refused(FileNotFoundError, "void: holds no video (.mp4", tmp_path / "void", output)
    refused(ValueError, "workers must be 0 or more, not -1", videos, output, workers=-1)
    refused(ValueError, "batch_size must be 1 or more, not 0", videos, output, batch_size=0)
    refused(ValueError, "shard must be a number from 1 to that of the shards, not 0/2", videos, output, shard=(0, 2))
    refused(ValueError, "shard must be a number from 1 to that of the shards, not 3/2", videos, output, shard=(3, 2))
    refused(ValueError, "engine must be one of local, ray, not 'dask'", videos, output, engine="dask")
    (videos / "a.webm").touch()
    refused(ValueError, "a.webm: video id 'a' has a second file, a.mp4", videos, output)
    assert not output.exists()
    refused(ValueError, "notes.txt: is a file", videos / "b.mkv", tmp_path / "void" / "notes.txt")


def test_videos_are_looked_for_before_the_model_is_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none: no such file or directory"):
        extract_features(tmp_path / "none", tmp_path / "features", model=tmp_path / "no_model")


def test_a_missing_model_is_named(videos, tmp_path):
    (tmp_path / "hollow").mkdir()
    with pytest.raises(FileNotFoundError, match=r"hollow/config\.json: no such file") as caught:
        extract_features(videos, tmp_path / "features", model=tmp_path / "hollow")
    assert "\n" not in str(caught.value) and not (tmp_path / "features").exists()


def test_features_of_other_preprocessing_do_not_mix(videos, tmp_path, run, loaded):
    model, processor = loaded
    run(videos / "a.mp4", tmp_path / "features")
    assert describe_processor(copy.deepcopy(processor)) == describe_processor(processor)
    fewer, other = copy.deepcopy(processor), copy.deepcopy(processor)
    plain = copy.deepcopy(processor)
    fewer.video_processor.num_frames = 7
    other.video_processor.image_mean, plain.video_processor.do_normalize = [0.5, 0.5, 0.5], False
    cases = [(fewer, r"preprocessing\.num_frames 10, not 7;")]
    cases += [(changed, r"preprocessing\.image_proc") for changed in (other, plain)]
    for changed, message in cases:
        with pytest.raises(ValueError, match=rf"jsonl: features of 'a' were made with {message}"):
            extract(videos, tmp_path / "features", changed, model, progress=False)


@pytest.mark.parametrize("shard", [None, (1, 1)])
def test_features_of_other_towers_do_not_mix(videos, tmp_path, run, other_towers, shard):
    output = tmp_path / "features"
    run(videos / "a.mp4", output)
    before = contents(output)
    with pytest.raises(ValueError, match=r"jsonl: features of 'a' were made with towers '\w+', not '\w+'; give"):
        run(videos, output, other_towers, shard=shard)
    assert contents(output) == before
    assert run(videos, output).skipped == ("a",)
    assert len(run(videos, output, other_towers, overwrite=True).done) == 3
    (output / "manifest.jsonl").unlink()  # as in a store that was downloaded
    assert len(run(videos, output).skipped) == 3


def test_the_language_model_is_not_loaded(tiny_model, caplog):
    whole, _ = load_checkpoint(tiny_model, LongVALEModel, device="cpu")
    towers, _ = load_checkpoint(tiny_model, LongVALEModel, device="cpu", only_towers=True)
    assert len(whole.language_model.layers) > 0 and len(towers.language_model.layers) == 0
    kept = {name: value for name, value in whole.state_dict().items() if ".layers." not in name or "_tower." in name}
    assert kept.keys() == towers.state_dict().keys()
    assert all(torch.equal(value, towers.state_dict()[name]) for name, value in kept.items())
    assert "UNEXPECTED" not in caplog.text


def test_a_model_without_towers_is_refused(videos, tmp_path, run, loaded):
    model = copy.copy(loaded[0])
    model._modules = {**model._modules, "speech_tower": None}
    with pytest.raises(ValueError, match="the model has no speech tower"):
        run(videos, tmp_path / "features", model)


@pytest.mark.parametrize("line", ["no json", "[]", '{"file": "a.mp4"}'])
def test_a_manifest_of_another_kind_is_refused(videos, tmp_path, refused, line):
    output = tmp_path / "features"
    output.mkdir()
    (output / "manifest.jsonl").write_text(f'{{"video_id": "x"}}\n{line}\n')
    refused(ValueError, "manifest.jsonl: line 2: ", videos, output)
    assert list(output.iterdir()) == [output / "manifest.jsonl"]


def test_the_last_line_of_a_video_counts(tmp_path):
    with Manifest(tmp_path / "manifest.jsonl") as file:
        file.add({"video_id": "b", "error": "first"})
        file.add({"video_id": "a\udce9"})  # a name that is not UTF-8
        file.add({"video_id": "b"})
        assert len((tmp_path / "manifest.jsonl").read_text().splitlines()) == 3
    assert manifest(tmp_path) == [{"video_id": "a\udce9"}, {"video_id": "b"}]
    assert list(Manifest(tmp_path / "manifest.jsonl").records) == ["a\udce9", "b"]


def test_find_videos(videos):
    (videos / ".hidden.mp4").touch()
    (videos / "folder.mp4.d").mkdir()
    assert list(find_videos(videos)) == ["a", "b", "c"]
    assert find_videos(videos / "c.mp4") == {"c": videos / "c.mp4"}


def test_encode_video_leaves_padding_out(videos, loaded):
    model, processor = loaded
    features = encode_video(model, processor, read_media(videos / "a.mp4", **processor.media_kwargs()))
    for modality, rows in encode_plainly(model, processor, videos / "a.mp4").items():
        np.testing.assert_allclose(features[modality], rows, atol=1e-5)
    assert {modality: rows.shape for modality, rows in features.items()} == {
        "visual": (10, 64),
        "audio": (2, 64),
        "speech": (2, 64),
    }
    assert all(rows.dtype == np.float32 for rows in features.values())
