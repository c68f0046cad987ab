"""Recordings that were joined end to end, broadcasts whose clock is set, and clocks that wrap around."""

import io

import av
import numpy as np
import pytest
from media_files import click_times, clicks, numbers, tone, write, written

from longvale.models.media import MediaStream, probe, read_frames, read_media

#: 25 pictures a second, since MPEG-2 knows few rates.
RATE = 25
H264 = ("libx264", {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3:open-gop=1"})
MPEG2 = ("mpeg2video", {"g": "12", "bf": "2"})


def part(first, seconds=4.0, format="mpegts", video=H264, sound_codec="aac", offset_s=None, **kwargs):
    """A recording whose pictures are numbered from `first` on, five of the same number, with a click at 1 s."""
    buffer = io.BytesIO()
    count = round(seconds * RATE)
    options = {} if offset_s is None else {"output_ts_offset": str(offset_s)}
    codec, codec_options = video
    kwargs = {"sound": clicks([1.0], seconds, 48_000), "sound_rate": 48_000, "sound_codec": sound_codec} | kwargs
    write(
        buffer, format=format, pictures=count, rate=RATE, codec=codec, codec_options=codec_options, options=options,
        first_number=first, per_number=5, **kwargs,
    )  # fmt: skip
    return buffer.getvalue()


def check(data, parts, seconds=4.0, sound_s=0.05):
    """Every part is there, in the order of the file: the pictures, and the clicks at their distance from these."""
    per_part = round(seconds * RATE / 5)
    result = read_media(data, num_frames=per_part * parts)
    assert result.duration == pytest.approx(seconds * parts, abs=0.1 * parts)
    shown = numbers(result.frames)
    assert shown == sorted(shown) and len(set(shown) ^ set(range(per_part * parts))) <= parts
    begins = [float(result.frame_times[np.searchsorted(shown, per_part * k)]) for k in range(parts)]
    assert begins == pytest.approx([seconds * k for k in range(parts)], abs=0.2)
    if result.waveform is not None:
        # A click comes a second after the first picture of its part.
        exact = read_media(data, frame_times=np.arange(0, result.duration, 0.04))
        first = [
            exact.frame_times[np.flatnonzero(np.array(numbers(exact.frames)) == per_part * k)[0]] for k in range(parts)
        ]
        assert click_times(result.waveform) - first == pytest.approx([1.0] * parts, abs=sound_s)
    assert result.warnings == (f"{parts} recordings are joined; they are read one after the other",)
    return result


@pytest.mark.parametrize(
    ("format", "video", "sound_codec"),
    [
        ("mpegts", H264, "aac"),
        ("mpegts", MPEG2, "mp2"),
        ("mpeg", MPEG2, "mp2"),
        ("vob", MPEG2, "ac3"),
        ("mpegts", ("libx265", {"x265-params": "keyint=12:bframes=3:log-level=none"}), "ac3"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
@pytest.mark.parametrize("parts", [2, 3])
def test_all_parts_are_read_in_the_order_of_the_file(format, video, sound_codec, parts):
    data = b"".join(part(20 * k, format=format, video=video, sound_codec=sound_codec) for k in range(parts))
    check(data, parts)


@pytest.mark.parametrize("kwargs", [{"sound": None}, {"video": MPEG2, "sound": None}], ids=["h264", "mpeg2"])
def test_pictures_alone(kwargs):
    check(part(0, **kwargs) + part(20, **kwargs), 2)


def test_sound_alone():
    data = b"".join(written("mpegts", sound=clicks([1.0], 4.0, 48_000), sound_rate=48_000) for _ in range(3))
    result = read_media(data)
    assert result.duration == pytest.approx(12.0, abs=0.2)
    assert click_times(result.waveform) == pytest.approx([1.0, 5.0, 9.0], abs=0.1)


@pytest.mark.parametrize("offset_s", [3600, 80_000], ids=["an hour later", "more than the wrap later"])
def test_a_clock_that_jumps_ahead(offset_s):
    check(part(0) + part(20, offset_s=offset_s), 2)


def test_a_clock_that_jumps_ahead_and_back():
    check(part(0, offset_s=7000) + part(20, offset_s=50_000) + part(40, offset_s=10), 3)


def test_a_clock_that_wraps_around():
    """That of MPEG-TS has 33 bits at 90 kHz: it begins again after 26.5 hours."""
    wrap_s = 2**33 / 90_000
    data = part(0, seconds=8.0, offset_s=wrap_s - 5)
    result = read_media(data, num_frames=40)
    assert result.duration == pytest.approx(8.0, abs=0.1) and result.warnings == ()
    assert numbers(result.frames) == list(range(40))
    assert click_times(result.waveform) == pytest.approx([1.0], abs=0.05)
    check(part(0, offset_s=wrap_s - 3) + part(20, offset_s=wrap_s - 3), 2)


def test_a_recording_that_follows_closely_is_no_jump():
    """A broadcast cut into files and put together again has one clock."""
    data = part(0) + part(20, offset_s=4.0)
    result = read_media(data, num_frames=40)
    assert result.warnings == () and result.duration == pytest.approx(8.0, abs=0.1)
    assert len(set(numbers(result.frames)) ^ set(range(40))) <= 2


def test_a_still_picture_under_sound_is_no_jump():
    """Pictures pause for 15 s, sound goes on."""
    buffer = io.BytesIO()
    write(
        buffer, format="mpegts", pictures=3, pts=[0, 15 * RATE, 16 * RATE], rate=RATE, sound=tone(440, 17.0, 48_000),
        sound_rate=48_000, codec_options={"g": "1", "bf": "0"},
    )  # fmt: skip
    with av.open(io.BytesIO(buffer.getvalue())) as container:  # the muxer writes all pictures before the sound
        packets = sorted((p for p in container.demux() if p.dts is not None), key=lambda p: p.dts * p.time_base)
        mixed = io.BytesIO()
        with av.open(mixed, "w", format="mpegts") as out:
            streams = [out.add_stream_from_template(stream) for stream in container.streams]
            for packet in packets:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    result = read_media(mixed.getvalue(), frame_times=[14.0, 15.5])
    assert numbers(result.frames) == [0, 1] and result.warnings == ()
    assert result.duration == pytest.approx(17.0, abs=0.5)


def test_matroska():
    """Segments may follow each other; browsers record so."""
    video = ("libx264", {"g": "12", "bf": "0"})
    check(part(0, format="matroska", video=video) + part(20, format="matroska", video=video), 2, sound_s=0.1)


def test_windows_and_files_and_every_picture_agree(tmp_path):
    data = part(0) + part(20)
    (tmp_path / "a.ts").write_bytes(data)
    whole = read_media(tmp_path / "a.ts", num_frames=16)
    stream = MediaStream(data, num_frames=16, window_s=0.7)
    np.testing.assert_array_equal(np.concatenate(list(stream)), whole.waveform)
    np.testing.assert_array_equal(stream.media.frames, whole.frames)
    times = [float(time) for time, _ in read_frames(tmp_path / "a.ts")]
    assert times == sorted(times) and len(times) == pytest.approx(200, abs=4)
    assert times[-1] == pytest.approx(8.0, abs=0.15)


def test_one_thread_and_four_and_both_choices():
    data = part(0) + part(20)
    one, four = (read_media(data, num_frames=20, threads=threads) for threads in (1, 4))
    np.testing.assert_array_equal(one.frames, four.frames)
    official = read_media(data, num_frames=40, decode="official")
    assert numbers(official.frames)[0] == 0 and numbers(official.frames)[-1] == 39
    assert numbers(official.frames) == sorted(numbers(official.frames))


def test_a_broadcast_claims_no_duration():
    """FFmpeg takes the last time less the first, which says nothing of joined recordings."""
    assert probe(part(0) + part(20, offset_s=50_000)).duration is None
    assert probe(written(pictures=20)).duration == pytest.approx(2.0)
