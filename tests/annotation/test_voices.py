"""Who speaks and what is said: in the records of events, and in files that other programs read."""

import json
import re

import pytest
from needs import needs_annotation

from longvale.annotation.pipeline import AnnotationModels, annotate, stage_folder
from longvale.annotation.review.voices import to_rttm, to_voices_srt, to_voices_webvtt
from longvale.annotation.tracks import Span, Word
from longvale.annotation.tracks.speakers import SpeakerTracker, voices_of


class Halves:
    name = "halves"

    def __call__(self, waveform):
        return [(0.0, 4.5, "left"), (4.0, 8.0, "right")]


class Said:
    name = "said"

    def __call__(self, reader, speech, tracks):
        words = [(0.5, "Good"), (1.0, "morning."), (6.0, "To"), (6.5, "you.")]
        return [Span(0.5, 7.0, "Good morning. To you.", 0.9, words=tuple(Word(a, a + 0.4, text) for a, text in words))]


@pytest.fixture
def annotated(film, tmp_path):
    output = tmp_path / "out.json"
    models = AnnotationModels(trackers={"speakers": SpeakerTracker(Halves()), "transcript": Said()})
    annotate([film("voices.mp4", 8)], output, models=models, progress=False)
    return output


def lines(output, stage):
    return [json.loads(line) for line in (stage_folder(output) / f"{stage}.jsonl").read_text().splitlines()]


@needs_annotation
def test_events_hold_speakers_and_words_of_their_time(annotated):
    first, second = lines(annotated, "events")
    assert first["speakers"] == ["speaker 1"] and second["speakers"] == ["speaker 1", "speaker 2"]
    assert [(part["speaker"], part["text"]) for part in first["said"]] == [("speaker 1", "Good morning.")]
    assert [(part["speaker"], part["text"]) for part in second["said"]] == [("speaker 2", "To you.")]
    speakers, transcript = lines(annotated, "tracks")
    assert [span["text"] for span in speakers["spans"]] == ["speaker 1", "speaker 2"]
    assert [span["speaker"] for span in transcript["spans"]] == ["speaker 1", "speaker 2"]


@needs_annotation
def test_files_with_voices(annotated, longvale, tmp_path):
    for name, suffix in [("rttm", ".rttm"), ("voices-webvtt", ".voices.vtt"), ("voices-srt", ".voices.srt")]:
        result = longvale("annotate", "export", annotated, "--to", name, "--output", tmp_path / "files")
        assert result.exit_code == 0 and result.stdout == f"{tmp_path / 'files'}: 1 files\n", result.stderr
        assert (tmp_path / "files" / f"voices{suffix}").is_file()
    rttm = (tmp_path / "files" / "voices.rttm").read_text().splitlines()
    assert [line.split()[3:5] + line.split()[7:8] for line in rttm] == [
        ["0.000", "4.500", "speaker_1"],
        ["4.000", "4.000", "speaker_2"],
    ]
    assert "<v Speaker 2>To you." in (tmp_path / "files" / "voices.voices.vtt").read_text()
    assert "Speaker 1: Good morning." in (tmp_path / "files" / "voices.voices.srt").read_text()


@needs_annotation
def test_without_the_track_there_is_nothing_to_write(film, longvale, tmp_path):
    output = tmp_path / "out.json"
    annotate([film("plain.mp4", 8)], output, progress=False)
    assert "speakers" not in lines(output, "events")[0] and "said" not in lines(output, "events")[0]
    result = longvale("annotate", "export", output, "--to", "rttm", "--output", tmp_path / "files")
    assert result.exit_code == 2 and "no speakers of these videos; annotate them with --speakers" in result.stderr
    assert not (tmp_path / "files").exists()


def test_tracks_that_were_not_found_have_no_field():
    assert voices_of({"sounds": [Span(0.0, 1.0, "Dog")]}) == {}
    assert voices_of({"speakers": [], "transcript": [Span(0.0, 1.0, "")]}) == {"speakers": [], "said": []}


def test_names_in_rttm_are_one_word():
    (line,) = to_rttm("my\nvideo 1", [Span(0.0, 1.0, "speaker 1")]).splitlines()
    assert line.split()[1] == "my_video_1" and len(line.split()) == 10


def test_what_is_said_cannot_forge_cues_or_voices():
    said = [
        Span(0.0, 1.0, "a <v Queen>b --> c\n\n2\n00:00", speaker="speaker 1"),
        Span(1.0, 2.0, "<v Queen>nobody"),
        Span(2.0, 3.0, " "),
    ]
    vtt = to_voices_webvtt("x", said)
    assert re.findall("<v ([^>]*)>", vtt) == ["Speaker 1"]
    assert vtt.count("-->") == 2
    assert to_voices_srt("x", said).count(" --> ") == 2
