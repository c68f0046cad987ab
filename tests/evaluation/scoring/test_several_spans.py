import pytest

from longvale.evaluation.adapters.prompts import parse_reply
from longvale.evaluation.scoring.score import score_predictions
from longvale.evaluation.scoring.several_spans import several_spans
from longvale.events import Annotation, Event
from longvale.tasks import Prediction, Question

VIDEO = Annotation("v", 100.0, (Event(0, 10, "A bell rings."), Event(20, 40, "A dog."), Event(50, 60, "a bell rings")))


def answer(reply, index=0):
    reading = parse_reply(Question("v", "grounding", index, "", ""), reply, VIDEO.duration, "seconds")
    return Prediction("v", "grounding", reading.answer, index, info={"reply": reply, **reading.info()})


@pytest.mark.parametrize(
    ("reply", "union", "f1", "count"),
    [
        ("0 - 10 s and 50 - 60 s", 1.0, 1.0, 1.0),
        ("0 - 10 s", 0.5, 2 / 3, 0.0),
        ("0 - 60 s", 20 / 60, 0.0, 0.0),
        ("0:00 - 0:10, 0:50 - 1:10", 20 / 30, 1.0, 1.0),
        ('[{"start": 0, "end": 5}, {"start": 5, "end": 10}]', 0.5, 0.5, 1.0),  # two halves of one occurrence
        ("never", 0.0, 0.0, 0.0),
    ],
)
def test_all_spans_count(reply, union, f1, count):
    scores, (row,) = several_spans([answer(reply)], {"v": VIDEO}, "strict")
    assert scores == row == {"union_IoU": pytest.approx(union), "span_F1": pytest.approx(f1), "count_accuracy": count}


def test_answers_in_timecodes():
    plain = Prediction("v", "grounding", "From 00 to 10 and from 50 to 60.", 2)
    assert several_spans([plain], {"v": VIDEO}, "strict")[0]["union_IoU"] == pytest.approx(1.0)


def test_it_is_chosen_by_its_name():
    answers = [answer("0 - 10 s and 50 - 60 s"), answer("20 - 40 s", 1), answer("50 - 60 s", 2)]
    scores = score_predictions(answers, {"v": VIDEO}, metrics=["several_spans"])
    assert scores["grounding"]["mIoU"] == pytest.approx(1.0)
    assert scores["grounding"]["count_accuracy"] == pytest.approx(2 / 3)
