"""The language of the speech as a filter of admission; a stub recognises it, by how loud it is."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
from needs import needs_annotation
from tiny_whisper import build_whisper

from longvale.annotation import video_stages
from longvale.annotation.captions import template_captioners
from longvale.annotation.filters import FilterOptions
from longvale.annotation.languages import check_code, check_language, spoken_language
from longvale.annotation.pipeline import AnnotationModels, AnnotationOptions, annotate, stage_folder
from longvale.io import load_json

ENGLISH, GERMAN = {"en": 0.9, "de": 0.1}, {"en": 0.2, "de": 0.8}
OPTIONS = AnnotationOptions(filters=FilterOptions(None, None, None, False, False, None, None, language="en"))


class Stub:
    """Takes tones above 1 kHz for German and others for English, silence for either."""

    name, size, languages = "stub", 48, ("de", "en")

    def __init__(self):
        self.heard = []

    def __call__(self, clip):
        return "hello"

    def identify_languages(self, sound):
        self.heard.append(len(sound) / 16_000)
        if not np.abs(sound).max() > 0.01:
            return {"en": 0.5, "de": 0.5}
        crossings = np.count_nonzero(np.diff(np.signbit(sound))) / len(sound) * 16_000
        return GERMAN if crossings > 2000 else ENGLISH


def models(recogniser):
    return AnnotationModels(captioners={**template_captioners(), "speech": recogniser})


def records(output):
    told = (json.loads(line) for line in (stage_folder(output) / "videos.jsonl").read_text().splitlines())
    return {record["video_id"]: record for record in told}


@pytest.fixture
def videos(film, tmp_path, monkeypatch):
    """English for 5 s and German for 1; English for 1 s and German for 3.5; nobody speaks. Films are low up to 60 %."""
    turns = {10: [(0.5, 5.5), (8.0, 9.0)], 12: [(1.0, 2.0), (8.0, 11.5)], 8: []}
    monkeypatch.setattr(video_stages, "find_speech", lambda sound, options: turns[round(len(sound) / 16_000)])
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, seconds in {"english": 10, "german": 12, "quiet": 8}.items():
        os.link(film(f"{name}.mp4", seconds), folder / f"{name}.mp4")
    return folder


@needs_annotation
def test_videos_of_another_language_are_refused(videos, tmp_path):
    output = tmp_path / "out.json"
    summary = annotate([videos], output, options=OPTIONS, models=models(Stub()), progress=False)
    assert set(summary.annotations) == {"english", "quiet"}
    told = {video: (record["facts"], record["rejections"]) for video, record in records(output).items()}
    measured = {video: (known["language"], known["language_probability"]) for video, (known, _) in told.items()}
    assert measured == {"english": ("en", 0.783), "german": ("de", 0.644), "quiet": (None, None)}
    (refused,) = told["german"][1]
    assert refused == {"filter": "language", "reason": "other language", "value": "de", "threshold": "en"}
    provenance = load_json(tmp_path / "out.provenance.json")
    assert provenance["languages"] == {"en": 1, "de": 1} and provenance["options"]["filters"]["language"] == "en"
    assert provenance["captioners"]["speech"] == "stub"
    assert [line.split() for line in provenance["funnel"][1:]] == [["all", "3"], ["language", "2", "1"]]


@needs_annotation
def test_what_was_told_is_not_asked_again_and_another_language_is_another_run(videos, tmp_path):
    output, stub = tmp_path / "out.json", Stub()
    annotate([videos / "german.mp4", videos / "english.mp4"], output, options=OPTIONS, models=models(stub))
    assert stub.heard == [5.0, 1.0, 3.5, 1.0]
    annotate([videos], output, options=OPTIONS, models=models(stub), progress=False)
    assert len(stub.heard) == 4
    with pytest.raises(ValueError, match=r"made with options\.filters\.\w+ "):
        german = replace(OPTIONS, filters=replace(OPTIONS.filters, language="de"))
        annotate([videos], output, options=german, models=models(stub), progress=False)


@needs_annotation
def test_nobody_is_asked_without_the_filter(videos, tmp_path):
    stub = Stub()
    annotate([videos], tmp_path / "out.json", models=models(stub), progress=False)
    assert stub.heard == [] and records(tmp_path / "out.json")["german"]["facts"]["language"] is None
    assert load_json(tmp_path / "out.provenance.json")["languages"] == {}


def test_the_longest_parts_of_speech_are_heard_and_most_of_them_must_agree():
    stub, heard = Stub(), []

    def sound(start, end):
        heard.append((start, end))
        return np.zeros(round((end - start) * 16_000), np.float32)

    turns = [(0.0, 4.0), (10.0, 70.0), (80.0, 89.0), (90.0, 98.0)]
    assert spoken_language(turns, sound, stub) == (None, 0.5)  # as much of one as of the other
    assert heard == [(10.0, 40.0), (40.0, 70.0), (80.0, 89.0)]
    assert spoken_language([], sound, stub) == (None, None)


@pytest.mark.parametrize(("code", "near"), [
    ("english", "; near: en (english)"), ("EN", "; near: en (english)"), ("en-US", "; near: en (english)"),
    ("mandarin", "; near: zh (chinese)"), ("ger", "; near: de (german)"), ("qqq", ""), ("", ""),
])  # fmt: skip
def test_codes_are_checked(code, near):
    with pytest.raises(ValueError) as caught:
        FilterOptions(language=code)
    assert str(caught.value) == f"language must be a code that Whisper knows, such as en, not {code!r}{near}"
    assert FilterOptions(language="yue").language == "yue" and check_code("en") is None


def test_a_recogniser_that_does_not_tell_languages_is_refused_before_any_video(tmp_path, longvale, monkeypatch):
    output = tmp_path / "out.json"
    (tmp_path / "video.mp4").write_bytes(b"no video")
    monkeypatch.setattr(video_stages, "probe", lambda path: pytest.fail("a video was touched"))
    for part in build_whisper(languages=()):
        part.save_pretrained(tmp_path / "english")
    for part in build_whisper(languages=("en", "de")):
        part.save_pretrained(tmp_path / "two")
    cases = (
        ([], "en", "template of facts (speech) does not identify languages"),
        (["--speech-recogniser", tmp_path / "english"], "en", "english does not identify languages"),
        (["--speech-recogniser", tmp_path / "two"], "yue", "two identifies 2 languages, not this one"),
        (["--speech-recogniser", tmp_path / "gone"], "en", "gone: cannot be loaded"),
        ([], "german", "not 'german'; near: de (german)"),
    )
    for options, language, message in cases:
        result = longvale("annotate", tmp_path / "video.mp4", "--output", output, "--language", language, *options)
        assert result.exit_code == 2 and result.stdout == ""
        line = result.stderr.splitlines()[-1]
        assert line.startswith("longvale: error: ") and message in line
        assert "--speech-recogniser openai/whisper" in line or "must be" in line or "gone" in line
    assert not stage_folder(output).exists()
    with pytest.raises(ValueError, match="nothing that recognises speech does not identify languages"):
        check_language("en", None)


@needs_annotation
def test_the_command_takes_a_language(videos, tmp_path, longvale, monkeypatch):
    """With a tiny Whisper, which is made to hear German everywhere."""
    model, processor = build_whisper()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "whisper")
    german = {code: float(code == "de") for code in ("en", "zh", "de", "es")}
    monkeypatch.setattr(
        "longvale.annotation.tracks.recognisers.local.SpeechRecogniser.identify_languages", lambda self, sound: german
    )
    options = ["--speech-recogniser", tmp_path / "whisper", "--device", "cpu", "--quiet"]
    for language, left in (("en", "1 of 3"), ("de", "3 of 3")):
        output = tmp_path / f"{language}.json"
        result = longvale("annotate", videos, "--output", output, "--language", language, *options)
        assert result.exit_code == 0, result.stderr
        assert f"{left} videos annotated" in result.stdout and ("language" in result.stdout) == (language == "en")


def test_the_help_tells(longvale):
    told = " ".join(longvale("annotate", "--help").stdout.split())
    assert re.search(r"--language <\w+> Refuse videos in which most speech is of another language, such as en;", told)
    assert "--preset small --language en" in told
