import threading

import numpy as np
import pytest
import torch

from longvale.app import work
from longvale.events import Event
from longvale.extraction.encode import encode_video
from longvale.models.media import MediaError, read_media


@pytest.fixture
def stop():
    return threading.Event()


def test_reports_come_from_the_background(stop):
    taken = threading.Semaphore(0)

    def job(report):
        for number in range(5):
            report(number)
            assert taken.acquire(timeout=60)

    told = []
    for number in work.in_background(job, stop):
        told.append(number)
        taken.release()
    assert told == [0, 1, 2, 3, 4]


def test_only_the_newest_report_counts(stop):
    assert list(work.in_background(lambda report: [report(n) for n in range(1000)], stop))[-1] == 999


def test_leaving_stops_the_work(stop):
    ended = threading.Event()

    def job(report):
        report("begun")
        stop.wait(20)
        ended.set()

    for _ in work.in_background(job, stop):
        break
    assert ended.is_set()


def test_errors_come_through_and_stops_do_not(stop):
    def fail(report):
        report(1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(work.in_background(fail, stop))

    def give_up(report):
        raise work.Stopped

    assert list(work.in_background(give_up, threading.Event())) == []


def test_decoding_tells_how_far_it_is(scripted_pair, clips, stop):
    shares = []
    kwargs = scripted_pair[1].media_kwargs()
    media = work.decode(clips / "clip.mp4", kwargs, 60.0, shares.append, stop)
    assert np.array_equal(media.frames, read_media(clips / "clip.mp4", **kwargs).frames)
    assert shares == sorted(shares) and 0 <= shares[0] < 0.5 < shares[-1] < 1


def test_decoding_can_be_stopped_and_refuses_in_words(scripted_pair, clips, stop):
    kwargs = scripted_pair[1].media_kwargs()
    with pytest.raises(work.Stopped):
        work.decode(clips / "clip.mp4", kwargs, 60.0, lambda share: stop.set(), stop)
    with pytest.raises(MediaError, match=r"^clip.mp4: lasts .* longer than the limit"):
        work.decode(clips / "clip.mp4", kwargs, 10.0, lambda share: None, threading.Event())


def test_encoding_is_that_of_the_library(scripted_pair, clips, stop):
    media = read_media(clips / "clip.mp4", **scripted_pair[1].media_kwargs())
    done = []
    features = work.encode(*scripted_pair, media, lambda text, share: done.append((text, share)), stop)
    for modality, values in encode_video(*scripted_pair, media).items():
        assert np.array_equal(features[modality], values)
    assert [text.split()[0] for text, _ in done] == ["Preparing", "Looking", "Listening", "Listening"]
    assert [share for _, share in done] == sorted(share for _, share in done)
    stop.set()
    with pytest.raises(work.Stopped):
        work.encode(*scripted_pair, media, lambda *_: None, stop)


def test_a_video_without_sound_has_no_features_of_it(scripted_pair, clips, stop):
    media = read_media(clips / "silent.mp4", **scripted_pair[1].media_kwargs())
    features = work.encode(*scripted_pair, media, lambda *_: None, stop)
    assert features["visual"] is not None and features["audio"] is None and features["speech"] is None


def test_events_of_answers_all_have_a_caption():
    found = work.find_events("From 10 to 20.", 10.0, "grounding", "a bell", None)
    assert found == (Event(1.0, 2.0, "a bell"),)
    assert work.find_events("A bell\nrings.", 10.0, "segment_captioning", "", (2.0, 4.0)) == (
        Event(2, 4, "A bell rings."),
    )
    assert work.find_events("", 10.0, "segment_captioning", "", (2.0, 4.0)) == ()
    assert work.find_events("From 10 to 20, a dog.", 10.0, None, "when?", None)[0].caption == "a dog."
    # The bar of a free question carries its answer, not the question again.
    (event,) = work.find_events("The bell rings\nfrom 10 to 20.", 10.0, None, "When does the bell ring?", None)
    assert event == Event(1.0, 2.0, "The bell rings from 10 to 20.")
    assert work.find_events("No idea.", 10.0, None, "when?", None) == ()


def test_encoding_ends_within_a_tower(scripted_pair, clips, stop):
    model, processor = scripted_pair
    media = read_media(clips / "clip.mp4", **processor.media_kwargs())
    groups = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    ran = []
    hooks = [layer.register_forward_hook(lambda *_: (ran.append(1), stop.set())) for group in groups for layer in group]
    with pytest.raises(work.Stopped):
        work.encode(*scripted_pair, media, lambda *_: None, stop)
    assert len(ran) == 1
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(
    ("text", "captions", "marked", "marked_captions"),
    [
        ("From 00 to 50, a bell.\nFrom 50 to 99, a d", ["a bell.", "a d"], " …", ["a bell.", "a d …"]),
        ("From 00 to 50, a bell.\nFrom 5", ["a bell."], " …", ["a bell."]),
        ("From 00 to 50, a bell.", ["a bell."], "", ["a bell."]),
        ("A bell is he", ["A bell is he"], " …", ["A bell is he …"]),
        ("A b", [], " …", []),
    ],
)
def test_where_a_stopped_answer_was_cut_off(text, captions, marked, marked_captions):
    events = tuple(Event(0, 5, caption) for caption in captions)
    cut, found = work.cut_off(text, events)
    assert cut == text + marked and [event.caption for event in found] == marked_captions
