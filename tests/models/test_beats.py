import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import pipeline

from longvale.models.configuration_beats import BeatsConfig
from longvale.models.feature_extraction_beats import BeatsFeatureExtractor
from longvale.models.layers import pool_windows, reduce_padding_mask
from longvale.models.modeling_beats import (
    BeatsForAudioClassification,
    BeatsModel,
    BeatsPositionalConvEmbedding,
    BeatsRelativePositionBias,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "beats"
CHECKPOINT = FIXTURES / "beats_tiny.pt"
REFERENCE = json.loads((FIXTURES / "reference.json").read_text())

CFG = {
    "input_patch_size": 16,
    "embed_dim": 12,
    "encoder_layers": 2,
    "encoder_embed_dim": 24,
    "encoder_ffn_embed_dim": 40,
    "encoder_attention_heads": 3,
    "activation_fn": "gelu",
    "conv_pos": 8,
    "conv_pos_groups": 4,
    "deep_norm": True,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "num_buckets": 20,
    "max_distance": 30,
}
VARIANTS = {
    "released": {},
    "layer norm first": {"deep_norm": False, "layer_norm_first": True},
    "plain residuals": {"deep_norm": False},
    "no gate": {"gru_rel_pos": False},
    "no bias": {"relative_position_embedding": False, "gru_rel_pos": False},
    "odd taps": {"conv_pos": 7},
    "conv bias": {"conv_bias": True},
    "equal widths": {"embed_dim": 24},
    "head": {"finetuned_model": True, "predictor_class": 5},
}


def reference_waveform(seconds: str) -> np.ndarray:
    """The made-up sound that the published code was run on."""
    n, rng = REFERENCE[seconds]["samples"], np.random.RandomState(REFERENCE[seconds]["seed"])
    t = np.arange(n) / 16000
    left = 0.3 * np.sin(2 * np.pi * 440 * t) * (0.5 + 0.5 * np.sin(2 * np.pi * 0.7 * t))
    left += 0.2 * np.sin(2 * np.pi * (200 + 20 * t) * t) + 0.05 * rng.randn(n)
    left[n // 3 : n // 3 + n // 10] = 0
    right = 0.6 * left + 0.02 * rng.randn(n)
    return ((left + right) / 2).astype(np.float32)


def original_checkpoint(**changes) -> dict:
    """A random checkpoint in the published layout."""
    cfg = CFG | changes
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return 0.3 * torch.randn(*shape, generator=generator)

    width, ffn, embed = cfg["encoder_embed_dim"], cfg["encoder_ffn_embed_dim"], cfg["embed_dim"]
    heads, taps = cfg["encoder_attention_heads"], cfg["conv_pos"]
    state = {"patch_embedding.weight": random(embed, 1, 16, 16) / 8}
    if cfg.get("conv_bias"):
        state["patch_embedding.bias"] = random(embed)
    if embed != width:
        state |= {"post_extract_proj.weight": random(width, embed), "post_extract_proj.bias": random(width)}
    state |= {
        "encoder.pos_conv.0.bias": random(width),
        "encoder.pos_conv.0.weight_g": random(1, 1, taps),
        "encoder.pos_conv.0.weight_v": random(width, width // cfg["conv_pos_groups"], taps),
    }
    norms = {"layer_norm": embed, "encoder.layer_norm": width}
    table = random(cfg["num_buckets"], heads)
    for i in range(cfg["encoder_layers"]):
        layer = f"encoder.layers.{i}."
        linears = {f"self_attn.{name}_proj": (width, width) for name in "qkv"} | {"self_attn.out_proj": (width, width)}
        linears |= {"fc1": (ffn, width), "fc2": (width, ffn)}
        if cfg["gru_rel_pos"]:
            linears["self_attn.grep_linear"] = (8, width // heads)
            state[layer + "self_attn.grep_a"] = 1 + random(1, heads, 1, 1)
        if cfg["relative_position_embedding"]:
            state[layer + "self_attn.relative_attention_bias.weight"] = table
        for name, shape in linears.items():
            state |= {f"{layer}{name}.weight": random(*shape), f"{layer}{name}.bias": random(shape[0])}
        norms |= {layer + "self_attn_layer_norm": width, layer + "final_layer_norm": width}
    for name, size in norms.items():
        state |= {f"{name}.weight": 1 + random(size), f"{name}.bias": random(size)}
    if cfg.get("finetuned_model"):
        state |= {
            "predictor.weight": random(cfg["predictor_class"], width),
            "predictor.bias": random(cfg["predictor_class"]),
        }
    return {"cfg": cfg, "model": state}


def plain_bucket(relative: int, num_buckets: int, max_distance: int) -> int:
    half = num_buckets // 2
    exact, distance = half // 2, abs(relative)
    near = distance
    if distance >= exact:
        near = exact + int(math.log(distance / exact) / math.log(max_distance / exact) * (half - exact))
    return (half if relative > 0 else 0) + min(half - 1, near)


def plain_beats(checkpoint: dict, x: torch.Tensor, padded: torch.Tensor | None = None) -> torch.Tensor:
    """BEATs written out from its description, a window at a time: [T, 128] -> [L, D]; `padded` is bool [L]."""
    cfg, state = checkpoint["cfg"], checkpoint["model"]
    f, norm_first = nn.functional, cfg.get("layer_norm_first", False)

    def linear(name, x):
        return f.linear(x, state[name + ".weight"], state[name + ".bias"])

    def norm(name, x):
        return f.layer_norm(x, x.shape[-1:], state[name + ".weight"], state[name + ".bias"], 1e-5)

    columns = [
        [
            (x[16 * t : 16 * t + 16, 16 * b : 16 * b + 16] * state["patch_embedding.weight"][:, 0]).sum((1, 2))
            for b in range(8)
        ]
        for t in range(len(x) // 16)
    ]
    x = torch.stack([patch for column in columns for patch in column]) + state.get("patch_embedding.bias", 0.0)
    x = norm("layer_norm", x)
    if "post_extract_proj.weight" in state:
        x = linear("post_extract_proj", x)
    length, width = x.shape
    padded = torch.zeros(length, dtype=torch.bool) if padded is None else padded
    x = torch.where(padded[:, None], 0.0, x)

    v, taps = state["encoder.pos_conv.0.weight_v"], cfg["conv_pos"]
    kernel = torch.stack(
        [state["encoder.pos_conv.0.weight_g"][0, 0, k] * v[..., k] / v[..., k].norm() for k in range(taps)], -1
    )
    conv = f.conv1d(
        x.T[None], kernel, state["encoder.pos_conv.0.bias"], padding=taps // 2, groups=cfg["conv_pos_groups"]
    )
    x = x + f.gelu(conv[0].T[:length])
    x = x if norm_first else norm("encoder.layer_norm", x)

    heads, depth = cfg["encoder_attention_heads"], cfg["encoder_layers"]
    alpha = (2 * depth) ** 0.25 if cfg["deep_norm"] else 1.0
    buckets = torch.tensor(
        [[plain_bucket(j - i, cfg["num_buckets"], cfg["max_distance"]) for j in range(length)] for i in range(length)]
    )
    for i in range(depth):
        layer = f"encoder.layers.{i}."

        def attend(x, layer=layer):
            q, k, v = (linear(f"{layer}self_attn.{name}_proj", x).view(length, heads, -1) for name in "qkv")
            outputs = []
            for h in range(heads):
                scores = q[:, h] @ k[:, h].T / math.sqrt(width // heads)
                if cfg["relative_position_embedding"]:
                    bias = state[layer + "self_attn.relative_attention_bias.weight"][buckets, h]
                    if cfg["gru_rel_pos"]:
                        s, t = torch.sigmoid(
                            linear(layer + "self_attn.grep_linear", q[:, h]).view(length, 2, 4).sum(-1)
                        ).T
                        gate = s * (t * state[layer + "self_attn.grep_a"][0, h, 0, 0] - 1) + 2
                        bias = gate[:, None] * bias
                    scores = scores + bias
                outputs.append(scores.masked_fill(padded, -torch.inf).softmax(-1) @ v[:, h])
            return linear(layer + "self_attn.out_proj", torch.cat(outputs, -1))

        def feed(x, layer=layer):
            return linear(layer + "fc2", f.gelu(linear(layer + "fc1", x)))

        attention_norm, final_norm = layer + "self_attn_layer_norm", layer + "final_layer_norm"
        if norm_first:
            x = x + attend(norm(attention_norm, x))
            x = x + feed(norm(final_norm, x))
        else:
            x = norm(attention_norm, alpha * x + attend(x))
            x = norm(final_norm, alpha * x + feed(x))
    return norm("encoder.layer_norm", x) if norm_first else x


@pytest.fixture(scope="module")
def tiny() -> BeatsModel:
    return BeatsModel.from_original(CHECKPOINT)


@pytest.fixture
def save(tmp_path):
    def save(checkpoint, name="beats.pt"):
        torch.save(checkpoint, tmp_path / name)
        return tmp_path / name

    return save


# The published code's numbers


@torch.no_grad()
@pytest.mark.parametrize("seconds", [key for key, value in REFERENCE.items() if value["fbank_shape"]])
def test_features_are_those_of_the_published_code(tiny, seconds):
    batch = BeatsFeatureExtractor(preprocessing="official")(reference_waveform(seconds))
    features = pool_windows(tiny(batch["input_values"][0]).last_hidden_state).numpy()
    expected = np.load(FIXTURES / "features.npz")[f"features_{seconds}"]
    # 2e-6 here; filterbanks differ a little between processors (see the feature extractor's tests).
    np.testing.assert_allclose(features, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_tokens_are_those_of_the_published_code(tiny):
    batch = BeatsFeatureExtractor(preprocessing="official")(reference_waveform("5.12"))
    tokens = tiny(batch["input_values"][0]).last_hidden_state.numpy()
    error = np.abs(tokens - np.load(FIXTURES / "features.npz")["tokens_5.12"])
    assert error.max() < 2e-4 and np.quantile(error, 0.98) < 5e-6


# Against the description


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_computes_what_is_described(save, variant):
    checkpoint = original_checkpoint(**VARIANTS[variant])
    model = BeatsModel.from_original(save(checkpoint))
    x = torch.randn(2, 70, 128, generator=torch.Generator().manual_seed(1))  # 6 frames vanish
    padding = torch.zeros(2, 70, dtype=torch.bool)
    padding[1, 40:] = True  # ends inside a patch: its upper bands are masked
    padded = torch.tensor([[False] * 32, [False] * 20 + [True] * 12])
    expected = plain_beats(checkpoint, x[0]), plain_beats(checkpoint, x[1]), plain_beats(checkpoint, x[1], padded[1])
    for attention in ("sdpa", "eager"):
        model.set_attn_implementation(attention)
        for hidden, row in (
            (model(x).last_hidden_state, 1),
            (model(x, padding).last_hidden_state, 2),
        ):
            assert hidden.shape == (2, 32, 24)
            torch.testing.assert_close(hidden[0], expected[0], atol=2e-5, rtol=0)
            torch.testing.assert_close(hidden[1], expected[row], atol=2e-5, rtol=0)


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(320, 800), (20, 30), (4, 10)])
def test_buckets_of_all_distances(num_buckets, max_distance):
    config = BeatsConfig(num_buckets=num_buckets, max_bucket_distance=max_distance)
    positions = torch.arange(-1000, 1001)
    expected = [plain_bucket(position, num_buckets, max_distance) for position in positions.tolist()]
    assert BeatsRelativePositionBias(config).bucket(positions).tolist() == expected


@pytest.mark.parametrize("taps", [128, 7])
def test_position_convolution_is_torchs_weight_norm(taps):
    config = BeatsConfig(hidden_size=32, num_attention_heads=4, num_conv_pos_embeddings=taps)
    ours = BeatsPositionalConvEmbedding(config)
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    theirs = nn.utils.parametrizations.weight_norm(nn.Conv1d(32, 32, taps, padding=taps // 2, groups=16), dim=2)
    theirs.load_state_dict(
        {
            "bias": ours.bias,
            "parametrizations.weight.original0": ours.magnitude,
            "parametrizations.weight.original1": ours.direction,
        }
    )
    x = torch.randn(2, 40, 32)
    expected = nn.functional.gelu(theirs(x.transpose(1, 2))[:, :, :40]).transpose(1, 2)
    torch.testing.assert_close(ours(x), expected)


@torch.no_grad()
def test_fine_tuned_head_gives_probabilities(save):
    checkpoint = original_checkpoint(finetuned_model=True, predictor_class=5)
    checkpoint["label_dict"] = {i: f"/m/{i}" for i in range(5)}
    model = BeatsForAudioClassification.from_original(save(checkpoint))
    assert model.config.id2label[3] == "/m/3" and model.config.label2id["/m/3"] == 3
    x, padding = torch.randn(2, 64, 128), torch.zeros(2, 64, dtype=torch.bool)
    padding[1, 32:] = True
    state = checkpoint["model"]
    for row, patches in enumerate((32, 16)):
        padded = torch.arange(32) >= patches
        hidden = plain_beats(checkpoint, x[row], padded)[:patches]
        expected = nn.functional.linear(hidden, state["predictor.weight"], state["predictor.bias"]).mean(0)
        torch.testing.assert_close(model(x, padding).logits[row], expected, atol=2e-5, rtol=0)
    labels = torch.eye(5)[:2]
    loss = model(x, padding, labels=labels).loss
    torch.testing.assert_close(loss, nn.functional.binary_cross_entropy(model(x, padding).logits.sigmoid(), labels))


@torch.no_grad()
def test_the_head_takes_the_windows_of_the_extractor(save):
    """The logits of a sound are the mean over its patches, whichever window they are in."""
    checkpoint = original_checkpoint(finetuned_model=True, predictor_class=5)
    checkpoint["label_dict"] = {i: f"/m/{i}" for i in range(5)}
    model, extractor = (
        BeatsForAudioClassification.from_original(save(checkpoint)),
        BeatsFeatureExtractor(window_frames=64),
    )
    rng = np.random.default_rng(0)
    sounds = [rng.normal(0, 0.1, samples).astype(np.float32) for samples in (16000, 4000)]
    batch = extractor(sounds)
    assert batch["input_values"].shape == (2, 2, 64, 128)
    logits = model(**batch).logits
    for row, sound in enumerate(sounds):
        single = extractor(sound)
        torch.testing.assert_close(logits[row], model(**single).logits[0], atol=1e-5, rtol=0)
        patches, counts = [], []
        for window, padded in zip(single["input_values"][0], single["padding_mask"][0], strict=True):
            patches.append(model(window[None], padded[None]).logits[0])
            counts.append((~padded).sum())
        expected = sum(n * patch for n, patch in zip(counts, patches, strict=True)) / sum(counts)
        torch.testing.assert_close(logits[row], expected, atol=1e-5, rtol=0)
    assert model(**batch, labels=torch.eye(5)[:2]).loss.isfinite()


def test_the_pipeline_names_sounds(save):
    checkpoint = original_checkpoint(finetuned_model=True, predictor_class=5)
    checkpoint["label_dict"] = {i: f"/m/{i}" for i in range(5)}
    model, extractor = BeatsForAudioClassification.from_original(save(checkpoint)), BeatsFeatureExtractor()
    classify = pipeline("audio-classification", model=model, feature_extractor=extractor, device="cpu")
    sound = np.random.default_rng(0).normal(0, 0.1, 100_000).astype(np.float32)
    found = {item["label"]: item["score"] for item in classify(sound, top_k=5)}
    with torch.no_grad():
        expected = model(**extractor(sound)).logits[0].sigmoid()
    assert found == pytest.approx({f"/m/{i}": score.item() for i, score in enumerate(expected)}, abs=1e-5)


# Masks and pooling


@torch.no_grad()
def test_a_padded_window_is_the_window_alone(tiny):
    x, padding = torch.randn(3, 128, 128), torch.zeros(3, 128, dtype=torch.bool)
    padding[1, 48:] = True
    padding[2] = True
    hidden = tiny(x, padding).last_hidden_state
    torch.testing.assert_close(hidden[1, :24], tiny(x[1:2, :48]).last_hidden_state[0], atol=2e-6, rtol=0)
    assert hidden.isfinite().all(), "a window of padding alone must not give NaN"
    pooled = pool_windows(hidden, padding)
    torch.testing.assert_close(pooled[0], hidden[0].mean(0))
    torch.testing.assert_close(pooled[1], hidden[1, :24].mean(0))
    assert (pooled[2] == 0).all()


@torch.no_grad()
def test_the_mask_may_count_samples(tiny):
    samples = torch.zeros(1, 20480, dtype=torch.bool)
    samples[:, 32 * 160 :] = True
    x, frames = torch.randn(1, 128, 128), torch.arange(128)[None] >= 32
    assert torch.equal(tiny(x, samples).last_hidden_state, tiny(x, frames).last_hidden_state)


def test_reduced_masks_drop_the_rest_and_need_all():
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0, 1]], dtype=torch.bool)
    assert reduce_padding_mask(mask, 3).tolist() == [[False, False, True], [True, True, False]]
    with pytest.raises(ValueError, match="7 entries a row for 8 positions"):
        reduce_padding_mask(mask, 8)


@pytest.mark.parametrize(
    ("shape", "mask", "message"),
    [
        ((2, 128), None, r"not \[2, 128\]"),
        ((2, 128, 80), None, r"not \[2, 128, 80\]"),
        ((2, 15, 128), None, "at least 16 frames"),
        ((2, 32, 128), (1, 32), r"padding_mask must be \[2, 32\]"),
        ((2, 32, 128), (2, 16), "16 entries a row"),
    ],
)
def test_wrong_inputs_are_refused(tiny, shape, mask, message):
    with pytest.raises(ValueError, match=message):
        tiny(torch.zeros(shape), None if mask is None else torch.zeros(mask, dtype=torch.bool))


# The published files


def test_both_spellings_of_weight_norm_are_read(save, tiny):
    checkpoint = torch.load(CHECKPOINT, weights_only=True)
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        tensor = checkpoint["model"].pop(f"encoder.pos_conv.0.{old}")
        checkpoint["model"][f"encoder.pos_conv.0.parametrizations.weight.{new}"] = tensor
    model = BeatsModel.from_original(save(checkpoint))
    assert torch.equal(model.position_conv.direction, tiny.position_conv.direction)


def test_half_precision_files_load_as_fp32(save):
    checkpoint = torch.load(CHECKPOINT, weights_only=True)
    checkpoint["model"] = {name: tensor.half() for name, tensor in checkpoint["model"].items()}
    assert {p.dtype for p in BeatsModel.from_original(save(checkpoint)).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["model"].pop("encoder.layers.1.fc1.bias"), "missing in 'model': encoder.layers.1.fc1.bias"),
        (lambda c: c["model"].update(extra=torch.zeros(1)), "unexpected in 'model': extra"),
        (lambda c: c["model"].update({"layer_norm.bias": torch.zeros(7)}), r"layer_norm.bias has shape \[7\].*\[32\]"),
        (lambda c: c["model"].update({"layer_norm.bias": 3}), "layer_norm.bias in 'model' is not a tensor"),
        (
            lambda c: c["model"].update(
                {"encoder.layers.1.self_attn.relative_attention_bias.weight": torch.ones(320, 4)}
            ),
            "layers.1.self_attn.relative_attention_bias.weight differs",
        ),
        (lambda c: c["cfg"].update(encoder_layers=3), "missing in 'model': encoder.layers.2.*and 14 more"),
        (lambda c: c["cfg"].pop("embed_dim"), "cfg: embed_dim missing"),
        (lambda c: c["cfg"].update(encoder_attention_heads=5), "multiple of num_attention_heads"),
        (lambda c: c.pop("cfg"), "field 'cfg'"),
        (lambda c: c.update(model=[]), "field 'model'"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused_by_name(save, change, message):
    checkpoint = torch.load(CHECKPOINT, weights_only=True)
    change(checkpoint)
    path = save(checkpoint)
    with pytest.raises(ValueError, match=message) as error:
        BeatsModel.from_original(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_head_is_needed_for_the_class_that_has_one():
    with pytest.raises(ValueError, match=r"missing in 'model': predictor.bias, predictor.weight"):
        BeatsForAudioClassification.from_original(CHECKPOINT)


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        BeatsModel.from_original(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint\n")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "cut.pt").write_bytes(CHECKPOINT.read_bytes()[:200_000])
    torch.save([1], tmp_path / "list.pt")
    for name in ("text", "empty", "cut", "list"):
        with pytest.raises(ValueError, match=f"{name}.pt: ") as error:
            BeatsModel.from_original(tmp_path / f"{name}.pt")
        assert "\n" not in str(error.value)


class _Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_nothing_in_a_file_is_executed(tmp_path):
    target = str(tmp_path / "executed")
    torch.save({"cfg": _Attack(target), "model": {}}, tmp_path / "attack.pt")
    (tmp_path / "attack.pkl").write_bytes(pickle.dumps(_Attack(target), protocol=2))
    for name in ("attack.pt", "attack.pkl"):
        with pytest.raises(ValueError, match="not a PyTorch checkpoint"):
            BeatsModel.from_original(tmp_path / name)
    assert not os.path.exists(target)


# The ways of transformers


@torch.no_grad()
def test_save_and_load_round_trip(tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    again = BeatsModel.from_pretrained(tmp_path)
    saved_only = ("dtype", "auto_map", "architectures", "_name_or_path")
    before, after = (
        {key: value for key, value in model.config.to_dict().items() if key not in saved_only}
        for model in (tiny, again)
    )
    assert before == after
    x = torch.randn(1, 64, 128)
    assert torch.equal(again(x).last_hidden_state, tiny(x).last_hidden_state)
    half = BeatsModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    error = (half(x).last_hidden_state.float() - tiny(x).last_hidden_state).abs()
    assert error.mean() < 0.05, "bf16 has 8 bits: close, not equal"


def test_loading_with_random_initialisation_of_the_head(tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    model = BeatsForAudioClassification.from_pretrained(tmp_path, num_labels=3)
    assert torch.equal(model.beats.position_conv.magnitude, tiny.position_conv.magnitude)
    assert model(torch.zeros(1, 32, 128)).logits.shape == (1, 3)


def test_hidden_states_and_attentions_are_recorded(tiny):
    tiny.set_attn_implementation("eager")
    try:
        outputs = tiny(torch.randn(2, 32, 128), output_hidden_states=True, output_attentions=True)
    finally:
        tiny.set_attn_implementation("sdpa")
    assert len(outputs.hidden_states) == 3 and torch.equal(outputs.hidden_states[-1], outputs.last_hidden_state)
    assert [weights.shape for weights in outputs.attentions] == [(2, 4, 16, 16)] * 2
    torch.testing.assert_close(outputs.attentions[0].sum(-1), torch.ones(2, 4, 16))


def test_gradients_reach_every_parameter_with_and_without_checkpointing():
    torch.manual_seed(0)
    model = BeatsModel(tiny_config()).train()
    x, padding = torch.randn(2, 48, 128), torch.arange(48)[None].repeat(2, 1) >= torch.tensor([[48], [32]])
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        pool_windows(model(x, padding).last_hidden_state, padding).pow(2).sum().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    # The key bias moves all scores of a query alike: its gradient is zero but for rounding.
    assert all(gradient.abs().max() > 0 for name, gradient in gradients[0].items() if "k_proj.bias" not in name)
    torch.testing.assert_close(gradients[0], gradients[1])


def tiny_config(**changes) -> BeatsConfig:
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "embed_dim": 16,
    }
    return BeatsConfig(**sizes | {"num_conv_pos_embeddings": 16} | changes)


def test_dropped_layers_leave_the_bias_to_the_others():
    model = BeatsModel(tiny_config(layerdrop=0.5)).train()
    torch.manual_seed(0)
    outputs = {model(torch.ones(1, 32, 128)).last_hidden_state.sum().item() for _ in range(20)}
    assert 1 < len(outputs) <= 4, "two layers, each there or not"


def test_initial_weights_follow_deep_norm():
    torch.manual_seed(0)
    model = BeatsModel(BeatsConfig(num_hidden_layers=2))
    layer, gain = model.layers[0], (8 * 2) ** -0.25
    for linear, factor in ((layer.self_attn.q_proj, 1), (layer.self_attn.v_proj, gain), (layer.fc2, gain)):
        expected = factor * math.sqrt(2 / (linear.in_features + linear.out_features))
        assert linear.weight.std().item() == pytest.approx(expected, rel=0.02)
    assert model.position_conv.direction.std().item() == pytest.approx(2 / math.sqrt(128 * 768), rel=0.02)
    torch.testing.assert_close(
        model.position_conv.magnitude, model.position_conv.direction.norm(dim=(0, 1), keepdim=True)
    )
    assert (layer.self_attn.gate_scale == 1).all() and (layer.fc1.bias == 0).all()


def test_released_size():
    with torch.device("meta"):
        model = BeatsModel(BeatsConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 90_311_792


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 30}, "hidden_size .30. must be a multiple of num_attention_heads"),
        ({"patch_size": 12}, "num_mel_bins .128. must be a multiple of patch_size"),
        ({"num_conv_pos_embedding_groups": 5}, "num_conv_pos_embedding_groups"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a positive integer"),
        ({"hidden_act": "glu"}, "hidden_act"),
        ({"layer_norm_first": True}, "exclude each other"),
        ({"num_buckets": 5}, "num_buckets"),
        ({"max_bucket_distance": 80}, "max_bucket_distance"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**change)


def test_labels_must_number_the_classes():
    with pytest.raises(ValueError, match="5 classes"):
        BeatsConfig.from_original(CFG | {"finetuned_model": True, "predictor_class": 5}, {0: "/m/a", 7: "/m/b"})


@pytest.mark.slow
def test_loads_as_remote_code_without_longvale(tiny, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    tiny.save_pretrained(checkpoint)
    BeatsFeatureExtractor(window_frames=128).save_pretrained(checkpoint)
    script = """
import sys
sys.modules["longvale"] = None  # importing it fails
import numpy, torch
from transformers import AutoFeatureExtractor, AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
extractor = AutoFeatureExtractor.from_pretrained(sys.argv[1], trust_remote_code=True)
for part in (model, model.config, extractor):
    assert type(part).__module__.startswith("transformers_modules."), type(part).__module__
batch = extractor(numpy.sin(numpy.arange(20480, dtype=numpy.float32)))
with torch.no_grad():
    print(model(batch["input_values"][0]).last_hidden_state.abs().mean().item())
"""
    env = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", script, str(checkpoint)],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    batch = BeatsFeatureExtractor(window_frames=128)(np.sin(np.arange(20480, dtype=np.float32)))
    with torch.no_grad():
        expected = tiny(batch["input_values"][0]).last_hidden_state.abs().mean().item()
    assert float(run.stdout.splitlines()[-1]) == pytest.approx(expected, abs=1e-6)
