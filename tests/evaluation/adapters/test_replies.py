"""Replies in the forms that models of the field write, each with what a person reads in it."""

import json
import random
import string
from collections import Counter
from pathlib import Path

import pytest

from longvale.evaluation.adapters.prompts import parse_reply
from longvale.evaluation.adapters.time_formats import TimeFormat
from longvale.registry import time_formats
from longvale.tasks import Prediction, Question

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "fixtures" / "replies.jsonl").read_text(encoding="utf-8").splitlines()
]
QUESTIONS = {
    "grounding": Question("v", "grounding", 0, "", ""),
    "dense_captioning": Question("v", "dense_captioning", None, "", ""),
}


def read(row, times="auto"):
    return parse_reply(QUESTIONS[row["task"]], row["reply"], row["duration"], times)


def test_there_are_replies_of_every_kind():
    assert len({(row["task"], row["reply"]) for row in ROWS}) == len(ROWS) >= 400
    readers = Counter(row["reader"] for row in ROWS)
    assert readers.keys() == {None, "seconds", "clock", "percent", "json", "tokens"} and min(readers.values()) >= 20


@pytest.mark.parametrize("task", QUESTIONS)
def test_auto_reads_every_reply_as_a_person_does(task):
    rows = [row for row in ROWS if row["task"] == task]
    wrong = [row["reply"] for row in rows if read(row).info()["read"] != row["read"]]
    assert not wrong
    assert not [row["reply"] for row in rows if read(row).reader != row["reader"]]


@pytest.mark.parametrize("name", ["seconds", "clock", "json", "tokens"])
def test_a_format_reads_what_was_not_asked_for(name):
    """A model that was asked for one notation may answer in another: only bare timecodes then are seconds."""
    rows = [row for row in ROWS if row["reader"] != "percent"]
    assert [row["reply"] for row in rows if read(row, name).info()["read"] != row["read"]] == []


@pytest.mark.parametrize("row", ROWS[::9], ids=range(len(ROWS[::9])))
def test_what_was_read_is_what_is_scored(row):
    """A line of the log carries the times as they were read, more exact than its timecodes."""
    reading = read(row)
    line = Prediction(
        "v", row["task"], reading.answer, QUESTIONS[row["task"]].sentence_id, info=reading.info()
    ).to_log()
    found = Prediction.from_log(line).parse()
    spans = found if isinstance(found, list) else [] if found is None else [found]
    seconds = [[*span.seconds(row["duration"]), *([span.caption] if span.caption else [])] for span in spans]
    assert seconds == [[*map(pytest.approx, item[:2]), *item[2:]] for item in row["read"]]


@pytest.mark.parametrize("name", time_formats.names())
def test_a_format_reads_what_it_writes(name):
    times, asked = time_formats.create(name), QUESTIONS["grounding"]
    for duration, start, end in (
        (60.0, 6.3, 30.7),
        (3600.0, 1234.5, 3599.9),
        (300.0, 12.0, 13.0),
        (8000.0, 4000.0, 7300.2),
    ):
        reading = parse_reply(asked, times.render(start, end, duration), duration, name)
        ((read_start, read_end, _),) = reading.events
        step = duration / 100 if name == "percent" else 1.0 if name == "clock" else 0.1
        assert abs(read_start - start) <= step / 2 + 1e-6 and abs(read_end - end) <= step + 1e-6
        assert reading.reader == ("seconds" if name == "auto" else name)


@pytest.mark.parametrize(
    ("reply", "times", "expected"),
    [
        ("From 04 to 04.", "percent", [10.5, 13.5]),
        ("From 04 to 04.", "auto", [10.5, 13.5]),
        ("From 99 to 99.", "percent", [297.0, 300.0]),
        ("4 s to 4 s", "seconds", [3.5, 4.5]),
        ("0:04 - 0:04", "clock", [3.5, 4.5]),
        ("4.2 to 4.2", "seconds", [4.15, 4.25]),
        ("0 to 0", "seconds", [0.0, 0.5]),
        ('{"start": 4.2, "end": 4.2}', "json", [4.15, 4.25]),
    ],
)
def test_two_equal_times_are_the_times_that_are_rounded_to_them(reply, times, expected):
    reading = parse_reply(QUESTIONS["grounding"], reply, 300.0, times)
    assert reading.info()["read"] == [expected]


def test_times_after_the_end_are_reported():
    asked = QUESTIONS["grounding"]
    for reply, past_end in (("70 to 80 s", True), ("50 to 70 s", True), ("50 to 60.3 s", False), ("30 to 6 s", False)):
        reading = parse_reply(asked, reply, 60.0, "seconds")
        assert reading.past_end == past_end and reading.info().get("past_end", False) == past_end
        assert bool(reading.events) == (reply == "50 to 60.3 s")
    listed = parse_reply(QUESTIONS["dense_captioning"], "6 - 30 s: A bell.\n70 - 80 s: A dog.", 60.0, "seconds")
    assert listed.past_end and len(listed.events) == 1


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"read": [[1]], "duration": 9}, "info.read must list start and end in seconds, not"),
        ({"read": [[1, "2"]], "duration": 9}, "info.read must list"),
        ({"read": [[-1, 2]], "duration": 9}, "info.read must list"),
        ({"read": [[1, 2]]}, "info.duration must be a number of seconds above 0, not None"),
        ({"read": [[1, 2]], "duration": 0}, "info.duration must be"),
    ],
)
def test_a_damaged_reading_in_a_log_is_refused(info, words):
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        Prediction.from_log(Prediction("v", "grounding", "From 01 to 02.", 0, info=info).to_log())


class Spy(TimeFormat):
    def unit_of(self, reply):
        return "percent" if "!" in reply else "seconds"


def test_a_format_decides_the_unit_of_a_reply():
    asked = QUESTIONS["grounding"]
    assert parse_reply(asked, "6 to 30!", 60.0, Spy()).answer == "From 06 to 30."
    assert parse_reply(asked, "6 to 30", 60.0, Spy()).answer == "From 10 to 50."
    assert parse_reply(asked, "6 to 30", 60.0, Spy(), unit="percent").answer == "From 06 to 30."


# --- hostile replies --------------------------------------------------------------------------------------------------

ODD = [
    "<think>",
    "</think>",
    "<answer>",
    "\\boxed{",
    "：",
    "９",
    "\ud800",
    "1" * 50,
    "<t",
    "second{",
    '{"start":',
    "From ",
]
PIECES = [*(row["reply"] for row in ROWS if row["reply"]), *string.printable, *ODD]


def draw(seed, length):
    """A reply of about so many characters, of pieces of replies and characters."""
    random_ = random.Random(seed)
    text = ""
    while len(text) < length:
        piece = random_.choice(PIECES)
        at = random_.randrange(len(piece))
        text += piece[at : at + random_.randrange(1, 20)]
    return text[:length]


def check(reply, duration):
    for task, question in QUESTIONS.items():
        reading = parse_reply(question, reply, duration, "auto")
        for start, end, caption in reading.events:
            assert 0 <= start <= end <= duration and bool(caption) == (task == "dense_captioning")


def test_no_reply_raises():
    for seed in range(1500):
        check(draw(seed, seed % 120 + 1), 60.0)
