"""Which files of a folder are its videos, for everything that lists one."""

import logging

import av
import pytest
from media_files import tone, write, written

from longvale.app.limits import SUFFIXES
from longvale.app.server import example_videos
from longvale.data.sources import index_videos
from longvale.evaluation.adapters.media import RawVideos
from longvale.evaluation.generation.inputs import VideoInputs
from longvale.extraction.extract import find_videos
from longvale.models.media import probe
from longvale.models.media_formats import DEMUXERS, VIDEO_SUFFIXES

ASKED_FOR = [
    ".mpg",
    ".mpeg",
    ".ts",
    ".m4v",
    ".mts",
    ".m2ts",
    ".flv",
    ".ogv",
    ".mxf",
    ".3gp",
    ".wmv",
    ".asf",
    ".vob",
    ".dv",
    ".rm",
    ".divx",
    ".f4v",
    ".webm",
    ".mkv",
    ".avi",
    ".mov",
    ".mp4",
]


def test_everything_that_lists_a_folder_finds_the_same(tmp_path):
    names = [f"{number:02d}{suffix}" for number, suffix in enumerate(VIDEO_SUFFIXES)] + ["upper.MTS", "mixed.Mp4"]
    video = written(pictures=5)
    for name in names:
        (tmp_path / name).write_bytes(video)
    found = {name.rpartition(".")[0]: tmp_path / name for name in names}
    assert set(ASKED_FOR) <= set(VIDEO_SUFFIXES) <= set(SUFFIXES) and len(set(SUFFIXES)) == len(SUFFIXES)
    assert index_videos(tmp_path) == find_videos(tmp_path) == found
    assert {path.name for path in example_videos(tmp_path)} == set(names)
    RawVideos(tmp_path).check(found)
    inputs = VideoInputs(tmp_path, videos_dir=tmp_path)
    for video_id in found:
        inputs.check(video_id)


def test_the_reader_may_open_what_is_listed():
    """One table has both; FFmpeg knows all of its names."""
    for name in DEMUXERS.split(","):
        assert name in av.formats_available, name


@pytest.mark.parametrize(
    ("suffix", "format", "codec", "sound_codec"),
    [
        (".ts", "mpegts", "libx264", "aac"),
        (".m2ts", "mpegts", "mpeg2video", "mp2"),
        (".mpg", "mpeg", "mpeg2video", "mp2"),
        (".vob", "vob", "mpeg2video", "mp2"),
        (".m4v", "mp4", "libx264", "aac"),
        (".3gp", "3gp", "libx264", "aac"),
        (".flv", "flv", "libx264", "aac"),
        (".wmv", "asf", "wmv2", "libmp3lame"),
        (".ogv", "ogg", "libtheora", "libvorbis"),
        (".divx", "avi", "mpeg4", "libmp3lame"),
        (".mxf", "mxf", "mpeg2video", "pcm_s16le"),
        (".nut", "nut", "mpeg4", "libmp3lame"),
        (".rm", "rm", "rv20", "ac3"),
    ],
)
def test_files_of_these_kinds_are_read(tmp_path, suffix, format, codec, sound_codec):
    missing = [name for name in (codec, sound_codec) if name not in av.codecs_available]
    if missing:
        pytest.skip(f"this PyAV has no {missing[0]}")
    path = tmp_path / f"a{suffix.upper()}"
    size = (176, 144) if codec == "rv20" else (64, 48)
    write(
        str(path), format=format, pictures=25, rate=25, size=size, codec=codec, codec_options={"g": "10"},
        sound=tone(440, 1.0, 48_000), sound_rate=48_000, sound_codec=sound_codec,
    )  # fmt: skip
    info = probe(index_videos(tmp_path)["a"])
    assert info.has_video and info.has_audio


def test_what_is_passed_over_is_named_once(tmp_path, caplog):
    for name in ("a.mp4", "b.txt", "c.mp3", "d.json", "e", ".hidden.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    with caplog.at_level(logging.WARNING):
        assert list(find_videos(tmp_path)) == list(index_videos(tmp_path)) == ["a"]
    (line,) = caplog.messages
    assert line == f"{tmp_path}: 4 passed over that are not videos by their names: b.txt, c.mp3, d.json, ..."


def test_a_folder_of_videos_alone_is_passed_over_in_silence(tmp_path, caplog):
    (tmp_path / "a.mp4").touch()
    index_videos(tmp_path)
    assert not caplog.messages
