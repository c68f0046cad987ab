"""Towers as embedders, with tiny untrained models of the real classes."""

import numpy as np
import pytest
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
)

from longvale.annotation.boundaries.embedders import (
    CheckpointFrameEmbedder,
    TransformersAudioEmbedder,
    TransformersFrameEmbedder,
)

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def frames():
    """uint8 [20, 32, 32, 3]: 18 of noise, then one of them twice more."""
    noise = np.random.default_rng(0).integers(0, 256, (18, 32, 32, 3), dtype=np.uint8)
    return np.concatenate([noise, noise[:1], noise[:1]])


def save_clip(folder):
    vision = {**SMALL, "image_size": 32, "patch_size": 16}
    text = {**SMALL, "vocab_size": 10, "eos_token_id": 1, "bos_token_id": 0}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    return 8


def save_dino(folder):
    Dinov2Model(Dinov2Config(**SMALL, image_size=32, patch_size=16)).save_pretrained(folder)
    return 16


@pytest.mark.parametrize("save", [save_clip, save_dino])
def test_pictures(tmp_path, frames, save):
    width = save(tmp_path)
    size = {"shortest_edge": 32}
    CLIPImageProcessor(size=size, crop_size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    check_points(TransformersFrameEmbedder(str(tmp_path))(frames), width)


def test_pictures_of_a_checkpoint(tiny_model, frames):
    check_points(CheckpointFrameEmbedder(str(tiny_model))(frames), 64)


def test_sounds(tmp_path):
    text = {**SMALL, "vocab_size": 10, "max_position_embeddings": 20}
    sound = {"patch_embeds_hidden_size": 8, "hidden_size": 32, "depths": [1, 1, 1], "num_attention_heads": [1, 1, 2]}
    config = ClapConfig(text_config=text, audio_config={**sound, "num_hidden_layers": 3}, projection_dim=12)
    ClapModel(config).save_pretrained(tmp_path)
    ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(tmp_path)
    noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    points = TransformersAudioEmbedder(str(tmp_path))([noise, noise[:100], noise])
    assert points.shape == (3, 12)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(points[0], points[2], atol=1e-6)
    assert np.abs(points[0] - points[1]).max() > 1e-4


def check_points(points, width):
    assert points.shape == (20, width)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(points[18], points[0], atol=1e-5)
    assert np.abs(points[1] - points[0]).max() > 1e-4


def test_what_is_no_tower(tmp_path):
    with pytest.raises(ValueError, match="cannot be loaded as a tower"):
        TransformersFrameEmbedder(str(tmp_path))
