import copy
import io

import pytest
import torch
from torch import nn

from longvale.checkpoints.loading import load_checkpoint
from longvale.demo.optimizer import Muon, muon_for, orthogonalize
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration


def parameter(*shape, seed=0):
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def set_gradients(parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    for item in parameters:
        item.grad = torch.randn(item.shape, generator=generator)


# --- matrices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8), (8, 8), (8, 64), (96, 288)])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_all_directions_get_the_same_size(shape, size):
    matrices = size * torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalize(matrices)
    # Five steps of the iteration bring what is not tiny into this band (Jordan, 2024), the smallest directions of a
    # square matrix last.
    values = torch.linalg.svdvals(found)
    assert values.max() < 1.25 and values.quantile(0.2) > 0.65 and values.min() > 0
    for matrix, result in zip(matrices, found, strict=True):
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        # The directions stay: between the old ones on both sides the new matrix is diagonal.
        between = u.T @ result @ v.T
        torch.testing.assert_close(between, between.diagonal().diag(), atol=1e-4, rtol=0)  # float32, five steps
        assert (between.diagonal() > 0).all()


def test_matrices_of_a_batch_do_not_mix_and_nothing_stays_nothing():
    matrices = torch.stack([torch.zeros(4, 6), torch.eye(4, 6), torch.randn(4, 6)])
    found = orthogonalize(matrices)
    assert (found[0] == 0).all()
    torch.testing.assert_close(found[1], orthogonalize(matrices[1:2])[0])
    assert orthogonalize(matrices.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(("shape", "scale"), [((8, 32), 1.0), ((16, 16), 1.0), ((32, 8), 2.0)])
def test_a_step_has_the_size_of_the_rate(shape, scale):
    """A tall matrix takes sqrt(rows / columns) times as much, so that its outputs move as much as those of others."""
    matrix = parameter(*shape)
    optimizer, before = Muon([matrix], [], lr=0.02), matrix.detach().clone()
    set_gradients([matrix], seed=1)
    optimizer.step()
    step = (before - matrix.detach()) / (0.02 * scale)
    expected = orthogonalize((matrix.grad.T if shape[0] > shape[1] else matrix.grad)[None])[0]
    expected = expected.T if shape[0] > shape[1] else expected
    torch.testing.assert_close(step, expected, atol=1e-3, rtol=0)  # a difference of weights near 1, over .02
    assert (step * matrix.grad).sum() > 0  # downhill


def test_matrices_together_are_stepped_as_each_alone():
    """Those of one shape, tall or wide, share the iteration."""
    shapes = [(8, 32), (32, 8), (8, 32), (16, 16), (32, 8)]
    together = [parameter(*shape, seed=i) for i, shape in enumerate(shapes)]
    alone = copy.deepcopy(together)
    optimizers = [Muon(together, []), *(Muon([matrix], []) for matrix in alone)]
    for step in range(3):
        set_gradients(together, step)
        for one, other in zip(together, alone, strict=True):
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)  # sums of a batch may run in another order


def test_momentum_is_nesterovs():
    matrix = parameter(4, 8)
    optimizer, momentum = Muon([matrix], [], lr=0.1, momentum=0.9), torch.zeros(4, 8)
    for step in range(3):
        set_gradients([matrix], step)
        momentum = 0.9 * momentum + 0.1 * matrix.grad
        expected = matrix.detach() - 0.1 * orthogonalize((0.1 * matrix.grad + 0.9 * momentum)[None])[0]
        optimizer.step()
        torch.testing.assert_close(matrix.detach(), expected, atol=1e-5, rtol=1e-5)


def test_a_model_learns():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 8))
    inputs, targets = torch.randn(64, 8), torch.randn(64, 8)
    optimizer = Muon([layers[0].weight, layers[2].weight], [layers[0].bias, layers[2].bias], lr=0.05, adamw_lr=0.01)

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(layers(inputs), targets)
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(60)]
    assert losses[-1] < losses[0] / 2


# --- the others -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_others_are_updated_as_adamw_does(weight_decay):
    ours = [parameter(5), parameter(3, 7), parameter(2, 3, 4), parameter()]
    theirs, options = copy.deepcopy(ours), {"betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": weight_decay}
    optimizer = Muon([], ours, adamw_lr=0.01, **options)
    reference = torch.optim.AdamW(theirs, lr=0.01, **options)
    for step in range(10):
        set_gradients(ours, step)
        for one, other in zip(ours, theirs, strict=True):
            other.grad = one.grad.clone()
        optimizer.step()
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)  # the same sums in another order


def test_rates():
    optimizer = Muon([parameter(2, 2)], [parameter(2)], lr=0.02, adamw_lr=0.001)
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.001]
    assert [group["lr"] for group in Muon([parameter(2, 2)], [parameter(2)], lr=0.02).param_groups] == [0.02, 0.02]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.0005]


def test_what_has_no_gradient_stays():
    parameters = [parameter(2, 4), parameter(2, 4), parameter(3), parameter(3)]
    optimizer, before = Muon(parameters[:2], parameters[2:], weight_decay=0.1), copy.deepcopy(parameters)
    set_gradients([parameters[0], parameters[2]], 0)
    optimizer.step()
    assert [torch.equal(one, other) for one, other in zip(parameters, before, strict=True)] == [False, True] * 2


@pytest.mark.parametrize("shape", [(3,), (), (2, 3, 4)])
def test_only_matrices_are_taken_as_matrices(shape):
    with pytest.raises(ValueError, match="Muon takes matrices: give the other parameters as `others`"):
        Muon([parameter(2, 2), parameter(*shape)], [])


# --- saved and loaded -------------------------------------------------------------------------------------------------


def test_a_loaded_state_goes_on_bit_by_bit():
    def new():
        parameters = [parameter(8, 4), parameter(4, 8), parameter(4)]
        return parameters, Muon(parameters[:2], parameters[2:], lr=0.02, adamw_lr=0.01, weight_decay=0.1)

    def run(parameters, optimizer, steps):
        for step in steps:
            set_gradients(parameters, step)
            optimizer.step()

    whole, optimizer = new()
    run(whole, optimizer, range(6))

    first, optimizer = new()
    run(first, optimizer, range(3))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    second, optimizer = new()
    for one, other in zip(second, first, strict=True):
        one.data.copy_(other.data)
    optimizer.load_state_dict(torch.load(file, weights_only=True))
    run(second, optimizer, range(3, 6))
    assert all(torch.equal(one, other) for one, other in zip(whole, second, strict=True))


# --- of a LongVALE model ----------------------------------------------------------------------------------------------


def names_of(model, optimizer):
    names = {id(item): name for name, item in model.named_parameters()}
    return {
        "muon" if group["muon"] else "adamw": {names[id(item)] for item in group["params"]}
        for group in optimizer.param_groups
    }


def test_the_hidden_matrices_of_a_model(tiny_model):
    model, _ = load_checkpoint(tiny_model, LongVALEForConditionalGeneration, device="cpu")
    model.requires_grad_(True)
    model.model.visual_tower.requires_grad_(False)
    found = names_of(model, muon_for(model, lr=0.02, adamw_lr=0.001))
    layers = len(model.model.language_model.layers)
    assert len(found["muon"]) == 7 * layers
    for name in found["muon"]:
        assert name.startswith("model.language_model.layers.") and name.endswith("_proj.weight")
    assert not found["muon"] & found["adamw"]
    assert found["muon"] | found["adamw"] == {name for name, item in model.named_parameters() if item.requires_grad}
    for part in ("embed_tokens", "layernorm", "visual_projector", "speech_projector", "audio_tower", "speech_tower"):
        assert any(part in name for name in found["adamw"]), part
    assert not any("visual_tower" in name for name in found["adamw"])
