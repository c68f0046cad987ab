"""What the callback reports of answers that are known."""

import pytest
import torch

from longvale.training import grounding_callback
from longvale.training.grounding_callback import GroundingSet, answer_share

#: Of a video of 60 s, whose event lasts from 15 to 45 s.
ANSWERS = {"exact": "From 25 to 75.", "half": "From 25 to 50.", "beside": "From 80 to 90.", "unread": "I cannot say."}


def asked(names):
    return GroundingSet(list(names), [(0.25, 0.75)] * len(names), [60.0] * len(names), [None] * len(names))


@pytest.fixture
def answering(monkeypatch):
    """Answers each question by its name; what was asked is kept."""
    calls = []

    def answer(model, processor, questions, features, max_new_tokens):
        calls.append(list(questions))
        return [ANSWERS[question] for question in questions]

    monkeypatch.setattr(grounding_callback, "answer_batch", answer)
    monkeypatch.setattr(grounding_callback, "takes_padding", lambda model: model is None)
    return calls


def test_overlap_and_parsed_answers_are_counted_apart(answering):
    total, parsed, count = answer_share(None, None, asked(["exact", "half", "beside", "unread", "unread"])).tolist()
    assert total == pytest.approx(1.5)
    assert (parsed, count) == (3, 5)


def test_processes_share_the_questions_and_answer_equally_many_batches(answering):
    names = ["exact"] * 17 + ["unread"] * 3
    found = [answer_share(None, None, asked(names), rank, 2) for rank in range(2)]
    assert torch.stack(found).sum(dim=0).tolist() == [17, 17, 20]
    assert [len(questions) for questions in answering] == [16, 4]

    answering.clear()  # a process without questions of its own takes part all the same
    found = [answer_share(None, None, asked(["exact"]), rank, 2).tolist() for rank in range(2)]
    assert found == [[1, 1, 1], [0, 0, 0]]
    assert answering == [["exact"], ["exact"]]


def test_a_model_that_takes_no_padding_runs_equally_often_in_all_processes(answering):
    """It runs once per length of a text: with several questions in a batch, the processes could differ."""
    names = ["exact"] * 3
    found = [answer_share("sliding window", None, asked(names), rank, 2) for rank in range(2)]
    assert torch.stack(found).sum(dim=0).tolist() == [3, 3, 3]
    assert answering == [["exact"]] * 4
    answering.clear()
    answer_share("sliding window", None, asked(names))
    assert answering == [names]
