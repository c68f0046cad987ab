"""The scriptless form: what `longvale data prepare` writes, checks and gives back."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import yaml

from longvale.data.publish.card import fill_metadata
from longvale.data.publish.prepare import InvalidData, check_prepared, columns, prepare, restore
from longvale.data.publish.validate import check_video
from longvale.data.sources import HUB_SIZES
from longvale.hub import card_template
from longvale.io import load_json

EVAL, TRAINING = "longvale-annotations-eval.json", "longvale-annotations-training.json"
BP, IT = "longvale-sft-bp.json", "longvale-sft-it.json"


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / f"longvale-{name.replace('_', '-')}.json").write_text(json.dumps(value))
    return folder


def video(*events, duration=60.0, **extra):
    return {"duration": duration, "timestamps": [e[:2] for e in events], "sentences": [e[2] for e in events], **extra}


def run_plain(program, cwd, home):
    """In a process that has not imported this library."""
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", f"{program}\nimport sys; assert 'longvale' not in sys.modules"]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_plain_datasets_reads_it_and_gives_the_rows_of_the_builder(tiny_corpus, tmp_path, monkeypatch):
    prepare(tiny_corpus, tmp_path / "longvale", progress=False)
    program = """
import datasets, json, os
names = datasets.get_dataset_config_names("./longvale")
rows = {name: {s: list(d) for s, d in datasets.load_dataset("./longvale", name).items()} for name in names}
assert [r["caption"] for r in datasets.load_dataset("./longvale", split="test")]
assert all(row["caption"] for row in datasets.load_dataset("./longvale", split="test", streaming=True))
with open("rows.json", "w") as file:
    json.dump(rows, file)
os._exit(0)  # threads of a stream may abort an interpreter that comes to its end
"""
    done = run_plain(program, tmp_path, tmp_path / "plain")
    assert done.returncode == 0, done.stderr
    rows = load_json(tmp_path / "rows.json")
    assert rows.keys() == {
        "events", "videos", "grounding", "dense_captioning", "segment_captioning", "boundary_perception", "instruction"
    }  # fmt: skip
    for name, splits in rows.items():
        ours = datasets.load_dataset("longvale", name, data_dir=str(tiny_corpus), cache_dir=str(tmp_path / "cache"))
        assert splits.keys() == ours.keys()
        for split, found in splits.items():
            extra = {"original", "conversations", "tokens"}
            assert [{key: row[key] for key in row if key not in extra} for row in found] == list(ours[split])


def test_round_trip_without_loss(tiny_corpus, tmp_path):
    prepare(tiny_corpus, tmp_path / "longvale", progress=False)
    paths = restore(tmp_path / "longvale", tmp_path / "official")
    assert [path.name for path in paths] == ["events.jsonl", EVAL, TRAINING, BP, IT]
    for path in paths[1:]:
        assert load_json(path) == load_json(tiny_corpus / path.name), path.name
    before, after = (
        datasets.load_dataset("longvale", "events", data_dir=str(folder), cache_dir=str(tmp_path / folder.name))
        for folder in (tiny_corpus, tmp_path / "official")
    )
    assert list(before["test"]) == list(after["test"]) and before["test"][0]["modalities"]


def test_what_columns_cannot_hold_comes_back_too(tmp_path):
    turns = [{"from": "human", "value": "<video>\nWhen?"}, {"from": "gpt", "value": "From <s0> to <e0>. half \ud83d"}]
    dialogues = [
        {"id": "a", "conversations": turns, "meta": {"duration": 60, "token": {"<s0>": 1.5, "<e0>": 3}}},
        {"id": "a", "source": None, "conversations": [{**turns[0], "mood": 1}, {**turns[1], "value": "x"}]},
        {"id": "b", "source": "VTimeLLM", "conversations": [turns[0], {"from": "gpt", "value": "Yes."}]},
        {"id": "c", "conversations": turns, "meta": {"duration": 9, "split": [1, 4], "token": {"<s0>": 0, "<e0>": 2}}},
    ]
    training = {
        "a": video(
            [0, 3, "Ünïcode \u2028 and 漢字 🙂"], [2**53 + 1.0, 2**53 + 5.0, "far"], duration=2**54 + 1, url="x"
        ),
        "b": video([0.1 + 0.2, 59.999999999999996, "half \ud83d a character"], fps=[25, None]),
        "z": video(),
    }
    folder = write(
        tmp_path / "in", annotations_training=training, sft_bp_7k=dialogues[:1], sft_bp_154k=dialogues, sft_it=dialogues
    )
    result = prepare(folder, tmp_path / "out", progress=False)
    assert not result.problems
    assert {name for name in result.written if "boundary" in name} == {
        "boundary_perception_7k",
        "boundary_perception_154k",
    }
    for path in restore(tmp_path / "out", tmp_path / "back"):
        assert load_json(path) == load_json(folder / path.name), path.name
    assert {path.name for path in (tmp_path / "back").iterdir()} == {path.name for path in folder.iterdir()}


WRONG_VIDEOS = {
    "good": video([0, 5, "A bell rings."], [5, 9, "A dog barks."]),
    "mixed": video(
        [0, 5, "One."],
        [9, 5, "Back."],
        [0, 5, "One."],
        [5, 6, " "],
        [6, 70, "Late."],
        ["x", 7, "Odd."],
        [7, 8, "Two."],
    ),
    "short": {"duration": 60.0, "timestamps": [[0, 5]], "sentences": []},
    "less": {"timestamps": [], "sentences": []},
    "../out": video([0, 1, "Path."]),
    "both": video([0, 1, "Leak."]),
}
PROBLEMS = [
    "video 'mixed': event 1: ends (5 s) before it starts (9 s); correct its times",
    "video 'mixed': event 2: repeats an earlier event; keep one of them",
    "video 'mixed': event 3: the caption is empty; write one",
    "video 'mixed': event 4: ends at 70 s, after the video's duration of 60.0 s; correct its end or the duration",
    "video 'mixed': event 5: start must be a finite number of seconds, not 'x'; correct its times",
    "video 'short': 1 timestamps but 0 sentences; each event needs one of both",
    "video 'less': field 'duration' is missing",
    "video '../out': video id '../out' must not hold a path; use the file's name without folder and suffix",
    "video 'both': is in the test split too; leave it out of training",
]


@pytest.fixture
def wrong(tmp_path):
    turns = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "A bell."}]
    dialogues = [
        {"id": "good", "conversations": turns},
        {"id": "both", "conversations": turns},
        {"id": "odd", "conversations": turns[:1]},
    ]
    return write(
        tmp_path / "in",
        annotations_training=WRONG_VIDEOS,
        annotations_eval={"both": video([0, 1, "Leak."])},
        sft_bp=dialogues,
    )


def test_all_that_is_wrong_is_listed_and_nothing_is_written(wrong, tmp_path, longvale):
    with pytest.raises(InvalidData) as told:
        prepare(wrong, tmp_path / "out", progress=False)
    found = [str(problem) for problem in told.value.problems]
    assert [line for line in found if line.startswith(TRAINING)] == [f"{TRAINING}: {line}" for line in PROBLEMS]
    assert [line.partition(": ")[2] for line in found[len(PROBLEMS) :]] == [
        "dialogue 1 (id 'both'): is about a video of the test split; leave it out of training",
        "dialogue 2 (id 'odd'): field 'conversations': the last turn must be from 'gpt', not 'human'",
    ]
    result = longvale("data", "prepare", wrong, "--output", tmp_path / "out", "-q")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 12 and "11 problems; correct the files, or give --invalid" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_wrong_rows_are_dropped(wrong, tmp_path):
    result = prepare(wrong, tmp_path / "out", invalid="drop", progress=False)
    assert {name: {s: of.rows for s, of in splits.items()} for name, splits in result.written.items()} == {
        "events": {"train": 4, "test": 1},
        "videos": {"train": 2, "test": 1},
        "grounding": {"train": 4, "test": 1},
        "dense_captioning": {"train": 2, "test": 1},
        "segment_captioning": {"train": 4, "test": 1},
        "boundary_perception": {"train": 1},
    }
    restore(tmp_path / "out", tmp_path / "back")
    assert load_json(tmp_path / "back" / TRAINING) == {
        "good": WRONG_VIDEOS["good"],
        "mixed": video([0, 5, "One."], [7, 8, "Two."]),
    }
    lines = [json.loads(line) for line in (tmp_path / "out" / "problems.jsonl").read_text().splitlines()]
    assert len(lines) == 11 and {line["row"] for line in lines} == {"dropped"}
    datasets.load_dataset("longvale", "events", data_dir=str(tmp_path / "back"), cache_dir=str(tmp_path / "cache"))


def test_wrong_rows_are_kept_where_they_fit_but_not_asked_about(wrong, tmp_path):
    result = prepare(wrong, tmp_path / "out", invalid="keep", progress=False)
    rows = {name: splits["train"].rows for name, splits in result.written.items()}
    assert rows["events"] == 9 and rows["videos"] == 3 and rows["grounding"] == 5 and rows["boundary_perception"] == 2
    grounding = datasets.Dataset.from_parquet(
        str(tmp_path / "out/grounding/train-*.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert [row["sentence_id"] for row in grounding if row["video_id"] == "mixed"] == [0, 6]
    restore(tmp_path / "out", tmp_path / "back")
    kept = load_json(tmp_path / "back" / TRAINING)
    published = WRONG_VIDEOS["mixed"]
    assert kept["mixed"]["timestamps"] == [times for times in published["timestamps"] if times[0] != "x"]
    assert kept["both"] == WRONG_VIDEOS["both"]


def test_shards(tmp_path):
    many = {f"v{i}": video(*([j, j + 1, f"Event {j} of video {i}."] for j in range(50))) for i in range(60)}
    folder = write(tmp_path / "in", annotations_eval=many)
    prepare(folder, tmp_path / "out", max_shard_size="50KB", progress=False)
    names = sorted(path.name for path in (tmp_path / "out" / "events").iterdir())
    assert names == [f"test-{i:05d}-of-00003.parquet" for i in range(3)]
    restore(tmp_path / "out", tmp_path / "back")
    assert load_json(tmp_path / "back" / EVAL) == many


def test_changes_are_noticed(tiny_corpus, tmp_path):
    prepare(tiny_corpus, tmp_path / "out", progress=False)
    listed = check_prepared(tmp_path / "out")
    assert "README.md" not in listed and "events/test-00000-of-00001.parquet" in listed
    (tmp_path / "out" / "README.md").write_text("---\nlicense: mit\n---\n")  # a card may be written on
    assert check_prepared(tmp_path / "out") == listed
    shard = tmp_path / "out" / "videos" / "test-00000-of-00001.parquet"
    whole = shard.read_bytes()
    for change, told in (
        (lambda: shard.write_bytes(whole[:-1] + b"\0"), "has changed"),
        (shard.unlink, "is missing"),
        (lambda: (shard.write_bytes(whole), shutil.copy(shard, shard.with_name("more.parquet"))), "was added"),
    ):
        change()
        with pytest.raises(ValueError, match=told):
            restore(tmp_path / "out", tmp_path / "back")
        assert not (tmp_path / "back").exists()


def test_bad_input_is_refused_before_anything_is_written(tiny_corpus, tmp_path, longvale):
    (tmp_path / "card.md").write_text("---\na: [\n---\n")
    taken = tmp_path / "taken"
    taken.mkdir()
    for arguments, told in (
        ([tiny_corpus, "--output", taken], "exists already"),
        ([tmp_path, "--output", tmp_path / "out"], "longvale-annotations-training.json"),
        ([tiny_corpus, "--output", tmp_path / "out", "--invalid", "hide"], "stop, drop, keep"),
        ([tiny_corpus, "--output", tmp_path / "out", "--max-shard-size", "big"], "size"),
        ([tiny_corpus, "--output", tmp_path / "out", "--card", tmp_path / "card.md"], "YAML"),
        ([tiny_corpus, "--output", tmp_path / "out", "--card", tmp_path / "none.md"], "none.md"),
    ):
        result = longvale("data", "prepare", "-q", *arguments)
        assert result.exit_code == 2 and told in result.stderr, result.output
        assert result.stderr.count("\n") == 1
    assert not any(path.name.startswith((".out", "out")) for path in tmp_path.iterdir())
    (tiny_corpus / EVAL).write_text("[]")
    assert "must be an object" in longvale("data", "prepare", tiny_corpus, "--output", tmp_path / "out").stderr


def test_the_card_in_the_repository_is_that_of_the_published_files():
    told = yaml.safe_load(card_template("dataset_card").read_text(encoding="utf-8").split("---\n")[1])
    shape = {name: dict.fromkeys(("train", "test")) for name in ("events", "videos", "grounding", "dense_captioning")}
    shape |= {"segment_captioning": dict.fromkeys(("train", "test"))}
    shape |= {f"{stage}_{size}": {"train": None} for stage, sizes in HUB_SIZES.items() for size in sizes}
    from huggingface_hub import DatasetCardData

    expected = DatasetCardData()
    fill_metadata(expected, shape, columns)
    assert told["configs"] == expected["configs"]
    assert told["dataset_info"] == expected["dataset_info"]
    assert told["license"] == "cc-by-nc-sa-4.0"


def test_the_written_card_tells_its_rows_and_may_have_another_text(tiny_corpus, tmp_path):
    (tmp_path / "card.md").write_text("---\nlicense: mit\ntags:\n- mine\n---\n\n# My videos\n")
    result = prepare(tiny_corpus, tmp_path / "out", card=tmp_path / "card.md", progress=False)
    _, metadata, text = (tmp_path / "out" / "README.md").read_text().split("---\n")
    metadata = yaml.safe_load(metadata)
    assert (metadata["license"], metadata["tags"], text.strip()) == ("mit", ["mine"], "# My videos")
    (info,) = [info for info in metadata["dataset_info"] if info["config_name"] == "events"]
    assert [(s["name"], s["num_examples"]) for s in info["splits"]] == [
        (split, of.rows) for split, of in result.written["events"].items()
    ]
    assert [c["config_name"] for c in metadata["configs"] if c.get("default")] == ["events"]


def test_checking_one_video_leaves_a_right_one_alone():
    value = video([0, 5, "A bell."], note="kept")
    checked = check_video("v", value, "file.json")
    assert checked.annotation.to_official() == value and checked.places == (0,) and not checked.problems
    for value in (None, [], {"duration": 5, "timestamps": {}, "sentences": {}}, video([0, 1, 2])):
        assert check_video("v", value, "file.json").problems
    assert Path(card_template("dataset_card")).is_file()
