"""The runner with a real, tiny model: the same answers whatever the batch, the processes and the interruptions."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from one_video import answer_plainly

from longvale.checkpoints.loading import load_checkpoint
from longvale.evaluation.generation.generate import generate
from longvale.evaluation.generation.inputs import VideoInputs
from longvale.evaluation.generation.prediction_log import AnswerLog
from longvale.evaluation.generation.sampling import Decoding, SeededNoise
from longvale.events import load_annotations
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.tasks import Prediction, Question, questions

LIMITS = {"grounding": 6, "dense_captioning": 12, "segment_captioning": 8}


@pytest.fixture(scope="module")
def told_model(tiny_model, tmp_path_factory):
    """The tiny checkpoint with weights enlarged, so that answers depend on what is read."""
    model, processor = load_checkpoint(tiny_model, LongVALEForConditionalGeneration, device="cpu")
    with torch.no_grad():
        for parameter in model.model.language_model.layers.parameters():
            parameter.mul_(4)
    folder = tmp_path_factory.mktemp("told") / "model"
    for part in (model, processor):
        part.save_pretrained(folder)
    return folder


def run(model, corpus, output, **options):
    return generate(model, corpus, output, device="cpu", max_new_tokens=LIMITS, progress=False, **options)


def answers_of(log):
    return [json.loads(line)["answer"] for line in log.read_text(encoding="utf-8").splitlines()]


def test_answers_are_those_of_one_call_a_question(told_model, tiny_corpus, tmp_path):
    log = run(told_model, tiny_corpus, tmp_path / "p.jsonl")
    model, processor = load_checkpoint(told_model, LongVALEForConditionalGeneration, device="cpu")
    inputs, expected = VideoInputs(tiny_corpus), []
    for annotation in load_annotations(tiny_corpus / "longvale-annotations-eval.json").values():
        features = inputs.load(annotation.video_id, model, processor)
        for question in questions(annotation):
            expected.append(answer_plainly(model, processor, question.question, features, LIMITS[question.task]))
    assert answers_of(log) == expected
    assert len(set(expected)) > len(expected) / 2


@pytest.fixture(
    scope="module",
    params=[Decoding(), pytest.param(Decoding(temperature=1.5, seed=4), marks=pytest.mark.slow)],
    ids=["greedy", "sampled"],
)
def answered(request, told_model, _corpus, tmp_path_factory):
    """A way of decoding, and the log of answers in batches of the usual size."""
    output = tmp_path_factory.mktemp("answered") / "p.jsonl"
    return request.param, run(told_model, _corpus, output, decoding=request.param)


@pytest.mark.parametrize(
    "sizes",
    [
        {"batch_size": 1},
        {"batch_size": 3},
        {"batch_tokens": 400},
        pytest.param({"batch_tokens": 1}, marks=pytest.mark.slow),
    ],
)
def test_batches_change_no_answer(told_model, _corpus, tmp_path, answered, sizes):
    decoding, log = answered
    other = run(told_model, _corpus, tmp_path / "other.jsonl", decoding=decoding, **sizes)
    assert log.read_bytes() == other.read_bytes()


def test_seeds_give_other_draws_and_are_told(told_model, tiny_corpus, tmp_path):
    logs = [run(told_model, tiny_corpus, tmp_path / f"{n}", decoding=Decoding(1.5, n)) for n in (0, 1)]
    assert logs[0].read_bytes() != logs[1].read_bytes()
    manifest = json.loads((tmp_path / "1.run.json").read_text())
    assert manifest["decoding"] == {"temperature": 1.5, "seed": 1}
    assert {"longvale", "torch", "transformers"} == set(manifest["versions"])
    assert manifest["revision"] is None and len(manifest["weights"]) == 16
    with pytest.raises(ValueError, match="was made with decoding"):
        run(told_model, tiny_corpus, logs[0], decoding=Decoding(1.5, 7))
    with pytest.raises(ValueError, match="temperature must be 0 or more, not -1"):
        Decoding(-1)


def test_draws_follow_the_softmax():
    """20,000 draws: a share's standard deviation is below .0036."""
    logits = torch.tensor([0.0, 1.0, 2.0])
    drawn = torch.cat([SeededNoise(Decoding(2.0), [str(i)])(None, logits[None]).argmax(dim=1) for i in range(20_000)])
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    torch.testing.assert_close(shares, (logits / 2).softmax(0), atol=0.015, rtol=0)


#: MULTI_GPU with use_cpu is what starts two processes under gloo; `--cpu --num_processes 2` silently starts one.
TWO = Path(__file__).parents[2] / "recipes" / "accelerate" / "cpu_two_processes.yaml"


def launch(*arguments):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", TWO, "--main_process_port", 0]
    command = [*map(str, command), "-m", "longvale.evaluation", *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "LONGVALE_DEBUG": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_two_processes_give_the_file_of_one(told_model, tiny_corpus, tmp_path):
    """Two real processes over gloo."""
    options = ["--tasks", "grounding,segment_captioning", "--max-new-tokens", 6, "--batch-size", 1, "--device", "cpu"]
    arguments = [told_model, "--data", tiny_corpus, "--output", tmp_path / "two", *options]
    ended = launch(*arguments)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("report:") == 1  # told once
    assert "of process 1 of 2" in ended.stderr
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        "predictions.jsonl", "predictions.jsonl.run.json", "scores.json", "report.html",
    }  # fmt: skip
    alone = {"tasks": ["grounding", "segment_captioning"], "max_new_tokens": 6, "device": "cpu", "progress": False}
    whole = generate(told_model, tiny_corpus, tmp_path / "one.jsonl", **alone)
    assert (tmp_path / "two" / "predictions.jsonl").read_bytes() == whole.read_bytes()


def test_parts_of_killed_processes_are_kept(tmp_path):
    asked = [Question("v", "grounding", i, "When?", "") for i in range(4)]

    def answer(index):
        return Prediction("v", "grounding", f"From 0{index} to 50.", index)

    AnswerLog(tmp_path / "log", {}, asked).append([answer(2)])
    for part, index in ((1, 1), (2, 3)):
        other = AnswerLog(tmp_path / "log", {}, asked, part=part)
        assert list(other.done) == [("v", "grounding", 2)]
        other.append([answer(index)])
    with (tmp_path / "log.part2").open("a") as file:
        file.write('{"video_id": "v", "ta')  # what a kill leaves of a line
    # A kill between collecting a part and removing it leaves its answers twice.
    with (tmp_path / "log").open("a") as file:
        file.write(answer(1).to_log() + "\n")
    log = AnswerLog(tmp_path / "log", {}, asked)
    assert {key[2] for key in log.done} == {1, 2, 3}
    log.append([answer(0)])
    log.finish()
    assert [json.loads(x)["info"]["sentence_id"] for x in log.path.read_text().splitlines()] == [0, 1, 2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.run.json"]
