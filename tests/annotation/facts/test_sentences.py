"""Plain sentences of facts."""

import pytest

from longvale.annotation.facts.fact import Fact, numbered
from longvale.annotation.facts.sentences import MAX_WORDS, plain, quotes, when


def seen(source, text, start=0.0, end=10.0):
    return Fact("visual", source, text, start, end)


def sound(source, text, start=0.0, end=10.0, confidence=None):
    return Fact("audio", source, text, start, end, confidence)


def said(source, text, start=0.0, end=10.0, speaker=""):
    return Fact("speech", source, text, start, end, speaker=speaker)


ONE = seen("shots", "one shot")
FOUR = seen("shots", "four shots")


@pytest.mark.parametrize(("facts", "text"), [
    ([], ""),
    ([ONE], "One shot."),
    ([ONE, seen("camera", "the camera is still")], "One shot; the camera is still."),
    ([ONE, seen("camera", "the picture does not move")], "A picture that does not move."),
    ([FOUR, seen("fade", "fades to black", 8)], "Four shots, the last fades to black."),
    ([ONE, seen("fade", "fades to black", 8)], "One shot that fades to black."),
    ([FOUR, seen("fade", "fades in from black", 0, 2), seen("fade", "fades to black", 8)],
     "Four shots, the first fades in from black and the last fades to black."),
    ([seen("fade", "fades to black", 8)], "A picture that fades to black."),
    ([seen("fade", "the picture is black")], "The picture is black."),
    ([ONE, seen("colour", "red")], "A plain red picture."),
    ([ONE, seen("colour", "red"), seen("text", "EXIT")], 'One shot. The words "EXIT" are on the screen.'),
    ([seen("text", "EXIT", 6)], 'The words "EXIT" are on the screen from 0:06 on.'),
    ([seen("text", "A"), seen("text", "B", 5)], 'The words "A" and "B" are on the screen.'),
    ([seen("text", f"name {n}") for n in range(9)],
     'Much text is on the screen, such as "name 0", "name 1", "name 2" and "name 3".'),
])  # fmt: skip
def test_what_is_seen(facts, text):
    assert plain(facts, "video", 0.0, 10.0) == text


@pytest.mark.parametrize(("facts", "text"), [
    ([sound("silence", "silence")], "Silence."),
    ([sound("silence", "there is no sound")], "There is no sound."),
    ([sound("silence", "silence", 0, 6), sound("sounds", "Music", 6)], "Silence until 0:06. Music from 0:06 on."),
    ([sound("sounds", "Music"), sound("loudness", "louder", 4)], "Music throughout, louder from 0:04."),
    ([sound("sounds", "Music"), sound("sounds", "Applause", 8)], "Music throughout and applause at the end."),
    (
        [sound("sounds", "Music", 0, 1), sound("sounds", "Music", 8), sound("sounds", "Singing", 8)],
        "Music at first and at the end and singing at the end.",
    ),
    ([sound("sounds", "Music"), sound("sounds", "Applause")], "Applause and music throughout."),
    ([sound("sounds", "Dog", 0, 3, 0.9), sound("sounds", "Music")], "Music throughout. Sounds: dog at first."),
    ([sound("sound", "quiet sound", 0, 9)], "Quiet sound throughout."),
    ([sound("loudness", "quieter", 4)], "Quieter from 0:04."),
    ([sound("sounds", "Speech"), said("voices", "somebody speaks")], ""),
])  # fmt: skip
def test_what_is_heard(facts, text):
    assert plain(facts, "audio", 0.0, 10.0) == text


@pytest.mark.parametrize(("facts", "text"), [
    ([said("voices", "somebody speaks", 1)], "Somebody speaks throughout."),
    ([said("voices", "somebody speaks", 0, 2)], "Somebody speaks at first."),
    ([said("speakers", "speaker 1")], "One voice speaks throughout."),
    ([said("speakers", "speaker 1", 0, 6), said("speakers", "speaker 2", 5)],
     "Two voices speak throughout, for a time at once."),
    ([said("speakers", "speaker 1"), said("speakers", "speaker 2", 4, 4.3)], "One voice speaks throughout."),
    ([said("speakers", "speaker 1"), said("transcript", "Hello.", 0, 9, "speaker 1")],
     'One voice speaks throughout: "Hello."'),
    ([said("transcript", "Hello.")], 'A voice says: "Hello."'),
    ([said("transcript", "Hi.", 0, 1, "speaker 1"), said("transcript", "You?", 1, 2, "speaker 1"),
      said("transcript", "Fine.", 2, 3, "speaker 2")], 'Speaker 1 says: "Hi. You?" Speaker 2 says: "Fine."'),
])  # fmt: skip
def test_what_is_said(facts, text):
    assert plain(facts, "speech", 0.0, 10.0) == text


def test_long_speech_is_quoted_in_part():
    (text,) = quotes([said("transcript", " ".join(["word"] * 500))])
    assert text.count("word") == MAX_WORDS and text.endswith(' ..."')


@pytest.mark.parametrize(("spans", "text"), [
    ([(0, 10)], "throughout"), ([(0, 4), (4.5, 10)], "throughout"), ([(0, 2)], "at first"), ([(0, 5)], "until 0:05"),
    ([(8, 10)], "at the end"), ([(4, 10)], "from 0:04 on"), ([(4, 6)], "from 0:04 to 0:06"), ([(4.2, 4.9)], "at 0:04"),
    ([(0, 1), (9, 10)], "at first and at the end"),
    ([(1, 2), (4, 5), (7, 8)], "several times"), ([(0, 3), (5, 8)], "most of the time"),
])  # fmt: skip
def test_times_are_words_where_words_do(spans, text):
    assert when(spans, 0.0, 10.0) == text


def test_times_are_those_of_the_video():
    assert when([(70, 100)], 60.0, 100.0) == "from 1:10 on"


def test_the_key_frame_has_no_sentence_of_its_own():
    assert plain([ONE], "keyframe", 0.0, 10.0) == ""


def test_a_language_model_gets_numbers_times_and_doubts():
    facts = [ONE, seen("text", "EXIT", 2, 4), sound("sounds", "Dog, bark", 0, 10, 0.3), said("transcript", "Hi", 0, 10)]
    assert numbered(facts, 0.0, 10.0).splitlines() == [
        "SEEN:", "1. one shot", '2. the words "EXIT" on the screen (0:02 to 0:04)', "HEARD:", "3. dog (not sure)",
        "SAID:", '4. a voice says: "Hi"',
    ]  # fmt: skip


def test_facts_are_read_as_they_were_written():
    for fact in (ONE, sound("sounds", "Dog", 0, 1, 0.5), said("transcript", "Hi", 0, 1, "speaker 1")):
        assert Fact.from_record(fact.to_record()) == fact
