"""The published scorer's own numbers on five videos with malformed, reversed, repeated and empty answers."""

import json
from pathlib import Path

import pytest

from longvale.events import load_annotations
from longvale.metrics.dense_captioning.compute_score import THRESHOLDS, score_videos
from longvale.metrics.grounding.compute_score import compute_score as score_grounding
from longvale.metrics.segment_captioning.compute_score import compute_score as score_segments
from longvale.tasks import load_predictions
from longvale.timecodes import parse_events, parse_span

FIXTURES = Path(__file__).parents[1] / "fixtures" / "metrics"
NAMES = {"Rouge-L": "ROUGE_L", **{f"Bleu_{n}": f"BLEU_{n}" for n in range(1, 5)}}

#: Both sides add the same numbers in another order.
TOLERANCE = 1e-12


@pytest.fixture(scope="module")
def official():
    return json.loads((FIXTURES / "tiny.official.fixed.json").read_text())


@pytest.fixture(scope="module")
def annotations():
    return {
        annotation.video_id: annotation for annotation in load_annotations(FIXTURES / "tiny.annotations.json").values()
    }


@pytest.fixture(scope="module")
def answers():
    by_task = {}
    for prediction in load_predictions(FIXTURES / "tiny.log.jsonl"):
        by_task.setdefault(prediction.task, []).append(prediction)
    return by_task


@pytest.fixture(scope="module")
def dense(annotations, answers):
    found, wanted = [], []
    for answer in answers["dense_captioning"]:
        annotation = annotations[answer.video_id]
        spans = parse_events(answer.answer, "official")
        found.append([(*span.seconds(annotation.duration), span.caption) for span in spans])
        wanted.append([(event.start, event.end, event.caption) for event in annotation.events])
    return score_videos(found, wanted, protocol="official")


def test_grounding(official, annotations, answers):
    spans, events = [], []
    for answer in answers["grounding"]:
        annotation, span = annotations[answer.video_id], parse_span(answer.answer, "official")
        event = annotation.events[answer.sentence_id]
        spans.append(span and (span.start / 100, span.end / 100))
        events.append((event.start / annotation.duration, event.end / annotation.duration))
    scores = score_grounding(spans, events, protocol="official")
    for name, value in official["grounding"]["returned_times_100"].items():
        assert scores[name.replace("R1@", "R@")] * 100 == pytest.approx(value, abs=TOLERANCE)


def test_soda(official, dense):
    scores, _ = dense
    expected = official["captioning"]["soda_c"]
    assert scores["soda_c"] == pytest.approx(expected["f1"], abs=TOLERANCE)
    assert scores["soda_c_precision"] == pytest.approx(expected["precision"], abs=TOLERANCE)
    assert scores["soda_c_recall"] == pytest.approx(expected["recall"], abs=TOLERANCE)


def test_dense_captioning(official, dense):
    scores, _ = dense
    means = official["captioning"]["eval_dvc"]
    rows = official["captioning"]["eval_dvc_per_tiou_0.3_0.5_0.7_0.9"]
    assert len(rows) == 10
    for name, values in rows.items():
        ours = NAMES.get(name, name.lower() if name in ("Recall", "Precision") else name)
        assert scores[ours] == pytest.approx(means[name], abs=TOLERANCE)
        assert [scores[f"{ours}@{t}"] for t in THRESHOLDS] == pytest.approx(values, abs=TOLERANCE)


def test_dense_captioning_by_video(dense, answers):
    expected = json.loads((FIXTURES / "tiny.official.fixed.per_video.json").read_text())
    videos = {answer.video_id: scores for answer, scores in zip(answers["dense_captioning"], dense[1], strict=True)}
    for video_id, values in expected["soda_per_video"].items():
        total = videos[video_id]["soda_c_precision"] * videos[video_id]["predicted_events"]
        assert total == pytest.approx(values["max_score"], abs=TOLERANCE)
    compared = 0
    for threshold, metrics in expected["dvc_per_video"].items():
        for name, by_video in metrics.items():
            for video_id, value in by_video.items():
                names = [f"BLEU_{n}" for n in range(1, 5)] if name == "Bleu" else [NAMES.get(name, name)]
                ours = [videos[video_id][f"{name}@{threshold}"] for name in names]
                assert ours == pytest.approx(value if name == "Bleu" else [value], abs=TOLERANCE)
                compared += len(ours)
    assert compared == 4 * 7 * 3


def test_videos_without_events_count_as_zero(dense):
    scores, videos = dense
    empty = [video for video in videos if not video["predicted_events"]]
    assert len(empty) == 2
    assert all(video[name] == 0 for video in empty for name in ("soda_c", "METEOR", "CIDEr", "recall", "F1"))
    for name in ("soda_c", "METEOR", "CIDEr@0.3", "BLEU_4", "precision", "recall@0.9"):
        assert scores[name] == pytest.approx(sum(video[name] for video in videos) / 5)


def test_segment_captioning(official, annotations, answers):
    predictions, references = {}, {}
    for answer in answers["segment_captioning"]:
        predictions[answer.key] = answer.answer
        references[answer.key] = annotations[answer.video_id].events[answer.sentence_id].caption
    scores = score_segments(predictions, references, protocol="official")
    expected = official["seg_captioning"]
    for ours, theirs in (("METEOR", "METEOR"), ("ROUGE_L", "Rouge"), ("CIDEr", "CIDEr")):
        assert scores[ours] == pytest.approx(expected["returned"][theirs], abs=TOLERANCE)
    assert [scores[f"BLEU_{n}"] for n in range(1, 5)] == pytest.approx(expected["Bleu_1_to_4"], abs=TOLERANCE)
    assert scores["count"] == 40
