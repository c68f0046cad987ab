"""The mixins of transformers for models, on a model with towers (raw media) and on one without (stored features)."""

import unittest

import torch
from transformers import CLIPVisionConfig, LlamaConfig, WhisperConfig
from transformers.models.auto import modeling_auto

import longvale  # noqa: F401  registers the Auto classes
from longvale.models.configuration_beats import BeatsConfig
from longvale.models.configuration_longvale import LongVALEConfig
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration, LongVALEModel

from ...test_configuration_common import ConfigTester
from ...test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor

# The mixins look classes up by their names, as those of the library.
modeling_auto.MODEL_MAPPING_NAMES["longvale"] = "LongVALEModel"
modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES["longvale"] = "LongVALEForConditionalGeneration"

#: A small id: tests of resizing cut the end of the vocabulary off.
PLACE = 5
ATTENTION = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**ATTENTION, "vocab_size": 99, "num_key_value_heads": 2, "max_position_embeddings": 512}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BEATS = {
    **ATTENTION,
    "embed_dim": 16,
    "num_mel_bins": 32,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_buckets": 16,
    "max_bucket_distance": 32,
}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16,
    "num_mel_bins": 8,
    "max_source_positions": 20,
    "vocab_size": 32,
    "decoder_start_token_id": 1,
    **TOKENS,
}


class StoredTester:
    """Two frames, two sound windows and two speech windows as features."""

    is_training = True
    batch_size, seq_length = 7, 13  # the tests of attention fill up to seven rows by ids without the placeholder
    vocab_size, hidden_size, num_hidden_layers, num_attention_heads = 99, 32, 2, 4
    image_size, patch_size = 16, 8
    audio_config = video_config = {"num_hidden_layers": 2}  # noqa: RUF012
    sizes = {"visual_feature_size": 12, "audio_feature_size": 14, "speech_feature_size": 16}  # noqa: RUF012
    towers: dict = {}  # noqa: RUF012

    def __init__(self, parent):
        self.parent = parent

    def get_config(self):
        text = LlamaConfig(**TEXT, **TOKENS)
        return LongVALEConfig(text_config=text, video_token_id=PLACE, pad_token_id=0, **self.sizes, **self.towers)

    def media(self):
        widths = {"visual": 12, "audio": 14, "speech": 16}
        return {f"{name}_features": floats_tensor([self.batch_size, 2, width]) for name, width in widths.items()}

    def prepare_config_and_inputs_for_common(self):
        ids = ids_tensor([self.batch_size, self.seq_length], self.vocab_size - 20) + 10
        ids[:, 1:7] = PLACE
        return self.get_config(), {"input_ids": ids, "attention_mask": torch.ones_like(ids), **self.media()}


class RawTester(StoredTester):
    """Two frames, two sound windows, and a chunk of 20 speech states, ten to a window, as inputs of the towers."""

    sizes = {"audio_window_frames": 32, "speech_window_states": 10}  # noqa: RUF012
    towers = {  # noqa: RUF012
        "vision_config": CLIPVisionConfig(**ATTENTION, image_size=16, patch_size=8, projection_dim=24),
        "audio_config": BeatsConfig(**BEATS),
        "speech_config": WhisperConfig(**WHISPER),
    }

    def media(self):
        rows = self.batch_size
        return {
            "pixel_values_videos": floats_tensor([rows, 2, 3, 16, 16]),
            "input_values": floats_tensor([rows, 2, 32, 32]),
            "input_values_mask": torch.ones(rows, 2, 32, dtype=torch.long),
            "input_features": floats_tensor([rows, 1, 8, 40]),
            "input_features_mask": torch.ones(rows, 1, 40, dtype=torch.long),
        }


class _Common(ModelTesterMixin):
    all_model_classes = (LongVALEModel, LongVALEForConditionalGeneration)
    pipeline_model_mapping = {}  # noqa: RUF012
    _is_composite = True
    additional_model_inputs = [  # noqa: RUF012
        *("visual_features", "audio_features", "speech_features"),
        *("pixel_values_videos", "input_values", "input_values_mask", "input_features", "input_features_mask"),
    ]

    def setUp(self):
        self.model_tester = self.model_tester_class(self)
        self.config_tester = ConfigTester(self, config_class=LongVALEConfig, has_text_modality=False)

    def test_config(self):
        self.config_tester.run_common_tests()


class RawTest(_Common, unittest.TestCase):
    model_tester_class = RawTester
    test_all_params_have_gradient = False  # towers are frozen


class StoredTest(_Common, unittest.TestCase):
    model_tester_class = StoredTester
