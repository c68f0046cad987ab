"""Grouped convolutions are never computed in low precision on a CPU, whatever CPU the tests run on."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import ConvNextConfig, LlamaConfig

from longvale.models.configuration_beats import BeatsConfig
from longvale.models.configuration_longvale import LongVALEConfig
from longvale.models.layers import convolve_in_float32, guard_convolutions
from longvale.models.modeling_beats import BeatsModel, BeatsPositionalConvEmbedding
from longvale.models.modeling_longvale import LongVALEModel

LOW = [torch.bfloat16, torch.float16]


class Computed(TorchDispatchMode):
    """Precisions of the operands of all convolutions of several groups that torch computes."""

    def __init__(self):
        super().__init__()
        self.dtypes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket is torch.ops.aten.convolution and args[8] > 1:
            self.dtypes.append({operand.dtype for operand in args[:3] if operand is not None})
        return function(*args, **(kwargs or {}))


def dtypes_of(call, *args):
    with Computed() as computed, torch.no_grad():
        output = call(*args)
    return output, computed.dtypes


def beats(**changes):
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4, "embed_dim": 16}
    return BeatsConfig(num_hidden_layers=1, num_conv_pos_embedding_groups=8, **sizes | changes)


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("bias", [True, False])
def test_a_cpu_computes_in_float32_and_gives_the_precision_asked_for(dtype, bias):
    operands = [torch.randn(2, 16, 50), torch.randn(16, 4, 9), torch.randn(16) if bias else None]
    low = [None if operand is None else operand.to(dtype) for operand in operands]
    output, computed = dtypes_of(lambda: convolve_in_float32(nn.functional.conv1d, *low, groups=4))
    assert computed == [{torch.float32}] and output.dtype == dtype
    expected = nn.functional.conv1d(*(None if operand is None else operand.float() for operand in low), groups=4)
    assert torch.equal(output, expected.to(dtype))


def test_double_precision_stays():
    operands = torch.randn(1, 4, 5).double(), torch.randn(4, 2, 3).double(), None
    output, computed = dtypes_of(lambda: convolve_in_float32(nn.functional.conv1d, *operands, groups=2))
    assert computed == [{torch.float64}] and output.dtype == torch.float64


@pytest.mark.parametrize("dtype", LOW)
def test_positions_of_beats(dtype):
    module = BeatsPositionalConvEmbedding(beats())
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)
    states = torch.randn(2, 24, 32)
    low, computed = dtypes_of(copy.deepcopy(module).to(dtype), states.to(dtype))
    assert computed == [{torch.float32}] and low.dtype == dtype
    # A grouped convolution in the precision of the module has a relative error of 1 on CPUs with AMX.
    error = (low.float() - module(states)).norm() / module(states).norm()
    assert error < 0.02


@pytest.mark.parametrize("dtype", LOW)
def test_autocast_does_not_lower_it(dtype):
    model = BeatsModel(beats()).eval()
    with torch.autocast("cpu", dtype=dtype):
        _, computed = dtypes_of(model, torch.randn(1, 32, 128))
    assert computed == [{torch.float32}]


def test_gradients_pass():
    module = BeatsPositionalConvEmbedding(beats()).to(torch.bfloat16)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    module(torch.randn(1, 24, 32, dtype=torch.bfloat16)).sum().backward()
    assert all(p.grad.dtype == torch.bfloat16 and p.grad.abs().sum() > 0 for p in module.parameters())


def test_towers_of_others():
    """ConvNeXt convolves each channel alone."""
    vision = ConvNextConfig(num_stages=2, depths=[1, 1], hidden_sizes=[8, 12], patch_size=2)
    text = LlamaConfig(
        vocab_size=30, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
    )  # fmt: skip
    config = LongVALEConfig(text_config=text, vision_config=vision, visual_feature_size=12)
    model = LongVALEModel(config).eval()
    names = set(model.state_dict())
    low = copy.deepcopy(model).to(torch.bfloat16)
    assert set(low.state_dict()) == names
    pictures = torch.randn(1, 3, 3, 16, 16)
    features, computed = dtypes_of(lambda: low.encode(pictures)["visual"][0])
    assert computed == [{torch.float32}] * 2 and features.dtype == torch.bfloat16


@pytest.mark.parametrize("make", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_every_kind_is_guarded_and_can_be_pickled(make):
    model = nn.Sequential(make(4, 8, 3, groups=4), make(8, 8, 1)).to(torch.bfloat16)
    inputs = torch.randn(1, 4, *[5] * (make(1, 1, 1).weight.dim() - 2), dtype=torch.bfloat16)
    plain = type(model[1])
    guarded = pickle.loads(pickle.dumps(guard_convolutions(guard_convolutions(model))))  # noqa: S301 (its own bytes)
    assert type(guarded[1]) is plain  # of one group
    output, computed = dtypes_of(guarded, inputs)
    assert computed == [{torch.float32}] and output.dtype == torch.bfloat16


def test_a_parametrised_weight_is_guarded():
    """As of the positions of wav2vec 2.0."""
    convolution = nn.utils.parametrizations.weight_norm(nn.Conv1d(8, 8, 4, padding=2, groups=2), dim=2)
    low = guard_convolutions(nn.Sequential(convolution)).to(torch.bfloat16)
    output, computed = dtypes_of(low, torch.randn(1, 8, 10, dtype=torch.bfloat16))
    assert computed == [{torch.float32}] and output.dtype == torch.bfloat16
