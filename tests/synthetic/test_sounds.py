"""Waveforms: sounds lie where the plan says, differ from each other, and survive AAC."""

import av
import numpy as np
import pytest

from longvale.events import Annotation, Event
from longvale.synthetic.corpus import write_video
from longvale.synthetic.espeak import say
from longvale.synthetic.planning import PULSE_S, SOUNDS, WORDS, Piece, Plan, SyntheticOptions, plan_video
from longvale.synthetic.sounds import render_sound, speak

RATE = 16000
OPTIONS = SyntheticOptions()


def lone(modality, content, relation="audio-only", seed="s"):
    event = Event(5.0, 10.0, "x", (modality,), relation)
    return Plan(Annotation("a", 20.0, (event,)), ((Piece(modality, 5.0, 10.0, content),),), seed)


def loudness(sound, start, end, rate=RATE):
    return np.sqrt(np.mean(sound[round(start * rate) : round(end * rate)] ** 2))


def bands(sound, rate=RATE):
    """Energy in 24 bands of equal width on the logarithmic scale, normalized."""
    power = np.abs(np.fft.rfft(sound)) ** 2
    edges = np.geomspace(40, rate / 2, 25)
    places = np.digitize(np.fft.rfftfreq(len(sound), 1 / rate), edges)
    energy = np.array([power[places == i].sum() for i in range(1, 25)])
    return np.sqrt(energy / energy.sum())


@pytest.mark.parametrize(("modality", "content"), [*(("audio", s) for s in SOUNDS), *(("speech", w) for w in WORDS)])
def test_a_sound_is_heard_during_its_piece_alone(modality, content):
    sound = render_sound(lone(modality, content))
    assert sound.shape == (20 * RATE,)
    assert sound.dtype == np.float32
    assert np.abs(sound).max() <= 0.95
    quiet = max(loudness(sound, 0, 5.0), loudness(sound, 10.0, 20.0))
    assert quiet < 0.003
    assert all(loudness(sound, second, second + 1) > 10 * quiet for second in range(5, 10))


def test_effects_have_distinct_spectra():
    spectra = [bands(render_sound(lone("audio", name))[5 * RATE : 10 * RATE]) for name in SOUNDS]
    likeness = np.array(spectra) @ np.array(spectra).T - np.eye(len(SOUNDS))
    assert likeness.max() < 0.85


def test_words_differ_and_a_voice_says_them_alike():
    def frames(word, pitch):
        sound = speak(word, RATE, pitch)
        return np.array([bands(part) for part in np.array_split(sound, 6)]).ravel() / np.sqrt(6)

    one, other = (np.array([frames(word, pitch) for word in WORDS]) for pitch in (110, 140))
    likeness = one @ other.T
    assert (likeness.argmax(axis=1) == np.arange(len(WORDS))).all()


def test_synchronous_sounds_pulse_with_the_shape():
    sound = render_sound(lone("audio", "whistle", "synchronicity"))
    for beat in np.arange(5.0, 10.0, PULSE_S):
        assert loudness(sound, beat + 0.02, beat + 0.2) > 5 * loudness(sound, beat + 0.7, beat + 0.95)
    steady = render_sound(lone("audio", "whistle"))
    assert loudness(steady, 5.02, 5.2) < 1.2 * loudness(steady, 5.7, 5.95)


def test_pitch_and_voice_vary_with_the_seed_and_repeat_with_it():
    first, again, other = (render_sound(lone("speech", "hello", seed=seed)) for seed in ("a", "a", "b"))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_a_crowded_mix_does_not_clip():
    for index in range(5):
        sound = render_sound(plan_video(f"v{index}", 0, SyntheticOptions(max_length_s=20)))
        assert 0.1 < np.abs(sound).max() <= 0.9500001


def test_unknown_words_are_named():
    with pytest.raises(ValueError, match=r"the formant voice knows hello, .*, not 'perhaps'"):
        speak("perhaps")


def test_espeak_says_what_the_formant_voice_cannot():
    np.testing.assert_array_equal(speak("perhaps", RATE, 160, voice="espeak"), say("perhaps", RATE, 50))
    assert len(speak("perhaps", RATE, 1000, voice="espeak")) == len(say("perhaps", RATE, 99))


def test_the_decoded_video_sounds_during_its_pieces(tmp_path):
    plan = lone("audio", "siren")
    write_video(plan, tmp_path / "a.mp4", SyntheticOptions(size=32))
    with av.open(str(tmp_path / "a.mp4")) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(sound) == pytest.approx(20 * RATE, abs=1024)
    assert loudness(sound, 5.1, 9.9) > 20 * max(loudness(sound, 0.1, 4.9), loudness(sound, 10.1, 19.9))
    np.testing.assert_allclose(
        bands(sound[5 * RATE : 10 * RATE]), bands(render_sound(plan)[5 * RATE : 10 * RATE]), atol=0.1
    )
