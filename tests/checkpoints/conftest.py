"""Tiny towers as they are stored elsewhere."""

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from longvale.models.configuration_beats import BeatsConfig
from longvale.models.modeling_beats import BeatsModel

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="session")
def write_towers(tmp_path_factory):
    """write_towers(visual=12, audio=10, speech=14) -> folder of each tower by its published name."""

    def write(visual, audio, speech):
        folder = tmp_path_factory.mktemp("towers")
        torch.manual_seed(3)
        text = {**SMALL, "vocab_size": 20, "bos_token_id": 1, "eos_token_id": 2}
        vision = {**SMALL, "image_size": 16, "patch_size": 8, "projection_dim": visual}
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=visual)).save_pretrained(
            folder / "clip"
        )
        size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
        CLIPImageProcessor(**size).save_pretrained(folder / "clip")
        beats = BeatsConfig(
            **{**SMALL, "hidden_size": audio}, embed_dim=8, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2
        )
        BeatsModel(beats).save_pretrained(folder / "beats")
        whisper = WhisperConfig(
            d_model=speech,
            encoder_layers=1,
            encoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_layers=1,
            decoder_attention_heads=2,
            decoder_ffn_dim=16,
            vocab_size=20,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            num_mel_bins=40,
        )
        WhisperForConditionalGeneration(whisper).save_pretrained(folder / "whisper")
        WhisperFeatureExtractor(feature_size=40).save_pretrained(folder / "whisper")
        return {name: folder / name for name in ("clip", "beats", "whisper")}

    return write
