import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvale.events import Annotation, Event
from longvale.tasks import (
    LOG_NAMES,
    TASKS,
    VIDEO_TOKEN,
    Prediction,
    Question,
    check_tasks,
    dense_captioning_question,
    grounding_question,
    load_predictions,
    questions,
    segment_captioning_question,
    task_of_question,
)
from longvale.timecodes import parse_events, parse_span

quick = settings(max_examples=60)

texts = st.text(max_size=30)
json_values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
indices = st.integers(0, 10**20)
infos = st.dictionaries(
    texts.filter(lambda name: name != "sentence_id"), json_values | st.lists(json_values), max_size=3
)


@st.composite
def predictions(draw):
    task = draw(st.sampled_from(TASKS))
    return Prediction(
        video_id=draw(texts),
        task=task,
        answer=draw(texts),
        sentence_id=None if task == "dense_captioning" else draw(indices),
        query_id=draw(indices),
        info=draw(infos) or None,
    )


# --- questions --------------------------------------------------------------------------------------------------------


def test_the_questions_are_the_published_ones():
    """Letter for letter, "fromat" and the spaces at the begin and the end of lines included."""
    assert grounding_question("A Dog barks.") == (
        "<video>\nAt which time interval can we find a dog barks taking place in the video? "
        "Give the timestamps in the fromat: From xx to xx."
    )
    assert dense_captioning_question() == (
        "<video>\n Could you please detail the events that took place during different time segments in the video? "
        "List the events in the format: From xx to xx, event1. \n From xx to xx, event2. \n ..."
    )
    assert segment_captioning_question(6, 30, 120) == (
        "<video>\n Can you describe what occurred from 05 to 25 in the video? "
        "Please give the event description directly."
    )


@pytest.mark.parametrize(
    ("caption", "asked"),
    [
        ("A dog barks.", "a dog barks"),
        ("A dog barks...", "a dog barks.."),  # one full stop alone
        ("A dog barks", "a dog barks"),
        (" A dog barks. ", "a dog barks"),
        ("A dog barks!", "a dog barks!"),
        ("Dr. Ä. {0} {} barks.", "dr. ä. {0} {} barks"),
        ("", ""),
    ],
)
def test_captions_in_grounding_questions(caption, asked):
    assert f"can we find {asked} taking place" in grounding_question(caption)


@pytest.mark.parametrize(("start", "end", "codes"), [(0, 120, "00 to 99"), (3.6, 119, "03 to 99"), (9, 9, "08 to 08")])
def test_times_in_segment_questions(start, end, codes):
    assert f"occurred from {codes} in the video" in segment_captioning_question(start, end, 120)


def test_all_questions_of_a_video():
    video = Annotation("abc", 120.0, (Event(6, 30, "A bell\nrings."), Event(30, 120, "A dog barks")))
    dense = "From 05 to 25, A bell rings.\nFrom 25 to 99, A dog barks"
    assert list(questions(video)) == [
        Question("abc", "grounding", 0, grounding_question("A bell\nrings."), "From 05 to 25."),
        Question("abc", "grounding", 1, grounding_question("A dog barks"), "From 25 to 99."),
        Question("abc", "dense_captioning", None, dense_captioning_question(), dense),
        Question("abc", "segment_captioning", 0, segment_captioning_question(6, 30, 120), "A bell\nrings."),
        Question("abc", "segment_captioning", 1, segment_captioning_question(30, 120, 120), "A dog barks"),
    ]
    assert [question.task for question in questions(video, ["segment_captioning", "dense_captioning"])] == [
        "segment_captioning",
        "segment_captioning",
        "dense_captioning",
    ]
    assert list(questions(Annotation("abc", 120.0))) == []


@quick
@given(st.lists(st.tuples(st.integers(0, 98), texts.filter(str.strip)), max_size=4))
def test_references_read_as_what_was_asked(items):
    video = Annotation("abc", 100.0, [Event(start, start + 1, caption) for start, caption in items])
    asked = list(questions(video))
    assert len({question.key for question in asked}) == len(asked) == 2 * len(items) + bool(items)
    assert all(question.question.startswith(VIDEO_TOKEN) for question in asked)
    for question in asked:
        spans = [(event.start, event.end) for event in video.events]
        if question.task == "grounding":
            span = parse_span(question.reference)
            assert (span.start, span.end) == spans[question.sentence_id]
        elif question.task == "dense_captioning":
            assert [(span.start, span.end) for span in parse_events(question.reference)] == spans
        else:
            assert question.reference == video.events[question.sentence_id].caption


# --- names of tasks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["all"], TASKS),
        (["segment_captioning", "all"], TASKS),
        (["segment_captioning", "grounding", "grounding"], ("grounding", "segment_captioning")),
        (iter(["dense_captioning"]), ("dense_captioning",)),
        (["avsd_first", "music_avqa", "all"], (*TASKS, "avsd_first", "music_avqa")),
    ],
)
def test_names_of_tasks(names, expected):
    assert check_tasks(names) == expected


@pytest.mark.parametrize(("names", "named"), [(["grounding", "singing"], "singing"), ([], ""), (["all", "All"], "All")])
def test_names_of_no_task(names, named):
    with pytest.raises(ValueError) as error:
        check_tasks(names)
    expected = "grounding, dense_captioning, segment_captioning, avsd, avsd_first, music_avqa, or all"
    assert str(error.value) == f"unknown task {named!r}; expected one of {expected}"


# --- the official log -------------------------------------------------------------------------------------------------


def test_lines_of_the_official_log():
    prediction = Prediction("abc", "segment_captioning", "A bell – rings.", 3, info={"seconds": 0.5})
    assert prediction.to_log() == (
        '{"video_id": "abc", "task": "seg_captioning", "query_id": 0, "answer": "A bell – rings.", '
        '"info": {"sentence_id": 3, "seconds": 0.5}}'
    )
    assert Prediction("abc", "dense_captioning", "").to_log() == (
        '{"video_id": "abc", "task": "captioning", "query_id": 0, "answer": ""}'
    )
    assert LOG_NAMES.keys() == set(TASKS)


@pytest.mark.parametrize(("task", "number"), [("music_avqa", "question_id"), ("avsd", "turn"), ("avsd_first", "turn")])
def test_answers_to_the_questions_of_other_benchmarks(task, number):
    prediction = Prediction("abc", task, "yes", 5, query_id=2, info={"sentence_id": 7})
    line = json.loads(prediction.to_log())
    assert line == {
        "video_id": "abc",
        "task": task,
        "query_id": 2,
        "answer": "yes",
        "info": {number: 5, "sentence_id": 7},
    }
    assert Prediction.from_log(json.dumps(line)) == prediction
    with pytest.raises(ValueError, match=f"^info.{number} must be the index of a question, not None$"):
        Prediction.from_log(json.dumps(line | {"info": {"sentence_id": 7}}))


@quick
@given(st.lists(predictions(), min_size=1, max_size=4))
def test_logs_come_back_without_loss(tmp_path_factory, logged):
    path = tmp_path_factory.mktemp("logs") / "log.jsonl"
    path.write_text("\n\n".join(prediction.to_log() for prediction in logged), encoding="utf-8", newline="\n")
    assert load_predictions(path) == logged


def test_a_prediction_answers_the_question_of_its_key():
    video = Annotation("abc", 120.0, (Event(6, 30, "A bell rings."),))
    for question in questions(video):
        assert Prediction("abc", question.task, "", question.sentence_id, query_id=7).key == question.key


@pytest.mark.parametrize("name", [*TASKS, *LOG_NAMES.values()])
def test_the_log_may_name_tasks_in_either_way(name):
    line = json.dumps({"video_id": "abc", "task": name, "answer": "x", "info": {"sentence_id": 2}})
    prediction = Prediction.from_log(line)
    assert name in (prediction.task, LOG_NAMES[prediction.task])
    assert prediction.query_id == 0 and prediction.info is None
    assert prediction.sentence_id == (None if prediction.task == "dense_captioning" else 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_id": ...}, "field 'video_id' must be a text, not None"),
        ({"task": 3}, "field 'task' must be a text, not 3"),
        ({"answer": ["x"]}, "field 'answer' must be a text, not ['x']"),
        (
            {"task": "singing"},
            "unknown task 'singing'; expected one of grounding, captioning, seg_captioning, "
            "avsd, avsd_first, music_avqa, or of the benchmark in --tasks package.module:Name",
        ),
        ({"info": [1]}, "field 'info' must be an object, not [1]"),
        ({"info": ...}, "info.sentence_id must be the index of an event, not None"),
        ({"info": {"sentence_id": "0"}}, "info.sentence_id must be the index of an event, not '0'"),
        ({"info": {"sentence_id": True}}, "info.sentence_id must be the index of an event, not True"),
        ({"info": {"sentence_id": -1}}, "info.sentence_id must be the index of an event, not -1"),
        ({"query_id": 1.0}, "query_id must be a whole number, 0 or more, not 1.0"),
        ({"query_id": None}, "query_id must be a whole number, 0 or more, not None"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(change, message):
    line = {"video_id": "abc", "task": "grounding", "query_id": 0, "answer": "x", "info": {"sentence_id": 0}} | change
    with pytest.raises(ValueError) as error:
        Prediction.from_log(json.dumps({name: value for name, value in line.items() if value is not ...}))
    assert str(error.value) == message


#: Each field right or of any other kind; never an index of an event, which grounding needs.
spoilt_lines = st.fixed_dictionaries(
    {},
    optional={
        "video_id": texts | json_values,
        "task": st.just("grounding") | json_values,
        "answer": texts | json_values,
        "info": infos | json_values,
        "query_id": json_values,
    },
)


@quick
@given(texts | json_values.map(json.dumps) | spoilt_lines.map(json.dumps))
def test_any_other_line_gives_a_value_error(line):
    with pytest.raises(ValueError, match=r"not JSON|not a number|must be|unknown task"):
        Prediction.from_log(line)


GOOD = b'{"video_id": "abc", "task": "captioning", "answer": ""}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no answer"),
        (b"\n \r\n", "holds no answer"),
        (GOOD + b"\n" + b"[]\n", "line 3: must be an object, not '[]'"),
        (b'"' + b"x" * 70 + b'"', f"line 1: must be an object, not '{'x' * 60}'"),
        (
            GOOD + b'{"answer": "\xff"}\n',
            "line 2: not UTF-8 text: 'utf-8' codec can't decode byte 0xff in position 12: invalid start byte",
        ),
        (
            GOOD + GOOD[:20],
            "line 2: not JSON: Expecting property name enclosed in double quotes: line 1 column 21 (char 20)",
        ),
    ],
    ids=["empty", "blank", "list", "long", "latin", "cut"],
)
def test_logs_that_are_refused(tmp_path, content, message):
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        load_predictions(path)
    assert str(error.value) == f"{path}: {message}"


def test_a_missing_log_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: no such file"):
        load_predictions(tmp_path / "none.jsonl")


def test_the_task_of_a_question_is_known_by_its_words():
    annotation = Annotation("a", 60.0, (Event(6, 30, "A bell\nrings (twice)."),))
    for question in questions(annotation):
        assert task_of_question(question.question) == question.task
        assert task_of_question(question.question.replace("<video>", "")) == question.task
        spaced = question.question.replace("<video>", "").replace(" ", "  ")
        assert task_of_question(f"\n{spaced}<video>") == question.task
    for free in ("When does the bell ring?", "<video>", "", dense_captioning_question() + " Answer in one word."):
        assert task_of_question(free) is None


def test_a_log_from_windows_is_read_as_any_other(tmp_path):
    lines = [Prediction("a", "grounding", "05 to 25", 0).to_log(), Prediction("b", "dense_captioning", "x").to_log()]
    plain, windows = tmp_path / "plain.jsonl", tmp_path / "windows.jsonl"
    plain.write_text("\n".join(lines))
    windows.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, "", ""]).encode())
    assert load_predictions(windows) == load_predictions(plain)
    windows.write_bytes(b"\xef\xbb\xbf\r\n" + "\r\n".join(lines).encode())
    assert load_predictions(windows) == load_predictions(plain)
    windows.write_bytes("\n".join(lines).encode("utf-16"))
    with pytest.raises(ValueError, match=r"windows.jsonl: line 1: not "):
        load_predictions(windows)
