"""One tuning stage: the trained weights, the trainer, and the merged checkpoint.

As published (arXiv 2411.19772): a LoRA on every linear layer of the language model, the audio and the speech projector
in full; towers, visual projector, embeddings and head stay frozen. The result is merged, and the next stage starts
from the merged checkpoint with a new LoRA.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import torch
from accelerate import PartialState
from peft import LoraConfig, PeftModel
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin, Trainer, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from trl import SFTTrainer

from longvale.checkpoints.card import fill_evaluation, names_published_model, save_model_card
from longvale.checkpoints.loading import load_checkpoint
from longvale.checkpoints.push import plan_model
from longvale.checkpoints.writing import saving
from longvale.evaluation.adapters.time_formats import recorded_format
from longvale.hub import CARD_FILE, push
from longvale.io import atomic_write, load_json
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.training.batching import ROW_IDS, Batch, RowIdCollator, decode_row_ids, group_by_length
from longvale.training.checkpoints import STATE_FILE, publish, work_left
from longvale.training.collator import DialogueCollator
from longvale.training.config import SFTStageConfig
from longvale.training.masked_lm_head import score_label_positions
from longvale.training.throughput import Throughput

if TYPE_CHECKING:
    from datasets import Dataset

    from longvale.models.processing_longvale import LongVALEProcessor
    from longvale.training.grpo import GRPOStageConfig

#: Loads the model that an adapter was trained on, and its processor.
LoadBase: TypeAlias = Callable[[], tuple[PreTrainedModel, ProcessorMixin]]

#: Trained in full; the visual projector is already aligned in the base model.
TRAINED_PROJECTORS = ("audio_projector", "speech_projector")

#: Subfolder of the merged checkpoint for the adapter alone.
ADAPTER_FOLDER = "adapter"

#: Subfolder of `output_dir` for unfinished files.
UNFINISHED = ".unfinished"

_LANGUAGE_MODEL = "model.language_model"


def lora_config(model: LongVALEForConditionalGeneration, args: SFTStageConfig) -> LoraConfig:
    """Return the adapter configuration of a stage.

    Its targets are a pattern that matches only the language model's layers: the usual "all-linear" would also match the
    visual projector, which must stay frozen.

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


class AtomicCheckpointMixin:
    """Trainer mixin: checkpoints get their name when they are complete, see [`longvale.training.checkpoints`]."""

    _saving = False

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save as the base class does, under another name; rename the checkpoint when it is complete."""
        folder = Path(self.args.output_dir)
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.is_world_process_zero():
            shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._saving = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._saving = False
        self.accelerator.wait_for_everyone()  # each process has written its random states
        if self.is_world_process_zero():
            publish(folder / UNFINISHED / name, folder / name)
            rotate_checkpoints(output_dir=str(folder), save_total_limit=self.args.save_total_limit)
        self.accelerator.wait_for_everyone()

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, UNFINISHED) if self._saving else folder


class SafeTrainer(AtomicCheckpointMixin, SFTTrainer):
    """TRL's trainer with whole checkpoints, a stop when the loss is not finite, and throughput in its logs.

    Args:
        collate: turns rows, which may have an `id`, into a batch.
        trained: parts that are trained in full; their weights become float32.
        kwargs: for `SFTTrainer`; with an adapter.
    """

    def __init__(
        self, *, collate: Callable[[Sequence[Mapping[str, Any]]], Batch], trained: Sequence[str], **kwargs: Any
    ) -> None:
        self._throughput = Throughput()
        self._last_ids: torch.Tensor | None = None
        super().__init__(data_collator=RowIdCollator(collate), **kwargs)
        keep_trained_weights_in_float32(self.model, trained)
        # An absolute path, so that the adapter finds its base from any working directory.
        base = self.model.peft_config["default"].base_model_name_or_path
        if base and os.path.isdir(base):
            self.model.peft_config["default"].base_model_name_or_path = os.path.abspath(base)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: TRL's card shows a text pipeline, which does not take videos."""

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], torch.Tensor | int | None]:
        """Return the batches of a step."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        batches = self.regroup(batches)
        for batch in batches:
            self._throughput.add(batch)
        return batches, items

    def regroup(self, batches: list[Batch]) -> list[Batch]:
        """Return the batches of a step as they are computed; by default unchanged."""
        return batches

    def compute_loss(self, model: nn.Module, inputs: Batch, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the loss of a batch.

        Raises:
            FloatingPointError: naming the dialogues, if it is not finite; no weight has been changed by it.
        """
        ids = inputs.pop(ROW_IDS, None)
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self._last_ids = ids
        if not torch.isfinite(loss).all():
            self._stop(f"the loss is {loss.item()}")
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> torch.Tensor | float | None:
        norm = super()._clip_grad_norm(model)
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)):
            self._stop(f"the gradient's norm is {float(norm)}")
        return norm

    def _stop(self, what: str) -> NoReturn:
        ids = ", ".join(decode_row_ids(self._last_ids)) if self._last_ids is not None else "unknown"
        raise FloatingPointError(
            f"step {self.state.global_step + 1}: {what}; dialogues of the batch: {ids}. The weights are those of the "
            "step before, and checkpoints are kept: look at these dialogues, or lower learning_rate"
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as the base class does, with throughput and padding since the last log and peak memory."""
        if "loss" in logs:
            logs = logs | self._throughput.take()
        super().log(logs, start_time)


class StageTrainer(SafeTrainer):
    """Trainer with the adapter of a stage, and batches of similar length.

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
        self._widths = model.config.feature_sizes
        super().__init__(
            collate=DialogueCollator(processor, args.max_length),
            trained=TRAINED_PROJECTORS,
            model=model,
            args=args,
            train_dataset=train_dataset,
            processing_class=processor,
            peft_config=lora_config(model, args),
            **kwargs,
        )
        if self.accelerator.device.type == "cpu":  # elsewhere TRL's own head does so
            score_label_positions(self.model.get_base_model())

    def regroup(self, batches: list[Batch]) -> list[Batch]:
        """Return the batches of a step with rows of similar length together."""
        return group_by_length(batches, self._widths, self.accelerator)


def keep_trained_weights_in_float32(model: PeftModel, trained: Sequence[str] = TRAINED_PROJECTORS) -> None:
    """Cast trained weights to float32: in bfloat16 most small steps round to zero.

    LoRA weights are float32 already; PEFT copies other trained parts in the base model's type.

    Args:
        model: with an adapter.
        trained: ends of the names of those parts.
    """
    for name, module in model.named_modules():
        if any(f".{name}".endswith(f".{part}") for part in trained):
            module.float()  # the untrained original too: inputs are cast to its type


def load_base(
    args: SFTStageConfig | GRPOStageConfig, load_in_4bit: bool = False
) -> tuple[LongVALEForConditionalGeneration, LongVALEProcessor]:
    """Load the model that a stage starts from, and its processor; the checkpoint will record the format of times.

    Args:
        args: options of the stage.
        load_in_4bit: quantize the language model for training. The adapter is merged into the unquantized model.

    Raises:
        FileNotFoundError, ValueError: as in [`longvale.checkpoints.loading.load_checkpoint`].
    """
    model, processor = load_checkpoint(
        args.model,
        LongVALEForConditionalGeneration,
        device=args.device if load_in_4bit else "cpu",
        dtype=args.weights_dtype,
        load_in_4bit=load_in_4bit,
        attn_implementation=args.attn_implementation,
    )
    model.config.time_format = getattr(args, "times", None) or recorded_format(model.config, "percent")
    return model, processor


def trained_adapter(trainer: Trainer, load: LoadBase | None = None) -> PeftModel:
    """Return the trained adapter with its base, complete and unwrapped in the first process; call it in every process.

    With ZeRO-3 and FSDP a process has only a part of each weight, and a base in 4 bits cannot be merged: there the
    adapter is gathered into `output_dir/.unfinished`, and loaded onto a new copy of the base model.

    Args:
        trainer: after training.
        load: loads the base model and its processor; by default [`load_base`].
    """
    accelerator, args = trainer.accelerator, trainer.args
    accelerator.wait_for_everyone()
    deepspeed = accelerator.state.deepspeed_plugin
    sharded = trainer.is_fsdp_enabled or (deepspeed is not None and deepspeed.zero_stage == 3)
    if not sharded and not getattr(trainer.model.get_base_model(), "is_loaded_in_4bit", False):
        return accelerator.unwrap_model(trainer.model)
    folder = Path(args.output_dir) / UNFINISHED / "gathered"
    trainer.save_model(str(folder), _internal_call=True)
    accelerator.wait_for_everyone()
    if not trainer.is_world_process_zero():
        return trainer.model
    return _with_adapter(load or partial(load_base, args), folder)[0]


def _with_adapter(load: LoadBase, folder: str | os.PathLike) -> tuple[PeftModel, ProcessorMixin]:
    """Return a base model with a saved adapter, and its processor."""
    unset_hf_deepspeed_config()  # while it is set, every loaded model is partitioned
    base, processor = load()
    return PeftModel.from_pretrained(base, folder), processor


def merge_checkpoint(args: TrainingArguments, checkpoint: str, load: LoadBase | None = None) -> None:
    """Merge the checkpoint of the last step if the run was killed before the merge; for one process.

    Args:
        args: options of the run.
        checkpoint: the trainer's checkpoint.
        load: as in [`trained_adapter`].
    """
    save_history(load_json(Path(checkpoint, STATE_FILE))["log_history"], args.output_dir)
    merge_and_save(*_with_adapter(load or partial(load_base, args), checkpoint), args.output_dir, args)


def finish(args: TrainingArguments, load: LoadBase | None = None) -> bool:
    """Do and report the remaining work of an earlier run if that is nothing or the merge; else return False.

    Args:
        args: options of the run.
        load: as in [`trained_adapter`].

    Raises:
        FileNotFoundError, ValueError: as in [`longvale.training.checkpoints.work_left`].
    """
    left, checkpoint = work_left(args)
    PartialState().wait_for_everyone()  # no process changes files while another one reads them
    if left == "training":
        return False
    if args.process_index == 0:
        if left == "merge":
            merge_checkpoint(args, checkpoint, load)
            print(f"{args.output_dir}: all steps were trained already; merged {checkpoint}", flush=True)
        else:
            print(
                f"{args.output_dir}: finished by an earlier run with the same settings, nothing is changed; to train "
                "again, give another output_dir or --overwrite true",
                flush=True,
            )
    return True


def save_history(history: list[dict[str, float]], output_dir: str | os.PathLike) -> None:
    """Write the losses and metrics of a run to `log_history.json`."""
    with atomic_write(Path(output_dir) / "log_history.json") as file:
        json.dump(history, file, indent=1)


def merge_and_save(
    model: PeftModel, processor: ProcessorMixin, output_dir: str | os.PathLike, args: Any = None
) -> PreTrainedModel:
    """Save the adapter and the merged model.

    Files get their names when all are written, the configuration last: a killed run leaves nothing that loads.

    Args:
        model: a trained adapter with its base, not wrapped for several processes; it is unusable afterwards.
        processor: saved with the merged model.
        output_dir: gets the merged checkpoint, which `from_pretrained` loads, remote code included, and in
            `adapter/` the adapter for `PeftModel.from_pretrained(base, ...)`.
        args: options of the run, for the card of LongVALE's own model, with the scores of `log_history.json`; default
            no card.

    Returns:
        The merged model.
    """
    output = Path(output_dir)
    unfinished = output / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    with saving(unfinished):
        model.save_pretrained(unfinished / ADAPTER_FOLDER)
    base_dtype = model.get_base_model().dtype
    merged = model.merge_and_unload()
    # The trainer's own `forward` survives unloading; in a copy of the model it would compute with the original.
    merged.__dict__.pop("forward", None)
    merged.to(base_dtype).eval()
    with saving(unfinished):
        merged.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    if args is not None and args.has_card:
        _write_card(unfinished, merged, args)
    _publish(unfinished, output)
    return merged


def _write_card(folder: Path, model: LongVALEForConditionalGeneration, args: SFTStageConfig | GRPOStageConfig) -> None:
    """Write the model card, with the last grounding that was measured while training."""
    base = Path(args.model).name if Path(args.model).is_dir() else args.model  # no folder of this machine
    title, data = Path(args.output_dir).absolute().name, Path(args.data_dir).absolute().name
    way = f"the stage `{args.stage}` of `recipes/sft.py`" if isinstance(args, SFTStageConfig) else "`recipes/grpo.py`"
    origin = f"Tuned from `{base}` on `{data}` by {way} of longvale."
    save_model_card(folder, model, title=title, origin=origin, published=names_published_model(args.model))
    history = Path(args.output_dir, "log_history.json")
    measured = [entry for entry in load_json(history) if "grounding_answers" in entry] if history.is_file() else []
    if measured:
        counts = {"parsed_share": measured[-1]["grounding_parsed"], "answers": round(measured[-1]["grounding_answers"])}
        scores = {"mIoU": measured[-1]["grounding_miou"]}
        fill_evaluation(
            folder / CARD_FILE,
            {"protocol": "strict", "grounding": scores, "counts": {"grounding": counts}},
            {"grounding": ("mIoU",)},
            f"{data}, first {args.grounding_videos} videos of the test split",
        )


def push_result(args: Any) -> None:
    """Upload the merged checkpoint of a finished run if `push_to_hub` asks for it, and print where it is.

    Only the files of the checkpoint are sent, by the first process: no optimizer states, logs or adapters.

    Args:
        args: options of the run.

    Raises:
        SystemExit: with code 1 and one line on stderr if the Hub refuses; the checkpoint is kept.
    """
    if not args.push_result or args.process_index != 0:
        return
    try:
        upload = plan_model(args.output_dir, args.hub_model_id)
        print(f"pushed: {push(upload, private=bool(args.hub_private_repo), token=args.hub_token)}", flush=True)
    except (ConnectionError, FileNotFoundError, ValueError) as error:
        reason, remedy = " ".join(str(error).split()), f"longvale push-model {args.output_dir} {args.hub_model_id}"
        print(f"error: {reason}; the checkpoint is complete, send it with: {remedy}", file=sys.stderr)
        sys.exit(1)


def _publish(source: Path, target: Path) -> None:
    """Move files over those of an earlier run. `config.json`, which loading needs, is removed first and moved last."""
    (target / "config.json").unlink(missing_ok=True)
    shutil.rmtree(target / ADAPTER_FOLDER, ignore_errors=True)
    for path in sorted(source.iterdir(), key=lambda path: path.name == "config.json"):
        os.replace(path, target / path.name)
    source.rmdir()
