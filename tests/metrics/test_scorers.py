import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvale.metrics.dense_captioning.compute_score import compute_score as score_dense
from longvale.metrics.dense_captioning.compute_score import match
from longvale.metrics.grounding.compute_score import compute_score as score_grounding
from longvale.metrics.grounding.compute_score import iou
from longvale.metrics.segment_captioning.compute_score import compute_score as score_segment

intervals = st.tuples(st.integers(0, 30), st.integers(1, 30)).map(lambda t: (t[0], t[0] + t[1]))
events = st.lists(intervals.map(lambda t: (*t, "a bell rings")), max_size=4)


@given(intervals, intervals)
def test_iou_is_symmetric_and_bounded(a, b):
    assert 0 <= iou(a, b) == iou(b, a) <= 1
    assert iou(a, a) == 1
    cells = [set(range(*x)) for x in (a, b)]
    assert iou(a, b) == pytest.approx(len(cells[0] & cells[1]) / len(cells[0] | cells[1]))


def test_iou_of_reversed_intervals_is_zero():
    assert iou((20, 10), (5, 30)) == 0
    assert iou((5, 5), (5, 5)) == 0


def test_unparsed_answers_stay_in_the_denominator():
    scores = score_grounding([(0, 10), None, None, None], [(0, 10)] * 4)
    assert scores == {"mIoU": 0.25, "R@0.3": 0.25, "R@0.5": 0.25, "R@0.7": 0.25, "count": 4, "parsed": 1}


def test_official_rounds_before_the_threshold():
    predictions, references = [(0, 29.5)], [(0, 100)]
    assert score_grounding(predictions, references)["R@0.3"] == 0
    official = score_grounding([(0, 29.6)], references, protocol="official")
    assert official["R@0.3"] == 1 and official["mIoU"] == 0.3


def test_grounding_refusals():
    with pytest.raises(ValueError, match="1 predictions but 2 references"):
        score_grounding([None], [(0, 1), (0, 1)])
    with pytest.raises(ValueError, match="no question"):
        score_grounding([], [])
    with pytest.raises(ValueError, match="unknown protocol"):
        score_grounding([None], [(0, 1)], protocol="loose")


@settings(deadline=None)  # the first call imports scipy
@given(events, events, st.sampled_from([0.3, 0.5, 0.7, 0.9]))
def test_match_is_the_best_one_to_one(predictions, references, threshold):
    """Against all ways there are: most pairs first, then the largest sum of IoU."""
    pairs = match(predictions, references, threshold)
    assert len({p for p, _ in pairs}) == len({r for _, r in pairs}) == len(pairs)
    assert all(iou(predictions[p][:2], references[r][:2]) >= threshold for p, r in pairs)
    best = (0, 0.0)
    for chosen in itertools.product([None, *range(len(references))], repeat=len(predictions)):
        used = [r for r in chosen if r is not None]
        ious = [iou(predictions[p][:2], references[r][:2]) for p, r in enumerate(chosen) if r is not None]
        if len(set(used)) == len(used) and all(value >= threshold for value in ious):
            best = max(best, (len(ious), sum(ious)))
    assert (len(pairs), sum(iou(predictions[p][:2], references[r][:2]) for p, r in pairs)) == pytest.approx(best)


def test_dense_counts_over_the_corpus():
    references = [[(0, 10, "a bell rings"), (10, 20, "a dog barks")], [(0, 10, "a cat sleeps")]]
    predictions = [[(0, 10, "a bell rings"), (0, 9, "a bell rings"), (12, 20, "a dog barks")], []]
    scores = score_dense(predictions, references)
    assert scores["precision@0.7"] == pytest.approx(2 / 3)
    assert scores["recall@0.7"] == pytest.approx(2 / 3)
    assert scores["recall@0.9"] == pytest.approx(1 / 3)
    assert scores["recall"] == pytest.approx((3 * 2 / 3 + 1 / 3) / 4)
    assert scores["F1@0.9"] == pytest.approx(1 / 3)
    assert scores["ROUGE_L@0.7"] == pytest.approx(2 / 3)  # the event that is not found scores 0
    assert (scores["count"], scores["reference_events"], scores["predicted_events"]) == (2, 3, 3)


def test_dense_without_predictions_is_zero():
    scores = score_dense([[]], [[(0, 10, "a bell rings")]])
    assert all(scores[name] == 0 for name in ("precision", "recall", "F1", "CIDEr", "BLEU_4", "ROUGE_L"))


def test_wrong_captions_at_right_times_lose_only_the_text_scores():
    references = [[(0, 10, "a bell rings loudly"), (10, 20, "the dog barks twice")]]
    swapped = [[(0, 10, "the dog barks twice"), (10, 20, "a bell rings loudly")]]
    scores = score_dense(swapped, references)
    assert scores["F1"] == 1 and scores["CIDEr"] == 0 and scores["ROUGE_L"] == 0


def test_dense_refusals():
    with pytest.raises(ValueError, match="predictions of 1 videos but references of 2"):
        score_dense([[]], [[], []])
    with pytest.raises(ValueError, match="no event to score"):
        score_dense([[], []], [[], []])


def test_segments_pair_by_key_not_by_order():
    references = {("a", 0): "a bell rings in the tower", ("a", 1): "a dog runs over the field"}
    predictions = dict(reversed(references.items()))
    assert score_segment(predictions, references) == pytest.approx({"BLEU_4": 1, "ROUGE_L": 1, "CIDEr": 10, "count": 2})


def test_segment_refusals():
    with pytest.raises(ValueError, match=r"1 captions have no prediction, for instance that of \('a', 1\)"):
        score_segment({("a", 0): "x"}, {("a", 0): "x", ("a", 1): "y"})
    with pytest.raises(ValueError, match=r"1 captions have no reference, for instance that of \('a', 1\)"):
        score_segment({("a", 0): "x", ("a", 1): "y"}, {("a", 0): "x"})
    with pytest.raises(ValueError, match="no caption to score"):
        score_segment({}, {})
