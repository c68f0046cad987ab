"""One tuning stage: what is trained, how, and the merged checkpoint that it leaves.

As published (arXiv 2411.19772): a LoRA on every linear layer of the language model, the audio and the speech projector
in full; towers, visual projector, embeddings and head stay as they are. The result is merged, and the next stage starts
from the merged checkpoint with a new LoRA.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig
from torch import nn
from trl import SFTTrainer

from longvale.training.collator import TEXT_INPUTS, DialogueCollator
from longvale.training.config import SFTStageConfig
from longvale.training.optimizer import muon_for

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel

    from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
    from longvale.models.processing_longvale import LongVALEProcessor

#: Trained in full; the visual projector comes aligned with the base model.
TRAINED_PROJECTORS = ("audio_projector", "speech_projector")

#: Folder below the merged checkpoint for the adapter alone.
ADAPTER_FOLDER = "adapter"

_LANGUAGE_MODEL = "model.language_model"


def lora_config(model: LongVALEForConditionalGeneration, args: SFTStageConfig) -> LoraConfig:
    """The adapter of a stage.

    Its targets are named by a pattern that only the language model's layers match: the usual "all-linear" would also
    hit the visual projector, which must not move.

    Args:
        model: a LongVALE model without an adapter.
        args: `lora_r`, `lora_alpha` and `lora_dropout`.
    """
    language_model = model.get_submodule(_LANGUAGE_MODEL)
    layers = sorted(
        {name.rpartition(".")[2] for name, part in language_model.named_modules() if isinstance(part, nn.Linear)}
    )
    return LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=rf"{re.escape(_LANGUAGE_MODEL)}\.(.*\.)?({'|'.join(layers)})",
        modules_to_save=list(TRAINED_PROJECTORS),
        task_type="CAUSAL_LM",
    )


class StageTrainer(SFTTrainer):
    """TRL's trainer with the adapter of a stage, and a batch computed in groups of like length.

    Args:
        model: to start from; it becomes the base of the adapter.
        args: options of the stage.
        processor: of the model.
        train_dataset: rows as [`DialogueCollator`] takes them.
        kwargs: for `SFTTrainer`.
    """

    def __init__(
        self,
        model: LongVALEForConditionalGeneration,
        args: SFTStageConfig,
        processor: LongVALEProcessor,
        train_dataset: Dataset,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            data_collator=DialogueCollator(processor, args.max_length),
            train_dataset=train_dataset,
            processing_class=processor,
            peft_config=lora_config(model, args),
            **kwargs,
        )
        keep_trained_weights_in_float32(self.model)
        # The adapter finds its base again from wherever it is loaded.
        base = self.model.peft_config["default"].base_model_name_or_path
        if base and os.path.isdir(base):
            self.model.peft_config["default"].base_model_name_or_path = os.path.abspath(base)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer of the options, or Muon where they ask for it."""
        if self.args.muon_learning_rate is None:
            return super().create_optimizer(model)
        if self.optimizer is None:
            self.optimizer = muon_for(
                self.model if model is None else model, self.args.muon_learning_rate, self.args.learning_rate
            )
        return self.optimizer

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: TRL's card shows a text pipeline, which does not take videos."""

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Loss and gradients of a batch, [] on its device.

        Groups change nothing but the padding: the loss is a sum over tokens divided by `num_items_in_batch`.
        """
        groups = group_by_length(inputs, self.args.length_groups)
        return sum(super(StageTrainer, self).training_step(model, group, num_items_in_batch) for group in groups)


def group_by_length(batch: dict[str, torch.Tensor], groups: int) -> list[dict[str, torch.Tensor]]:
    """Split a batch into groups of rows of like length, their texts padded no more than each group needs.

    Args:
        batch: inputs [B, ...] of [`DialogueCollator`], padded on the right.
        groups: how many, where the batch has as many rows.

    Example:
        >>> mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0]])
        >>> [group["attention_mask"].shape for group in group_by_length({"attention_mask": mask}, 2)]
        [torch.Size([2, 2]), torch.Size([2, 4])]
    """
    if groups == 1:
        return [batch]
    lengths = batch["attention_mask"].sum(dim=1)
    split = []
    for rows in lengths.argsort(stable=True).tensor_split(min(groups, len(lengths))):
        group, length = {name: values[rows] for name, values in batch.items()}, int(lengths[rows].max())
        split.append(group | {name: group[name][:, :length] for name in TEXT_INPUTS if name in group})
    return split


def keep_trained_weights_in_float32(model: PeftModel) -> None:
    """Cast what is trained to float32: in bfloat16 most small steps round to nothing.

    LoRA weights are float32 already; PEFT copies the projectors in the base model's type.
    """
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in TRAINED_PROJECTORS:
            module.float()  # the untrained original too: inputs are cast to its type


def merge_and_save(
    model: PeftModel, processor: LongVALEProcessor, output_dir: str | os.PathLike
) -> LongVALEForConditionalGeneration:
    """Save the adapter and the merged model.

    Files appear under their names when all are written, the configuration last: a killed run leaves nothing that loads.

    Args:
        model: a trained adapter with its base, not wrapped for several processes; it is used up.
        processor: saved beside the merged model.
        output_dir: gets the merged checkpoint, which `from_pretrained` loads, remote code included, and in
            `adapter/` the adapter for `PeftModel.from_pretrained(base, ...)`.

    Returns:
        The merged model.
    """
    output = Path(output_dir)
    unfinished = output / ".unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished / ADAPTER_FOLDER)
    base_dtype = model.get_base_model().dtype
    merged = model.merge_and_unload()
    # The trainer's own `forward` survives unloading, and in a copy of the model it would compute with the original.
    merged.__dict__.pop("forward", None)
    merged.to(base_dtype).eval()
    merged.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    _publish(unfinished, output)
    return merged


def _publish(source: Path, target: Path) -> None:
    """Move files over those of an earlier run. Nothing loads without `config.json`: it goes first and comes last."""
    (target / "config.json").unlink(missing_ok=True)
    shutil.rmtree(target / ADAPTER_FOLDER, ignore_errors=True)
    for path in sorted(source.iterdir(), key=lambda path: path.name == "config.json"):
        os.replace(path, target / path.name)
    source.rmdir()
