"""Sounds: where they are split, which go on, and what speech has to do with it."""

import numpy as np
import pytest

from longvale.annotation.boundaries.audio import find_audio_events
from longvale.annotation.boundaries.descriptors import TimbreEmbedder, loudness, mel_power, mfcc_rows
from longvale.annotation.boundaries.options import AudioOptions

RATE = 16_000


def noise(seconds, level=0.002):
    return level * np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)


def tone(hz, seconds, level=0.2):
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def mixed(seconds, *sounds):
    """Sounds (start, waveform) over noise."""
    track = noise(seconds)
    for start, sound in sounds:
        begin = round(start * RATE)
        track[begin : begin + len(sound)] += sound
    return track


def test_two_sounds_with_a_pause():
    events = find_audio_events(mixed(20, (3, tone(440, 5)), (12, tone(1500, 4)))).events
    assert np.array(events) == pytest.approx(np.array([(3, 8), (12, 16)]), abs=0.35)


class Scaled:
    """Distances of MFCC statistics, so many times: as towers differ."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, sounds):
        return TimbreEmbedder()(sounds) * self.scale


@pytest.mark.parametrize("scale", [0.01, 0.3, 10.0])
def test_whatever_the_scale_of_an_embedder_sounds_are_split_and_stitched(scale):
    swelling = tone(440, 8) * np.repeat([1, 0.1, 1, 0.1], 2 * RATE).astype(np.float32)
    track = mixed(30, (3, tone(2500, 5)), (8, tone(300, 5)), (18, swelling))
    plain, tower = (find_audio_events(track, embedder=embedder) for embedder in (None, Scaled(scale)))
    assert len(tower.changes) > 3
    assert tower.events == plain.events


def test_sounds_that_follow_each_other_max_overlap_do_not_overlap():
    events = find_audio_events(mixed(16, (3, tone(300, 5)), (8, tone(2500, 5)))).events
    assert np.array(events) == pytest.approx(np.array([(3, 8), (8, 13)]), abs=0.35)


def test_a_sound_that_another_joins_goes_on():
    events = find_audio_events(mixed(20, (2, tone(300, 9)), (7, tone(2500, 9)))).events
    assert np.array(events) == pytest.approx(np.array([(2, 11), (7, 16)]), abs=0.35)


def test_a_sound_within_another_ends_before_it():
    events = find_audio_events(mixed(20, (2, tone(300, 14)), (7, tone(2500, 4)))).events
    assert np.array(events) == pytest.approx(np.array([(2, 16), (7, 11)]), abs=0.35)


@pytest.mark.parametrize("glides", [True, False])
def test_a_sound_that_repeats_is_one(glides):
    time = np.arange(11 * RATE) / RATE
    swing = np.cos(2 * np.pi * time / 1.2)
    hz = 900 - 350 * (swing if glides else np.sign(swing))  # a siren; a horn of two tones
    sound = (0.2 * np.sin(2 * np.pi * np.cumsum(hz) / RATE)).astype(np.float32)
    assert np.array(find_audio_events(mixed(20, (4, sound))).events) == pytest.approx(np.array([(4, 15)]), abs=0.35)


def test_each_of_three_sounds_that_overlap_ends_when_it_ends():
    track = mixed(30, (2, tone(200, 16)), (7, tone(900, 16)), (12, tone(3500, 3)))
    assert np.array(find_audio_events(track).events) == pytest.approx(np.array([(2, 18), (7, 23), (12, 15)]), abs=0.35)


def test_a_faint_sound_is_placed_within_a_louder_one():
    track = mixed(24, (2, tone(500, 18, 0.5)), (9.3, tone(3000, 4.6, 0.1)))
    assert np.array(find_audio_events(track).events) == pytest.approx(np.array([(2, 20), (9.3, 13.9)]), abs=0.15)


def test_options_that_make_no_sense_are_named():
    for options, reason in (
        ({"max_overlap": 0}, "max_overlap must be 1 or more, not 0"),
        ({"level_floor": 1.0}, "level_floor must be 0 or more and below 1, not 1.0"),
    ):
        with pytest.raises(ValueError, match=reason):
            AudioOptions(**options)


def test_a_sound_within_a_speech_turn_is_its_speech():
    track = mixed(30, (3, tone(440, 5)), (12, tone(900, 3)), (20, tone(1500, 6)))
    alone = find_audio_events(track)
    assert len(alone.events) == 3
    turns = [(12.4, 15.2), (21.0, 24.0)]  # the last sound is longer than the turn in it
    beside = find_audio_events(track, turns=turns)
    assert beside.events == (alone.events[0], alone.events[2])
    assert (beside.changes, beside.clips) == (alone.changes, alone.clips)


def test_silence_and_steady_noise_are_no_sounds():
    assert find_audio_events(np.zeros(10 * RATE, np.float32)).events == ()
    assert find_audio_events(noise(10)).events == ()
    assert find_audio_events(None).events == () and find_audio_events(np.zeros(100, np.float32)).events == ()


def test_a_sound_that_fills_the_video_is_one():
    assert find_audio_events(tone(440, 10)).events == ((0.0, 10.0),)
    assert find_audio_events(tone(440, 9.97)).events == ((0.0, 9.97),)


def test_descriptors_have_a_row_a_step():
    sound = tone(440, 1.26)
    assert mfcc_rows(sound).shape == (12, 20) and mel_power(sound).shape == (12, 40) and loudness(sound).shape == (12,)
    assert mfcc_rows(sound[:100]).shape == (0, 20)
    embed = TimbreEmbedder()
    points = embed([sound, 0.9 * sound, noise(1, 0.1), sound[:500]])
    assert points.shape == (4, 40) and np.isfinite(points).all()
    assert np.linalg.norm(points[0] - points[1]) < 0.3 < np.linalg.norm(points[0] - points[2])


def test_stretches_that_are_worked_through_apart_are_the_same(monkeypatch):
    from longvale.annotation.boundaries import descriptors

    sound = mixed(6, (1, tone(440, 3)))
    whole = mel_power(sound)
    monkeypatch.setattr(descriptors, "_STEPS_AT_ONCE", 17)
    inner = np.delete(mel_power(sound), [0, 16, 17, 33, 34, 50, 51], axis=0)  # windows at the seams see no further
    np.testing.assert_allclose(inner, np.delete(whole, [0, 16, 17, 33, 34, 50, 51], axis=0), rtol=1e-4, atol=1e-6)
