import numpy as np
import pytest
import torch

from longvale.evaluation.analysis.attribution import event_spans, lanes, shapley, weigh_modalities
from longvale.evaluation.ask import read_answer
from longvale.evaluation.generation.model import load_model, prepare_question

QUESTION = "<video>\nWhat happens?"
ANSWER = "From 00 to 50, A bell is heard off screen.\nFrom 50 to 99, A red ring slides across the screen."


@pytest.fixture(scope="module")
def pair(tiny_model):
    return load_model(tiny_model, "cpu")


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=(n, 64)).astype(np.float32) for name, n in (("visual", 10), ("audio", 4), ("speech", 5))
    }


def weigh(pair, features, answer=ANSWER):
    events = read_answer(answer, 60.0)
    reports = list(weigh_modalities(*pair, QUESTION, features, answer, events))
    assert all(result is None for _, result in reports[:-1])
    shares = [share for share, _ in reports]
    assert shares == sorted(shares) and shares[-1] == 1.0
    return reports[-1][1]


def log_probability(pair, features, answer):
    """Of all tokens of an answer, by the loss of the model."""
    model, processor = pair
    inputs = prepare_question(model, processor, [QUESTION], [features], answers=[answer])
    prompt = prepare_question(model, processor, [QUESTION], [features])["input_ids"].shape[1]
    labels = inputs["input_ids"].clone()
    labels[:, :prompt] = -100
    with torch.inference_mode():
        loss = model(**inputs, labels=labels).loss
    return -float(loss) * (labels.shape[1] - prompt)


def test_the_weights_add_up_to_what_all_modalities_tell(pair, features):
    """The efficiency of Shapley values: they share out exactly the gain of all over none."""
    weights = weigh(pair, features)
    assert len(weights) == 2
    silent = {name: values * 0 for name, values in features.items()}
    gain = log_probability(pair, features, ANSWER) - log_probability(pair, silent, ANSWER)
    assert sum(sum(w.values()) for w in weights) == pytest.approx(gain, abs=1e-3)  # sums of 30 float32 logarithms


def test_what_a_video_does_not_have_weighs_nothing(pair, features):
    for weights in weigh(pair, {**features, "audio": None, "speech": features["speech"] * 0}):
        assert weights["audio"] == 0
        assert weights["speech"] == pytest.approx(0, abs=1e-4)
        assert abs(weights["visual"]) > 1e-3


def test_a_lone_interval_is_weighed_as_a_whole(pair, features):
    (weights,) = weigh(pair, features, "From 10 to 30.")
    assert any(weights.values())


def test_spans_of_events():
    answer = f"Well:\n{ANSWER}\nThat is all."
    (a, b), (c, d) = event_spans(answer, 2)
    assert answer[a:b] == ANSWER.splitlines(keepends=True)[0] and answer[c:d].startswith("From 50 to 99")
    assert event_spans("From 10 to 30.", 1) == [(0, 14)]
    assert event_spans("nothing", 0) == []


def test_three_players():
    worth = {frozenset(s): float(len(s) > 0 and "audio" in s) for s in ([], ["visual"], ["audio"], ["visual", "audio"])}
    assert shapley(worth, ["visual", "audio"]) == {"visual": 0.0, "audio": 1.0}


def test_lanes():
    assert lanes({"visual": 4.0, "audio": 1.0, "speech": 0.9}) == ("visual", "audio")
    assert lanes({"visual": 0.4, "audio": 0.4, "speech": 0.4}) == ()  # too weak to tell
    assert lanes({"visual": -3.0, "audio": 0.0, "speech": 2.0}) == ("speech",)
