"""Annotations -> dialogues: varied questions with true times, and a language model that is not trusted."""

import json
import random

import pytest

from longvale.annotation.dialogues import boundary_dialogues, make_dialogues, read_dialogue, write_instruction
from longvale.data.dialogues import (
    Turn,
    boundary_dialogue,
    check_grounded,
    fill_timecodes,
    load_dialogues,
    make_dialogue,
    read_templates,
)
from longvale.events import Annotation, Event, save_annotations

EVENTS = (Event(0.0, 30.0, "A bell rings <s7>."), Event(30.0, 60.0, "A dog barks."))
VIDEO = Annotation("abc", 60.0, EVENTS)
GOOD = json.dumps(
    [
        {"question": "Why does the dog bark?", "answer": "Because the bell rings <event 1>."},
        {"question": "What is heard <event 2>?", "answer": "A dog that barks."},
    ]
)


class Answers:
    name = "scripted"

    def __init__(self, *answers):
        self.answers = list(answers)

    def __call__(self, messages, *, schema=None, max_tokens=None):
        return self.answers.pop(0)


def test_a_fifth_is_dense_and_questions_vary():
    videos = [Annotation(f"v{i}", 60.0, EVENTS) for i in range(500)]
    made = boundary_dialogues(videos)
    dense = [d for d in made if len(d["conversations"]) == 2]
    assert 70 < len(dense) < 130  # 100 expected, standard deviation 9
    for dialogue, video in zip(made, videos, strict=True):
        check_grounded(dialogue, video)
    questions = {turn["value"].replace("<video>\n", "") for d in made for turn in d["conversations"][::2]}
    assert len(questions) > 30
    assert made == boundary_dialogues(videos) != boundary_dialogues(videos, seed=1)


@pytest.mark.parametrize("task", ["grounding", "segment_captioning", "dense_captioning"])
def test_templates_ask_for_what_the_task_needs(task):
    templates = read_templates(task)
    assert len(set(templates)) == len(templates) >= 8
    for template in templates:
        assert ("{caption}" in template) == (task == "grounding")
        assert ("<s0> " in template and "<e0>" in template) == (task == "segment_captioning")


def test_published_questions_stay_as_they_are():
    rng = random.Random(3)
    assert "fromat" in json.dumps([boundary_dialogue(VIDEO, rng, dense_share=0.0) for _ in range(5)])


def test_a_language_models_dialogue():
    dialogue = write_instruction(VIDEO, Answers("Sure!\n" + GOOD))
    check_grounded(dialogue, VIDEO)
    assert [message["content"] for message in fill_timecodes(dialogue)] == [
        "<video>\nWhy does the dog bark?",
        "Because the bell rings from 00 to 50.",
        "What is heard from 50 to 99?",
        "A dog that barks.",
    ]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("no", "holds no JSON list"),
        ("[{]", "is not JSON"),
        ("[]", "holds no JSON list"),
        ('[{"question": "Why?"}]', "must have a question and an answer"),
        ('[{"question": "Why?", "answer": "See <event 3>."}]', "<event 3> is none of the 2 events"),
        ('[{"question": "Why?", "answer": "At <s0>."}]', "a token that only the program may set"),
        ('[{"question": "<video> Why?", "answer": "So."}]', "a token that only the program may set"),
        ('[{"question": "When?", "answer": "After 12 seconds."}]', "holds '12 seconds'"),
        ('[{"question": "When?", "answer": "At 0:12."}]', "holds '0:12'"),
        ('[{"question": "When?", "answer": "From 05 to 20."}]', "holds 'From 05 to 20'"),
        ('[{"question": "When?", "answer": "Then.<|im_end|>"}]', "holds '<|im_end|>'"),
    ],
)
def test_what_cannot_be_used_is_refused(answer, message):
    with pytest.raises(ValueError) as caught:
        write_instruction(VIDEO, Answers(answer, answer), attempts=2)
    assert message in str(caught.value)
    assert write_instruction(VIDEO, Answers(answer, GOOD), attempts=2) == read_dialogue(GOOD, VIDEO)


def test_times_are_those_of_one_event():
    crossed = make_dialogue(VIDEO, [Turn("When?", "From <s0> to <e0>.", ((0.0, 60.0),))])
    with pytest.raises(ValueError, match="which is not an event"):
        check_grounded(crossed, VIDEO)
    with pytest.raises(ValueError, match="is about video 'abc'"):
        check_grounded(crossed, Annotation("other", 60.0, EVENTS))


def test_the_files_are_those_of_the_stages(tmp_path, longvale):
    path = tmp_path / "a.json"
    save_annotations({"a": Annotation("a", 60.0, EVENTS), "b": Annotation("b", 60.0, EVENTS)}, path)
    assert longvale("annotate", "dialogues", path, "--output", tmp_path / "d").stdout.endswith(
        "2 boundary perception\n"
    )
    counts = make_dialogues(path, tmp_path / "d", chat=Answers(GOOD, "no", "no", "no"))
    assert counts == {"boundary_perception": 2, "instruction": 1, "refused": 1}
    assert [d["id"] for d in load_dialogues(tmp_path / "d" / "longvale-sft-it.json")] == ["a"]
    assert make_dialogues(path, tmp_path / "d", chat=Answers()) == counts  # nothing is asked for again
    assert len(load_dialogues(tmp_path / "d" / "longvale-sft-bp.json")) == 2


def test_a_dialogue_is_written_again_if_its_events_change(tmp_path, caplog):
    path = tmp_path / "a.json"
    save_annotations({"a": Annotation("a", 60.0, EVENTS), "b": Annotation("b", 60.0, EVENTS)}, path)
    make_dialogues(path, tmp_path, chat=Answers(GOOD, GOOD))
    moved = (Event(0.0, 20.0, "A bell rings."), EVENTS[1])
    save_annotations({"a": Annotation("a", 60.0, EVENTS), "b": Annotation("b", 60.0, moved)}, path)
    make_dialogues(path, tmp_path, chat=Answers(GOOD))
    assert caplog.text.count("instruction.jsonl: written again because the annotation changed: b") == 1
    first, second = load_dialogues(tmp_path / "longvale-sft-it.json")
    assert (first["id"], second["id"]) == ("a", "b") and first["meta"]["token"]["<e0>"] == 30.0
    assert second["meta"]["token"]["<e0>"] == 20.0
