"""Pixels that are not square: frames come out as the video is shown."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from media_files import numbers, written

from longvale.models.media import probe, read_frames, read_media

MPEG2 = {"codec": "mpeg2video", "rate": 25, "codec_options": {"g": "12", "bf": "2"}}


@pytest.mark.parametrize(
    ("pixel", "expected"), [(None, (48, 64)), (Fraction(2, 1), (48, 128)), (Fraction(1, 2), (48, 32)), (1, (48, 64))]
)
def test_the_width_is_that_of_the_display(pixel, expected):
    result = read_media(written(pictures=20, pixel=pixel), num_frames=4)
    assert result.frames.shape[1:3] == expected
    assert numbers(result.frames) == [2, 7, 12, 17]


@pytest.mark.parametrize(
    ("pixel", "expected"), [(Fraction(2, 1), (24, 64)), (Fraction(1, 2), (36, 24)), (Fraction(3, 4), (24, 24))]
)
def test_the_shorter_side_is_that_of_the_display(pixel, expected):
    result = read_media(written(pictures=20, pixel=pixel), num_frames=4, size=24)
    assert result.frames.shape[1:3] == expected
    assert numbers(result.frames) == [2, 7, 12, 17]


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (-90, -1), (180, 2)])
def test_a_turned_picture_is_stretched_before_it_is_turned(degrees, turns):
    plain = read_media(written(pictures=20, pixel=Fraction(2, 1)), num_frames=4)
    turned = read_media(written(pictures=20, pixel=Fraction(2, 1), rotation=degrees), num_frames=4)
    np.testing.assert_array_equal(turned.frames, np.rot90(plain.frames, turns, axes=(1, 2)))


def test_an_edit_list_stays_what_it_is():
    result = read_media(written(pictures=42, pts=range(-12, 30), pixel=Fraction(2, 1)), num_frames=3)
    assert numbers(result.frames) == [17, 27, 37] and result.frames.shape[1:3] == (48, 128)


def without_pasp(data):
    """The shape is said by the codec alone."""
    return data.replace(b"pasp", b"free")


@pytest.mark.parametrize(
    "data",
    [
        written(pictures=10, pixel=Fraction(4, 3)),
        without_pasp(written("mov", pictures=10, pixel=Fraction(4, 3))),
        written("matroska", pictures=10, pixel=Fraction(4, 3)),
        written("mpegts", pictures=10, rate=25, pixel=Fraction(4, 3)),
        written("avi", pictures=10, pixel=Fraction(4, 3), codec="mpeg4"),
        written("mpegts", pictures=10, pixel=Fraction(4, 3), **MPEG2),
        written("mpeg", pictures=10, pixel=Fraction(4, 3), **MPEG2),
    ],
    ids=["mp4", "mov", "matroska", "mpegts", "avi", "mpegts mpeg2", "mpeg"],
)
def test_container_and_codec_may_say_it(data):
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
    assert read_media(data, num_frames=2).frames.shape[1:3] == (48, 85)
    assert probe(data).short_side == 48


def test_the_container_has_the_last_word():
    """A file whose shape was corrected without encoding it again."""
    data = bytearray(written("mov", pictures=10, pixel=Fraction(2, 1)))
    at = data.index(b"pasp") + 4
    data[at : at + 8] = bytes([0, 0, 0, 1, 0, 0, 0, 2])
    result = read_media(bytes(data), num_frames=1)
    assert result.frames.shape[1:3] == (48, 32)
    assert probe(bytes(data)).short_side == 32


def test_a_second_look_sees_the_same_shape():
    data = written("avi", pictures=30, pixel=Fraction(2, 1), codec="mpeg4")  # AVI is always looked at again
    assert read_media(data, num_frames=3).frames.shape == (3, 48, 128, 3)


def test_pictures_one_by_one_are_as_stored():
    assert {(p.width, p.height) for _, p in read_frames(written(pictures=4, pixel=Fraction(2, 1)))} == {(64, 48)}
