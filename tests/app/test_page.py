import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from longvale import tasks
from longvale.app import work
from longvale.app.limits import Limits
from longvale.app.page import CHOICES, Page, ask_about
from longvale.app.sessions import Sessions, Video

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


@pytest.mark.parametrize(
    ("choice", "query", "start"),
    [
        (["Ask freely"], "Why?", 0),
        ("Ask freely", ["Why?"], 0),
        ("Ask freely", "why " * 501, 0),
        ("Describe a part", "", "0"),
        ("Describe a part", "", True),
        ("Describe a part", "", 10**400),
    ],
)
def test_fields_that_no_form_sends_are_refused(choice, query, start):
    with pytest.raises(ValueError, match=r"Choose what|A question is a text of up to 2000 characters|Give a part"):
        ask_about(VIDEO, choice, query, start, 20)


TAB = SimpleNamespace(session_hash="tab")


@pytest.fixture
def page(scripted_pair):
    return Page(*scripted_pair, name="tiny", limits=Limits(length=60.0))


@pytest.fixture
def upload(clips, tmp_path):
    return shutil.copy(clips / "clip.mp4", tmp_path / "clip.mp4")


def test_an_upload_is_asked_about(page, upload):
    page.upload(str(upload), TAB)
    *_, view = page.decode(TAB)
    assert view["video"]["duration"] == pytest.approx(32, abs=0.1)
    *_, view = page.ask("List all events", "", None, None, TAB)
    assert len(view["answer"]["events"]) == 3 and view["answer"]["done"]


def test_an_upload_that_waits_for_its_turn_is_deleted_when_it_is_cancelled(page, upload):
    for cancel in (page.stop, page.on_unload, page.on_clear):
        path = Path(shutil.copy(upload, upload.parent / "waits.mp4"))
        page.upload(str(path), TAB)
        assert path.exists()
        cancel(TAB)
        assert not path.exists()
        assert [view["video"] for view in page.decode(TAB)] in ([None], [])  # its turn comes all the same


def test_an_upload_is_deleted_when_its_decoding_is_stopped_or_fails(page, upload, clips, tmp_path, monkeypatch):
    decode = work.decode

    def stopped(*arguments):
        page.stop(TAB)
        return decode(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(work, "decode", stopped)
        page.upload(str(upload), TAB)
        list(page.decode(TAB))
    assert not upload.exists() and page.sessions.get("tab").video is None
    broken = shutil.copy(clips / "text.mp4", tmp_path / "text.mp4")
    page.upload(str(broken), TAB)
    *_, view = page.decode(TAB)
    assert view["error"].startswith("text.mp4: not a media file") and not broken.exists()


def test_a_question_does_not_end_the_decoding(page, upload):
    page.upload(str(upload), TAB)
    (view,) = page.ask("List all events", "", None, None, TAB)
    assert "still being decoded" in view["error"]
    *_, view = page.decode(TAB)
    assert view["video"] and not view["error"]


def test_a_stopped_answer_keeps_what_is_written_and_marks_where_it_ends(page, upload, monkeypatch):
    page.upload(str(upload), TAB)
    assert list(page.decode(TAB))[-1]["video"]
    written = "From 00 to 09, part 0.\nFrom 03 to 12, part 1 of a slow ans"

    def write(model, processor, question, features, max_new_tokens, report, stop):
        report(written)
        assert stop.wait(60)
        return written

    monkeypatch.setattr("longvale.app.work.answer", write)
    for view in page.ask("Ask freely", "What happens?", None, None, TAB):
        if view["answer"]:
            stopped = page.stop(TAB)
    monkeypatch.undo()
    answer = stopped["answer"]
    assert stopped["note"] == "Stopped. The answer was cut off at \u201c\u2026\u201d."
    assert answer["done"] and answer["text"] == f"{written} …"
    assert [event["caption"] for event in answer["events"]] == ["part 0.", "part 1 of a slow ans …"]
    assert "part 1 of a slow ans …" in answer["files"][0]["text"]
    assert page.sessions.get("tab").view == stopped  # nothing came after it
    *_, view = page.ask("Find an event", "number 3", None, None, TAB)
    assert view["answer"]["done"] and view["note"] is None


def happened(**data):
    return SimpleNamespace(_data=data)


VISIT = "0123456789abcdef" * 2


def test_a_reload_keeps_the_video_and_the_answer(page, upload):
    page.on_load(happened(visit=VISIT), TAB)
    page.upload(str(upload), TAB)
    list(page.decode(TAB))
    *_, before = page.ask("Find an event", "number 3", None, None, TAB)
    page.on_unload(TAB)  # the connection of the old page may end before or after the new page is there
    again, stranger = SimpleNamespace(session_hash="again"), SimpleNamespace(session_hash="stranger")
    view = page.on_load(happened(visit=VISIT), again)
    assert (view["video"], view["answer"]) == (before["video"], before["answer"])
    assert page.on_load(happened(visit="f" * 32), stranger)["video"] is None
    page.sessions.close("tab")
    assert upload.exists()
    *_, view = page.ask("Find an event", "number 4", None, None, again)
    assert view["answer"]["done"]
    page.sessions.close("again")
    assert not upload.exists()


@pytest.mark.parametrize("visit", [None, "", "../../x", VISIT.upper(), ["a"], VISIT * 2])
def test_a_made_up_visit_resumes_nothing(page, upload, visit):
    page.upload(str(upload), TAB)
    list(page.decode(TAB))
    page.sessions.get("tab").visit = visit
    assert page.on_load(happened(visit=visit), SimpleNamespace(session_hash="b"))["video"] is None


def test_an_upload_is_deleted_soon_after_its_visitor_left(upload):
    sessions = Sessions()
    sessions.choose("tab", Video(upload, "clip.mp4", True, 32.0))
    sessions.resume("tab", VISIT)
    sessions.disconnect("tab", grace_s=3600)
    assert upload.exists()
    sessions.disconnect("tab", grace_s=0)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer) and not thread.interval:
            thread.join()
    assert not upload.exists()


def test_known_events_are_offered_as_questions(page, upload, tmp_path):
    page.upload(str(upload), TAB)
    *_, view = page.decode(TAB)
    assert [q["query"] for q in view["video"]["questions"]] == ["", "A person speaks.", "Music plays."]
    page.examples, page.captions = [upload], {upload: ["A bell rings."]}
    page.example(happened(index=0), TAB)
    *_, view = page.decode(TAB)
    assert view["video"]["questions"][1] == {"choice": "Find an event", "query": "A bell rings."}
    choice, query = page.suggest(happened(index=1), TAB)
    assert (choice["value"], query["value"]) == ("Find an event", "A bell rings.")
    for index in (2, -1, None, "1", []):
        assert page.suggest(happened(index=index), TAB) == (gr.skip(), gr.skip())
