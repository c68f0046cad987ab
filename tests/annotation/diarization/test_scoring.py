"""Diarization error rate, by hand: 10 s of a, 6 s of b, 2 s of both."""

import pytest

from longvale.annotation.diarization.scoring import DiarizationScore, score_turns

REFERENCE = [(0.0, 10.0, "a"), (8.0, 14.0, "b")]


def test_all_right_under_other_names():
    score = score_turns([(0, 10, "x"), (8, 14, "y")], REFERENCE)
    assert (score.total, score.error_rate, score.overlap_f1) == (16.0, 0.0, 1.0)


def test_missed_false_and_confused():
    # b is missed for 2 s, a speaks 1 s too long, and the last second of b is given to a.
    score = score_turns([(0, 10, 1), (10, 13, 2), (13, 15, 1)], REFERENCE)
    assert (score.missed, score.false_alarm, score.confused) == pytest.approx((2.0, 1.0, 1.0))
    assert score.error_rate == pytest.approx(4 / 16) and score.overlap_f1 == 0.0


def test_the_best_assignment_counts():
    # 1 shares 10 s with a; 2 shares 4 s with b, and 3 shares 2 s with it.
    score = score_turns([(0, 10, 1), (8, 12, 2), (12, 14, 3)], REFERENCE)
    assert (score.missed, score.false_alarm, score.confused) == pytest.approx((0.0, 0.0, 2.0))


def test_one_cluster_for_two_people():
    score = score_turns([(0, 14, 1)], REFERENCE)
    assert (score.missed, score.confused) == pytest.approx((2.0, 4.0))


def test_collar():
    # Not scored: 0.25 s around 0, 8, 10 and 14. Left of a: 0.25-7.75, 8.25-9.75; of b: 8.25-9.75, 10.25-13.75.
    score = score_turns([(0.2, 9.8, 1), (8.2, 13.0, 2)], REFERENCE, collar=0.25)
    assert score.total == pytest.approx(7.5 + 1.5 + 1.5 + 3.5)
    assert (score.missed, score.false_alarm, score.confused) == pytest.approx((0.75, 0.0, 0.0))


def test_overlap_of_two_against_three():
    score = score_turns([(0, 4, 1), (2, 4, 2)], [(0, 4, "a"), (0, 4, "b"), (3, 4, "c")])
    assert (score.overlap, score.overlap_found, score.overlap_both) == (4.0, 2.0, 2.0)
    assert score.overlap_f1 == pytest.approx(4 / 6) and score.missed == pytest.approx(2 + 1)


def test_sums_over_recordings():
    both = score_turns([(0, 14, 1)], REFERENCE) + score_turns([], [(0, 4, "a")])
    assert both == DiarizationScore(20.0, 6.0, 0.0, 4.0, 2.0, 0.0, 0.0)
    assert both.error_rate == pytest.approx(0.5)


def test_nothing_at_all():
    assert score_turns([], []).error_rate != score_turns([], []).error_rate  # nan: there is no speech
    assert score_turns([(0, 1, 1)], []).false_alarm == 1.0
