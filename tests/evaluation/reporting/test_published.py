"""Scores of others are beside those of runs, and ranked only under equal conditions."""

import pytest
import yaml

from longvale.evaluation.reporting.published import TEST_QUESTIONS, load_published, published_file, published_tables
from longvale.tasks import TASKS

RUNS = {"A": {"mIoU": 0.05, "R@0.3": 0.1}, "B": {"mIoU": 0.2, "R@0.3": 0.3}}


def test_the_file_names_a_source_for_every_score():
    scores = load_published()
    assert {score.task for score in scores} == set(TASKS) and all(score.source for score in scores)
    (longvale,) = (score for score in scores if score.model == "LongVALE-LLM" and score.task == "grounding")
    assert longvale.scores == {"mIoU": 0.11, "R@0.3": 0.157, "R@0.5": 0.086, "R@0.7": 0.039} and not longvale.secondary
    assert sum(score.secondary for score in scores) > 3


def names(table):
    return [row[0] for row in table.rows]


def test_runs_are_ranked_with_what_was_measured_alike():
    tables = published_tables("grounding", RUNS, "official", TEST_QUESTIONS["grounding"], load_published())
    first, *others = tables
    assert first.caption == "test; protocol official; parser official"
    assert names(first) == ["run B", "LongVALE-LLM", "VTimeLLM", "run A"]
    assert not [name for table in others for name in names(table) if name.startswith("run")]
    assert all("not ranked" in table.caption for table in others)
    assert any("(secondary)" in row[-1] for table in others for row in table.rows)


@pytest.mark.parametrize(("protocol", "questions"), [("strict", TEST_QUESTIONS["grounding"]), ("official", 7)])
def test_other_protocols_and_questions_are_not_ranked_together(protocol, questions):
    first, *others = published_tables("grounding", RUNS, protocol, questions, load_published())
    assert names(first) == ["run B", "run A"] and "LongVALE-LLM" in [name for table in others for name in names(table)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "tracking"}, "entry 1: unknown task 'tracking'"),
        ({"scores": {}}, "entry 1: scores must be numbers by name"),
        ({"scores": {"mAP": 1}}, "entry 1: unknown score 'mAP'"),
        ({"source": None}, "entry 1: source must be a text, not None"),
    ],
)
def test_wrong_entries_are_refused(tmp_path, change, words):
    entry = yaml.safe_load(published_file().read_text())[0] | change
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump([entry]))
    with pytest.raises(ValueError, match=words):
        load_published(path)
    path.write_text("a: [")
    with pytest.raises(ValueError, match="not YAML"):
        load_published(path)
