"""The three metrics as `evaluate` loads them."""

import doctest
import importlib
import json
from pathlib import Path

import datasets
import evaluate
import pytest
import yaml

import longvale
from longvale.tasks import TASKS


@pytest.fixture(scope="module", autouse=True)
def modules_cache(tmp_path_factory):
    """`evaluate` copies what it loads; not into the user's cache."""
    patch = pytest.MonkeyPatch()
    patch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path_factory.mktemp("metrics")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def metrics(modules_cache):
    return {task: evaluate.load(longvale.metrics.path(task)) for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_examples_of_the_description(metrics, task):
    examples = doctest.DocTestParser().get_doctest(metrics[task].inputs_description, {}, task, None, 0)
    assert len(examples.examples) > 2
    assert doctest.DocTestRunner().run(examples).failed == 0
    assert "geng2025longvale" in metrics[task].citation


def test_an_unknown_metric_is_named():
    with pytest.raises(ValueError, match="unknown metric 'bleu'; expected one of grounding"):
        longvale.metrics.path("bleu")


@pytest.mark.parametrize("task", TASKS)
def test_the_class_has_the_examples_that_the_tests_of_evaluate_look_for(task):
    module = importlib.import_module(f"longvale.metrics.{task}.{task}")
    found = doctest.DocTestFinder(recurse=True).find(module)
    assert any(example.examples for example in found if ".".join(example.name.split(".")[:-1]) == module.__name__)


@pytest.mark.parametrize("task", TASKS)
def test_rows_of_the_data_set_are_references(metrics, task, tiny_corpus):
    rows = datasets.load_dataset("longvale", task, data_dir=str(tiny_corpus), split="test")
    scores = metrics[task].compute(predictions=rows["reference"], references=rows)
    name = {"grounding": "mIoU", "dense_captioning": "F1", "segment_captioning": "METEOR"}[task]
    assert scores[name] == pytest.approx(1, abs=0.07)  # timecodes are whole percents
    official = metrics[task].compute(predictions=rows["reference"], references=rows, protocol="official")
    assert official.keys() == scores.keys()


def test_times_in_seconds(metrics):
    references = [{"start": 3, "end": 15, "duration": 60}, {"start": 3, "end": 15, "duration": 60}]
    grounding = metrics["grounding"].compute(predictions=[[3.0, 15.0], []], references=references, thresholds=[0.9])
    assert grounding == {"mIoU": 0.5, "R@0.9": 0.5, "count": 2, "parsed": 1}
    events = [{"start": 3.0, "end": 15.0, "caption": "A dog barks."}]
    dense = metrics["dense_captioning"].compute(
        predictions=[events, []], references=[{"duration": 60.0, "events": events}] * 2
    )
    assert (dense["precision"], dense["recall"]) == (1, 0.5)


def test_batches_add_up(metrics):
    metric = metrics["grounding"]
    references = [{"start": 0, "end": 30, "duration": 60}, {"start": 30, "end": 60, "duration": 60}]
    answers = ["From 00 to 50.", "From 00 to 50."]
    whole = metric.compute(predictions=answers, references=references)
    for answer, reference in zip(answers, references, strict=True):
        metric.add(prediction=answer, reference=reference)
    assert metric.compute() == whole and whole["mIoU"] == 0.5


@pytest.mark.parametrize(
    ("prediction", "reference", "message"),
    [
        ([1.0, 2.0, 3.0], {"start": 0, "end": 1, "duration": 9}, "start and end in seconds, not"),
        (
            [float("nan"), 2.0],
            {"start": 0, "end": 1, "duration": 9},
            "the start must be a number of seconds, 0 or more",
        ),
        ("From 00 to 50.", {"start": -1, "end": 1, "duration": 9}, "the start must be a number of seconds, 0 or more"),
        ("From 00 to 50.", {"start": 0, "end": 1}, "a reference lacks 'duration'; it has start, end"),
        ("From 00 to 50.", "a dog", "a reference must be a dict with start, end, duration, not 'a dog'"),
        ("From 00 to 50.", {"start": 0, "end": 1, "duration": 0}, "the duration must be a number of seconds above 0"),
    ],
)
def test_what_cannot_be_scored_is_told(metrics, prediction, reference, message):
    with pytest.raises(ValueError, match=message):
        metrics["grounding"].compute(predictions=[prediction], references=[reference])


@pytest.mark.parametrize("task", TASKS)
def test_pages(task):
    pytest.importorskip("gradio", reason="needs the extra `app`")
    from longvale.metrics.page import EXAMPLES, build_page

    page = build_page(task)
    predictions, references = map(json.dumps, EXAMPLES[task])
    scores = page.fn(predictions, references, "strict")
    assert scores[{"grounding": "mIoU", "dense_captioning": "F1", "segment_captioning": "METEOR"}[task]] == 1
    assert "---" not in page.article and "## How to use" in page.article


@pytest.mark.parametrize("task", TASKS)
def test_cards(task, metrics):
    _, head, text = (Path(longvale.metrics.path(task)) / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    settings = yaml.safe_load(head)
    assert settings["sdk"] == "gradio" and settings["app_file"] == "app.py" and "metric" in settings["tags"]
    assert (Path(longvale.metrics.path(task)) / "requirements.txt").read_text() == "longvale[app]\n"
    code = text.split("```python\n")[1].split("```")[0].strip().splitlines()
    *steps, last, given = code  # as an example of a docstring: the last line is a comment that says what comes
    source = "".join(f">>> {line}\n" for line in [*steps, last]) + given.removeprefix("# ") + "\n"
    example = doctest.DocTestParser().get_doctest(source, {}, task, None, 0)
    found = []
    doctest.DocTestRunner(verbose=False).run(example, out=found.append)
    assert not found, "".join(found)


@pytest.mark.parametrize("task", TASKS)
def test_nothing_to_score_is_refused(metrics, task):
    with pytest.raises(ValueError, match="nothing to score: predictions and references are empty"):
        metrics[task].compute(predictions=[], references=[])
    with pytest.raises(ValueError, match="nothing to score: give predictions and references, or add them first"):
        metrics[task].compute()


@pytest.mark.parametrize(
    ("task", "prediction", "changed", "message"),
    [
        ("grounding", [float("nan"), 3.0], {}, "the start must be a number of seconds, 0 or more, not nan"),
        ("grounding", [1.0, float("inf")], {}, "the end must be a number of seconds, 0 or more, not inf"),
        ("grounding", [1.0], {}, "a prediction must be a text, or start and end in seconds"),
        (
            "grounding",
            "From 00 to 50.",
            {"duration": None},
            "the duration must be a number of seconds above 0, not None",
        ),
        ("dense_captioning", "From 00 to 50, a", {"duration": float("nan")}, "the duration must be a number"),
        ("dense_captioning", [{"start": 0.0, "end": 3.0}], {}, "a prediction lacks 'caption'; it has start, end"),
        (
            "dense_captioning",
            [{"start": None, "end": 3.0, "caption": "a"}],
            {},
            "the start must be a number of seconds",
        ),
    ],
)
def test_odd_values_are_refused_in_a_line(metrics, task, prediction, changed, message):
    reference = {"start": 0.0, "end": 30.0, "duration": 60.0, "events": [{"start": 0.0, "end": 9.0, "caption": "a"}]}
    with pytest.raises(ValueError, match=message):
        metrics[task].compute(predictions=[prediction], references=[{**reference, **changed}])


def test_reasoning_is_no_caption(metrics):
    wanted = metrics["segment_captioning"].compute(predictions=["a dog barks"], references=["A dog barks."])
    thought = ["<think>a cat?</think>a dog barks"]
    assert metrics["segment_captioning"].compute(predictions=thought, references=["A dog barks."]) == wanted
