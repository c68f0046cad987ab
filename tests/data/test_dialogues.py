"""The official dialogue format: what is accepted, what is refused and how it is named, and timecodes."""

import copy
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvale.data.dialogues import (
    Turn,
    boundary_dialogue,
    check_dialogue,
    fill_timecodes,
    load_dialogues,
    make_dialogue,
    save_dialogues,
    segment_turn,
)
from longvale.events import Annotation, Event
from longvale.tasks import dense_captioning_question, grounding_question, segment_captioning_question

EVENTS = (Event(3.0, 30.0, "A bell rings."), Event(15.0, 45.0, "A dog\nbarks."), Event(45.0, 60.0, "A man sings."))
VIDEO = Annotation("abc", 60.0, EVENTS)
GOOD = {
    "id": "abc",
    "conversations": [{"from": "human", "value": "<video>\nWhen?"}, {"from": "gpt", "value": "From <s0> to <e0>."}],
    "meta": {"duration": 60.0, "split": [0, 20.5], "token": {"<s0>": 3.0, "<e0>": 30}},
}


def changed(path, value):
    dialogue = copy.deepcopy(GOOD)
    target = dialogue
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return dialogue


def test_files_round_trip(tmp_path):
    path = tmp_path / "longvale-sft-it.json"
    no_times = {
        "id": "é",
        "source": "x",
        "conversations": [GOOD["conversations"][0], {"from": "gpt", "value": "No."}],
    }
    save_dialogues([GOOD, no_times], path)
    assert load_dialogues(path) == [GOOD, no_times]
    assert fill_timecodes(load_dialogues(path)[1])[1] == {"role": "assistant", "content": "No."}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["id"], 3, "field 'id' must be a text that is not empty, not 3"),
        (["conversations"], [], "field 'conversations' must be a list of turns"),
        (["conversations", 0], "hello", "turn 0 must be an object"),
        (["conversations", 0, "from"], "gpt", "turn 0 must be from 'human', not 'gpt'"),
        (["conversations", 1, "from"], "human", "turn 1 must be from 'gpt', not 'human'"),
        (["conversations", 1, "value"], None, "turn 1: field 'value' must be a text, not None"),
        (["conversations", 0, "value"], "<video> or <image>?", "turn 0 holds a second <image>"),
        (["conversations", 0, "value"], "When?", None),
        (["meta"], 60, "field 'meta' must be an object"),
        (["meta", "duration"], 0, "meta.duration must be seconds above 0, not 0"),
        (["meta", "duration"], True, "meta.duration must be seconds above 0, not True"),
        (["meta", "split"], [20, 20], r"meta.split must be \[start, end\] in seconds"),
        (["meta", "token", "<s0>"], "3", "meta.token <s0> must be a finite number of seconds, 0 or more, not '3'"),
        (["meta", "token", "<s0>"], -1, "meta.token <s0> must be a finite number"),
        (["meta", "token"], {"<s0>": 3}, "turn 1 holds <e0>, which is not in meta.token"),
        (["meta", "token"], {"s0": 3}, "meta.token: 's0' is not a time token"),
        (["meta"], None, "turn 1 holds <s0>"),
    ],
)
def test_wrong_dialogues_are_named(tmp_path, path, value, message):
    file = tmp_path / "sft.json"
    file.write_text(json.dumps([GOOD, changed(path, value)]))
    if message is None:
        assert len(load_dialogues(file)) == 2
        return
    with pytest.raises(ValueError, match=rf"sft.json: dialogue 1 \(id ('abc'|3)\): {message}"):
        load_dialogues(file)


def test_media_token_in_a_later_turn_is_refused():
    dialogue = copy.deepcopy(GOOD)
    dialogue["conversations"][0]["value"] = "Hello"
    dialogue["conversations"] += [{"from": "human", "value": "<video> When?"}, {"from": "gpt", "value": "Now."}]
    with pytest.raises(ValueError, match="turn 2 holds <video>; move it to the first turn"):
        check_dialogue(dialogue)
    with pytest.raises(ValueError, match="the last turn must be from 'gpt'"):
        check_dialogue({**GOOD, "conversations": GOOD["conversations"] + GOOD["conversations"][:1]})


@pytest.mark.parametrize(("text", "message"), [("{}", "must be a list"), ("[]", "holds no dialogue"), ("", "empty")])
def test_wrong_files_are_named(tmp_path, text, message):
    file = tmp_path / "sft.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"sft.json: .*{message}"):
        load_dialogues(file)
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        load_dialogues(tmp_path / "none.json")


def test_token_1_is_not_the_begin_of_token_10():
    tokens = {f"<{kind}{i}>": float(i + (kind == "e")) for i in range(12) for kind in "se"}
    dialogue = changed(["meta"], {"duration": 100.0, "token": tokens})
    dialogue["conversations"][1]["value"] = "<s1> <e1> <s10> <e10> <s11> <b2> <s>"
    assert fill_timecodes(dialogue)[1]["content"] == "01 02 10 11 11 <b2> <s>"


def test_timecodes_follow_the_published_code():
    def published(duration, x):
        code = str(min(round(x / duration * 100), 99))
        return code if len(code) == 2 else "0" + code

    for time in (0, 0.3, 0.9, 1.5, 30.9, 59.69, 60, 61):
        dialogue = changed(["meta", "token"], {"<s0>": 0, "<e0>": time})
        assert fill_timecodes(dialogue)[1]["content"] == f"From 00 to {published(60.0, time)}."


def test_a_token_without_a_time_is_refused():
    with pytest.raises(ValueError, match=r"'abc' holds <s0>, which is not in meta\.token"):
        fill_timecodes(changed(["meta"], None))


def test_dense_dialogue_holds_all_events_in_official_form():
    dialogue = boundary_dialogue(VIDEO, random.Random(0), dense_share=1.0)
    check_dialogue(dialogue)
    question, answer = fill_timecodes(dialogue)
    assert question == {"role": "user", "content": dense_captioning_question()}
    assert answer["content"] == "From 05 to 50, A bell rings.\nFrom 25 to 75, A dog barks.\nFrom 75 to 99, A man sings."


@given(st.integers(), st.none() | st.integers(1, 5))
def test_multi_turn_dialogues_ask_official_questions_with_true_answers(seed, turns):
    dialogue = boundary_dialogue(VIDEO, random.Random(seed), dense_share=0.0, turns=turns)
    check_dialogue(dialogue)
    messages = fill_timecodes(dialogue)
    assert len(messages) == 2 * min(turns or 3, 3)
    expected = {}
    for event in EVENTS:
        code = f"From {event.start / 0.6:02.0f} to {min(event.end / 0.6, 99):02.0f}."
        expected[grounding_question(event.caption).removeprefix("<video>").strip()] = code
        expected[segment_captioning_question(event.start, event.end, 60.0).removeprefix("<video>").strip()] = (
            event.caption
        )
    asked = [message["content"].removeprefix("<video>").strip() for message in messages[::2]]
    assert [expected[question] for question in asked] == [message["content"] for message in messages[1::2]]
    assert [message["content"].count("<video>") for message in messages] == [1] + [0] * (len(messages) - 1)
    assert len(dialogue["meta"]["token"]) == len(messages)


def test_a_fifth_of_the_dialogues_is_dense():
    rng = random.Random(0)
    dense = sum(len(boundary_dialogue(VIDEO, rng)["conversations"]) == 2 for _ in range(1000))
    assert 160 < dense < 240  # 200 expected, standard deviation 13


def test_segment_question_holds_tokens_in_place_of_times():
    turn = segment_turn(Event(0.0, 0.2, "A bell rings."), 60.0)
    assert "from <s0> to <e0> in the video" in turn.question
    assert turn.question.count("from") == 1


def test_tokens_are_numbered_throughout():
    turns = [
        Turn("When?", "From <s0> to <e0>.", ((0, 6),)),
        Turn("Hm?", "Yes."),
        Turn("Then?", "<s0> <s1>", ((6, 9), (9, 12))),
    ]
    dialogue = make_dialogue(VIDEO, turns)
    assert dialogue["conversations"][0]["value"] == "<video>\nWhen?"
    assert dialogue["conversations"][-1]["value"] == "<s1> <s2>"
    assert dialogue["meta"]["token"] == {"<s0>": 0, "<e0>": 6, "<s1>": 6, "<e1>": 9, "<s2>": 9, "<e2>": 12}


@pytest.mark.parametrize(("video", "turns"), [(Annotation("abc", 9.0), None), (VIDEO, 0)])
def test_nothing_to_ask(video, turns):
    with pytest.raises(ValueError, match=r"has no event|turns must be 1 or more"):
        boundary_dialogue(video, random.Random(0), turns=turns)
