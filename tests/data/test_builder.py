import json
import logging
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import numpy as np
import pytest

import longvale
from longvale.data.sources import HUB_REPO, HUB_REVISION
from longvale.features.store import feature_path, save_features

TRAINING, EVAL = "longvale-annotations-training.json", "longvale-annotations-eval.json"

TRAIN_VIDEOS = {
    "aaa": {
        "duration": 60.0,
        "timestamps": [[0, 30], [30.5, 60.2]],
        "sentences": ["A bell rings.", "Ein Hund bellt ü."],
    },
    "bbb": {"duration": 40, "timestamps": [[4, 10]], "sentences": ["A car passes."]},
    "no events": {"duration": 40, "timestamps": [], "sentences": []},
}
TEST_VIDEOS = {"ccc": {"duration": 100.0, "timestamps": [[5, 25]], "sentences": ["A voice says yes."]}}
EVENT_LINES = [
    {"video_id": "aaa", "start": 0, "end": 30, "modalities": ["audio"], "relation": "audio-only"},
    {"video_id": "aaa", "start": 30.5, "end": 60.2, "modalities": ["visual", "audio"], "relation": "synchronicity"},
]
DIALOGUES = [
    {
        "id": "aaa",
        "source": "made",
        "conversations": [
            {"from": "human", "value": "<video>\nWhen does the bell ring?"},
            {"from": "gpt", "value": "From <s0> to <e0>."},
        ],
        "meta": {"duration": 60.0, "split": [0, 60], "token": {"<s0>": 3.0, "<e0>": 30.0}},
    },
    {
        "id": "bbb",
        "conversations": [{"from": "human", "value": "<video>\nHi"}, {"from": "gpt", "value": "Hello."}],
    },
]


def write_json(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def data_dir(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    write_json(path / TRAINING, TRAIN_VIDEOS)
    write_json(path / EVAL, TEST_VIDEOS)
    return path


@pytest.fixture
def load(tmp_path):
    """`load_dataset` with a cache of the test's own."""

    def load(*args, **kwargs):
        return datasets.load_dataset("longvale", *args, cache_dir=str(tmp_path / "cache"), **kwargs)

    return load


@pytest.fixture
def features_dir(tmp_path):
    root = tmp_path / "features"
    save_features(root, "aaa", {"visual": np.full((3, 4), 0.5), "audio": np.ones((2, 4)), "speech": None})
    save_features(root, "ccc", {"visual": np.ones((5, 4)), "audio": np.ones((1, 4)), "speech": np.ones((1, 6))})
    return root


@pytest.fixture
def videos_dir(tmp_path):
    path = tmp_path / "videos"
    path.mkdir()
    for name in ("aaa.mp4", "ccc.webm", "notes.txt"):
        (path / name).write_bytes(b"")
    return path


def test_events_are_the_default_with_one_row_an_event(load, data_dir):
    rows = load(data_dir=data_dir)
    assert list(rows) == ["train", "test"]
    assert rows["train"].to_list()[1] == {
        "video_id": "aaa",
        "event_id": 1,
        "start": 30.5,
        "end": 60.2,
        "caption": "Ein Hund bellt ü.",
        "modalities": None,
        "relation": None,
        "duration": 60.0,
    }
    assert rows["train"]["video_id"][:] == ["aaa", "aaa", "bbb"]
    assert rows["test"]["end"][:] == [25.0]


def test_modalities_and_relation_come_from_the_file_beside(load, data_dir):
    (data_dir / "events.jsonl").write_text("\n".join(map(json.dumps, EVENT_LINES)))
    rows = load("events", data_dir=data_dir, split="train")
    assert rows["modalities"][:] == [["audio"], ["visual", "audio"], None]
    assert rows["relation"][:] == ["audio-only", "synchronicity", None]


def test_an_events_file_of_other_annotations_is_refused(load, data_dir):
    (data_dir / "events.jsonl").write_text(json.dumps(EVENT_LINES[0]))
    with pytest.raises(ValueError, match=r"events\.jsonl: video 'aaa' has 1 events, but its annotation 2"):
        load(data_dir=data_dir)
    lines = [EVENT_LINES[0] | {"start": 1.0}, EVENT_LINES[1]]
    (data_dir / "events.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match=r"events\.jsonl: line 1: event of video 'aaa' is at 1\.0-30 s"):
        load(data_dir=data_dir)


def test_videos_hold_their_events_and_may_have_none(load, data_dir):
    rows = load("videos", data_dir=data_dir, split="train")
    assert [len(events) for events in rows["events"]] == [2, 1, 0]
    assert rows[1]["events"][0]["caption"] == "A car passes."
    assert rows["duration"][:] == [60.0, 40.0, 40.0]


def test_the_tasks_have_question_reference_and_ids(load, data_dir):
    grounding = load("grounding", data_dir=data_dir, split="test")[0]
    assert (grounding["video_id"], grounding["sentence_id"]) == ("ccc", 0)
    assert "can we find a voice says yes taking place" in grounding["question"]
    assert grounding["reference"] == "From 05 to 25."
    assert (grounding["start"], grounding["end"], grounding["duration"]) == (5.0, 25.0, 100.0)

    segment = load("segment_captioning", data_dir=data_dir, split="test")[0]
    assert "from 05 to 25 in the video" in segment["question"]
    assert (segment["reference"], segment["start"], segment["end"]) == ("A voice says yes.", 5.0, 25.0)

    dense = load("dense_captioning", data_dir=data_dir, split="train")
    assert dense["video_id"][:] == ["aaa", "bbb"]  # a video without events gives no question
    assert dense[0]["reference"] == "From 00 to 50, A bell rings.\nFrom 51 to 99, Ein Hund bellt ü."
    assert [event["event_id"] for event in dense[0]["events"]] == [0, 1]


def test_dialogues_have_their_timecodes_filled_in(load, data_dir):
    write_json(data_dir / "longvale-sft-it.json", DIALOGUES)
    rows = load("instruction", data_dir=data_dir)
    assert list(rows) == ["train"]
    first, second = rows["train"].to_list()
    assert first["id"], first["source"] == ("aaa", "made")
    assert first["messages"] == [
        {"role": "user", "content": "<video>\nWhen does the bell ring?"},
        {"role": "assistant", "content": "From 05 to 50."},
    ]
    assert (first["duration"], first["split"]) == (60.0, [0.0, 60.0])
    assert (second["source"], second["duration"], second["split"]) == (None, None, None)


def test_one_of_several_dialogue_files_is_chosen_by_size(load, data_dir):
    for size, count in (("-7k", 1), ("-154k", 2), ("", 2)):
        write_json(data_dir / f"longvale-sft-bp{size}.json", DIALOGUES[:count])
    assert len(load("boundary_perception", data_dir=data_dir, split="train", size="7k")) == 1
    assert len(load("boundary_perception", data_dir=data_dir, split="train", size="")) == 2
    with pytest.raises(ValueError, match=r"longvale-sft-bp-7k\.json.*choose one with size="):
        load("boundary_perception", data_dir=data_dir)
    with pytest.raises(FileNotFoundError, match=r"longvale-sft-bp-9k\.json"):
        load("boundary_perception", data_dir=data_dir, size="9k")
    with pytest.raises(ValueError, match="size chooses a file of dialogues"):
        load("events", data_dir=data_dir, size="7k")


def test_the_only_dialogue_file_is_taken_whatever_its_size(load, data_dir):
    write_json(data_dir / "longvale-sft-bp-tiny_v1.2.json", DIALOGUES)
    assert len(load("boundary_perception", data_dir=data_dir, split="train")) == 2


def as_lists(row):
    """Without a format, features are lists of lists in rows from the cache and lists of arrays in a stream."""
    arrays = [name for name, value in row.items() if name.endswith("_features") and value is not None]
    return row | {name: np.asarray(row[name]).tolist() for name in arrays}


@pytest.mark.parametrize("name", ["events", "videos", "grounding", "dense_captioning", "segment_captioning"])
def test_streaming_gives_the_rows_of_the_cache(load, data_dir, features_dir, videos_dir, name):
    options = {"data_dir": data_dir, "split": "train", "features_dir": features_dir, "videos_dir": videos_dir}
    stream = load(name, streaming=True, **options)
    stored = load(name, **options)
    assert isinstance(stream, datasets.IterableDataset)
    assert stream.features == stored.features
    assert [as_lists(row) for row in stream] == stored.to_list() != []
    (first, *_), array = stream.with_format("numpy"), stored.with_format("numpy")[0]["visual_features"]
    np.testing.assert_array_equal(first["visual_features"], array)
    assert first["visual_features"].dtype == array.dtype == np.float32


def test_streamed_dialogues_are_those_of_the_cache(load, data_dir):
    write_json(data_dir / "longvale-sft-it-25k.json", DIALOGUES)
    stream = load("instruction", data_dir=data_dir, split="train", streaming=True)
    assert list(stream) == load("instruction", data_dir=data_dir, split="train").to_list()


def test_large_files_are_read_in_shards_without_loss(load, tmp_path):
    videos = {f"v{i:04d}": {"duration": 9, "timestamps": [[0, 1]], "sentences": [str(i)]} for i in range(600)}
    write_json(tmp_path / EVAL, videos)
    stream = load(data_dir=tmp_path, split="test", streaming=True)
    assert stream.num_shards == 3
    assert [row["video_id"] for row in stream] == list(videos)
    assert load(data_dir=tmp_path, split="test", num_proc=2)["video_id"][:] == list(videos)


def test_a_split_without_its_file_is_left_out_or_named(load, data_dir):
    (data_dir / EVAL).unlink()
    assert list(load(data_dir=data_dir)) == ["train"]
    for streaming in (False, True):
        for split in ("test", "test[:10%]", "train+test"):
            with pytest.raises(FileNotFoundError, match=EVAL):
                load(data_dir=data_dir, split=split, streaming=streaming)


def test_dialogues_have_no_test_split(load, data_dir):
    write_json(data_dir / "longvale-sft-it.json", DIALOGUES)
    with pytest.raises(ValueError, match="'instruction' has no split 'test'"):
        load("instruction", data_dir=data_dir, split="test")


def test_a_configuration_without_any_file_names_what_it_needs(load, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{TRAINING}.*{EVAL}"):
        load(data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"longvale-sft-bp\.json"):
        load("boundary_perception", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: no such directory"):
        load(data_dir=tmp_path / "nowhere")


BROKEN = {
    "before it starts": {"a": {"duration": 9, "timestamps": [[5, 2]], "sentences": ["x"]}},
    "after the video's duration": {"a": {"duration": 9, "timestamps": [[5, 20]], "sentences": ["x"]}},
    "holds no annotation": {},
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("message", BROKEN)
def test_broken_annotations_are_told_in_one_line(load, data_dir, message, streaming):
    write_json(data_dir / EVAL, BROKEN[message])
    with pytest.raises(ValueError, match=message) as caught:
        load(data_dir=data_dir, streaming=streaming)
    assert EVAL in str(caught.value) and "\n" not in str(caught.value)


def test_a_broken_feature_file_is_told_in_one_line(load, data_dir, features_dir):
    feature_path(features_dir, "aaa", "visual").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"aaa\.npy: not a whole") as caught:
        load(data_dir=data_dir, features_dir=features_dir)
    assert type(caught.value) is ValueError


def test_media_are_columns_and_missing_ones_are_kept_as_none_and_reported(
    load, data_dir, features_dir, videos_dir, caplog
):
    rows = load(data_dir=data_dir, features_dir=features_dir, videos_dir=videos_dir)
    train = rows["train"].to_list()
    assert np.asarray(train[0]["visual_features"]).shape == (3, 4)
    assert train[1]["visual_features"] == train[0]["visual_features"]
    assert train[0]["speech_features"] is None  # on record as absent: not missing
    assert train[0]["video"] == str(videos_dir / "aaa.mp4")
    assert [train[2][name] for name in ("visual_features", "audio_features", "video")] == [None, None, None]
    test = rows["test"].with_format("numpy")[0]
    assert test["speech_features"].shape == (1, 6) and test["speech_features"].dtype == np.float32

    passed_over, record = [r for r in caplog.records if r.name.startswith("longvale")]
    assert "1 passed over that are not videos by their names: notes.txt" in passed_over.getMessage()
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert message.startswith("longvale/events: 1 of 3 rows of train miss media and are kept with None")
    assert "video 1; videos: bbb" in message and "test" not in message


@pytest.mark.parametrize("streaming", [False, True])
def test_videos_may_be_a_column_of_the_platforms_type(load, data_dir, videos_dir, streaming):
    options = {"data_dir": data_dir, "videos_dir": videos_dir, "streaming": streaming, "split": "train"}
    rows = load(**options, video_column="encoded")
    assert rows.features["video"] == datasets.Video(decode=False)
    encoded = {"bytes": None, "path": str(videos_dir / "aaa.mp4")}
    assert [row["video"] for row in rows] == [encoded, encoded, None]
    assert load(**options).features["video"] == datasets.Value("string")  # the cache of one is not that of the other


def test_a_decoded_column_needs_torchcodec(load, data_dir, videos_dir, monkeypatch):
    options = {"data_dir": data_dir, "videos_dir": videos_dir, "split": "train", "video_column": "decoded"}
    monkeypatch.setattr(datasets.config, "TORCHCODEC_AVAILABLE", False)
    with pytest.raises(ValueError, match="'decoded' needs torchcodec; pip install torchcodec, or use 'encoded'"):
        load(**options)
    monkeypatch.setattr(datasets.config, "TORCHCODEC_AVAILABLE", True)
    assert load(**options, streaming=True).features["video"] == datasets.Video()


@pytest.mark.parametrize("streaming", [False, True])
def test_the_function_of_the_package_gives_the_rows_of_the_name(load, data_dir, videos_dir, tmp_path, streaming):
    options = {"data_dir": data_dir, "videos_dir": str(videos_dir), "streaming": streaming}
    ours = longvale.load_dataset("grounding", cache_dir=tmp_path / "cache", **options)
    named = load("grounding", **options)
    assert {split: list(rows) for split, rows in ours.items()} == {split: list(rows) for split, rows in named.items()}
    if not streaming:
        assert ours["train"].cache_files == named["train"].cache_files
    assert len(list(longvale.load_dataset(data_dir=data_dir, cache_dir=tmp_path / "c", split="train[:2]"))) == 2


def test_the_function_of_the_package_needs_no_registered_name(data_dir, tmp_path, monkeypatch):
    monkeypatch.delitem(datasets.load._PACKAGED_DATASETS_MODULES, "longvale")
    with pytest.raises(ConnectionError):  # it is looked for on the Hub
        datasets.load_dataset("longvale", data_dir=str(data_dir), cache_dir=str(tmp_path / "cache"))
    rows = longvale.load_dataset("videos", data_dir=data_dir, cache_dir=tmp_path / "cache", split="test")
    assert rows["video_id"] == ["ccc"]


def test_bad_options_of_the_function_are_refused(data_dir):
    with pytest.raises(ValueError, match=r"configuration must be one of events, videos, .*, not 'sounds'"):
        longvale.load_dataset("sounds", data_dir=data_dir)
    with pytest.raises(ValueError, match="num_proc=2 is for the cache"):
        longvale.load_dataset(data_dir=data_dir, streaming=True, num_proc=2)


@pytest.mark.parametrize("streaming", [False, True])
def test_missing_media_drop_rows_when_asked_and_never_others(load, data_dir, videos_dir, caplog, streaming):
    options = {"data_dir": data_dir, "videos_dir": videos_dir, "missing_media": "drop", "streaming": streaming}
    rows = list(load(split="train", **options))
    assert [row["caption"] for row in rows] == ["A bell rings.", "Ein Hund bellt ü."]
    assert {row["video"] for row in rows} == {str(videos_dir / "aaa.mp4")}
    assert "1 of 3 rows of train miss media and are dropped" in caplog.text


def test_missing_media_are_reported_again_for_rows_from_the_cache(load, data_dir, videos_dir, caplog):
    first = load(data_dir=data_dir, videos_dir=videos_dir)
    caplog.clear()
    second = load(data_dir=data_dir, videos_dir=videos_dir)
    assert first["train"].cache_files == second["train"].cache_files
    assert "1 of 3 rows of train miss media" in caplog.text
    assert "1 of 3 rows of train miss media" in second["train"].info.description


def test_a_store_without_a_modality_says_so(load, data_dir, tmp_path, caplog):
    save_features(tmp_path / "some", "aaa", {"visual": np.ones((1, 2))})
    rows = load(data_dir=data_dir, features_dir=tmp_path / "some", missing_media="drop", split="train")
    assert rows["audio_features"][:] == [None, None]
    assert "has no folder audio_features, speech_features: None in all rows" in caplog.text


def test_bad_options_are_refused(load, data_dir, videos_dir):
    with pytest.raises(ValueError, match="missing_media must be 'keep' or 'drop', not 'replace'"):
        load(data_dir=data_dir, missing_media="replace")
    with pytest.raises(ValueError, match="video_column must be one of path, encoded, decoded, not 'bytes'"):
        load(data_dir=data_dir, videos_dir=videos_dir, video_column="bytes")
    with pytest.raises(ValueError, match="video_column='encoded' is the type of a column of videos; give videos_dir"):
        load(data_dir=data_dir, video_column="encoded")
    with pytest.raises(FileNotFoundError, match="holds no folder visual_features"):
        load(data_dir=data_dir, features_dir=videos_dir)
    (videos_dir / "aaa.mkv").write_bytes(b"")
    with pytest.raises(ValueError, match="video id 'aaa' has a second file"):
        load(data_dir=data_dir, videos_dir=videos_dir)


def captions(rows):
    return [row["caption"] for row in rows]


def test_a_changed_file_gives_other_rows_even_with_the_same_size_and_time(load, data_dir):
    before = load(data_dir=data_dir, split="test")
    stat = (data_dir / EVAL).stat()
    (data_dir / EVAL).write_text((data_dir / EVAL).read_text().replace("yes", "no!"))
    os.utime(data_dir / EVAL, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = load(data_dir=data_dir, split="test")
    assert (captions(before), captions(after)) == (["A voice says yes."], ["A voice says no!."])
    (data_dir / "events.jsonl").write_text(json.dumps(EVENT_LINES[0] | {"video_id": "ccc", "start": 5, "end": 25}))
    assert load(data_dir=data_dir, split="test")["modalities"][:] == [["audio"]]


def test_directories_of_the_same_relative_name_do_not_share_a_cache(load, tmp_path, monkeypatch):
    for place in ("one", "two"):
        (tmp_path / place / "data").mkdir(parents=True)
        (tmp_path / place / "videos").mkdir()
        (tmp_path / place / "videos" / "a.mp4").write_bytes(b"")
        write_json(
            tmp_path / place / "data" / EVAL, {"a": {"duration": 9, "timestamps": [[0, 1]], "sentences": [place]}}
        )
    for place in ("one", "two"):
        monkeypatch.chdir(tmp_path / place)
        (row,) = load(data_dir="data", videos_dir="videos", split="test")
        assert (row["caption"], row["video"]) == (place, str(tmp_path / place / "videos" / "a.mp4"))


def test_changed_features_are_read_again(load, data_dir, features_dir):
    options = {"data_dir": data_dir, "features_dir": features_dir, "split": "test"}
    assert np.asarray(load(**options)[0]["visual_features"]).shape == (5, 4)
    save_features(features_dir, "ccc", {"visual": np.ones((7, 4))})
    assert np.asarray(load(**options)[0]["visual_features"]).shape == (7, 4)


class StandInForTheHub(BaseHTTPRequestHandler):
    """Serves a folder under the paths and headers by which huggingface_hub finds files of a data set."""

    root: Path
    asked: list[str]

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        prefix = f"/datasets/{HUB_REPO}/resolve/{HUB_REVISION}/"
        path = self.root / self.path.removeprefix(prefix)
        self.asked.append(self.path)
        if not self.path.startswith(prefix) or not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = path.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", HUB_REVISION)
        self.send_header("ETag", f'"{path.name}-{len(body)}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(data_dir):
    for size in ("7k", "154k"):
        write_json(data_dir / f"longvale-sft-bp-{size}.json", DIALOGUES)
    handler = type("Handler", (StandInForTheHub,), {"root": data_dir, "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


FROM_THE_HUB = """
import json, sys
import datasets, longvale
out = {}
out["events"] = datasets.load_dataset("longvale", split="test").to_list()
out["stream"] = list(datasets.load_dataset("longvale", split="test", streaming=True))
out["dialogues"] = len(datasets.load_dataset("longvale", "boundary_perception", split="train", size="7k"))
refused = {"choice": {"name": "boundary_perception"}, "gone": {"name": "instruction", "size": "25k"}}
for name, options in refused.items():
    try:
        datasets.load_dataset("longvale", **options)
    except (ValueError, FileNotFoundError) as error:
        out[name] = f"{type(error).__name__}: {error}"
json.dump(out, sys.stdout)
"""


@pytest.mark.slow
def test_without_a_directory_the_official_files_come_from_the_pinned_revision_of_the_hub(hub, tmp_path):
    (tmp_path / "empty").mkdir()
    # huggingface_hub reads its environment once, at import: hence another interpreter.
    environment = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", FROM_THE_HUB],
        env=environment,
        cwd=tmp_path / "empty",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    assert captions(out["events"]) == ["A voice says yes."]
    assert out["stream"] == out["events"]
    assert out["dialogues"] == 2
    assert out["choice"].startswith("ValueError") and "size='7k' or '154k'" in out["choice"]
    assert out["gone"].startswith("FileNotFoundError: longvale-sft-it-25k.json: cannot be had from")
    place = f"/datasets/{HUB_REPO}/resolve/{HUB_REVISION}/longvale-"
    files = [path for path in hub.RequestHandlerClass.asked if not path.startswith("/api/")]
    assert files and all(path.startswith(place) for path in files)
