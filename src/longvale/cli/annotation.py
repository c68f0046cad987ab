"""Commands for annotating your own videos: annotate; its check, export, import, agreement and dialogues."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from .annotation_options import (
    AdmissionOptions,
    BoundaryOptions,
    CaptionerOptions,
    CorrelationOptions,
    ModelGroup,
    PresetOptions,
    TrackOptions,
    download_presets,
    fill,
    read_preset,
)
from .base import app, echo
from .groups import PanelCommand, arguments, grouped
from .options import RunOptions

if TYPE_CHECKING:
    from longvale.annotation.presets.preset import Preset


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
    epilog="Example: longvale annotate videos --output annotations.json --preset small --language en",
)
@grouped
def run(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO...", help="Video files, or folders of them.")],
    output: Annotated[Path, typer.Option(help="Annotations to write (JSON); an unfinished run is resumed.")],
    presets: PresetOptions,
    admission: AdmissionOptions,
    boundaries: BoundaryOptions,
    captions: CaptionerOptions,
    tracks: TrackOptions,
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
    from longvale.annotation.presets.preset import ROLES
    from longvale.annotation.presets.provenance import describe_roles

    options = AnnotationOptions(filters=admission.filters(), visual=VisualOptions(detector=boundaries.detector))
    preset = presets.load()
    if preset is not None and models.server and correlation.language_model is None:
        _check_server(preset)
    boundaries, captions, tracks, correlation, models = (
        fill(group, preset) for group in (boundaries, captions, tracks, correlation, models)
    )
    roles = {**vars(boundaries), **vars(captions), **vars(tracks), **vars(correlation)}
    roles["diarizer"] = tracks.speaker_model
    with _naming_the_download(preset):
        chosen = AnnotationModels(
            **boundaries.embedders(models.device),
            **captions.models(models.options()),
            **tracks.models(models.options()),
            reasoner=correlation.writer(models.options()),
            origin={
                "preset": presets.preset,
                "models": describe_roles({role: roles.get(role) for role in ROLES}, preset),
            },
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


def _check_server(preset: Preset) -> None:
    """Refuse a server for a language model that a preset loads in this process."""
    model = preset.roles.get("language_model")
    if model is not None and model.name != "server":
        raise ValueError(
            f"--server: preset {preset.name} loads its language model {model.model} here; name the server's with "
            "--language-model"
        )


@contextmanager
def _naming_the_download(preset: Preset | None) -> Iterator[None]:
    """Add to the error of a missing model the command that downloads all of a preset."""
    try:
        yield
    except FileNotFoundError as error:
        if preset is None:
            raise
        command = f"longvale annotate presets {preset.name} --download"
        raise FileNotFoundError(f"{error}; all models of the preset: {command}") from error


@annotation.command("presets", epilog="Example: longvale annotate presets small --download")
def presets_(
    presets: Annotated[
        list[str] | None,
        typer.Argument(metavar="PRESET...", help="Names, or YAML files.", show_default="all of the package"),
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Download their models, and print the sizes.")] = False,
) -> None:
    """List presets: models, sizes, licenses and hardware."""
    from longvale.annotation.presets.listing import format_presets
    from longvale.annotation.presets.preset import preset_names

    if download and not presets:
        raise ValueError(f"--download needs the preset to download; one of {', '.join(preset_names())}")
    found = [read_preset(name) for name in presets or preset_names()]
    if download:
        download_presets(found)
    else:
        echo(format_presets(found))


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
        str,
        typer.Option(
            help="Format: label-studio, rttm, voices-webvtt, voices-srt, or an exporter (see longvale list exporters)."
        ),
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
    from longvale.annotation.review.voices import VOICE_FORMATS, export_voices

    if to in VOICE_FORMATS:
        echo(f"{output}: {export_voices(annotations, output, to)} files")
        return
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
