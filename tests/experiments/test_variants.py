import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from longvale.events import load_annotations
from longvale.experiments import variants
from longvale.synthetic.planning import Piece, plain_caption
from longvale.training.recipes import recipes_dir


@pytest.fixture
def tuned(monkeypatch):
    """In place of the recipe, which tests of its own cover: a copy of the model; what was asked for is noted."""
    asked = []

    def copy(config, *, model, data_dir, features_dir, output_dir, options=()):
        if Path(output_dir).exists():  # the recipe finds it finished
            return
        asked.append((config, str(model), Path(data_dir), Path(output_dir).name, tuple(options)))
        shutil.copytree(model, output_dir)

    monkeypatch.setattr(variants, "run_sft", copy)
    return asked


def result(folder):
    assert (
        (folder / "table.md").is_file()
        and (folder / "plot.svg").read_text().startswith("<?xml")
        and (folder / "plot.png").is_file()
    )
    return json.loads((folder / "result.json").read_text())


def test_boundary_perception_alone_and_its_neighbours(tiny_model, tiny_corpus, tmp_path, tuned):
    options = {"options": ("--max_steps", "1"), "max_new_tokens": 4, "progress": False}
    rows = variants.boundary_only(str(tiny_model), tiny_corpus, tmp_path / "out", **options)
    assert [row["stages"] for row in rows] == ["neither", "boundary perception", "instruction", "both"]
    assert all(0 <= row["mIoU"] <= 1 for row in rows) and result(tmp_path / "out")["rows"] == rows
    # Both starts from what the first stage has left, which is tuned once.
    assert [(config, name) for config, _, _, name, _ in tuned] == [
        ("demo_boundary_perception.yaml", "boundary_perception"),
        ("demo_instruction.yaml", "instruction"),
        ("demo_instruction.yaml", "boundary_perception+instruction"),
    ]
    assert tuned[2][1] == str(tmp_path / "out" / "models" / "boundary_perception")
    assert {asked[-1] for asked in tuned} == {("--max_steps", "1")}
    assert variants.boundary_only(str(tiny_model), tiny_corpus, tmp_path / "out", **options) == rows and len(tuned) == 3


@pytest.mark.slow
def test_captions_with_and_without_correlation(tiny_model, tiny_corpus, tmp_path, tuned):
    rows = variants.correlation_captions(
        str(tiny_model), tiny_corpus, tmp_path / "out", max_new_tokens=4, progress=False
    )
    kinds = ["with correlation", "without"]
    assert [(row["trained"], row["asked"]) for row in rows] == [(a, b) for a in kinds for b in kinds]
    assert result(tmp_path / "out")["rows"] == rows
    written = [json.loads((data / "longvale-sft-bp.json").read_text()) for _, _, data, _, _ in tuned]
    assert len(written) == 2 and written[0] != written[1]
    assert [d["id"] for d in written[0]] == [d["id"] for d in written[1]]
    name = "longvale-annotations-eval.json"
    reasoned, plain = load_annotations(tiny_corpus / name), load_annotations(tmp_path / "out/data/without" / name)
    for video_id, video in reasoned.items():
        for event, other in zip(video.events, plain[video_id].events, strict=True):
            assert (event.start, event.end) == (other.start, other.end)
            assert (event.caption == other.caption) == (other.caption.count(".") == 1)


def test_a_plain_caption_names_every_piece():
    pieces = [Piece("visual", 0, 2, "red ring"), Piece("audio", 0, 2, "bell")]
    caption = plain_caption(pieces)
    assert "red ring" in caption and "bell" in caption and caption.count(".") == 2


def test_the_modality_ablation_by_its_command(tiny_model, tiny_corpus, tmp_path, monkeypatch, capsys):
    script = str(recipes_dir() / "experiments.py")
    arguments = ["modalities", str(tiny_model), "--data", str(tiny_corpus), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [script, *arguments, "--limit", "1"])
    runpy.run_path(script, run_name="__main__")
    rows = result(tmp_path / "out")["rows"]
    assert list(rows[0]) == ["events", "count", "nothing", "V", "V+A", "V+S", "V+A+S"]
    assert "| events | count | nothing | V | V+A | V+S | V+A+S |" in capsys.readouterr().out
