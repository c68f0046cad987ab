import threading
from itertools import pairwise

import numpy as np
import pytest

from longvale.evaluation.generation.model import answer_batch, load_model
from longvale.evaluation.generation.stream import Stopped, stoppable, stream_answer

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


@pytest.fixture
def layers(pair):
    """The language model's layers that ran, by number; `event` is set when the second one begins."""
    begun, event, hooks = [], threading.Event(), []
    for number, layer in enumerate(pair[0].base_model.language_model.layers):

        def note(*_, number=number):
            begun.append(number)
            if number == 1:
                event.set()

        hooks.append(layer.register_forward_pre_hook(note))
    yield begun, event
    for hook in hooks:
        hook.remove()


def test_it_stops_while_the_prompt_is_read(pair, features, layers):
    begun, stop = layers
    assert list(stream_answer(*pair, QUESTION, features, 200, stop)) == []
    assert begun == [0, 1]  # of more layers and of many tokens
    assert len(pair[0].base_model.language_model.layers) > 2
    assert list(stream_answer(*pair, QUESTION, features, 5)) != []  # and works as before


def test_only_the_thread_that_is_stopped_ends(pair, features):
    with stoppable(pair[0], lambda: True):
        other = list(stream_answer(*pair, QUESTION, features, 5))  # which runs in a thread of its own
        with pytest.raises(Stopped):
            answer_batch(*pair, [QUESTION], [features], 5)
    assert other[-1] == answer_batch(*pair, [QUESTION], [features], 5)[0]
