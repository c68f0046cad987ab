from types import SimpleNamespace

import numpy as np
import pytest
import transformers

from longvale.annotation.language_models import ModelOptions
from longvale.annotation.taggers import TransformersTagger, tag
from longvale.registry import taggers


def reader_of(waveform):
    return SimpleNamespace(audio=lambda start, end: waveform[round(start * 16_000) : round(end * 16_000)])


def test_tags_of_a_long_event_are_the_most_probable_of_its_parts():
    answers = [{"Dog": 0.5, "Cat": 0.19, "Wind": 0.2}, {"Dog": 0.9, **{f"Tone {n}": 0.3 for n in range(6)}}]
    lengths = []

    def tagger(sound):
        lengths.append(len(sound))
        return answers[len(lengths) - 1]

    waveform = np.full(16_000 * 50, 0.1, np.float32)
    assert tag(tagger, reader_of(waveform), 0.0, 40.0) == {"Dog": 0.9, **{f"Tone {n}": 0.3 for n in range(4)}}
    assert lengths == [320_000, 320_000]  # two parts of 20 s
    assert tag(tagger, reader_of(0 * waveform), 0.0, 40.0) == {} and len(lengths) == 2  # silence is not tagged


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
