"""Arguments and options shared by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Checkpoint: a folder written by save_pretrained, or a Hub id; --model MODEL is the same."
    ),
]
Device = Annotated[
    str | None, typer.Option(help="Such as cpu or cuda:1.", show_default="an accelerator if there is one")
]
Dtype = Annotated[
    str | None,
    typer.Option(help="Of the weights: float32, bfloat16 or float16.", show_default="the checkpoint's"),
]
LoadIn4Bit = Annotated[
    bool,
    typer.Option("--load-in-4bit", help="Language model in 4 bits (NF4); needs a GPU and: pip install bitsandbytes."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start again instead of resuming.")]

Data = Annotated[
    Path, typer.Option(help="Folder that holds longvale-annotations-eval.json, or a zero-shot benchmark's file.")
]
Tasks = Annotated[
    str,
    typer.Option(
        help="all, or some of grounding,dense_captioning,segment_captioning with commas between; or zero-shot ones, "
        "music_avqa or avsd,avsd_first."
    ),
]
Split = Annotated[str, typer.Option(help="test or train; of zero-shot tasks also validation.")]
Features = Annotated[
    Path | None, typer.Option(help="Folder of stored features.", show_default="DATA/features, if it exists")
]
Videos = Annotated[
    Path | None, typer.Option(help="Folder of videos, if not features.", show_default="DATA/videos, without features")
]
BatchSize = Annotated[int, typer.Option(help="Questions answered together, at most.")]
BatchTokens = Annotated[int, typer.Option(help="Tokens of a batch at most, answers included.")]
Temperature = Annotated[float, typer.Option(help="0 takes the likeliest token; the published evaluation drew at 0.05.")]
Seed = Annotated[int, typer.Option(help="Of the draws; each question has its own.")]
Prompt = Annotated[
    str | None,
    typer.Option(help="Prompt of zero-shot questions: crema, tdc_video, or a text file.", show_default="ours"),
]
Adapter = Annotated[
    str,
    typer.Option(
        help="Whose model: longvale, chat (a video model of transformers with a chat template, such as Qwen-Omni), or "
        "server (any of the OpenAI kind)."
    ),
]
Server = Annotated[
    str | None,
    typer.Option(help="With server: http://HOST/v1.", show_default="Hugging Face's inference providers"),
]
Times = Annotated[str, typer.Option(help="With chat and server: times in seconds or percent.")]
Frames = Annotated[int, typer.Option(help="With chat and server: frames of a video.")]
NoSound = Annotated[bool, typer.Option("--no-sound", help="With chat and server: frames alone.")]
JudgeModel = Annotated[
    str | None,
    typer.Option("--judge", help="Model that judges zero-shot answers, as the server calls it.", show_default="none"),
]
JudgeUrl = Annotated[
    str | None,
    typer.Option(help="Server of the judge, http://HOST/v1.", show_default="Hugging Face's inference providers"),
]
Timeout = Annotated[float, typer.Option(help="Deadline of a whole answer of a server, or of a judge, in seconds.")]
JudgeMaxTokens = Annotated[int, typer.Option(help="Longest reply of the judge in tokens, reasoning included.")]
MaxNewTokens = Annotated[
    int | None, typer.Option(help="Longest answer in tokens.", show_default="enough for each task")
]
Limit = Annotated[int | None, typer.Option(help="Only the first so many videos.", show_default="all")]
SkipMissing = Annotated[
    bool, typer.Option("--skip-missing", help="Leave out videos without a usable file, questions without an answer.")
]
