import numpy as np
import pytest
from fake_longvale import FakeModel, FakeProcessor

from longvale.evaluation.ask import Answer, ask, format_answer, read_answer
from longvale.events import Event
from longvale.models.media import Media
from longvale.tasks import dense_captioning_question


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


GROUNDING = "Give the timestamps in the fromat: From xx to xx."


@pytest.mark.parametrize(
    ("question", "options", "sent"),
    [
        (
            "A bell rings.",
            {"task": "grounding"},
            f"<video>\nAt which time interval can we find a bell rings taking place in the video? {GROUNDING}",
        ),
        (
            f"At which time interval can we find a bell taking place in the video? {GROUNDING}",
            {"task": "grounding"},
            f"<video>\nAt which time interval can we find a bell taking place in the video? {GROUNDING}",
        ),
        (
            None,
            {"task": "segment_captioning", "span": (6, 30)},
            "<video>\n Can you describe what occurred from 10 to 50 in the video? Please give the event description "
            "directly.",
        ),
        (None, {}, dense_captioning_question()),
        (None, {"task": "dense_captioning"}, dense_captioning_question()),
    ],
)
def test_a_task_is_asked_in_the_words_of_the_benchmark(media, caplog, question, options, sent):
    model = FakeModel()
    ask((model, AskProcessor()), media, question, **options)
    assert model.batches == [[f"USER: {sent} ASSISTANT:"]] and not caplog.records


def test_a_question_in_words_that_the_model_was_not_tuned_on_is_warned_of(media, caplog):
    model = FakeModel()
    ask((model, AskProcessor()), media, "When does the bell ring?")
    (record,) = caplog.records
    assert "tuned on questions of grounding, dense_captioning, segment_captioning, not on free ones" in record.message
    caplog.clear()
    model.config.tuned_tasks = ["free"]
    ask((model, AskProcessor()), media, "When does the bell ring?")
    assert not caplog.records
    model.config.tuned_tasks = ["grounding"]
    ask((model, AskProcessor()), media)
    assert "tuned on questions of grounding, not" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "grounding"}, "give a question: grounding asks about one event"),
        ({"task": "segment_captioning"}, "give FROM and TO in seconds"),
        ({"task": "segment_captioning", "span": (30, 6)}, r"start after end: FROM \(30 s\) must lie before TO \(6 s\)"),
        ({"task": "segment_captioning", "span": (-1, 6)}, "must be seconds, 0 or more, not -1 and 6"),
        ({"task": "segment_captioning", "span": (0, float("nan"))}, "must be seconds, 0 or more, not 0 and nan"),
        ({"task": "segment_captioning", "span": (6, 61)}, r"TO \(61 s\) lies after the end of the video, 60.0 s"),
        ({"task": "grounding", "span": (6, 30)}, "FROM and TO are of the task segment_captioning, not of grounding"),
        ({"span": (6, 30)}, "FROM and TO are of the task segment_captioning, not of a free question"),
    ],
)
def test_what_a_task_lacks_is_named(media, options, message):
    with pytest.raises(ValueError, match=message):
        ask((FakeModel(), AskProcessor()), media, None, **options)


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
