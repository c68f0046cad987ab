"""Clustering of local speakers: number of speakers, constraints, little speech, long videos."""

import numpy as np
import pytest

from longvale.annotation.diarization.clustering import (
    ClusterOptions,
    Piece,
    Voice,
    assign,
    cluster,
    find_clusters,
    find_voices,
)


def places(windows, locals_=None):
    """Window and local speaker of each voice: by default all in windows of their own."""
    windows = np.asarray(windows)
    return np.stack([windows, np.zeros(len(windows), int) if locals_ is None else np.asarray(locals_)], axis=1)


def voices(random, people, count, spread):
    """Unit vectors near one of `people` orthogonal directions."""
    centres = np.eye(64, dtype=np.float32)[:people]
    who = np.arange(count) % people
    rows = centres[who] + random.normal(0, spread / 8, (count, 64)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), who


@pytest.mark.parametrize("people", [1, 2, 5])
def test_the_number_of_speakers_is_found(people):
    rows, who = voices(np.random.default_rng(people), people, 60, 0.6)
    centroids = find_clusters(rows, places(range(60)), np.full(60, 3.0))
    assert len(centroids) == people
    labels = assign(rows, places(range(60)), centroids, 0.3)
    assert len(set(zip(who.tolist(), labels.tolist(), strict=True))) == people


def test_two_speakers_of_one_window_are_different_people():
    # Alike voices that speak at the same time in each window: without the constraint they are one cluster.
    angle = 0.45
    pair = np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]], np.float32)
    rows = np.tile(pair, (6, 1))
    seconds = np.full(12, 3.0)
    assert len(find_clusters(rows, places(range(12)), seconds)) == 1
    where = places(np.repeat(np.arange(6), 2), np.tile([0, 1], 6))
    centroids = find_clusters(rows, where, seconds)
    assert len(centroids) == 2
    labels = assign(rows, where, centroids, 0.3).reshape(6, 2)
    assert (labels[:, 0] != labels[:, 1]).all() and len(set(labels[:, 0].tolist())) == 1


def test_a_window_that_splits_one_person_is_outvoted():
    random = np.random.default_rng(0)
    rows, _ = voices(random, 1, 20, 0.3)
    where = places([0, 0, *range(1, 19)], [0, 1, *[0] * 18])
    assert len(find_clusters(rows, where, np.full(20, 3.0), ClusterOptions(smallest_s=4.0))) == 1


def test_voices_of_one_window_take_different_speakers_unless_that_is_far_fetched():
    speakers = np.eye(2, dtype=np.float32)
    alike = np.array([[1.0, 0.0], [0.8, 0.6]], np.float32)
    assert assign(alike, places([0, 0], [0, 1]), speakers, 0.3).tolist() == [0, 1]
    assert assign(alike[::-1], places([0, 0], [0, 1]), speakers, 0.3).tolist() == [1, 0]
    assert assign(alike, places([0, 0], [0, 1]), speakers, 0.0).tolist() == [0, 0]
    assert assign(alike, places([0, 0], [1, 1]), speakers, 0.3).tolist() == [0, 0]  # parts of one local speaker
    assert assign(alike, places([0, 1], [0, 1]), speakers, 0.3).tolist() == [0, 0]  # in two windows
    same = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    assert assign(same, places([0, 0], [0, 1]), speakers, 0.3).tolist() == [0, 0]


def test_a_local_speaker_who_is_two_people_is_split():
    rows = np.eye(3, dtype=np.float32)[[0, 0, 1, 0, 2]]
    pieces = [Piece(0, 0, 90 * i, 90 * i + 90, 1.5, row) for i, row in enumerate(rows[:4])]
    pieces.append(Piece(0, 1, 400, 500, 0.0, rows[4]))
    voices = find_voices(pieces, 0.6)
    assert [[piece.first for piece in voice.pieces] for voice in voices] == [[0, 90, 270], [180], [400]]
    assert [voice.place for voice in voices] == [(0, 0), (0, 0), (0, 1)]
    assert [voice.seconds for voice in voices] == [4.5, 1.5, 0.0]
    speakers, _ = cluster(voices, ClusterOptions(smallest_s=1.0))
    assert speakers.tolist() == [0, 1, 0]  # 2 has no clean speech: the nearest


def test_no_voices():
    assert [part.tolist() for part in cluster([])] == [[], []] and find_voices([], 0.6) == []
    one = Voice((Piece(0, 0, 0, 90, 0.0, np.eye(2)[0]),), 0.0, np.eye(2, dtype=np.float32)[0])
    speakers, centroids = cluster([one])
    assert speakers.tolist() == [0] and centroids == pytest.approx(one.embedding[None])


def test_little_speech_makes_no_speaker():
    rows, _ = voices(np.random.default_rng(1), 2, 40, 0.3)
    seconds = np.where(np.arange(40) % 2 == 0, 3.0, 0.0)
    seconds[1] = 1.6  # of the second person
    assert len(find_clusters(rows, places(range(40)), seconds)) == 1
    assert len(find_clusters(rows, places(range(40)), seconds, ClusterOptions(smallest_s=1.0))) == 2
    assert len(find_clusters(rows, places(range(40)), seconds, ClusterOptions(min_speakers=2))) == 2


def test_no_trusted_embedding():
    rows, _ = voices(np.random.default_rng(2), 1, 3, 0.1)
    assert find_clusters(rows, places(range(3)), np.full(3, 0.5)).shape == (1, 64)
    assert find_clusters(np.zeros((0, 64), np.float32), np.zeros((0, 2), int), np.zeros(0)).shape == (0, 64)


def test_most_speakers_are_kept_to():
    rows, _ = voices(np.random.default_rng(3), 6, 60, 0.3)
    assert len(find_clusters(rows, places(range(60)), np.full(60, 3.0), ClusterOptions(max_speakers=4))) == 4


def test_a_long_video_is_clustered_by_a_sample():
    rows, who = voices(np.random.default_rng(4), 3, 6000, 0.6)
    options = ClusterOptions(most_members=90)
    centroids = find_clusters(rows, places(range(6000)), np.full(6000, 3.0), options)
    assert len(centroids) == 3
    labels = assign(rows, places(range(6000)), centroids, 0.3)
    assert len(set(zip(who.tolist(), labels.tolist(), strict=True))) == 3


def test_order_of_equal_input_is_kept():
    rows, _ = voices(np.random.default_rng(5), 4, 80, 0.8)
    seconds = np.random.default_rng(6).uniform(1, 4, 80)
    first = find_clusters(rows, places(np.arange(80) // 2, np.arange(80) % 2), seconds)
    np.testing.assert_array_equal(first, find_clusters(rows, places(np.arange(80) // 2, np.arange(80) % 2), seconds))


def test_options_out_of_range():
    with pytest.raises(ValueError, match="min_speakers=3, max_speakers=2: expected 1 <= least <= greatest"):
        ClusterOptions(min_speakers=3, max_speakers=2)
