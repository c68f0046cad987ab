"""Each check of a claim: what it finds, and what it leaves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvale.annotation.facts.claims import unsupported
from longvale.annotation.facts.fact import Fact
from longvale.annotation.facts.sentences import plain


def fact(modality, source, text, speaker=""):
    return Fact(modality, source, text, 12.0, 31.0, speaker=speaker)


FACTS = [
    fact("visual", "video", "A man in a suit stands at a lectern."),
    fact("visual", "text", "STATEMENT ON IRAN"),
    fact("visual", "shots", "three shots"),
    fact("audio", "sounds", "Siren"),
    fact("audio", "sounds", "Applause"),
    fact("speech", "speakers", "speaker 1"),
    fact("speech", "transcript", "Good evening, my fellow Americans.", "speaker 1"),
]


@pytest.mark.parametrize("caption", [
    "A man in a suit stands at a lectern.",
    "A person stands at the lectern while a siren is heard.",
    'A man stands at a lectern; the words "Statement on Iran" are shown on the screen.',
    'Speaker 1 says: "Good evening, my fellow Americans."',
    "Three shots of a man, with applause from 0:12 to 0:31.",
    "Someone speaks, then people are applauding.",
    "A siren can be heard but not seen.",
    "The picture shows a man, accompanied by applause.",
    "A man is seen, and applause.",
    "He speaks in front of a lectern.".replace("in front of", "at"),
])  # fmt: skip
def test_what_facts_support(caption):
    assert unsupported(caption, FACTS) == []


@pytest.mark.parametrize(("caption", "problem"), [
    ("A man stands at a lectern near a flag.", "no fact has: flag"),
    ("A tired man stands at a lectern.", "no fact has: tired"),
    ("Two men stand at a lectern.", "no fact has: two, men"),
    ("Four shots of a man.", "no fact has: four"),
    ("She stands at a lectern.", "no fact has: she"),
    ("Barack stands at a lectern.", "no fact has: barack"),
    ("Applause from 0:20 on.", "no fact begins or ends at: 0:20"),
    ("A siren is visible.", "only heard, not seen: siren"),
    ("The picture shows a man and a siren.", "only heard, not seen: siren"),
    ("A siren is heard and seen.", "only heard, not seen: siren"),
    ("The lectern is heard.", "only seen, not heard: lectern"),
    ('The words "STATEMENT ON IRAQ" are on the screen.', 'nobody wrote or said: "STATEMENT ON IRAQ"'),
    ('A voice says: "Good night."', 'nobody wrote or said: "Good night."'),
    ("Speaker 2 speaks.", "no such speaker: Speaker 2"),
    ("There is no applause.", "denied, although a fact: applause"),
    ("A man stands without a suit.", "denied, although a fact: suit"),
    ("Silence.", "no fact has: silence"),
])  # fmt: skip
def test_what_facts_do_not_support(caption, problem):
    assert unsupported(caption, FACTS) == [problem]


def test_a_time_on_the_screen_is_a_fact():
    clock = fact("visual", "text", "5:40")
    assert unsupported("The screen shows 5:40.", [clock]) == [] != unsupported("The screen shows 5:41.", [clock])


def test_one_voice_needs_one_speaker():
    two = [fact("speech", "speakers", "speaker 2"), fact("visual", "shots", "three shots")]
    assert unsupported("One voice speaks.", two) == ["no fact has: one voice"]
    assert unsupported("One voice speaks.", [*two, fact("speech", "voices", "one voice speaks")]) == []


def test_the_plain_sentences_are_supported():
    texts = " ".join(plain(FACTS, role, 12.0, 31.0) for role in ("video", "audio", "speech"))
    assert unsupported(texts, FACTS) == []


def test_without_facts_nothing_is_supported():
    assert unsupported("A dog runs.", []) == ["no fact has: dog, runs"]


@given(st.text(max_size=200), st.text(max_size=50))
def test_any_text_is_checked(caption, text):
    unsupported(caption, [fact("visual", "text", text)])


@pytest.mark.parametrize(("caption", "problems"), [
    ("Music plays throughout the video.", ["not throughout: music, plays"]),
    ("A man waves, and music is heard the whole time.", ["not throughout: music"]),
    ("Music plays while rain is heard throughout.", []),
    ("Rain from beginning to end, and music.", []),
    ("Music is heard, then silence.", []),
])  # fmt: skip
def test_only_facts_of_the_whole_event_are_throughout(caption, problems):
    spans = {"Music": (10.0, 22.0), "Rain": (10.0, 30.0)}
    facts = [Fact("audio", "sounds", label, *span) for label, span in spans.items()]
    facts += [Fact("audio", "silence", "silence", 23.0, 25.0), Fact("visual", "video", "A man waves.", 10.0, 30.0)]
    assert unsupported(caption, facts) == problems
