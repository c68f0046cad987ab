"""Options of `recipes/sft.py` for chat models: those of TRL's `ScriptArguments`, `SFTConfig` and `ModelConfig`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml
from transformers import PretrainedConfig
from trl import ModelConfig, ScriptArguments, TrlParser

from longvale.data.sources import absolute
from longvale.models.configuration_longvale import LongVALEConfig
from longvale.registry import time_formats
from longvale.training.config import AUTO, RecipeConfig

logger = logging.getLogger(__name__)

#: Names of LongVALE's own options, and those of TRL that are used here.
_RENAMED = {"--model": "--model_name_or_path"} | dict.fromkeys(
    ("--stage", "--dialogues", "--tasks"), "--dataset_config"
)


@dataclass
class ChatScriptArguments(ScriptArguments):
    """What a chat model is trained on; the options of `trl.ScriptArguments` are accepted too.

    Raises:
        ValueError: if an option has an invalid value; the message names it.

    Example:
        >>> ChatScriptArguments(data_dir="corpus").dataset_name
        'longvale'
    """

    data_dir: str | None = field(
        default=None, metadata={"help": "Folder of the official files, for the dataset longvale."}
    )
    videos_dir: str | None = field(
        default=None,
        metadata={"help": "Folder of the videos: <id>.mp4; by default `videos` in data_dir. Also of relative paths."},
    )
    dialogues_size: str | None = field(
        default=None, metadata={"help": "Which file of dialogues where data_dir has several, such as 7k or 154k."}
    )
    times: str = field(
        default="seconds",
        metadata={"help": "Format of times in questions and answers, see `longvale list time_formats`."},
    )
    frames: int = field(default=64, metadata={"help": "Number of frames per video."})
    frame_size: int = field(default=224, metadata={"help": "Length of a frame's shorter side in pixels."})
    sound: bool = field(default=True, metadata={"help": "Pass the audio to models with audio input."})
    max_missing: float = field(
        default=0.05,
        metadata={"help": "Share of rows whose video may be missing or damaged, 0 to 1; they are left out."},
    )

    def __post_init__(self) -> None:
        if self.dataset_name is None and self.data_dir is not None:
            self.dataset_name = "longvale"
        if self.dataset_name is None:
            raise ValueError(
                "dataset_name is not given; set --data_dir to the folder of the official files, or --dataset_name to a "
                "dataset with messages"
            )
        if self.dataset_name == "longvale":
            if self.data_dir is None:
                raise ValueError("data_dir is not given; set --data_dir to the folder of the official files")
            self.dataset_config = self.dataset_config or "boundary_perception"
        time_formats.get(self.times)
        for name in ("frames", "frame_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if not 0 <= self.max_missing <= 1:
            raise ValueError(f"max_missing must be a share, 0 to 1, not {self.max_missing}")


@dataclass
class ChatConfig(RecipeConfig):
    """How a chat model is trained, with the options of [`RecipeConfig`]; the same command resumes a stopped run."""

    # Defaults that differ from the base class.
    resume_from_checkpoint: str | None = field(
        default=AUTO, metadata={"help": "Checkpoint to resume; auto: the newest complete one in output_dir, if any."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Tokens a conversation at most, its video included; longer ones lose turns."}
    )


@dataclass
class ChatModelConfig(ModelConfig):
    """Which model is trained, and which of its weights; the options of `trl.ModelConfig` are accepted too.

    A LoRA is trained on the language model; encoders, embeddings and head stay frozen.

    Raises:
        ValueError: if an option has an invalid value; the message names it.
    """

    dtype: str | None = field(
        default=None,
        metadata={
            "help": "Of the frozen weights; by default bfloat16 with --bf16, else as they are stored.",
            "choices": ["auto", "bfloat16", "float16", "float32"],
        },
    )
    use_peft: bool = field(default=True, metadata={"help": "Train a LoRA; must stay on."})
    train_projector: bool = field(
        default=False,
        metadata={"help": "Train the projectors of frames and audio too; lora_modules_to_save names further parts."},
    )

    def __post_init__(self) -> None:
        if not self.model_name_or_path:
            raise ValueError("model_name_or_path is not given; set --model_name_or_path to a folder or a Hub id")
        if not self.use_peft:
            raise ValueError("use_peft must be true: the recipe trains a LoRA and merges it; leave the option out")
        if self.load_in_8bit:
            raise ValueError("load_in_8bit is not supported; set --load_in_4bit")
        super().__post_init__()


def is_chat_model(arguments: Sequence[str]) -> bool:
    """Return whether the arguments of a recipe name a model of transformers that is not LongVALE's own.

    Args:
        arguments: of the command line, as [`longvale.training.config.recipe_arguments`] returns them.
    """
    name, revision = _named(arguments, "model"), _named(arguments, "model_revision")
    if name is None:
        return False
    try:
        found = PretrainedConfig.get_config_dict(name, revision=revision)[0].get("model_type")
    except (OSError, ValueError):  # reported when the model is loaded
        return False
    return found not in (None, LongVALEConfig.model_type)


def _named(arguments: Sequence[str], option: str) -> str | None:
    """Return the value of an option on the command line, else in the file of `--config`."""
    given: dict[str, str] = {}
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        name, equals, value = argument.partition("=")
        given[name] = value if equals else following
    if f"--{option}" in given:
        return given[f"--{option}"]
    path = Path(given.get("--config", ""))
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    found = content if isinstance(content, dict) else {}
    value = found.get(option, found.get("model_name_or_path") if option == "model" else None)
    return None if value is None else str(value)


def parse_chat_arguments(
    arguments: Sequence[str],
) -> tuple[ChatScriptArguments, ChatConfig, ChatModelConfig]:
    """Parse the arguments of the recipe for a chat model; option names of LongVALE's own model are read with a note.

    Args:
        arguments: of the command line, as [`longvale.training.config.recipe_arguments`] returns them.

    Raises:
        ValueError: if an option is unknown or has an invalid value.

    Example:
        >>> words = "--model_name_or_path Qwen/Qwen2.5-Omni-7B --data_dir corpus --output_dir out --lora_r 8".split()
        >>> script, args, model = parse_chat_arguments(words)
        >>> script.dataset_config, args.output_dir, model.lora_r
        ('boundary_perception', 'out', 8)
    """
    parser = TrlParser((ChatScriptArguments, ChatConfig, ChatModelConfig))
    script, args, model = parser.parse_args_and_config(rename_options(arguments))
    args.recipe_settings = settings_of(script, model)
    return script, args, model


def rename_options(arguments: Sequence[str]) -> list[str]:
    """Rename options of LongVALE's own model to those of TRL.

    Raises:
        ValueError: if one has no counterpart.

    Example:
        >>> rename_options(["--model=m", "--output_dir", "out"])
        ['--model_name_or_path=m', '--output_dir', 'out']
    """
    renamed = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in ("--features_dir", "--mixture"):
            raise ValueError(
                f"{name[2:]} is for LongVALE's own model; chat models read videos: set --videos_dir, and --dataset_name"
            )
        if name in ("--stage", "--dialogues", "--tasks"):
            logger.warning("--%s is read as %s", name.strip("-"), _RENAMED[name])
        renamed.append(_RENAMED.get(name, name) + equals + value)
    return renamed


def settings_of(script: ChatScriptArguments, model: ChatModelConfig) -> dict[str, Any]:
    """Return the settings that change the result, which resuming compares."""
    settings = asdict(script) | asdict(model)
    for name in ("attn_implementation", "ignore_bias_buffers", "dataset_test_split"):
        del settings[name]
    paths = {name: absolute(settings[name]) for name in ("data_dir", "videos_dir") if settings[name]}
    return settings | paths


def videos_folder(script: ChatScriptArguments) -> Path:
    """Return the folder of LongVALE's videos."""
    return Path(script.videos_dir or Path(script.data_dir, "videos"))
