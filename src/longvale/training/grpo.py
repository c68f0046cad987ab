"""Reinforcement learning with verifiable rewards: GRPO (arXiv 2402.03300) for a model that reads videos.

TRL's trainer supports images only: our features would be used in generation but be silently missing when the answers
are scored. [`VideoGRPOTrainer`] passes them to both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin
from trl import GRPOConfig, GRPOTrainer

from longvale.data.rows import event_rows
from longvale.data.sources import annotation_file, load_videos
from longvale.evaluation.adapters.prompts import reword_question, word_answer
from longvale.evaluation.analysis.selection import Key, load_selection
from longvale.evaluation.generation.model import build_prompt
from longvale.events import Annotation
from longvale.features.store import FOLDERS, FeatureStore
from longvale.registry import time_formats
from longvale.tasks import TASKS, Question, Task, check_tasks, questions
from longvale.training.config import claim_push, fit_to_machine, resume_choice
from longvale.training.rewards import REWARDS, check_rewards
from longvale.training.stages import (
    TRAINED_PROJECTORS,
    AtomicCheckpointMixin,
    keep_trained_weights_in_float32,
    lora_config,
)

logger = logging.getLogger(__name__)

_VIDEO_INPUTS = (*FOLDERS.values(), *(f"{name}_mask" for name in FOLDERS.values()))


@dataclass
class GRPORecipeConfig(GRPOConfig):
    """Options of `recipes/grpo.py` for models of any kind: a YAML file (`--config FILE`), then the command line.

    All options of `trl.GRPOConfig` and `transformers.TrainingArguments` are accepted too.

    Raises:
        ValueError: if an option has an invalid value.
    """

    rewards: list[str] = field(
        default_factory=lambda: ["temporal_iou", "answer_format"],
        metadata={"help": f"Of {', '.join(REWARDS)}; reward_weights has a weight for each."},
    )
    overwrite: bool = field(
        default=False,
        metadata={"help": "Train from the beginning where output_dir holds an earlier run, whose checkpoints go."},
    )

    questions: str | None = field(
        default=None, metadata={"help": "File of `longvale data select`: train on these questions only."}
    )

    # Defaults that differ from the base classes.
    gradient_checkpointing: bool | None = field(
        default=None, metadata={"help": "Compute activations a second time in the backward pass to save memory."}
    )
    report_to: str | None = field(default="trackio", metadata={"help": "trackio, tensorboard, wandb, none."})
    project: str = field(default="longvale", metadata={"help": "Under which the logs are kept (trackio, wandb)."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints that are kept."})
    remove_unused_columns: bool | None = field(default=False, metadata={"help": "Must stay off: rewards read columns."})

    #: Settings of the recipe's own options, which resuming compares too.
    recipe_settings: dict[str, Any] = field(default_factory=dict, init=False)

    #: As in [`longvale.training.config.RecipeConfig`].
    push_result: bool = field(default=False, init=False)
    has_card: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.push_result = claim_push(self)
        check_rewards(self.rewards, ())
        if self.use_vllm:
            raise ValueError("use_vllm: TRL does not pass videos to vLLM; leave it out")
        self.resume_from_checkpoint = resume_choice(self.resume_from_checkpoint)
        fit_to_machine(self)
        super().__post_init__()


@dataclass
class GRPOStageConfig(GRPORecipeConfig):
    """Options of `recipes/grpo.py` for LongVALE's own model; those of [`GRPORecipeConfig`] are accepted too.

    Raises:
        ValueError: if an option has an invalid value.
    """

    has_card: ClassVar[bool] = True

    model: str | None = field(default=None, metadata={"help": "Checkpoint to start from, tuned by recipes/sft.py."})
    dtype: Literal["float32", "bfloat16", "float16"] | None = field(
        default=None, metadata={"help": "Of the frozen weights; by default bfloat16 with --bf16, else as stored."}
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={"help": "Attention: eager, sdpa, flash_attention_2 or another one of transformers; default sdpa."},
    )
    load_in_4bit: bool = field(
        default=False,
        metadata={"help": "QLoRA: the frozen language model in 4 bits; needs a GPU and bitsandbytes."},
    )
    data_dir: str | None = field(default=None, metadata={"help": "Folder of the official annotations."})
    features_dir: str | None = field(default=None, metadata={"help": "Feature store of the training videos."})
    tasks: list[str] = field(
        default_factory=lambda: ["grounding"],
        metadata={"help": f"Asked about: {', '.join(TASKS)}."},
    )
    max_missing: float = field(
        default=0.05,
        metadata={"help": "Share of videos that may lack features, 0 to 1; above it training does not start."},
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

    def __post_init__(self) -> None:
        for name in ("model", "data_dir", "features_dir"):
            if not getattr(self, name):
                raise ValueError(f"{name} is not given; set --{name}")
        self.tasks = list(check_tasks(self.tasks))
        check_rewards(self.rewards, self.tasks)
        super().__post_init__()

    @property
    def weights_dtype(self) -> str | None:
        """Return the dtype of the frozen weights; None for the stored one."""
        return self.dtype or ("bfloat16" if self.bf16 else None)


def load_questions(args: GRPOStageConfig, widths: dict[str, int], times: str = "") -> Dataset:
    """Load the questions about the training videos, with the rewards' columns; features are read on access.

    Args:
        args: options of the stage.
        widths: of the features by modality.
        times: format of the times of the model; empty for timecodes.

    Raises:
        FileNotFoundError: if annotations or features are missing.
        ValueError: if a file is invalid, no video has features, or too many lack them.
    """
    path, store = annotation_file(args.data_dir, "train"), FeatureStore(args.features_dir, widths=widths)
    asked, without, form = [], 0, time_formats.create(times) if times else None
    kept = load_selection(args.questions) if args.questions else None
    for video in load_videos(path):
        if not store.has(video.video_id):
            without += 1
            continue
        events = [{name: event[name] for name in ("start", "end", "caption")} for event in event_rows(video)]
        for question in choose_questions(video, args.tasks, kept):
            span = events[question.sentence_id or 0]
            text = reword_question(question, video, form) if form else question.question
            asked.append(
                {
                    "prompt": [{"role": "user", "content": text}],
                    "id": video.video_id,
                    "task": question.task,
                    "times": times,
                    "duration": video.duration,
                    "start": span["start"],
                    "end": span["end"],
                    "events": events,
                    "reference": word_answer(question, video, form) if form else question.reference,
                }
            )
    if not asked and kept is not None:
        raise ValueError(f"{args.questions}: names no question of {path} whose video has features")
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


def choose_questions(video: Annotation, tasks: Sequence[Task], kept: Container[Key] | None) -> Iterator[Question]:
    """Yield the questions about a video; with `kept`, those that are named there.

    Args:
        video: with its events.
        tasks: asked about.
        kept: keys, as [`longvale.evaluation.analysis.selection.load_selection`] returns them; None for all questions.
    """
    for question in questions(video, tasks):
        if kept is None or question.key in kept:
            yield question


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

    Here are all methods of TRL that are private and replaced. Other kinds of models replace `encode_prompts`,
    `row_inputs` and `video_names`.

    Args:
        model: to start from; it becomes the base of the adapter.
        args: options.
        processor: of the model.
        train_dataset: rows as [`load_questions`] makes them.
        adapter: configuration of the adapter; by default that of a stage.
        trained: parts that are trained in full; their weights become float32.
        kwargs: for `GRPOTrainer`.
    """

    #: Names of the inputs of a batch that hold its videos, one item per row.
    video_names: Sequence[str] = _VIDEO_INPUTS

    def __init__(
        self,
        model: PreTrainedModel,
        args: GRPORecipeConfig,
        processor: ProcessorMixin,
        train_dataset: Dataset,
        adapter: LoraConfig | None = None,
        trained: Sequence[str] = TRAINED_PROJECTORS,
        **kwargs: Any,
    ) -> None:
        self._video_inputs: dict[str, Any] = {}
        self._rows: Sequence[dict[str, Any]] = ()
        super().__init__(
            model=model,
            args=args,
            reward_funcs=[REWARDS[name] for name in args.rewards],
            train_dataset=train_dataset,
            processing_class=processor,
            peft_config=adapter or lora_config(model, args),
            **kwargs,
        )
        keep_trained_weights_in_float32(self.model, trained)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: TRL's card shows a text pipeline, which does not take videos."""

    def encode_prompts(
        self, prompts: Sequence[Any], rows: Sequence[dict[str, Any]]
    ) -> tuple[list[list[int]], dict[str, Any], dict[str, Any]]:
        """Return ids with placeholders, the inputs of each row's video by name, and the inputs of generation.

        Args:
            prompts: messages of each row.
            rows: of the dataset.
        """
        processor = self.processing_class
        columns = {name: [row[name] for row in rows] for name in FOLDERS.values()}
        features, counts = processor.video_inputs(**columns)
        inputs = {name: values.to(self.accelerator.device) for name, values in features.items()}
        texts = [build_prompt(processor, prompt[-1]["content"]) for prompt in prompts]
        ids = processor.tokenize_prompts(processor.expand_placeholders(texts, counts))["input_ids"]
        return ids, inputs, inputs

    def row_inputs(self, ids: torch.Tensor, rows: slice) -> dict[str, torch.Tensor]:
        """Return the inputs of the videos of some rows, whose prompts and answers are `ids` [n, L]."""
        return {name: values[rows] for name, values in self._video_inputs.items()}

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._rows = inputs
        output = super()._generate_and_score_completions(inputs)
        # As part of the output, the inputs of the videos are shuffled and split into batches with the rest.
        return output | self._video_inputs

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Return ids with a placeholder for each feature, and the inputs of generation."""
        ids, self._video_inputs, inputs = self.encode_prompts(prompts, self._rows)
        return ids, None, inputs

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        self._video_inputs = {name: inputs[name] for name in self.video_names if name in inputs}
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(
        self, model: nn.Module, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        return super()._get_per_token_logps_and_entropies(_Seeing(model, self.row_inputs), *args, **kwargs)


class _Seeing:
    """Model wrapper for calls on consecutive chunks of rows that adds the inputs of the videos of each chunk.

    Args:
        model: to call.
        row_inputs: see [`VideoGRPOTrainer.row_inputs`].
    """

    def __init__(self, model: nn.Module, row_inputs: Callable[[torch.Tensor, slice], dict[str, torch.Tensor]]) -> None:
        self.model, self.row_inputs, self.first = model, row_inputs, 0

    def __call__(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        rows = slice(self.first, self.first + len(input_ids))
        self.first = rows.stop
        return self.model(input_ids=input_ids, **kwargs, **self.row_inputs(input_ids, rows))
