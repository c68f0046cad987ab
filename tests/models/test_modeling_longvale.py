"""The model on raw and on stored inputs. Equalities hold within 1e-5 where padding or caching changes the order of
float32 sums; the logits here are of size 10."""

import copy
import inspect
import math
import re

import pytest
import torch
from accelerate.utils.dataclasses import get_module_class_from_name
from peft import LoraConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from torch.testing import assert_close
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    ResNetConfig,
    SiglipVisionConfig,
    WhisperConfig,
)

from longvale.models.configuration_beats import BeatsConfig
from longvale.models.configuration_longvale import LongVALEConfig
from longvale.models.layers import fourier_times, merge_embeddings, pool_states
from longvale.models.media import read_media
from longvale.models.modeling_longvale import VIDEO_INPUTS, LongVALEForConditionalGeneration, LongVALEModel

CLOSE = {"rtol": 1e-5, "atol": 1e-4}
QUESTIONS = ["USER: <video>\nWhat happens? ASSISTANT:", "USER: <video>\nWhen does the bell ring in it? ASSISTANT:"]
VIDEO = 30  # the placeholder of `small_model`


def small_model(**fields):
    """Without towers: features of width 6, a vocabulary of 30."""
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=30,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.3,
    )
    sizes = dict.fromkeys(("visual_feature_size", "audio_feature_size", "speech_feature_size"), 6)
    config = LongVALEConfig(text_config=text, video_token_id=VIDEO, initializer_range=0.3, **sizes, **fields)
    return LongVALEForConditionalGeneration(config).eval()


def small_inputs(visual=3, audio=2, speech=1, seed=0):
    """One row: text, the video's placeholders, text."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {}
    for name, count in {"visual": visual, "audio": audio, "speech": speech}.items():
        if count:
            inputs[f"{name}_features"] = torch.randn(1, count, 6, generator=generator)
    ids = [1, 5, *[VIDEO] * (visual + audio + speech), 6, 7]
    return {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long), **inputs}


def stored(processor, encoded):
    """What `model.encode` gave, as arrays for the processor."""
    return {
        f"{modality}_features": [
            row[kept.bool()] if kept.any() else None for row, kept in zip(values, mask, strict=True)
        ]
        for modality, (values, mask) in encoded.items()
    }


@pytest.fixture
def features():
    """Stored features of two videos, the first without speech, the second without sound."""
    generator = torch.Generator().manual_seed(0)

    def draw(count):
        return torch.randn(count, 64, generator=generator)

    return {
        "visual_features": [draw(20), draw(12)],
        "audio_features": [draw(5), None],
        "speech_features": [None, draw(3)],
    }


def row_of(features, row):
    return {name: values[row] for name, values in features.items() if values[row] is not None}


# Raw and stored


@pytest.mark.parametrize("form", ["path", "bytes", "media", "frames and waveform"])
@torch.no_grad()
def test_raw_video_and_stored_features_give_the_same_logits(model, processor, clip, form):
    media = read_media(clip, **processor.media_kwargs())
    raw = {
        "path": {"videos": clip},
        "bytes": {"videos": clip.read_bytes()},
        "media": {"videos": media},
        "frames and waveform": {"videos": media.frames, "audio": media.waveform},
    }[form]
    encoded = model.encode(**processor(videos=media))
    counts = {
        "visual": processor.num_frames,
        "audio": math.ceil(1298 / processor.audio_window_frames),  # filterbank frames of 13 s
        "speech": math.ceil(650 / processor.speech_window_states),
    }
    assert {name: int(mask.sum()) for name, (_, mask) in encoded.items()} == counts
    from_raw = model(**processor(text=QUESTIONS[0], **raw)).logits
    from_stored = model(**processor(text=QUESTIONS[0], **stored(processor, encoded))).logits
    assert_close(from_raw, from_stored, **CLOSE)
    other = model(**processor(text=QUESTIONS[0], **stored(processor, model.encode(**processor(videos=media.frames)))))
    assert other.logits.shape[1] == from_raw.shape[1] - counts["audio"] - counts["speech"]


@torch.no_grad()
def test_a_raw_batch_equals_its_rows(model, processor, pictures, sound):
    videos = [pictures(20), None, pictures(7, seed=1), pictures(4, seed=2)]
    sounds = [sound(13), sound(3, seed=1), None, sound(0.01)]
    questions = [QUESTIONS[0], QUESTIONS[1], QUESTIONS[0], QUESTIONS[1]]
    batch = processor(text=questions, videos=videos, audio=sounds)
    logits = model(**batch).logits
    encoded = model.encode(**processor(videos=videos, audio=sounds))
    assert [encoded[name][1].sum(dim=1).tolist() for name in ("visual", "audio", "speech")] == [
        [20, 0, 7, 4],
        [math.ceil(frames / processor.audio_window_frames) for frames in (1298, 298, 0, 1)],
        [math.ceil(states / processor.speech_window_states) for states in (650, 150, 0, 1)],
    ]
    for row, (question, video, waveform) in enumerate(zip(questions, videos, sounds, strict=True)):
        single = processor(text=question, videos=[video], audio=[waveform])
        expected = model(**single).logits[0]
        assert_close(logits[row, -len(expected) :], expected, **CLOSE)
        # Stored features of the row in the batch are those of the row alone.
        for name, (values, mask) in model.encode(**processor(videos=[video], audio=[waveform])).items():
            assert_close(encoded[name][0][row][encoded[name][1][row].bool()], values[0][mask[0].bool()], **CLOSE)


@torch.no_grad()
def test_a_stored_batch_equals_its_rows(model, processor, features):
    logits = model(**processor(text=QUESTIONS, **features)).logits
    for row, question in enumerate(QUESTIONS):
        expected = model(**processor(text=question, **row_of(features, row))).logits[0]
        assert_close(logits[row, -len(expected) :], expected, **CLOSE)


@torch.no_grad()
def test_padding_holds_no_meaning(model, processor, features):
    inputs = processor(text=QUESTIONS, **features)
    expected = model(**inputs).logits
    for name in ("visual", "audio", "speech"):
        values, mask = inputs[f"{name}_features"], inputs[f"{name}_features_mask"]
        padded = torch.full((2, values.shape[1] + 4, values.shape[2]), 9.0)
        padded[:, : values.shape[1]] = torch.where(mask.bool().unsqueeze(-1), values, 9.0)
        inputs[f"{name}_features"] = padded
        inputs[f"{name}_features_mask"] = torch.nn.functional.pad(mask, (0, 4))
    kept = inputs["attention_mask"].bool()
    assert_close(model(**inputs).logits[kept], expected[kept], rtol=0, atol=0)


@torch.no_grad()
def test_every_modality_and_its_order_matter():
    model, inputs = small_model(), small_inputs()
    logits = model(**inputs).logits[:, -1]
    for name in ("visual_features", "audio_features", "speech_features"):
        changed = inputs | {name: inputs[name] + 1}
        assert (model(**changed).logits[:, -1] - logits).abs().max() > 0.01
    flipped = inputs | {"visual_features": inputs["visual_features"].flip(1)}
    assert (model(**flipped).logits[:, -1] - logits).abs().max() > 0.01


@torch.no_grad()
def test_the_video_is_projected_and_put_where_the_placeholders_stand():
    model, inputs = small_model(), small_inputs()
    outputs = model(**inputs)
    expected = torch.cat(
        [
            model.model.visual_projector(inputs["visual_features"]),
            model.model.audio_projector(inputs["audio_features"]),
            model.model.speech_projector(inputs["speech_features"]),
        ],
        dim=1,
    )
    assert_close(outputs.video_hidden_states, expected)
    embeds = model.get_input_embeddings()(inputs["input_ids"].clamp(max=29))
    embeds[:, 2:8] = expected
    assert_close(model(inputs_embeds=embeds).logits, outputs.logits)


def test_merging_equals_masked_scatter():
    torch.manual_seed(0)
    video_mask = torch.rand(4, 9) < 0.5
    placeholders = torch.zeros(4, 12, dtype=torch.bool)
    for row, count in enumerate(video_mask.sum(dim=1)):
        placeholders[row, torch.randperm(12)[:count]] = True
    text, video = torch.randn(4, 12, 3), torch.randn(4, 9, 3)
    expected = text.masked_scatter(placeholders.unsqueeze(-1), video[video_mask])
    assert torch.equal(merge_embeddings(text, placeholders, video, video_mask), expected)


# Refusals


@pytest.mark.parametrize("counts", [(3, 5), (5, 4)])
def test_a_row_whose_placeholders_and_features_differ_is_named(counts):
    """(3, 5) placeholders for (5, 3) features are as many in all."""
    model, rows = small_model(), [small_inputs(5, 0, 0), small_inputs(3, 0, 0, seed=1)]
    features = torch.zeros(2, 5, 6)
    mask = torch.tensor([[1] * 5, [1] * 3 + [0] * 2])
    ids = torch.tensor([[1] * (6 - count) + [VIDEO] * count for count in counts])
    row = 0 if counts[0] == 3 else 1
    expected = f"row {row} of the prompt has {counts[row]} video placeholders but {(5, 3)[row]} features"
    with pytest.raises(ValueError, match=expected):
        model(input_ids=ids, visual_features=features, visual_features_mask=mask)
    assert model(**rows[0]).logits.shape[1] == 9


def test_placeholders_without_features_are_refused():
    ids = small_inputs()["input_ids"]
    with pytest.raises(ValueError, match="the prompt has 6 video placeholders but no features were given"):
        small_model()(input_ids=ids)


@pytest.mark.parametrize("name", ["audio_feature", "speech_feature_mask", "visual_feats", "videos", "pixel_values"])
def test_a_misspelt_input_is_refused(name):
    model, inputs = small_model(), small_inputs() | {name: torch.zeros(1, 2, 6)}
    with pytest.raises(TypeError, match=f"unknown input '{name}'; video inputs are visual_features, audio_features"):
        model(**inputs)
    with pytest.raises(TypeError, match=f"unknown input '{name}'"):
        model.model(**inputs)
    with pytest.raises(ValueError, match=name):
        model.generate(**inputs, max_new_tokens=1)
    with pytest.raises(TypeError, match=name):
        model.encode(**{name: torch.zeros(1, 2, 6)})


def test_wrong_shapes_are_refused():
    model, inputs = small_model(), small_inputs()
    for given in (torch.zeros(1, 2, 7), torch.zeros(2, 6)):
        with pytest.raises(ValueError, match=r"audio_features must be \[batch, n, 6\].*but are \["):
            model(**inputs | {"input_ids": inputs["input_ids"][: len(given)], "audio_features": given[:1]})
    with pytest.raises(ValueError, match=r"audio_features_mask must be \[1, 2\] but is \[1, 3\]"):
        model(**inputs, audio_features_mask=torch.ones(1, 3))
    with pytest.raises(ValueError, match="audio features are of 2 videos but the prompt has 1 rows"):
        model(**inputs | {"audio_features": torch.zeros(2, 2, 6)})


@pytest.mark.parametrize(
    ("name", "modality"), [("pixel_values_videos", "visual"), ("input_values", "audio"), ("input_features", "speech")]
)
def test_raw_input_needs_a_tower(name, modality):
    with pytest.raises(ValueError, match=f"{name} was given but this model has no {modality} tower"):
        small_model()(input_ids=torch.tensor([[1, VIDEO]]), **{name: torch.zeros(1, 1, 3, 8, 8)})


def test_a_modality_raw_and_stored_is_refused(model, processor, pictures, features):
    inputs = processor(text=QUESTIONS[0], videos=pictures(20))
    with pytest.raises(ValueError, match="visual is given twice, raw and as visual_features"):
        model(**inputs, visual_features=features["visual_features"][0][None])


def test_either_ids_or_embeddings():
    model, inputs = small_model(), small_inputs()
    embeds = torch.zeros(1, 4, 16)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model(inputs_embeds=embeds, input_ids=inputs["input_ids"])
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model()
    with pytest.raises(ValueError, match="row 0 of the prompt has 0 video placeholders but 3 features"):
        model(inputs_embeds=embeds, visual_features=inputs["visual_features"])


@pytest.mark.parametrize("placeholder", [VIDEO, 29, 8])
@torch.no_grad()
def test_embeddings_of_a_prompt_with_features(placeholder):
    """The video is merged where the embeddings are those of the placeholder, inside the vocabulary or outside of it."""
    model, inputs = small_model(), small_inputs()
    model.config.video_token_id = placeholder
    model.set_input_embeddings(model.get_input_embeddings())
    inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == VIDEO, placeholder)
    embeds = {"inputs_embeds": model.get_input_embeddings()(inputs["input_ids"])}
    rest = {name: value for name, value in inputs.items() if name != "input_ids"}
    assert torch.equal(model(**embeds, **rest).logits, model(**inputs).logits)
    expected = generate(model, inputs)
    options = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
    assert torch.equal(model.generate(**embeds, **rest, **options), expected)
    assert torch.equal(generate(model, inputs | embeds), expected)


def test_a_placeholder_has_no_word_embedding_and_gets_no_gradient():
    model = small_model()
    embeddings = model.get_input_embeddings()
    values = embeddings(torch.tensor([[3, VIDEO, 0]]))
    assert torch.equal(values[:, [0, 2]], embeddings.weight[[3, 0]][None])
    assert len(set(values[0, 1].tolist())) == 1
    values[:, 1].sum().backward()
    assert not embeddings.weight.grad.any()
    assert set(small_model().state_dict()) == {name for name, _ in model.named_parameters()} | {"lm_head.weight"}


# Generation


def generate(model, inputs, new_tokens=12, **options):
    output = model.generate(**inputs, max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False, **options)
    return output[:, inputs["input_ids"].shape[1] :]


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"cache_implementation": "static"}])
def test_cached_generation_equals_uncached(model, processor, features, options):
    inputs = processor(text=QUESTIONS, **features)
    cached = generate(model, inputs, **options)
    assert len(set(cached[0].tolist())) > 3 and not torch.equal(cached[0], cached[1])
    uncached = generate(model, inputs, use_cache=False, **options | {"cache_implementation": None})
    assert torch.equal(cached, uncached)
    if not options:
        for row, question in enumerate(QUESTIONS):
            assert torch.equal(generate(model, processor(text=question, **row_of(features, row)))[0], cached[row])


def test_generation_from_raw_video(model, processor, clip):
    raw = processor(text=QUESTIONS[0], videos=clip)
    encoded = model.encode(**processor(videos=clip))
    from_stored = generate(model, processor(text=QUESTIONS[0], **stored(processor, encoded)))
    assert torch.equal(generate(model, raw), from_stored)
    assert torch.equal(generate(model, raw, use_cache=False), from_stored)
    assert torch.equal(generate(model, raw, num_beams=2), generate(model, raw, num_beams=2, use_cache=False))


@pytest.mark.parametrize("kind", ["raw", "stored"])
def test_the_video_goes_in_once(model, processor, features, pictures, sound, monkeypatch, kind):
    given = {"videos": [pictures(20)], "audio": [sound(3)]} if kind == "raw" else row_of(features, 0)
    inputs, seen = processor(text=QUESTIONS[0], **given), []
    forward = model.forward

    def watched(**kwargs):
        seen.append([name for name in VIDEO_INPUTS if kwargs.get(name) is not None])
        return forward(**kwargs)

    watched.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(model, "forward", watched)
    generate(model, inputs, 3)
    assert seen == [[name for name in VIDEO_INPUTS if name in inputs], [], []] and len(seen[0]) >= 4


def test_questions_share_the_prefix_of_a_video(model, processor, features):
    """The cache of the video, computed once, continued by questions of different lengths."""
    ids = [processor(text=question, **row_of(features, 0))["input_ids"][0] for question in QUESTIONS]
    expected = [generate(model, processor(text=question, **row_of(features, 0)))[0] for question in QUESTIONS]
    shared = next(i for i, (a, b) in enumerate(zip(*ids, strict=False)) if a != b)
    video = processor(text=QUESTIONS[0], **row_of(features, 0))
    video["input_ids"], video["attention_mask"] = (video[name][:, :shared] for name in ("input_ids", "attention_mask"))
    with torch.no_grad():
        cache = model(**video, use_cache=True).cache
    longest = max(len(row) for row in ids)
    suffixes = torch.zeros(2, longest, dtype=torch.long)
    mask = torch.zeros(2, longest, dtype=torch.long)
    for row, tokens in enumerate(ids):
        padding = longest - len(tokens)
        suffixes[row] = torch.cat([tokens[:shared], torch.zeros(padding, dtype=torch.long), tokens[shared:]])
        mask[row] = torch.cat([torch.ones(shared), torch.zeros(padding), torch.ones(len(tokens) - shared)])
    shared_cache = copy.deepcopy(cache)
    shared_cache.batch_repeat_interleave(2)
    answers = generate(model, {"input_ids": suffixes, "attention_mask": mask}, cache=shared_cache)
    assert cache.get_seq_length() == shared
    assert torch.equal(answers, torch.stack(expected))


def test_a_placeholder_is_never_an_answer():
    model, inputs = small_model(), small_inputs()
    model.resize_token_embeddings(VIDEO + 1)
    with torch.no_grad():
        model.lm_head.weight[VIDEO] = 100 * model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
        assert model(**inputs).logits[0, -1].argmax() == VIDEO
    assert VIDEO not in generate(model, inputs)


# Training


def training_inputs():
    inputs = small_inputs()
    return inputs | {"labels": inputs["input_ids"].masked_fill(inputs["input_ids"] == VIDEO, -100)}


def gradients(model, inputs):
    model.zero_grad()
    model(**inputs).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_the_loss_is_that_of_the_next_token():
    model, inputs = small_model(), training_inputs()
    with torch.no_grad():
        outputs = model(**inputs)
        scores = outputs.logits[0, :-1].log_softmax(-1)
        targets = inputs["labels"][0, 1:]
        kept = targets != -100
        losses = -scores[kept].gather(1, targets[kept, None])
        assert_close(outputs.loss, losses.mean())
        assert_close(model(**inputs, num_items_in_batch=10).loss, losses.sum() / 10)


def test_gradient_checkpointing_changes_no_gradient():
    inputs, model = training_inputs(), small_model().train()
    expected = gradients(model, inputs)
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in expected.values())
    for use_reentrant in (False, True):
        model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        assert model.model.language_model.gradient_checkpointing
        for name, gradient in gradients(model, inputs).items():
            assert_close(gradient, expected[name])


def test_gradient_checkpointing_through_the_towers(model, processor, pictures, sound):
    inputs = processor(text=QUESTIONS[0], videos=pictures(4), audio=sound(3))
    inputs["labels"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == processor.video_token_id, -100)
    inputs["use_cache"] = False  # checkpointing needs that, and a cache changes the order of sums
    try:
        for tower in model.towers:
            tower.requires_grad_(True)
        expected = gradients(model.train(), inputs)
        assert sum(value is not None for name, value in expected.items() if "_tower." in name) > 50
        model.gradient_checkpointing_enable({"use_reentrant": False})
        for name, gradient in gradients(model, inputs).items():
            if expected[name] is not None:
                assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)
    finally:
        model.gradient_checkpointing_disable()
        for tower in model.towers:
            tower.requires_grad_(False)


def test_towers_give_the_same_while_training(model, processor, pictures, sound):
    """They are frozen: no dropout, and no running means that move."""
    inputs = processor(videos=pictures(4), audio=sound(3))
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected = model.encode(**inputs)
        found = model.train().encode(**inputs)
    assert model.model.language_model.training and model.model.visual_projector.training
    for name, (values, _) in expected.items():
        assert torch.equal(found[name][0], values), name
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(part.training for part in model.eval().modules())


def test_an_absent_modality_has_zero_gradients_in_training():
    """None would leave other processes waiting for a gradient to reduce."""
    inputs = training_inputs()
    del inputs["audio_features"], inputs["speech_features"]
    inputs |= {name: inputs[name][:, [0, 1, 2, 3, 4, -2, -1]] for name in ("input_ids", "attention_mask", "labels")}
    model = small_model()
    assert gradients(model, inputs)["model.audio_projector.weight"] is None
    expected = model(**inputs).loss
    found = gradients(model.train(), inputs)
    assert_close(model(**inputs).loss, expected, rtol=0, atol=0)
    for modality in ("audio", "speech"):
        assert torch.equal(found[f"model.{modality}_projector.weight"], torch.zeros(16, 6))
        assert torch.equal(found[f"model.{modality}_projector.bias"], torch.zeros(16))
    assert found["model.visual_projector.weight"].abs().sum() > 0


def test_a_head_applied_by_the_trainer_sees_the_video():
    """Trainers that fuse head and loss call the base model with the batch, then the output embeddings."""
    model, inputs = small_model(), training_inputs()
    labels = inputs.pop("labels")
    hidden_states = model.base_model(**inputs, use_cache=False).last_hidden_state
    logits = model.get_output_embeddings()(hidden_states)
    assert_close(logits, model(**inputs).logits)
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:])
    loss.backward()
    for modality in ("visual", "audio", "speech"):
        assert getattr(model.model, f"{modality}_projector").weight.grad.abs().sum() > 0


def test_logits_to_keep():
    model, inputs = small_model(), small_inputs()
    with torch.no_grad():
        logits = model(**inputs).logits
        assert_close(model(**inputs, logits_to_keep=2).logits, logits[:, -2:])
        assert_close(model(**inputs, logits_to_keep=torch.tensor([0, 3])).logits, logits[:, [0, 3]])


# Time


def test_fourier_times_tell_where_in_the_video_a_token_lies():
    """A quarter of a turn, ten turns, and between them what has the same ratio to both."""
    times = fourier_times(torch.tensor([[1, 1, 1, 1]]), 7)[0]
    share = torch.tensor([0.125, 0.375, 0.625, 0.875])
    angles = [2 * torch.pi * turns * share for turns in (0.25, 2.5**0.5, 10)]
    expected = torch.stack([*(a.cos() for a in angles), *(a.sin() for a in angles), 0 * share], dim=1)
    assert_close(times, expected, rtol=0, atol=1e-5)  # float32 sines of angles up to 55


def test_fourier_times_tell_any_two_tokens_apart():
    """Neighbours by the fast turns; late from early by the slow ones, of which none comes round."""
    times = fourier_times(torch.ones(1, 100), 64)[0]
    distances = torch.cdist(times, times) + 99 * torch.eye(100)
    assert distances.min() > 0.5
    slow = times[:, 0]
    assert (slow.diff() < 0).all()


def test_fourier_times_do_not_depend_on_padding():
    times = fourier_times(torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]), 8)
    assert torch.equal(times[0, :3], fourier_times(torch.ones(1, 3), 8)[0])
    assert torch.equal(times[1], fourier_times(torch.ones(1, 5), 8)[0])


@torch.no_grad()
def test_time_embeddings_are_added_to_the_projected_features():
    inputs = small_inputs()
    plain, timed = small_model(), small_model(time_embedding="fourier", time_embedding_scale=0.5)
    timed.load_state_dict(plain.state_dict())
    difference = timed(**inputs).video_hidden_states - plain(**inputs).video_hidden_states
    expected = torch.cat([fourier_times(torch.ones(1, count), 16) for count in (3, 2, 1)], dim=1)
    assert_close(difference, 0.5 * expected)
    assert (timed(**inputs).logits - plain(**inputs).logits).abs().max() > 0.01


# Towers


@torch.no_grad()
def test_speech_windows_run_across_chunks(model, processor, sound):
    inputs = processor(audio=sound(13))
    features, mask = model.model.get_speech_features(inputs["input_features"], inputs["input_features_mask"])
    states = model.model.speech_tower(inputs["input_features"][0]).last_hidden_state
    window = processor.speech_window_states
    assert len(states) == 2
    states = states.flatten(0, 1)[:650]
    expected = [states[start : start + window].mean(dim=0) for start in range(0, 650, window)]
    assert mask.tolist() == [[1] * len(expected) + [0] * (mask.shape[1] - len(expected))]
    assert_close(features[0, : len(expected)], torch.stack(expected), **CLOSE)


def test_pooling_of_states_in_low_precision_counts_right():
    """bfloat16 has 8 bits: counted in it, 300 ones would be 256."""
    features, mask = pool_states(torch.ones(1, 300, 1, dtype=torch.bfloat16), torch.ones(1, 300), 300)
    assert features.dtype == torch.bfloat16
    assert features.item() == 1 and mask.tolist() == [[1]]


@pytest.mark.parametrize(
    ("vision_config", "width"),
    [
        (
            SiglipVisionConfig(image_size=16, patch_size=8, hidden_size=12, intermediate_size=8, num_attention_heads=2),
            12,
        ),
        (ResNetConfig(embedding_size=8, hidden_sizes=[8, 10], depths=[1, 1], layer_type="basic"), 10),
    ],
    ids=["siglip", "resnet"],
)
@torch.no_grad()
def test_any_vision_model_may_be_the_tower(vision_config, width):
    config = small_model().config.to_dict() | {"vision_config": vision_config, "visual_feature_size": width}
    config.pop("audio_config"), config.pop("speech_config")
    model = LongVALEModel(LongVALEConfig(**config)).eval()
    assert model.encode(torch.randn(2, 3, 3, 16, 16))["visual"][0].shape == (2, 3, width)


@torch.no_grad()
def test_bfloat16_takes_float32_inputs(model, processor, pictures, sound):
    inputs = processor(text=QUESTIONS[0], videos=pictures(4), audio=sound(3))
    expected = model(**inputs).logits
    low = copy.deepcopy(model).to(torch.bfloat16)
    logits = low(**inputs).logits
    assert logits.dtype == torch.bfloat16
    assert torch.corrcoef(torch.stack([logits.float().flatten(), expected.flatten()]))[0, 1] > 0.95
    encoded = low.encode(**processor(videos=pictures(4), audio=sound(3)))
    assert {values.dtype for values, _ in encoded.values()} == {torch.bfloat16}
    assert low(**processor(text=QUESTIONS[0], **stored(processor, encoded))).logits.shape == logits.shape
    assert generate(low, inputs, 3).shape == (1, 3)


@torch.no_grad()
def test_autocast_takes_raw_inputs(model, processor, pictures, sound):
    inputs = processor(text=QUESTIONS[0], videos=pictures(4), audio=sound(3))
    expected = model(**inputs).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(**inputs).logits
    assert torch.corrcoef(torch.stack([logits.float().flatten(), expected.flatten()]))[0, 1] > 0.95


def test_projectors_of_another_precision():
    """Trainers keep trained projectors in float32 beside a language model in bfloat16."""
    model, inputs = small_model().to(torch.bfloat16).train(), training_inputs()
    model.model.audio_projector.float()
    del inputs["speech_features"]
    inputs |= {
        name: inputs[name][:, [0, 1, 2, 3, 4, 5, 6, -2, -1]] for name in ("input_ids", "attention_mask", "labels")
    }
    found = gradients(model, inputs)
    assert found["model.audio_projector.weight"].dtype == torch.float32
    assert found["model.audio_projector.weight"].abs().sum() > 0


def tiny_towers(**fields):
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LongVALEConfig(
        text_config=LlamaConfig(vocab_size=30, num_key_value_heads=2, **small),
        vision_config=CLIPVisionConfig(image_size=16, patch_size=8, projection_dim=8, **small),
        audio_config=BeatsConfig(embed_dim=8, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, **small),
        speech_config=WhisperConfig(d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16),
        **fields,
    )


@pytest.mark.parametrize("wanted", ["eager", "sdpa", "flex_attention"])
def test_towers_take_an_attention_that_they_support(wanted, tmp_path):
    """A ResNet has no attention, and BEATs takes its position bias in the attention mask."""
    vision = ResNetConfig(embedding_size=8, hidden_sizes=[8, 10], depths=[1, 1], layer_type="basic")
    fields = tiny_towers().to_dict() | {"vision_config": vision, "visual_feature_size": 10}
    model = LongVALEForConditionalGeneration(LongVALEConfig(**fields))
    model.save_pretrained(tmp_path)
    set_later = LongVALEForConditionalGeneration(LongVALEConfig(**fields))
    set_later.set_attn_implementation(wanted)
    loaded = LongVALEForConditionalGeneration.from_pretrained(tmp_path, attn_implementation=wanted)
    for model in (set_later, loaded):
        config = model.config
        assert config._attn_implementation == config.text_config._attn_implementation == wanted
        assert config.vision_config._attn_implementation == "eager"
        assert config.audio_config._attn_implementation == ("eager" if wanted == "eager" else "sdpa")
        assert config.speech_config._attn_implementation == wanted
    loaded.set_attn_implementation({"text_config": "eager"})
    assert loaded.config.text_config._attn_implementation == "eager"
    assert loaded.config.speech_config._attn_implementation == wanted


def raw_inputs():
    return {
        "input_ids": torch.tensor([[1, VIDEO, VIDEO, VIDEO, 3]]),
        "labels": torch.tensor([[1, -100, -100, -100, 3]]),
        "pixel_values_videos": torch.randn(1, 2, 3, 16, 16),
        "input_values": torch.randn(1, 1, 32, 128),
    }


def trained_parts(model):
    return {name.split(".")[1] for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_towers_are_frozen_until_they_are_released(tmp_path):
    LongVALEForConditionalGeneration(tiny_towers(video_token_id=VIDEO)).save_pretrained(tmp_path)
    model = LongVALEForConditionalGeneration.from_pretrained(tmp_path).train()
    model(**raw_inputs()).loss.backward()
    parts = {"language_model", "visual_projector", "audio_projector", "speech_projector"}
    assert trained_parts(model) - {"weight"} == parts
    assert not any(tower.training or any(p.requires_grad for p in tower.parameters()) for tower in model.towers)
    model.model.visual_tower.requires_grad_(True)
    model.gradient_checkpointing_enable()
    calls = []
    layer = model.model.visual_tower.vision_model.encoder.layers[0]
    layer.self_attn.register_forward_pre_hook(lambda *_: calls.append(1))
    model(**raw_inputs()).loss.backward()
    assert trained_parts(model) - {"weight"} == parts | {"visual_tower"}
    assert len(calls) == 2  # computed again in the backward pass
    assert model.model.visual_tower.training and not model.model.audio_tower.training


def test_the_sound_tower_keeps_an_attention_that_takes_its_bias():
    model = LongVALEForConditionalGeneration(tiny_towers(attn_implementation="flex_attention"))
    assert model.config.text_config._attn_implementation == "flex_attention"
    assert model.config.audio_config._attn_implementation == "sdpa"
    model = LongVALEForConditionalGeneration(tiny_towers(attn_implementation="eager"))
    assert model.config.audio_config._attn_implementation == "eager"


def test_parts_that_stay_on_one_device_are_known():
    model = LongVALEForConditionalGeneration(tiny_towers())
    assert {"LlamaDecoderLayer", "BeatsLayer", "CLIPEncoderLayer", "WhisperEncoderLayer"} <= model._no_split_modules
    for part in (model, model.model):  # FSDP refuses a name that it does not find
        assert all(get_module_class_from_name(model, name) for name in part._no_split_modules)


def test_the_head_is_sharded_like_that_of_a_language_model():
    assert LongVALEForConditionalGeneration._tp_plan == LlamaForCausalLM._tp_plan


@pytest.mark.slow
@torch.no_grad()
def test_the_whole_forward_compiles():
    model, inputs = small_model(time_embedding="fourier"), small_inputs()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_close(compiled(**inputs, use_cache=False).logits, model(**inputs, use_cache=False).logits)
    with pytest.raises(RuntimeError, match="a row has different numbers of video placeholders and features"):
        compiled(**inputs | {"input_ids": inputs["input_ids"].flip(1).clamp(max=7)}, use_cache=False)


# Saving


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_saving_and_loading(tmp_path, tied):
    config = tiny_towers(video_token_id=VIDEO)
    config.text_config.tie_word_embeddings = config.tie_word_embeddings = tied
    model = LongVALEForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    loaded, info = LongVALEForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tied
    for (name, value), (_, other) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert torch.equal(value, other), name
    inputs = {
        "input_ids": torch.tensor([[1, VIDEO, VIDEO, VIDEO, 3]]),
        "pixel_values_videos": torch.randn(1, 2, 3, 16, 16),
        "input_values": torch.randn(1, 1, 32, 128),
    }
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    base, info = LongVALEModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert torch.equal(base(**inputs).last_hidden_state, model.model(**inputs).last_hidden_state)


@torch.no_grad()
def test_a_model_without_towers_is_saved_and_generates_by_its_auto_class(tmp_path):
    model, inputs = small_model(), small_inputs()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert type(loaded) is LongVALEForConditionalGeneration
    assert loaded.model.visual_tower is loaded.model.audio_tower is loaded.model.speech_tower is None
    assert torch.equal(generate(loaded, inputs), generate(model, inputs))
    assert loaded.generation_config.suppress_tokens == [VIDEO]


def test_it_is_loaded_in_the_precision_asked_for(tmp_path):
    small_model().save_pretrained(tmp_path)
    loaded = LongVALEForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


# Adapters


@pytest.mark.parametrize(
    ("config", "trained"),
    [
        (LoraConfig(task_type="CAUSAL_LM"), r"\.language_model\..*lora_"),
        (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), "prompt_encoder"),
        (PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, encoder_hidden_size=8), "prompt_encoder"),
        (PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), "prompt_encoder"),
    ],
    ids=["LoRA", "prompt tuning", "p-tuning", "prefix tuning"],
)
def test_adapters_without_targets_train_the_language_model(config, trained):
    """Prompt tuning embeds the prompt itself, placeholders included."""
    import longvale  # noqa: F401  gives peft the targets of a LoRA

    model = get_peft_model(LongVALEForConditionalGeneration(tiny_towers(video_token_id=VIDEO)), config).train()
    model(**raw_inputs()).loss.backward()
    found = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert found and all(re.search(trained, name) for name in found)
    inputs = {name: value for name, value in raw_inputs().items() if name != "labels"}
    assert model.eval().generate(**inputs, max_new_tokens=3, min_new_tokens=3).shape[0] == 1


# Ways of loading and decoding


@pytest.mark.parametrize("kind", ["same class", "prompt lookup"])
def test_assisted_decoding_gives_the_same(kind):
    """Drafts of a smaller model of the same kind, or looked up in the prompt; the video goes to both."""
    model, inputs = small_model(), small_inputs()
    expected = generate(model, inputs)
    draft = {"assistant_model": small_model()} if kind == "same class" else {"prompt_lookup_num_tokens": 3}
    if kind == "same class":
        with torch.no_grad():
            for parameter in draft["assistant_model"].model.language_model.layers[1].parameters():
                parameter.mul_(1.1)  # it is wrong sometimes
    assert torch.equal(generate(model, inputs, **draft), expected)


def test_a_draft_of_raw_video(pictures):
    config = tiny_towers(video_token_id=VIDEO, initializer_range=0.3)
    model, draft = (LongVALEForConditionalGeneration(copy.deepcopy(config)).eval() for _ in range(2))
    inputs = {
        "input_ids": torch.tensor([[1, VIDEO, VIDEO, VIDEO, 3]]),
        "attention_mask": torch.ones(1, 5, dtype=torch.long),
        "pixel_values_videos": torch.randn(1, 2, 3, 16, 16),
        "input_values": torch.randn(1, 1, 32, 128),
    }
    assert torch.equal(generate(model, inputs, assistant_model=draft), generate(model, inputs))


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.3},
        {"encoder_repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2},
        {"encoder_no_repeat_ngram_size": 2},
        {"bad_words_ids": [[3]]},
        {"guidance_scale": 1.5},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_look_at_the_prompt_know_the_placeholder(options):
    """It lies outside of the vocabulary; only what follows the prompt is generated."""
    output = generate(small_model(), small_inputs(), **options)
    assert output.shape == (1, 12) and (output < VIDEO).all()


def test_candidates_from_the_prompt_are_no_placeholders():
    model, inputs = small_model(), small_inputs()
    # The prompt ends as it begins, so the placeholders are what follows.
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[1, 5]])], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for placeholder in (VIDEO, 29):
        model.config.video_token_id = placeholder
        inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == VIDEO, placeholder)
        assert torch.equal(generate(model, inputs, prompt_lookup_num_tokens=4), generate(model, inputs))


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"generation_config": GenerationConfig()}])
@torch.no_grad()
def test_a_placeholder_of_the_vocabulary_is_never_generated(options):
    model, inputs = small_model(), small_inputs()
    expected = model(**inputs).logits[0, -1].argmax().item()
    model.config.video_token_id = expected  # would be the first word
    inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == VIDEO, expected)
    assert model(**inputs).logits[0, -1].argmax().item() == expected
    output = model.generate(**inputs, **{"max_new_tokens": 12} | options)
    assert expected not in output[0, inputs["input_ids"].shape[1] :].tolist()


def test_generation_stops_at_a_string(model, processor, features):
    inputs = processor(text=QUESTIONS[0], **row_of(features, 0))
    answer = processor.decode(generate(model, inputs)[0])
    stop = answer.split()[1]
    options = {"max_new_tokens": 12, "min_new_tokens": 0, "do_sample": False, "tokenizer": processor.tokenizer}
    output = model.generate(**inputs, stop_strings=[stop], **options)[:, inputs["input_ids"].shape[1] :]
    assert processor.decode(output[0]).rstrip().endswith(stop) and output.shape[1] < 12


def test_token_healing_keeps_the_video(model, processor, features):
    """The last token is replaced by one that begins with it; the base class would remove the placeholders."""
    prompts = [f"{QUESTIONS[0]} A", f"{QUESTIONS[1]} The b", "USER: Hello ASSISTANT: The re"]
    inputs = processor(text=prompts, **{name: [*rows, None] for name, rows in features.items()})
    ids, options = inputs["input_ids"], {"tokenizer": processor.tokenizer, "max_new_tokens": 3, "do_sample": False}
    output = model.generate(**inputs, token_healing=True, **options)
    assert torch.equal(output[:, : ids.shape[1] - 1], ids[:, :-1])
    before, after = (
        processor.tokenizer.convert_ids_to_tokens(row[:, ids.shape[1] - 1].tolist()) for row in (ids, output)
    )
    assert all(new.startswith(old) for old, new in zip(before, after, strict=True)) and before != after
    healed = inputs | {"input_ids": output[:, : ids.shape[1]]}
    assert torch.equal(model.generate(**healed, **options), output)
    with pytest.raises(ValueError, match="token_healing needs the vocabulary: give generate the argument tokenizer"):
        model.generate(**inputs, token_healing=True)


@torch.no_grad()
def test_padding_on_either_side(model, processor, features):
    """Training pads on the right, generation on the left."""
    logits = {}
    for side in ("left", "right"):
        inputs = processor(text=QUESTIONS, **features, padding_side=side)
        mask = inputs["attention_mask"].bool()
        assert not mask.all() and inputs["input_ids"].shape == mask.shape
        logits[side] = [row[kept] for row, kept in zip(model(**inputs).logits, mask, strict=True)]
    for left, right in zip(logits["left"], logits["right"], strict=True):
        assert_close(left, right, **CLOSE)


@pytest.mark.slow
@torch.no_grad()
def test_decoding_compiles_once_for_all_lengths():
    """No break in the graph of a decoding step, and no new graph for each step: lengths are symbols."""
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    model, inputs, counter = small_model(), small_inputs(), CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    expected = generate(model, inputs, 8)[0].tolist()
    outputs = model(**inputs, use_cache=True)
    length, found, graphs = inputs["input_ids"].shape[1], [], []
    for step in range(8):
        token = outputs.logits[:, -1:].argmax(-1)
        found.append(token.item())
        mask = torch.ones(1, length + step + 1, dtype=torch.long)
        outputs = compiled(input_ids=token, attention_mask=mask, cache=outputs.cache)
        graphs.append(counter.frame_count)
    assert found == expected
    assert graphs[-1] <= 2 and graphs[-1] == graphs[3]
    for count in (2, 5, 9):  # prompts and videos of any length, one graph
        more = small_inputs(visual=count, audio=count + 1, speech=count + 2)
        assert_close(compiled(**more, use_cache=False).logits, model(**more, use_cache=False).logits)
    assert counter.frame_count <= graphs[-1] + 2
    torch._dynamo.reset()


@torch.no_grad()
def test_device_map_auto(tmp_path, model, processor, pictures, sound):
    """Parts are placed one by one; here all of them fit on the CPU."""
    model.save_pretrained(tmp_path)
    inputs = processor(text=QUESTIONS[0], videos=pictures(4), audio=sound(3))
    loaded = LongVALEForConditionalGeneration.from_pretrained(tmp_path, device_map="auto", dtype="auto")
    assert_close(loaded(**inputs.to(loaded.device)).logits.cpu(), model(**inputs).logits, **CLOSE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_quantised_weights(tmp_path, model, processor, features, bits):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    model.save_pretrained(tmp_path)
    quantised = LongVALEForConditionalGeneration.from_pretrained(
        tmp_path, quantization_config=BitsAndBytesConfig(**{f"load_in_{bits}bit": True}), device_map="auto"
    )
    inputs = processor(text=QUESTIONS, **features)
    expected, found = model(**inputs).logits, quantised(**inputs.to("cuda")).logits.float().cpu()
    kept = inputs["attention_mask"].bool().cpu()
    assert torch.corrcoef(torch.stack([found[kept].flatten(), expected[kept].flatten()]))[0, 1] > 0.9
