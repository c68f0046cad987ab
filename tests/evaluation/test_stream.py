import threading
from itertools import pairwise

import numpy as np
import pytest

from longvale.evaluation.model import answer_batch, load_model
from longvale.evaluation.stream import stream_answer

QUESTION = "<video>\nWhat happens?"


@pytest.fixture(scope="module")
def pair(tiny_model):
    model, processor = load_model(tiny_model, "cpu")
    model.generation_config.no_repeat_ngram_size = 1  # untrained, it would say the same token again and again
    return model, processor


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    return {"visual": rng.normal(size=(10, 64)).astype(np.float32), "audio": None, "speech": None}


def test_the_last_text_is_the_whole_answer(pair, features):
    texts = list(stream_answer(*pair, QUESTION, features, 40))
    assert texts[-1] == answer_batch(*pair, [QUESTION], [features], 40)[0]
    assert len(texts) > 3
    assert all(later.startswith(earlier[:-3]) for earlier, later in pairwise(texts))


def test_it_stops_when_told(pair, features):
    whole = list(stream_answer(*pair, QUESTION, features, 200))[-1]
    stop, texts = threading.Event(), []
    for text in stream_answer(*pair, QUESTION, features, 200, stop):
        texts.append(text)
        stop.set()
    assert whole.startswith(texts[-1]) and len(texts[-1]) < len(whole)


def test_leaving_ends_the_thread(pair, features):
    before = threading.active_count()
    for _ in stream_answer(*pair, QUESTION, features, 200):
        break
    assert threading.active_count() == before


def test_errors_come_through(pair, features):
    with pytest.raises(ValueError, match="must be"):
        list(stream_answer(*pair, QUESTION, {**features, "visual": np.zeros((3, 5), np.float32)}, 5))
    with pytest.raises(ValueError):  # inside the generation, in its thread
        list(stream_answer(*pair, QUESTION, features, -5))
