"""The mixins of transformers for models, on BEATs."""

import unittest

import torch
from transformers.models.auto import modeling_auto

import longvale  # noqa: F401  registers the Auto classes
from longvale.models.configuration_beats import BeatsConfig
from longvale.models.modeling_beats import BeatsForAudioClassification, BeatsModel

from ...test_configuration_common import ConfigTester
from ...test_modeling_common import ModelTesterMixin, floats_tensor

modeling_auto.MODEL_MAPPING_NAMES["beats"] = "BeatsModel"


class Tester:
    """Windows of 64 frames and 32 mel bins: eight patches."""

    is_training = True
    batch_size, seq_length, encoder_seq_length, num_labels = 3, 8, 8, 3
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4

    def __init__(self, parent):
        self.parent = parent

    def prepare_config_and_inputs_for_common(self):
        config = BeatsConfig(
            hidden_size=32,
            intermediate_size=37,
            num_hidden_layers=2,
            num_attention_heads=4,
            embed_dim=16,
            num_mel_bins=32,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            num_buckets=16,
            max_bucket_distance=32,
            num_labels=self.num_labels,
        )
        return config, {
            "input_values": floats_tensor([self.batch_size, 64, 32]),
            "padding_mask": torch.zeros(self.batch_size, 64, dtype=torch.bool),
        }


class BeatsTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (BeatsModel, BeatsForAudioClassification)
    pipeline_model_mapping = {}  # noqa: RUF012
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = Tester(self)
        self.config_tester = ConfigTester(self, config_class=BeatsConfig, has_text_modality=False)

    def test_config(self):
        self.config_tester.run_common_tests()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels and model_class is BeatsForAudioClassification:
            inputs["labels"] = torch.zeros(Tester.batch_size, Tester.num_labels)
        return inputs
