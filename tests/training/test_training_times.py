"""Time formats as an option of training LongVALE's own model: rows, checkpoint, later stages, GRPO."""

import json
import runpy
import sys

import pytest

from longvale.demo.tuning import DemoOptions
from longvale.models.configuration_longvale import LongVALEConfig
from longvale.training.config import SFTStageConfig
from longvale.training.data import load_training_set
from longvale.training.grpo import GRPOStageConfig, load_questions
from longvale.training.recipes import recipes_dir
from longvale.training.stages import load_base


def stage(corpus, base, **options):
    return SFTStageConfig(model=str(base), data_dir=str(corpus), features_dir=str(corpus / "features"), **options)


def texts(row):
    return " ".join(message["content"] for message in row["messages"])


@pytest.mark.parametrize("streaming", [False, True])
def test_dialogues_have_times_in_the_format(corpus, base, streaming):
    args = stage(corpus, base, times="seconds", streaming=streaming, max_steps=1)
    model, _ = load_base(args)
    assert model.config.time_format == "seconds"
    row = next(iter(load_training_set(args, model.config)))
    (dialogue,) = (d for d in json.loads((corpus / "longvale-sft-bp.json").read_text()) if d["id"] == row["id"])
    for number in range(len(dialogue["meta"]["token"]) // 2):
        start, end = (dialogue["meta"]["token"][f"<{kind}{number}>"] for kind in "se")
        assert f"rom {start:.1f} to {end:.1f} seconds" in texts(row)
    published = next(iter(load_training_set(stage(corpus, base), load_base(stage(corpus, base))[0].config)))
    assert "seconds" not in texts(published)


def test_the_checkpoint_remembers_its_format_and_the_next_stage_keeps_it(corpus, base, tmp_path, monkeypatch, capsys):
    def run(**options):
        options = {
            "config": recipes_dir() / "configs" / "boundary_perception.yaml", "model": base, "data_dir": corpus,
            "features_dir": corpus / "features", "output_dir": tmp_path / "out", "max_steps": 1, "lora_r": 4,
            "effective_batch_size": 2, "per_device_train_batch_size": 2, "max_length": 512, "report_to": "none",
            "save_strategy": "no", "gradient_checkpointing": False, "grounding_videos": 1, "grounding_steps": 1,
            "dataloader_num_workers": 0, **options,
        }  # fmt: skip
        words = [part for option, value in options.items() for part in (f"--{option}", str(value))]
        monkeypatch.setattr(sys, "argv", ["sft.py", *words])
        runpy.run_path(str(recipes_dir() / "sft.py"), run_name="__main__")

    run(times="seconds")
    history = json.loads((tmp_path / "out" / "log_history.json").read_text())
    assert any("grounding_miou" in entry for entry in history)
    args = stage(corpus, tmp_path / "out", stage="instruction")
    model, _ = load_base(args)
    assert model.config.time_format == "seconds"
    assert "seconds" in " ".join(texts(row) for row in load_training_set(args, model.config).select(range(20)))
    with pytest.raises(SystemExit):
        run(times="clock")
    assert "was made with times 'seconds', not 'clock'" in capsys.readouterr().err


def test_questions_of_grpo_are_in_the_format(corpus, base):
    args = GRPOStageConfig(
        model=str(base), data_dir=str(corpus), features_dir=str(corpus / "features"),
        tasks=["grounding", "segment_captioning"], rewards=["temporal_iou", "caption_meteor"], report_to="none",
    )  # fmt: skip
    rows = load_questions(args, {}, "seconds").with_format(None)
    grounding = next(row for row in rows if row["task"] == "grounding")
    segment = next(row for row in rows if row["task"] == "segment_captioning")
    span = f"rom {segment['start']:.1f} to {segment['end']:.1f} seconds"
    assert grounding["times"] == "seconds" and grounding["reference"].startswith(f"From {grounding['start']:.1f} to ")
    assert span in segment["prompt"][0]["content"]
    published = load_questions(args, {}).with_format(None)
    assert published[0]["times"] == "" and "seconds" not in published[0]["reference"]


def test_formats_that_cannot_be_are_refused(corpus, base):
    with pytest.raises(ValueError, match=r"times: dialogues have times within sentences, which 'json' does not write"):
        stage(corpus, base, times="json")
    with pytest.raises(ValueError, match=r"unknown .*'fortnights'"):
        stage(corpus, base, times="fortnights")
    config = LongVALEConfig(text_config={"model_type": "llama", "hidden_size": 64}, time_format="clock")
    with pytest.raises(ValueError, match="mosaic supports timecodes"):
        DemoOptions(mosaic=4).training_set(stage(corpus, base), config)
