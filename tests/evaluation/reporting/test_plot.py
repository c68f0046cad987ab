"""`longvale plot`: one video's timeline."""

import json

import pytest
from annotated_stages import write
from PIL import Image

from longvale.evaluation.ask import Answer
from longvale.evaluation.reporting.plot import plot_answer, read_answers
from longvale.events import Annotation, Event, load_annotations
from longvale.tasks import Prediction

VIDEO = Annotation("v", 40.0, (Event(0, 10, "A bell."), Event(10, 30, "A $dog$\x00 barks.")))


def test_answers_are_read_by_task_and_event():
    answers = [
        Prediction("v", "grounding", "From 25 to 75.", 1),
        Prediction("v", "grounding", "I do not know.", 0),
        Prediction("v", "grounding", "From 25 to 75.", 9),  # about an event that the annotation does not have
        Prediction("v", "segment_captioning", "From 00 to 99, no event.", 0),
        Prediction("v", "dense_captioning", "From 00 to 25, a bell.\nFrom 50 to 75, a dog."),
    ]
    answered = read_answers(VIDEO, answers)
    dense, grounding = answered.dense, answered.grounding
    assert [(event.start, event.end, event.caption) for event in dense] == [(0, 10, "a bell."), (20, 30, "a dog.")]
    assert list(grounding) == [0, 1] and grounding[0] is None and (grounding[1].start, grounding[1].end) == (10, 30)
    assert read_answers(VIDEO, answers[:1]).dense is None


def test_command(longvale, tiny_corpus, tmp_path):
    annotations = tiny_corpus / "longvale-annotations-eval.json"
    video_id, annotation = next(iter(load_annotations(annotations).items()))
    log = tmp_path / "predictions.jsonl"
    log.write_text(Prediction(video_id, "dense_captioning", "From 00 to 50, a bell.").to_log() + "\n")
    result = longvale("plot", video_id, "--data", tiny_corpus, "--predictions", log, "--output", tmp_path / "out" / "t")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["t.png", "t.svg"]
    assert annotation.events[0].caption in (tmp_path / "out" / "t.svg").read_text()

    for arguments, told in (
        (["test_000x", "--data", annotations], "did you mean 'test_000"),
        ([video_id, "--data", annotations, "--predictions", tmp_path / "other.jsonl"], "other.jsonl"),
        (["train_0000", "--data", tiny_corpus, "--predictions", log], "no answer about video 'train_0000'"),
    ):
        result = longvale("plot", *arguments, "--output", tmp_path / "bad")
        assert result.exit_code == 2 and told in result.stderr, result.output
    assert not list(tmp_path.glob("bad*"))


def test_an_answer_is_drawn_without_a_reference(tmp_path):
    paths = plot_answer(Answer("From 00 to 50, a bell.", 20.0, (Event(0, 10, "a bell."),)), tmp_path / "asked")
    assert [path.name for path in paths] == ["asked.png", "asked.svg"]
    with pytest.raises(ValueError, match="nothing to draw: 'Nothing happens"):
        plot_answer(Answer("Nothing\nhappens.", 20.0), tmp_path / "asked")


def test_the_film_strip_and_the_stages_of_annotate(longvale, tiny_corpus, tmp_path):
    (video, *_) = sorted((tiny_corpus / "videos").glob("test_*.mp4"))
    result = longvale("plot", video.stem, "--data", tiny_corpus, "--video", video, "--output", tmp_path / "strip")
    assert result.exit_code == 0, result.output
    assert "<image" in (tmp_path / "strip.svg").read_text()
    with Image.open(tmp_path / "strip.png") as picture:
        assert picture.mode == "RGB"  # as many colours as the frames have

    stages = write(tmp_path / "out.stages")
    result = longvale("plot", "clip", "--data", stages, "--video", video, "--output", tmp_path / "stages")
    assert result.exit_code == 0, result.output
    drawn = (tmp_path / "stages.svg").read_text()
    assert "<image" in drawn and "dotted: hard cuts" in drawn and "A &lt;b&gt;. (seen, heard)" in drawn
    assert "Bell" in drawn and "1.0-5.5 s THE &lt;END&gt;" in drawn
    events = {"duration": 32.0, "timestamps": [[0.0, 22.5], [22.5, 32.0]], "sentences": ["A <b>.", "B."]}
    (tmp_path / "out.json").write_text(json.dumps({"clip": events}))
    result = longvale("plot", "clip", "--data", tmp_path / "out.json", "--output", tmp_path / "official")
    assert result.exit_code == 0, result.output
    drawn = (tmp_path / "official.svg").read_text()
    for text in ("seen", "heard", "said", "text", "Bell", "1.0-5.5 s THE &lt;END&gt;", "A &lt;b&gt;. (seen, heard)"):
        assert f" {text} -->" in drawn, text
    for arguments, said in (
        (["clop", "--data", stages], "did you mean 'clip'?"),
        (["clip", "--data", stages, "--predictions", tmp_path / "p.jsonl"], "give the annotation file"),
        (["clip", "--data", stages, "--video", tmp_path / "none.mp4"], "none.mp4: no such file"),
    ):
        result = longvale("plot", *arguments, "--output", tmp_path / "bad")
        assert result.exit_code == 2 and said in result.stderr, result.output
    assert not list(tmp_path.glob("bad*"))
