"""Boundaries with the help of tracks: what a tagger and speakers add to them, and take away."""

import numpy as np
import pytest

from longvale.annotation.boundaries.guided import (
    confirmed_turns,
    fuse_guided,
    guide_sounds,
    music_passages,
    voice_turns,
)
from longvale.annotation.boundaries.options import VisualOptions
from longvale.annotation.clip_reader import ClipReader
from longvale.annotation.tracks import Found, Span
from longvale.annotation.video_stages import AnnotationModels, AnnotationOptions, find_boundaries

MUSIC = Span(0.0, 20.0, "Music", 0.9)


def sounds(*spans):
    return {"sounds": [Span(*span) for span in spans]}


def test_speech_turns_without_a_speech_label_are_dropped():
    turns = [(2.0, 4.0), (10.0, 12.0), (30.0, 31.0)]
    found = sounds((0.0, 9.0, "Music"), (11.5, 14.0, "Narration, monologue"), (29.0, 32.0, "Singing"))
    assert confirmed_turns(turns, found) == [(10.0, 12.0)]
    assert confirmed_turns(turns, {}) == turns
    assert confirmed_turns(turns, {"sounds": []}) == turns  # a tagger that failed says nothing


def test_a_tagger_without_a_label_of_speech_drops_no_turn():
    barks = Found([Span(0.0, 9.0, "Bark")], tells_speech=False)
    assert confirmed_turns([(2.0, 4.0)], {"sounds": barks}) == [(2.0, 4.0)]
    assert confirmed_turns([(2.0, 4.0)], {"sounds": Found(barks)}) == []
    assert Found.from_record(barks.to_record()).tells_speech is False
    assert Found.from_record({"spans": []}).tells_speech is True  # of a log without the field


def test_speaker_turns_replace_the_turns_in_which_they_are():
    speakers = [Span(1.0, 3.0, "speaker 1"), Span(3.0, 5.0, "speaker 2")]
    assert voice_turns([(1.0, 5.0), (8.0, 9.0)], {"speakers": speakers}) == [(1.0, 3.0), (3.0, 5.0), (8.0, 9.0)]
    assert voice_turns([(1.0, 5.0)], {}) == [(1.0, 5.0)]


def test_short_music_is_not_a_passage():
    assert music_passages(sounds((0.0, 7.5, "Music"), (20.0, 25.0, "Guitar"), (24.0, 29.0, "Choir"))) == [(20.0, 29.0)]
    assert music_passages({}) == []


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([(3.0, 5.0), (6.0, 10.0)], [(0.0, 20.0), (6.0, 10.0)]),  # a note, and what is too long for one
        ([(18.0, 21.5)], [(0.0, 20.0), (18.0, 21.5)]),  # not within the music
        ([(0.4, 20.8)], [(0.4, 20.8)]),  # the music itself, whose times are more precise
    ],
)
def test_notes_of_music_are_not_sounds(found, expected):
    assert guide_sounds(found, [], {"sounds": [MUSIC]}) == expected


def test_what_the_tagger_is_sure_of_is_added():
    dog = (30.0, 31.0, "Dog")
    assert guide_sounds([], [], sounds((*dog, 0.6))) == [(30.0, 31.0)]
    assert guide_sounds([], [], sounds((*dog, 0.4))) == []
    assert guide_sounds([], [], sounds(dog)) == [(30.0, 31.0)]  # a tagger without scores
    assert guide_sounds([], [(29.2, 35.0)], sounds((*dog, 0.6))) == [(29.2, 31.0)]  # where a speech turn begins
    assert guide_sounds([], [], sounds((2.0, 9.0, "Speech", 0.9))) == []  # the speech detector knows better
    assert guide_sounds([(29.6, 31.4)], [], sounds((*dog, 0.6))) == [(29.6, 31.4)]
    assert guide_sounds([(4.0, 5.0), (1.0, 2.0)], [], {}) == [(1.0, 2.0), (4.0, 5.0)]


def test_music_moves_no_boundary():
    shots, note = [(0.0, 10.0), (10.0, 20.0)], (9.0, 12.5)
    assert fuse_guided(shots, [note], [], {}) == [(0.0, 9.0), (9.0, 20.0)]
    assert fuse_guided(shots, [note], [], {"sounds": [MUSIC]}) == shots


def test_a_speaker_change_within_a_turn_is_a_boundary_of_its_own():
    speakers = [Span(4.0, 9.0, "speaker 1"), Span(9.0, 12.0, "speaker 2")]
    assert fuse_guided([], [], [(4.0, 12.0)], {"speakers": speakers}) == [(4.0, 9.0), (9.0, 12.0)]


def test_boundaries_of_a_video_use_its_tracks():
    reader = ClipReader("none.wav", 30.0, None, np.empty(0), np.zeros(30 * 16_000, np.float32))
    tracks = {"sounds": [Span(2.0, 12.0, "Music", 0.9), Span(15.0, 18.0, "Speech", 0.9)]}
    turns = [(4.0, 5.0), (15.0, 18.0)]
    found = find_boundaries(reader, AnnotationOptions(), AnnotationModels(), turns, tracks)
    assert found["speech"] == [(15.0, 18.0)] and found["audio"] == [(2.0, 12.0)]
    assert found["events"] == [(2.0, 12.0), (15.0, 18.0)]
    plain = find_boundaries(reader, AnnotationOptions(), AnnotationModels(), turns, {})
    assert plain["speech"] == turns and plain["audio"] == [] and plain["events"] == turns


def test_thresholds_of_measured_descriptors_are_not_calibrated():
    frames = np.zeros((60, 48, 64, 3), np.uint8)
    frames[:30, ..., 0], frames[30:, ..., 2] = 200, 200
    reader = ClipReader("none.mp4", 12.0, frames, (np.arange(60) + 0.5) / 5, None)
    options = AnnotationOptions(visual=VisualOptions(detector="none"))
    assert find_boundaries(reader, options, AnnotationModels(), [], {})["stitch"] == options.visual.stitch
