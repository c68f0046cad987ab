"""Whether a seen fact names what makes a sound."""

import pytest

from longvale.annotation.facts.fact import Fact
from longvale.annotation.facts.sound_sources import named_source


@pytest.mark.parametrize(("sound", "seen", "makers", "number"), [
    ("Bark", "A dog runs.", (), 1),
    ("Bark", "A cat sleeps.", (), 0),
    ("Siren", "An empty street.", (), 0),
    ("Violin, fiddle", "A woman plays a violin.", (), 1),
    ("Frying (food)", "Eggs in a pan.", (), 0),
    ("Frying (food)", "Eggs in a pan.", ("pan", "oil"), 1),
    ("Bird vocalization, bird call", "A man calls a friend.", (), 0),
])  # fmt: skip
def test_the_source_is_named_or_not(sound, seen, makers, number):
    heard = Fact("audio", "sounds", sound, 0, 5)
    assert named_source([Fact("visual", "video", seen, 0, 5), heard], heard, makers) == number


def test_words_on_the_screen_are_no_thing_that_is_seen():
    heard = Fact("audio", "sounds", "Dog", 0, 5)
    assert named_source([Fact("visual", "text", "Dog food", 0, 5), heard], heard) == 0
