"""Reinforcement learning of chat models on raw videos: questions, options, and the trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedModel, ProcessorMixin
from trl import TrlParser

from longvale.data.rows import event_rows
from longvale.data.sources import annotation_file, index_videos, load_videos
from longvale.evaluation.adapters.chat_inputs import ChatInputs, cast_inputs
from longvale.evaluation.adapters.media import VideoReader
from longvale.evaluation.adapters.prompts import word_answer, word_question
from longvale.evaluation.analysis.selection import load_selection
from longvale.registry import time_formats
from longvale.system.names import look_up
from longvale.tasks import TASKS, VIDEO_TOKEN
from longvale.training.chat.arguments import (
    ChatModelConfig,
    ChatScriptArguments,
    rename_options,
    settings_of,
    videos_folder,
)
from longvale.training.chat.collator import PER_TOKEN, merge_media
from longvale.training.chat.data import usable_rows
from longvale.training.chat.trainer import ChatLoader
from longvale.training.config import AUTO
from longvale.training.grpo import GRPORecipeConfig, VideoGRPOTrainer, choose_questions
from longvale.training.rewards import check_rewards

if TYPE_CHECKING:
    from longvale.training.chat.collator import Inputs


@dataclass
class ChatQuestionArguments(ChatScriptArguments):
    """What a chat model is asked about in GRPO: `dataset_config` names tasks, with commas between."""

    dataset_config: str | None = field(
        default="grounding", metadata={"help": f"Tasks, with commas between: {', '.join(TASKS)}."}
    )


@dataclass
class ChatGRPOConfig(GRPORecipeConfig):
    """How a chat model is trained by GRPO, with the options of [`GRPORecipeConfig`]."""

    # A default that differs from the base class.
    resume_from_checkpoint: str | None = field(
        default=AUTO, metadata={"help": "Checkpoint to resume; auto: the newest complete one in output_dir, if any."}
    )


def parse_chat_grpo_arguments(
    arguments: Sequence[str],
) -> tuple[ChatScriptArguments, ChatGRPOConfig, ChatModelConfig]:
    """Parse the arguments of `recipes/grpo.py` for a chat model.

    Args:
        arguments: of the command line, as [`longvale.training.config.recipe_arguments`] returns them.

    Raises:
        ValueError: if an option is unknown or has an invalid value.
    """
    parser = TrlParser((ChatQuestionArguments, ChatGRPOConfig, ChatModelConfig))
    script, args, model = parser.parse_args_and_config(rename_options(arguments))
    if script.dataset_name != "longvale":
        raise ValueError(
            f"dataset_name: rewards need LongVALE's annotations, not {script.dataset_name!r}; set --data_dir"
        )
    check_rewards(args.rewards, str(script.dataset_config).split(","))
    args.recipe_settings = settings_of(script, model)
    return script, args, model


def load_chat_questions(script: ChatScriptArguments, kept: str | None = None) -> Dataset:
    """Load the questions of a training, with the rewards' columns; videos are read when they are asked about.

    Args:
        script: `dataset_config` names the tasks, with commas between.
        kept: file of `longvale data select`; None for all questions.

    Raises:
        FileNotFoundError: if annotations or the folder of the videos are missing.
        ValueError: if a task is unknown, or too many videos are missing or damaged.
    """
    tasks, form = str(script.dataset_config).split(","), time_formats.create(script.times)
    if unknown := [name for name in tasks if name not in TASKS]:
        raise ValueError(f"dataset_config: no reward can check {unknown[0]!r}; give some of {', '.join(TASKS)}")
    root = videos_folder(script)
    videos, asked = index_videos(root), []
    chosen = load_selection(kept) if kept else None
    for video in load_videos(annotation_file(script.data_dir, script.dataset_train_split)):
        events = [{name: event[name] for name in ("start", "end", "caption")} for event in event_rows(video)]
        for question in choose_questions(video, tasks, chosen):
            event = events[question.sentence_id or 0]
            text = word_question(question, {video.video_id: video}, form)
            asked.append(
                {
                    "prompt": [{"role": "user", "content": f"{VIDEO_TOKEN}\n{text}"}],
                    "id": video.video_id,
                    "video": str(look_up(videos, video.video_id) or root / f"{video.video_id}.mp4"),
                    "task": question.task,
                    "times": script.times,
                    "duration": video.duration,
                    "start": event["start"],
                    "end": event["end"],
                    "events": events,
                    "reference": word_answer(question, video, form),
                }
            )
    if not asked and kept:
        raise ValueError(f"{kept}: names no question of {script.data_dir}")
    usable = usable_rows(script, [row["video"] for row in asked], [row["id"] for row in asked])
    return Dataset.from_list([asked[index] for index in usable])


class ChatGRPOTrainer(VideoGRPOTrainer):
    """GRPO trainer of a chat model, which gets the video both in generation and when answers are scored.

    Args:
        model: to start from; it becomes the base of the adapter.
        args: options.
        processor: of the model.
        train_dataset: rows as [`load_chat_questions`] makes them.
        script: how videos are read.
        adapter: configuration of the adapter.
    """

    video_names = ("videos",)

    def __init__(
        self,
        model: PreTrainedModel,
        args: ChatGRPOConfig,
        processor: ProcessorMixin,
        train_dataset: Dataset,
        script: ChatScriptArguments,
        adapter: LoraConfig,
    ) -> None:
        self._inputs = ChatInputs(model, processor, script.sound)
        self._reader = VideoReader(script.frames, script.frame_size)
        # A sampled placeholder would be an input without a video.
        args.generation_kwargs = {"suppress_tokens": media_tokens(model, processor), **(args.generation_kwargs or {})}
        super().__init__(model, args, processor, train_dataset, adapter, adapter.modules_to_save or ())

    def encode_prompts(
        self, prompts: Sequence[Any], rows: Sequence[dict[str, Any]]
    ) -> tuple[list[list[int]], dict[str, Any], dict[str, Any]]:
        """Return ids with placeholders, the inputs of each row's video, and the inputs of generation."""
        encoded: dict[tuple[str, str], Inputs] = {}
        keys = []
        for prompt, row in zip(prompts, rows, strict=True):
            keys.append((row["video"], prompt[-1]["content"]))
            if keys[-1] not in encoded:  # several answers to one question
                text = keys[-1][1].replace(VIDEO_TOKEN, "", 1).strip()
                rendered = self._inputs.render(self._inputs.question(text), generate=True)
                encoded[keys[-1]] = dict(self._inputs.encode(rendered, self._reader(row["video"])))
        inputs = [encoded[key] for key in keys]
        videos = [{name: values for name, values in row.items() if name not in PER_TOKEN} for row in inputs]
        ids = [row["input_ids"][0].tolist() for row in inputs]
        types = {
            name: [row[name][0].tolist() for row in inputs]
            for name in PER_TOKEN[3:]
            if all(name in row for row in inputs)
        }
        return ids, {"videos": videos}, self._place(merge_media(videos)) | types

    def row_inputs(self, ids: torch.Tensor, rows: slice) -> dict[str, torch.Tensor]:
        """Return the inputs of the videos of some rows, whose prompts and answers are `ids`."""
        inputs = self._place(merge_media(self._video_inputs["videos"][rows]))
        processor = self._inputs.processor
        if "mm_token_type_ids" in processor.model_input_names:
            inputs["mm_token_type_ids"] = torch.tensor(processor.create_mm_token_type_ids(ids.tolist())).to(ids)
        return inputs

    def _place(self, inputs: Inputs) -> Inputs:
        placed = {name: values.to(self.accelerator.device) for name, values in inputs.items()}
        return cast_inputs(placed, self.model.dtype)


def media_tokens(model: PreTrainedModel, processor: ProcessorMixin) -> list[int]:
    """Return the ids of the tokens that mark images, videos and sounds in prompts, sorted.

    Example:
        >>> media_tokens(model, processor)[0]  # of Qwen2.5-Omni  # doctest: +SKIP
        151646
    """
    vocabulary, ends = processor.tokenizer.get_vocab(), ("bos_token", "eos_token", "pad_token", "end_of", "decoder")
    found = {
        value
        for name, value in model.config.to_dict().items()
        if name.endswith(("_token_id", "_token_index")) and not name.startswith(ends) and isinstance(value, int)
    }
    for name in dir(processor):
        token = getattr(processor, name) if name.endswith("_token") and not name.startswith(ends) else None
        if isinstance(token, str) and token in vocabulary:
            found.add(vocabulary[token])
    return sorted(id for id in found if 0 <= id < len(vocabulary))


class ChatGRPORun(ChatLoader):
    """One GRPO training of a chat model, with the options of the recipe.

    Args:
        script, args, options: as [`parse_chat_grpo_arguments`] returns them.
    """

    args: ChatGRPOConfig

    #: Grounding is measured while training for LongVALE's own model only.
    callback = None

    def set_up(self) -> ChatGRPOTrainer:
        """Load the data and the model, and return their trainer."""
        dataset = load_chat_questions(self.script, self.args.questions)
        model, self.processor = self.load(self.options.load_in_4bit)
        return ChatGRPOTrainer(model, self.args, self.processor, dataset, self.script, self.adapter(model))
