"""Scores for the Hub, read back by huggingface_hub."""

import yaml
from huggingface_hub import parse_eval_result_entries

from longvale.data.sources import HUB_REPO
from longvale.evaluation.reporting.hub_results import save_hub_results
from longvale.evaluation.reporting.published import TEST_QUESTIONS


def scores(questions, missing=0):
    counts = {"questions": questions, "answers": questions - missing, "missing": missing, "parsed_share": 0.5}
    whole = {**counts, "questions": TEST_QUESTIONS["segment_captioning"], "missing": 0}
    return {
        "protocol": "strict",
        "times": "seconds",
        "grounding": {"mIoU": 0.123456, "R@0.5": 0.25, "unshown": 1.0},
        "segment_captioning": {"CIDEr": 1.5},
        "counts": {"grounding": counts, "segment_captioning": whole},
    }


def test_scores_of_the_test_split_are_written_as_the_hub_reads_them(tmp_path):
    path = save_hub_results(tmp_path, scores(TEST_QUESTIONS["grounding"]))
    assert path == tmp_path / ".eval_results" / "longvale.yaml"
    entries = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert {(entry.task_id, entry.value) for entry in entries} == {
        ("grounding/mIoU", 12.35),
        ("grounding/R@0.5", 25.0),
        ("segment_captioning/CIDEr", 150.0),
    }
    assert {entry.dataset_id for entry in entries} == {HUB_REPO}
    assert all("strict" in entry.notes and "50.0%" in entry.notes and "seconds" in entry.notes for entry in entries)


def test_a_part_of_the_split_is_left_out(tmp_path):
    for part in (scores(7), scores(TEST_QUESTIONS["grounding"], missing=1)):
        path = save_hub_results(tmp_path, part)
        assert [entry["dataset"]["task_id"] for entry in yaml.safe_load(path.read_text())] == [
            "segment_captioning/CIDEr"
        ]
        del part["segment_captioning"]
        path.unlink()
        assert save_hub_results(tmp_path, part) is None and not path.exists()
