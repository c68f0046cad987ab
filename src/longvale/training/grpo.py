"""Reinforcement learning with verifiable rewards: GRPO (arXiv 2402.03300) for a model that reads videos.

TRL's trainer supports images only: our features would be used in generation but be silently missing when the answers
are scored. [`VideoGRPOTrainer`] passes them to both.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from datasets import Dataset
from torch import nn
from trl import GRPOConfig, GRPOTrainer

from longvale.data.rows import event_rows, rows
from longvale.data.sources import annotation_file, load_videos
from longvale.evaluation.generation.model import build_prompt
from longvale.features.store import FOLDERS, FeatureStore
from longvale.tasks import check_tasks
from longvale.training.config import fit_to_machine, resume_choice
from longvale.training.rewards import REWARDS
from longvale.training.stages import AtomicCheckpointMixin, keep_trained_weights_in_float32, lora_config

if TYPE_CHECKING:
    from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
    from longvale.models.processing_longvale import LongVALEProcessor

logger = logging.getLogger(__name__)

_VIDEO_INPUTS = (*FOLDERS.values(), *(f"{name}_mask" for name in FOLDERS.values()))


@dataclass
class GRPOStageConfig(GRPOConfig):
    """Options of `recipes/grpo.py`: a YAML file (`--config FILE`), which the command line overrides.

    All options of `trl.GRPOConfig` and `transformers.TrainingArguments` are accepted too.

    Raises:
        ValueError: if an option has an invalid value.
    """

    model: str | None = field(default=None, metadata={"help": "Checkpoint to start from, tuned by recipes/sft.py."})
    dtype: Literal["float32", "bfloat16", "float16"] | None = field(
        default=None, metadata={"help": "Of the frozen weights; by default bfloat16 with --bf16, else as stored."}
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={"help": "Attention: eager, sdpa, flash_attention_2 or another one of transformers; default sdpa."},
    )
    data_dir: str | None = field(default=None, metadata={"help": "Folder of the official annotations."})
    features_dir: str | None = field(default=None, metadata={"help": "Feature store of the training videos."})
    tasks: list[str] = field(
        default_factory=lambda: ["grounding"], metadata={"help": "Asked about: grounding, dense_captioning."}
    )
    rewards: list[str] = field(
        default_factory=lambda: ["temporal_iou", "answer_format"],
        metadata={"help": f"Of {', '.join(REWARDS)}; reward_weights has a weight for each."},
    )
    max_missing: float = field(
        default=0.05,
        metadata={"help": "Share of videos that may lack features, 0 to 1; above it training does not start."},
    )
    overwrite: bool = field(
        default=False,
        metadata={"help": "Train from the beginning where output_dir holds an earlier run, whose checkpoints go."},
    )
    lora_r: int = field(default=64, metadata={"help": "Rank of the LoRA on the language model."})
    lora_alpha: int = field(default=128, metadata={"help": "Scale of the LoRA, times 1 / rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout in front of the LoRA."})
    grounding_videos: int = field(
        default=0, metadata={"help": "Videos of the test split whose grounding is measured while training; 0: none."}
    )
    grounding_steps: int = field(default=100, metadata={"help": "Steps between two of these measurements."})
    grounding_features_dir: str | None = field(
        default=None, metadata={"help": "Feature store of these videos; by default features_dir."}
    )

    # Defaults that differ from the base classes.
    gradient_checkpointing: bool | None = field(
        default=None, metadata={"help": "Compute activations a second time in the backward pass to save memory."}
    )
    report_to: str | None = field(default="trackio", metadata={"help": "trackio, tensorboard, wandb, none."})
    project: str = field(default="longvale", metadata={"help": "Under which the logs are kept (trackio, wandb)."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints that are kept."})
    remove_unused_columns: bool | None = field(default=False, metadata={"help": "Must stay off: rewards read columns."})

    def __post_init__(self) -> None:
        for name in ("model", "data_dir", "features_dir"):
            if not getattr(self, name):
                raise ValueError(f"{name} is not given; set --{name}")
        self.tasks = list(check_tasks(self.tasks))
        if "segment_captioning" in self.tasks:
            raise ValueError("tasks: no reward can check segment_captioning; leave it out")
        for name in self.rewards:
            if name not in REWARDS:
                raise ValueError(f"rewards: unknown reward {name!r}; known are {', '.join(REWARDS)}")
        if self.use_vllm:
            raise ValueError("use_vllm: vLLM does not know this model's features; leave it out")
        self.resume_from_checkpoint = resume_choice(self.resume_from_checkpoint)
        fit_to_machine(self)
        super().__post_init__()

    @property
    def weights_dtype(self) -> str | None:
        """Return the dtype of the frozen weights; None for the stored one."""
        return self.dtype or ("bfloat16" if self.bf16 else None)


def load_questions(args: GRPOStageConfig, widths: dict[str, int]) -> Dataset:
    """Load the questions about the training videos, with the rewards' columns; features are read on access.

    Raises:
        FileNotFoundError: if annotations or features are missing.
        ValueError: if a file is invalid, no video has features, or too many lack them.
    """
    path, store = annotation_file(args.data_dir, "train"), FeatureStore(args.features_dir, widths=widths)
    asked, without = [], 0
    for video in load_videos(path):
        if not store.has(video.video_id):
            without += 1
            continue
        events = [{name: event[name] for name in ("start", "end", "caption")} for event in event_rows(video)]
        for task in args.tasks:
            for row in rows(task, video):
                span = row if task == "grounding" else events[0]
                asked.append(
                    {
                        "prompt": [{"role": "user", "content": row["question"]}],
                        "id": row["video_id"],
                        "task": task,
                        "duration": row["duration"],
                        "start": span["start"],
                        "end": span["end"],
                        "events": events,
                    }
                )
    if not asked:
        raise ValueError(f"{store.root}: none of the {without} videos of {path} has its features; make them first")
    share = without / (without + len({row["id"] for row in asked}))
    if share > args.max_missing:
        raise ValueError(
            f"{store.root}: {without} videos of {path} ({share:.1%}) have no features, more than max_missing "
            f"({args.max_missing:.1%}); make them with `longvale features`, or raise max_missing"
        )
    if without:
        logger.warning("%s: %d videos of %s have no features and are left out", store.root, without, path)
    return Dataset.from_list(asked).with_transform(_ReadFeatures(store))


class _ReadFeatures:
    """Transform for `datasets` that adds the features to a batch."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store

    def __call__(self, batch: dict[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        if "id" not in batch:
            return dict(batch)
        videos = [self.store.load(video_id) for video_id in batch["id"]]
        return {**batch, **{FOLDERS[m]: [video[m] for video in videos] for m in FOLDERS}}


class VideoGRPOTrainer(AtomicCheckpointMixin, GRPOTrainer):
    """TRL's GRPO trainer for a model that sees the video both in generation and when answers are scored.

    Args:
        model: to start from; it becomes the base of the adapter.
        args: options.
        processor: of the model.
        train_dataset: rows as [`load_questions`] makes them.
        kwargs: for `GRPOTrainer`.
    """

    def __init__(
        self,
        model: LongVALEForConditionalGeneration,
        args: GRPOStageConfig,
        processor: LongVALEProcessor,
        train_dataset: Dataset,
        **kwargs: Any,
    ) -> None:
        self._video_inputs: dict[str, torch.Tensor] = {}
        self._rows: Sequence[dict[str, Any]] = ()
        super().__init__(
            model=model,
            args=args,
            reward_funcs=[REWARDS[name] for name in args.rewards],
            train_dataset=train_dataset,
            processing_class=processor,
            peft_config=lora_config(model, args),
            **kwargs,
        )
        keep_trained_weights_in_float32(self.model)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: TRL's card shows a text pipeline, which does not take videos."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._rows = inputs
        output = super()._generate_and_score_completions(inputs)
        # As part of the output, rows of features are shuffled and split into batches with the rest.
        return output | self._video_inputs

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, torch.Tensor]]:
        """Return ids with a placeholder for each feature, and the features for generation."""
        processor = self.processing_class
        columns = {name: [row[name] for row in self._rows] for name in FOLDERS.values()}
        features, counts = processor.video_inputs(**columns)
        self._video_inputs = {name: values.to(self.accelerator.device) for name, values in features.items()}
        texts = [build_prompt(processor, prompt[-1]["content"]) for prompt in prompts]
        ids = processor.tokenize_prompts(processor.expand_placeholders(texts, counts))["input_ids"]
        return ids, None, self._video_inputs

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        self._video_inputs = {name: inputs[name] for name in _VIDEO_INPUTS if name in inputs}
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(
        self, model: nn.Module, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        return super()._get_per_token_logps_and_entropies(_Seeing(model, self._video_inputs), *args, **kwargs)


class _Seeing:
    """Model wrapper for calls on consecutive chunks of rows that adds the features of each chunk.

    Args:
        model: to call.
        video_inputs: of all rows.
    """

    def __init__(self, model: nn.Module, video_inputs: dict[str, torch.Tensor]) -> None:
        self.model, self.video_inputs, self.first = model, video_inputs, 0

    def __call__(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        rows = slice(self.first, self.first + len(input_ids))
        self.first = rows.stop
        return self.model(
            input_ids=input_ids, **kwargs, **{name: values[rows] for name, values in self.video_inputs.items()}
        )
