import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvale.metrics.dense_captioning.soda import EVENT_LIMIT, align, score_videos
from longvale.metrics.grounding.compute_score import iou
from longvale.metrics.text import meteor

grids = st.tuples(st.integers(0, 5), st.integers(0, 5)).flatmap(
    lambda shape: st.lists(
        st.lists(st.sampled_from([0, 0.25, 0.5, 0.7, 1]), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    ).map(lambda rows: np.array(rows, dtype=float).reshape(shape))
)


def best_by_trying(worth):
    """The largest sum over all order-preserving pairings: of each size, all choices of rows and of columns."""
    rows, columns = worth.shape
    return max(
        sum(worth[pair] for pair in zip(chosen, others, strict=True))
        for size in range(min(rows, columns) + 1)
        for chosen in itertools.combinations(range(rows), size)
        for others in itertools.combinations(range(columns), size)
    )


@given(grids)
def test_alignment_is_the_best_of_all(worth):
    pairs = align(worth)
    assert all(a < c and b < d for (a, b), (c, d) in itertools.pairwise(pairs))
    assert all(worth[pair] > 0 for pair in pairs)
    assert sum(worth[pair] for pair in pairs) == pytest.approx(best_by_trying(worth))


def test_six_hundred_events_align_in_no_time():
    """The published recursion fails past about 495 x 495; a row at a time takes milliseconds."""
    worth = np.random.default_rng(0).random((600, 600))
    start = time.perf_counter()
    pairs = align(worth + np.eye(600) * 600)  # the diagonal outweighs all else
    assert pairs == [(place, place) for place in range(600)]
    assert time.perf_counter() - start < 5


EVENTS = [(0, 10, "a bell rings"), (10, 20, "a dog barks at the cat"), (20, 30, "people talk")]


@pytest.mark.parametrize("variant", "abcd")
@pytest.mark.parametrize("scorer", ["METEOR", "IoU"])
def test_perfect_events_score_one(variant, scorer):
    (score,) = score_videos([EVENTS], [EVENTS], variant=variant, scorer=scorer)
    assert score == pytest.approx({"precision": 1, "recall": 1, "F1": 1})


def test_variants_by_hand():
    """One reference 0-20 and two predictions of IoU .5 and .4, the second with the right caption."""
    predictions = [[(0, 10, "wrong"), (10, 18, "a dog barks")]]
    references = [[(0, 20, "a dog barks")]]

    def recall(variant):
        return score_videos(predictions, references, variant=variant)[0]["recall"]

    # By IoU alone the first is taken: a asks for IoU .3 and .5 of four thresholds, but the captions share nothing.
    assert recall("a") == 0
    assert recall("b") == 0
    assert recall("c") == pytest.approx(0.4)
    assert recall("d") == pytest.approx(0.5)
    right = [[(0, 10, "a dog barks")]]
    assert score_videos(right, references, variant="a")[0]["recall"] == pytest.approx(2 / 4)
    assert score_videos(right, references, variant="b")[0]["recall"] == pytest.approx(0.5)


def test_crossing_events_do_not_both_count():
    """Two events told in the other order: each caption fits the event that it does not belong to in time."""
    references = [[(0, 12, "a bell rings loudly"), (8, 20, "the dog barks twice")]]
    predictions = [[(0, 12, "the dog barks twice"), (8, 20, "a bell rings loudly")]]
    overlap = iou((0, 12), (8, 20))
    assert score_videos(predictions, references, variant="c")[0]["precision"] == pytest.approx(overlap / 2)


def test_order_of_the_lists_does_not_count():
    assert score_videos([EVENTS[::-1]], [EVENTS]) == score_videos([EVENTS], [EVENTS])


def test_official_swaps_meteors_arguments():
    found, wanted = "a dog", "a dog barks at the old cat"
    forward, backward = meteor.scores([found, wanted], [wanted, found])
    assert forward != backward
    predictions, references = [[(0, 10, found)]], [[(0, 10, wanted)]]
    assert score_videos(predictions, references)[0]["F1"] == pytest.approx(forward)
    official = score_videos(predictions, references, protocol="official")[0]["F1"]
    assert official == pytest.approx(backward, abs=1e-8)  # 1e-8 in the union


def test_official_gives_up_on_many_events():
    many = [(place, place + 1, "a bell") for place in range(EVENT_LIMIT)]
    assert score_videos([many], [EVENTS], protocol="official")[0]["F1"] == 0
    assert score_videos([many], [EVENTS])[0]["F1"] > 0


def test_only_pairs_that_share_time_are_compared(monkeypatch):
    asked = []
    monkeypatch.setattr(
        meteor, "scores", lambda *pairs: asked.extend(zip(*pairs, strict=True)) or [1.0] * len(pairs[0])
    )
    score_videos([[(0, 10, "one"), (10, 20, "two")]], [[(0, 10, "one"), (10, 20, "three"), (40, 50, "four")]])
    assert asked == [("one", "one"), ("two", "three")]


def test_the_annotator_with_the_best_f1_counts():
    other = [(0, 30, "something else")]
    assert score_videos([EVENTS], [other], [EVENTS], [[]])[0]["F1"] == pytest.approx(1)
    assert score_videos([EVENTS], [[]])[0]["F1"] == 0


def test_cider_as_scorer_takes_the_frequencies_of_all_references():
    (score,) = score_videos([EVENTS], [EVENTS], scorer="CIDEr")
    # Each caption equals its reference: 10 where it has n-grams of all four orders, less for shorter ones.
    assert score["F1"] == pytest.approx((10 * 3 / 4 + 10 + 10 * 2 / 4) / 3)


events = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.text(max_size=8)), max_size=4)


@settings(max_examples=50)
@given(events, events, st.sampled_from("abcd"), st.sampled_from(["strict", "official"]))
def test_scores_stay_in_range(predictions, references, variant, protocol):
    (score,) = score_videos([predictions], [references], variant=variant, protocol=protocol)
    assert all(0 <= value <= 1 + 1e-9 for value in score.values())


def test_refusals():
    with pytest.raises(ValueError, match="one annotator or more"):
        score_videos([[]])
    with pytest.raises(ValueError, match="predictions of 1 videos but references of 2"):
        score_videos([[]], [[], []])
    with pytest.raises(ValueError, match="unknown SODA variant or scorer 'e'; expected one of a, b, c, d"):
        score_videos([[]], [[]], variant="e")
    with pytest.raises(ValueError, match="unknown SODA variant or scorer 'BERT'"):
        score_videos([[]], [[]], scorer="BERT")
