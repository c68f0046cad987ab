import copy
import random

import numpy as np
import pytest
import torch

from longvale.demo.base import (
    fit_projectors,
    learn_to_look_up,
    look_up_turns,
    name_times,
    pretrain_language_model,
    turns_apart,
)
from longvale.demo.checkpoint import NUM_FRAMES, TOWER_SIZE, build_checkpoint, corpus_options, sample_texts
from longvale.models.layers import fourier_times
from longvale.synthetic.compositing import CompositeVideos, FeatureBank
from longvale.synthetic.planning import COLOURS, SHAPES, SOUNDS, WORDS, plan_video
from longvale.training.collator import DialogueCollator


@pytest.fixture(scope="module")
def parts():
    return build_checkpoint(vocab_videos=50)


@pytest.fixture(scope="module")
def composites():
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
    return CompositeVideos(bank, corpus_options())


def test_fitted_projectors_put_clips_where_their_words_are(parts, composites):
    model, processor = parts
    explained = fit_projectors(model, processor, composites.bank)
    assert all(share > 0.9 for share in explained.values()), explained
    embeddings = model.get_input_embeddings().weight.detach()
    with torch.no_grad():
        bell = model.model.audio_projector(torch.tensor(composites.bank.sounds["audio"]["bell", None][0]))
    (token,) = processor.tokenizer("bell", add_special_tokens=False)["input_ids"]
    assert torch.cosine_similarity(bell, embeddings, dim=-1).argmax() == token


@pytest.mark.slow
def test_the_language_model_learns_its_texts(parts):
    model, processor = parts
    texts = list(sample_texts(20, options=corpus_options()))
    curve = pretrain_language_model(model, processor, texts, steps=40, batch_size=4, length=32, progress=False)
    assert curve[-1]["step"] == 40
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.5


def test_looking_up_trains_the_language_model_alone(parts, composites):
    model, processor = copy.deepcopy(parts[0]), parts[1]
    name_times(model, processor)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    learn_to_look_up(model, processor, composites, steps=2, batch_size=2, progress=False)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name for name in changed if ".language_model.layers." not in name} == {"lm_head.weight"} < changed
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == wanted
    assert not model.training


@pytest.mark.parametrize("segments", [0.25, 0.5])
def test_each_event_is_asked_for_its_time_or_by_it(segments):
    annotation = plan_video("abc", 0, corpus_options()).annotation
    drawn = [look_up_turns(annotation, random.Random(seed), segments) for seed in range(40)]
    for turns in drawn:
        assert sorted(turn.spans[0] for turn in turns) == sorted((e.start, e.end) for e in annotation.events)
    assert len({tuple(turn.spans[0] for turn in turns) for turns in drawn}) > 1, "the order is random"
    asked_when = sum("At which time" in turn.question for turns in drawn for turn in turns)
    assert asked_when / sum(map(len, drawn)) == pytest.approx(1 - segments, abs=0.1)


def test_timecodes_have_the_time_of_the_frames_around_them(parts, tmp_path):
    model, processor = copy.deepcopy(parts[0]), parts[1]
    plain = model.get_input_embeddings().weight.detach().clone()
    name_times(model, processor)
    embeddings, head = model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight
    assert torch.equal(head, plain), "what is written stays as it was"
    vocabulary = processor.tokenizer.get_vocab()
    rows = {token: index for token, index in vocabulary.items() if index < len(plain)}
    moved = {token for token, index in rows.items() if not torch.equal(embeddings[index], plain[index])}
    assert {"▁10", "▁50", "▁99"} <= moved <= {f"▁{code:02d}" for code in range(100)}

    times = fourier_times(torch.ones(1, NUM_FRAMES), embeddings.shape[1])[0]
    added = torch.stack([(embeddings - plain)[vocabulary[f"▁{code}"]] for code in range(10, 100, 10)])
    nearest = (added @ times.T).topk(2, dim=1).indices.sort(dim=1).values
    assert nearest.tolist() == [[step, step + 1] for step in range(9)]

    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert torch.equal(loaded.get_input_embeddings().weight, embeddings)
    assert torch.equal(loaded.get_output_embeddings().weight, head)


def test_turns_apart_see_the_video_and_no_other_turn(parts):
    model, processor = parts
    rng = np.random.default_rng(0)
    features = {
        f"{m}_features": rng.normal(size=(3, TOWER_SIZE)).astype(np.float32) for m in ("visual", "audio", "speech")
    }

    def logits(*turns):
        roles = [role for _ in turns for role in ("user", "assistant")]
        contents = [text for turn in turns for text in turn]
        messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
        batch = DialogueCollator(processor)([{"messages": messages, **features}])
        end = processor.tokenizer.eos_token_id
        apart = batch | turns_apart(batch, processor.video_token_id, end)
        ends = (batch["input_ids"][0] == end).nonzero().flatten().tolist()
        with torch.no_grad():
            return model(**batch).logits[0], model(**apart).logits[0], ends

    first, other, second = ("<video>\na bell", "From 10 to 20."), ("<video>\na bell", "From 70 to 99."), ("yes", "go.")
    plain, apart, ends = logits(first, second)
    plain_other, apart_other, _ = logits(other, second)
    start = ends[0] + 1
    torch.testing.assert_close(apart[:start], plain[:start])
    torch.testing.assert_close(apart[start:], apart_other[start:])
    assert not torch.allclose(plain[start:], plain_other[start:])
    features.update({name: np.zeros_like(values) for name, values in features.items()})
    assert not torch.allclose(logits(first, second)[1][start:], apart[start:]), "the second turn sees the video"


def test_padding_does_not_change_turns_apart(parts):
    _, processor = parts
    ids = torch.tensor([[1, processor.video_token_id, 5, 2, 6, 2]])
    padded = torch.nn.functional.pad(ids, (0, 2))
    mask = torch.ones_like(ids)
    alone = turns_apart({"input_ids": ids, "attention_mask": mask}, processor.video_token_id, 2)
    wide = turns_apart(
        {"input_ids": padded, "attention_mask": torch.nn.functional.pad(mask, (0, 2))}, processor.video_token_id, 2
    )
    assert torch.equal(wide["attention_mask"][..., :6, :6], alone["attention_mask"])
    assert not wide["attention_mask"][..., :6, 6:].any()
    assert torch.equal(wide["position_ids"][:, :6], alone["position_ids"])
