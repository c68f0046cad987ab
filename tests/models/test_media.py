import functools
import http.server
import inspect
import io
import subprocess
import sys
import threading
import types
import zipfile
from pathlib import Path

import av
import av.logging
import datasets
import numpy as np
import pytest
from media_files import (
    HEIGHT,
    WIDTH,
    beeps,
    click_times,
    clicks,
    level,
    numbered_picture,
    numbers,
    read_number,
    repeat,
    tone,
    write,
    written,
)

from longvale.models import media, media_decoder, media_frames
from longvale.models.media import MediaError, MediaStream, probe, read_media

# Pictures: which ones


def test_strict_takes_the_middle_of_equal_parts():
    result = read_media(written(pictures=60), num_frames=12)
    assert result.duration == pytest.approx(6.0)
    # The middle of part i lies at (i + .5) / 12 * 6 s, where picture floor(10 t) is shown.
    assert numbers(result.frames) == [int((i + 0.5) / 12 * 60) for i in range(12)]
    assert result.frame_times == pytest.approx([int((i + 0.5) / 12 * 60) / 10 for i in range(12)])
    assert result.frames.shape == (12, HEIGHT, WIDTH, 3) and result.frames.dtype == np.uint8
    assert result.warnings == ()


def test_official_takes_equally_spaced_indices():
    result = read_media(written(pictures=50), num_frames=7, decode="official")
    assert numbers(result.frames) == np.linspace(0, 49, 7).astype(int).tolist()


def test_frames_at_given_times_begin_at_or_before_them():
    times = [2.0, 0.0, 1.9999, 0.35, 2.0, 5.9, 6.4]
    result = read_media(written(pictures=60), frame_times=times)
    assert numbers(result.frames) == [20, 0, 19, 3, 20, 59, 59]
    assert result.frame_times == pytest.approx([2.0, 0.0, 1.9, 0.3, 2.0, 5.9, 5.9])


def test_more_frames_than_pictures_repeats_them():
    assert numbers(read_media(written(pictures=3), num_frames=6).frames) == [0, 0, 1, 1, 2, 2]


X264 = "keyint=12:min-keyint=12:scenecut=0:bframes=3"


@pytest.mark.parametrize(
    ("codec", "codec_options", "format"),
    [
        ("libx264", {"x264-params": X264}, "mp4"),
        ("libx264", {"x264-params": f"{X264}:open-gop=1"}, "mp4"),
        ("libx264", {"x264-params": f"{X264}:open-gop=1"}, "matroska"),
        ("libx264", {"x264-params": "keyint=12:intra-refresh=1"}, "mpegts"),
        ("libx265", {"x265-params": "keyint=12:bframes=3:log-level=none"}, "mp4"),
        ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}, "webm"),
        ("mpeg4", {"g": "12", "bf": "2"}, "mp4"),
        ("mpeg2video", {"g": "12", "bf": "2"}, "mpegts"),
        ("libx264", {"x264-params": X264}, "avi"),  # says of no picture when it is shown
    ],
    ids=lambda value: value if isinstance(value, str) else "-",
)
def test_frames_are_exact_whatever_the_reordering(codec, codec_options, format):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    rate = 25  # MPEG-2 knows few rates
    data = written(pictures=60, rate=rate, codec=codec, codec_options=codec_options, format=format)
    everything = read_media(data, frame_times=(np.arange(60) + 0.5) / rate)
    assert numbers(everything.frames) == list(range(60))
    # One at a time, so that the decoder has to begin near the picture: around key frames above all.
    for number in (0, 1, 10, 11, 12, 13, 23, 24, 25, 47, 59):
        result = read_media(data, frame_times=[(number + 0.5) / rate])
        assert numbers(result.frames) == [number]
        assert result.warnings == ()


def test_decoder_threads_never_log_to_python():
    """They would wait for the GIL, which a decoder that is freed keeps until its threads have ended."""
    data = written(pictures=3)
    av.logging.set_level(av.logging.ERROR)  # as importing torchvision does
    for read in (read_media, probe, lambda source: list(MediaStream(source))):
        assert read(data) is not None
        assert av.logging.get_level() is None
        av.logging.set_level(av.logging.ERROR)


def test_only_the_groups_of_wanted_pictures_are_decoded(monkeypatch):
    fed = []
    decode = media_decoder.Decoder.decode

    def counting(self, packet, **kwargs):
        fed.append(packet)
        return decode(self, packet, **kwargs)

    monkeypatch.setattr(media_decoder.Decoder, "decode", counting)
    options = {"x264-params": "keyint=10:min-keyint=10:scenecut=0:bframes=0"}
    result = read_media(written(pictures=200, codec_options=options), frame_times=[5.05, 15.35])
    assert numbers(result.frames) == [50, 153]
    assert sum(packet is not None for packet in fed) == 1 + 4


def test_variable_frame_rate():
    ticks = [0, 1, 2, 10, 11, 30, 31, 60, 61]
    data = written(pictures=len(ticks), pts=ticks, format="matroska")
    result = read_media(data, frame_times=[0.05, 0.25, 0.99, 1.0, 1.15, 2.99, 3.0, 5.0, 6.0])
    assert numbers(result.frames) == [0, 2, 2, 3, 4, 4, 5, 6, 7]
    assert result.frame_times == pytest.approx([0.0, 0.2, 0.2, 1.0, 1.1, 1.1, 3.0, 3.1, 6.0])
    # Equal parts are of the duration, not of the number of pictures.
    assert numbers(read_media(data, num_frames=6).frames) == [2, 4, 4, 6, 6, 6]


def test_one_thread_and_four_agree():
    data = written(pictures=60)
    one, four = (read_media(data, num_frames=20, threads=threads) for threads in (1, 4))
    np.testing.assert_array_equal(one.frames, four.frames)


# Pictures: how they look


@pytest.mark.parametrize(("size", "expected"), [((64, 48), (24, 32)), ((48, 64), (32, 24)), ((96, 64), (24, 36))])
def test_size_is_that_of_the_shorter_side(size, expected):
    result = read_media(written(pictures=20, size=size), num_frames=5, size=24)
    assert result.frames.shape == (5, *expected, 3)
    assert numbers(result.frames) == [2, 6, 10, 14, 18]


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (-90, -1), (180, 2)])
def test_rotation_of_the_container_is_honoured(degrees, turns):
    plain = read_media(written(pictures=20), num_frames=4)
    turned = read_media(written(pictures=20, rotation=degrees), num_frames=4)
    np.testing.assert_array_equal(turned.frames, np.rot90(plain.frames, turns, axes=(1, 2)))


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (None, [[1, 2], [3, 4]]),
        ([[1, 0], [0, 1]], [[1, 2], [3, 4]]),
        ([[0, -1], [1, 0]], [[2, 4], [1, 3]]),  # quarter turn counterclockwise
        ([[0, 1], [-1, 0]], [[3, 1], [4, 2]]),  # clockwise
        ([[-1, 0], [0, 1]], [[2, 1], [4, 3]]),  # mirrored left to right
        ([[1, 0], [0, -1]], [[3, 4], [1, 2]]),  # upside down, mirrored
        ([[0, 1], [1, 0]], [[1, 3], [2, 4]]),  # mirrored along the diagonal
    ],
)
def testupright(matrix, expected):
    picture = np.array([[1, 2], [3, 4]])[..., None]
    matrix = None if matrix is None else np.array(matrix) * 65536
    assert media_decoder.upright(picture, matrix)[..., 0].tolist() == expected


# Sound


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_resampling_does_not_alias(rate):
    sound = tone(10_000, 3, rate) + tone(1_000, 3, rate)
    waveform = read_media(written("wav", sound=sound, sound_rate=rate, sound_codec="pcm_s16le")).waveform
    assert waveform.dtype == np.float32
    # Picking every third sample would turn 10 kHz into 6 kHz at full strength: -60 dB of .5 are 5e-4.
    assert level(waveform, 6_000) < 5e-4
    assert level(waveform, 1_000) == pytest.approx(0.5, rel=0.01)
    everything_else = waveform - tone(1_000, 3, 16_000, 1)[0].astype(np.float32)
    assert np.abs(everything_else[4_000:-4_000]).max() < 5e-4 * 2


def test_channels_are_averaged():
    left_only = tone(1_000, 2) * [[1], [0]]
    for sound, expected in ((left_only, 0.25), (tone(1_000, 2), 0.5)):
        waveform = read_media(written("wav", sound=sound, sound_codec="pcm_s16le")).waveform
        assert level(waveform, 1_000) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("codec", "format"), [("aac", "mp4"), ("aac", "matroska"), ("mp3", "matroska"), ("aac", "mpegts")]
)
def test_sample_k_sounds_at_k_over_the_rate(codec, format):
    sound = clicks([0.5, 1.5, 2.5], 3.0)
    result = read_media(written(pictures=30, sound=sound, sound_codec=codec, format=format), num_frames=3)
    # MPEG-TS cannot say that the encoder put 23 ms before the sound: there the first picture comes at 23 ms.
    shift = result.frame_times[0] - read_number(result.frames[0]) / 10
    assert shift == pytest.approx(0, abs=0.03)
    assert click_times(result.waveform) - shift == pytest.approx([0.5, 1.5, 2.5], abs=0.003)
    assert len(result.waveform) == round(result.duration * 16_000)


def test_other_sampling_rates():
    result = read_media(written(sound=clicks([0.5], 1.0)), sampling_rate=8_000)
    assert (result.sampling_rate, len(result.waveform)) == (8_000, 8_000)
    assert click_times(result.waveform, 8_000) == pytest.approx([0.5], abs=0.003)


def test_mono_sound_at_the_wanted_rate_passes_unchanged():
    sound = 0.5 * np.sin(np.arange(16_000) / 7)[None]
    data = written("wav", sound=sound, sound_rate=16_000, sound_codec="pcm_f32le")
    np.testing.assert_array_equal(read_media(data).waveform, sound[0].astype(np.float32))


def test_sound_that_starts_late_comes_after_silence():
    data = written(pictures=40, sound=clicks([0.5], 2.0), sound_start_s=1.5)
    result = read_media(data)
    assert result.duration == pytest.approx(4.0)
    assert click_times(result.waveform) == pytest.approx([2.0], abs=0.003)
    assert not result.waveform[: int(1.4 * 16_000)].any()


def test_sound_that_ends_early_is_followed_by_silence():
    result = read_media(written(pictures=40, sound=tone(1000, 1.0)))
    assert len(result.waveform) == 4 * 16_000
    assert not result.waveform[int(1.1 * 16_000) :].any()


def test_a_gap_in_the_sound_is_silence():
    sound = [(0.0, clicks([0.5], 1.0)), (3.0, clicks([0.5], 1.0))]
    result = read_media(written("matroska", pictures=40, sound=sound))
    assert click_times(result.waveform) == pytest.approx([0.5, 3.5], abs=0.03)  # two AAC frames


def test_both_streams_share_a_zero():
    at_zero = written("matroska", pictures=40, sound=clicks([1.0], 3.0))
    later = written("matroska", pictures=40, pts=range(50, 90), sound=clicks([1.0], 3.0), sound_start_s=5.0)
    for data in (at_zero, later):
        result = read_media(data, num_frames=4)
        assert numbers(result.frames) == [5, 15, 25, 35]
        assert result.frame_times == pytest.approx([0.5, 1.5, 2.5, 3.5], abs=0.03)
        assert click_times(result.waveform) == pytest.approx([1.0], abs=0.03)
        assert result.duration == pytest.approx(4.0, abs=0.03)


# Files of all kinds: each picture at its time, each click within 10 ms


H264 = ("libx264", {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3"})
HEVC = ("libx265", {"x265-params": "keyint=12:bframes=3:log-level=none"})
VP9 = ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"})
AV1 = ("libsvtav1", {"preset": "12", "g": "12"})
CLICKS_S = [0.5, 2.2, 3.9]


@pytest.mark.parametrize(
    ("format", "video", "sound_codec", "sound_rate", "channels"),
    [
        ("mp4", H264, "aac", 44_100, 2),
        ("mp4", H264, "aac", 48_000, 6),
        ("mp4", HEVC, "aac", 48_000, 2),
        ("mp4", AV1, "aac", 48_000, 2),
        ("mov", H264, "pcm_s16le", 8_000, 1),
        ("mov", HEVC, "aac", 44_100, 1),
        ("matroska", H264, "ac3", 48_000, 6),
        ("matroska", HEVC, "libmp3lame", 44_100, 2),
        ("matroska", VP9, "flac", 48_000, 2),
        ("webm", VP9, "libopus", 48_000, 2),
        ("webm", AV1, "libopus", 48_000, 6),
        ("3gp", ("libx264", {"profile": "baseline", "g": "12"}), "libopencore_amrnb", 8_000, 1),
        ("3gp", ("h263", {"g": "12"}), "aac", 44_100, 1),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_picture_and_every_click_is_at_its_time(format, video, sound_codec, sound_rate, channels, threads):
    codec, codec_options = video
    for name in (codec, sound_codec):
        if name not in av.codecs_available:
            pytest.skip(f"this PyAV has no {name}")
    size = (176, 144) if codec == "h263" else (64, 64)
    is_speech = sound_codec == "libopencore_amrnb"
    sound = beeps(CLICKS_S, 5.0, sound_rate) if is_speech else clicks(CLICKS_S, 5.0, sound_rate, channels)
    data = written(
        format, pictures=50, size=size, codec=codec, codec_options=codec_options, sound=sound, sound_codec=sound_codec,
        sound_rate=sound_rate,
    )  # fmt: skip
    result = read_media(data, frame_times=(np.arange(50) + 0.5) / 10, threads=threads)
    assert numbers(result.frames) == list(range(50))
    assert result.frame_times == pytest.approx(np.arange(50) / 10, abs=0.011)
    times = click_times(result.waveform, threshold=0.05 if is_speech else 0.3)
    assert times == pytest.approx(CLICKS_S, abs=0.01)
    assert result.warnings == ()

    sparse = read_media(data, num_frames=4, threads=threads)
    assert numbers(sparse.frames) == [int((i + 0.5) / 4 * sparse.duration * 10 + 1e-6) for i in range(4)]
    official = read_media(data, num_frames=7, decode="official", threads=threads)
    assert numbers(official.frames) == np.linspace(0, 49, 7).astype(int).tolist()


def test_sound_that_is_07_s_late_in_a_file_with_edit_lists():
    data = written(pictures=50, sound=clicks([0.5, 1.5], 3.0), sound_start_s=0.7, codec_options=H264[1])
    result = read_media(data, num_frames=5)
    assert click_times(result.waveform) == pytest.approx([1.2, 2.2], abs=0.01)
    assert numbers(result.frames) == [5, 15, 25, 35, 45] and result.duration == pytest.approx(5.0)


@pytest.mark.parametrize("num_frames", [1, 4, 30])
def test_an_edit_list_that_hides_the_begin(num_frames):
    """Pictures 0 to 11 are in the file, since others are predicted from them, but it is to be shown from 12 on."""
    shown = written(pictures=42, pts=range(-12, 30), sound=clicks([1.0], 3.0), codec_options=H264[1])
    result = read_media(shown, num_frames=num_frames)
    assert result.duration == pytest.approx(3.0, abs=0.05)
    assert numbers(result.frames) == [12 + int((i + 0.5) / num_frames * 30) for i in range(num_frames)]
    assert click_times(result.waveform) == pytest.approx([1.0], abs=0.01)
    official = read_media(shown, num_frames=3, decode="official")
    assert numbers(official.frames) == [12, 12 + 14, 12 + 29]


def test_rotated_pictures_of_variable_rate_are_exact():
    ticks = np.cumsum([1 + (i % 5 == 0) * 7 for i in range(40)])
    data = written(pictures=40, pts=ticks.tolist(), rotation=90, codec_options=H264[1], sound=clicks([2.0], 5.0))
    times = ticks / 10
    result = read_media(data, frame_times=times + 0.01)
    upright = np.rot90(result.frames, -1, axes=(1, 2))
    assert numbers(upright) == list(range(40))
    assert click_times(result.waveform) == pytest.approx([2.0], abs=0.01)


def test_a_single_picture():
    result = read_media(written(pictures=1), num_frames=3)
    assert numbers(result.frames) == [0, 0, 0] and result.duration == pytest.approx(0.1)
    long_sound = read_media(written(pictures=1, sound=tone(440, 2.0)), num_frames=3)
    assert numbers(long_sound.frames) == [0, 0, 0] and long_sound.duration == pytest.approx(2.0, abs=0.05)


def test_ten_seconds_that_claim_an_hour():
    for box, at in ((b"mdhd", 20), (b"mvhd", 20), (b"tkhd", 24)):
        data = bytearray(written(pictures=100))
        place = data.index(box) + at
        claimed = int.from_bytes(data[place : place + 4], "big")
        data[place : place + 4] = (claimed * 360).to_bytes(4, "big")
        # FFmpeg believes the index of an MP4 file, not its headers, and so do we.
        result = read_media(bytes(data), num_frames=2)
        assert numbers(result.frames) == [25, 75] and result.duration == pytest.approx(10.0)
    data = bytearray(written("matroska", pictures=100))
    place = data.index(b"\x44\x89\x88") + 3
    data[place : place + 8] = np.array(3_600_000.0, ">f8").tobytes()
    refused(bytes(data), "truncated: 10.0 s can be read of the 3600.0 s")


# One pass


def opened(monkeypatch):
    """The containers that are opened from now on."""
    containers, open_container = [], av.open
    monkeypatch.setattr(av, "open", lambda *args, **kwargs: containers.append(args) or open_container(*args, **kwargs))
    return containers


# How many pictures there are, which the official choice depends on, is said by the header of MP4 only.
@pytest.mark.parametrize(
    ("format", "decode"), [("mp4", "strict"), ("matroska", "strict"), ("mpegts", "strict"), ("mp4", "official")]
)
def test_a_file_is_walked_once(monkeypatch, format, decode):
    data = written(format, pictures=60, rate=25, sound=tone(440, 2.4), codec_options=H264[1])
    containers = opened(monkeypatch)
    frames = read_media(data, num_frames=5, decode=decode).frames
    assert len(containers) == 1
    assert len(set(numbers(frames))) == 5


def test_a_header_that_is_wrong_costs_a_second_look(monkeypatch):
    data = bytearray(written("matroska", pictures=100, codec_options=H264[1]))
    place = data.index(b"\x44\x89\x88") + 3
    data[place : place + 8] = np.array(6_000.0, ">f8").tobytes()
    containers = opened(monkeypatch)
    result = read_media(bytes(data), num_frames=10)
    assert numbers(result.frames) == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    assert len(containers) == 2


def test_straight_and_sparse_decoding_agree(monkeypatch):
    data = written(pictures=120, codec_options=H264[1])
    results = []
    for straight in (True, False):
        monkeypatch.setattr(media_frames, "_straight_is_cheaper", lambda *_, straight=straight: straight)
        for options in ({"num_frames": 17}, {"num_frames": 150}, {"num_frames": 9, "decode": "official"}):
            containers = opened(monkeypatch)
            results.append(read_media(data, **options).frames)
            assert len(containers) == 1
    for first, second in zip(results[:3], results[3:], strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_cheaper_way_is_chosen_by_the_index(monkeypatch):
    fed = []
    decode = media_decoder.Decoder.decode
    monkeypatch.setattr(
        media_decoder.Decoder, "decode", lambda self, packet, **k: fed.append(packet) or decode(self, packet, **k)
    )

    def emptied(data, num_frames):
        fed.clear()
        read_media(data, num_frames=num_frames, threads=4)
        return sum(packet is None for packet in fed), sum(packet is not None for packet in fed)

    short_groups = written(pictures=120, codec_options={"x264-params": "keyint=4:min-keyint=4:scenecut=0:bframes=0"})
    long_groups = written(pictures=120, codec_options={"x264-params": "keyint=40:min-keyint=40:scenecut=0:bframes=0"})
    assert emptied(short_groups, 60) == (1, 120)  # straight: emptied once, at the end
    times, packets = emptied(long_groups, 3)  # wanted are 20, 60 and 100, half way into the groups
    assert (times, packets) == (3, 63)


def test_pictures_that_no_other_needs_are_not_given_to_the_decoder():
    data = written(pictures=60, codec_options={"x264-params": X264})

    def decoded(wanted):
        with av.open(io.BytesIO(data)) as container:
            stream = container.streams.video[0]
            decoder = media_decoder.Decoder(stream, "clip.mp4", threads=2)
            packets = [packet for packet in container.demux(stream) if packet.size]
            size = media_decoder._length_size(stream.codec_context.extradata)
            dropped = {packet.pts for packet in packets if media_decoder._is_unreferenced(memoryview(packet), size)}
            frames = [frame for packet in packets for frame in decoder.decode(packet, wanted)]
            frames += decoder.decode(None)
            return {frame.pts: frame.to_ndarray() for frame in frames}, dropped

    everything, unreferenced = decoded(wanted=True)
    needed, _ = decoded(wanted=False)
    assert len(everything) == 60 and 20 < len(unreferenced) < 50
    assert everything.keys() - needed.keys() == unreferenced
    assert all(np.array_equal(everything[pts], needed[pts]) for pts in needed)


@pytest.mark.parametrize(
    ("packet", "left_out"),
    [
        (b"\0\0\0\2\x01\xff", True),  # a slice of importance 0
        (b"\0\0\0\2\x06\xff\0\0\0\2\x01\xff", True),  # after a message
        (b"\0\0\0\2\x41\xff", False),  # a slice that others need
        (b"\0\0\0\2\x68\xff\0\0\0\2\x01\xff", False),  # after parameters that others may need
        (b"\0\0\0\2\x65\xff", False),
        (b"\0\0\0\0\0\0\0\2\x01\xff", False),  # an empty unit: damaged
        (b"\0\0\0\2\x06\xff", False),  # no slice
        (b"\0\0", False),
        (b"", False),
    ],
)
def test_what_may_be_left_out(packet, left_out):
    assert media_decoder._is_unreferenced(memoryview(packet), 4) is left_out


def test_few_key_frames_do_not_fill_the_memory(monkeypatch):
    data = written(pictures=120, codec_options={"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=2"})
    expected = read_media(data, num_frames=10)
    monkeypatch.setattr(media_frames, "_MAX_HELD_BYTES", 500)
    held = []
    add = media_frames.FrameReader.add
    monkeypatch.setattr(
        media_frames.FrameReader, "add", lambda self, packet: add(self, packet) or held.append(len(self._next))
    )
    np.testing.assert_array_equal(read_media(data, num_frames=10).frames, expected.frames)
    assert held[-1] == 0  # decoded as it comes


# Sound in windows


@pytest.mark.parametrize("window_s", [0.25, 0.7, 30.0])
@pytest.mark.parametrize(
    "kwargs",
    [
        {"pictures": 40, "sound": clicks([0.5, 2.0], 3.0)},
        {"pictures": 40, "sound": clicks([0.5, 2.0], 3.0), "sound_start_s": 0.7},
        {"pictures": 20, "sound": clicks([0.5, 2.0], 3.0)},
        {"sound": clicks([0.5, 2.0], 3.0)},
        {"format": "matroska", "pictures": 40, "sound": [(0.0, clicks([0.5], 1.0)), (3.0, clicks([0.5], 1.0))]},
        {"format": "mpegts", "rate": 25, "pictures": 60, "sound": clicks([0.5, 2.0], 2.4)},
        {"pictures": 20},
    ],
    ids=["plain", "late", "longer", "alone", "gap", "mpegts", "silent"],
)
def test_windows_joined_are_the_waveform(window_s, kwargs):
    data = written(**kwargs)
    whole = read_media(data, num_frames=5)
    stream = MediaStream(data, num_frames=5, window_s=window_s)
    windows = list(stream)
    assert all(len(window) == round(window_s * 16_000) for window in windows[:-1])
    if whole.waveform is None:
        assert not windows
    else:
        np.testing.assert_array_equal(np.concatenate(windows), whole.waveform)
    assert stream.media.waveform is None and stream.media.duration == whole.duration
    if whole.frames is not None:
        np.testing.assert_array_equal(stream.media.frames, whole.frames)


def test_windows_refuse_what_reading_whole_refuses():
    with pytest.raises(ValueError, match="window_s must be a sample or more"):
        MediaStream(written(pictures=2), window_s=0)
    with pytest.raises(MediaError, match="truncated"):
        data = written("matroska", pictures=60, sound=tone(440, 6.0))
        list(MediaStream(data[: len(data) // 2]))


STREAM = """
import sys
import numpy as np
from longvale.models.media import MediaStream

stream, samples, heard = MediaStream(sys.argv[1], num_frames=100, size=224), 0, 0
for window in stream:
    samples, heard = samples + len(window), heard + (np.abs(window) > 0.3).any()
with open("/proc/self/status") as file:
    peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) // 1024
print(samples, heard, len(stream.media.frames), round(stream.media.duration), peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_three_hours_take_less_than_500_mb(tmp_path):
    # A minute, 180 times; its click lies in the first of two windows.
    minute = written(
        pictures=120,
        rate=2,
        size=(640, 360),
        sound=clicks([10.0], 61.0, 16_000, 1),
        sound_rate=16_000,
        codec_options={"bf": "0"},
    )
    path = repeat(minute, 180, str(tmp_path / "long.mp4"), 60)
    command = [sys.executable, "-c", STREAM, path]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    samples, heard, frames, duration, peak_mb = map(int, told)
    assert (heard, frames) == (180, 100) and duration == pytest.approx(10_800, abs=10)
    assert samples == pytest.approx(duration * 16_000, rel=1e-3)  # 690 MB
    assert peak_mb < 500


# What may be missing


def test_no_sound():
    result = read_media(written(pictures=20), num_frames=2)
    assert result.waveform is None and result.frames is not None


@pytest.mark.parametrize("format", ["mp4", "ipod", "mp3", "wav"])
def test_no_picture(format):
    codec = {"mp3": "mp3", "wav": "pcm_s16le"}.get(format, "aac")
    result = read_media(written(format, sound=tone(440, 2.0), sound_codec=codec))
    assert result.frames is None and result.frame_times.shape == (0,)
    assert result.duration == pytest.approx(2.0, abs=0.06)
    assert level(result.waveform, 440) == pytest.approx(0.5, rel=0.1)


def test_a_cover_is_no_picture():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as container:
        audio = container.add_stream("mp3", rate=44_100)
        audio.layout = "stereo"
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered_picture(5)).reformat(format="yuvj420p")))
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(tone(440, 1.0).astype(np.float32), "fltp", "stereo")
        frame.sample_rate, frame.pts = 44_100, 0
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    with av.open(io.BytesIO(buffer.getvalue())) as container:
        assert len(container.streams.video) == 1
    assert read_media(buffer.getvalue()).frames is None
    assert not probe(buffer.getvalue()).has_video


# Sources


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, ranges of them too, and counts the bytes."""

    sent = 0

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_urls(tmp_path, server):
    path = write(str(tmp_path / "video.mp4"), pictures=20, sound=clicks([0.5], 2.0))
    expected = read_media(path, num_frames=5)
    with zipfile.ZipFile(tmp_path / "videos.zip", "w") as archive:
        archive.write(path, "a/video.mp4")
    for url in (f"{server}/video.mp4", f"file://{path}", f"zip://a/video.mp4::{tmp_path}/videos.zip"):
        result = read_media(url, num_frames=5)
        np.testing.assert_array_equal(result.frames, expected.frames)
        np.testing.assert_array_equal(result.waveform, expected.waveform)


def test_urls_that_fail(tmp_path, server):
    refused(f"{server}/none.mp4", f"{server}/none.mp4: no such file", error=FileNotFoundError)
    (tmp_path / "void.mp4").touch()
    refused(f"{server}/void.mp4", "void.mp4: the file is empty")
    (tmp_path / "text.mp4").write_text("This is a text.\n" * 100)
    refused(f"{server}/text.mp4", "text.mp4: not a media file")
    refused("smoke://signals/video.mp4", "smoke://signals/video.mp4: cannot be opened", "smoke")
    refused("http://127.0.0.1:9/video.mp4", "http://127.0.0.1:9/video.mp4: ", "127.0.0.1", error=FileNotFoundError)


def test_values_of_datasets(tmp_path):
    path = write(str(tmp_path / "video.mp4"), pictures=20, sound=clicks([0.5], 2.0))
    wav = write(str(tmp_path / "sound.wav"), sound=clicks([0.5], 2.0), sound_codec="pcm_s16le")
    expected = read_media(path, num_frames=5)
    table = datasets.Dataset.from_dict({n: [{"bytes": None, "path": p}] for n, p in (("video", path), ("audio", wav))})
    table = table.cast_column("video", datasets.Video(decode=False))
    row = table.cast_column("audio", datasets.Audio(decode=False))[0]
    embedded = {"path": "video.mp4", "bytes": Path(path).read_bytes()}
    decoded = types.SimpleNamespace(_hf_encoded={"path": path, "bytes": None})  # as Video(decode=True) gives it
    assert "._hf_encoded = {" in inspect.getsource(datasets.features.video)
    for value in (row["video"], embedded, decoded):
        np.testing.assert_array_equal(read_media(value, num_frames=5).frames, expected.frames)
    assert click_times(read_media(row["audio"]).waveform) == pytest.approx([0.5], abs=0.003)
    refused({"path": None, "bytes": None}, "has neither path nor bytes")
    refused({"path": "cut.mp4", "bytes": embedded["bytes"][:1000]}, "cut.mp4: truncated")


def test_bytes_and_file_objects_give_what_the_path_gives(tmp_path):
    path = write(str(tmp_path / "video.mp4"), pictures=20, sound=clicks([0.5], 2.0))

    class Pipe(io.RawIOBase):
        """A file that cannot seek."""

        def __init__(self, data):
            self._file = io.BytesIO(data)

        def readable(self):
            return True

        def readinto(self, buffer):
            return self._file.readinto(buffer)

    expected = read_media(path, num_frames=5)
    with open(path, "rb") as file:
        data = file.read()
        for source in (tmp_path / "video.mp4", data, bytearray(data), file, io.BytesIO(data), Pipe(data)):
            result = read_media(source, num_frames=5)
            np.testing.assert_array_equal(result.frames, expected.frames)
            np.testing.assert_array_equal(result.waveform, expected.waveform)
            assert result.duration == expected.duration
        assert not file.closed


def test_a_name_that_looks_like_a_protocol(tmp_path, monkeypatch):
    write(str(tmp_path / "plain.mp4"), pictures=20)
    (tmp_path / "plain.mp4").rename(tmp_path / "concat:1|2.mp4")
    monkeypatch.chdir(tmp_path)
    assert numbers(read_media("concat:1|2.mp4", num_frames=2).frames) == [5, 15]


def test_probe():
    info = probe(written(pictures=20, sound=tone(440, 2.0)))
    assert (info.duration, info.has_video, info.has_audio) == (pytest.approx(2.0), True, True)
    info = probe(written(sound=tone(440, 2.0)))
    assert (info.has_video, info.has_audio) == (False, True)


# Refusals: one line that names the file


def refused(source, *words, error=MediaError, **kwargs):
    with pytest.raises(error) as caught:
        read_media(source, **kwargs)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_not_found(tmp_path):
    refused(tmp_path / "none.mp4", "none.mp4: no such file", error=FileNotFoundError)
    refused(tmp_path, "is not a file")


def test_empty_file(tmp_path):
    (tmp_path / "void.mp4").touch()
    refused(tmp_path / "void.mp4", "void.mp4: the file is empty")
    refused(b"", "<bytes>: the file is empty")
    with open(tmp_path / "void.mp4", "rb") as file:
        refused(file, "void.mp4: the file is empty")


@pytest.mark.parametrize("name", ["fake.mp4", "fake.txt"])
def test_not_a_media_file(tmp_path, name):
    (tmp_path / name).write_text("This is a text.\n" * 100)
    refused(tmp_path / name, f"{name}: not a media file")
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(100_000))
    refused(tmp_path / name, f"{name}: not a media file")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.mp4", "ffconcat version 1.0\nfile other.mp4\n"),
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:2,\nother.mp4\n#EXT-X-ENDLIST\n"),
    ],
)
def test_a_list_does_not_open_other_files(tmp_path, name, text):
    write(str(tmp_path / "other.mp4"), pictures=20)
    (tmp_path / name).write_text(text)
    refused(tmp_path / name, f"{name}: not a media file")
    with open(tmp_path / name, "rb") as file:
        refused(file, "not a media file")


def test_neither_picture_nor_sound(tmp_path):
    # A header that announces a stream, and no packet of it.
    path = tmp_path / "hollow.wav"
    path.write_bytes(written("wav", sound=tone(440, 1.0), sound_codec="pcm_s16le")[:78])
    refused(path, "hollow.wav: holds neither picture nor sound")


def test_too_long():
    data = written(pictures=40)
    refused(data, "lasts 4.0 s", "limit of 3.0 s", max_duration_s=3.0)
    assert read_media(data, num_frames=1, max_duration_s=None).duration == pytest.approx(4.0)


def test_truncated_mp4(tmp_path):
    kwargs = {"pictures": 60, "sound": tone(440, 6.0), "codec_options": {"g": "12", "bf": "0"}}
    front, back = tmp_path / "front.mp4", tmp_path / "back.mp4"  # where the index is
    write(str(front), options={"movflags": "faststart"}, **kwargs)
    front.write_bytes(front.read_bytes()[: front.stat().st_size * 6 // 10])
    refused(front, "front.mp4: truncated", "of the 6.0 s", "download it again")

    write(str(back), **kwargs)
    back.write_bytes(back.read_bytes()[: back.stat().st_size // 2])
    refused(back, "back.mp4: truncated", "index")


def test_truncated_matroska():
    data = written("matroska", pictures=60, sound=tone(440, 6.0))
    refused(data[: len(data) // 2], "<bytes>: truncated", "6.0 s")


def test_a_little_missing_at_the_end_is_measured():
    data = written("matroska", pictures=60, codec_options={"g": "6", "bf": "0"})
    with av.open(io.BytesIO(data)) as container:
        fiftieth = [packet.pos for packet in container.demux() if packet.size][55]
    result = read_media(data[:fiftieth], num_frames=55)
    assert probe(data[:fiftieth]).duration == pytest.approx(6.0)
    assert result.duration == pytest.approx(5.5, abs=0.11)
    assert numbers(result.frames) == list(range(55))


def damaged(data, share, seed=0):
    """Overwrite the inside of this share of the picture packets."""
    with av.open(io.BytesIO(data)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    rng = np.random.default_rng(seed)
    data = bytearray(data)
    for index in rng.choice(np.arange(1, len(places)), round(share * len(places)), replace=False):
        at, size = places[index]
        data[at : at + size] = rng.bytes(size)
    return bytes(data)


def test_a_few_damaged_packets_are_warned_of(capfd):
    data = damaged(written(pictures=100, codec_options={"g": "5", "bf": "0"}), 0.03)
    capfd.readouterr()  # the encoder's own words
    result = read_media(data, num_frames=100)
    assert len(result.warnings) == 1 and "the picture is damaged in" in result.warnings[0]
    right = sum(number == i for i, number in enumerate(numbers(result.frames)))
    assert 80 <= right < 100
    assert capfd.readouterr() == ("", "")


def test_many_damaged_packets_are_refused():
    data = damaged(written(pictures=100, codec_options={"g": "5", "bf": "0"}), 0.5)
    refused(data, "<bytes>: the picture is damaged in", "of 100 packets")


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"num_frames": 0}, "num_frames must be 1 or more, not 0"),
        ({"size": -1}, "size must be 1 or more"),
        ({"sampling_rate": 0}, "sampling_rate must be 1 or more"),
        ({"threads": 0}, "threads must be 1 or more"),
        ({"decode": "fast"}, "decode must be one of strict, official, not 'fast'"),
        ({"frame_times": []}, "frame_times must be a list of one time or more"),
        ({"frame_times": [1.0, 9.0]}, "frame_times must lie between 0 and the duration of 2.00 s, not at 9.0"),
        ({"frame_times": [-0.1]}, "not at -0.1"),
        ({"frame_times": [float("nan")]}, "not at nan"),
    ],
)
def test_arguments_out_of_range(kwargs, words):
    refused(written(pictures=20), words, error=ValueError, **kwargs)


def test_a_source_of_another_kind():
    refused(3, "source must be a path", error=TypeError)


def test_the_module_needs_only_av_and_numpy():
    """It is copied beside a checkpoint's code, where longvale may not be installed."""
    code = (
        "import importlib, sys, types\n"
        "package = sys.modules['copy_of_models'] = types.ModuleType('copy_of_models')\n"
        f"package.__path__ = [{str(Path(media.__file__).parent)!r}]\n"
        "importlib.import_module('copy_of_models.media')\n"
        "assert not {'torch', 'longvale', 'transformers', 'fsspec'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
