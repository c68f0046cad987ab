"""The forward pass on raw media as one graph, compiled and exported. The media of a batch differ in length: a graph
encodes the padding too, which changes the order of float32 sums."""

import pytest
import torch
from torch.export import Dim
from torch.testing import assert_close
from transformers import CLIPVisionConfig, LlamaConfig, WhisperConfig

from longvale.models.configuration_beats import BeatsConfig
from longvale.models.configuration_longvale import LongVALEConfig
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.models.modeling_towers import encode_used

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
WHISPER = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16}
VIDEO = 30


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LongVALEConfig(
        text_config=LlamaConfig(vocab_size=VIDEO, num_key_value_heads=2, **SMALL),
        vision_config=CLIPVisionConfig(image_size=16, patch_size=8, projection_dim=8, **SMALL),
        audio_config=BeatsConfig(embed_dim=8, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, **SMALL),
        speech_config=WhisperConfig(num_mel_bins=8, max_source_positions=10, **WHISPER),
        speech_window_states=5,
        video_token_id=VIDEO,
        initializer_range=0.3,
    )
    config.text_config.use_cache = False
    return LongVALEForConditionalGeneration(config).eval()


def raw_batch(*lengths, frames=3, windows=2, chunks=2, seed=0):
    """Rows of `(frames, windows of sound, chunks of 10 speech states)`, padded to the given sizes and on the left."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size):
        return torch.randn(len(lengths), *size, generator=generator)

    def mask(place, size):
        return (torch.arange(size) < torch.tensor([row[place] for row in lengths]).unsqueeze(1)).long()

    counts = [shown + heard + 2 * spoken for shown, heard, spoken in lengths]
    ids = [[0] * (max(counts) - count) + [1, *[VIDEO] * count, 5, 6] for count in counts]
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": (torch.tensor(ids) != 0).long(),
        "pixel_values_videos": draw(frames, 3, 16, 16),
        "visual_features_mask": mask(0, frames),
        "input_values": draw(windows, 32, 128),
        "input_values_mask": mask(1, windows).unsqueeze(-1).expand(-1, -1, 32).contiguous(),
        "input_features": draw(chunks, 8, 20),
        "input_features_mask": mask(2, chunks).unsqueeze(-1).expand(-1, -1, 20).contiguous(),
    }


BATCH = raw_batch((3, 1, 2), (2, 2, 0))
OTHERS = [
    raw_batch((4, 0, 1), (4, 3, 3), (1, 2, 0), frames=4, windows=3, chunks=3, seed=1),
    raw_batch((5, 3, 2), frames=5, windows=3, chunks=2, seed=2),
]


def logits(run, batch):
    kept = batch["attention_mask"].bool()
    return run(**batch).logits[kept]


@torch.no_grad()
def test_parts_that_pad_a_batch_stay_zero_in_a_graph():
    used = torch.tensor([[True, False], [True, True]])
    values = torch.tensor([[1.0, torch.nan], [2.0, 3.0]])[..., None]
    expected = torch.tensor([[2.0, 0.0], [3.0, 4.0]])[..., None]

    def encode(used, values):
        return encode_used(lambda parts: parts + 1, used, values)

    assert torch.equal(encode(used, values), expected)
    assert torch.equal(torch.compile(encode, backend="eager", fullgraph=True)(used, values), expected)


@pytest.mark.slow
@torch.no_grad()
def test_raw_media_compile_as_one_graph(model):
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_close(logits(compiled, BATCH), logits(model, BATCH), **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
@torch.no_grad()
def test_raw_media_are_exported_for_batches_of_any_size(model, strict):
    """With `strict`, torch 2.9 writes guards for keyword arguments that it cannot evaluate."""
    sizes = {name: {0: Dim.AUTO, 1: Dim.AUTO} for name in BATCH}
    program = torch.export.export(model, (), BATCH, dynamic_shapes=sizes, strict=strict)
    exported = program.module(check_guards=not strict)
    for batch in (BATCH, *OTHERS):
        assert_close(logits(exported, batch), logits(model, batch), **CLOSE)
    wrong = BATCH | {"visual_features_mask": torch.ones_like(BATCH["visual_features_mask"])}
    with pytest.raises(RuntimeError, match="a row has different numbers of video placeholders and features"):
        exported(**wrong)
