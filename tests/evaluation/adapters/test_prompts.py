import time

import pytest

from longvale.evaluation.adapters.base import Adapter
from longvale.evaluation.adapters.media import RawVideos
from longvale.evaluation.adapters.prompts import read_reply, word_question
from longvale.evaluation.adapters.time_formats import PercentFormat, SecondsFormat, TimeFormat
from longvale.events import Annotation, Event
from longvale.models.media import Media
from longvale.registry import time_formats
from longvale.tasks import Question, questions
from longvale.timecodes import parse_events, parse_span

VIDEO = Annotation("v", 200.0, (Event(10, 50, "A Bell rings."), Event(60.5, 100, "A dog barks at $5 & 10%.")))
GROUNDING = Question("v", "grounding", 0, "", "")
DENSE = Question("v", "dense_captioning", None, "", "")
SECONDS, PERCENT = SecondsFormat(), PercentFormat()


@pytest.mark.parametrize("unit", ["seconds", "percent"])
def test_all_questions_have_words(unit):
    times = time_formats.create(unit)
    for question in questions(VIDEO):
        text = word_question(question, {"v": VIDEO}, times)
        assert "<video>" not in text and "$duration" not in text and "$start" not in text
        assert ("200.0 seconds" in text) == (unit == "seconds")
    segment = word_question(Question("v", "segment_captioning", 1, "", ""), {"v": VIDEO}, times)
    assert ("from 60.5 to 100.0 seconds" if unit == "seconds" else "from 30% to 50%") in segment
    assert "a dog barks at $5 & 10%?" in word_question(
        Question("v", "grounding", 1, "", ""), {"v": VIDEO}, time_formats.create(unit)
    )


def test_zero_shot_questions_are_asked_as_they_are():
    asked = Question("m", "music_avqa", 3, "<video>\nIs it loud?\nAnswer with a single word.", "yes")
    assert word_question(asked, {}, SECONDS) == "Is it loud?\nAnswer with a single word."
    assert read_reply(asked, " Yes. ", 10.0, SECONDS) == "Yes."


@pytest.mark.parametrize(
    ("reply", "unit", "span"),
    [
        ("From 10.0 to 50.0 seconds.", "seconds", (5, 25)),
        ("The bell rings between 10s and 50s", "seconds", (5, 25)),
        ("00:10 - 00:50", "seconds", (5, 25)),
        ("from 0:10.5 until 1:30", "seconds", (5, 45)),
        ("0:00:10 to 0:00:50", "percent", (5, 25)),
        ("From 05% to 25%.", "percent", (5, 25)),
        ("5 to 25", "percent", (5, 25)),
        ("5% – 25 %", "seconds", (5, 25)),
        ("From 10 to 50 secs", "percent", (5, 25)),
        ('```json\n{"start": 10.0, "end": 50.0}\n```', "seconds", (5, 25)),
        ("[10.0, 50.0]", "seconds", (5, 25)),
        ("It has 3 parts. From 10 to 50.", "seconds", (5, 25)),
        ("from 198 to 201", "seconds", (98, 99)),  # the end is the video's
        ("from 10 to 10.2", "seconds", (5, 6)),
        ("from 50 to 10", "seconds", None),
        ("from 300 to 400", "seconds", None),
        ("from 5 to 120", "percent", None),
        ("I cannot tell.", "seconds", None),
        ("", "seconds", None),
        ("in 1990 to 1995", "seconds", None),
    ],
)
def test_times_of_a_reply(reply, unit, span):
    answer = read_reply(GROUNDING, reply, VIDEO.duration, time_formats.create(unit))
    assert answer == ("" if span is None else f"From {span[0]:02d} to {span[1]:02d}.")
    for protocol in ("strict", "official"):  # whichever scorer reads it
        read = parse_span(answer, protocol)
        assert (read and (read.start, read.end)) == span


def test_events_of_a_reply():
    reply = (
        "Here are the events:\n1. **0:10 - 0:50**: A bell rings.\n- From 60 to 100 seconds, a dog barks, 2 times.\n"
        "From 120 to 110, nothing.\n[150s, 200s] Silence\nThe end"
    )
    answer = read_reply(DENSE, reply, 200.0, SECONDS)
    assert [(e.start, e.end, e.caption) for e in parse_events(answer)] == [
        (5, 25, "A bell rings."),
        (30, 50, "a dog barks, 2 times."),
        (75, 99, "Silence"),
    ]
    assert read_reply(DENSE, "nothing happens", 200.0, SECONDS) == ""


@pytest.mark.parametrize(
    "text", ["1" * 50_000, "1 to " * 20_000, "0:" * 20_000, " " * 50_000 + "1 to 2", "9" * 400 + " to 5"], ids=range(5)
)
def test_hostile_replies_are_read_at_once(text):
    start = time.process_time()
    read_reply(GROUNDING, text, 60.0, SECONDS)
    read_reply(DENSE, text, 60.0, PERCENT)
    assert time.process_time() - start < 5  # a pattern that backtracks takes hours


@pytest.mark.parametrize(
    ("lasts", "reply"), [(30.0, "From 20.0 to 30.5 seconds."), (30.5, "20 - 30.5 s"), (30.5, "20-31 s")]
)
def test_the_end_that_a_question_names_is_the_end(lasts, reply):
    assert read_reply(GROUNDING, reply, lasts, SECONDS).startswith("From 6")
    assert read_reply(GROUNDING, "From 20.0 to 32.0 seconds.", lasts, SECONDS) == ""


class OneAnswer(Adapter):
    def reply(self, media, text, max_new_tokens):
        return "From 6.0 to 30.0 seconds."

    def describe(self):
        return {}


def test_an_answer_is_of_the_length_that_its_question_names(tmp_path):
    videos = RawVideos(tmp_path)
    videos.read = lambda video_id: Media(30.0, None, None, None, 16_000)
    known = {"v": Annotation("v", 60.0, (Event(6, 30, "A bell."),))}
    for annotations, answer in ((known, "From 10 to 50."), ({}, "From 20 to 99.")):
        adapter = OneAnswer("m", videos=videos, annotations=annotations, limits={"grounding": 9})
        question = Question("v", "grounding", 0, "<video>\nWhen?", "")
        assert [p.answer for batch in adapter.answer([question], ()) for p in batch] == [answer]


def test_a_prompt_with_an_unknown_field_is_refused():
    class Named(TimeFormat):
        def prompt(self, task):
            return "When does $name appear?"

    with pytest.raises(
        ValueError, match=r"Named: the prompt of grounding names \$name; it has duration, length, caption"
    ):
        word_question(GROUNDING, {"v": VIDEO}, Named())


@pytest.mark.parametrize(("name", "times"), [("seconds", SECONDS), ("percent", PERCENT)])
def test_a_format_is_given_by_itself_or_by_its_name(name, times):
    question = Question("v", "grounding", 0, "", "")
    assert read_reply(question, "from 6 to 30", 60.0, name) == read_reply(question, "from 6 to 30", 60.0, times) != ""
    video = {"v": Annotation("v", 60.0, (Event(6, 30, "A bell rings."),))}
    assert word_question(question, video, name) == word_question(question, video, times)
