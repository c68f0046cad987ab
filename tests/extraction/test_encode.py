"""Features of one video: against the model alone, with progress, and stopped."""

import numpy as np
import pytest
import torch

from longvale.checkpoints.loading import load_checkpoint
from longvale.extraction import encode
from longvale.extraction.encode import Encoder, encode_video
from longvale.extraction.preprocess import preprocess
from longvale.models.media import Media
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.system.interruption import Stopped


@pytest.fixture(scope="module")
def pair(tiny_model):
    return load_checkpoint(tiny_model, LongVALEForConditionalGeneration, device="cpu")


@pytest.fixture(scope="module")
def media():
    """Ten frames, and sound of 70 s: 22 windows of 3.2 s, 9 chunks of 8 s."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (10, 48, 64, 3), dtype=np.uint8)
    return Media(70.0, frames, np.arange(10) * 7.0, rng.normal(0, 0.1, 70 * 16_000).astype(np.float32), 16_000)


@pytest.mark.parametrize("batch_size", [7, 32])
def test_batches_do_not_change_the_features(pair, media, monkeypatch, batch_size):
    """Windows of speech cross the borders of chunks and of batches."""
    model, processor = pair
    monkeypatch.setattr(encode.Encoder.__init__, "__defaults__", (batch_size,))
    found = encode_video(model, processor, media)
    with torch.inference_mode():
        expected = model.encode(**processor(videos=[media]))
    assert list(found) == list(expected) == ["visual", "audio", "speech"]
    for modality, (values, mask) in expected.items():
        np.testing.assert_allclose(found[modality], values[0][mask[0].bool()].numpy(), atol=1e-5)


def test_progress_is_that_of_all_towers(pair, media):
    reports = []
    encoder = Encoder(pair[0], batch_size=6, equal_batches=False, progress=lambda *report: reports.append(report))
    encoder.add("v", preprocess(pair[1], media))
    assert {modality: len(queue) for modality, queue in encoder._queues.items()} == {
        "visual": 10, "audio": 22, "speech": 9,
    }  # fmt: skip
    encoder.run(partial=True)
    assert [modality for modality, _ in reports] == ["visual"] * 2 + ["audio"] * 4 + ["speech"] * 9
    total = 10 + 22 + 6 * 9  # a chunk takes as long as six windows
    assert [share for _, share in reports[:4]] == pytest.approx([0, 6 / total, 10 / total, 16 / total])
    assert reports[-1][1] == pytest.approx(1 - 6 / total)


def test_it_is_stopped_between_layers(pair, media):
    calls = []
    with pytest.raises(Stopped):
        encode_video(*pair, media, stop=lambda: calls.append(1) or len(calls) == 2)
    assert len(calls) == 2
    assert encode_video(*pair, media, stop=lambda: False)["visual"].shape == (10, 64)
