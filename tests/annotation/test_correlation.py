"""What a language model answers: read, repaired, asked for again, refused."""

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvale.annotation.captions import parts, read_prompt
from longvale.annotation.correlation import (
    Concatenation,
    Evidence,
    LanguageModelReasoner,
    concatenate,
    read_answer,
    without_names,
)
from longvale.annotation.facts import Fact
from longvale.chat_client import NoAnswer

GOOD = {"caption": "A dog jumps while a bark is heard.", "facts": [1, 2]}
EVIDENCE = Evidence(
    3.0, 9.5, {"video": "A dog jumps.", "audio": "A bark is heard.", "speech": ""}, ("visual", "audio"), "A car stops."
)
MAKERS, RELATION = '{"things": ["dog", "seal"]}', '{"number": 2}'


class Answers:
    """A chat that gives these answers and keeps what it was asked."""

    name = "scripted"

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def __call__(self, messages, *, schema=None, max_tokens=None):
        self.limit = max_tokens
        self.asked.append(list(messages))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_good_answer_is_taken_as_it_is():
    chat = Answers(json.dumps(GOOD), MAKERS, RELATION)
    found = LanguageModelReasoner(chat)(EVIDENCE)
    assert found.caption == GOOD["caption"] and found.relations == ("causality",)
    assert found.answers == {"source_visible": "yes", "source": "A dog jumps.", "facts": "1, 2"}
    assert (found.attempts, found.repairs, found.refused, found.unsupported) == (1, (), None, ())
    (question,) = chat.asked[0]
    for told in ("1. A dog jumps.", "2. A bark is heard.", "A car stops.", "SAID:\n(nothing)"):
        assert told in question["content"]
    (question,) = chat.asked[2]
    assert "causality: " in question["content"] and "complementary" not in question["content"]


def test_facts_are_numbered_in_the_question():
    facts = (
        Fact("visual", "video", "A street at night.", 3.0, 9.5),
        Fact("visual", "text", "HOTEL", 3.0, 5.0, 0.3),
        Fact("audio", "sounds", "Siren", 3.0, 9.5, 0.9),
    )
    caption = {"caption": "A street at night, where a siren is heard.", "facts": [1, 3, 9]}
    chat = Answers(json.dumps(caption), '{"things": ["ambulance"]}', '{"number": 1}')
    found = LanguageModelReasoner(chat)(replace(EVIDENCE, facts=facts))
    assert '2. the words "HOTEL" on the screen (0:03 to 0:05, not sure)' in chat.asked[0][0]["content"]
    assert 'this sound: "siren"' in chat.asked[1][0]["content"]
    assert found.answers == {"source_visible": "no", "source": "", "facts": "1, 3"}
    assert found.relations == ("complementary",)


def test_what_makes_a_sound_is_asked_once():
    chat = Answers(json.dumps(GOOD), MAKERS, RELATION, json.dumps(GOOD), RELATION)
    write = LanguageModelReasoner(chat)
    assert write(EVIDENCE).relations == write(EVIDENCE).relations


@pytest.mark.parametrize("answer", ["none of them", '{"number": 7}', NoAnswer("only reasoning")])
def test_without_a_usable_relation_the_first_possible_one_holds(answer):
    assert LanguageModelReasoner(Answers(json.dumps(GOOD), MAKERS, answer))(EVIDENCE).relations == ("synchronicity",)


def test_without_what_is_seen_the_source_is_unknown_and_not_asked_for():
    heard = Evidence(0, 5, {"audio": "A piano.", "speech": "Hello"}, ("audio", "speech"))
    found = LanguageModelReasoner(Answers('{"caption": "A piano is heard.", "facts": [1]}'))(heard)
    assert found.answers["source_visible"] == "unknown" and found.relations == ("audio-only",)


@pytest.mark.parametrize(
    ("answer", "repair"),
    [
        ("Sure, here it is:\n```json\n" + json.dumps(GOOD) + "\n```", "text around the object"),
        (json.dumps({**GOOD, "facts": "1 and 2"}), "facts was a text"),
        (json.dumps({"caption": GOOD["caption"]}), "facts was missing"),
    ],
)
def test_what_has_one_meaning_is_repaired(answer, repair):
    found, repairs = read_answer(answer)
    assert found["facts"] == ([] if "missing" in repair else [1, 2]) and found["caption"] == GOOD["caption"]
    assert repairs == [repair]


def test_a_caption_that_invents_is_asked_for_again_with_the_reason():
    chat = Answers('{"caption": "A sad dog jumps.", "facts": [1]}', json.dumps(GOOD), MAKERS, RELATION)
    found = LanguageModelReasoner(chat)(EVIDENCE)
    assert found.caption == GOOD["caption"] and found.attempts == 2 and not found.replaced
    assert found.unsupported == ("no fact has: sad",) and found.first == "A sad dog jumps."
    assert [message["role"] for message in chat.asked[1]] == ["user", "assistant", "user"]
    assert "no fact has: sad" in chat.asked[1][2]["content"]


def test_one_that_always_invents_is_replaced_by_the_plain_sentences():
    captions = ["A siren is visible.", "There is a siren.", "A siren."]
    chat = Answers(*(json.dumps({"caption": caption, "facts": [1]}) for caption in captions), MAKERS, RELATION)
    found = LanguageModelReasoner(chat)(EVIDENCE)
    assert found.caption == "A dog jumps. A bark is heard." and found.replaced and found.refused is None
    assert found.attempts == 3 and found.unsupported == ("no fact has: siren",) * 3
    assert found.answers["source_visible"] == "yes" and found.relations == ("causality",)


def test_one_that_repeats_itself_is_not_asked_a_third_time():
    chat = Answers(*['{"caption": "A siren is visible.", "facts": [1]}'] * 2, MAKERS, RELATION)
    found = LanguageModelReasoner(chat)(EVIDENCE)
    assert found.attempts == 2 and found.replaced and found.caption == "A dog jumps. A bark is heard."


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("", "it holds no JSON object"),
        ("I cannot do that.", "it holds no JSON object"),
        ('{"caption": "A dog', "it is not JSON"),
        ('{"facts": [1]}', "field 'caption' is missing"),
        (json.dumps({**GOOD, "caption": " "}), "field 'caption' must be a text that is not empty"),
        (json.dumps({**GOOD, "caption": "x" * 601}), "has 601 characters, more than 600"),
        (json.dumps({**GOOD, "caption": "A dog. <|im_end|>"}), "holds a token of the prompt"),
        ("[" * 100_000, "it holds no JSON object"),
        ('{"a":' * 100_000, "it is not JSON"),
    ],
)
def test_what_cannot_be_used_is_said(answer, problem):
    with pytest.raises(ValueError, match=problem):
        read_answer(answer)


@given(
    st.text()
    | st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
        json.dumps
    )
)
def test_any_text_is_read_or_refused(text):
    try:
        found, _ = read_answer(text)
    except ValueError:
        return
    assert found["caption"] and all(isinstance(number, int) for number in found["facts"])


def test_a_bad_answer_is_asked_for_again_with_the_reason():
    chat = Answers("no idea", json.dumps(GOOD), MAKERS, RELATION)
    found = LanguageModelReasoner(chat)(EVIDENCE)
    assert found.attempts == 2 and found.refused is None
    assert [message["role"] for message in chat.asked[1]] == ["user", "assistant", "user"]
    assert "it holds no JSON object" in chat.asked[1][2]["content"]


def test_an_event_that_gets_no_answer_is_concatenated_and_says_why():
    found = LanguageModelReasoner(Answers("no", "No.", "never"), attempts=3)(EVIDENCE)
    assert found.caption == "A dog jumps. A bark is heard." and found.relations == ()
    assert found.refused == "it holds no JSON object" and found.attempts == 3


def test_names_of_people_are_removed_unless_they_are_kept():
    text = "Then Dr. Jane Miller waves at Barack Obama in Paris."
    named = replace(EVIDENCE, captions={**EVIDENCE.captions, "video": text})
    answers = [json.dumps({"caption": text, "facts": [1]}), MAKERS, RELATION]
    assert LanguageModelReasoner(Answers(*answers))(named).caption == "Then a person waves at a person in Paris."
    kept = LanguageModelReasoner(Answers(*answers), remove_names=False)(named)
    assert "Jane Miller" in kept.caption
    written = Evidence(0, 1, {"keyframe": "A sign reads Grand Hotel."}, ())
    assert without_names("A man leaves the Grand Hotel.", written) == "A man leaves the Grand Hotel."
    said = 'Then John Pearce says: "Hi, I am John Pearce."'
    assert without_names(said, written) == 'Then a person says: "Hi, I am John Pearce."'
    read = Evidence(0, 1, {}, (), facts=(Fact("visual", "text", "Grand Hotel", 0, 1),))
    assert without_names("A man leaves the Grand Hotel.", read) == "A man leaves the Grand Hotel."


def test_without_reasoning_captions_are_put_together():
    assert Concatenation()(EVIDENCE).caption == concatenate(EVIDENCE) == "A dog jumps. A bark is heard."
    only = Evidence(0, 1, {"audio": "It hums."}, ("audio",))
    assert Concatenation()(only).relations == ("audio-only",)
    assert concatenate(Evidence(0, 1, {}, ())) == "Nothing can be seen or heard."


@pytest.mark.parametrize(
    ("captions", "modalities", "caption", "relations"),
    [
        ({"video": "A dog.", "keyframe": "A red dog."}, ("visual",), "A dog. A red dog.", ("visual-only",)),
        ({"audio": "A bark."}, ("audio",), "A bark.", ("audio-only",)),
        ({"speech": "Hello", "video": " "}, ("speech",), "Hello.", ("audio-only",)),
        # Perceived in two, told in one: the other captioner had nothing to say.
        ({"video": "A dog.", "audio": ""}, ("visual", "audio"), "A dog.", ()),
        # Told in two, perceived in one: a captioner says that it is quiet.
        ({"video": "A dog.", "audio": "Silence."}, ("visual",), "A dog.", ("visual-only",)),
        # Perceived in one that nothing is told of.
        ({"video": "", "audio": "A bark."}, ("visual",), "A bark.", ("visual-only",)),
        ({"video": "Then Dr. Jane Miller waves."}, ("visual",), "Then a person waves.", ("visual-only",)),
        ({}, ("visual", "audio"), "Nothing can be seen or heard.", ()),
    ],
)
def test_events_of_one_modality_are_not_asked_about(captions, modalities, caption, relations):
    found = LanguageModelReasoner(Answers())(Evidence(0, 5, captions, modalities))
    assert (found.caption, found.relations, found.attempts, found.refused) == (caption, relations, 0, None)


def test_events_of_two_modalities_are():
    chat = Answers('{"caption": "A piano.", "facts": [1]}')
    heard = Evidence(0, 5, {"audio": "A piano.", "speech": "Hello"}, ("audio", "speech"))
    assert LanguageModelReasoner(chat)(heard).attempts == 1 and chat.limit == 256


def test_a_model_that_answers_nothing_is_not_asked_the_same_again():
    found = LanguageModelReasoner(Answers(NoAnswer("m: only reasoning; raise the longest answer")))(EVIDENCE)
    assert found.refused == "m: only reasoning; raise the longest answer" and found.attempts == 1
    assert found.caption == "A dog jumps. A bark is heard."


def test_the_name_says_what_changes_captions():
    """It is compared before captions of an earlier run are taken."""
    options = ({}, {"attempts": 2}, {"remove_names": False}, {"attempts": 2, "remove_names": False})
    names = [LanguageModelReasoner(Answers(), **some).name for some in options]
    assert names[0] == "scripted" and len(set(names)) == len(names)


@pytest.mark.timeout(60)  # each brace may be where the object begins
@pytest.mark.parametrize("unit", ['{"a":', '{"a":[', "{", '{"a": "'])
def test_long_answers_are_read_in_bounded_time(unit):
    with pytest.raises(ValueError, match="it is not JSON"):
        read_answer(unit * 2_000_000)


def test_prompts_are_files_of_the_package():
    assert "{problem}" in read_prompt("retry")
    with pytest.raises(FileNotFoundError):
        read_prompt("none")


@pytest.mark.parametrize("length", [0.5, 30.0, 30.1, 95.0])
def test_long_events_are_cut_into_parts_that_cover_them(length):
    found = parts(2.0, 2.0 + length)
    assert found[0][0] == 2.0 and found[-1][1] == 2.0 + length
    assert all(b - a <= 30.001 for a, b in found)
    assert all(first[1] == second[0] for first, second in itertools.pairwise(found))
