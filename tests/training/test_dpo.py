"""TRL's `DPOTrainer` on preferences about videos, with a reference model and with an adapter."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer

from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.training.collator import PreferenceCollator


def preferences():
    rng = np.random.default_rng(0)
    answers = {"chosen": "A ring.", "rejected": "A blue star."}
    row = {name: [{"role": "assistant", "content": text}] for name, text in answers.items()}
    row |= {"prompt": [{"role": "user", "content": "<video>\nWhat is shown?"}], "images": []}
    return Dataset.from_list([{**row, "visual_features": rng.normal(size=(3, 64)).tolist()} for _ in range(2)])


def train(base, processor, output, steps, adapter=None):
    arguments = DPOConfig(
        output, max_steps=steps, per_device_train_batch_size=2, learning_rate=1e-3, lr_scheduler_type="constant",
        remove_unused_columns=False, bf16=False, report_to="none", logging_steps=1, disable_tqdm=True,
        save_strategy="no",
    )  # fmt: skip
    trainer = DPOTrainer(
        LongVALEForConditionalGeneration.from_pretrained(base),
        args=arguments, data_collator=PreferenceCollator(processor), train_dataset=preferences(),
        processing_class=processor, peft_config=adapter,
    )  # fmt: skip
    trainer.train()
    return trainer, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("adapter", [None, LoraConfig(task_type="CAUSAL_LM")], ids=["reference", "adapter"])
def test_the_better_answer_becomes_likelier(base, processor, tmp_path, adapter):
    trainer, losses = train(base, processor, tmp_path, 4, adapter)
    assert (trainer.ref_model is None) == (adapter is not None)
    assert losses[0] == pytest.approx(np.log(2), abs=1e-4) and losses[-1] < losses[0] - 1e-3
    weights = LongVALEForConditionalGeneration.from_pretrained(base).state_dict()
    reference = trainer.model.get_base_model() if trainer.ref_model is None else trainer.ref_model
    for name, value in reference.state_dict().items():
        if name in weights:
            assert torch.equal(value, weights[name]), name  # the reference stays
    if adapter is None:
        changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, weights[name])}
        assert "model.visual_projector.weight" in changed  # the answers are compared with the video
        assert not any("tower" in name for name in changed)
