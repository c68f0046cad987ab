"""The demo with as little of everything as can be: what it writes, and that it goes on where it was stopped."""

import json
import sys

import pytest

from longvale.demo import run
from longvale.demo.run import DemoSettings, run_demo

# Fewer videos do not show every shape.
SETTINGS = DemoSettings(
    train_videos=128,
    test_videos=2,
    tower_epochs=(1, 1, 1),
    text_steps=2,
    look_up_steps=2,
    stage_steps=(2, 2),
)


@pytest.mark.slow
def test_from_corpus_to_report_and_again(tmp_path, monkeypatch, contents):
    tune, stages = run.tune, []

    def stopped(stage, *arguments):
        if stage == "instruction":
            raise KeyboardInterrupt
        stages.append(stage)
        tune(stage, *arguments)

    monkeypatch.setattr(run, "tune", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path, progress=False, settings=SETTINGS)
    assert stages == ["boundary_perception"]
    base = contents(tmp_path / "models" / "base")

    monkeypatch.setattr(run, "tune", lambda stage, *arguments: stages.append(stage) or tune(stage, *arguments))
    scores = run_demo(tmp_path, progress=False, settings=SETTINGS)
    assert stages == ["boundary_perception", "instruction"]
    assert contents(tmp_path / "models" / "base") == base
    assert {k: v for k, v in scores.items() if k != "videos"} == json.loads((tmp_path / "scores.json").read_text())
    assert (tmp_path / "model" / "config.json").is_file() and (tmp_path / "report.html").is_file()

    files = contents(tmp_path)
    assert run_demo(tmp_path, progress=False, settings=SETTINGS) == scores
    assert stages == ["boundary_perception", "instruction"]
    again = contents(tmp_path)
    changed = {name for name in files.keys() | again.keys() if files.get(name) != again.get(name)}
    assert changed <= {"demo.json", "report.html"}  # which tell the time


def test_a_folder_keeps_its_settings(tmp_path):
    (tmp_path / "demo.json").write_text(json.dumps({"settings": {"seed": 3}, "seconds": {}}))
    with pytest.raises(ValueError, match=r"demo\.json: was made with settings\.seed 3, not 0; give another"):
        run_demo(tmp_path, progress=False)


@pytest.mark.parametrize("python", ["false", pytest.param(sys.executable, marks=pytest.mark.slow, id="python")])
def test_a_stage_that_fails_says_so(tmp_path, monkeypatch, python):
    monkeypatch.setattr(sys, "executable", python)  # starting the launcher and the recipe takes many seconds
    with pytest.raises(RuntimeError, match="boundary_perception ended with exit code 1: "):
        run.tune("boundary_perception", tmp_path / "none", tmp_path, tmp_path / "out", 1, 0)
