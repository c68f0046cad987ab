import math
import sys
from typing import get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from longvale.events import Event
from longvale.timecodes import (
    MAX_TIMECODE,
    PROTOCOLS,
    Protocol,
    Span,
    parse_events,
    parse_span,
    render_events,
    render_span,
    to_timecode,
)

quick = settings(max_examples=100)

durations = st.floats(1, 600)
shares = st.floats(0, 1)
captions = st.text(max_size=30).filter(str.strip)
#: Digits of every script, signs, separators, words that the parsers look for, and anything else.
pieces = st.sampled_from(
    ["From ", "from ", " to ", " and ", "-", "–", ", ", ": ", "%", ".", "\n", "\r", "\u2028", "\0", " ", "the ", "05",
     "100", "7", "٣٤", "９９", "²", "Ⅷ", "一", "1e9", "9" * 400, "nan", "\ud800"]
)  # fmt: skip
hostile = st.text() | st.lists(pieces | st.text(max_size=3), max_size=12).map("".join)


@st.composite
def videos(draw, max_events=5):
    """A duration and events in it, those that are too short to have a length left out."""
    duration = draw(durations)
    events = []
    for _ in range(draw(st.integers(1, max_events))):
        start, end = sorted(draw(shares) * duration for _ in range(2))
        if end > start:
            events.append(Event(start, end, draw(captions)))
    assume(events)
    return duration, events


def codes_of(event, duration):
    return float(to_timecode(event.start, duration)), float(to_timecode(event.end, duration))


def strictly(start, end, caption=""):
    """What the strict protocol reads of two timecodes: of one twice, the stretch whose times all have it."""
    if start < end:
        return Span(start, end, caption)
    return Span(99.0, 100.0, caption) if start == 99 else Span(max(start - 0.5, 0.0), start + 0.5, caption)


# --- seconds to timecodes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "duration", "expected"),
    [
        (0, 60, "00"),
        (3, 60, "05"),  # one digit is padded
        (0.5, 100, "00"),  # halves go to the even number
        (1.5, 100, "02"),
        (2.5, 100, "02"),
        (97.5, 100, "98"),
        (98.5, 100, "98"),
        (98.6, 100, "99"),
        (99.5, 100, "99"),  # the cap
        (100, 100, "99"),
        (100.4, 100, "99"),  # boundaries may lie a little after the rounded duration
        (1e308, 5e-324, "99"),  # an infinite percentage
        (sys.float_info.max, sys.float_info.max, "99"),
        (39.6, 47.3, "84"),
    ],
)
def test_timecodes(seconds, duration, expected):
    assert to_timecode(seconds, duration) == expected


@quick
@given(st.floats(0, sys.float_info.max), st.floats(0, sys.float_info.max, exclude_min=True))
def test_a_timecode_is_two_digits(seconds, duration):
    code = to_timecode(seconds, duration)
    assert len(code) == 2 and code.isascii() and code.isdigit() and 0 <= int(code) <= MAX_TIMECODE


@quick
@given(durations, shares)
def test_a_timecode_is_at_most_half_a_percent_away(duration, share):
    code = int(to_timecode(share * duration, duration))
    # Above 99 the cap takes up to a whole percent. 1e-9: the product and the quotient are rounded.
    assert abs(code - 100 * share) <= (0.5 if share <= 0.99 else 1) + 1e-9


@quick
@given(durations, shares, shares)
def test_later_times_have_no_smaller_timecode(duration, first, second):
    earlier, later = sorted((first, second))
    assert to_timecode(earlier * duration, duration) <= to_timecode(later * duration, duration)


@pytest.mark.parametrize(
    ("seconds", "duration", "message"),
    [
        (-0.1, 60, "time must be 0 s or more and finite, not -0.1"),
        (math.nan, 60, "time must be 0 s or more and finite, not nan"),
        (math.inf, 60, "time must be 0 s or more and finite, not inf"),
        (1, 0, "duration must be above 0 s and finite, not 0"),
        (1, -60, "duration must be above 0 s and finite, not -60"),
        (1, math.nan, "duration must be above 0 s and finite, not nan"),
        (1, math.inf, "duration must be above 0 s and finite, not inf"),
    ],
)
def test_times_that_have_no_timecode(seconds, duration, message):
    with pytest.raises(ValueError) as error:
        to_timecode(seconds, duration)
    assert str(error.value) == message
    with pytest.raises(ValueError, match="must be"):
        to_timecode(10**400, 1)


# --- rendered and read again ------------------------------------------------------------------------------------------


@quick
@given(durations, shares, shares)
def test_a_rendered_span_is_read_as_its_timecodes(duration, first, second):
    start, end = sorted((first * duration, second * duration))
    answer = f"{render_span(start, end, duration)}."
    codes = float(to_timecode(start, duration)), float(to_timecode(end, duration))
    assert parse_span(answer, "official") == Span(*codes)
    assert parse_span(answer, "strict") == strictly(*codes)


@quick
@given(durations, shares, shares)
def test_an_event_within_one_timecode_lies_in_the_span_that_is_read(duration, first, second):
    start, end = sorted((first * duration, second * duration))
    assume(to_timecode(start, duration) == to_timecode(end, duration))
    span = parse_span(render_span(start, end, duration))
    # 1e-9: quotients are rounded. What the cap makes 99 may begin half a percent earlier.
    late = 0.5 if span.start == 99 else 0
    assert span.start - late - 1e-9 <= 100 * start / duration <= 100 * end / duration <= span.end + 1e-9
    assert 0 < span.end - span.start <= 1


@quick
@given(videos())
def test_rendered_events_are_read_by_the_strict_protocol(video):
    duration, events = video
    expected = [strictly(*codes_of(event, duration), " ".join(event.caption.split())) for event in events]
    assert parse_events(render_events(events, duration)) == expected


@quick
@given(videos())
def test_rendered_events_are_read_by_the_official_protocol(video):
    duration, events = video
    # A mark of its own makes captions different: alike ones are merged.
    events = [Event(e.start, e.end, f"{chr(65 + i) * 40} {e.caption}") for i, e in enumerate(events)]
    spans = parse_events(render_events(events, duration), "official")
    assert [(span.start, span.end - 1) for span in spans] == [codes_of(event, duration) for event in events]
    assert [span.caption for span in spans] == [" ".join(event.caption.split()) for event in events]


def test_rendering():
    events = [Event(6, 30, "A bell\n rings,\u2028loudly. "), Event(30, 120, "")]
    assert render_events(events, 120) == "From 05 to 25, A bell rings, loudly.\nFrom 25 to 99, "
    assert render_events([], 120) == ""


def test_each_protocol_is_named():
    assert set(PROTOCOLS) == set(get_args(Protocol))


def test_spans_in_seconds():
    assert Span(5.0, 25.0).seconds(120) == (6.0, 30.0)


# --- the official protocol and its options ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("From 05 to 25.", (5, 25)),
        ("between 05 and 25", (5, 25)),
        ("5 to 12", None),  # one digit is not read
        ("105 to 120", (5, 12)),  # the last two and the first two digits are
        ("From 30 to 10.", (30, 10)),  # the end may lie before the start
        ("From 10 to 10.", (10, 10)),
        ("From 05 to 25, or 30 to 40", (5, 25)),  # the first anywhere
        ("2010 to 2012: from 05 to 25", (10, 20)),
        ("From 05  to 25", None),
        ("From 05 TO 25", None),
        ("05-25", None),
        ("٠٥ to ٢٥", (5, 25)),  # \d takes the digits of any script
        ("", None),
    ],
)
def test_official_spans(answer, expected):
    assert parse_span(answer, "official") == (None if expected is None else Span(*map(float, expected)))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("From 00 to 50, a bell rings.", [(0, 51, "a bell rings.")]),
        ("From 0 to 5, a bell", [(0, 6, "a bell")]),  # one digit is read here
        ("From 90 to 100, a bell", [(90, 101, "a bell")]),  # past the end
        ("From 30 to 10, a bell", [(30, 11, "a bell")]),
        ("from 00 to 50, a bell", []),  # case-sensitive
        ("From 00 to 50: a bell", []),
        ("From 00.5 to 50, a bell", []),
        ("From 00 to 50, a. From 50 to 99, b.", [(0, 51, "a. From 50 to 99, b.")]),  # to the end of the line
        ("1. From 00 to 50, a\r\n\n2. From 50 to 99, b", [(0, 51, "a\r"), (50, 100, "b")]),
        ("From 00 to 50, \nFrom 50 to 99, b", [(50, 100, "b")]),  # without a caption
        (f"From {'1' * 300} to 50, a\nFrom {'9' * 5000} to 50, b\nFrom 1 to 2, c", [(1, 3, "c")]),
        ("no idea", []),
    ],
)
def test_official_events(answer, expected):
    assert parse_events(answer, "official") == [Span(float(start), float(end), text) for start, end, text in expected]


def lines(*events):
    return "\n".join(f"From {start:02d} to {end:02d}, {caption}" for start, end, caption in events)


LONG = "a bell rings in the tower while people walk over the square below"


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        # Alike and at most 1 apart: the first caption stays, and 1 is added once, at the end.
        ([(0, 10, "a"), (10, 20, "a")], [(0, 21, "a")]),
        ([(0, 10, "a"), (11, 20, "a")], [(0, 21, "a")]),
        ([(0, 10, "a"), (9, 20, "a")], [(0, 21, "a")]),
        ([(0, 10, "a"), (12, 20, "a")], [(0, 11, "a"), (12, 21, "a")]),
        ([(0, 10, "a"), (8, 20, "a")], [(0, 11, "a"), (8, 21, "a")]),
        ([(0, 10, LONG), (10, 20, f"{LONG}.")], [(0, 21, LONG)]),  # ratio 2 * 65 / 131 = .992
        (
            [(0, 10, "a" * 49 + "x"), (10, 20, "a" * 49 + "y")],
            [(0, 11, "a" * 49 + "x"), (10, 21, "a" * 49 + "y")],
        ),  # .98
        ([(0, 10, "a bell rings"), (10, 20, "a bell rings.")], [(0, 11, "a bell rings"), (10, 21, "a bell rings.")]),
        ([(0, 5, "a"), (5, 9, "a"), (9, 20, "a")], [(0, 21, "a")]),  # a chain
        ([(0, 5, "a"), (5, 9, "b"), (9, 20, "a")], [(0, 6, "a"), (5, 10, "b"), (9, 21, "a")]),  # neighbours only
    ],
)
def test_official_events_that_merge(events, expected):
    found = parse_events(lines(*events), "official")
    assert found == [Span(float(start), float(end), caption) for start, end, caption in expected]
    assert [(span.start, span.end, span.caption) for span in parse_events(lines(*events))] == events


# --- the strict protocol ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("From 05 to 25.", (5, 25)),
        ("5 to 12", (5, 12)),
        ("5% - 12%", (5, 12)),
        ("5 % – 12.5 %", (5, 12.5)),
        ("05—25", (5, 25)),
        ("From 5 until the 12", (5, 12)),
        ("FROM 5 TO 12", (5, 12)),
        ("between 0 and 100", (0, 100)),
        ("105 to 120", None),  # above 100
        ("1050 to 1200", None),
        ("From 30 to 10.", None),
        ("From 10 to 10.", (9.5, 10.5)),  # one timecode: the stretch that it stands for
        ("From 00 to 00.", (0, 0.5)),
        ("From 99 to 99.", (99, 100)),  # the cap makes 99 of all that is later
        ("From 105 to 120, that is 30 to 40", (30, 40)),  # the first that can be
        ("From 1,005 to 25", None),
        ("2.0.5 to 7", None),
        ("5 to 7.1234567", (5, 7.1234567)),
        ("From 05 to 25.5.", (5, 25.5)),
        ("From ٠٥ to ٢٥", (5, 25)),
        ("From ² to ³", None),
        ("05 into 25", None),
        ("", None),
        # Other units are no percent.
        ("From 01:05 to 12:30.", None),
        ("0:10-20:45", None),
        ("from 1:05:20 to 30:00", None),
        ("From 12.5 to 30 seconds.", None),
        ("12.5s - 30s", None),
        ("from second 6 to second 30", None),
        ("1 to 2 minutes", None),
        ("from frame 5 to frame 25", None),
        ("5 to 25 frames", None),
        ("between 2 and 3 people", None),
        ("From 6 to 30 seconds (10% to 50%)", (10, 50)),
        ("From 6 to 30 seconds, or 10 to 50", None),
        # Neither are dates, prices, scores, negative numbers, and pairs in brackets.
        ("2020-05-12", None),
        ("05-12-2020", None),
        ("$5 to $12", None),
        ("-5 to 12", None),
        ("[5, 25]", None),
        ("Scenes 2 and 3", None),
        ('{"start": 5, "end": 25}', None),
        ("2 - 5 to 25", (5, 25)),  # the number of an item
    ],
)
def test_strict_spans(answer, expected):
    assert parse_span(answer) == parse_span(answer, "strict") == (None if expected is None else Span(*expected))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("From 00 to 50, a bell rings.", [(0, 50, "a bell rings.")]),
        ("from 0% to 5.5%: a bell", [(0, 5.5, "a bell")]),
        ("1. 0 - 5; a bell ", [(0, 5, "a bell")]),
        ("From 00 to 50, a\r\n\r\nFrom 50 to 99, b\u2028From 5 to 6, c", [(0, 50, "a"), (50, 99, "b"), (5, 6, "c")]),
        ("From 00 to 50,\nFrom 50 to 99, b", [(50, 99, "b")]),
        ("From 30 to 10, a\nFrom 90 to 101, b\nFrom 5 to 5, c", [(4.5, 5.5, "c")]),
        ("From 00 to 50, a. From 50 to 99, b.", [(0, 50, "a."), (50, 99, "b.")]),
        ("1. From 00 to 50, a! 2. from 50% to 99%: b, From 5 to 6, c", [(0, 50, "a!"), (50, 99, "b,"), (5, 6, "c")]),
        ("From 00 to 50, one counts from 1 to 3, then stops.", [(0, 50, "one counts from 1 to 3, then stops.")]),
        ("The bell rings from 00 to 50, loudly.", []),
        ("00:05 - 00:25: a bell\n5 - 25: a dog", []),
        ("From 5 to 25 seconds, a bell", []),
        ("Start: 5, End: 25, a bell", []),
        ("[5, 25], a bell", []),
        ('[{"start": 5, "end": 25, "caption": "A bell"}]', []),
        ('["From 00 to 50, a bell.", "From 50 to 99, a dog."]', [(0, 50, "a bell."), (50, 99, "a dog.")]),
        ('{"caption": "From 00 to 50, a bell."}', [(0, 50, "a bell.")]),
        ('From 00 to 50, "Go!" he says, and "stop".', [(0, 50, '"Go!" he says, and "stop".')]),
        ("From ００ to ５０，铃响，很大声。", [(0, 50, "铃响，很大声。")]),
        ("From 00 to 50 a bell", []),
        ("no idea", []),
    ],
)
def test_strict_events(answer, expected):
    assert parse_events(answer) == parse_events(answer, "strict") == [Span(*event) for event in expected]


# --- hostile answers --------------------------------------------------------------------------------------------------


@settings(quick, max_examples=300)
@given(hostile)
def test_no_answer_raises_and_what_is_read_can_be_used(answer):
    for protocol in PROTOCOLS:
        spans = parse_events(answer, protocol)
        spans += [span for span in [parse_span(answer, protocol)] if span]
        for span in spans:
            assert type(span.start) is type(span.end) is float and span.caption in answer
            assert all(math.isfinite(second) for second in span.seconds(600))
            assert span.start >= 0
            if protocol == "strict":
                assert span.start < span.end <= 100


SIZE = 8_000


@pytest.mark.timeout(60)  # linear time is a second or two; a quadratic search of 20,000 characters takes minutes
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "answer",
    [
        f"5{' ' * SIZE}x",
        f"5{' ' * SIZE}%{' ' * SIZE}x",
        f"From 5 to{' ' * SIZE}x",
        f"From 5 to the{' ' * SIZE}x",
        f"From 5 to 6{' ' * SIZE}x",
        f"From 5 to 6,{' ' * SIZE}",
        f"From{' ' * SIZE}5",
        "5" * SIZE,
        f"5.{'1' * SIZE} to 6",
        f"From {'5' * SIZE} to 6, a",
        "5 to " * SIZE,
        "From " * SIZE,
        "From 05 to 25 " * SIZE,
        "From 05 to 25. " * SIZE,
        "From 05 to 05, a\n" * SIZE,
        f"From 05 to 06, {'a bell rings ' * 50}\n" * 500,
        f"From 05 to 06, {'ab' * SIZE}\nFrom 06 to 07, {'ba' * SIZE}",
        "\n" * SIZE,
        "-" * SIZE,
        "5-" * SIZE,
        "1:00 - " * SIZE,
        "From 05 to 25. " * SIZE,
        "[" * SIZE,
        '{"a":' * SIZE,
        '["x",' * SIZE,
        f"[{'9' * SIZE}",
        "from the second " * SIZE,
        f"{' ' * SIZE}05 to 25, a",
    ],
    ids=lambda answer: answer[:20] if isinstance(answer, str) else None,
)
def test_long_answers_take_no_more_than_linear_time(protocol, answer):
    parse_span(answer, protocol)
    parse_events(answer, protocol)
