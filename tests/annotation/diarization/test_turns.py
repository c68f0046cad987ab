"""Activity in windows to turns."""

import numpy as np
import pytest

from longvale.annotation.diarization.segmentation import FRAME_STEP
from longvale.annotation.diarization.turns import TurnOptions, combine, count_active, find_turns, hysteresis

FRAME_S = FRAME_STEP / 16_000


def test_windows_that_name_speakers_in_another_order():
    activity = np.zeros((2, 100, 2))
    activity[0, :, 0], activity[1, :, 1] = 0.9, 0.7
    starts = np.array([0, 50 * FRAME_STEP])
    combined = combine(activity, starts, np.tile([[[1, 0]], [[0, 1]]], (1, 100, 1)), 2, 150 * FRAME_S)
    assert combined[:50, 1] == pytest.approx(0.9, abs=1e-3) and combined[100:150, 1] == pytest.approx(0.7, abs=1e-3)
    assert ((combined[50:100, 1] > 0.7 - 1e-3) & (combined[50:100, 1] < 0.9)).all()
    assert not combined[:, 0].any() and not combined[151:].any()


def test_a_local_speaker_without_a_speaker_is_left_out():
    assert not combine(np.ones((1, 10, 2)), np.array([0]), np.full((1, 10, 2), -1), 1, 0.1).any()


def test_a_local_speaker_may_be_two_people():
    who = np.repeat([0, 1], 50).reshape(1, 100, 1)
    combined = combine(np.full((1, 100, 1), 0.8), np.array([0]), who, 2, 100 * FRAME_S)
    assert combined[:50].tolist() == [[pytest.approx(0.8), 0.0]] * 50
    assert combined[50:100].tolist() == [[0.0, pytest.approx(0.8)]] * 50


def turns_of(activity, duration=None, options=None, active=None):
    active = activity.sum(axis=1) if active is None else active
    return find_turns(activity, active, duration or len(activity) * FRAME_S, options)


def test_the_number_of_active_speakers_needs_no_names():
    activity = np.zeros((2, 100, 3))
    activity[0, :, 0], activity[1, :, 1], activity[1, 50:, 2] = 1.0, 1.0, 0.5
    active = count_active(activity, np.array([0, 50 * FRAME_STEP]), 150 * FRAME_S)
    assert active[:100] == pytest.approx(1.0) and active[101:150] == pytest.approx(1.5) and not active[151:].any()


def test_overlap_is_kept():
    activity = np.zeros((200, 2), np.float32)
    activity[:120, 0], activity[80:, 1] = 1.0, 1.0
    first, second = turns_of(activity)
    assert (first.speaker, second.speaker) == (0, 1)
    assert first.end - second.start == pytest.approx(40 * FRAME_S, abs=0.01)


def test_windows_that_disagree_about_who_speaks_agree_that_one_person_does():
    """Neither reaches the threshold alone; or both do, of the averages of windows with different names."""
    activity = np.zeros((200, 3), np.float32)
    activity[:, 0], activity[:, 1] = 0.4, 0.35
    assert [turn.speaker for turn in turns_of(activity, active=np.full(200, 1.0))] == [0]
    assert [turn.speaker for turn in turns_of(activity * 1.8, active=np.full(200, 1.3))] == [0]
    assert {turn.speaker for turn in turns_of(activity, active=np.full(200, 1.7))} == {0, 1}
    assert turns_of(activity, active=np.full(200, 0.4)) == []


def test_nobody_is_a_second_speaker_who_does_not_exist():
    (turn,) = turns_of(np.ones((200, 1), np.float32), active=np.full(200, 2.0))
    assert turn.speaker == 0
    assert turns_of(np.zeros((200, 0), np.float32)) == []


def test_hysteresis_ignores_what_stays_below_the_upper_threshold():
    values = np.array([0.45, 0.49, 0.1, 0.45, 0.9, 0.45, 0.41, 0.39, 0.45])
    assert hysteresis(values, 0.5, 0.4) == [(4, 7)]
    assert hysteresis(np.ones(3), 0.5, 0.4) == [(0, 3)] and hysteresis(np.zeros(0), 0.5, 0.4) == []


def test_pauses_are_filled_and_short_turns_dropped():
    activity = np.zeros((300, 1), np.float32)
    activity[50:100], activity[105:150], activity[250:255] = 1.0, 1.0, 1.0
    options = TurnOptions(pause_s=0.1, shortest_s=0.2)
    assert len(turns_of(activity, options=options)) == 1
    assert len(turns_of(activity, options=TurnOptions(pause_s=0.0, shortest_s=0.0))) == 3


def test_turns_end_with_the_recording():
    activity = np.ones((120, 1), np.float32)
    (turn,) = turns_of(activity, 1.5)
    assert (turn.start, turn.end) == (0.0, 1.5)
