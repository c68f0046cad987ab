"""Names as files have them."""

import json
import os
import subprocess
import sys

import pytest

from longvale.io import atomic_write
from longvale.system.names import LONGEST_NAME, look_up, printable, spellings, temporary_prefix

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one\ttwo\nthree \u9577 \U0001f469\u200d\U0001f467", "one\ttwo\nthree \u9577 \U0001f469\u200d\U0001f467"),
        ("\x1b[31mred\x1b[0m\x07\r", "\\x1b[31mred\\x1b[0m\\x07\\r"),
        ("\x7f\x85\x9b2J", "\\x7f\\x85\\x9b2J"),
        ("\u202egpj.\u2066exe\u2069", "\\u202egpj.\\u2066exe\\u2069"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        (os.fsdecode(b"bad\xff"), "bad\\udcff"),
    ],
)
def test_what_a_terminal_would_obey_is_written_as_an_escape(text, shown):
    assert printable(text) == shown
    printable(text).encode()  # can be written wherever UTF-8 can


def test_a_name_is_found_however_it_is_composed():
    assert set(spellings(COMPOSED)) == set(spellings(DECOMPOSED)) == {COMPOSED, DECOMPOSED}
    assert look_up({DECOMPOSED: 1}, COMPOSED) == look_up({COMPOSED: 1}, DECOMPOSED) == 1
    assert look_up({DECOMPOSED: 1, COMPOSED: 2}, COMPOSED) == 2  # two files: each by its own name
    assert look_up({COMPOSED: 1}, "cafe") is None


@pytest.mark.parametrize("name", ["x" * LONGEST_NAME, "\u9577" * 85, os.fsdecode(b"\xff" * LONGEST_NAME)])
def test_the_longest_names_can_be_written(tmp_path, name):
    with atomic_write(tmp_path / name) as file:
        file.write("whole")
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_text() == "whole"


def test_long_names_that_begin_alike_have_temporary_names_of_their_own():
    assert temporary_prefix("x" * 250 + "a") != temporary_prefix("x" * 250 + "b")


def test_a_name_with_a_hyphen_in_front_is_explained_or_taken(longvale, tiny_corpus, tmp_path):
    path = tiny_corpus / "longvale-annotations-eval.json"
    path.write_text(path.read_text().replace("test_0000", "-4wsu"))
    (tiny_corpus / "events.jsonl").unlink()
    refused = longvale("plot", "-4wsu", "--data", path)
    assert refused.exit_code == 2 and "a name that begins with a hyphen comes last, behind --" in refused.stderr
    assert "hyphen" not in longvale("plot", "x", "--dat", path).stderr  # a slip of the pen has its own hint
    result = longvale("plot", "--data", path, "--output", tmp_path / "p", "--", "-4wsu")
    assert result.exit_code == 0 and (tmp_path / "p.png").is_file(), result.stderr


HOSTILE = "\x1b]0;owned\x07 \x1b[2J\r\u202egpj.exe \x9b31m"


def test_nothing_that_a_terminal_would_obey_is_printed(longvale, tiny_corpus, tiny_model, tmp_path, monkeypatch):
    video = tiny_corpus / "videos" / "test_0000.mp4"
    hostile = tmp_path / f"{HOSTILE}.mp4"
    hostile.write_bytes(video.read_bytes())
    monkeypatch.setattr("longvale.evaluation.ask.answer_batch", lambda *_: [f"From 00 to 50, {HOSTILE}"])
    annotations = tmp_path / "a.json"
    value = {"duration": 9.0, "timestamps": [[0, 2], [2, 1]], "sentences": [HOSTILE, "x"]}
    annotations.write_text(json.dumps({HOSTILE: value}))
    printed = [
        longvale("ask", tiny_model, video, "What?"),
        longvale("ask", tiny_model, tmp_path / HOSTILE, "What?"),
        longvale("ask", f"{HOSTILE}/x", video, "What?"),
        longvale("plot", HOSTILE, "--data", annotations),
        longvale("plot", HOSTILE, "--data", tiny_corpus, HOSTILE),
        longvale(
            "features", hostile, "--output", tmp_path / HOSTILE / "f", "--model", tiny_model, "--workers", 0, "-q"
        ),
        longvale("plot", "x", f"--{HOSTILE}"),
    ]
    for result in printed:
        assert not set(result.output) & set("\x1b\x07\u202e\x9b") and "\r" not in result.stdout, result.output
        assert "\\x1b" in result.output
    assert HOSTILE in json.loads(annotations.read_text())  # files keep the text


def test_what_is_logged_is_printable_too(tmp_path):
    script = "import sys, logging; from longvale.cli import base\n"
    script += (
        "base.app = lambda **_: logging.getLogger('longvale').warning(sys.argv[1]) or print(sys.argv[1])\nbase.main()"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", script, "\x1b\u9577"], capture_output=True, env=environment, check=True
    )
    assert done.stderr == b"longvale: WARNING: \\x1b\\u9577\n" and done.stdout == b"\x1b\\u9577\n"
