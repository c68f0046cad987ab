"""A tiny model with its processor, and small media files, for the tests of the model, the processor and remote code."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from longvale.demo.checkpoint import build_checkpoint

SAMPLING_RATE = 16_000


@pytest.fixture(scope="session")
def shared():
    """(model, processor), not to be changed. The weights of the language model are enlarged: as they are initialised,
    its answers hardly depend on what it reads."""
    model, processor = build_checkpoint(seed=0, vocab_videos=50)
    with torch.no_grad():
        for parameter in model.model.language_model.layers.parameters():
            parameter.mul_(4)
        for projector in (model.model.visual_projector, model.model.audio_projector, model.model.speech_projector):
            projector.weight.mul_(20)
    return model, processor


@pytest.fixture
def model(shared):
    shared[0].eval().zero_grad()
    return shared[0]


@pytest.fixture
def processor(shared):
    return shared[1]


@pytest.fixture(scope="session")
def media_file(tmp_path_factory):
    """Writes an MP4 file: media_file(name, pictures=uint8 [F, H, W, 3] or None, sound=float [n] at 16 kHz or None)."""
    folder = tmp_path_factory.mktemp("media")

    def write(name, pictures=None, sound=None, rate=10):
        path = folder / f"{name}.mp4"
        with av.open(str(path), "w") as container:
            if pictures is not None:
                video = container.add_stream("libx264", rate=rate)
                video.height, video.width = pictures.shape[1:3]
                video.pix_fmt = "yuv420p"
            if sound is not None:
                audio = container.add_stream("aac", rate=SAMPLING_RATE, layout="mono")
            if pictures is not None:
                for picture in pictures:
                    container.mux(video.encode(av.VideoFrame.from_ndarray(picture)))
                container.mux(video.encode())
            if sound is not None:
                frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
                frame.sample_rate, frame.time_base, frame.pts = SAMPLING_RATE, Fraction(1, SAMPLING_RATE), 0
                container.mux(audio.encode(frame))
                container.mux(audio.encode())
        return path

    return write


def make_pictures(count, height=48, width=64, seed=0):
    """Smooth moving pictures, uint8 [count, height, width, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 8
    phases = rng.uniform(0, 6, 3)
    waves = [np.sin(x + phase + time / 3) * np.cos(y - time / 5) for time in range(count) for phase in phases]
    return (
        (127.5 + 127 * np.stack(waves).reshape(count, 3, height, width)).astype(np.uint8).transpose(0, 2, 3, 1).copy()
    )


def make_sound(seconds, seed=0):
    """A chirp with noise, float32 [seconds * 16000]."""
    time = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    noise = np.random.default_rng(seed).normal(0, 0.05, len(time))
    return (0.4 * np.sin(2 * np.pi * (200 + 40 * time) * time) + noise).astype(np.float32)


@pytest.fixture(scope="session")
def pictures():
    return make_pictures


@pytest.fixture(scope="session")
def sound():
    return make_sound


@pytest.fixture(scope="session")
def clip(media_file):
    """Path of 13 s with picture and sound: more than one chunk of the speech tower."""
    return media_file("clip", make_pictures(130), make_sound(13))
