"""The mixin of transformers for feature extractors of sequences, on that of BEATs."""

import unittest

import numpy as np

import longvale  # noqa: F401  registers the Auto classes
from longvale.models.feature_extraction_beats import BeatsFeatureExtractor

from ...test_sequence_feature_extraction_common import SequenceFeatureExtractionTestMixin


class Tester:
    """Filterbanks of 40 to 160 frames, seven of a batch, each 20 frames longer than the one before."""

    batch_size, feature_size, padding_value = 7, 128, 0.0
    min_seq_length, max_seq_length, seq_length_diff = 40, 180, 20

    def prepare_feat_extract_dict(self):
        return {"feature_size": self.feature_size, "padding_value": self.padding_value, "sampling_rate": 16_000}

    def prepare_inputs_for_common(self, equal_length=False, numpify=False):
        rng = np.random.default_rng(0)
        lengths = range(self.min_seq_length, self.max_seq_length, self.seq_length_diff)
        lengths = [self.max_seq_length] * self.batch_size if equal_length else lengths
        filterbanks = [rng.random((length, self.feature_size)) for length in lengths]
        return filterbanks if numpify else [values.tolist() for values in filterbanks]


class FeatureExtractionTest(SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = BeatsFeatureExtractor

    def setUp(self):
        self.feat_extract_tester = Tester()
