import json
import math
from pathlib import Path

import pytest

from longvale.evaluation.scoring.score import format_scores, save_scores, score, score_predictions
from longvale.events import Annotation, Event, load_annotations
from longvale.tasks import TASKS, Prediction, load_predictions, questions

FIXTURES = Path(__file__).parents[2] / "fixtures" / "metrics"


def perfect_answers(annotations):
    asked = [q for annotation in annotations.values() for q in questions(annotation)]
    return [Prediction(q.video_id, q.task, q.reference, q.sentence_id) for q in asked]


def test_reasoning_in_a_log_is_dropped_by_the_strict_protocol_alone(annotations):
    thought = [
        Prediction(p.video_id, p.task, f"<think>From 01 to 02, a cat? No.</think>\n\n{p.answer}", p.sentence_id)
        for p in perfect_answers(annotations)
    ]
    assert score_predictions(thought, annotations) == score_predictions(perfect_answers(annotations), annotations)
    official = score_predictions(thought, annotations, protocol="official")
    assert official["grounding"]["mIoU"] < 0.1 and official["segment_captioning"]["CIDEr"] < 5
    cut_off = [Prediction(p.video_id, p.task, f"<think>{p.answer}", p.sentence_id) for p in thought]
    counts = score_predictions(cut_off, annotations)["counts"]
    assert [count["parsed"] for count in counts.values()] == [0, 0, 0]


def test_answers_as_training_teaches_them_are_read_however_short_the_event():
    video = Annotation(
        "v", 300.0, (Event(12.0, 13.0, "A bell."), Event(0.1, 1.0, "A dog."), Event(299.0, 300.0, "A door."))
    )
    scores = score_predictions(perfect_answers({"v": video}), {"v": video})
    assert scores["counts"]["grounding"]["parsed"] == 3 and scores["dense_captioning"]["predicted_events"] == 3
    # 1 s of the 3 s that 04 is; .9 s of the 1.5 s that 00 is; 1 s of the last 3 s.
    assert scores["grounding"]["mIoU"] == pytest.approx((1 / 3 + 0.6 + 1 / 3) / 3)


@pytest.fixture
def annotations():
    return {
        "a": Annotation(
            "a",
            100.0,
            (
                Event(0, 20, "A bell rings in the tower.", ("audio",)),
                Event(30, 60, "A dog runs over the green field.", ("visual",)),
                Event(60, 90, "A voice says hello to the dog.", ("speech",)),
            ),
        ),
        "b": Annotation("b", 50.0, (Event(10, 25, "A red ball bounces with a drum.", ("visual", "audio")),)),
    }


def test_perfect_answers(annotations):
    scores = score_predictions(perfect_answers(annotations), annotations)
    assert scores["grounding"]["mIoU"] == pytest.approx(1)
    assert scores["grounding"]["R@0.7"] == 1
    assert {group: row["count"] for group, row in scores["grounding"]["by_modality"].items()} == {
        "visual": 1,
        "audio": 1,
        "speech": 1,
        "joint": 1,
    }
    dense = scores["dense_captioning"]
    for name in ("precision", "recall", "F1", "precision@0.9", "ROUGE_L", "METEOR", "soda_c"):
        assert dense[name] == pytest.approx(1), name
    assert dense["CIDEr"] == pytest.approx(10) and dense["BLEU_4"] == pytest.approx(1)
    assert scores["segment_captioning"]["CIDEr"] == pytest.approx(10)
    assert scores["protocol"] == "strict"
    assert scores["counts"]["grounding"] == {
        "questions": 4,
        "answers": 4,
        "missing": 0,
        "repeated": 0,
        "unknown": 0,
        "events": 4,
        "parsed": 4,
        "parsed_share": 1.0,
    }


def test_groups_are_scored_by_themselves(annotations):
    answers = [
        Prediction("a", "grounding", "From 00 to 20.", 0),
        Prediction("a", "grounding", "no idea", 1),
        Prediction("a", "grounding", "From 60 to 75.", 2),
        Prediction("b", "grounding", "From 20 to 50.", 0),
    ]
    scores = score_predictions(answers, annotations)["grounding"]
    assert {group: row["mIoU"] for group, row in scores["by_modality"].items()} == pytest.approx(
        {"visual": 0.0, "audio": 1.0, "speech": 0.5, "joint": 1.0}
    )
    assert scores["mIoU"] == pytest.approx(2.5 / 4)
    assert scores["parsed"] == 3


def test_without_modalities_there_are_no_groups(annotations):
    plain = {"b": Annotation("b", 50.0, (Event(10, 25, "A red ball bounces."),))}
    assert "by_modality" not in score_predictions([Prediction("b", "grounding", "", 0)], plain)["grounding"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[1:], r"1 grounding answers are missing, the first of video 'a', sentence 0; .*partial"),
        (lambda a: [*a, a[0]], r"1 grounding answers are given more than once, the first of video 'a', sentence 0"),
        (
            lambda a: [*a, Prediction("z", "grounding", "", 0)],
            r"that is not in the annotations, .* video 'z', sentence 0",
        ),
        (
            lambda a: [*a, Prediction("b", "grounding", "", 1)],
            r"that is not in the annotations, .* video 'b', sentence 1",
        ),
        (lambda a: [*a, Prediction("z", "dense_captioning", "")], r"1 dense_captioning answers .* video 'z'; "),
        (lambda a: [], "holds no answer"),
    ],
)
def test_logs_that_do_not_fit(annotations, change, message):
    with pytest.raises(ValueError, match=message):
        score_predictions(change(perfect_answers(annotations)), annotations)


def test_partial_scores_what_is_there_and_says_so(annotations):
    answers = [p for p in perfect_answers(annotations) if p.video_id == "a"]
    scores = score_predictions(answers, annotations, partial=True)
    assert scores["grounding"]["mIoU"] == pytest.approx(1)
    assert scores["counts"]["grounding"]["missing"] == 1
    assert scores["counts"]["dense_captioning"]["missing"] == 1
    with pytest.raises(ValueError, match="more than once"):
        score_predictions([*answers, answers[0]], annotations, partial=True)


def test_asked_tasks_must_have_answers(annotations):
    answers = [p for p in perfect_answers(annotations) if p.task == "grounding"]
    assert set(score_predictions(answers, annotations)["counts"]) == {"grounding"}
    with pytest.raises(ValueError, match="2 dense_captioning answers are missing"):
        score_predictions(answers, annotations, tasks=["all"])
    with pytest.raises(ValueError, match="2 dense_captioning answers are missing"):
        score_predictions(answers, annotations, tasks=["dense_captioning"], partial=True)


def test_official_grounding_equals_the_published_scorer():
    """mIoU 46.525, R@.3/.5/.7 65/45/35: what the published code gives for these two files."""
    annotations = load_annotations(FIXTURES / "tiny.annotations.json")
    predictions = [p for p in load_predictions(FIXTURES / "tiny.log.jsonl") if p.task == "grounding"]
    scores = score_predictions(predictions, annotations, protocol="official")["grounding"]
    assert scores["mIoU"] == pytest.approx(0.46525, abs=1e-12)
    assert (scores["R@0.3"], scores["R@0.5"], scores["R@0.7"]) == (0.65, 0.45, 0.35)
    again = [*predictions, Prediction(predictions[0].video_id, "grounding", "From 00 to 99.", 0, query_id=1)]
    assert score_predictions(again, annotations, protocol="official")["grounding"] == scores
    assert score_predictions(again, annotations)["grounding"]["count"] == 41


def test_official_captioning_equals_the_published_scorer():
    """All numbers are compared in tests/metrics/test_official.py; here the way from files to scores."""
    scores = score(FIXTURES / "tiny.log.jsonl", FIXTURES / "tiny.annotations.json", protocol="official")
    official = json.loads((FIXTURES / "tiny.official.fixed.json").read_text())
    assert scores["dense_captioning"]["soda_c"] == pytest.approx(official["captioning"]["soda_c"]["f1"], abs=1e-9)
    published = official["captioning"]["eval_dvc"]
    for name in ("METEOR", "CIDEr"):
        assert scores["dense_captioning"][name] == pytest.approx(published[name], abs=1e-9)
    assert scores["segment_captioning"]["METEOR"] == pytest.approx(
        official["seg_captioning"]["returned"]["METEOR"], abs=1e-9
    )
    assert scores["counts"]["dense_captioning"]["events"] == 40


def test_videos_are_scored_by_themselves(annotations):
    answers = perfect_answers(annotations)
    wrong = [p for p in answers if p.key != ("a", "grounding", 1)] + [Prediction("a", "grounding", "no idea", 1)]
    videos = score_predictions(wrong, annotations)["videos"]
    assert videos["a"]["grounding"]["mIoU"] == pytest.approx(2 / 3) and videos["a"]["grounding"]["count"] == 3
    assert videos["b"]["grounding"]["mIoU"] == pytest.approx(1)
    assert videos["a"]["segment_captioning"]["METEOR"] == pytest.approx(1)
    assert videos["b"]["dense_captioning"]["count"] == 1


def test_unknown_protocols_are_refused(annotations):
    with pytest.raises(ValueError, match="unknown protocol 'loose'"):
        score_predictions(perfect_answers(annotations), annotations, protocol="loose")


def test_malformed_answers_score_without_raising():
    """The fixture's answers are malformed, reversed, duplicated and empty; all scores stay finite fractions."""
    scores = score(FIXTURES / "tiny.log.jsonl", FIXTURES / "tiny.annotations.json")
    for task in ("grounding", "dense_captioning", "segment_captioning"):
        for name, value in scores[task].items():
            assert math.isfinite(value), (task, name)
            assert 0 <= value <= (10 if name.startswith("CIDEr") else 1) or "count" in name or value == int(value)
    assert scores["counts"]["grounding"]["parsed"] < 40


def test_files(data, tmp_path):
    log = tmp_path / "p.jsonl"
    annotations = load_annotations(data / "longvale-annotations-eval.json")
    log.write_text("".join(p.to_log() + "\n" for p in perfect_answers(annotations)))
    scores = score(log, data / "longvale-annotations-eval.json")
    assert set(scores["grounding"]["by_modality"]) == {"visual", "audio", "speech", "joint"}
    assert scores["grounding"]["by_modality"]["audio"]["count"] == 2
    save_scores(scores, tmp_path / "scores.json")
    videos = scores["videos"]
    assert json.loads((tmp_path / "scores.json").read_text()) | {"videos": videos} == scores
    assert "videos" not in json.loads((tmp_path / "scores.json").read_text())
    save_scores(scores, tmp_path / "videos.json", by_video=True)
    assert json.loads((tmp_path / "videos.json").read_text()) == scores
    table = format_scores(scores)
    assert "grounding" in table and "  speech" in table and "6 of 6 questions answered, 100.0% parsed" in table

    log.write_text("")
    with pytest.raises(ValueError, match=r"p\.jsonl: holds no answer"):
        score(log, data / "longvale-annotations-eval.json")
    log.write_text("not json\n")
    with pytest.raises(ValueError, match=r"p\.jsonl: line 1: not JSON"):
        score(log, data / "longvale-annotations-eval.json")
    log.write_text(Prediction("a", "grounding", "", 0).to_log())
    with pytest.raises(ValueError, match=r"p\.jsonl: 1 grounding answers are about"):
        score(log, data / "longvale-annotations-eval.json")
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: no such file"):
        score(tmp_path / "none.jsonl", data / "longvale-annotations-eval.json")
    with pytest.raises(FileNotFoundError, match=r"none\.json: no such file"):
        score(log, tmp_path / "none.json")


def write_log(path, answers):
    path.write_text("".join(p.to_log() + "\n" for p in answers))


def test_a_file_lacks_answers_only_with_partial(annotations, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({v: a.to_official() for v, a in annotations.items()}))
    write_log(tmp_path / "log", [p for p in perfect_answers(annotations) if p.task == "grounding"][1:])
    with pytest.raises(ValueError, match=r"finish the run, or leave them out with --partial$"):
        score(tmp_path / "log", tmp_path / "a.json")
    assert score(tmp_path / "log", tmp_path / "a.json", partial=True)["counts"]["grounding"]["missing"] == 1
    with pytest.raises(ValueError, match="--judge judges dense captions and zero-shot answers; the log holds neither"):
        score(tmp_path / "log", tmp_path / "a.json", partial=True, judge=object())


def test_a_log_of_several_benchmarks_is_refused(tmp_path):
    write_log(tmp_path / "log", [Prediction("a", "grounding", "From 00 to 99.", 0), Prediction("a", "avsd", "Yes.", 0)])
    with pytest.raises(ValueError, match="log: holds answers of several benchmarks; name the tasks of one"):
        score(tmp_path / "log", tmp_path / "a.json")


def test_the_table_names_the_scores_of_each_task(annotations):
    scores = score_predictions(perfect_answers(annotations), annotations)
    heads = [line.split() for line in format_scores(scores).splitlines() if line.startswith(tuple(TASKS))]
    assert heads == [
        ["grounding", "mIoU", "R@0.3", "R@0.5", "R@0.7"],
        ["dense_captioning", "soda_c", "METEOR", "CIDEr", "BLEU_4", "ROUGE_L", "precision", "recall", "F1"],
        ["segment_captioning", "METEOR", "CIDEr", "BLEU_4", "ROUGE_L"],
    ]
    assert format_scores(scores).count("; 4 events") == 3


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (lambda a: [*a, a[0]], "keep one line a question"),
        (lambda a: [*a, Prediction("x", "grounding", "", 0)], "score with the annotations it was made for"),
    ],
)
def test_logs_that_do_not_fit_say_what_to_do(annotations, change, remedy):
    answers = [p for p in perfect_answers(annotations) if p.task == "grounding"]
    with pytest.raises(ValueError, match=f"{remedy}$"):
        score_predictions(change(answers), annotations)
