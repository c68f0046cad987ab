"""Extraction with a processor and towers of a few lines; the real ones have tests of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from transformers import BatchFeature

from longvale.checkpoints.loading import weights_digest
from longvale.data.extraction import ExtractionSummary, Manifest, encode_video, extract, extract_features, find_videos
from longvale.data.features import FeatureStore


class Processor:
    """Takes a mean of each frame, and windows of 0.5 s of the sound for both sound modalities."""

    def media_kwargs(self):
        return {"num_frames": 4, "size": 32, "sampling_rate": 8_000, "decode": "strict"}

    def __call__(self, videos, return_tensors):
        (video,), inputs = videos, {}
        if video.frames is not None:
            inputs["pixel_values_videos"] = torch.tensor(video.frames / 255).mean((1, 2))[None]  # [1, F, 3]
        if video.waveform is not None:
            windows = torch.tensor(video.waveform[: len(video.waveform) // 4000 * 4000]).reshape(1, -1, 4000)
            inputs["input_values"] = inputs["input_features"] = windows
        return BatchFeature(inputs)


class Towers:
    device = torch.device("cpu")

    def __init__(self, weight=0.0):
        self.calls = 0
        self.weight = torch.full((3,), weight)

    def named_parameters(self):
        return [("visual_tower.weight", self.weight), ("language_model.weight", torch.rand(3))]

    def encode(self, pixel_values_videos=None, input_values=None, input_features=None):
        self.calls += 1
        assert torch.is_inference_mode_enabled()
        encoded = {}
        if pixel_values_videos is not None:
            encoded["visual"] = pixel_values_videos, torch.ones(pixel_values_videos.shape[:2])
        if input_values is not None:
            level = input_values.square().mean(-1, keepdim=True).repeat(1, 1, 5)
            mask = torch.ones(level.shape[:2])
            mask[:, -1] = 0  # the last window is padding
            encoded["audio"], encoded["speech"] = (level, mask), (level[..., :2], torch.ones_like(mask))
        return encoded


def write_video(path, gray=128, seconds=2, picture=True, sound=True):
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
        write_video(folder / name, gray=60 + 60 * index)
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifest(output):
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]


def run(videos, output, model=None, **kwargs):
    return extract(videos, output, Processor(), model or Towers(), progress=False, **kwargs)


@pytest.mark.parametrize("workers", [1, 3])
def test_features_are_those_of_the_towers(videos, tmp_path, workers):
    output = tmp_path / "features"
    summary = run(videos, output, workers=workers)
    assert summary == ExtractionSummary(done=("a", "b", "c"))
    store = FeatureStore(output)
    for video_id, gray in (("a", 120), ("b", 180), ("c", 60)):
        features = store.load(video_id)
        assert features["visual"] == pytest.approx(np.full((4, 3), gray / 255), abs=0.02)
        assert features["audio"].shape == (3, 5) and features["speech"].shape == (4, 2)
        assert features["audio"] == pytest.approx(np.full((3, 5), 0.5), abs=0.1)
    assert manifest(output)[1] == {
        "video_id": "b",
        "file": "b.mkv",
        "towers": weights_digest(Towers(), part="_tower."),
        "duration": pytest.approx(2.0, abs=0.1),
        "features": {"visual": 4, "audio": 3, "speech": 4},
        "warnings": [],
    }


def test_a_missing_modality_is_recorded_as_absent(tmp_path):
    folder, output = tmp_path / "videos", tmp_path / "features"
    folder.mkdir()
    write_video(folder / "silent.mp4", sound=False)
    write_video(folder / "dark.mp4", picture=False)
    assert run(folder, output).done == ("dark", "silent")
    store = FeatureStore(output)
    assert [modality for modality, rows in store.load("silent").items() if rows is not None] == ["visual"]
    assert [modality for modality, rows in store.load("dark").items() if rows is not None] == ["audio", "speech"]
    assert [line["features"]["visual"] for line in manifest(output)] == [0, 4]
    assert run(folder, output).skipped == ("dark", "silent")


def test_finished_videos_are_not_made_again(videos, tmp_path, monkeypatch):
    output, towers = tmp_path / "features", Towers()
    run(videos, output, towers)
    first = contents(output)
    monkeypatch.setattr("longvale.models.media.read_media", None)  # nor decoded
    assert run(videos, output, towers) == ExtractionSummary(skipped=("a", "b", "c"))
    assert towers.calls == 3 and contents(output) == first


def test_overwrite_makes_them_again(videos, tmp_path):
    output = tmp_path / "features"
    run(videos, output)
    path = output / "visual_features" / "a.npy"
    np.save(path, np.zeros((1, 3), np.float32))
    assert run(videos, output, overwrite=True).done == ("a", "b", "c")
    assert np.load(path).shape == (4, 3)


def test_a_new_video_joins_the_others(videos, tmp_path):
    output = tmp_path / "features"
    run(videos, output)
    write_video(videos / "aa.mp4")
    assert run(videos, output) == ExtractionSummary(done=("aa",), skipped=("a", "b", "c"))
    assert [line["video_id"] for line in manifest(output)] == ["a", "aa", "b", "c"]


def test_a_bad_video_does_not_stop_the_others(videos, tmp_path):
    output = tmp_path / "features"
    (videos / "b.mkv").write_text("no video")
    (videos / "bb.mp4").touch()
    summary = run(videos, output)
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


def test_features_that_are_no_numbers_fail_their_video(videos, tmp_path):
    class Broken(Towers):
        def encode(self, **inputs):
            encoded = super().encode(**inputs)
            if self.calls == 2:
                encoded["visual"][0][0, 1, 2] = torch.nan
            return encoded

    summary = run(videos, tmp_path / "features", Broken())
    assert summary.done == ("a", "c") and summary.failed[0][0] == "b"
    assert summary.failed[0][1].startswith("b.mkv: ") and "NaN" in summary.failed[0][1]
    assert "error" in manifest(tmp_path / "features")[1]


def test_one_file(videos, tmp_path):
    assert run(videos / "b.mkv", tmp_path / "features").done == ("b",)
    (tmp_path / "fake.mp4").write_text("no video")
    summary = run(tmp_path / "fake.mp4", tmp_path / "features")
    assert not summary.done and summary.failed[0][0] == "fake"


def test_a_stopped_run_goes_on_and_gives_the_same_files(videos, tmp_path):
    """Stopped wherever it can be: before, in and after each video."""
    run(videos, tmp_path / "whole")
    expected = contents(tmp_path / "whole")

    class Stopping(Towers):
        def encode(self, **inputs):
            if self.calls == self.limit:
                raise KeyboardInterrupt
            return super().encode(**inputs)

    for limit in range(3):
        output, towers = tmp_path / f"stopped{limit}", Stopping()
        towers.limit = limit
        with pytest.raises(KeyboardInterrupt):
            run(videos, output, towers)
        assert run(videos, output).skipped == ("a", "b", "c")[:limit]
        assert contents(output) == expected


SCRIPT = """
import sys, time
sys.path.insert(0, {folder!r})
from test_extraction import Processor, Towers, run

class Slow(Towers):
    def encode(self, **inputs):
        if self.calls == 1:
            print("second", flush=True)
            time.sleep(60)
        return super().encode(**inputs)

run(sys.argv[1], sys.argv[2], Slow())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_goes_on_and_gives_the_same_files(videos, tmp_path):
    run(videos, tmp_path / "whole")
    output = tmp_path / "killed"
    script = SCRIPT.format(folder=str(Path(__file__).parent))
    command = [sys.executable, "-c", script, str(videos), str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout.readline() == "second\n"
        process.kill()
    time.sleep(0.1)
    with (output / "manifest.jsonl").open("a") as file:
        file.write('{"video_id": "b", "fi')  # as if it had been killed while writing
    assert run(videos, output) == ExtractionSummary(done=("b", "c"), skipped=("a",))
    assert contents(output) == contents(tmp_path / "whole")


def test_memory_is_bounded_by_the_workers(tmp_path, monkeypatch):
    folder = tmp_path / "videos"
    folder.mkdir()
    for index in range(12):
        (folder / f"{index:02d}.mp4").touch()
    ahead = []

    class Counting(Towers):
        def encode(self, **inputs):
            ahead.append(len(started) - self.calls)
            return super().encode(**inputs)

    write_video(tmp_path / "any.mp4")
    from longvale.models.media import read_media

    media, started = read_media(tmp_path / "any.mp4", num_frames=4, sampling_rate=8_000), []
    monkeypatch.setattr("longvale.models.media.read_media", lambda path, **_: started.append(path) or media)
    run(folder, tmp_path / "features", Counting(), workers=2)
    assert len(ahead) == 12 and max(ahead) <= 4


# Refused before anything is written


def refused(error, words, videos, output, **kwargs):
    with pytest.raises(error) as caught:
        run(videos, output, **kwargs)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_bad_input_is_refused_before_anything_is_written(videos, tmp_path):
    output = tmp_path / "features"
    refused(FileNotFoundError, "none: no such file or directory", tmp_path / "none", output)
    (tmp_path / "void").mkdir()
    (tmp_path / "void" / "notes.txt").write_text("no video")
    refused(FileNotFoundError, "void: holds no video (.mp4", tmp_path / "void", output)
    refused(ValueError, "workers must be 1 or more, not 0", videos, output, workers=0)
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


def test_features_of_other_towers_do_not_mix(videos, tmp_path):
    output = tmp_path / "features"
    run(videos / "a.mp4", output)
    before = contents(output)
    with pytest.raises(ValueError, match=r"manifest\.jsonl: 1 videos, the first 'a', have features that other towers"):
        run(videos, output, Towers(weight=1.0))
    assert contents(output) == before
    assert run(videos, output, Towers()).skipped == ("a",)
    assert len(run(videos, output, Towers(weight=1.0), overwrite=True).done) == 3
    (output / "manifest.jsonl").unlink()  # as in a store that was downloaded
    assert len(run(videos, output, Towers()).skipped) == 3


@pytest.mark.parametrize("line", ["no json", "[]", '{"file": "a.mp4"}'])
def test_a_manifest_of_another_kind_is_refused(videos, tmp_path, line):
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


def test_encode_video_leaves_padding_out(videos):
    from longvale.models.media import read_media

    processor = Processor()
    features = encode_video(Towers(), processor, read_media(videos / "a.mp4", **processor.media_kwargs()))
    assert {modality: rows.shape for modality, rows in features.items()} == {
        "visual": (4, 3),
        "audio": (3, 5),
        "speech": (4, 2),
    }
    assert all(rows.dtype == np.float32 for rows in features.values())
