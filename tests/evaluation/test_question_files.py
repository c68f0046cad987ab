"""Questions in the formats of other projects: as these document them, and back into scores."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packages import install

from longvale.evaluation.question_files import QUESTION_FORMATS, export_questions
from longvale.io import load_json

EVENTS = [(6.0, 30.0, "A bell rings."), (30.0, 54.0, "A dog barks.")]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "videos").mkdir(parents=True)
    (folder / "videos" / "abc.mp4").touch()
    times, captions = [event[:2] for event in EVENTS], [event[2] for event in EVENTS]
    annotation = {"abc": {"duration": 60.0, "timestamps": times, "sentences": captions}}
    for name in ("eval", "training"):
        (folder / f"longvale-annotations-{name}.json").write_text(json.dumps(annotation))
    return folder


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_swift(data, tmp_path):
    path, settings_path = export_questions(data, tmp_path / "o", "swift", times="clock", split="train")
    settings = yaml.safe_load(settings_path.read_text())
    assert settings["dataset"] == [str(path.resolve())] and settings["output_dir"] == str(path.parent / "tuned")
    rows = lines(path)
    assert len(rows) == 5 and all(row.keys() == {"id", "messages", "videos"} for row in rows)
    first = rows[0]
    assert first["videos"] == [str((data / "videos" / "abc.mp4").resolve())]
    user, assistant = first["messages"]
    assert user["role"] == "user" and user["content"].startswith("<video>The video lasts 1:00.")
    assert assistant == {"role": "assistant", "content": "From 0:06 to 0:30."}
    assert all(row["messages"][0]["content"].count("<video>") == len(row["videos"]) for row in rows)
    assert rows[2]["messages"][1]["content"] == "From 0:06 to 0:30, A bell rings.\nFrom 0:30 to 0:54, A dog barks."


def test_llamafactory(data, tmp_path):
    rows_path, info_path = export_questions(data, tmp_path / "o", "llamafactory", tasks=["grounding"])
    ((name, entry),) = load_json(info_path).items()
    assert name == "longvale_test" and entry["file_name"] == rows_path.name and entry["formatting"] == "sharegpt"
    rows, tags = load_json(rows_path), entry["tags"]
    for row in rows:
        messages = row[entry["columns"]["messages"]]
        assert [message[tags["role_tag"]] for message in messages] == [tags["user_tag"], tags["assistant_tag"]]
        assert Path(row[entry["columns"]["videos"]][0]).is_file()
    assert rows[0]["messages"][1]["content"] == "From 6.0 to 30.0 seconds."


def test_settings_come_with_what_is_trained_on(data, tmp_path):
    paths = export_questions(data, tmp_path / 'a "b": c', "llamafactory", split="train")
    settings = yaml.safe_load(paths[-1].read_text())
    assert (settings["dataset"], settings["dataset_dir"]) == ("longvale_train", str(paths[0].parent.resolve()))
    assert [path.name for path in paths] == ["longvale_train.json", "dataset_info.json", "train.yaml"]
    for to in QUESTION_FORMATS:
        model = "m" if to == "openai-batch" else None
        assert "train.yaml" not in {path.name for path in export_questions(data, tmp_path / to, to, model=model)}


def test_lmms_eval(data, tmp_path):
    rows_path, task_path, utils_path = export_questions(data, tmp_path / "o", "lmms-eval", times="json")
    task = yaml.safe_load(task_path.read_text().replace("!function ", ""))
    assert task["task"] == "longvale_test" and task["dataset_kwargs"]["data_files"]["test"] == str(rows_path.resolve())
    rows, utils = lines(rows_path), runpy.run_path(str(utils_path))
    assert (
        utils["doc_to_visual"](rows[0]) == [rows[0]["video"]]
        and rows[0][task["doc_to_target"]] == '{"start": 6.0, "end": 30.0}'
    )
    assert utils["doc_to_text"](rows[0]) == rows[0]["question"] and "JSON" in rows[0]["question"]
    assert utils["process_results"](rows[0], ["x"]) == {"answered": 1.0}
    functions = {value.removeprefix("utils.") for value in task.values() if str(value).startswith("utils.")}
    assert functions <= utils.keys() and len(functions) == 3


def test_a_batch_is_answered_and_scored(data, tmp_path, longvale):
    words = ("data", "export", data, "--to", "openai-batch", "--model", "m", "--output", tmp_path / "o")
    assert longvale(*words, "--tasks", "grounding,dense_captioning", "--times", "tokens").exit_code == 0
    requests = lines(tmp_path / "o" / "longvale_test.jsonl")
    assert [request["custom_id"] for request in requests] == [
        "abc/grounding/0",
        "abc/grounding/1",
        "abc/dense_captioning",
    ]
    for request in requests:
        assert (request["method"], request["url"], request["body"]["model"]) == ("POST", "/v1/chat/completions", "m")
        link, _ = request["body"]["messages"][0]["content"]
        assert link.keys() == {"type", "video_url"} and link["video_url"]["url"].startswith("file://")
    replies = ["<6.0 seconds> to <30.0 seconds>", "<30.0 seconds> to <54.0 seconds>", "<t6><t30> A bell rings."]
    with (tmp_path / "answers.jsonl").open("w") as file:
        for request, reply in zip(requests, replies, strict=True):
            body = {"choices": [{"message": {"role": "assistant", "content": reply}}]}
            file.write(json.dumps({"custom_id": request["custom_id"], "response": {"body": body}}) + "\n")
    scored = ("score", tmp_path / "answers.jsonl", "--references", data / "longvale-annotations-eval.json")
    result = longvale(*scored, "--reader", "auto", "--output", tmp_path / "scores.json")
    assert result.exit_code == 0, result.stderr
    assert load_json(tmp_path / "scores.json")["grounding"]["mIoU"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": "excel"}, "unknown format 'excel'; --to must be one of swift, llamafactory, lmms-eval, openai-batch"),
        ({"to": "openai-batch"}, "--to openai-batch needs --model NAME"),
        ({"to": "swift", "model": "m"}, "--to swift has no model; leave out --model"),
        ({"to": "swift", "times": "hours"}, "unknown time format 'hours'"),
        ({"to": "swift", "tasks": ["music_avqa"]}, "task music_avqa is of another benchmark"),
        ({"to": "swift", "split": "validation"}, "unknown split 'validation'"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_written(data, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        export_questions(data, tmp_path / "o", **options)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("to", QUESTION_FORMATS)
def test_a_missing_video_is_named(data, tmp_path, to):
    (data / "videos" / "abc.mp4").rename(data / "videos" / "other.mp4")
    with pytest.raises(FileNotFoundError, match=r"abc\.mp4: no such file"):
        export_questions(data, tmp_path / "o", to, model="m" if to == "openai-batch" else None)


def loaded(code, *arguments, packages):
    """What the loader of another project makes of a file: the JSON that a program prints last."""
    environment = {**os.environ, "PYTHONPATH": str(packages), "HF_HUB_OFFLINE": "1", "DISABLE_VERSION_CHECK": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


SWIFT = """
import json, sys
from swift.dataset import load_dataset
import dataclasses, yaml
from swift.arguments import SftArguments
rows, _ = load_dataset(sys.argv[1], num_proc=1, load_from_cache_file=False, strict=True)
settings = yaml.safe_load(open(sys.argv[2])).keys() - {"ENV"}
assert settings <= {field.name for field in dataclasses.fields(SftArguments)}, settings
print()
print(json.dumps([{"messages": row["messages"], "videos": row["videos"]} for row in rows]))
"""
LLAMAFACTORY = """
import json, sys
from types import SimpleNamespace
from llamafactory.data.loader import _load_single_dataset
from llamafactory.data.parser import get_dataset_list
from llamafactory.hparams import DataArguments
from llamafactory.hparams.parser import _parse_train_args
settings = __import__("yaml").safe_load(open(sys.argv[3]))
_parse_train_args(settings | {"bf16": False})  # unknown names are errors, as is bf16 without a GPU
(attributes,) = get_dataset_list([sys.argv[2]], sys.argv[1])
model = SimpleNamespace(cache_dir=None, hf_hub_token=None)
training = SimpleNamespace(seed=0, local_process_index=0, should_log=False, do_train=True)
options = DataArguments(dataset=sys.argv[2], dataset_dir=sys.argv[1])
rows = _load_single_dataset(attributes, model, options, training)
print()
print(json.dumps([{"messages": row["_prompt"] + row["_response"], "videos": row["_videos"]} for row in rows]))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_loader_of_ms_swift_reads_the_rows(data, tmp_path):
    needed = ("modelscope", "modelscope_hub", "cryptography", "cffi", "pycparser", "json_repair")
    packages = install("ms-swift-4.6.0", "ms-swift==4.6.0", *needed)
    path, settings = export_questions(data, tmp_path / "o", "swift", times="clock", split="train")
    found = loaded(SWIFT, path, settings, packages=packages)
    assert found == [{"messages": row["messages"], "videos": row["videos"]} for row in lines(path)] and len(found) == 5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_loader_of_llama_factory_reads_the_rows(data, tmp_path):
    packages = install("llamafactory-0.9.5", "llamafactory==0.9.5", "omegaconf", "antlr4-python3-runtime==4.9.3")
    rows_path, info_path, settings = export_questions(data, tmp_path / "o", "llamafactory", split="train")
    ((name, _),) = load_json(info_path).items()
    found = loaded(LLAMAFACTORY, rows_path.parent, name, settings, packages=packages)
    rows = load_json(rows_path)
    assert found == [{"messages": row["messages"], "videos": row["videos"]} for row in rows] and len(found) == 5
