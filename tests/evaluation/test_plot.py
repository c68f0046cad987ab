"""`longvale plot`: one video's timeline."""

import pytest

from longvale.evaluation.ask import Answer
from longvale.evaluation.figures import timeline_figure
from longvale.evaluation.plot import plot_answer, read_answers
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
    dense, grounding = read_answers(VIDEO, answers)
    assert [(event.start, event.end, event.caption) for event in dense] == [(0, 10, "a bell."), (20, 30, "a dog.")]
    assert list(grounding) == [0, 1] and grounding[0] is None and (grounding[1].start, grounding[1].end) == (10, 30)
    assert read_answers(VIDEO, answers[:1])[0] is None


def test_captions_are_listed_as_they_are():
    figure = timeline_figure(VIDEO, [Event(0, 10, "word " * 40)], captions=True)
    _, left, right = figure.axes
    assert [text.get_text() for text in left.texts] == ["1", "0.0-10.0 s A bell.", "2", "10.0-30.0 s A $dog$ barks."]
    assert not any(text.get_parse_math() for text in left.texts[1::2])
    assert right.texts[0].get_text() == "P1" and right.texts[1].get_text().endswith("word ...")


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
