"""Answers and references are paired in one way, whoever scores them."""

import pytest

from longvale.metrics.answers import pair
from longvale.tasks import Prediction

EVENT = {"start": 3.0, "end": 15.0, "caption": "A dog barks."}
ROWS = {
    "grounding": {"start": 3.0, "end": 15.0, "duration": 60.0},
    "dense_captioning": {"duration": 60.0, "events": [EVENT]},
    "segment_captioning": {"reference": "A dog barks."},
}
ANSWERS = {
    "grounding": "<think>From 70 to 80?</think>From 05 to 25.",
    "dense_captioning": "From 05 to 25, A dog barks.",
    "segment_captioning": "<think>A cat?</think> A dog barks.",
}


@pytest.mark.parametrize("task", list(ROWS))
def test_texts_and_predictions_are_paired_alike(task):
    text, index = ANSWERS[task], None if task == "dense_captioning" else 0
    found, wanted = pair(task, [text, text], [ROWS[task]] * 2)
    assert found == wanted and len(found) == 2
    assert pair(task, [Prediction("a", task, text, index)] * 2, [ROWS[task]] * 2) == (found, wanted)
    official = pair(task, [text], [ROWS[task]], "official")
    assert official == pair(task, [Prediction("a", task, text, index)], [ROWS[task]], "official")
    assert official[1] == wanted[:1] != official[0]  # reasoning is not removed, and ends are one percent later
    with pytest.raises(ValueError, match="argument"):
        pair(task, [text], [])


def test_values_in_seconds_are_paired_as_they_are():
    assert pair("grounding", [[3.0, 15.0], []], [ROWS["grounding"]] * 2)[0] == [(0.05, 0.25), None]
    found, wanted = pair("dense_captioning", [[EVENT]], [ROWS["dense_captioning"]])
    assert found == wanted == [[(3.0, 15.0, "A dog barks.")]]
    assert pair("segment_captioning", ["a"], ["b"]) == (["a"], ["b"])
