import numpy as np
import pytest
from fake_longvale import FakeModel, FakeProcessor

from longvale.evaluation.ask import Answer, ask, format_answer, read_answer
from longvale.events import Event
from longvale.models.media import Media


class AskProcessor(FakeProcessor):
    def __call__(self, text=None, videos=None, **kwargs):
        if videos is not None:
            (media,) = videos
            assert isinstance(media, Media)
            videos = [type("Named", (), {"name": "x" * len(media.frames)})]
        return super().__call__(text=text, videos=videos, **kwargs)


@pytest.fixture
def media():
    return Media(60.0, np.zeros((4, 8, 8, 3), np.uint8), np.arange(4.0), None, 16000)


def test_ask_gives_the_answer_and_its_events(media):
    model = FakeModel()
    answer = ask((model, AskProcessor()), media, "When does the <b>bell</b> ring?")
    assert model.batches == [["USER: <video>\nWhen does the <b>bell</b> ring? ASSISTANT:"]]
    assert answer.text.startswith("From ") and answer.duration == 60.0
    (event,) = answer.events
    assert event.length == pytest.approx(15)  # 25 percent of a minute


@pytest.mark.parametrize(
    ("question", "sent"),
    [
        ("<video>\nWhat?", "<video>\nWhat?"),
        ("See <video>: what?", "See <video>: what?"),
        ("<video> and <video>", "<video> and < video>"),
    ],
)
def test_the_video_stands_once_in_the_prompt(media, question, sent):
    model = FakeModel()
    ask((model, AskProcessor()), media, question, max_new_tokens=4)
    assert model.batches == [[f"USER: {sent} ASSISTANT:"]]


def test_bad_questions(media):
    pair = (FakeModel(), AskProcessor())
    for question in ("", "  ", "<video>"):
        with pytest.raises(ValueError, match="the question is empty"):
            ask(pair, media, question)
    with pytest.raises(ValueError, match="unknown task 'singing'"):
        ask(pair, media, "What?", task="singing")
    with pytest.raises(ValueError, match="max_new_tokens must be 1 or more"):
        ask(pair, media, "What?", max_new_tokens=0)


def test_reading_answers_by_task():
    dense = "From 00 to 50, a bell rings.\nFrom 50 to 99, a dog barks."
    assert [event.caption for event in read_answer(dense, 10.0)] == ["a bell rings.", "a dog barks."]
    assert read_answer(dense, 10.0, "grounding") == (Event(0, 5, ""),)
    assert read_answer(dense, 10.0, "segment_captioning") == ()
    assert read_answer("From 00 to 50.", 10.0, "dense_captioning") == ()
    assert read_answer("nothing to see", 10.0) == ()


def test_timeline_stays_in_its_frame():
    events = (Event(0, 0.001, "short"), Event(59.999, 60, "late"), Event(0, 60, "whole"), Event(59, 60.0, ""))
    lines = format_answer(Answer("text", 60.0, events)).splitlines()[3:]
    assert len(lines) == 4
    for line in lines:
        bar = line.split("|")[1]
        assert len(bar) == 60 and set(bar) <= {"-", "#"} and "#" in bar
    assert format_answer(Answer("", 60.0)) == "(no answer; a model that reasons first needs a higher --max-new-tokens)"
