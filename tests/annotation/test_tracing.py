"""Which sounds go on from change to change, and when each is heard."""

import numpy as np
import pytest

from longvale.annotation.boundaries import tracing
from longvale.annotation.boundaries.options import AudioOptions
from longvale.annotation.boundaries.tracing import Sound, fit_levels, place_sounds, trace_sounds

LOW, HIGH, BOTH = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([1.0, 1.0])


def trace(clips, bands, **options):
    return [sound[:2] for sound in trace_sounds(clips, bands, AudioOptions(**options))]


def place(sounds, bands, turns=(), changes=(), **options):
    found = place_sounds([Sound(*sound) for sound in sounds], turns, bands, changes, AudioOptions(**options))
    return [(round(start, 3), round(end, 3)) for start, end in found]


# --- which there are -------------------------------------------------------------------------------------------------


def test_a_sound_whose_faint_rest_is_heard_has_ended():
    bands = np.zeros((100, 2))
    bands[20:50], bands[50:] = (2, 1), (0.1, 0)
    assert trace([(0, 2), (2, 5), (5, 10)], bands)[0] == (2, 5)


def test_what_a_sound_has_had_before_is_no_other_sound():
    rows = [[1, 1, 0], [1, 1, 1], [1, 0, 1], [1, 1, 1]]  # another joins, then a voice of the first rests
    bands = np.repeat(np.array(rows, float), 30, axis=0)
    assert trace([(3.0 * i, 3.0 * i + 3) for i in range(4)], bands) == [(0, 12), (3, 12)]


def test_no_more_sounds_are_told_at_a_time_than_asked_for():
    bands = np.tril(np.ones((6, 6))).repeat(20, axis=0)  # an instrument more every two seconds
    clips = [(2.0 * i, 2.0 * i + 2) for i in range(6)]
    assert trace(clips, bands, max_overlap=3) == [(0, 12), (2, 12), (4, 12)]
    assert len(trace(clips, bands, max_overlap=9)) == 6


def test_a_clip_that_begins_in_silence_and_ends_in_the_sound_of_the_next():
    bands = np.zeros((100, 2))
    bands[30:50] = 2, 1  # within the first clip, and louder than what follows
    bands[50:] = 1, 0.5
    assert trace([(0, 5), (5, 10)], bands) == [(5, 10)]


# --- when they are heard ---------------------------------------------------------------------------------------------


def test_sounds_end_where_their_own_spectrum_ends():
    bands = np.zeros((100, 2))
    bands[10:60, 0], bands[34:83, 1] = 2, 1
    assert place([(1.0, 8.5, LOW), (4.0, 8.5, HIGH)], bands) == [(1.0, 6.0), (3.4, 8.3)]


def test_a_sound_grows_by_a_second_at_most():
    assert place([(4.0, 6.0, LOW)], np.ones((100, 2)) * LOW) == [(3.0, 7.0)]
    assert place([(0.2, 9.7, LOW)], np.ones((100, 2)) * LOW) == [(0.0, 10.0)]


def test_pauses_belong_to_a_sound_and_longer_ones_end_it():
    bands = np.zeros((100, 2))
    bands[10:20, 0] = bands[30:40, 0] = bands[60:70, 0] = 1
    assert place([(1.0, 7.0, LOW)], bands) == [(1.0, 4.0)]
    assert place([(1.0, 7.0, LOW)], bands, pause_s=2.5) == [(1.0, 7.0)]
    assert place([(1.0, 7.0, LOW)], bands, pause_s=0.5, min_length_s=2) == []


def test_what_fades_has_ended():
    bands = np.linspace(1, 0, 101)[:, None] * LOW
    assert place([(0.0, 10.0, LOW)], bands, level_floor=0.095) == [(0.0, 9.1)]
    assert place([(0.0, 10.0, LOW)], bands, level_floor=0.495) == [(0.0, 5.1)]


def test_starts_and_ends_are_those_of_changes_and_turns_nearby():
    bands = np.zeros((100, 2))
    bands[20:60, 0] = 1
    assert place([(2.0, 6.0, LOW)], bands, changes=[1.8, 6.6]) == [(1.8, 6.0)]
    assert place([(2.0, 6.0, LOW)], bands, changes=[1.8, 6.6], turns=[(2.3, 6.1)]) == [(1.8, 6.1)]


def test_what_a_turn_says_is_not_the_sound_beside_it():
    bands = np.zeros((100, 2))
    bands[10:50, 0] = 1
    bands[42:70] += 0.5, 3  # speech
    assert place([(1.0, 7.0, LOW)], bands) == [(1.0, 7.0)]
    assert place([(1.0, 7.0, LOW)], bands, turns=[(4.2, 7.0)], apart_s=0.1) == [(1.0, 5.0)]


def test_what_is_nowhere_heard_is_left_out():
    assert place([(1.0, 7.0, LOW)], np.zeros((100, 2))) == []
    assert place([(1.0, 7.0, LOW), (1.0, 7.0, HIGH)], np.ones((100, 2)) * HIGH) == [(0.0, 8.0)]
    assert place([], np.ones((10, 2)), turns=[(0.0, 0.5), (0.9, 1.4)]) == []
    assert place([], np.empty((0, 2))) == []


def test_shares_add_up_to_what_is_heard():
    rng = np.random.default_rng(0)
    spectra = [rng.random(40) for _ in range(5)]
    true = rng.random((5, 50)) * (rng.random((5, 50)) > 0.5)
    bands = sum(np.outer(loud, spectrum) for loud, spectrum in zip(true, spectra, strict=True))
    found = fit_levels(bands, spectra, [(0, 50)] * 5)
    np.testing.assert_allclose(np.sum(found, axis=0), bands.sum(axis=1), rtol=1e-3, atol=1e-6)
    for loud, own, spectrum in zip(true, found, spectra, strict=True):
        assert np.abs(own - loud * spectrum.sum()).max() < 0.35 * spectrum.sum()
        assert np.corrcoef(loud, own)[0, 1] > 0.97


@pytest.mark.parametrize("steps", [7, 25, 1000])
def test_steps_that_are_worked_on_apart_are_the_same(monkeypatch, steps):
    rng = np.random.default_rng(0)
    bands, spectra = rng.random((60, 10)), list(rng.random((4, 10)))
    windows = [(0, 60), (5, 20), (20, 41), (59, 60)]
    whole = fit_levels(bands, spectra, windows)
    monkeypatch.setattr(tracing, "_STEPS_AT_ONCE", steps)
    for apart, expected, (begin, end) in zip(fit_levels(bands, spectra, windows), whole, windows, strict=True):
        assert len(apart) == end - begin
        np.testing.assert_allclose(apart, expected, rtol=1e-9)
