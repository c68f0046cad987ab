"""Small files that ask for much: what a file claims, what it holds and what is waited for are bounded."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from media_files import clicks, jumping, numbers, tone, write, written

from longvale.models import media_decoder
from longvale.models.media import MediaError, MediaLengthError, MediaStream, probe, read_frames, read_media


def refused(source, *words, error=MediaError, **kwargs):
    with pytest.raises(error) as caught:
        read_media(source, **kwargs)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message
    return caught.value


# Pictures


@pytest.mark.parametrize("size", [(4, 4096), (4096, 4), (16, 16_000)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("times", [None, np.linspace(0, 1, 64)], ids=["num_frames", "frame_times"])
def test_thin_pictures_are_refused_before_they_take_gigabytes(size, times, monkeypatch):
    data = written(pictures=12, size=size, codec_options={"preset": "ultrafast"})
    with monkeypatch.context() as patch:
        patch.setattr(media_decoder, "VideoReformatter", lambda: None)  # nothing is scaled, which would fail
        kwargs = {"num_frames": 100} if times is None else {"frame_times": times}
        refused(data, f"{size[0]} x {size[1]} pixels, more than 100 times as long as wide; crop it", size=224, **kwargs)
    assert read_media(data, num_frames=3).frames.shape[0] == 3  # as they are, few pixels


def test_pixels_of_an_absurd_shape_count_too():
    data = bytearray(written(pictures=3, pixel=Fraction(2, 1)))
    at = data.index(b"pasp") + 4
    data[at : at + 8] = struct.pack(">II", 1000, 1)
    refused(bytes(data), "64000 x 48 pixels, more than 100 times", size=224, num_frames=100)
    refused(bytes(data), "1000 frames of 64000 x 48 pixels would take 9.2 GB, more than 2.5 GB", num_frames=1000)


def test_the_bound_is_on_all_frames_together(monkeypatch):
    data = written(pictures=20)
    monkeypatch.setattr(media_decoder, "_MAX_FRAMES_BYTES", 3 * 64 * 48 * 10)
    assert read_media(data, num_frames=10).frames.shape == (10, 48, 64, 3)
    refused(data, "11 frames of 64 x 48 pixels", num_frames=11)


def test_pictures_that_claim_too_many_pixels_are_refused(monkeypatch):
    data = written(pictures=3)
    monkeypatch.setattr(media_decoder, "_MAX_PIXELS", 64 * 48 - 1)
    refused(data, "its pictures claim 64 x 48 pixels")
    with pytest.raises(MediaError, match="64 x 48"):
        list(read_frames(data))


# Clocks


@pytest.mark.parametrize("pictures", [True, False], ids=["video", "sound"])
@pytest.mark.parametrize(
    ("format", "to_s"), [("matroska", 10**8), ("matroska", 200_000), ("matroska", 20_000), ("mp4", 20_000)]
)
def test_a_jump_is_neither_waited_for_nor_filled(format, to_s, pictures):
    data = jumping(format, to_s, pictures)
    assert len(data) < 83_000
    for limit in (7200.0, 86_400.0, None):
        refused(data, "<bytes>: ", num_frames=4, max_duration_s=limit)
    stream, samples = MediaStream(data, num_frames=4), 0
    with pytest.raises(MediaError, match=r"clock jumps|lasts"):
        for window in stream:
            samples += len(window)
    assert samples < 3600 * 16_000


@pytest.mark.parametrize("format", ["matroska", "mp4"])
def test_a_pause_of_some_minutes_is_a_pause(format):
    result = read_media(jumping(format, 1200), num_frames=4)
    assert result.duration == pytest.approx(1201, abs=1)
    assert not result.waveform[2 * 16_000 : 1199 * 16_000].any() and result.waveform[-15_000:-2_000].any()


def test_many_pauses_are_counted_together():
    pauses = [(1800.0 * k, clicks([0.1], 1.0, 16_000, 1)) for k in range(4)]
    data = written("matroska", sound=pauses, sound_rate=16_000)
    refused(data, "clock jumps from", "cut out the part", max_duration_s=None)
    assert read_media(written("matroska", sound=pauses[:2], sound_rate=16_000)).duration == pytest.approx(1801, abs=1)


def test_a_picture_that_lasts_for_days():
    """The last picture says that it is shown for long: silence would be heard for that."""
    buffer = io.BytesIO()
    write(buffer, format="mp4", pictures=2, pts=[0, 10], rate=10, sound=tone(440, 1.0))
    data = bytearray(buffer.getvalue())
    at = data.index(b"stts") + 8  # entries of (how many, for how long) after their number
    number = int.from_bytes(data[at : at + 4], "big")
    last = at + 4 + 8 * (number - 1) + 4
    data[last : last + 4] = struct.pack(">I", 2**31 - 1)
    with av.open(io.BytesIO(bytes(data))) as container:
        assert max(p.duration * p.time_base for p in container.demux(video=0) if p.size) > 10_000
    refused(bytes(data), "lasts", num_frames=2)
    refused(bytes(data), "clock jumps", num_frames=2, max_duration_s=None)


def test_pictures_alone_may_be_far_apart():
    """Nothing is held for the time between them."""
    data = written("matroska", pictures=3, pts=[0, 20_000, 40_000], rate=1)
    result = read_media(data, frame_times=[0, 19_999, 30_000], max_duration_s=None)
    assert numbers(result.frames) == [0, 0, 1]


def test_too_long_says_how_long():
    error = refused(written(pictures=40), "lasts 4.0 s", error=MediaLengthError, max_duration_s=3.0)
    assert (error.duration, error.limit) == (pytest.approx(4.0), 3.0)


def test_sound_at_one_time_is_counted_by_its_length():
    """Packets that all say the same time, or nearly: an hour of sound that claims a second."""
    buffer = io.BytesIO()
    write(buffer, format="mp4", sound=np.zeros((1, 60 * 8000)), sound_rate=8000, sound_codec="flac")
    data = bytearray(buffer.getvalue())
    at = data.index(b"stts") + 8
    for entry in range(int.from_bytes(data[at : at + 4], "big")):
        data[at + 8 + 8 * entry : at + 12 + 8 * entry] = struct.pack(">I", 1)
    refused(bytes(data), "lasts", "limit of 30.0 s", max_duration_s=30.0)


@pytest.mark.parametrize("rate", [1, 999, 2**31 - 1])
def test_absurd_sampling_rates_are_refused(rate):
    data = bytearray(written("wav", sound=tone(440, 1.0, 8000, 1), sound_rate=8000, sound_codec="pcm_s16le"))
    data[24:28] = struct.pack("<I", rate)
    refused(bytes(data), "<bytes>: ", "samples a second", max_duration_s=None)


# Headers


def matroska_that_claims(seconds, **kwargs):
    data = bytearray(written("matroska", **kwargs))
    place = data.index(b"\x44\x89\x88") + 3
    data[place : place + 8] = np.array(seconds * 1000.0, ">f8").tobytes()
    assert probe(bytes(data)).duration == pytest.approx(seconds)
    return bytes(data)


@pytest.mark.parametrize("seconds", [0.001, 3.0, 9.9])
def test_a_header_that_claims_less_than_the_file_holds(seconds):
    data = matroska_that_claims(seconds, pictures=100, sound=clicks([0.5, 9.0], 10.0))
    result = read_media(data, num_frames=10)
    assert result.duration == pytest.approx(10.0, abs=0.05)
    assert numbers(result.frames) == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    assert len(result.waveform) == round(result.duration * 16_000)


@pytest.mark.parametrize("seconds", [20.0, 1e9])
def test_a_header_that_claims_more_is_refused(seconds):
    refused(matroska_that_claims(seconds, pictures=100), "truncated: 10.0 s can be read")
