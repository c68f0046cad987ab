"""Training of a chat model: the trained weights, the trainer, and what a run of the recipe does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

from longvale.evaluation.adapters.chat import load_chat_model
from longvale.evaluation.adapters.chat_inputs import ChatInputs
from longvale.evaluation.adapters.media import VideoReader
from longvale.training.chat.collator import ChatCollator
from longvale.training.chat.data import load_conversations
from longvale.training.profile import ProfileCallback
from longvale.training.stages import SafeTrainer

if TYPE_CHECKING:
    from longvale.training.chat.arguments import ChatConfig, ChatModelConfig, ChatScriptArguments

#: Ends of the names of the parts that map encoder outputs to the language model's width.
PROJECTORS = (
    "visual.merger", "visual.merger_list", "visual.deepstack_merger_list", "audio_tower.proj", "audio_tower.proj1",
    "audio_tower.proj2", "connector", "multi_modal_projector", "mm_projector", "vision_projector", "audio_projector",
    "embed_vision", "embed_audio",
)  # fmt: skip


def find_projectors(model: nn.Module) -> list[str]:
    """Return the names of a model's projectors, those in lists one by one.

    Raises:
        ValueError: if the model has none of [`PROJECTORS`].
    """
    found = []
    for name, module in model.named_modules():
        if any(f".{name}".endswith(f".{end}") for end in PROJECTORS):
            inside = [f"{name}.{key}" for key, _ in module.named_children()]
            found += inside if isinstance(module, nn.ModuleList) else [name]
    if not found:
        raise ValueError(
            f"train_projector: no projector of {type(model).__name__} is known; name it in --lora_modules_to_save"
        )
    return found


def chat_lora_config(model: PreTrainedModel, options: ChatModelConfig) -> LoraConfig:
    """Return the adapter configuration of a chat model: a LoRA on every linear layer of its language model.

    "all-linear" would also match the encoders, which must stay frozen. They are excluded by a pattern: PEFT replaces a
    pattern of targets by the last parts of their names if the model has experts.

    Args:
        model: without an adapter.
        options: `lora_*`, `use_rslora`, `use_dora` and `train_projector`.

    Raises:
        ValueError: if the model's language model or projectors are not found.
    """
    decoder = model.get_decoder()
    prefix = next((name for name, module in model.named_modules() if module is decoder and module is not model), None)
    if not prefix:
        raise ValueError(f"{type(model).__name__}: its language model is not found; it cannot be trained here")
    layers = sorted({name.rpartition(".")[2] for name, part in decoder.named_modules() if isinstance(part, nn.Linear)})
    saved = find_projectors(model) if options.train_projector else []
    for part in options.lora_modules_to_save or ():
        if not any(f".{name}".endswith(f".{part}") for name, _ in model.named_modules()):
            raise ValueError(f"lora_modules_to_save: {type(model).__name__} has no part {part!r}")
        saved.append(part)
    return LoraConfig(
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=options.lora_target_modules or layers,
        exclude_modules=None if options.lora_target_modules else rf"(?!{re.escape(prefix)}\.).*",
        target_parameters=options.lora_target_parameters,
        modules_to_save=saved or None,
        use_rslora=options.use_rslora,
        use_dora=options.use_dora,
        task_type="CAUSAL_LM",
    )


class ChatLoader:
    """The model that a run of a recipe starts from.

    Args:
        script, args, options: as [`longvale.training.chat.arguments.parse_chat_arguments`] returns them.
    """

    def __init__(self, script: ChatScriptArguments, args: Any, options: ChatModelConfig) -> None:
        self.script, self.args, self.options = script, args, options
        self.processor: ProcessorMixin | None = None

    @property
    def start(self) -> str:
        """Return the model that the run starts from."""
        return str(self.options.model_name_or_path)

    def load(self, load_in_4bit: bool = False) -> tuple[PreTrainedModel, ProcessorMixin]:
        """Load the model and its processor; the checkpoint will record the format of times.

        Raises:
            FileNotFoundError, ValueError: as in [`longvale.evaluation.adapters.chat.load_chat_model`].
        """
        options = self.options
        dtype = options.dtype if options.dtype != "auto" else None
        model, processor = load_chat_model(
            self.start,
            self.args.device if load_in_4bit else "cpu",
            revision=options.model_revision,
            dtype=dtype or ("bfloat16" if self.args.bf16 else None),
            load_in_4bit=load_in_4bit,
            attn_implementation=options.attn_implementation,
        )
        model.config.time_format = self.script.times
        return model, processor

    def adapter(self, model: PreTrainedModel) -> LoraConfig:
        """Return the configuration of the adapter, after options that depend on it are set.

        Raises:
            ValueError: as in [`chat_lora_config`]; or if trained projectors would get inputs of another type.
        """
        config = chat_lora_config(model, self.options)
        if config.modules_to_save:
            self.args.ddp_find_unused_parameters = True  # a batch may contain no audio
            if model.dtype != torch.float32 and not self.args.bf16:
                raise ValueError(f"train_projector needs --bf16 true with weights of {model.dtype}")
        return config


class ChatRun(ChatLoader):
    """One training of a chat model by `recipes/sft.py`."""

    args: ChatConfig

    def set_up(self) -> SafeTrainer:
        """Load the data and the model, and return their trainer."""
        script, args, options = self.script, self.args, self.options
        dataset = load_conversations(script)
        if script.dataset_streaming and args.max_steps <= 0:
            raise ValueError("max_steps is not given; a stream has no length: set --max_steps")
        model, self.processor = self.load(options.load_in_4bit)
        config = self.adapter(model)
        inputs = ChatInputs(model, self.processor, script.sound)
        reader = VideoReader(script.frames, script.frame_size)
        trainer = SafeTrainer(
            collate=ChatCollator(inputs, reader, args.max_length),
            trained=config.modules_to_save or (),
            model=model,
            args=args,
            train_dataset=dataset,
            processing_class=self.processor,
            peft_config=config,
        )
        if args.profile and args.process_index == 0:
            trainer.add_callback(ProfileCallback(args.output_dir))
        return trainer

    def describe(self, trainer: SafeTrainer) -> str:
        """Describe the data and the inputs of the run, in one line."""
        script = self.script
        count = f"{self.args.max_steps} steps of" if script.dataset_streaming else len(trainer.train_dataset)
        sound = "with sound" if trainer.data_collator.collate.inputs.sound else "without sound"
        name = f"{script.dataset_name}, {script.dataset_config}" if script.dataset_config else script.dataset_name
        return f"{count} conversations ({name}; times: {script.times}; {script.frames} frames, {sound})"
