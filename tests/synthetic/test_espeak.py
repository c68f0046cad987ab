"""espeak-ng's voice: pitch, rate, languages, the same whatever was said before, clear errors."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from longvale.synthetic import espeak

RATE = 16000


def pitch(sound):
    """Frequency in Hz, 70 to 300, at which tenths of a second mostly repeat best."""
    frames = sound[: len(sound) // 1600 * 1600].reshape(-1, 1600)
    frames = frames[np.abs(frames).max(axis=1) > 0.3]
    likeness = np.fft.irfft(np.abs(np.fft.rfft(frames, 3200, axis=1)) ** 2, axis=1)
    first, last = RATE // 300, RATE // 70
    return np.median(RATE / (first + likeness[:, first:last].argmax(axis=1)))


def test_pitch_and_rate_are_those_asked_for():
    low, high = (espeak.say("Oh, where are you now?", RATE, steps) for steps in (20, 90))
    assert low.dtype == np.float32 and np.abs(low).max() == 1
    assert pitch(high) == pytest.approx(148, abs=10) and pitch(low) == pytest.approx(77, abs=10)
    assert len(espeak.say("Oh, where are you now?", 8000, 20)) == pytest.approx(len(low) / 2, abs=1)


def test_a_sentence_sounds_the_same_whatever_was_said_before():
    first = espeak.say("Wait!")
    espeak.say("Nobody told me that the road was closed.")
    np.testing.assert_array_equal(espeak.say("Wait!"), first)


def test_languages_differ():
    words = "die Katze trinkt"
    assert len(espeak.say(words, language="de")) != len(espeak.say(words, language="en"))


@pytest.mark.parametrize(
    ("text", "language", "reason"),
    [("hello", "xx-none", "it has no voice for 'xx-none'"), ("", "en", "it holds no words"), (" ", "en", "no words")],
)
def test_what_cannot_be_said_is_named(text, language, reason):
    with pytest.raises(ValueError, match=f"espeak-ng cannot say {text!r}: .*{reason}"):
        espeak.say(text, language=language)


def test_a_missing_package_or_broken_library_is_named(tmp_path, monkeypatch):
    library = tmp_path / "libespeak-ng.so"
    library.write_bytes(b"no library")
    broken = SimpleNamespace(get_library_path=lambda: str(library), get_data_path=lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "espeakng_loader", broken)
    with pytest.raises(ValueError, match=r"espeak-ng cannot say 'hello': OSError: .*libespeak-ng.so"):
        espeak.say("hello")
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ValueError, match=r"pip install 'longvale\[voice\]'"):
        espeak.say("hello")
