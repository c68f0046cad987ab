import base64
import io
import json

import numpy as np
import pytest
from annotated_stages import write
from PIL import Image

from longvale.annotation.review.results import load_annotated
from longvale.app.timeline import describe_annotation, describe_answer, describe_video, to_annotation, waveform_peaks
from longvale.events import Event
from longvale.models.media import Media


def test_a_video_is_described_for_the_browser():
    frames = np.zeros((30, 40, 80, 3), np.uint8)
    frames[:, :, :, 0] = np.arange(30)[:, None, None] * 8
    media = Media(60.0, frames, np.arange(30.0), np.sin(np.arange(960000) / 10, dtype=np.float32), 16000, ("damaged",))
    described = json.loads(json.dumps(describe_video("a.mp4", "file", media)))
    assert described["duration"] == 60.0 and len(described["peaks"]) == 480 and max(described["peaks"]) == 1.0
    assert described["notes"] == ["damaged"]
    pictures = [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in described["thumbnails"]]
    assert {picture.size for picture in pictures} == {(144, 72)}
    reds = [np.asarray(picture)[..., 0].mean() for picture in pictures]
    assert len(reds) == 12 and reds == sorted(reds)  # in the order of time


def test_what_is_missing_is_said():
    nothing = describe_video("a.mp4", "file", Media(1.0, None, np.empty(0), None, 16000))
    assert nothing["peaks"] is None and nothing["thumbnails"] == []
    assert nothing["notes"] == ["This video has no sound.", "This file has no picture."]


def test_peaks_show_when_it_is_loud():
    waveform = np.zeros(1000, np.float32)
    waveform[500:600] = -0.25
    peaks = waveform_peaks(waveform, 10)
    assert peaks == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert waveform_peaks(np.zeros(5, np.float32), 10) == [0.0] * 5  # silence is not blown up
    assert waveform_peaks(np.zeros(0, np.float32), 10) == []


def test_an_answer_can_be_saved_when_it_is_complete():
    events = (Event(5, 9, "Late.", ("audio",)), Event(0, 5, "Early.", ()))
    weights = [{"visual": 0.0, "audio": 2.345, "speech": 0.0}, {"visual": 0.0, "audio": 0.0, "speech": 0.1}]
    running = describe_answer("What?", "From", events[:1], None, None)
    assert not running["done"] and running["files"] == [] and running["events"][0]["weights"] is None
    done = describe_answer("What?", "text", events, weights, to_annotation("clip.mp4", 10.0, events))
    assert done["done"] and done["events"][0]["weights"] == [0.0, pytest.approx(2.345, abs=0.006), 0.0]
    official = json.loads(next(file["text"] for file in done["files"] if file["name"] == "clip.json"))
    assert official["clip"]["timestamps"] == [[0, 5], [5, 9]]
    assert describe_answer("What?", "no", (), None, to_annotation("clip.mp4", 10.0, ()))["files"] == []


@pytest.mark.parametrize(
    ("name", "video_id"),
    [
        ("clip.mp4", "clip"),
        ("../../etc/passwd.mp4", "_.._etc_passwd"),
        ("..mp4", "video"),
        ("a<b>\0.mp4", "a_b__"),
        ("long" * 100 + ".mp4", "long" * 25),
        ("ohne Endung", "ohne Endung"),
    ],
)
def test_saved_events_have_a_name_that_is_fit_for_a_file(name, video_id):
    assert to_annotation(name, 10.0, ()).video_id == video_id


def test_an_annotation_says_where_its_events_come_from(tmp_path):
    found = load_annotated(write(tmp_path / "out.stages"))["clip"]
    described = json.loads(json.dumps(describe_annotation(found)))
    assert described["events"][0]["sources"][1] == ["heard", "A bell."] and len(described["files"]) == 5
