import json
import math
import os
import stat
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvale.events import (
    DURATION_TOLERANCE_S,
    MODALITIES,
    RELATIONS,
    Annotation,
    Event,
    check_video_id,
    load_annotations,
    save_annotations,
)
from longvale.io import atomic_folder, atomic_write, is_number, load_json, parse_json

quick = settings(max_examples=60)

#: Everything that JSON can hold: control characters, line and paragraph separators, NUL, emoji and halves of them.
texts = st.text(st.characters(), max_size=30)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers()
times = st.floats(0, 600) | st.integers(0, 600)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
#: What json.loads may give, and what it may not.
anything = json_values | st.floats() | st.just(10**400) | st.binary(max_size=3)


def is_accepted(video_id):
    try:
        check_video_id(video_id)
    except ValueError:
        return False
    return True


@st.composite
def official_values(draw):
    """A value of the official JSON that has nothing wrong, with fields that the format does not know."""
    pairs = draw(st.lists(st.tuples(times, times).filter(lambda pair: pair[0] != pair[1]), max_size=5))
    timestamps = [sorted(pair) for pair in pairs]
    extra = draw(st.dictionaries(texts, json_values, max_size=3))
    return {
        **{name: value for name, value in extra.items() if name not in ("duration", "timestamps", "sentences")},
        "duration": draw(st.floats(0.1, 60)) + max([end for _, end in timestamps], default=0),
        "timestamps": timestamps,
        "sentences": draw(st.lists(texts, min_size=len(timestamps), max_size=len(timestamps))),
    }


files = st.dictionaries(texts.filter(is_accepted), official_values(), min_size=1, max_size=3)


# --- the official JSON ------------------------------------------------------------------------------------------------


@quick
@given(files)
def test_official_files_come_back_without_loss(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("files")
    (folder / "given.json").write_text(json.dumps(content))
    content = json.loads(json.dumps(content))  # two halves that met are one character now
    annotations = load_annotations(folder / "given.json")
    assert list(annotations) == list(content)
    for (video_id, annotation), value in zip(annotations.items(), content.values(), strict=True):
        assert annotation.video_id == video_id and len(annotation.events) == len(value["sentences"])
    save_annotations(annotations, folder / "saved.json")
    # As texts: 1 and 1.0 and True are equal, but not the same.
    assert json.dumps(load_json(folder / "saved.json"), sort_keys=True) == json.dumps(content, sort_keys=True)
    assert load_annotations(folder / "saved.json") == annotations


def test_one_value_field_by_field():
    value = {"fps": 25, "duration": 60, "timestamps": [[0, 12.5]], "sentences": ["A dog barks."], "url": None}
    annotation = Annotation.from_official("abc", value)
    assert annotation == Annotation("abc", 60, (Event(0, 12.5, "A dog barks."),), {"fps": 25, "url": None})
    assert annotation.to_official() == value
    assert annotation.events[0].length == 12.5


def test_floats_are_kept_to_the_last_digit(tmp_path):
    end = math.nextafter(0.1 + 0.2, 1)
    save_annotations({"a": Annotation("a", 1 / 3, (Event(5e-324, end, "x"),))}, tmp_path / "a.json")
    saved = load_annotations(tmp_path / "a.json")["a"]
    assert (saved.duration, saved.events[0].start, saved.events[0].end) == (1 / 3, 5e-324, end)


def test_texts_are_written_as_they_are(tmp_path):
    save_annotations({"vidéo": Annotation("vidéo", 1, (Event(0, 1, "Ein Hund – 犬 🐕"),))}, tmp_path / "a.json")
    assert "vidéo" in (text := (tmp_path / "a.json").read_text(encoding="utf-8")) and "犬 🐕" in text


@quick
@given(anything)
def test_any_other_value_is_refused_with_a_value_error(value):
    with pytest.raises(ValueError, match=r"must be an object|field '\w+'"):
        Annotation.from_official("abc", value)


@quick
@given(
    st.fixed_dictionaries(
        {
            "duration": anything | st.just(600),
            "timestamps": anything | st.lists(st.lists(anything | times, min_size=2, max_size=2), max_size=2),
            "sentences": anything | st.lists(texts | anything, max_size=2),
        }
    )
)
def test_any_fields_are_read_or_refused_with_a_value_error(value):
    try:
        annotation = Annotation.from_official("abc", value)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert annotation.to_official() == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration": ...}, "field 'duration' is missing"),
        ({"timestamps": ...}, "field 'timestamps' is missing"),
        ({"sentences": ...}, "field 'sentences' is missing"),
        ({"timestamps": {"0": [1, 2]}}, "field 'timestamps' must be a list, not {'0': [1, 2]}"),
        ({"sentences": "A bell rings."}, "field 'sentences' must be a list, not 'A bell rings.'"),
        ({"sentences": []}, "1 timestamps but 0 sentences; each event needs one of both"),
        ({"timestamps": [[1, 2, 3]]}, "event 0: timestamps must be [start, end] in seconds, not [1, 2, 3]"),
        ({"timestamps": ["12"]}, "event 0: timestamps must be [start, end] in seconds, not '12'"),
        ({"timestamps": [["1", 2]]}, "event 0 start must be a finite number of seconds, not '1'"),
        ({"timestamps": [[15.5, 12.0]]}, "event 0 ends (12.0 s) before it starts (15.5 s)"),
        ({"sentences": [None]}, "event 0 caption must be a text, not None"),
        (
            {"timestamps": [[1, 60.6]]},
            "event 0 ends at 60.6 s, after the video's duration of 60 s; correct its end or the duration",
        ),
        ({"duration": "60"}, "duration must be a finite number of seconds, not '60'"),
        ({"duration": 10**400}, "duration must be a finite number of seconds, not 1" + "0" * 56 + "..."),
        ({"duration": 0}, "duration must be above 0 s, not 0"),
        ({"duration": -1.5}, "duration must not be negative: -1.5"),
    ],
)
def test_what_is_wrong_with_a_value_is_said(change, message):
    value = {"duration": 60, "timestamps": [[1, 2]], "sentences": ["A bell rings."]} | change
    with pytest.raises(ValueError) as error:
        Annotation.from_official("abc", {name: field for name, field in value.items() if field is not ...})
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must be an object {video_id: annotation}, not []"),
        ("{}", "holds no annotation; expected {video_id: {duration, timestamps, sentences}}"),
        ('{"a": 1}', "video 'a': must be an object with duration, timestamps and sentences, not 1"),
        (
            '{"a": {"duration": 9, "timestamps": [[2, 1]], "sentences": [""]}}',
            "video 'a': event 0 ends (1 s) before it starts (2 s)",
        ),
        (
            '{"../a": {"duration": 9, "timestamps": [], "sentences": []}}',
            "video '../a': video id '../a' must not hold a path; use the file's name without folder and suffix",
        ),
    ],
)
def test_files_that_are_refused_are_named(tmp_path, text, message):
    path = tmp_path / "annotations.json"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        load_annotations(path)
    assert str(error.value) == f"{path}: {message}"


# --- events and annotations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((True, 2, "x"), "start must be a finite number of seconds, not True"),
        ((1, math.nan, "x"), "end must be a finite number of seconds, not nan"),
        ((1, math.inf, "x"), "end must be a finite number of seconds, not inf"),
        ((-0.5, 2, "x"), "start must not be negative: -0.5"),
        ((2, 1, "x"), "ends (1 s) before it starts (2 s)"),
        ((2, 2.0, "x"), "has no length: it starts and ends at 2 s"),
        ((1, 2, b"x"), "caption must be a text, not b'x'"),
        (
            (1, 2, "x", ("speech", "visual")),
            "modalities must be among ('visual', 'audio', 'speech'), each once and in this order: ('speech', 'visual')",
        ),
        (
            (1, 2, "x", ("smell",)),
            "modalities must be among ('visual', 'audio', 'speech'), each once and in this order: ('smell',)",
        ),
        ((1, 2, "x", (), "irony"), f"relation 'irony' is not one of {', '.join(RELATIONS)}"),
    ],
)
def test_events_that_cannot_be(arguments, message):
    with pytest.raises(ValueError) as error:
        Event(*arguments)
    assert str(error.value) == message


def test_modalities_and_relations_that_can_be():
    for relation in RELATIONS:
        assert Event(0, 1, "x", relation=relation).relation == relation
    assert Event(0, 1, "x", list(MODALITIES)).modalities == MODALITIES  # a tuple, whatever was given
    with pytest.raises(ValueError, match="each once"):
        Event(0, 1, "x", ("visual", "visual"))


def test_an_event_may_end_a_little_after_the_duration():
    assert Annotation("a", 60, (Event(0, 60 + DURATION_TOLERANCE_S, "x"),)).events[0].end == 60.5
    with pytest.raises(ValueError, match=r"event 1 ends at 60.51 s, after the video's duration of 60 s"):
        Annotation("a", 60, (Event(0, 60, "x"), Event(0, 60.51, "x")))


@pytest.mark.parametrize("video_id", ["", "  ", None, 7])
def test_ids_that_are_no_text(video_id):
    with pytest.raises(ValueError, match="video id must be a text that is not empty"):
        check_video_id(video_id)


@pytest.mark.parametrize("video_id", ["..", ".", "a/b", "/etc", "a\\b", "a\0"])
def test_ids_that_hold_a_path(video_id):
    with pytest.raises(ValueError, match="must not hold a path"):
        check_video_id(video_id)


@quick
@given(texts.filter(is_accepted))
def test_an_id_stays_in_its_folder(tmp_path_factory, video_id):
    folder = tmp_path_factory.getbasetemp()
    assert (folder / f"{video_id}.npy").parent == folder


def test_ids_of_youtube_are_accepted():
    for video_id in ("-_0aB.c", "...x", "a b"):
        check_video_id(video_id)


@quick
@given(anything)
def test_a_number_is_what_a_float_can_hold(value):
    try:
        right = type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        right = False
    assert is_number(value) == right


# --- strict JSON ------------------------------------------------------------------------------------------------------


@quick
@given(json_values)
def test_json_is_read_as_python_reads_it(value):
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        assert parse_json(text) == json.loads(text)
        assert parse_json(text.encode(errors="backslashreplace")) == json.loads(json.dumps(value))


@quick
@given(st.text() | st.binary() | st.text('[]{}",:0123456789eE+-.\\u truefalsnNI'))
def test_any_other_text_gives_a_value_error(text):
    try:
        value = parse_json(text)
    except ValueError as error:
        assert str(error)
    else:
        assert value == json.loads(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b'{"a": ', "not JSON: Expecting value: line 1 column 7 (char 6)"),
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "'c' appears twice; keep one of them"),
        (b'{"a": NaN}', "NaN is not a number; give a finite value"),
        (b'{"a": [-Infinity]}', "-Infinity is not a number; give a finite value"),
        (b'"\xff"', "not UTF-8 text: 'utf-8' codec can't decode byte 0xff in position 1: invalid start byte"),
        (b"[" * 100_000, "not readable: nested too deeply"),
    ],
    ids=["empty", "blank", "cut", "twice", "nan", "infinity", "latin", "deep"],
)
def test_files_that_are_no_strict_json(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(ValueError) as error:
        load_json(path)
    assert str(error.value) == f"{path}: {message}"


def test_json_with_a_byte_order_mark_and_escapes():
    assert parse_json(b"\xef\xbb\xbf[1]") == [1]
    assert parse_json('["\\ud83d\\ude00", "\\\\ud83d"]') == ["😀", "\\ud83d"]  # a pair, and no escape at all


def test_missing_files_are_named(tmp_path):
    for load in (load_json, load_annotations):
        with pytest.raises(FileNotFoundError) as error:
            load(tmp_path / "none.json")
        assert str(error.value) == f"{tmp_path / 'none.json'}: no such file"


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_file_appears_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write("half")
        file.flush()
        assert path.read_text() == "before"
        raise KeyboardInterrupt
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    with atomic_write(path) as file:
        file.write("whole – 犬")
    assert path.read_text(encoding="utf-8") == "whole – 犬" and list(tmp_path.iterdir()) == [path]
    with atomic_write(path, "wb") as file:
        file.write(b"\xff")
    assert path.read_bytes() == b"\xff"


def test_a_file_has_the_mode_of_any_other(tmp_path):
    (tmp_path / "plain").write_text("")
    with atomic_write(tmp_path / "atomic"):
        pass
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")}
    assert len(modes) == 1


def test_the_folder_of_a_file_is_made(tmp_path):
    with atomic_write(tmp_path / "new" / "folder" / "a.json") as file:
        file.write("{}")
    assert (tmp_path / "new/folder/a.json").read_text() == "{}"


@pytest.mark.parametrize("depth", [201, 900, 5000, 100_000])
@pytest.mark.parametrize("form", ["[%s]", '{"a": {"extra": %s}}', '[1, {"b": "[[", "c": %s}]'])
def test_deep_json_is_refused_in_one_line_however_deep_the_parser_can_go(tmp_path, depth, form):
    path = tmp_path / "deep.json"
    path.write_text(form % ("[" * depth + "]" * depth))
    with pytest.raises(ValueError, match=r"deep\.json: not readable: nested too deeply$"):
        load_json(path)


def test_wide_json_is_not_deep():
    assert parse_json(json.dumps([[[]]] * 1000)) == [[[]]] * 1000
    assert parse_json("[" * 200 + "]" * 200)


#: A process that writes a file and a folder and waits in the middle of it.
HALFWAY = """
import sys, time
from longvale.io import atomic_folder, atomic_write
with atomic_write(sys.argv[1] + "/a.json") as file, atomic_folder(sys.argv[1] + "/b") as folder:
    file.write("half")
    (folder / "c").write_text("half")
    print("halfway", flush=True)
    time.sleep(600)
"""

WRITING = """
import sys
from longvale.io import atomic_folder, atomic_write
with atomic_write(sys.argv[1] + "/a.json") as file:
    file.write("whole")
with atomic_folder(sys.argv[1] + "/b") as folder:
    (folder / "c").write_text("whole")
"""


def test_what_killed_processes_leave_is_removed_and_what_live_ones_write_is_kept(tmp_path):
    command = [sys.executable, "-c", WRITING, str(tmp_path)]
    others = [tmp_path / ".a.json.gz.abcd1234.tmp", tmp_path / ".b.c.abcd1234.partial", tmp_path / ".b.partial"]
    for other in others:
        other.touch()
    with subprocess.Popen([sys.executable, "-c", HALFWAY, str(tmp_path)], stdout=subprocess.PIPE) as halfway:
        try:
            halfway.stdout.readline()
            begun = set(tmp_path.iterdir()) - set(others)
            refused = subprocess.run(command, capture_output=True, text=True, check=False)
            assert f"b: process {halfway.pid} on " in refused.stderr and "give another --output" in refused.stderr
            assert (tmp_path / "a.json").read_text() == "whole" and begun <= set(tmp_path.iterdir())
        finally:
            halfway.kill()
    # Of an earlier version, whose names were made of process ids, which repeat in containers.
    (tmp_path / ".b.1.partial").mkdir()
    subprocess.run(command, check=True)
    assert set(tmp_path.iterdir()) == {tmp_path / "a.json", tmp_path / "b", *others}
    assert (tmp_path / "b" / "c").read_text() == "whole"


def test_the_same_process_id_again(tmp_path):
    (tmp_path / f".b.{os.getpid()}.partial").mkdir()
    with atomic_folder(tmp_path / "b") as folder:
        (folder / "c").touch()
    plain = tmp_path / "plain"
    plain.mkdir()
    assert (tmp_path / "b").stat().st_mode == plain.stat().st_mode
    assert {path.name for path in tmp_path.iterdir()} == {"b", "plain"}


@pytest.mark.parametrize("text", ['\ufeff{"a": 1}\r\n', b'\xef\xbb\xbf{"a": 1}\r\n'])
def test_a_byte_order_mark_is_no_part_of_json(text):
    assert parse_json(text) == {"a": 1}


def test_a_byte_order_mark_inside_a_text_is_kept():
    assert parse_json('["\ufeffa"]') == ["\ufeffa"]
