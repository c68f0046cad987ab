import itertools
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvale.metrics.dense_captioning.compute_score import GARBAGE, THRESHOLDS, match, score_videos
from longvale.metrics.dense_captioning.compute_score import compute_score as score_dense
from longvale.metrics.grounding.compute_score import compute_score as score_grounding
from longvale.metrics.grounding.compute_score import iou, iou_matrix, score_questions
from longvale.metrics.protocol_options import PROTOCOL_OPTIONS, ProtocolOptions, protocol_options
from longvale.metrics.segment_captioning.compute_score import compute_score as score_segment
from longvale.metrics.segment_captioning.compute_score import score_segments
from longvale.metrics.text.captions import NAMES, score_captions

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


@given(st.lists(intervals), st.lists(intervals))
def test_iou_matrix_is_that_of_each_pair(first, second):
    expected = np.array([[iou(a, b) for b in second] for a in first]).reshape(len(first), len(second))
    assert iou_matrix(first, second).tolist() == expected.tolist()
    assert iou_matrix(first, second, rounded_union=True) == pytest.approx(expected, abs=1e-8)


def test_iou_matrix_of_reversed_intervals_is_zero():
    assert iou_matrix([(20, 10)], [(5, 30), (12, 12)]).tolist() == [[0, 0]]


def test_protocol_options_are_all_on_or_all_off():
    assert {field.default for field in fields(ProtocolOptions)} == {False}
    assert set(vars(protocol_options("official")).values()) == {True}
    assert protocol_options("strict") == ProtocolOptions()


def test_unparsed_answers_stay_in_the_denominator():
    scores = score_grounding([(0, 10), None, None, None], [(0, 10)] * 4)
    assert scores == {"mIoU": 0.25, "R@0.3": 0.25, "R@0.5": 0.25, "R@0.7": 0.25, "count": 4, "parsed": 1}


def test_official_rounds_before_the_threshold():
    predictions, references = [(0, 29.5)], [(0, 100)]
    assert score_grounding(predictions, references)["R@0.3"] == 0
    official = score_grounding([(0, 29.6)], references, protocol="official")
    assert official["R@0.3"] == 1 and official["mIoU"] == 0.3


def test_candidates_and_thresholds():
    """The second candidate of the first question is better than the first; the third does not count at n = 2."""
    predictions = [[(0, 2), (0, 6), (0, 10)], (0, 10), None, []]
    references = [(0, 10)] * 4
    assert score_questions(predictions, references) == [[0.2, 0.6, 1.0], [1.0], [], []]
    scores = score_grounding(predictions, references, thresholds=[0.1, 0.6, 1], candidates=[1, 2, 3])
    assert scores == {
        "mIoU": 0.3,
        **{"R@0.1": 0.5, "R@0.6": 0.25, "R@1": 0.25},
        **{"R2@0.1": 0.5, "R2@0.6": 0.5, "R2@1": 0.25},
        **{"R3@0.1": 0.5, "R3@0.6": 0.5, "R3@1": 0.5},
        "count": 4,
        "parsed": 2,
    }


def test_intervals_may_be_lists_as_in_json():
    assert score_grounding([[0, 10], [[0, 10]]], [[0, 10], [0, 10]])["mIoU"] == 1


def test_grounding_refusals():
    with pytest.raises(ValueError, match="thresholds must be above 0 to 1"):
        score_grounding([None], [(0, 1)], thresholds=[30])
    with pytest.raises(ValueError, match="candidates 1 or more"):
        score_grounding([None], [(0, 1)], candidates=[0])
    with pytest.raises(ValueError, match="1 predictions but 2 references"):
        score_grounding([None], [(0, 1), (0, 1)])
    with pytest.raises(ValueError, match="no question"):
        score_grounding([], [])
    with pytest.raises(ValueError, match="unknown protocol"):
        score_grounding([None], [(0, 1)], protocol="loose")


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
    assert all(scores[name] == 0 for name in ("soda_c", "precision", "recall", "F1", *NAMES))


def test_wrong_captions_at_right_times_lose_only_the_text_scores():
    references = [[(0, 10, "a bell rings loudly"), (10, 20, "the dog barks twice")]]
    swapped = [[(0, 10, "the dog barks twice"), (10, 20, "a bell rings loudly")]]
    scores = score_dense(swapped, references)
    assert scores["F1"] == 1 and scores["CIDEr"] == 0 and scores["ROUGE_L"] == 0


def test_strict_captions_score_as_one_corpus():
    """What is compared at a threshold is one caption a reference event, over all videos."""
    references = [[(0, 10, "a bell rings in a tower"), (10, 20, "a dog barks")], [(0, 10, "a cat sleeps all day")]]
    predictions = [[(0, 10, "the bell rings in the tower")], [(0, 5, "a cat sleeps")]]
    scores = score_dense(predictions, references)
    wanted = [caption for events in references for _, _, caption in events]
    found = {0.5: ["the bell rings in the tower", "", "a cat sleeps"], 0.7: ["the bell rings in the tower", "", ""]}
    for threshold, captions in found.items():
        expected = score_captions(captions, wanted).corpus
        assert {name: scores[f"{name}@{threshold}"] for name in NAMES} == pytest.approx(expected)


def test_official_compares_every_pair_and_garbage():
    """Two predictions meet one event, one meets two events, one none."""
    references = [[(0, 10, "a bell rings in a tower"), (0, 9, "a big dog barks")]]
    predictions = [[(0, 10, "a bell rings"), (0, 10, "a dog barks"), (50, 60, "people talk")]]
    pairs = [(found, wanted) for found in ("a bell rings", "a dog barks") for *_, wanted in references[0]]
    expected = score_captions(*zip(*pairs, ("people talk", GARBAGE), strict=True)).corpus
    scores = score_dense(predictions, references, protocol="official")
    assert {name: scores[f"{name}@0.7"] for name in NAMES} == pytest.approx(expected)
    assert (scores["precision@0.7"], scores["recall@0.7"]) == (pytest.approx(2 / 3), 1)


def test_official_cider_of_a_single_pair_is_zero():
    events = [[(0, 10, "a bell rings")], [(0, 10, "a dog barks")]]
    assert score_dense(events, events, protocol="official")["CIDEr"] == 0
    assert score_dense(events, events)["CIDEr"] == pytest.approx(7.5)  # n-grams of three orders of four
    of_corpus = replace(PROTOCOL_OPTIONS["official"], own_frequencies=False)
    assert score_dense(events, events, options=of_corpus)["CIDEr"] == pytest.approx(7.5)


def test_an_iou_at_the_threshold():
    references, predictions = [[(0, 10, "a")]], [[(0, 5, "a")]]
    assert score_dense(predictions, references)["recall@0.5"] == 1
    above = replace(ProtocolOptions(), strictly_above=True)
    assert score_dense(predictions, references, options=above)["recall@0.5"] == 0
    assert score_dense(predictions, references, options=above)["ROUGE_L@0.5"] == 1  # compared all the same
    rounded = replace(ProtocolOptions(), rounded_union=True)
    assert score_dense(predictions, references, options=rounded)["ROUGE_L@0.5"] == 0


def test_means_over_videos_and_over_events():
    references = [[(0, 10, "a"), (10, 20, "b"), (20, 30, "c")], [(0, 10, "d")]]
    predictions = [[(0, 10, "a")], [(0, 10, "d")]]
    assert score_dense(predictions, references)["recall"] == pytest.approx(2 / 4)
    scores = score_dense(predictions, references, options=replace(ProtocolOptions(), video_means=True))
    assert scores["recall"] == scores["ROUGE_L"] == pytest.approx((1 / 3 + 1) / 2)


@pytest.mark.parametrize("name", [field.name for field in fields(ProtocolOptions)])
def test_each_quirk_alone_keeps_scores_in_range(name):
    references = [[(0, 10, "a bell rings"), (10, 20, "a dog")], [(0, 10, "")]]
    predictions = [[(0, 10, "a bell"), (1, 11, "a bell rings")], []]
    scores = score_dense(predictions, references, options=replace(ProtocolOptions(), **{name: True}))
    assert scores["count"] == 2
    assert all(0 <= scores[key] <= 10 for key in scores)


def test_starts_within_a_distance():
    references = [[(0, 10, "a"), (20, 30, "b")]]
    predictions = [[(0.5, 50, "a"), (0.8, 50, "a"), (24, 30, "b")]]
    scores = score_dense(predictions, references)
    assert (scores["precision@1s"], scores["recall@1s"]) == (pytest.approx(1 / 3), 1 / 2)  # one to one
    assert (scores["precision@5s"], scores["recall@5s"]) == (pytest.approx(2 / 3), 1)
    official = score_dense(predictions, references, protocol="official")
    assert (official["precision@1s"], official["recall@1s"]) == (pytest.approx(2 / 3), 1 / 2)


def test_videos_by_themselves():
    references = [[(0, 10, "a bell rings"), (10, 20, "a dog")], [(0, 10, "a cat")]]
    predictions = [[(0, 10, "a bell rings")], [(0, 10, "a cat")]]
    overall, (first, second) = score_videos(predictions, references)
    assert set(first) == set(second) == set(overall)
    assert (first["recall"], second["recall"], overall["recall"]) == (0.5, 1, pytest.approx(2 / 3))
    assert overall["soda_c"] == pytest.approx((first["soda_c"] + second["soda_c"]) / 2)
    assert overall["ROUGE_L"] == pytest.approx((first["ROUGE_L"] * 2 + second["ROUGE_L"]) / 3)
    assert {f"{name}@{t}" for name in (*NAMES, "precision", "recall", "F1") for t in THRESHOLDS} < set(overall)


hostile = st.lists(st.tuples(st.floats(-50, 120), st.floats(-50, 120), st.text(max_size=10)), max_size=4)


@settings(max_examples=50)
@given(st.lists(st.tuples(hostile, hostile), min_size=1, max_size=3), st.sampled_from(["strict", "official"]))
def test_no_events_raise_and_scores_stay_in_range(videos, protocol):
    predictions, references = zip(*videos, strict=True)
    if not any(references):
        references = [[(0, 1, "a")], *references[1:]]
    overall, each = score_videos(predictions, references, protocol=protocol)
    for scores in (overall, *each):
        for name in set(scores) - {"count", "reference_events", "predicted_events"}:
            assert 0 <= scores[name] <= (10 if "CIDEr" in name else 1) + 1e-9


def test_dense_refusals():
    with pytest.raises(ValueError, match="predictions of 1 videos but references of 2"):
        score_dense([[]], [[], []])
    with pytest.raises(ValueError, match="no event to score"):
        score_dense([[], []], [[], []])


def test_segments_pair_by_key_not_by_order():
    references = {("a", 0): "a bell rings in the tower", ("a", 1): "a dog runs over the field"}
    predictions = dict(reversed(references.items()))
    expected = {**dict.fromkeys(NAMES, 1), "CIDEr": 10, "count": 2}
    assert score_segment(predictions, references) == pytest.approx(expected)


def test_segments_by_themselves():
    references = {"a": "a bell rings in the tower", "b": "a dog runs over the field"}
    overall, each = score_segments({"b": "a dog sleeps", "a": references["a"]}, references)
    assert list(each) == ["a", "b"] and set(each["a"]) == set(NAMES)
    assert each["a"]["METEOR"] == 1 > each["b"]["METEOR"] > 0
    for name in ("CIDEr", "ROUGE_L"):
        assert overall[name] == pytest.approx((each["a"][name] + each["b"][name]) / 2)


def test_official_pairs_segments_by_order():
    references = {"a": "a bell rings in the tower", "b": "a dog runs over the field"}
    predictions = dict(reversed(references.items()))
    assert score_segment(predictions, references, protocol="official")["BLEU_4"] < 0.1
    by_key = replace(PROTOCOL_OPTIONS["official"], paired_by_order=False)
    assert score_segment(predictions, references, options=by_key)["BLEU_4"] == pytest.approx(1)
    with pytest.raises(ValueError, match="1 captions but 2 references cannot be paired by order"):
        score_segment({"a": "x"}, references, protocol="official")


def test_official_keeps_characters_outside_ascii_in_segments():
    assert score_segment({0: "é", 1: "a"}, {0: "e", 1: "a"}, protocol="official")["BLEU_1"] == pytest.approx(0.5)
    assert score_dense([[(0, 9, "é")]], [[(0, 9, "ü")]], protocol="official")["ROUGE_L"] == 1  # both are empty
    assert score_dense([[(0, 9, "é")]], [[(0, 9, "ü")]])["ROUGE_L"] == 0


def test_segment_refusals():
    with pytest.raises(ValueError, match=r"1 captions have no prediction, for instance that of \('a', 1\)"):
        score_segment({("a", 0): "x"}, {("a", 0): "x", ("a", 1): "y"})
    with pytest.raises(ValueError, match=r"1 captions have no reference, for instance that of \('a', 1\)"):
        score_segment({("a", 0): "x", ("a", 1): "y"}, {("a", 0): "x"})
    with pytest.raises(ValueError, match="no caption to score"):
        score_segment({}, {})


def test_options_replace_those_of_the_protocol():
    rounded = replace(protocol_options("strict"), rounded_iou=True)
    assert score_grounding([(0, 29.6)], [(0, 100)], options=rounded)["R@0.3"] == 1
    strict = protocol_options("strict")
    assert score_grounding([(0, 29.6)], [(0, 100)], protocol="official", options=strict)["R@0.3"] == 0
    ((exact,),) = score_questions([(0, 29.6)], [(0, 100)], protocol="official", options=strict)
    assert exact == pytest.approx(0.296, abs=1e-9)  # .30 if rounded
    pair = ({"a": "...", "b": "a dog"}, {"a": "...", "b": "a dog"})
    assert score_segment(*pair, options=replace(strict, empty_alike=True))["ROUGE_L"] == 1
    assert score_segment(*pair, protocol="official", options=strict)["ROUGE_L"] == 0.5
    broken = ({"a": "a dog\rbarks", "b": "a cat"}, {"a": "a dog barks", "b": "a cat"})
    together = score_segment(*broken, options=replace(strict, one_batch=True))
    assert together["ROUGE_L"] < score_segment(*broken, options=strict)["ROUGE_L"] == 1  # a line shifts the next


def test_missing_captions_are_named_whatever_their_keys_are():
    with pytest.raises(ValueError, match=r"2 captions have no prediction, for instance that of \('a', 1\)"):
        score_segment({}, {("a", 1): "a dog", 2: "a cat"})


def test_a_threshold_of_zero_is_refused():
    with pytest.raises(ValueError, match="thresholds must be above 0 to 1"):
        score_grounding([(0, 1)], [(0, 1)], thresholds=[0])


def test_names_of_scores_without_a_threshold_of_the_iou():
    scores = score_dense([[(0, 5, "a dog barks")]], [[(0, 5, "a dog barks")]])
    assert {name for name in scores if name.endswith("s") and "@" in name} == {
        f"{score}@{distance}s" for score in ("precision", "recall", "F1") for distance in (1, 3, 5)
    }
    assert {"soda_c", "soda_c_precision", "soda_c_recall"} <= scores.keys()


def test_cider_with_frequencies_of_each_video_is_the_mean_of_the_pairs():
    found = [[(0, 5, "a dog barks"), (5, 9, "a bell rings")], [(0, 5, "a cat sleeps"), (5, 8, "a cat runs away")]]
    wanted = [[(0, 5, "a dog runs"), (5, 9, "a bell rings")], [(0, 5, "a cat sleeps"), (20, 28, "a cat runs")]]
    options = replace(protocol_options("official"), video_means=False, garbage=False)
    alone = [score_dense([a], [b], options=options)["CIDEr@0.5"] for a, b in zip(found, wanted, strict=True)]
    together = score_dense(found, wanted, options=options)["CIDEr@0.5"]
    assert alone[0] > 0 and together == pytest.approx((2 * alone[0] + 2 * alone[1]) / 4)
