from types import SimpleNamespace

import numpy as np
import pytest
import transformers

from longvale.annotation.language_models import ModelOptions
from longvale.annotation.tracks.sounds import SoundTracker, TransformersTagger
from longvale.registry import taggers


def reader_of(waveform):
    audio = lambda start, end: waveform[round(start * 16_000) : round(end * 16_000)]  # noqa: E731
    return SimpleNamespace(duration=len(waveform) / 16_000, audio=audio)


def test_silence_is_not_tagged():
    tagger = SimpleNamespace(name="never asked")
    tracker = SoundTracker(tagger)
    assert tracker(reader_of(np.zeros(16_000 * 3, np.float32)), [], {}) == []


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A folder with an untrained audio classifier of three labels."""
    folder = tmp_path_factory.mktemp("models") / "ast"
    config = transformers.ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_length=128,
        id2label={0: "Dog", 1: "Speech", 2: "Rain"},
    )  # fmt: skip
    transformers.ASTForAudioClassification(config).save_pretrained(folder)
    transformers.ASTFeatureExtractor(max_length=128).save_pretrained(folder)
    return folder


def test_a_classifier_of_transformers(classifier):
    tagger = taggers.create("transformers", ModelOptions(str(classifier), device="cpu"))
    sound = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    found = tagger(sound)
    assert found.keys() == {"Dog", "Speech", "Rain"} and sum(found.values()) == pytest.approx(1, abs=1e-4)
    assert found == tagger(sound) and tagger.name == str(classifier)


def test_what_is_no_classifier_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: cannot be loaded"):
        TransformersTagger(ModelOptions(str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="name a model: after the colon"):
        taggers.create("transformers", ModelOptions())
