"""What the tests of annotation share: a connection that works offline, a few videos, and what was found in them."""

import functools
import json

import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def _once():
    """Detect the speech of a sound once, and draw the figure of the same boundaries once, in all tests of a worker."""
    from longvale.annotation import video_stages
    from longvale.annotation.review import figures

    find, draw, encode, turns, pictures = video_stages.find_speech, figures.boundaries_figure, figures.png_bytes, {}, {}

    def find_speech(waveform, options=None):
        key = (None if waveform is None else waveform.tobytes(), options)
        if key not in turns:
            turns[key] = find(waveform, options)
        return list(turns[key])

    def png_bytes(figure):
        if not isinstance(figure, tuple):
            return encode(figure)
        found, frames = figure
        key = json.dumps(found | {"seconds": None}, sort_keys=True), None if frames is None else frames.tobytes()
        if key not in pictures:
            pictures[key] = encode(draw(found, frames))
        return pictures[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video_stages, "find_speech", find_speech)
        patch.setattr(figures, "boundaries_figure", lambda found, frames: (found, frames))
        patch.setattr(figures, "png_bytes", png_bytes)
        yield


@pytest.fixture
def online(monkeypatch):
    """HF_HUB_OFFLINE, which the tests set, would also forbid a server on this machine."""
    from huggingface_hub import close_session, constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    close_session()


@pytest.fixture(scope="session")
def film(tmp_path_factory):
    """Write a video: `film(name, seconds, picture=True, sound=True)` -> path. Colours and tones change halfway."""
    folder = tmp_path_factory.mktemp("films")

    @functools.cache
    def write(name, seconds, picture=True, sound=True):
        from fractions import Fraction

        import av

        with av.open(str(folder / name), "w") as container:
            if picture:
                video = container.add_stream("libx264", rate=8, options={"preset": "ultrafast"})
                video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            if sound:
                audio = container.add_stream("aac", rate=16000, layout="mono")
            if picture:
                grain = np.random.default_rng(0).normal(0, 5, (48, 64, 3))
                for index in range(round(seconds * 8)):
                    colour = (200, 30, 30) if index < seconds * 4 else (30, 30, 200)
                    pixels = np.clip(np.roll(grain, 3 * index, axis=1) + colour, 0, 255).astype(np.uint8)
                    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                    frame.pts, frame.time_base = index, Fraction(1, 8)
                    container.mux(video.encode(frame))
                container.mux(video.encode())
            if sound:
                time = np.arange(round(seconds * 16000)) / 16000
                hertz = np.where(time < seconds * 0.6, 300, 2500)
                track = (0.2 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)
                for start in range(0, len(track), 1024):
                    frame = av.AudioFrame.from_ndarray(track[None, start : start + 1024], format="fltp", layout="mono")
                    frame.sample_rate, frame.pts = 16000, start
                    container.mux(audio.encode(frame))
                container.mux(audio.encode())
        return folder / name

    return write
