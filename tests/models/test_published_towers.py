"""Sounds through the towers, against what the published code gave on tiny ones, from waveforms and from a file."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessor, CLIPVisionConfig, LlamaConfig, WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from longvale.models.configuration_longvale import LongVALEConfig
from longvale.models.layers import pool_states
from longvale.models.modeling_beats import BeatsModel
from longvale.models.modeling_longvale import LongVALEModel
from longvale.models.processing_longvale import LongVALEProcessor

FIXTURES = Path(__file__).parents[1] / "fixtures"
LENGTHS = json.loads((FIXTURES / "beats" / "reference.json").read_text())
SPEECH = np.load(FIXTURES / "whisper" / "speech.npz")
SOUND = np.load(FIXTURES / "beats" / "features.npz")


def waveform(seconds):
    """The made-up sound that the published code was run on, mono."""
    n, rng = LENGTHS[seconds]["samples"], np.random.RandomState(LENGTHS[seconds]["seed"])
    t = np.arange(n) / 16000
    left = 0.3 * np.sin(2 * np.pi * 440 * t) * (0.5 + 0.5 * np.sin(2 * np.pi * 0.7 * t))
    left += 0.2 * np.sin(2 * np.pi * (200 + 20 * t) * t) + 0.05 * rng.randn(n)
    left[n // 3 : n // 3 + n // 10] = 0
    right = 0.6 * left + 0.02 * rng.randn(n)
    return ((left + right) / 2).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    beats = BeatsModel.from_original(FIXTURES / "beats" / "beats_tiny.pt")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LongVALEConfig(
        text_config=LlamaConfig(vocab_size=30, **small),
        vision_config=CLIPVisionConfig(image_size=16, patch_size=8, projection_dim=8, **small),
        audio_config=beats.config,
        speech_config=WhisperConfig.from_pretrained(FIXTURES / "whisper"),
    )
    model = LongVALEModel(config)
    model.audio_tower = beats
    model.speech_tower = WhisperEncoder.from_pretrained(
        FIXTURES / "whisper", config=config.speech_config, key_mapping={r"^encoder\.": ""}
    )
    return model.eval()


@pytest.fixture(scope="module")
def processors(processor_of_tiny_model):
    image_processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return {
        kind: LongVALEProcessor(
            image_processor,
            WhisperFeatureExtractor.from_pretrained(FIXTURES / "whisper"),
            processor_of_tiny_model.tokenizer,
            preprocessing=kind,
        )
        for kind in ("official", "strict")
    }


@pytest.fixture(scope="module")
def processor_of_tiny_model(shared):
    return shared[1]


@torch.no_grad()
def encode(model, processor, **given):
    encoded = model.encode(**processor(**given))
    return {name: values[0][mask[0].bool()].numpy() for name, (values, mask) in encoded.items()}


@pytest.mark.parametrize("seconds", LENGTHS)
def test_speech_features_are_those_of_the_published_code(model, processors, seconds):
    inputs = processors["official"](audio=[waveform(seconds)])
    expected = SPEECH[f"spectrogram_{seconds}"]
    np.testing.assert_allclose(inputs["input_features"][0].numpy()[..., ::200], expected, atol=1e-4, rtol=0)
    features = encode(model, processors["official"], audio=[waveform(seconds)])
    np.testing.assert_allclose(features["speech"], SPEECH[f"speech_features_{seconds}"], atol=1e-4, rtol=0)
    if f"features_{seconds}" in SOUND:
        np.testing.assert_allclose(features["audio"], SOUND[f"features_{seconds}"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("chunks", [1, 2, 3, 5])
def test_pooling_is_that_of_the_published_code(chunks):
    states = np.random.RandomState(500 + chunks).randn(chunks, 1500, 48).astype(np.float32)
    states = torch.from_numpy(states).flatten(0, 1)[None]
    kept = torch.arange(states.shape[1])[None] < states.shape[1] // 256 * 256
    features, mask = pool_states(states, kept, 256)
    expected = SPEECH[f"pool_only_n{chunks}"]
    np.testing.assert_allclose(features[0][mask[0].bool()].numpy(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["official", "strict"])
def test_less_than_a_window_is_a_feature(model, processors, kind):
    """The published code fails on it."""
    for samples in (1, 200, 8000):
        features = encode(model, processors[kind], audio=[waveform("0.5")[:samples]])
        assert len(features["audio"]) == 1 and len(features["speech"]) == (5 if kind == "official" else 1)
        assert all(np.isfinite(values).all() for values in features.values())


@pytest.fixture
def write_video(tmp_path):
    """A file with moving pictures and a sound that is stored without loss."""

    def write(sound, pictures):
        path = tmp_path / "video.mkv"
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=2)
            video.height, video.width = pictures.shape[1:3]
            video.pix_fmt = "yuv420p"
            audio = container.add_stream("pcm_f32le", rate=16_000, layout="mono")
            for picture in pictures:
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(video.encode())
            frame = av.AudioFrame.from_ndarray(sound[None], format="flt", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 16_000, Fraction(1, 16_000), 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode())
        return path

    return write


@pytest.mark.parametrize("seconds", ["0.5", "9.0", "31.0"])
def test_a_file_gives_the_features_of_its_sound(model, processors, write_video, pictures, seconds):
    path = write_video(waveform(seconds), pictures(round(2 * float(seconds)), height=32, width=32))
    found = encode(model, processors["official"], videos=[path])
    assert set(found) == {"visual", "audio", "speech"}
    expected = encode(model, processors["official"], audio=[waveform(seconds)])
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5, rtol=0)
    np.testing.assert_allclose(found["speech"], SPEECH[f"speech_features_{seconds}"], atol=1e-4, rtol=0)
