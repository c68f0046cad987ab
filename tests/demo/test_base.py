import random

import numpy as np
import pytest
import torch

from longvale.data.planning import COLOURS, SHAPES, SOUNDS, WORDS, plan_video
from longvale.demo.base import fit_projectors, learn_to_look_up, pretrain_language_model, when_turns
from longvale.demo.checkpoint import NUM_FRAMES, TOWER_SIZE, build_checkpoint, corpus_options, sample_texts
from longvale.training.mosaic import FeatureBank, TemporalMosaic


@pytest.fixture(scope="module")
def parts():
    return build_checkpoint(vocab_videos=50)


@pytest.fixture(scope="module")
def mosaic():
    """Every word has a direction of its own, and a little noise."""
    rng = np.random.default_rng(0)
    words = {word: rng.normal(size=TOWER_SIZE) for word in (*COLOURS, *SHAPES, *SOUNDS, *WORDS)}

    def clips(content):
        vector = sum((words[word] for word in (content or "").split()), np.zeros(TOWER_SIZE))
        return (vector + 0.1 * rng.normal(size=(8, TOWER_SIZE))).astype(np.float32)

    bank = FeatureBank({"audio": 3.2, "speech": 3.2}, frames=NUM_FRAMES)
    for content in [None, *(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)]:
        bank.visual[content].append(clips(content))
    for content in [None, *SOUNDS]:
        bank.sounds["audio"][content, None] = list(clips(content))
    for content in [None, *WORDS]:
        bank.sounds["speech"][None, content] = list(clips(content))
    return TemporalMosaic(bank, corpus_options())


def test_fitted_projectors_put_clips_where_their_words_are(parts, mosaic):
    model, processor = parts
    explained = fit_projectors(model, processor, mosaic.bank)
    assert all(share > 0.9 for share in explained.values()), explained
    embeddings = model.get_input_embeddings().weight.detach()
    with torch.no_grad():
        bell = model.model.audio_projector(torch.tensor(mosaic.bank.sounds["audio"]["bell", None][0]))
    (token,) = processor.tokenizer("bell", add_special_tokens=False)["input_ids"]
    assert torch.cosine_similarity(bell, embeddings, dim=-1).argmax() == token


def test_the_language_model_learns_its_texts(parts):
    model, processor = parts
    texts = list(sample_texts(20, options=corpus_options()))
    curve = pretrain_language_model(model, processor, texts, steps=40, batch_size=4, length=32, progress=False)
    assert curve[-1]["step"] == 40
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.5


def test_looking_up_trains_the_language_model_alone(parts, mosaic):
    model, processor = parts
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    learn_to_look_up(model, processor, mosaic, steps=2, batch_size=2, progress=False)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(".language_model.layers." in name for name in changed)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == wanted
    assert not model.training


def test_when_is_asked_of_every_event_in_random_order():
    annotation = plan_video("abc", 0, corpus_options()).annotation
    spans = [turn.spans[0] for turn in when_turns(annotation, random.Random(0))]
    assert sorted(spans) == sorted((event.start, event.end) for event in annotation.events)
    assert spans != [turn.spans[0] for turn in when_turns(annotation, random.Random(1))]
