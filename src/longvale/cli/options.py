"""Arguments, options and groups of options that several commands share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .groups import Group

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Checkpoint: a folder written by save_pretrained, or a Hub id; --model MODEL is the same."
    ),
]
Device = Annotated[
    str | None, typer.Option(help="Device, such as cpu or cuda:1.", show_default="an accelerator if there is one")
]
AttnImplementation = Annotated[
    str | None,
    typer.Option(help="Attention, such as sdpa, eager or flash_attention_2.", show_default="that of transformers"),
]
DeviceMap = Annotated[
    str | None,
    typer.Option(help="Instead of --device: spread the weights over devices, such as auto.", show_default="none"),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start again instead of resuming.")]
Data = Annotated[
    Path, typer.Option(help="Folder that holds longvale-annotations-eval.json, or a zero-shot benchmark's file.")
]
Timeout = Annotated[float, typer.Option(help="Timeout per complete answer of a server or of a judge, in seconds.")]
MaxNewTokens = Annotated[
    int | None, typer.Option(help="Longest answer in tokens.", show_default="enough for each task")
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric", help="Another metric of LongVALE's tasks; see longvale list metrics.", show_default="none"
    ),
]


@dataclass(eq=False, repr=False)
class QuestionOptions(Group, panel="Questions"):
    """Which questions are asked."""

    tasks: Annotated[
        str,
        typer.Option(
            help="Tasks: all, or some of grounding,dense_captioning,segment_captioning with commas between; or "
            "zero-shot ones, music_avqa or avsd,avsd_first, or those of a benchmark at package.module:Name."
        ),
    ] = "all"
    split: Annotated[str, typer.Option(help="Split: test or train; for zero-shot tasks also validation.")] = "test"
    prompt: Annotated[
        str | None,
        typer.Option(help="Prompt of zero-shot questions: crema, tdc_video, or a text file.", show_default="ours"),
    ] = None
    limit: Annotated[
        int | None, typer.Option(help="Maximum number of videos; the first are used.", show_default="all")
    ] = None
    skip_missing: Annotated[
        bool,
        typer.Option("--skip-missing", help="Leave out videos without a usable file, questions without an answer."),
    ] = False

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `generate`."""
        return {**vars(self), "tasks": self.tasks.split(",")}


@dataclass(eq=False, repr=False)
class InputOptions(Group, panel="Inputs"):
    """Where the model's inputs are."""

    features: Annotated[
        Path | None, typer.Option(help="Folder of stored features.", show_default="DATA/features, if it exists")
    ] = None
    videos: Annotated[
        Path | None,
        typer.Option(help="Folder of videos, if not features.", show_default="DATA/videos, without features"),
    ] = None


@dataclass(eq=False, repr=False)
class GenerationOptions(Group, panel="Generation"):
    """How answers are generated."""

    batch_size: Annotated[int, typer.Option(help="Maximum number of questions per batch.")] = 32
    batch_tokens: Annotated[int, typer.Option(help="Maximum number of tokens per batch, answers included.")] = 32_768
    max_new_tokens: MaxNewTokens = None
    temperature: Annotated[
        float, typer.Option(help="0 takes the likeliest token; the published evaluation drew at 0.05.")
    ] = 0.0
    seed: Annotated[int, typer.Option(help="Random seed of sampling; each question gets its own.")] = 0

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `generate`."""
        from longvale.evaluation.generation.sampling import Decoding

        kept = {name: getattr(self, name) for name in ("batch_size", "batch_tokens", "max_new_tokens")}
        return {**kept, "decoding": Decoding(self.temperature, self.seed)}


@dataclass(eq=False, repr=False)
class ThirdPartyOptions(Group, panel="Third-party models"):
    """Which third-party model answers, and with which inputs."""

    adapter: Annotated[
        str,
        typer.Option(
            help="Kind of model: longvale, chat (a video model of transformers with a chat template, such as "
            "Qwen-Omni), server (any OpenAI-compatible server), or package.module:Name."
        ),
    ] = "longvale"
    server: Annotated[
        str | None,
        typer.Option(
            help="With server: URL, http://HOST/v1. With longvale: where `longvale serve` serves MODEL by that name.",
            show_default="Hugging Face's inference providers",
        ),
    ] = None
    times: Annotated[
        str | None,
        typer.Option(
            "--times",
            "--time-format",
            help="With chat and server: format of times, see longvale list time_formats, or package.module:Name.",
            show_default="that of the checkpoint, else seconds",
        ),
    ] = None
    frames: Annotated[int, typer.Option(help="With chat and server: number of frames per video.")] = 64
    no_sound: Annotated[bool, typer.Option("--no-sound", help="With chat and server: frames without audio.")] = False
    video_as: Annotated[
        str | None,
        typer.Option(
            help="With server: timed-frames (each frame after its time), frames, or video-url (a link to the file).",
            show_default="timed-frames",
        ),
    ] = None
    video_url: Annotated[
        str | None,
        typer.Option(help="With video-url: address of the folder of videos, http://HOST/DIR.", show_default="file://"),
    ] = None
    mm_processor_kwargs: Annotated[
        str | None,
        typer.Option(
            help='With server: options of the model\'s processor as JSON, such as {"use_audio_in_video": true}.',
            show_default="none",
        ),
    ] = None
    concurrency: Annotated[int, typer.Option(help="With server: number of questions in flight.")] = 8
    timeout: Timeout = 600.0

    def arguments(self) -> dict[str, Any]:
        """Return the argument of `generate`."""
        kind = self.adapter
        if kind == "longvale":
            if self.server is None:
                return {"adapter": None}
            kind = "served"  # a LongVALE checkpoint behind `longvale serve`
        from longvale.evaluation.adapters.options import AdapterOptions

        options = {"times": self.times, "frames": self.frames, "sound": not self.no_sound, "timeout_s": self.timeout}
        sent = {"video_as": self.video_as, "video_url": self.video_url}
        sent["processor_options"] = _object("--mm-processor-kwargs", self.mm_processor_kwargs)
        return {"adapter": AdapterOptions(kind, self.server, concurrency=self.concurrency, **options, **sent)}


def _object(option: str, text: str | None) -> dict[str, Any] | None:
    """Read the JSON object of an option."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f'{option} must be a JSON object such as {{"use_audio_in_video": true}}, not {text[:60]!r}')
    return value


@dataclass(eq=False, repr=False)
class JudgeOptions(Group, panel="Judge"):
    """Which model judges dense captions and zero-shot answers."""

    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            help="Model that judges dense captions or zero-shot answers, by its name on the server.",
            show_default="none",
        ),
    ] = None
    judge_url: Annotated[
        str | None,
        typer.Option(
            help="URL of the judge's server, http://HOST/v1.", show_default="Hugging Face's inference providers"
        ),
    ] = None
    judge_max_tokens: Annotated[int, typer.Option(help="Longest reply of the judge in tokens, reasoning included.")] = (
        2048
    )
    timeout: Timeout = 600.0

    def arguments(self) -> dict[str, Any]:
        """Return the argument of `score` and `evaluate`."""
        from longvale.evaluation.benchmarks.judge import choose_judge

        return {"judge": choose_judge(self.judge, self.judge_url, self.judge_max_tokens, self.timeout)}


@dataclass(eq=False, repr=False)
class WeightOptions(Group, panel="Weights"):
    """Where the weights go, and in which precision."""

    device: Device = None
    dtype: Annotated[
        str | None,
        typer.Option(help="Data type of the weights: float32, bfloat16 or float16.", show_default="the checkpoint's"),
    ] = None
    load_in_4bit: Annotated[
        bool,
        typer.Option(
            "--load-in-4bit", help="Language model in 4 bits (NF4); needs a GPU and: pip install bitsandbytes."
        ),
    ] = False
    attn_implementation: AttnImplementation = None
    device_map: DeviceMap = None


@dataclass(eq=False, repr=False)
class RunOptions(Group, panel="Run"):
    """How the command runs."""

    overwrite: Overwrite = False
    quiet: Quiet = False

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the library's functions."""
        return {"overwrite": self.overwrite, "progress": not self.quiet}
