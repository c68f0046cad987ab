"""Speech turns, and the steady sounds that are taken away before."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from longvale.annotation.boundaries import speech as speech_module
from longvale.annotation.boundaries.options import SpeechOptions
from longvale.annotation.boundaries.speech import find_speech, without_steady_sounds
from longvale.synthetic.sounds import EFFECTS, speak

RATE = 16_000


def noise(seconds, level=0.002):
    return level * np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)


def words(*names):
    return 0.5 * np.concatenate([speak(name) for name in names])


def test_speech_turns():
    pytest.importorskip("silero_vad")
    word = words("hello", "away", "more")
    turns = find_speech(np.concatenate([noise(3), word, noise(3)]), SpeechOptions(threshold=0.3))
    assert len(turns) == 1
    assert 2.5 < turns[0][0] < 4 and turns[0][1] < 3 + len(word) / RATE + 0.5
    assert find_speech(noise(4)) == [] and find_speech(None) == [] and find_speech(noise(0)) == []


def test_speech_over_an_engine():
    pytest.importorskip("silero_vad")
    engine = 0.3 * np.resize(EFFECTS["engine"](RATE, 1.0, np.random.default_rng(0)), 12 * RATE).astype(np.float32)
    word = words("yes", "away", "yes", "away")
    track = engine.copy()
    track[5 * RATE : 5 * RATE + len(word)] += word
    assert find_speech(engine) == []
    turns = find_speech(track)
    assert len(turns) == 1 and turns[0] == pytest.approx((5, 5 + len(word) / RATE), abs=0.5)
    assert find_speech(track, SpeechOptions(steady=0)) != turns
    with pytest.raises(ValueError, match=r"steady must be 0 or more, not -1"):
        SpeechOptions(steady=-1)


class Uncertain:
    """A detector that answers with given probabilities, one per window of 32 ms, and 0 after them."""

    def __init__(self, probabilities):
        self.given = iter(probabilities)

    def reset_states(self):
        pass

    def __call__(self, window, rate):
        return torch.tensor([[next(self.given, 0.0)]])


def test_a_turn_in_which_the_detector_is_never_certain_is_not_speech(monkeypatch):
    pytest.importorskip("silero_vad")
    likely = [0.0] * 32 + [0.8] * 32 + [0.0] * 96 + [0.8] * 16 + [0.97] + [0.8] * 15 + [0.0] * 64
    find = lambda **options: find_speech(noise(8), SpeechOptions(steady=0, **options))  # noqa: E731
    turns = {}
    for peak in (0.0, 0.95, 0.98):
        monkeypatch.setattr(speech_module, "_load_vad", lambda: Uncertain(likely))
        turns[peak] = find(peak=peak)
    assert [len(found) for found in turns.values()] == [2, 1, 0]
    assert turns[0.95] == turns[0.0][1:] and turns[0.95][0][0] == pytest.approx(160 * 0.032, abs=0.1)
    with pytest.raises(ValueError, match=r"peak must be between 0 and 1, not 2"):
        SpeechOptions(peak=2)


def test_what_is_steady_is_taken_away_and_speech_stays():
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(8 * RATE) / RATE).astype(np.float32)
    word = words("hello", "away")
    track = tone.copy()
    track[4 * RATE : 4 * RATE + len(word)] += word
    cleaned = without_steady_sounds(track)
    assert cleaned.shape == track.shape and cleaned.dtype == np.float32
    rest = np.r_[RATE : 3 * RATE, 6 * RATE : 7 * RATE]
    assert np.abs(cleaned[rest]).max() < 0.1 * np.abs(tone).max()
    spoken = slice(4 * RATE, 4 * RATE + len(word))
    assert np.corrcoef(cleaned[spoken], word)[0, 1] > 0.7 > np.corrcoef(track[spoken], word)[0, 1]
    assert np.array_equal(without_steady_sounds(track, 0), track)
    np.testing.assert_array_equal(without_steady_sounds(word), word)  # too short to tell


@pytest.mark.parametrize("seconds", [2, 4.1, 6, 6.05, 20])
def test_stretches_are_worked_through_apart_without_seams(monkeypatch, seconds):
    from longvale.annotation.boundaries import speech

    track = noise(seconds, 0.1)
    whole = without_steady_sounds(track)
    monkeypatch.setattr(speech, "_STRETCH", 1)
    apart = without_steady_sounds(track)
    assert apart.shape == track.shape and np.isfinite(apart).all()
    assert np.corrcoef(whole, apart)[0, 1] > 0.95  # medians are taken at other moments
    np.testing.assert_array_equal(apart, without_steady_sounds(track))


def test_speech_of_several_videos_at_a_time():
    pytest.importorskip("silero_vad")
    spoken = [np.concatenate([words(word)] * 3) for word in ("hello", "away", "more")]
    tracks = [np.concatenate([noise(pause), word, noise(2)]) for pause in (1, 2) for word in spoken]
    options = SpeechOptions(threshold=0.3)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda track: find_speech(track, options), tracks))
    assert together == [find_speech(track, options) for track in tracks]
