"""The command line: what each command calls and prints. Bad input and killed runs have tests of their own."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import longvale as package
from longvale.cli import app
from longvale.features.store import FeatureStore, feature_path
from longvale.system.interruption import STOPPED, STOPPED_AS_A_WHOLE, STOPPING
from longvale.tasks import dense_captioning_question

METRICS = Path(__file__).parent / "fixtures" / "metrics"

COMMANDS = (
    "demo", "synthesize", "generate", "score", "evaluate", "report", "ask", "init", "convert", "push-model",
    "push-dataset", "plot", "app", "doctor", "features", "annotate",
    "data",
)  # fmt: skip

#: Commands that are groups, by what follows them.
GROUPED = (("data", "stats"), ("data", "prepare"), ("data", "restore"))


def run_python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_lists_the_commands(longvale):
    result = longvale("--help")
    assert result.exit_code == 0
    listed = result.stdout.partition("Commands:")[2]
    assert set(re.findall(r"^  ([\w-]+) ", listed, re.MULTILINE)) >= set(COMMANDS)
    assert "..." not in listed  # each command's line is there as a whole


@pytest.mark.parametrize("words", [*((command,) for command in COMMANDS), *GROUPED], ids="-".join)
def test_help_of_a_command_has_an_example_that_parses(longvale, words):
    result = longvale(*words, "--help")
    assert result.exit_code == 0
    example = re.search(r"Example: longvale (.*)", result.stdout, re.DOTALL)[1].split()
    assert tuple(example[: len(words)]) == words
    options = set(re.findall(r"--[a-z-]+", result.stdout))
    assert {word for word in example if word.startswith("--")} <= options


HELP = """
import sys, time
from longvale.cli import main
sys.argv = ["longvale", "--help"]
try:
    main()
finally:
    print(time.process_time(), *sys.modules)  # not the time on the wall: other processes share the machine
"""


def test_help_is_there_at_once_and_loads_nothing_heavy():
    def seconds():
        done = run_python("-c", HELP)
        assert done.returncode == 0 and "Commands:" in done.stdout
        used, *loaded = done.stdout.splitlines()[-1].split()
        assert not set(loaded) & {"torch", "transformers", "av", "matplotlib", "trl", "peft", "scipy"}
        return float(used)

    assert any(seconds() < 1.5 for _ in range(3))


def test_version(longvale):
    assert longvale("--version").stdout == f"longvale {package.__version__}\n"
    assert run_python("-m", "longvale", "--version").stdout == f"longvale {package.__version__}\n"


def test_usage_errors_are_bad_input(longvale):
    for arguments in (["sing"], ["evaluate"], ["synthesize", "x", "--videos", "many"], ["ask", "--nonsense"]):
        result = longvale(*arguments)
        assert result.exit_code == 2
        assert result.stdout == "" and "Usage: longvale" in result.stderr and "Error: " in result.stderr


def test_synthesize(longvale, tmp_path, contents):
    arguments = [
        "--videos",
        1,
        "--seed",
        3,
        "--size",
        32,
        "--fps",
        2,
        "--min-length",
        5,
        "--max-length",
        6,
        "--grid",
        0,
    ]
    result = longvale("synthesize", tmp_path / "corpus", *arguments)
    assert result.exit_code == 0, result.stderr
    assert "1 train, 1 test," in result.stdout and "2 rendered, 0 kept" in result.stdout
    assert "videos: 100%" in result.stderr
    settings = json.loads((tmp_path / "corpus" / "synthetic.json").read_text())
    assert settings["seed"] == 3
    chosen = {"size": 32, "fps": 2, "min_length_s": 5.0, "max_length_s": 6.0, "grid": 0, "voice": "formant"}
    assert chosen.items() <= settings["options"].items()
    before = contents(tmp_path / "corpus")
    again = longvale("synthesize", tmp_path / "corpus", *arguments, "--quiet")
    assert "0 rendered, 2 kept" in again.stdout and again.stderr == ""
    assert contents(tmp_path / "corpus") == before


def test_features_with_a_model(longvale, tiny_corpus, tiny_model, tmp_path):
    result = longvale("features", tiny_corpus / "videos", "--output", tmp_path / "f", "--model", tiny_model)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'f'}: 4 done, 0 there already, 0 failed\n"
    assert "100%" in result.stderr and "untrained" not in result.stderr
    for video_id in ("train_0000", "test_0000"):
        made = FeatureStore(tmp_path / "f").load(video_id)
        stored = FeatureStore(tiny_corpus / "features").load(video_id)
        for modality, values in made.items():
            np.testing.assert_array_equal(values, stored[modality])
    again = longvale("features", tiny_corpus / "videos", "--output", tmp_path / "f", "--model", tiny_model, "-q")
    assert "0 done, 4 there already" in again.stdout


def test_features_without_a_model_say_that_they_are_worth_nothing(longvale, tiny_corpus, tmp_path):
    result = longvale("features", tiny_corpus / "videos" / "test_0000.mp4", "--output", tmp_path / "f", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("longvale: warning: no --model, so the towers are tiny and untrained")
    assert result.stdout == f"{tmp_path / 'f'}: 1 done, 0 there already, 0 failed\n"
    assert FeatureStore(tmp_path / "f").load("test_0000")["visual"].shape[0] > 1


def test_generate_then_score_is_what_evaluate_does(longvale, tiny_corpus, tiny_model, tmp_path):
    common = [tiny_model, "--data", tiny_corpus, "--max-new-tokens", 6, "--limit", 2, "--tasks", "grounding"]
    log, references = tmp_path / "p.jsonl", tiny_corpus / "longvale-annotations-eval.json"
    result = longvale("generate", *common, "--output", log, "--batch-size", 3)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"answers: {log}\n" and "answers: 100%" in result.stderr

    result = longvale("score", log, "--references", references, "--output", tmp_path / "s.json", "--partial")
    assert result.exit_code == 0, result.stderr
    table = result.stdout
    assert table.startswith("grounding") and "protocol strict" in table

    result = longvale("evaluate", *common, "--output", tmp_path / "e", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{table}report: {tmp_path / 'e' / 'report.html'}\n"
    assert (tmp_path / "e" / "predictions.jsonl").read_bytes() == log.read_bytes()
    assert (tmp_path / "e" / "scores.json").read_bytes() == (tmp_path / "s.json").read_bytes()

    official = longvale("score", log, "--references", references, "--partial", "--protocol", "official")
    assert "protocol official" in official.stdout


def test_scores_by_video_are_compared(longvale, tmp_path):
    files = ["--references", METRICS / "tiny.annotations.json", "--protocol", "official"]
    lines = (METRICS / "tiny.log.jsonl").read_text(encoding="utf-8").splitlines()
    worse = [json.dumps({**json.loads(line), "answer": "I do not know."}) for line in lines]
    (tmp_path / "worse.jsonl").write_text("\n".join(worse), encoding="utf-8")
    for name, log in (("a", METRICS / "tiny.log.jsonl"), ("b", tmp_path / "worse.jsonl")):
        result = longvale("score", log, *files, "--per-video", tmp_path / f"{name}.json")
        assert result.exit_code == 0, result.stderr
    videos = json.loads((tmp_path / "a.json").read_text())["videos"]
    assert len(videos) == 5 and videos["Awr7paMPbfx"]["grounding"]["count"] > 0

    result = longvale("score", "--compare", tmp_path / "a.json", tmp_path / "b.json")
    assert result.exit_code == 0, result.stderr
    row = next(line for line in result.stdout.splitlines() if "mIoU" in line)
    assert row.split()[-4:-2] != ["+0.00", "to"] and " 0.00" in row and row.endswith("*")

    result = longvale("score", "--compare", tmp_path / "a.json", METRICS / "tiny.annotations.json")
    assert result.exit_code == 2 and "holds no scores by video" in result.stderr
    result = longvale("score", METRICS / "tiny.log.jsonl")
    assert result.exit_code == 2 and "--references" in result.stderr
    result = longvale("score", METRICS / "tiny.log.jsonl", "--compare", tmp_path / "a.json", tmp_path / "b.json")
    assert result.exit_code == 2 and "--compare takes no other options" in result.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 2: not JSON"),
        ('{"video_id": "Awr7paMPbfx", "task": "singing", "answer": ""}', "line 2: unknown task 'singing'"),
        ('{"video_id": "vid_z", "task": "captioning", "answer": ""}', "that is not in the annotations"),
        (
            '{"video_id": "Awr7paMPbfx", "task": "grounding", "answer": "", "info": {"sentence_id": 99}}',
            "sentence 99",
        ),
        ('{"video_id": "Awr7paMPbfx", "task": "grounding", "answer": "", "info": {"sentence_id": -1}}', "not -1"),
        (None, "holds no answer"),
    ],
)
def test_logs_that_cannot_be_scored(longvale, tmp_path, line, message):
    first = (METRICS / "tiny.log.jsonl").read_text(encoding="utf-8").splitlines()[0]
    (tmp_path / "p.jsonl").write_text("" if line is None else f"{first}\n{line}\n", encoding="utf-8")
    output = tmp_path / "s.json"
    result = longvale(
        "score", tmp_path / "p.jsonl", "--references", METRICS / "tiny.annotations.json", "--output", output
    )
    assert result.exit_code == 2
    assert message in result.stderr and "p.jsonl" in result.stderr and len(result.stderr.splitlines()) == 1
    assert not output.exists()


def test_options_of_generate_reach_it(longvale, monkeypatch, tmp_path):
    from longvale.evaluation.generation.sampling import Decoding

    calls = []
    monkeypatch.setattr(
        "longvale.evaluation.generation.generate.generate", lambda *a, **k: calls.append((a, k)) or tmp_path / "p"
    )
    arguments = "m --data d --output p --tasks grounding,dense_captioning --split train --videos v --modalities audio"
    arguments += " --temperature 0.05 --seed 3"
    longvale(
        "generate", *arguments.split(), "--batch-size", 2, "--skip-missing", "--overwrite", "--device", "cpu", "-q"
    )
    ((positional, options),) = calls
    assert [str(value) for value in positional] == ["m", "d", "p"]
    assert {name: value for name, value in options.items() if value is not None} | {"videos": "v"} == {
        "tasks": ["grounding", "dense_captioning"],
        "split": "train",
        "videos": "v",
        "modalities": ["audio"],
        "batch_size": 2,
        "batch_tokens": 32_768,
        "decoding": Decoding(0.05, 3),
        "skip_missing": True,
        "overwrite": True,
        "device": "cpu",
        "load_in_4bit": False,
        "progress": False,
    }


def test_evaluate_with_ablation_prints_it(longvale, tiny_corpus, tiny_model, tmp_path):
    options = ["--max-new-tokens", 2, "--limit", 1, "--tasks", "grounding", "--ablation", "--quiet"]
    result = longvale("evaluate", tiny_model, "--data", tiny_corpus, "--output", tmp_path / "e", *options)
    assert result.exit_code == 0, result.stderr
    assert "grounding mIoU x 100" in result.stdout and "visual+audio" in result.stdout
    assert {"predictions.jsonl", "scores.json", "ablation.json", "report.html"} <= set(os.listdir(tmp_path / "e"))


def test_ask(longvale, tiny_corpus, tiny_model, monkeypatch):
    video = tiny_corpus / "videos" / "test_0000.mp4"
    result = longvale("ask", tiny_model, video, "When does the bell ring?", "--max-new-tokens", 4)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip()
    monkeypatch.setattr("longvale.evaluation.ask.answer_batch", lambda *_: ["From 50 to 99."])
    result = longvale("ask", tiny_model, video, "When does the bell ring?", "--task", "grounding")
    assert result.stdout.startswith("From 50 to 99.\n\n") and "|------------------------------####" in result.stdout


def test_ask_saves_the_events_in_the_format_of_the_name(longvale, tiny_corpus, tiny_model, tmp_path, monkeypatch):
    video = tiny_corpus / "videos" / "test_0000.mp4"
    monkeypatch.setattr("longvale.evaluation.ask.answer_batch", lambda *_: ["From 50 to 99, a bell rings."])
    result = longvale("ask", tiny_model, video, "What happens?", "--output", tmp_path / "events.vtt")
    assert result.exit_code == 0, result.stderr
    assert "a bell rings." in (tmp_path / "events.vtt").read_text()
    result = longvale("ask", tiny_model, video, "What happens?", "--output", tmp_path / "events.doc")
    assert result.exit_code == 2 and "unknown format" in result.stderr


def test_ask_for_all_events_and_draw_them(longvale, tiny_corpus, tiny_model, monkeypatch, tmp_path):
    video, asked = tiny_corpus / "videos" / "test_0000.mp4", []
    answers = iter(["From 00 to 50, a bell rings.\nFrom 50 to 99, a dog barks.", "Nothing happens."])

    def answer(model, processor, questions, *_):
        asked.extend(questions)
        return [next(answers)]

    monkeypatch.setattr("longvale.evaluation.ask.answer_batch", answer)
    result = longvale("ask", tiny_model, video, "--plot", tmp_path / "out" / "events")
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["events.png", "events.svg"]
    assert asked == [dense_captioning_question()]
    result = longvale("ask", tiny_model, video, "--plot", tmp_path / "none")
    assert result.exit_code == 0 and "the answer names no event" in result.stderr and not list(tmp_path.glob("none*"))
    result = longvale("ask", tiny_model, video, "--task", "grounding")
    assert result.exit_code == 2 and "give a question: grounding asks about one event" in result.stderr


def test_ask_words_the_questions_of_a_task(longvale, tiny_corpus, tiny_model, monkeypatch):
    video, asked = tiny_corpus / "videos" / "test_0000.mp4", []
    monkeypatch.setattr("longvale.evaluation.ask.answer_batch", lambda m, p, q, *_: asked.extend(q) or ["From 1 to 2."])
    for words in (["grounding", "A", "bell rings."], ["segment_captioning", "1", "3.5"]):
        result = longvale("ask", tiny_model, video, "--task", *words)
        assert result.exit_code == 0, result.stderr
    assert "can we find a bell rings taking place" in asked[0] and "describe what occurred from" in asked[1]
    for words in ("1 x", "3 1"):
        result = longvale("ask", tiny_model, video, "--task", "segment_captioning", *words.split())
        assert result.exit_code == 2 and "FROM" in result.stderr
    assert "Without a question" in " ".join(longvale("ask", "--help").stdout.split())


def test_errors_that_are_no_bad_input_are_not_hidden(monkeypatch, tmp_path):
    def broken(*arguments, **options):
        raise RuntimeError("a bug")

    monkeypatch.setattr("longvale.evaluation.scoring.score.score", broken)
    result = CliRunner().invoke(app, ["score", "p", "--references", "r"])
    assert isinstance(result.exception, RuntimeError)


def test_debugging_shows_where_an_error_comes_from(tmp_path):
    arguments = ("-m", "longvale", "score", tmp_path / "none.jsonl", "--references", tmp_path / "none.json")
    plain = run_python(*arguments)
    assert plain.returncode == 2
    assert plain.stderr == f"longvale: error: {tmp_path / 'none.jsonl'}: no such file\n"
    debugged = run_python(*arguments, LONGVALE_DEBUG="1")
    assert debugged.returncode == 2
    assert debugged.stderr.startswith("Traceback (most recent call last):") and debugged.stderr.endswith(plain.stderr)


def test_system_errors_are_one_line_too(longvale, tiny_corpus, tmp_path):
    (tmp_path / "file").touch()
    options = ["--videos", 1, "--size", 32]
    result = longvale("synthesize", tmp_path / "file" / "below", *options)
    assert result.exit_code == 2
    assert result.stderr.startswith("longvale: error: ") and result.stderr.count("\n") == 1
    assert str(tmp_path / "file") in result.stderr


INTERRUPTED = """
import os, signal, sys
import longvale.extraction.extract as extraction
save, saved = extraction.save_features, []

def save_features(*arguments):
    save(*arguments)
    saved.append(arguments)
    if len(saved) == 2:
        os.kill(os.getpid(), signal.SIGINT)

extraction.save_features = save_features
sys.argv = ["longvale", *sys.argv[1:]]
from longvale.cli import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_advises_to_run_again_only_what_resumes(preloaded, tmp_path):
    """A score is computed again from the start."""
    script = INTERRUPTED.partition("import longvale")[0] + INTERRUPTED_SCORE
    done = preloaded.run("-c", script, "score", tmp_path / "log", "--references", tmp_path / "references")
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.endswith(f"{STOPPED_AS_A_WHOLE}\n") and "again" not in done.stderr


INTERRUPTED_SCORE = """
import longvale.evaluation.scoring.score as score
score.score = lambda *arguments, **options: os.kill(os.getpid(), signal.SIGINT)
sys.argv = ["longvale", *sys.argv[1:]]
from longvale.cli import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_says_that_nothing_is_lost(longvale, preloaded, tiny_corpus, tiny_model, tmp_path):
    arguments = ["features", tiny_corpus / "videos", "--output", tmp_path / "f", "--model", tiny_model]
    done = preloaded.run("-c", INTERRUPTED, *arguments)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.endswith(f"{STOPPED}\n") and done.stderr.count(f"{STOPPING}\n") == 1
    assert "Traceback" not in done.stderr
    # What had come out of the towers when the signal came is written too.
    written = len(list(feature_path(tmp_path / "f", "-", "visual").parent.glob("*.npy")))
    assert 2 <= written <= 4
    assert f"{4 - written} done, {written} there already, 0 failed" in longvale(*arguments).stdout
