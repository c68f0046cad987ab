"""Killed with SIGKILL wherever it hurts, and run again: the same files, and nothing done twice."""

import json
import os
import pkgutil
import signal

import pytest

from longvale.evaluation.generation.video_qa import VideoQA

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")

#: The command line in a process of its own, which kills itself when a function is called for the n-th time.
SCRIPT = """
import os, pkgutil, signal, sys

owner, function, call, *arguments = sys.argv[1:]
owner, left = pkgutil.resolve_name(owner), int(call)
original = getattr(owner, function)

def deadly(*args, **kwargs):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)

setattr(owner, function, deadly)
sys.argv = ["longvale", *arguments]
from longvale.cli import main
main()
"""


@pytest.fixture
def kill(preloaded):
    """Kill a command at a call of a function: `kill("module.function", call, *arguments)`."""

    def run(function, call, *arguments):
        owner, _, name = function.rpartition(".")
        done = preloaded.run("-c", SCRIPT, owner, name, call, *arguments)
        assert done.returncode == -signal.SIGKILL, done.stderr

    return run


@pytest.fixture
def count_calls(monkeypatch):
    """Count the calls of a function: `count_calls("module.function")` -> list of their arguments."""

    def count(name):
        original, calls = pkgutil.resolve_name(name), []
        monkeypatch.setattr(name, lambda *a, **k: calls.append(a) or original(*a, **k))
        return calls

    return count


@pytest.fixture(scope="module")
def corpus(_corpus):
    """The corpus of `tiny_corpus`, which no test of this file changes."""
    return _corpus


@pytest.fixture(scope="module")
def whole_features(longvale, corpus, tiny_model, tmp_path_factory):
    """Features of the corpus by a command that was not killed."""
    folder = tmp_path_factory.mktemp("features") / "whole"
    assert longvale("features", corpus / "videos", "--model", tiny_model, "--output", folder).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def whole_evaluation(longvale, corpus, tiny_model, tmp_path_factory):
    """An evaluation that was not killed, and the number of questions that it asked."""
    folder = tmp_path_factory.mktemp("evaluation") / "whole"
    original, asked = VideoQA._begin, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VideoQA, "_begin", lambda *a, **k: asked.append(a) or original(*a, **k))
        assert longvale("evaluate", tiny_model, *options(corpus), "--output", folder).exit_code == 0
    return folder, len(asked)


def options(corpus):
    return ["--data", corpus, "--batch-size", 4, "--max-new-tokens", 4, "--ablation"]


def finished(folder):
    """Files by path with what tells a file that was written again: its inode and the time of its last change."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*.npy")}


@pytest.mark.parametrize(
    ("function", "call", "done"),
    [
        ("longvale.extraction.extract.save_features", 3, 2),
        # Of the renames the first is the manifest's, then come three a video: this is in the middle of the second's.
        pytest.param("os.replace", 6, 1, marks=pytest.mark.slow),
        # All videos are there, the manifest is not in order yet.
        pytest.param("os.replace", 1 + 3 * 4 + 1, 4, marks=pytest.mark.slow),
    ],
)
def test_features(
    longvale, kill, count_calls, contents, corpus, tiny_model, whole_features, tmp_path, function, call, done
):
    command = ["features", corpus / "videos", "--model", tiny_model, "--output"]
    kill(function, call, *command, tmp_path / "killed")
    videos = sorted(path.stem for path in (corpus / "videos").iterdir())
    kept = {path: mark for path, mark in finished(tmp_path / "killed").items() if path.stem in videos[:done]}
    assert len(kept) == 3 * done

    read = count_calls("longvale.extraction.preprocess.prepare")
    result = longvale(*command, tmp_path / "killed")
    assert result.stdout == f"{tmp_path / 'killed'}: {4 - done} done, {done} there already, 0 failed\n", result.stderr
    assert len(read) == 4 - done
    assert kept.items() <= finished(tmp_path / "killed").items()
    assert contents(tmp_path / "killed") == contents(whole_features)


#: Called once for the answers that end at the same time, and once for each question that is asked.
ANSWER = "longvale.evaluation.generation.video_qa.decode_answers"
ASK = "longvale.evaluation.generation.video_qa.VideoQA._begin"


@pytest.mark.parametrize(
    ("function", "call", "left"),
    [
        (ANSWER, 4, True),
        pytest.param(ANSWER, 15, True, marks=pytest.mark.slow),  # in the middle of the ablation
        # Nothing is left to ask.
        pytest.param("longvale.evaluation.evaluate.write_report", 1, False, marks=pytest.mark.slow),
    ],
)
def test_evaluate(
    longvale, kill, count_calls, contents, corpus, tiny_model, whole_evaluation, tmp_path, function, call, left
):
    command = ["evaluate", tiny_model, *options(corpus), "--output"]
    whole, total = whole_evaluation
    kill(function, call, *command, tmp_path / "killed")
    answered = {path: path.read_text().splitlines() for path in (tmp_path / "killed").rglob("*.jsonl")}
    done = sum(map(len, answered.values()))
    assert 0 < done <= total and (done < total) == left

    asked = count_calls(ASK)
    result = longvale(*command, tmp_path / "killed")
    assert result.exit_code == 0, result.stderr
    assert len(asked) == total - done
    assert contents(tmp_path / "killed") == contents(whole)
    for path, lines in answered.items():
        assert set(lines) <= set(path.read_text().splitlines())


def test_generate_goes_on_after_a_line_that_was_cut_off(longvale, kill, count_calls, tiny_corpus, tiny_model, tmp_path):
    options = ["--data", tiny_corpus, "--tasks", "grounding", "--batch-size", 4, "--max-new-tokens", 4]
    command = ["generate", tiny_model, *options, "--output"]
    asked = count_calls(ASK)
    assert longvale(*command, tmp_path / "whole.jsonl").exit_code == 0
    total = len(asked)
    kill(ANSWER, 3, *command, tmp_path / "killed.jsonl")
    log = tmp_path / "killed.jsonl"
    done = len(log.read_text().splitlines())
    assert 1 < done < total
    log.write_text(log.read_text()[:-20])  # the kill came in the middle of a line

    asked.clear()
    assert longvale(*command, log).exit_code == 0
    assert log.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len(asked) == total - (done - 1)  # what was answered is not asked again, the cut one is
    run = json.loads((tmp_path / "killed.jsonl.run.json").read_text())
    assert run == json.loads((tmp_path / "whole.jsonl.run.json").read_text())


def test_synthesize(longvale, kill, contents, tmp_path):
    options = ["--videos", 3, "--test-videos", 1, "--workers", 1]
    options += ["--size", 32, "--fps", 2, "--min-length", 5, "--max-length", 6]
    assert longvale("synthesize", tmp_path / "whole", *options).exit_code == 0
    kill("longvale.synthetic.corpus.render_sound", 3, "synthesize", tmp_path / "killed", *options)
    result = longvale("synthesize", tmp_path / "killed", *options)
    assert result.stdout.endswith("2 rendered, 2 kept\n"), result.stderr
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_prepare(longvale, kill, contents, tiny_corpus, tmp_path):
    command = ["data", "prepare", tiny_corpus, "--output"]
    assert longvale(*command, tmp_path / "a" / "whole").exit_code == 0
    kill("longvale.data.publish.prepare.write_card", 1, *command, tmp_path / "b" / "killed")
    (unfinished,) = (tmp_path / "b").glob(".killed.*.partial")
    # A container has the same process ids each time: the name that an earlier version gave.
    unfinished.rename(tmp_path / "b" / f".killed.{os.getpid()}.partial")
    assert longvale(*command, tmp_path / "b" / "killed").exit_code == 0
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["killed"]
    assert contents(tmp_path / "b" / "killed") == contents(tmp_path / "a" / "whole")
