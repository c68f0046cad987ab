"""What is measured of a stretch of video, against signals of which it is known."""

from pathlib import Path

import numpy as np
import pytest

from longvale.annotation.clip_reader import ClipReader
from longvale.annotation.measurements import measure

RATE = 16_000


def heard(sound, speech=()):
    reader = ClipReader(Path("x.mp4"), len(sound) / RATE, None, np.empty(0), sound.astype(np.float32))
    return measure(reader, 0.0, reader.duration, speech)


def seen(*frames):
    """Frames of one colour each, five a second."""
    pictures = np.array([np.full((48, 48, 3), colour) for colour in frames], np.uint8)
    reader = ClipReader(Path("x.mp4"), len(frames) / 5, pictures, (np.arange(len(frames)) + 0.5) / 5, None)
    return measure(reader, 0.0, reader.duration)


def tone(hz, level, seconds=3):
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)


@pytest.mark.parametrize("hz", [110, 440, 900])
def test_a_tone(hz):
    found = heard(tone(hz, 0.1))
    assert found.pitch_hz == pytest.approx(hz, rel=0.03) and found.centroid_hz == pytest.approx(hz, rel=0.01)
    assert found.loudness_db == pytest.approx(-23.0, abs=0.1) and found.loudness_word == "clear"


def test_noise_has_no_pitch():
    found = heard(0.01 * np.random.default_rng(0).standard_normal(3 * RATE))
    assert found.pitch_hz is None and found.centroid_hz == pytest.approx(4000, rel=0.02)
    assert found.loudness_db == pytest.approx(-40.0, abs=0.1)


def test_speech_is_the_share_of_its_turns():
    assert heard(tone(200, 0.1, 4), [(0.0, 1.0), (3.0, 9.0)]).voiced == 0.5
    assert heard(tone(200, 0.1, 4)).voiced == 0.0


@pytest.mark.parametrize("level", [-59.96, -60.04, -60.06, -60.2])
def test_what_is_nearly_silent_is_told_or_not_but_never_half(level):
    noise = np.random.default_rng(0).standard_normal(3 * RATE)
    found = heard(10 ** (level / 20) * noise / np.sqrt((noise**2).mean()))
    assert found.silent == (found.centroid_hz is None) == (level < -60.05)


def test_silence_and_what_is_not_there():
    found = heard(np.zeros(RATE))
    assert found.silent and found.pitch_hz is None and found.centroid_hz is None and found.brightness is None
    assert seen((0, 0, 0)).loudness_db is None and seen((0, 0, 0)).silent


@pytest.mark.parametrize(
    ("colour", "name", "brightness"),
    [((255, 0, 0), "red", 0.333), ((0, 0, 0), "black", 0), ((255,) * 3, "white", 1), ((40, 60, 200), "blue", 0.392)],
)
def test_a_still_picture(colour, name, brightness):
    found = seen(colour, colour, colour)
    assert (found.colours, found.motion, found.motion_word) == ((name,), 0.0, "still")
    assert found.brightness == pytest.approx(brightness, abs=1e-3)


def test_motion_is_the_mean_change_of_a_pixel():
    found = seen((0, 0, 0), (30, 30, 30), (0, 0, 0))
    assert (found.motion, found.motion_word) == (30.0, "lively")
