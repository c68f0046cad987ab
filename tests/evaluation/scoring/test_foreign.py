"""Logs that other code wrote are matched with the questions, read and scored; what does not match is reported."""

import csv
import json

import pytest

from longvale.evaluation.scoring.foreign import read_foreign_log, score_foreign_log
from longvale.events import Annotation, Event

VIDEOS = {
    "abc": Annotation("abc", 60.0, (Event(6, 30, "A bell rings."), Event(30, 54, "A dog barks, and a bell rings."))),
    "d.e": Annotation("d.e", 300.0, (Event(15, 75, "A man sings."),)),
}
ROWS = [
    {"vid": "videos/abc.mp4", "query": "When does a bell rings happen?", "pred": "0:06 - 0:30"},
    {"vid": "/x/abc.mp4", "query": "a dog barks, and a bell rings", "pred": '{"start": 30, "end": 54}'},
    {"vid": "d.e.mp4", "query": "A MAN SINGS!", "pred": "<think>5?</think>from 15 s to 75 s"},
    {"vid": "gone.mp4", "query": "a man sings", "pred": "1 to 2"},
    {"vid": "abc", "query": "a cat", "pred": "1 to 2"},
]


@pytest.fixture
def references(tmp_path):
    path = tmp_path / "longvale-annotations-eval.json"
    annotations = {
        name: {
            "duration": video.duration,
            "timestamps": [[event.start, event.end] for event in video.events],
            "sentences": [event.caption for event in video.events],
        }
        for name, video in VIDEOS.items()
    }
    path.write_text(json.dumps(annotations))
    return path


def write(path, rows):
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0].keys())
            table.writeheader()
            table.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps({"model": "m", "results": rows}))
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json"])
def test_a_log_is_scored_and_what_does_not_match_is_reported(longvale, references, tmp_path, suffix):
    log = write(tmp_path / f"log.{suffix}", ROWS)
    words = ("score", log, "--references", references, "--tasks", "grounding", "--columns", "video=vid,answer=pred")
    result = longvale(*words, "--output", tmp_path / "scores.json")
    assert result.exit_code == 0, result.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["grounding"]["mIoU"] == pytest.approx(1.0) and scores["counts"]["grounding"]["missing"] == 0
    assert scores["counts"]["grounding"]["readers"] == {"clock": 1, "json": 1, "seconds": 1}
    assert "columns video=vid, answer=pred, question=query" in result.stderr
    assert "2 rows match no question" in result.stderr and "video 'gone' is not in the annotations" in result.stderr
    assert "contains the caption of no event of video 'abc': 'a cat'" in result.stderr


def test_rows_by_index_and_task(tmp_path):
    rows = [
        {
            "video_id": "abc",
            "task": "captioning",
            "answer": "0:06-0:30: A bell.\n0:30-0:54: A dog.",
            "sentence_id": None,
        },
        {"video_id": "abc", "task": "longvale_grounding", "answer": "6 to 30", "sentence_id": 0},
        {"video_id": "abc", "task": "seg_captioning", "answer": "A dog.", "sentence_id": "1"},
        {"video_id": "abc", "task": "grounding", "answer": "7 to 30", "sentence_id": 0},
        {"video_id": "abc", "task": "grounding", "answer": "7 to 30", "sentence_id": 9},
        {"video_id": "abc", "task": "tracking", "answer": "7 to 30", "sentence_id": 1},
    ]
    log = read_foreign_log(write(tmp_path / "log.jsonl", rows), VIDEOS)
    assert [(p.task, p.sentence_id) for p in log.predictions] == [
        ("dense_captioning", None), ("grounding", 0), ("segment_captioning", 1),
    ]  # fmt: skip
    assert (
        log.predictions[0].answer == "From 10 to 50, A bell.\nFrom 50 to 90, A dog."
        and log.predictions[2].answer == "A dog."
    )
    assert [reason.partition(": ")[2] for reason in log.unmatched] == [
        "answers the same question as line 2", "video 'abc' has no event 9",
        "unknown task 'tracking'; expected one of grounding, dense_captioning, segment_captioning",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("replies", "unit", "start"),
    [
        (["From 05 to 25.", "From 10 to 50."], "percent", 3.0),
        (["From 05 to 25.", "From 10.5 to 50."], "seconds", 5.0),
        (["From 05 to 25.", "6 to 30"], "seconds", 5.0),
        (["From 05 to 25.", "0:10 to 0:20"], "percent", 3.0),
        (["From 10 to 25.", "From 10 to 50."], "seconds", 10.0),
    ],
)
def test_bare_numbers_of_a_log_have_one_unit(tmp_path, replies, unit, start):
    rows = [{"video": "abc", "event": index, "pred": reply} for index, reply in enumerate(replies)]
    log = read_foreign_log(write(tmp_path / "log.json", rows), VIDEOS, tasks=["grounding"])
    assert log.unit == unit and log.predictions[0].info["read"][0][0] == start


def test_results_of_a_batch(tmp_path):
    body = {"choices": [{"message": {"content": "0:06 - 0:30"}}]}
    rows = [{"custom_id": "abc/grounding/0", "response": {"status_code": 200, "body": body}, "error": None}]
    log = read_foreign_log(write(tmp_path / "out.jsonl", rows), VIDEOS)
    assert [(p.key, p.answer) for p in log.predictions] == [(("abc", "grounding", 0), "From 10 to 50.")]


@pytest.mark.parametrize(
    ("content", "columns", "words"),
    [
        ("[]", None, "holds no row"),
        ("[1]", None, "must be a list of objects"),
        (
            '[{"video": "abc"}]',
            None,
            "has no column of the answer with a common name; name it by --columns answer=NAME",
        ),
        ('[{"answer": "abc"}]', None, "has no column of the video"),
        ('[{"video": "abc", "pred": "1"}]', {"answer": "reply"}, "no row has 'reply', the column of answer; it has"),
        ('[{"video": "abc", "pred": "1"}]', {"film": "video"}, "unknown column 'film' in --columns"),
        ('[{"video": "x", "pred": "1"}]', None, "no row matches a question, the first: row 1: video 'x'"),
    ],
)
def test_damaged_logs_are_refused(tmp_path, content, columns, words):
    path = tmp_path / "log.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"log\.json|--columns") as error:
        read_foreign_log(path, VIDEOS, columns=columns, tasks=["grounding"])
    assert words in str(error.value)


def test_answers_that_are_missing_count(references, tmp_path):
    log = write(tmp_path / "log.json", ROWS[:1])
    with pytest.raises(ValueError, match="2 grounding answers are missing"):
        score_foreign_log(log, references, columns={"video": "vid"}, tasks=["grounding"])
    scores, _ = score_foreign_log(log, references, columns={"video": "vid"}, tasks=["grounding"], partial=True)
    assert scores["counts"]["grounding"]["missing"] == 2


@pytest.mark.parametrize("text", ["video", "video=", "=x,answer"])
def test_columns_are_pairs(longvale, references, tmp_path, text):
    result = longvale("score", write(tmp_path / "log.json", ROWS), "--references", references, "--columns", text)
    assert result.exit_code == 2
