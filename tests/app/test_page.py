from pathlib import Path

import pytest

from longvale import tasks
from longvale.app.page import CHOICES, ask_about
from longvale.app.sessions import Video

VIDEO = Video(Path("a.mp4"), "a.mp4", False, 60.0, None)


def test_the_three_tasks_are_asked_in_the_published_words():
    assert ask_about(VIDEO, "Find an event", " A bell\nrings. ", None, None).text == tasks.grounding_question(
        "A bell rings."
    )
    assert ask_about(VIDEO, "List all events", None, None, None).text == tasks.dense_captioning_question()
    part = ask_about(VIDEO, "Describe a part", "", 6, 99)
    assert part.text == tasks.segment_captioning_question(6, 60, 60.0) and part.span == (6, 60.0)
    assert {question for question in CHOICES.values() if question} == set(tasks.TASKS)


def test_a_free_question_holds_the_video_once():
    question = ask_about(VIDEO, "Ask freely", "What <video> is <video>that?", None, None)
    assert question.text.count("<video>") == 1 and question.text.startswith("<video>\n")
    assert question.words == "What  is that?"


@pytest.mark.parametrize(
    ("video", "choice", "query", "start", "end", "message"),
    [
        (None, "List all events", "", None, None, "Choose a video first"),
        (VIDEO, "Find an event", " <video> ", None, None, "Write which event to look for."),
        (VIDEO, "Ask freely", None, None, None, "Write a question."),
        (VIDEO, "Describe a part", "", 10, 5, "Give a part of the video: from 0 or later to 60.0 seconds"),
        (VIDEO, "Describe a part", "", 60, 70, "Give a part"),
        (VIDEO, "Describe a part", "", None, 5, "Give a part"),
        (VIDEO, "Describe a part", "", float("nan"), 5, "Give a part"),
        (VIDEO, "Sing", "", None, None, "Choose what you want to know"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(video, choice, query, start, end, message):
    with pytest.raises(ValueError, match=message):
        ask_about(video, choice, query, start, end)
