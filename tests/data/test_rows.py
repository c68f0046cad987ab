"""The rows of `load_dataset("longvale", ...)` are what training and evaluation read."""

import datasets
import numpy as np
import pytest

import longvale  # noqa: F401 (registers the name)
from longvale.checkpoints.loading import load_checkpoint
from longvale.evaluation.generation.generate import load_questions
from longvale.events import MODALITIES
from longvale.models.configuration_longvale import LongVALEConfig
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.tasks import TASKS
from longvale.training.config import SFTStageConfig
from longvale.training.data import load_training_set
from longvale.training.grounding_callback import load_grounding_set
from longvale.training.grpo import GRPOStageConfig
from longvale.training.grpo import load_questions as load_prompts


def load(corpus, tmp_path, name, split, **options):
    return datasets.load_dataset(
        "longvale", name, data_dir=str(corpus), split=split, cache_dir=str(tmp_path / "cache"), **options
    )


@pytest.mark.parametrize("stage", ["boundary_perception", "instruction"])
def test_a_stage_trains_on_the_rows_of_the_dataset(tiny_corpus, tiny_model, tmp_path, stage):
    features = str(tiny_corpus / "features")
    given = {"model": str(tiny_model), "data_dir": str(tiny_corpus), "features_dir": features, "stage": stage}
    found = load_training_set(SFTStageConfig(**given), LongVALEConfig.from_pretrained(tiny_model))
    rows = load(tiny_corpus, tmp_path, stage, "train", features_dir=features)
    assert len(found) == len(rows) > 0
    for row, expected in zip(found, rows, strict=True):
        assert (row["id"], row["messages"]) == (expected["id"], expected["messages"])
        for modality in MODALITIES:
            np.testing.assert_array_equal(row[f"{modality}_features"], expected[f"{modality}_features"])


def test_evaluation_asks_the_questions_of_the_dataset(tiny_corpus, tmp_path):
    for task in TASKS:
        _, asked, _ = load_questions(tiny_corpus, [task])
        rows = load(tiny_corpus, tmp_path, task, "test")
        assert [(q.video_id, q.question, q.reference) for q in asked] == [
            (row["video_id"], row["question"], row["reference"]) for row in rows
        ]
        assert [q.sentence_id for q in asked] == [row.get("sentence_id") for row in rows]
        assert len(asked) >= 3


def test_grpo_and_its_measurements_ask_them_too(tiny_corpus, tiny_model, tmp_path):
    features = str(tiny_corpus / "features")
    args = GRPOStageConfig(
        model="m", data_dir=str(tiny_corpus), features_dir=features, tasks=["grounding", "dense_captioning"]
    )
    found = load_prompts(args, LongVALEConfig.from_pretrained(tiny_model).feature_sizes).remove_columns("id")
    grounding = load(tiny_corpus, tmp_path, "grounding", "train")
    dense = load(tiny_corpus, tmp_path, "dense_captioning", "train")
    assert [row["prompt"][0]["content"] for row in found] == [*grounding["question"], *dense["question"]]
    assert [(row["start"], row["end"]) for row in found][: len(grounding)] == [
        *zip(grounding["start"], grounding["end"], strict=True)
    ]
    known = [{name: event[name] for name in ("start", "end", "caption")} for event in dense[0]["events"]]
    assert all(row["events"] == known for row in found)  # the corpus has one training video

    model, processor = load_checkpoint(tiny_model, LongVALEForConditionalGeneration, device="cpu")
    asked = load_grounding_set(str(tiny_corpus), features, 3, model, processor)
    rows = load(tiny_corpus, tmp_path, "grounding", "test")
    assert list(asked.questions) == [*rows["question"]]
    expected = [(row["start"] / row["duration"], row["end"] / row["duration"]) for row in rows]
    assert list(asked.spans) == expected
