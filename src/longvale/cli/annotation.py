"""Commands for annotating your own videos: annotate; its check, export, import, agreement and dialogues."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from .base import app, echo
from .options import Device, Overwrite, Quiet, Timeout

if TYPE_CHECKING:
    from longvale.annotation.pipeline import AnnotationModels
    from longvale.chat_client import Chat

MaxTokens = Annotated[
    int | None,
    typer.Option(
        help="Longest answer of language models and captioners in tokens, reasoning included.",
        show_default="by task: captions 128, correlation 512, dialogues 1024",
    ),
]


class _AnnotateGroup(TyperGroup):
    """Command group: `longvale annotate VIDEO...` runs the pipeline, `longvale annotate check ...` a subcommand."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["run", *(args or ["--help"])]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return (None if name == "run" else name), command, rest


class _RunCommand(TyperCommand):
    """The command `annotate VIDEO...`, whose help lists the subcommands."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        beside = ctx.parent.command.commands
        with formatter.section("Commands beside it"):
            formatter.write_dl(
                [(f"annotate {name}", beside[name].get_short_help_str(80)) for name in beside if name != "run"]
            )
        super().format_epilog(ctx, formatter)


annotation = typer.Typer(cls=_AnnotateGroup, rich_markup_mode=None)
app.add_typer(annotation, name="annotate", help="Annotate your own videos; check and refine that.")


@annotation.command(
    "run",
    cls=_RunCommand,
    epilog="Example: longvale annotate videos --output annotations.json --speech-recogniser openai/whisper-base "
    "--language en",
)
def run(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO...", help="Video files, or folders of them.")],
    output: Annotated[Path, typer.Option(help="Annotations to write (JSON); an unfinished run is resumed.")],
    admission: Annotated[
        str,
        typer.Option(help="all that can be read, or published: 30 to 600 s, 360 pixels, not mostly still or speech."),
    ] = "all",
    min_duration: Annotated[
        float | None, typer.Option(help="Shortest video in seconds.", show_default="by --admission")
    ] = None,
    max_duration: Annotated[
        float | None, typer.Option(help="Longest video in seconds.", show_default="by --admission; 7200 for all")
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            help="Refuse videos in which most speech is of another language, such as en; needs a --speech-recogniser "
            "that identifies languages, such as a multilingual Whisper.",
            show_default="any",
        ),
    ] = None,
    detector: Annotated[str, typer.Option(help="Of cuts: content, transnetv2 or none.")] = "content",
    visual_model: Annotated[
        str | None, typer.Option(help="Tower that stitches clips: CLIP, DINOv2 ...", show_default="colour histograms")
    ] = None,
    audio_model: Annotated[
        str | None, typer.Option(help="Tower that stitches sounds: CLAP ...", show_default="MFCC statistics")
    ] = None,
    towers: Annotated[
        str | None, typer.Option(help="LongVALE checkpoint whose visual tower stitches clips.", show_default=False)
    ] = None,
    video_captioner: Annotated[
        str | None, typer.Option(help="Model that sees clips, or server:NAME.", show_default="measured colours, motion")
    ] = None,
    keyframe_captioner: Annotated[
        str | None, typer.Option(help="Model that sees key frames, or server:NAME.", show_default="measured colours")
    ] = None,
    audio_captioner: Annotated[
        str | None, typer.Option(help="Model that hears clips.", show_default="measured loudness, pitch")
    ] = None,
    speech_recogniser: Annotated[
        str | None, typer.Option(help="Model such as openai/whisper-large-v3.", show_default="measured voice activity")
    ] = None,
    language_model: Annotated[
        str | None,
        typer.Option(help="Model that reasons about sight and sound.", show_default="none: captions are put together"),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(help="URL of an OpenAI-compatible server of the language model.", show_default="load it here"),
    ] = None,
    timeout: Timeout = 120.0,
    max_tokens: MaxTokens = None,
    max_refusals: Annotated[
        int, typer.Option(help="Unusable answers of the language model or a captioner in a row that end the run.")
    ] = 5,
    no_correlation: Annotated[
        bool, typer.Option("--no-correlation", help="Put captions together, to compare with.")
    ] = False,
    keep_names: Annotated[bool, typer.Option("--keep-names", help="Do not remove names of people.")] = False,
    engine: Annotated[str, typer.Option(help="local, or ray for the machines of a Ray cluster.")] = "local",
    concurrency: Annotated[
        int | None, typer.Option(help="Videos worked on at a time.", show_default="1; on a cluster one a CPU")
    ] = None,
    overwrite: Overwrite = False,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Annotate your own videos.

    Admission, boundaries, captions, correlation. By default nothing is downloaded: boundaries come from measured
    descriptors, captions from measurements. Stages are kept next to the output, and the same command resumes.
    """
    from longvale.annotation.boundaries.options import VisualOptions
    from longvale.annotation.filters import format_funnel
    from longvale.annotation.pipeline import AnnotationOptions, annotate

    options = AnnotationOptions(
        filters=_filters(admission, min_duration, max_duration, language), visual=VisualOptions(detector=detector)
    )
    roles = {
        "video": video_captioner,
        "keyframe": keyframe_captioner,
        "audio": audio_captioner,
        "speech": speech_recogniser,
    }
    models = _annotation_models(roles, visual_model, audio_model, towers, server, timeout, max_tokens, device)
    if language_model and not no_correlation:
        from longvale.annotation.correlation import LanguageModelReasoner

        chat = _language_model(language_model, server, timeout, max_tokens, device)
        models = replace(models, reasoner=LanguageModelReasoner(chat, remove_names=not keep_names))
    summary = annotate(
        videos,
        output,
        options=options,
        models=models,
        engine=engine,
        concurrency=concurrency,
        max_refusals=max_refusals,
        overwrite=overwrite,
        progress=not quiet,
    )
    echo(format_funnel(summary.rejections))
    echo(f"{output}: {summary}")


def _filters(admission: str, min_duration: float | None, max_duration: float | None, language: str | None) -> Any:
    from longvale.annotation.filters import ALL, FilterOptions

    known = {"all": ALL, "published": FilterOptions()}
    if admission not in known:
        raise ValueError(f"--admission must be all or published, not {admission!r}")
    chosen = {"min_duration_s": min_duration, "max_duration_s": max_duration, "language": language}
    return replace(known[admission], **{name: value for name, value in chosen.items() if value is not None})


def _annotation_models(
    roles: dict[str, str | None],
    visual_model: str | None,
    audio_model: str | None,
    towers: str | None,
    server: str | None,
    timeout: float,
    max_tokens: int | None,
    device: str | None,
) -> AnnotationModels:
    from longvale.annotation import captions
    from longvale.annotation.pipeline import AnnotationModels

    if visual_model and towers:
        raise ValueError("--visual-model and --towers both stitch clips; give one of them")
    players = dict(captions.template_captioners())
    for role, model in roles.items():
        if model is None:
            continue
        name = model.removeprefix("server:")
        if name != model:
            if server is None:
                raise ValueError(f"{model}: give the URL of the server by --server")
            players[role] = captions.ServerCaptioner(role, _language_model(name, server, timeout, max_tokens, device))
        elif role == "speech":
            players[role] = captions.SpeechRecogniser(model, device)
        else:
            players[role] = captions.TransformersCaptioner(role, model, device, max_tokens=max_tokens)
    chosen: dict[str, Any] = {"captioners": players}
    if visual_model or towers or audio_model:
        from longvale.annotation.boundaries.embedders import (
            CheckpointFrameEmbedder,
            TransformersAudioEmbedder,
            TransformersFrameEmbedder,
        )

        if visual_model:
            chosen["frame_embedder"] = TransformersFrameEmbedder(visual_model, device)
        if towers:
            chosen["frame_embedder"] = CheckpointFrameEmbedder(towers, device)
        if audio_model:
            chosen["audio_embedder"] = TransformersAudioEmbedder(audio_model, device)
    return AnnotationModels(**chosen)


def _language_model(model: str, server: str | None, timeout: float, max_tokens: int | None, device: str | None) -> Chat:
    """Return a chat with a server's model or a local one; `max_tokens` overrides the limit of each task."""
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"--max-tokens must be 1 or more, not {max_tokens}")
    if server is None:
        from longvale.annotation.language_models import TransformersChat

        return TransformersChat(model, device=device, max_tokens=max_tokens)
    from longvale.chat_client import ChatClient

    token = os.environ.get("LONGVALE_SERVER_TOKEN")
    return ChatClient(model, server, token=token, timeout_s=timeout, max_tokens=max_tokens)


Annotations = Annotated[Path, typer.Argument(metavar="ANNOTATIONS", help="Output of longvale annotate (JSON).")]


@annotation.command(epilog="Example: longvale annotate check annotations.json --top 20")
def check(
    annotations: Annotations,
    top: Annotated[int, typer.Option(help="How many events to show.")] = 20,
    output: Annotated[
        Path | None, typer.Option(help="File to write all of them to (JSONL).", show_default="none")
    ] = None,
) -> None:
    """Say which events to look at first, and why."""
    from longvale.annotation.review.check import check_annotations, format_flags, save_flags

    flags = check_annotations(annotations)
    if output is not None:
        save_flags(flags, output)
    echo(format_flags(flags, top))


@annotation.command(
    epilog="Example: longvale annotate export annotations.json --to label-studio --output tasks.json "
    "--videos-url /data/local-files/?d=videos"
)
def export(
    annotations: Annotations,
    output: Annotated[Path, typer.Option(help="Tasks to write (JSON); the labelling interface is written next to it.")],
    to: Annotated[str, typer.Option(help="label-studio.")] = "label-studio",
    videos_url: Annotated[str, typer.Option(help="Where Label Studio finds the video files.")] = (
        "/data/local-files/?d=videos"
    ),
    fps: Annotated[float, typer.Option(help="Frames a second of the timeline.")] = 25.0,
    suffix: Annotated[str, typer.Option(help="Of the video files, if the stages do not name them.")] = ".mp4",
) -> None:
    """Write annotations for people to refine in Label Studio."""
    if to != "label-studio":
        raise ValueError(f"--to must be label-studio, not {to!r}")
    from longvale.annotation.review.label_studio import export_tasks

    count, config = export_tasks(annotations, output, videos_url=videos_url, fps=fps, suffix=suffix)
    echo(f"{output}: {count} tasks; labelling interface: {config}")


@annotation.command(
    "import",
    epilog="Example: longvale annotate import export.json --annotations annotations.json --output refined.json",
)
def import_(
    exported: Annotated[Path, typer.Argument(metavar="EXPORT", help="Export of Label Studio (its JSON format).")],
    annotations: Annotated[Path, typer.Option(help="Annotations that were exported.")],
    output: Annotated[Path, typer.Option(help="Annotations to write (JSON), with a log of the changes.")],
    annotator: Annotated[
        str | None, typer.Option(help="Whose work to take, if several did a video.", show_default="the latest")
    ] = None,
) -> None:
    """Read back what people refined in Label Studio."""
    from longvale.annotation.review.label_studio import import_tasks

    changes, path = import_tasks(exported, annotations, output, annotator=annotator)
    echo(f"{output}: {changes} changes, listed in {path}")


@annotation.command(epilog="Example: longvale annotate agreement first.json second.json")
def agreement(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="Annotations of one annotator.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Annotations of another.")],
) -> None:
    """Say how far two annotators agree: F1 of events by temporal IoU, kappa of relations."""
    from longvale.annotation.review.agreement import agreement_of_files, format_agreement

    echo(format_agreement(agreement_of_files(first, second)))


@annotation.command(epilog="Example: longvale annotate dialogues annotations.json --output dialogues")
def dialogues(
    annotations: Annotations,
    output: Annotated[Path, typer.Option(help="Folder to write; an unfinished run is resumed.")],
    language_model: Annotated[
        str | None, typer.Option(help="Model that writes the instruction set.", show_default="none: it is left out")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="URL of its OpenAI-compatible server.", show_default="load it here")
    ] = None,
    timeout: Timeout = 120.0,
    max_tokens: MaxTokens = None,
    seed: Annotated[int, typer.Option(help="Of the boundary-perception set.")] = 0,
    device: Device = None,
) -> None:
    """Make dialogues for both stages of tuning from annotations."""
    from longvale.annotation.dialogues import make_dialogues

    chat = _language_model(language_model, server, timeout, max_tokens, device) if language_model else None
    counts = make_dialogues(annotations, output, chat=chat, seed=seed)
    echo(f"{output}: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))
