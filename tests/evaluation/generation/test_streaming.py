import threading
from itertools import pairwise

import numpy as np
import pytest
from one_video import answer_plainly

from longvale.evaluation.generation.model import load_model
from longvale.evaluation.generation.video_qa import answer_question
from longvale.system.interruption import Stopped, stoppable

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


def stream(pair, features, max_new_tokens, stop=lambda: False):
    """The texts that were reported, of which the last is the answer."""
    texts = []
    answer = answer_question(*pair, QUESTION, features, max_new_tokens, texts.append, stop)
    assert answer == (texts[-1] if texts else "")
    return texts


def test_the_last_text_is_the_whole_answer(pair, features):
    texts = stream(pair, features, 40)
    assert texts[-1] == answer_plainly(*pair, QUESTION, features, 40)
    assert len(texts) > 3
    assert all(later.startswith(earlier[:-3]) for earlier, later in pairwise(texts))


def test_it_stops_when_told(pair, features):
    whole, texts = stream(pair, features, 200)[-1], []
    answer = answer_question(*pair, QUESTION, features, 200, texts.append, lambda: len(texts) == 2)
    assert answer == texts[1] and len(texts) == 2
    assert whole.startswith(answer) and len(answer) < len(whole)


def test_errors_come_through(pair, features):
    with pytest.raises(ValueError, match="must be"):
        stream(pair, {**features, "visual": np.zeros((3, 5), np.float32)}, 5)
    with pytest.raises(ValueError, match="max_new_tokens must be 1 or more, not -5"):
        stream(pair, features, -5)


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
    assert stream(pair, features, 200, stop.is_set) == []
    assert begun == [0, 1]  # of more layers and of many tokens
    assert len(pair[0].base_model.language_model.layers) > 2
    assert stream(pair, features, 5) != []  # and works as before


def test_only_the_thread_that_is_stopped_ends(pair, features):
    other = []
    with stoppable(pair[0], lambda: True):
        thread = threading.Thread(target=lambda: other.extend(stream(pair, features, 5)))
        thread.start()
        thread.join()
        with pytest.raises(Stopped):
            answer_plainly(*pair, QUESTION, features, 5)
    assert other[-1] == answer_plainly(*pair, QUESTION, features, 5)
