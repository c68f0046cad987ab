"""Options of a tuning stage: those of TRL's SFTTrainer, and the model, the data and the LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from transformers import TrainingArguments
from trl import SFTConfig

from longvale.evaluation.adapters.time_formats import check_sentences
from longvale.training.mixture import parse_mixture

#: Value of `resume_from_checkpoint` that selects the newest complete checkpoint.
AUTO = "auto"


#: Option names of the `longvale` commands, and the recipes' names for them.
_COMMANDS_NAMES = {
    "--output": "--output_dir",
    "--data": "--data_dir",
    "--features": "--features_dir",
    "--videos": "--videos_dir",
    "--model_name_or_path": "--model",
}


def recipe_arguments(arguments: Sequence[str]) -> list[str]:
    """Rename arguments of a recipe to the names of its configuration; the names of the commands are accepted too.

    Args:
        arguments: of the command line, without the script.

    Example:
        >>> recipe_arguments(["--model", "base", "--output=tuned", "--data-dir", "corpus"])
        ['--model', 'base', '--output_dir=tuned', '--data_dir', 'corpus']
    """
    renamed = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            name = "--" + name[2:].replace("-", "_")
        renamed.append(_COMMANDS_NAMES.get(name, name) + equals + value)
    return renamed


@dataclass
class RecipeConfig(SFTConfig):
    """Options of `recipes/sft.py` for models of any kind; those of `trl.SFTConfig` are accepted too.

    Defaults that differ from `trl.SFTConfig`: bfloat16 and TF32 where a GPU supports them and plain float32 elsewhere,
    no gradient checkpointing unless requested, two checkpoints kept, logs that stay on this machine.

    Raises:
        ValueError: if an option has an invalid value, or two options conflict; the message names them.

    Example:
        >>> RecipeConfig(effective_batch_size=128).gradient_accumulation_steps
        16
    """

    effective_batch_size: int | None = field(
        default=None,
        metadata={"help": "Dialogues a step over all processes; gradient_accumulation_steps follows from it."},
    )
    overwrite: bool = field(
        default=False,
        metadata={"help": "Train from the beginning where output_dir holds an earlier run, whose checkpoints go."},
    )
    profile: bool = field(
        default=False, metadata={"help": "Profile three steps by torch.profiler: a table, and profile.json, a trace."}
    )

    # Defaults that differ from the base classes.
    gradient_checkpointing: bool | None = field(  # None, not False: any value causes a warning about its new name
        default=None, metadata={"help": "Compute activations a second time in the backward pass to save memory."}
    )
    report_to: str | None = field(
        default="trackio",
        metadata={"help": "What gets the logs: trackio (on this machine), tensorboard, wandb, none."},
    )
    project: str = field(default="longvale", metadata={"help": "Under which the logs are kept (trackio, wandb)."})
    save_steps: float = field(default=200, metadata={"help": "Steps between checkpoints."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints that are kept."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay off: the collator needs every column."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Not needed: every trained weight has a gradient in every step."}
    )

    #: Settings of the recipe's own options, which resuming compares too.
    recipe_settings: dict[str, Any] = field(default_factory=dict, init=False)

    #: Whether the merged checkpoint is pushed to the Hub, set by `push_to_hub`; whether it gets a model card.
    push_result: bool = field(default=False, init=False)
    has_card: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.push_result = claim_push(self)
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns must be false: the collator reads the columns that it would remove")
        self.dataset_kwargs = {"skip_prepare_dataset": True, **(self.dataset_kwargs or {})}
        self.resume_from_checkpoint = resume_choice(self.resume_from_checkpoint)
        fit_to_machine(self)
        super().__post_init__()
        if self.effective_batch_size is not None:
            steps = accumulation_steps(self.effective_batch_size, self.world_size, self.per_device_train_batch_size)
            if self.gradient_accumulation_steps not in (1, steps):
                raise ValueError(
                    f"gradient_accumulation_steps is {self.gradient_accumulation_steps} but effective_batch_size "
                    f"({self.effective_batch_size}) makes it {steps}; leave one of them out"
                )
            self.gradient_accumulation_steps = steps


@dataclass
class SFTStageConfig(RecipeConfig):
    """Options of `recipes/sft.py`: a YAML file (`--config FILE`), which the command line overrides.

    These are for LongVALE's own model; all options of [`RecipeConfig`] are accepted too.

    Raises:
        ValueError: if an option has an invalid value, or two options conflict; the message names them.

    Example:
        >>> args = SFTStageConfig(model="vicuna", data_dir="data", features_dir="features", effective_batch_size=128)
        >>> args.gradient_accumulation_steps, args.dialogues, args.lora_r
        (16, 'boundary_perception', 64)
    """

    has_card: ClassVar[bool] = True

    stage: Literal["boundary_perception", "instruction"] = field(
        default="boundary_perception", metadata={"help": "Which stage this is; the dialogues are named like it."}
    )
    model: str | None = field(
        default=None,
        metadata={"help": "Checkpoint to start from: the base model, or for `instruction` what stage 1 has left."},
    )
    dtype: Literal["float32", "bfloat16", "float16"] | None = field(
        default=None,
        metadata={"help": "Of the frozen weights; by default bfloat16 with --bf16, else as they are stored."},
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={"help": "Attention: eager, sdpa, flash_attention_2 or another one of transformers; default sdpa."},
    )
    load_in_4bit: bool = field(
        default=False,
        metadata={"help": "QLoRA: the frozen language model in 4 bits; needs a GPU and bitsandbytes."},
    )
    data_dir: str | None = field(default=None, metadata={"help": "Folder of the official files."})
    features_dir: str | None = field(default=None, metadata={"help": "Feature store that the videos are read from."})
    videos_dir: str | None = field(default=None, metadata={"help": "Folder of <video_id>.mp4, without features_dir."})
    mixture: list[dict] | None = field(
        default=None,
        metadata={
            "help": "What the training set is made of, in place of the one file of dialogues: in YAML, a list of "
            "dialogues (file below data_dir), features (folders below features_dir) or videos (folder below "
            "videos_dir), and where needed source and weight."
        },
    )
    streaming: bool = field(
        default=False, metadata={"help": "Read the dialogues while training, shuffled 10,000 at a time."}
    )
    times: str | None = field(
        default=None,
        metadata={
            "help": "Format of times in dialogues, see `longvale list time_formats`; by default that of the model, "
            "which is percent, as published, at first. The checkpoint records it, and evaluation asks in it."
        },
    )
    max_missing: float = field(
        default=0.05,
        metadata={"help": "Share of dialogues that may lack media, 0 to 1; above it training does not start."},
    )
    missing_media: Literal["keep", "drop"] = field(
        default="keep",
        metadata={
            "help": "Dialogues whose video lacks features of a modality: keep them with what is there, or drop them."
        },
    )
    dialogues: Literal["boundary_perception", "instruction"] | None = field(
        default=None, metadata={"help": "Which dialogues; by default those of the stage."}
    )
    dialogues_size: str | None = field(
        default=None, metadata={"help": "Which file where data_dir has several, such as 7k or 154k."}
    )
    lora_r: int = field(default=64, metadata={"help": "Rank of the LoRA on the language model."})
    lora_alpha: int = field(default=128, metadata={"help": "Scale of the LoRA, times 1 / rank."})
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout in front of the LoRA."})
    grounding_videos: int = field(
        default=0,
        metadata={
            "help": "Videos of the test split of data_dir, the first ones, whose grounding questions are answered now "
            "and then; 0: none."
        },
    )
    grounding_steps: int = field(
        default=500, metadata={"help": "Steps between two evaluations of grounding (grounding_videos)."}
    )
    grounding_features_dir: str | None = field(
        default=None, metadata={"help": "Feature store of these videos; by default features_dir."}
    )

    # A default that differs from the base classes.
    max_length: int | None = field(
        default=2048, metadata={"help": "Tokens a dialogue at most, its video included; longer ones lose turns."}
    )

    def __post_init__(self) -> None:
        self._check()
        self.dialogues = self.dialogues or self.stage
        if self.streaming:
            # Each process reads the rows itself: one process that sends them out would have to pad all to one length.
            self.accelerator_config = {**(self.accelerator_config or {}), "dispatch_batches": False}
        super().__post_init__()

    @property
    def weights_dtype(self) -> str | None:
        """Return the dtype of the frozen weights; None for the stored one."""
        return self.dtype or ("bfloat16" if self.bf16 else None)

    def _check(self) -> None:
        for name, hint in (("model", "a checkpoint folder"), ("data_dir", "the folder of the official files")):
            if not getattr(self, name):
                raise ValueError(f"{name} is not given; set --{name} to {hint}")
        if self.mixture is None and (self.features_dir is None) == (self.videos_dir is None):
            raise ValueError("give the videos either as features_dir (stored features) or as videos_dir (MP4 files)")
        if self.mixture is not None:
            if self.dialogues_size is not None:
                raise ValueError("dialogues_size chooses a file of data_dir; with a mixture, name the file in it")
            parse_mixture(self.mixture)
        if self.times is not None:
            check_sentences(self.times)
        if not 0 <= self.max_missing <= 1:
            raise ValueError(f"max_missing must be a share, 0 to 1, not {self.max_missing}")
        for name, least in (("lora_r", 1), ("lora_alpha", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
        if self.grounding_videos < 0 or self.grounding_steps < 1:
            raise ValueError(
                f"grounding_videos must be 0 or more and grounding_steps 1 or more, not {self.grounding_videos} and "
                f"{self.grounding_steps}"
            )
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout must be 0 or more and below 1, not {self.lora_dropout}")


def accumulation_steps(effective: int, processes: int, per_device: int) -> int:
    """Return the batches that each process accumulates per step, so that all together see `effective` dialogues.

    Args:
        effective: dialogues per step.
        processes: number of processes.
        per_device: dialogues per batch of one process.

    Raises:
        ValueError: if they cannot be divided equally; the message names the number to change.

    Example:
        >>> accumulation_steps(128, processes=2, per_device=8)
        8
        >>> accumulation_steps(128, processes=3, per_device=8)
        Traceback (most recent call last):
            ...
        ValueError: effective_batch_size (128) is not shared equally by 3 processes; make it 126 or 129
    """
    if effective < 1:
        raise ValueError(f"effective_batch_size must be 1 or more, not {effective}")
    share, rest = divmod(effective, processes)
    if rest:
        nearest = " or ".join(str(n * processes) for n in (share, share + 1) if n)
        raise ValueError(
            f"effective_batch_size ({effective}) is not shared equally by {processes} processes; make it {nearest}"
        )
    if share % per_device:
        divisors = ", ".join(str(n) for n in range(1, share + 1) if share % n == 0)
        raise ValueError(
            f"per_device_train_batch_size ({per_device}) does not divide the {share} dialogues of each process "
            f"(effective_batch_size {effective}, {processes} processes); make it one of {divisors}"
        )
    return share // per_device


def claim_push(args: Any) -> bool:
    """Return whether the result is to be pushed to the Hub, and keep the trainer from pushing its own checkpoints.

    Those contain optimizer states and paths of this machine, and need the Hub before training.

    Raises:
        ValueError: if `hub_model_id` is missing or not a valid name of a repository, or the model gets no card.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    wanted, args.push_to_hub = bool(args.push_to_hub), False
    if wanted:
        if not args.has_card:
            raise ValueError("push_to_hub is for LongVALE's own model, which has a card; use hf upload NAME OUTPUT_DIR")
        if not args.hub_model_id:
            raise ValueError("push_to_hub needs the name of a repository; set --hub_model_id, such as me/longvale-7b")
        try:
            validate_repo_id(args.hub_model_id)
        except HFValidationError as error:
            raise ValueError(f"hub_model_id: {error}") from None
    return wanted


def fit_to_machine(args: TrainingArguments) -> None:
    """Set missing options: the CPU without an accelerator, bfloat16 and TF32 if the GPU supports them."""
    if not torch.accelerator.is_available():
        args.use_cpu = True
    gpu = not args.use_cpu and torch.cuda.is_available()
    if args.bf16 is None:
        args.bf16 = gpu and not args.fp16 and torch.cuda.is_bf16_supported()
    if args.tf32 is None and gpu:
        args.tf32 = torch.cuda.get_device_capability() >= (8, 0) or None


def resume_choice(value: Any) -> str | None:
    """Return what `resume_from_checkpoint` selects: a folder, [`AUTO`], or None."""
    # YAML's `true` is a bool, the command line's a string.
    if value is None or str(value).lower() in ("false", "no", ""):
        return None
    return AUTO if str(value).lower() in (AUTO, "true", "yes") else str(value)
