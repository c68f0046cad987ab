"""Shots, camera, fades and colours, of pictures of which they are known."""

from pathlib import Path

import numpy as np
import pytest

from longvale.annotation.clip_reader import ClipReader
from longvale.annotation.facts.seen import count_shots, find_seen
from longvale.annotation.tracks import Span

RATE = 5


def picture(seed, size=(48, 64)):
    """A picture with a layout of its own: smooth patches, as of a scene."""
    small = np.random.default_rng(seed).uniform(20, 235, (6, 8, 3))
    return np.kron(small, np.ones((size[0] // 6, size[1] // 8, 1)))


def grain(frames, seed=0):
    noisy = np.asarray(frames) + np.random.default_rng(seed).normal(0, 2, np.shape(frames))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def reader_of(frames):
    times = (np.arange(len(frames)) + 0.5) / RATE
    return ClipReader(Path("x.mp4"), len(frames) / RATE, frames, times, None)


def texts(frames, cuts=(), start=0.0, end=None, tracks=None):
    reader = reader_of(frames)
    found = find_seen(reader, start, end or reader.duration, cuts, tracks or {})
    return {fact.source: fact.text for fact in found}


@pytest.mark.parametrize(("shots", "phrase"), [(1, "one shot"), (4, "four shots"), (12, "many shots")])
def test_shots_are_counted(shots, phrase):
    frames = grain([picture(shot) for shot in range(shots) for _ in range(10)])
    assert texts(frames, [2.0 * shot for shot in range(1, shots)])["shots"] == phrase


def test_a_cut_in_a_picture_that_always_changes_is_not_counted():
    """Animation that a detector cuts, such as a test pattern: how many shots there are is not known."""
    frames = grain([picture(seed) for seed in range(20)])
    assert "shots" not in texts(frames, [2.0])
    assert count_shots(frames, (np.arange(20) + 0.5) / RATE, [2.0], 0.0, 4.0) == (1, False)


def test_a_cut_that_changes_nothing_is_not_counted():
    assert "shots" not in texts(grain([picture(0)] * 20), [2.0])


def test_cuts_at_the_boundaries_of_an_event_are_those_boundaries():
    frames = grain([picture(shot) for shot in (0, 1, 2) for _ in range(10)])
    assert texts(frames, [2.0, 4.0], 2.0, 4.0)["shots"] == "one shot"


def test_a_dissolve_leaves_the_number_of_shots_open():
    weights = np.concatenate([np.zeros(10), np.linspace(0, 1, 6), np.ones(10)])
    frames = grain([(1 - w) * picture(0) + w * picture(1) for w in weights])
    assert "shots" not in texts(frames)


def test_red_to_blue_is_a_cut_although_both_are_as_dark():
    red, blue = np.full((48, 64, 3), (200, 30, 30)), np.full((48, 64, 3), (30, 30, 200))
    found = texts(grain([red] * 10 + [blue] * 10), [2.0])
    assert found["shots"] == "two shots" and "colour" not in found
    assert texts(grain([red] * 10))["colour"] == "red"


def test_a_still_camera_a_moving_one_and_a_frozen_picture():
    scene = picture(0)
    ball = [scene.copy() for _ in range(20)]
    for index, frame in enumerate(ball):
        frame[20:30, index : index + 10] = 255
    assert texts(grain(ball))["camera"] == "the camera is still"
    assert "camera" not in texts(grain([np.roll(scene, 2 * index, axis=1) for index in range(20)]))
    assert texts(np.array([scene] * 20, np.uint8))["camera"] == "the picture does not move"


def test_fades_from_and_to_black():
    levels = np.concatenate([np.linspace(0, 1, 8), np.ones(20), np.linspace(1, 0, 8)])
    found = find_seen(reader_of(grain([level * picture(0) for level in levels])), 0.0, 7.2, (), {})
    fades = [(f.text, round(f.start), round(f.end)) for f in found if f.source == "fade"]
    assert fades == [("fades in from black", 0, 2), ("fades to black", 6, 7)]


def test_a_cut_to_black_is_not_a_fade():
    assert "fade" not in texts(grain([picture(0)] * 20 + [np.zeros((48, 64, 3))] * 3))


def test_a_black_picture():
    assert texts(np.zeros((10, 48, 64, 3), np.uint8)) == {"fade": "the picture is black"}


def test_text_on_screen_is_a_fact_with_its_times_and_confidence():
    tracks = {"text": [Span(1.0, 3.0, "EXIT", 0.9), Span(0.0, 4.0, "")]}
    (fact,) = [f for f in find_seen(reader_of(grain([picture(0)] * 20)), 0.0, 4.0, (), tracks) if f.source == "text"]
    assert (fact.text, fact.start, fact.end, fact.confidence, fact.modality) == ("EXIT", 1.0, 3.0, 0.9, "visual")


def test_without_frames_nothing_is_seen():
    reader = ClipReader(Path("x.mp4"), 4.0, None, np.empty(0), None)
    assert find_seen(reader, 0.0, 4.0, (), {}) == []
