"""Files are written here with PyAV: pictures that carry their own number, and sounds whose time is known."""

import io
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from longvale.models import media
from longvale.models.media import MediaError, probe, read_media

WIDTH, HEIGHT = 64, 48
BITS = 8


def numbered_picture(number, height=HEIGHT, width=WIDTH):
    """[H, W, 3] whose columns are the bits of `number`, lowest on the left, above a black lower half."""
    picture = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            picture[: height // 2, bit * width // BITS : (bit + 1) * width // BITS] = 255
    return picture


def read_number(picture):
    height, width = picture.shape[:2]
    centers = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    return sum(1 << bit for bit, x in enumerate(centers) if picture[height // 4, x].mean() > 127)


def numbers(frames):
    return [read_number(frame) for frame in frames]


def write(
    target,
    *,
    pictures=None,
    pts=None,
    rate=10,
    size=(WIDTH, HEIGHT),
    codec="libx264",
    codec_options=None,
    rotation=None,
    sound=None,
    sound_start_s=0.0,
    sound_rate=44_100,
    sound_codec="aac",
    format=None,
    options=None,
):
    """A media file. `pictures` is how many, shown at `pts` ticks of 1 / rate; `sound` is float [channels, samples], or
    a list of (start in seconds, such an array)."""
    with av.open(target, "w", format=format, options=options or {}) as container:
        video = audio = None
        if pictures is not None:
            video = container.add_stream(codec, rate=rate, options=codec_options or {"g": "12", "bf": "2"})
            video.width, video.height, video.pix_fmt = *size, "yuv420p"
            if rotation is not None:
                video.set_display_rotation(rotation)
        if sound is not None:
            segments = sound if isinstance(sound, list) else [(sound_start_s, sound)]
            audio = container.add_stream(sound_codec, rate=sound_rate)
            audio.layout = "stereo" if segments[0][1].shape[0] == 2 else "mono"
        if video is not None:
            for number, tick in enumerate(range(pictures) if pts is None else pts):
                frame = av.VideoFrame.from_ndarray(numbered_picture(number, size[1], size[0]))
                frame.pts, frame.time_base = tick, Fraction(1, rate)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if audio is not None:
            for start_s, samples in segments:
                for at in range(0, samples.shape[1], 1024):
                    chunk = np.ascontiguousarray(samples[:, at : at + 1024], dtype=np.float32)
                    frame = av.AudioFrame.from_ndarray(chunk, "fltp", audio.layout.name)
                    frame.sample_rate, frame.time_base = sound_rate, Fraction(1, sound_rate)
                    frame.pts = round(start_s * sound_rate) + at
                    container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return target


def written(format="mp4", **kwargs):
    """The bytes of a media file."""
    buffer = io.BytesIO()
    write(buffer, format=format, **kwargs)
    return buffer.getvalue()


def tone(hertz, seconds, rate=44_100, channels=2):
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.tile(wave, (channels, 1))


def clicks(at_s, seconds, rate=44_100, channels=2):
    wave = np.zeros((channels, round(seconds * rate)))
    for time in at_s:
        wave[:, round(time * rate) : round(time * rate) + 60] = 0.9
    return wave


def click_times(waveform, rate=16_000):
    """Where the sound becomes loud after at least 0.2 s of quiet."""
    loud = np.flatnonzero(np.abs(waveform) > 0.3)
    return loud[np.diff(loud, prepend=-rate) > 0.2 * rate] / rate


def level(waveform, hertz, rate=16_000):
    """Amplitude of one frequency in the middle of a waveform."""
    middle = waveform[len(waveform) // 4 : -len(waveform) // 4]
    turns = np.exp(-2j * np.pi * hertz * np.arange(len(middle)) / rate)
    return 2 * abs((middle * turns).mean())


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


def test_only_the_groups_of_wanted_pictures_are_decoded(monkeypatch):
    fed = []
    decode = media._Decoder.decode

    def counting(self, packet):
        fed.append(packet)
        return decode(self, packet)

    monkeypatch.setattr(media._Decoder, "decode", counting)
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
def test_upright(matrix, expected):
    picture = np.array([[1, 2], [3, 4]])[..., None]
    matrix = None if matrix is None else np.array(matrix) * 65536
    assert media._upright(picture, matrix)[..., 0].tolist() == expected


# Sound


def test_resampling_does_not_alias():
    sound = tone(10_000, 3) + tone(1_000, 3)
    waveform = read_media(written("wav", sound=sound, sound_codec="pcm_s16le")).waveform
    assert waveform.dtype == np.float32
    # Picking every 2.76th sample would turn 10 kHz into 6 kHz at full strength.
    assert level(waveform, 6_000) < 1e-3
    assert level(waveform, 1_000) == pytest.approx(0.5, rel=0.01)


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
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('media', {media.__file__!r})\n"
        "sys.modules['media'] = module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "assert not {'torch', 'longvale', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
