"""Silence, loudness, sounds and voices, of sounds of which they are known."""

from pathlib import Path

import numpy as np
import pytest

from longvale.annotation.clip_reader import ClipReader
from longvale.annotation.facts import heard
from longvale.annotation.facts.fact import Fact
from longvale.annotation.facts.heard import find_heard, find_spoken
from longvale.annotation.tracks import Span

RATE = 16_000


def noise(level, seconds, seed=0):
    return level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def reader_of(*pieces):
    sound = np.concatenate(pieces).astype(np.float32)
    return ClipReader(Path("x.mp4"), len(sound) / RATE, None, np.empty(0), sound)


def found(reader, tracks=None, spoken=()):
    return [
        (f.source, f.text, round(f.start, 1), round(f.end, 1))
        for f in find_heard(reader, 0.0, reader.duration, tracks or {}, spoken)
    ]


def test_silence_has_times():
    assert found(reader_of(np.zeros(5 * RATE))) == [("silence", "silence", 0.0, 5.0)]
    facts = found(reader_of(np.zeros(3 * RATE), noise(0.05, 5)))
    assert facts == [("silence", "silence", 0.0, 3.0), ("sound", "steady noise", 3.0, 8.0)]
    assert [f for f in found(reader_of(noise(0.05, 3), np.zeros(RATE // 2), noise(0.05, 3))) if f[0] == "silence"] == []


def test_no_sound_track_is_not_silence():
    reader = ClipReader(Path("x.mp4"), 4.0, None, np.empty(0), None)
    assert found(reader) == [("silence", "there is no sound", 0.0, 4.0)]


def test_pauses_of_speech_are_not_silence():
    voice = [Fact("speech", "voices", "somebody speaks", 0.0, 3.0)]
    reader = reader_of(noise(0.05, 3), np.zeros(2 * RATE), noise(0.05, 3))
    assert found(reader, spoken=voice)[0][0] != "silence"
    assert found(reader)[0] == ("silence", "silence", 3.0, 5.0)


@pytest.mark.parametrize(
    ("sound", "text"),
    [
        (0.03 * np.sin(2 * np.pi * 440 * np.arange(4 * RATE) / RATE), "steady tone"),
        (noise(0.03, 4), "steady noise"),
        (noise(0.002, 4) * np.repeat([1, 4, 1, 4], RATE), "quiet sound"),
        (noise(0.3, 4) * np.repeat([1, 0.2, 1, 0.2], RATE), "loud sound"),
    ],
)
def test_what_is_said_of_a_sound_without_a_label(sound, text):
    assert [f[:2] for f in found(reader_of(sound)) if f[0] == "sound"] == [("sound", text)]


def test_a_label_replaces_it_and_no_sound_is_not_a_sound():
    reader = reader_of(noise(0.05, 4))
    tracks = {"sounds": [Span(0.0, 4.0, "Rain", 0.8), Span(0.0, 4.0, "Inside, small room", 0.9)]}
    assert found(reader, tracks) == [("sounds", "Rain", 0.0, 4.0)]


def test_speech_is_named_once():
    tracks = {"sounds": [Span(0.0, 4.0, "Speech", 0.9), Span(0.0, 4.0, "Music", 0.8)]}
    voice = [Fact("speech", "voices", "somebody speaks", 0.0, 4.0)]
    assert found(reader_of(noise(0.05, 4)), tracks, voice) == [("sounds", "Music", 0.0, 4.0)]
    assert len(found(reader_of(noise(0.05, 4)), tracks)) == 2


@pytest.mark.parametrize(("until", "texts"), [(2.0, []), (0.5, ["sound"])])
def test_the_sound_of_a_voice_is_not_another_sound(until, texts):
    voice = [Fact("speech", "voices", "somebody speaks", 0.0, until)]
    facts = found(reader_of(noise(0.05, 2), np.zeros(2 * RATE)), spoken=voice)
    assert [text for source, text, *_ in facts if source == "sound"] == texts


@pytest.mark.parametrize(("before", "after", "text"), [(0.01, 0.1, "louder"), (0.1, 0.01, "quieter")])
def test_a_lasting_change_of_loudness(before, after, text):
    facts = found(reader_of(noise(before, 10), noise(after, 10)))
    assert ("loudness", text, 10.0, 20.0) in facts


def test_loudness_that_comes_and_goes_is_not_a_change():
    pieces = [noise(level, 2, seed) for seed, level in enumerate([0.1, 0.01] * 5)]
    assert not [f for f in found(reader_of(*pieces)) if f[0] == "loudness"]


@pytest.mark.parametrize(("probability", "sounds", "voices"), [
    (0.8, [], 1), (0.2, [], 0), (0.2, [Span(0.0, 4.0, "Male speech, man speaking", 0.7)], 1),
    (0.2, [Span(0.0, 4.0, "Music", 0.9)], 0),
])  # fmt: skip
def test_a_turn_is_a_voice_if_the_sound_as_it_is_or_the_tagger_agrees(monkeypatch, probability, sounds, voices):
    monkeypatch.setattr(heard, "voice_probability", lambda sound: probability)
    facts = find_spoken(reader_of(noise(0.05, 6)), 0.0, 6.0, [(0.5, 4.0), (5.0, 5.2)], {"sounds": sounds})
    assert [(f.source, f.start, f.end) for f in facts] == [("voices", 0.5, 4.0)] * voices


def test_noise_and_silence_are_not_voices():
    pytest.importorskip("silero_vad")
    for sound in (noise(0.05, 4), np.zeros(4 * RATE), np.zeros(100)):
        reader = reader_of(sound)
        assert find_spoken(reader, 0.0, reader.duration, [(0.0, reader.duration)], {}) == []


def test_speakers_and_words():
    tracks = {
        "speakers": [Span(0.0, 2.0, "speaker 1", 0.9)],
        "transcript": [Span(0.0, 2.0, "Good evening.", 0.8, "speaker 1"), Span(2.0, 3.0, "")],
    }
    facts = find_spoken(reader_of(noise(0.05, 4)), 0.0, 4.0, [], tracks)
    assert [(f.source, f.text, f.speaker) for f in facts] == [
        ("speakers", "speaker 1", ""), ("transcript", "Good evening.", "speaker 1"),
    ]  # fmt: skip
