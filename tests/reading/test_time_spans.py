from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvale.reading.lists import find_any_spans, find_events, split_line
from longvale.reading.records import find_json, find_json_lines, read_fields, read_records
from longvale.reading.spans import TimeSpan, find_spans, plain, read_time

BELL = "A bell."


def found(text):
    return [(span.start, span.end, span.unit) for span in find_spans(text)]


@pytest.mark.parametrize(
    "text",
    [
        "6.0s – 30.0s", "6 s → 30 s", "6.0s to 30.0s", "0:06-0:30", "00:00:06 – 00:00:30",
        "00:00:06,000 --> 00:00:30,000",
        "from second 6 to second 30", "from 6 sec. to 30 sec.", "from the 6-second mark to the 30-second mark",
        "6 to 30 seconds", "6 seconds to 30", "(6.0 s, 30.0 s)", "starts at 6.0s and ends at 30.0s", "6秒到30秒",
        "The event begins at around 6 seconds and concludes at 30 seconds.", "Start: 0:06\nEnd: 0:30",
        "begins at 6 s and lasts until 30 s", "Event 1 - 0:06-0:30", "6 seconds until 0:30", "０：０６－０：３０",
    ],
)  # fmt: skip
def test_spans_in_seconds(text):
    assert found(text) == [(6.0, 30.0, "seconds")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6.0 ~ 30.0", [(6, 30, None)]),
        ("[6.0, 30.0]", [(6, 30, None)]),
        ("６ to ３０", [(6, 30, None)]),
        ('{"start": 6.0, "end": 30.0}', [(6, 30, None)]),
        ("{'start_time': 6.0,\n    'end_time': 30.0}", [(6, 30, None)]),
        ("10% to 50%", [(10, 50, "percent")]),
        ("10-50 percent", [(10, 50, "percent")]),
        ("1 to 2 minutes", [(60, 120, "seconds")]),
        ("from 1m30s to 2 min and 5 s", [(90, 125, "seconds")]),
        ("1, 30.0 - 54.0 s: a bell", [(30, 54, "seconds")]),
        ("1 - 6.0 to 30.0", [(6, 30, None)]),  # an item's number
        ("6.0 - 30.0 - 40 dogs", []),  # which two?
        ("6 s - 10 s - 30 s", []),
        ("from minute 1 to 2", [(60, 120, "seconds")]),
        ("1 h 2 min and 5 s - 1h2m6s", [(3725, 3726, "seconds")]),
        ("at 6.0 and 30.0", []),
        ("between 6.0 and 30.0", [(6, 30, None)]),
        ("6, 30", []),
        ("1\n- 30.0 - 54.0", [(30, 54, None)]),
        ("6 to 1:30", []),
        ("5% to 30 s", []),
        ("1:75 to 2:00", []),
        ("frame 6 to frame 30", []),
        ("6 to 30 fps", []),
        ("starts with 2 dogs and ends with 3 cats", []),
        ("16:9 to 4:3", []),
        ("2020-05-12", []),
        ("R2 - D2", []),
        ("5 to -12", []),
        ("6,5 to 30,0", []),  # decimal commas or lists?
        ("6 to 30 sheep", [(6, 30, None)]),
        ("1920x1080 - 640x480", []),
    ],
)
def test_what_is_a_span(text, expected):
    assert found(text) == expected


TIMES = {
    ("seconds", 1): "seconds second secs sec s 秒",
    ("seconds", 60): "minutes minute mins min",
    ("seconds", 3600): "hours hour hrs hr h",
    ("percent", 1): "% percent pct",
}
#: Units of what is not time.
OTHERS = (
    "milliseconds millisecond msecs msec ms fps khz hz db k km cm mm m meters metres feet degrees ° $ € £ "
    "days day weeks months years year am pm a.m p.m o'clock frames frame times people"
)


@pytest.mark.parametrize(("unit", "size"), TIMES)
def test_every_unit_is_read_after_and_before_its_number(unit, size):
    for word in TIMES[unit, size].split():
        for written in (word, word.upper()):
            assert found(f"1 to 2 {written}") == [(size, 2 * size, unit)], written
            before = [(size, 2 * size, unit)] if len(word) > 2 else []
            assert found(f"from {written} 1 to {written} 2") == before, written
            if before:  # of the first time alone, and also after "between", which looks at the words before it
                assert found(f"between {written} 1 and 2") == before, written
                assert found(f"at {written} 1, between 3 and 4") == [(3, 4, None)]
    assert found("1 to 2 per cent") == [(1, 2, "percent")]


def test_numbers_of_anything_else_are_no_times():
    for word in OTHERS.split():
        assert found(f"1 to 2 {word}") == found(f"1 {word.upper()} to 2") == [], word
        assert found(f"from {word} 1 to {word} 2") == [], word


@pytest.mark.parametrize(
    "word",
    ["the", "about", "around", "approximately", "approx", "roughly", "nearly", "at", "time", "t =", "~", "the time"],
)
def test_words_without_a_meaning_may_come_before_a_time(word):
    for written in (word, word.upper()):
        assert found(f"Between {written} 6 and {written} 30.") == [(6, 30, None)]
        assert found(f"It starts {written} 6 and ends {written} 30.") == [(6, 30, None)]
        assert found(f"at {written} 6 and 30") == []


def test_where_spans_are():
    text = "A dog (0:06 - 0:30) barks."
    (span,) = find_spans(text)
    assert text[span.at : span.stop] == "0:06 - 0:30"
    assert plain("０：０６ ok") == "0:06 ok" and len(plain("１２\u3000")) == 3
    assert plain("6\u00a0to\u2009\u202f\u300030") == "6 to   30"
    assert (TimeSpan(6, 30).at, TimeSpan(6, 30).stop) == (0, 0)


def test_the_usual_answer_is_read_as_any_other():
    for text in ("From 05 to 25.", "From 05 to 25, a bell.", "From 05 to 25"):
        assert list(find_spans(text)) == list(find_spans(text + "\n")) == [TimeSpan(5.0, 25.0, None, 5, 13)]


@pytest.mark.parametrize(
    ("span", "unit", "expected"),
    [
        (TimeSpan(6, 30), "seconds", (0.1, 0.5)),
        (TimeSpan(6, 30), "percent", (0.06, 0.3)),
        (TimeSpan(6, 30, "seconds"), "percent", (0.1, 0.5)),
        (TimeSpan(30, 60.5), "seconds", (0.5, 1.0)),
        (TimeSpan(30, 60.7), "seconds", None),
        (TimeSpan(30, 30), "seconds", (0.5, 0.5)),
        (TimeSpan(30, 6), "seconds", None),
        (TimeSpan(60, 60.2), "seconds", None),
        (TimeSpan(50, 101), "percent", None),
    ],
)
def test_shares_of_a_video_of_a_minute(span, unit, expected):
    assert span.shares(60.0, unit, tolerance_s=0.5) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:06", (6.0, "seconds")), ("0:06 s", (6.0, "seconds")), ("0:06 frames", None),
        ("[6.5]", (6.5, None)), ("6 s", (6.0, "seconds")), ("second 6", None),
        ("10 %", (10.0, "percent")), ("6 frames", None), ("6 and 7", None), ("-6", None), ("", None), ("1e3", None),
    ],
)  # fmt: skip
def test_lone_times(text, expected):
    assert read_time(text) == expected


# --- JSON and tables --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "unit"),
    [
        ("start", "end", None), ("starts", "ends", None), ("begin", "stop", None), ("begins", "finish", None),
        ("beginning", "until", None), ("from", "to", None), ("onset", "offset", None), ("startPoint", "endAt", None),
        ("START TIME", "END TIMESTAMP", None), ("start_in_video", "end_in_video", None),
        ("Start (s)", "End (sec)", "seconds"), ("start_secs", "end_second", "seconds"),
        ("start_time_seconds", "end_seconds", "seconds"), ("start_percent", "end_percentage", "percent"),
        ("start_pct", "end_pct", "percent"),
    ],
)  # fmt: skip
def test_names_of_times(start, end, unit):
    assert read_fields({start: 6, end: 30}).span == TimeSpan(6.0, 30.0, unit)


@pytest.mark.parametrize(
    "name",
    ["timestamp", "timestamps", "time", "times", "interval", "segment", "span", "range", "timerange", "Time in s"],
)
def test_names_of_spans(name):
    assert read_fields({name: [6, 30]}).span == TimeSpan(6.0, 30.0, "seconds" if name.endswith(" s") else None)
    assert read_fields({name: ["6 s", "30 s"]}).span == TimeSpan(6.0, 30.0, "seconds")


def test_which_fields_of_an_object_count():
    assert read_fields({"start": 0, "begin": 7, "end": 30, "stop": 40}).span == TimeSpan(0.0, 30.0)  # the first of each
    assert read_fields({"time": [6, 30], "span": [7, 40]}).span == TimeSpan(6.0, 30.0)
    assert read_fields({"time": [6, 30], "start": 7, "end": 40}).span == TimeSpan(7.0, 40.0)  # rather than an interval
    assert read_fields({"start": 7, "time": [6, 30]}).span == TimeSpan(6.0, 30.0)
    assert read_fields({"interval_percent": [10, 50]}).span == TimeSpan(10.0, 50.0, "percent")
    assert read_fields({"interval_percent": ["6 s", "30 s"]}).span == TimeSpan(
        6.0, 30.0, "seconds"
    )  # beside the number
    assert read_fields({"x" * 60 + "start": 6, "end": 30}) is None
    assert read_fields({"": 6, "end": 30}) is None


CAPTIONS = ["caption", "description", "event", "sentence", "text", "summary", "content", "label", "action", "title"]


@pytest.mark.parametrize(("name", "later"), list(pairwise([*CAPTIONS, "note"])))
def test_which_text_of_an_object_is_its_caption(name, later):
    for written in (name, f"{name}s", f"The {name.upper()}"):
        fields = {"start": "6", later: "Not this.", "id": 7, written: BELL, "end": "30", "more": "Nor this."}
        assert read_fields(fields).caption == BELL
    assert read_fields({"start": 6, "end": 30, "note": BELL}).caption == BELL  # the only text
    assert read_fields({"start": 6, "end": 30, "note": BELL, "more": "Or this?"}).caption == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('{"From [6 - 30]": "A bell."}', [(6, 30, BELL)]),
        (f'{{"{"0:06 - 0:30":>60}": "A bell."}}', [(6, 30, BELL)]),
        (f'{{"{"0:06 - 0:30":>61}": "A bell."}}', []),  # too long to be only a span
        ('{"at 6 - 30": "A bell."}', []),
        ('{"6 - 30 or so": "A bell."}', []),
        ('{"6 - 30 X": "A bell."}', []),
        ('{"time": 6}', []),
        ('{"time": [6, 30, 40]}', []),
        ('{"time": ["soon", 30]}', []),
        ('{"6 - 30": 7}', []),
        ('["6 s", "30 s"]', [(6, 30, "")]),
        ('["10%", 30]', []),
        ("[6, 30, 7]", []),
        ("[6, 30, 7, 8]", []),
        ('[6, 30, {"start": 1, "end": 2}]', [(1, 2, "")]),
        ('{"time": {"start": 6, "end": 30, "part": {"start": 7, "end": 8}}, "text": "A bell."}', [(6, 30, BELL)]),
        ('{"a": {"start": 6, "end": 30}, "b": [[7, 8]]}', [(6, 30, ""), (7, 8, "")]),
        (f'{"[" * 7}{{"start": 6, "end": 30}}{"]" * 7}', [(6, 30, "")]),
        (f'{"[" * 8}{{"start": 6, "end": 30}}{"]" * 8}', []),  # nested deeper than anything read
    ],
)
def test_values_of_json(value, expected):
    records = [record for found in find_json(value) for record in read_records(found)]
    assert [(r.span.start, r.span.end, r.caption) for r in records] == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"start": 6.0, "end": 30.0, "caption": "A bell."}',
        '[{"startTime": "0:06", "endTime": "0:30", "event": "A bell."}]',
        '{"events": [{"start_sec": 6, "end_sec": 30, "id": 1, "description": "A bell.", "label": "bell"}]}',
        '{"timestamp": "0:06 - 0:30", "text": "A bell."}',
        '{"time": {"start": 6, "end": 30}, "caption": "A bell."}',
        '{"segment": [6, 30], "caption": "A bell."}',
        '{"0:06-0:30": "A bell."}',
        '[[6.0, 30.0, "A bell."]]',
        'Sure! Here it is:\n[{"from": "6.0s", "to": "30.0s", "sentence": "A bell."}, {"from": 30, "to',
        '{"start": 6, "end": 30, "caption": "A bell."}\n{"start": 9}',
    ],
)
def test_events_in_json(text):
    records = [record for value in find_json(text) for record in read_records(value)]
    assert [(r.span.start, r.span.end, r.caption) for r in records] == [(6.0, 30.0, "A bell.")]


@pytest.mark.parametrize(
    "fields",
    [
        {"start_frame": 6, "end_frame": 30},
        {"start_ms": 6, "end_ms": 30},
        {"start": 6, "end": True},
        {"start": float("nan"), "end": 30},
        {"start": -6, "end": 30},
        {"start": 6},
        {"start_s": "10%", "end_s": "50%"},
        {"start": "10%", "end": 30},
        {"start": "6 frames", "end": "30 frames"},
        {"score": 6, "count": 30},
    ],
)
def test_fields_that_are_no_times(fields):
    assert read_fields(fields) is None


def test_units_of_fields():
    assert read_fields({"start_percent": 10, "end_percent": 50}).span == TimeSpan(10.0, 50.0, "percent")
    assert read_fields({"Start (s)": "6", "End (s)": "30", "What": "A bell."}).span.unit == "seconds"


def test_texts_of_json_are_lines():
    assert find_json_lines('{"events": ["a", {"b": "c"}]}') == "a\nc"
    assert find_json_lines("a [1]") == "a [1]" and find_json_lines("[05 to 25] a") == "[05 to 25] a"
    assert find_json_lines(' ["a", 1, "b"]') == "a\nb" and find_json_lines("[1]") == "[1]"
    assert find_json_lines(f'{"[" * 8}"a"{"]" * 8}') == "a"
    assert find_json_lines(f'{"[" * 9}"a"{"]" * 9}') == f'{"[" * 9}"a"{"]" * 9}'


# --- lists ------------------------------------------------------------------------------------------------------------

TWO = [(6.0, 30.0, "A bell rings."), (30.0, 60.0, "A dog barks.")]


@pytest.mark.parametrize(
    "text",
    [
        "- **0:06 - 0:30**: A bell rings.\n- **0:30 - 1:00**: A dog barks.",
        "1. [6.0s - 30.0s] A bell rings.\n2. [30.0s - 60.0s] A dog barks.",
        "1, 6.0 - 30.0 s: A bell rings.\n2, 30.0 - 60.0 s: A dog barks.",
        "(1) 6-30: A bell rings.\n(2) 30-60: A dog barks.",
        "Event 1: 6-30 s: A bell rings.\nEvent 2: 30-60 s: A dog barks.",
        "### Event 1 (0:06 - 0:30)\nA bell rings.\n\n### Event 2 (0:30 - 1:00)\nA dog barks.",
        "From 6.0 to 30.0 seconds, A bell rings. From 30.0 to 60.0 seconds, A dog barks.",
        "[6.0s - 30.0s] A bell rings. [30.0s - 60.0s] A dog barks.",
        "| 6.0 - 30.0 | A bell rings. |\n| 30.0 - 60.0 | A dog barks. |",
        "| # | Time | Event |\n|---|---|---|\n| 1 | 0:06-0:30 | A bell rings. |\n| 2 | 0:30-1:00 | A dog barks. |",
        "| Start (s) | End (s) | Event |\n|--|--|--|\n| 6.0 | 30.0 | A bell rings. |\n| 30.0 | 60.0 | A dog barks. |",
        "**6.0s - 30.0s**\nA bell rings.\n\n**30.0s - 60.0s**\nA dog barks.",
        "0:06 - 0:30\n  - A bell\n    rings.\n0:30 - 1:00\n  - A dog barks.",
        "- A bell rings. (6.0s - 30.0s)\n- A dog barks. (30.0s - 60.0s)",
        "Bell (0:06 - 0:30): A bell rings.\nDog (0:30 - 1:00): A dog barks.",
        'Here:\n```json\n[\n  {"start": 6.0, "end": 30.0, "caption": "A bell rings."},\n'
        '  {"start": 30.0, "end": 60.0, "caption": "A dog barks."}\n]\n```\nDone.',
        '["6-30 s: A bell rings.", "30-60 s: A dog barks."]',
        "Start: 0:06, End: 0:30 - A bell rings.\nStart: 0:30, End: 1:00 - A dog barks.",
    ],
)  # fmt: skip
def test_lists_of_events(text):
    assert [(r.span.start, r.span.end, r.caption) for r in find_events(text)] == TWO


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        ("0:06 - 0:30\n\nA bell\nrings.\n\nThe end.", ["A bell rings."]),  # up to an empty line
        ("0:06 - 0:30\n> A bell\n0:30 - 1:00: A dog.\nThe end.", ["A bell", "A dog."]),
        ("0:06 - 0:30\n0:30 - 1:00\nA dog.", ["A dog."]),
        ("A bell rings (0:06 - 0:30).", ["A bell rings"]),
        ("2) A bell rings [from 6 to 30 s]", ["A bell rings"]),
        ("A bell rings ( 6 - 30 s ) ", ["A bell rings"]),
        ("A bell (6 - 30 s) rings.", []),
        ("A bell (6 - 30 s) (7 - 30 s)", []),
        ("Bell (6 - 30 s) – it rings", ["it rings"]),
        ("6 - 30 s: 'A bell.'", ["A bell."]),
        ('6 - 30 s: " A bell. "', ["A bell."]),
        ('6 - 30 s: "Go!" he says', ['"Go!" he says']),
        ("6 - 30 s: \"A bell.'", ["\"A bell.'"]),
        ("6 - 30 s: '", ["'"]),
        ("6 - 30 s: a\n6 - 30 s: \t - | b | - ", ["a", "b"]),
        ("| 6 - 30 | x | A bell. | yz |", ["A bell."]),  # the longest cell
        ("| Start | End | Event |\n| 6 | 30 | |\n| 6 | 30 | A bell. |", ["A bell."]),
        ("| Start | Event |\n| 6 | 7 - 30 s | A bell. |", ["A bell."]),  # a row unlike its header
        ("| Start | End | Event |\n| 6 | 30 | |\nThe end.", []),
        ("|6 - 30|X|", ["X"]),
        ("| A bell. | (6 - 30). |", ["A bell."]),
        ("| A dog ran 6 - 30 miles | A bell. |", []),
        ("A bell | 6 - 30", []),
        ("| 6 - 30 |", []),
        ("Bell (6 - 30 s) X", []),
        ('"6 to 30": "A bell.', []),  # JSON cut off
        ("6 - 30 s:\n```text\nA <B>bell</B>.\n```", ["A bell."]),
        (f"{' ' * 60}6 - 30: A bell.", ["A bell."]),
        (f"{' ' * 61}6 - 30: A bell.", []),  # farther than is looked at
        ("6 - 30 sec. 31 - 40 sec: A bell.", ["A bell."]),
        ("6 - 30 s: a `bell` <b>rings</b>", ["a bell rings"]),
    ],
)
def test_where_captions_are(text, captions):
    assert [record.caption for record in find_events(text)] == captions


@pytest.mark.parametrize(
    "text",
    [
        "A bell rings from 6 to 30 seconds.",
        "A bell rings (6-30 s), then a dog barks (30-60 s).",
        "{'start': 6.0, 'end': 30.0, 'caption': 'A bell'}",  # no JSON
        '"start": 6.0, "end": 30.0, "caption": "A bell"',
        "0:06 - 0:30",
        "The dogs are 2 - 3 years old.",
        "| 6.0 | 30.0 | 45.0 | A bell rings. |",
    ],
)
def test_what_could_be_misread_is_not_read(text):
    assert find_events(text) == []


def test_captions_keep_their_characters():
    (one,) = find_events("0:06 - 0:30: “铃响，很大声！” 说 ($5, “a|b”)")
    assert one.caption == "“铃响，很大声！” 说 ($5, “a|b”)"
    (one,) = find_events('[6, 30]: "A bell, loud (very)."')
    assert one.caption == "A bell, loud (very)."
    assert [after for _, after in split_line("6 - 30 s, from 1 to 3 dogs bark.")] == [", from 1 to 3 dogs bark."]


def test_spans_with_a_unit_come_first():
    text = 'Scenes [2, 3] show 2 - 3 dogs from 6 s to 30 s. {"start": 7, "end": 8}'
    assert [(span.start, span.end) for span in find_any_spans(text)] == [
        (7, 8),
        (6, 30),
        (2, 3),
        (2, 3),
        (7, 8),
        (2, 3),
    ]


def test_spans_of_json_come_before_those_of_sentences():
    text = 'From 6 s to 30 s. [{"start": 7, "end": 8}]'
    assert [(span.start, span.end) for span in find_any_spans(text)][:2] == [(7, 8), (6, 30)]


# --- hostile texts ----------------------------------------------------------------------------------------------------

pieces = st.sampled_from(
    ["6", "30.0", "0:06", "%", "s", " to ", " - ", "[", "]", "{", "}", '"start": ', '"end": ', ", ", ": ", "|", "\n",
     "**", "From ", "start", " ends ", "９", "1" * 400, "\ud800", ". ", "(", ")", "```", "second "]
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(pieces | st.text(max_size=3), max_size=20).map("".join))
def test_no_text_raises_and_what_is_read_can_be_used(text):
    for span in [*find_any_spans(text), *(record.span for record in find_events(text))]:
        assert (
            0 <= span.start < float("inf")
            and 0 <= span.end < float("inf")
            and span.unit in (None, "seconds", "percent")
        )
    assert all(record.caption and "\n" not in record.caption for record in find_events(text))


SIZE = 4_000


@pytest.mark.timeout(60)  # linear time is some tenths of a second; a search that backtracks takes hours
@pytest.mark.parametrize(
    "text",
    ["[" * SIZE, "{" * SIZE, '{"a":' * SIZE, '["x",' * SIZE, '[1,"' * SIZE, "6 - 30 (" * SIZE, "**" * SIZE, "`" * SIZE,
     " " * SIZE + "6 - 30: a", "|" * SIZE, "| 6 - 30 " * SIZE, "start: 6 end: 30 " * SIZE, "from second " * SIZE,
     "0:06 - 0:30\n" * SIZE, "0:06 - 0:30 a\n" * SIZE, "a (6 - 30)\n" * SIZE, '"a" : ' * SIZE, "1. " * SIZE, "-" * SIZE,
     '{"start": 6, "end": 30},' * SIZE, "6 minutes " * SIZE, "6 and " * SIZE, "<b>" * SIZE],
    ids=lambda text: text[:12].strip(),
)  # fmt: skip
def test_long_texts_take_linear_time(text):
    list(find_any_spans(text))
    find_events(text)
