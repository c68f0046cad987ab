"""The language model's head, computed at labelled positions only."""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput


def score_label_positions(model: PreTrainedModel) -> None:
    """Make the forward pass that TRL requests (`fused_lm_head=True`) compute logits only at positions with a label.

    TRL does so where Triton is available; elsewhere its head scores every position, including the video's placeholders.
    Most positions of a dialogue about a video have no label, and the vocabulary is large.

    Args:
        model: the causal language model, without adapter; its `forward` is replaced, `generate` is unchanged.
    """
    forward = model.forward

    @functools.wraps(type(model).forward)
    def scored(
        self: PreTrainedModel, *args: Any, fused_lm_head: bool = False, **kwargs: Any
    ) -> FusedCausalLMOutput | Any:
        if not fused_lm_head:
            return forward(*args, **kwargs)
        labels, items = kwargs.pop("labels")[:, 1:], kwargs.pop("num_items_in_batch", None)
        hidden = self.base_model(*args, **kwargs | {"use_cache": False}).last_hidden_state[:, :-1]
        mask = labels != -100
        logits = self.get_output_embeddings()(hidden[mask]).float()  # [labels, vocabulary]
        scores = logits.log_softmax(dim=-1)
        targets = labels[mask]
        log_probs = scores.gather(1, targets[:, None])[:, 0]
        with torch.no_grad():
            entropy = -(scores.exp() * scores).sum(dim=-1)
            is_top1 = (logits.argmax(dim=-1) == targets).float()

        def place(values: torch.Tensor) -> torch.Tensor:
            # Connected to the model even without a label: such a batch has a gradient of zeros.
            return values.new_zeros(mask.shape).masked_scatter(mask, values)

        return FusedCausalLMOutput(
            loss=-log_probs.sum() / (mask.sum().clamp(min=1) if items is None else items),
            log_probs=place(log_probs),
            entropy=place(entropy),
            is_top1=place(is_top1),
            label_mask=mask,
        )

    model.forward = types.MethodType(scored, model)
