"""A judge that checks off dense captions, against a server that reads both lists of its prompt."""

import json
import re

import pytest
from chat_server import Server

from longvale.evaluation.benchmarks.judge import Judge
from longvale.evaluation.scoring.checklist import SCORES
from longvale.evaluation.scoring.score import format_scores, score
from longvale.events import Annotation, Event, save_annotations
from longvale.tasks import Prediction

LINE = re.compile(r"(\d+)\. (\S+) to \S+ s: (.*)")
VIDEOS = {
    "a": Annotation("a", 100.0, (Event(0, 20, "A bell rings."), Event(50, 60, "A dog barks."))),
    "b": Annotation("b", 50.0, (Event(0, 25, "A man speaks."),)),
    "c": Annotation("c", 50.0, (Event(0, 25, "It rains."),)),
}
ANSWERS = {
    "a": "From 00 to 20, a bell rings. From 50 to 60, a cat sleeps. From 60 to 90, a bell rings.",
    "b": "I see nothing.",
    "c": "From 00 to 50, it rains.",
}


def check_off(prompt):
    """Reply as a judge for whom a caption and an event are the same if their words and their starts are."""
    true, said = (
        {(start, words.lower().strip(". ")): int(number) for number, start, words in LINE.findall(part)}
        for part in prompt.split("The model's events:")
    )
    named = [number for key, number in true.items() if key in said]
    return json.dumps({"named": [*named, 99], "true": [number for key, number in said.items() if key in true]})


@pytest.fixture
def files(tmp_path):
    save_annotations(VIDEOS, tmp_path / "references.json")
    lines = [Prediction(video_id, "dense_captioning", answer).to_log() for video_id, answer in ANSWERS.items()]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "log.jsonl", tmp_path / "references.json"


@pytest.fixture
def server():
    server = Server("no answer")
    yield server
    server.stop()


def test_named_events_and_true_captions_are_counted(files, server):
    server.script[:] = [lambda handler: server.answer(handler, check_off(server.asked[-1]["messages"][-1]["content"]))]
    judge = Judge("small", server.url, workers=1)
    scores = score(*files, judge=judge, progress=False)
    dense = scores["dense_captioning"]
    assert len(server.asked) == 2  # an answer without events is not judged
    assert dense["checklist_recall"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert dense["checklist_precision"] == pytest.approx((1 / 3 + 0 + 1) / 3)
    assert dense["checklist_F1"] == pytest.approx((0.4 + 0 + 1) / 3)
    assert dense["judge"] == {"model": "small", "unread": 0, "count": 2}
    assert scores["metrics"]["dense_captioning"] == list(SCORES)
    assert scores["videos"]["a"]["dense_captioning"]["checklist_recall"] == 0.5
    assert "soda_c" in scores["videos"]["a"]["dense_captioning"]
    table = format_scores(scores)
    assert "checklist_F1" in table and "checked off by small: 0 of 2 replies unread" in table
    assert score(*files, judge=judge, progress=False) == scores and len(server.asked) == 2


def test_times_are_in_seconds_and_long_answers_are_bounded(files, server):
    log, references = files
    many = " ".join(f"From {number % 90:02} to 95, {'word ' * 200}." for number in range(150))
    log.write_text(Prediction("b", "dense_captioning", many).to_log() + "\n")
    server.script[:] = ['{"named": [], "true": []}']
    score(log, references, partial=True, judge=Judge("small", server.url, workers=1), progress=False)
    text = server.asked[0]["messages"][-1]["content"]
    assert "1. 0.0 to 25.0 s: A man speaks." in text and "\n1. 0.0 to 47.5 s: word" in text
    assert "\n100. " in text and "\n101. " not in text and len(text) < 50_000


def test_replies_that_cannot_be_read_count_as_nothing(files, server):
    scores = score(*files, judge=Judge("small", server.url, workers=1), progress=False)["dense_captioning"]
    assert scores["judge"]["unread"] == 2 and scores["checklist_recall"] == scores["checklist_F1"] == 0.0
    assert len(server.asked) == 4  # each once more


def test_a_log_without_dense_captions_is_refused(longvale, files):
    log, references = files
    log.write_text(Prediction("b", "grounding", "From 00 to 50.", 0).to_log() + "\n")
    result = longvale(
        "score", log, "--references", references, "--partial", "--judge", "small", "--judge-url", "http://x/v1"
    )
    assert result.exit_code == 2 and "--judge judges dense captions and zero-shot answers" in result.stderr
