"""Muon, with AdamW for parameters that are not matrices of a hidden layer.

An option of the recipes, used by the demo: its tiny models learn in fewer steps than with AdamW alone. The published
runs used AdamW.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import nn

#: Coefficients of the quintic Newton-Schulz iteration and its number of steps (K. Jordan, "Muon", 2024,
#: https://kellerjordan.github.io/posts/muon/).
_COEFFICIENTS, _ITERATIONS = (3.4445, -4.7750, 2.0315), 5


class Muon(torch.optim.Optimizer):
    """Optimizer with updates of equal size in every direction of a matrix; AdamW for the other parameters.

    `torch.optim.Muon` takes matrices only and iterates in bfloat16, which CPUs without it emulate slowly.

    Args:
        matrices: two-dimensional weights of hidden layers; not embeddings, heads or projectors.
        others: parameters that AdamW updates.
        lr: learning rate of the matrices, as a spectral norm of the update.
        adamw_lr: learning rate of the others; `lr` if None. A schedule scales both.
        momentum: of the matrices (Nesterov).
        betas, eps, weight_decay: of AdamW.

    Example:
        >>> layer = nn.Linear(4, 4)
        >>> optimizer = Muon([layer.weight], [layer.bias], lr=0.02)
        >>> layer(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        lr: float = 0.02,
        adamw_lr: float | None = None,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        groups = [{"params": list(matrices), "muon": True}]
        others = list(others)
        if others:
            groups.append({"params": others, "muon": False, "lr": lr if adamw_lr is None else adamw_lr})
        if any(parameter.ndim != 2 for parameter in groups[0]["params"]):
            raise ValueError("Muon takes matrices: give the other parameters as `others`")
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            (self._step_matrices if group["muon"] else self._step_others)(group)
        return loss

    def _step_matrices(self, group: dict) -> None:
        by_shape = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
            update = parameter.grad.lerp(state["momentum"], group["momentum"])
            tall = update.shape[0] > update.shape[1]
            by_shape[tuple(sorted(update.shape))].append((parameter, update.T if tall else update, tall))
        # Matrices of one shape are iterated as one batch: they are small, and calls dominate the cost.
        for members in by_shape.values():
            updates = orthogonalize(torch.stack([update for _, update, _ in members]))
            for (parameter, _, tall), update in zip(members, updates, strict=True):
                scale = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
                parameter.add_((update.T if tall else update).to(parameter), alpha=-group["lr"] * scale)

    def _step_others(self, group: dict) -> None:
        first, second = group["betas"]
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["step"] = 0
                state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] += 1
            state["mean"].lerp_(parameter.grad, 1 - first)
            state["square"].lerp_(parameter.grad.square(), 1 - second)
            mean = state["mean"] / (1 - first ** state["step"])
            square = state["square"] / (1 - second ** state["step"])
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.addcdiv_(mean, square.sqrt().add_(group["eps"]), value=-group["lr"])


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """Bring all singular values near 1 and keep the singular vectors.

    Args:
        matrices: [n, rows, columns], rows <= columns.

    Returns:
        float32 [n, rows, columns]; singular values between about 0.7 and 1.2, zero where they were zero.

    Example:
        >>> values = torch.linalg.svdvals(orthogonalize(torch.randn(1, 4, 8)))
        >>> bool((values > 0.5).all() and (values < 1.3).all())
        True
    """
    a, b, c = _COEFFICIENTS
    x = matrices.float()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def muon_for(model: nn.Module, lr: float, adamw_lr: float | None = None) -> Muon:
    """Return Muon for the trainable matrices of a language model's layers, AdamW for its other trainable weights.

    Args:
        model: a LongVALE model, with an adapter or without.
        lr, adamw_lr: as in [`Muon`].
    """
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            hidden = parameter.ndim == 2 and ".language_model.layers." in f".{name}"
            (matrices if hidden else others).append(parameter)
    return Muon(matrices, others, lr=lr, adamw_lr=adamw_lr)
