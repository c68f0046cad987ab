"""Captions of single modalities: four roles with one interface, and the captioners for them.

| role | describes | template (default) | transformers | server |
| --- | --- | --- | --- | --- |
| video | what happens | shots, fades, text on screen: facts | an image-text model, by id | images in a message |
| keyframe | what the middle frame shows | - | the same | the same |
| audio | what is heard | silence, sounds, loudness: facts | an audio-text model, by id | sound in a message |
| speech | what is said | voices, speakers, words of the transcript: facts | - | - |
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal, Protocol, Unpack, get_args
from weakref import WeakValueDictionary

import numpy as np

from ..chat_client import NoAnswer, limit_note
from ..checkpoints.encoders import explain
from ..checkpoints.loading import Weights, choose_place, split_revision, weight_options, weights_note
from ..evaluation.adapters.chat import answer_of
from ..evaluation.adapters.chat_inputs import OMNI_WRITERS
from ..evaluation.adapters.messages import wav
from ..events import Seconds
from ..images import jpeg_uri
from ..models.media import SAMPLING_RATE
from ..registry import captioners
from .facts.fact import Fact
from .facts.sentences import plain
from .language_models import ModelOptions
from .measurements import Measurements
from .tracks import Span, Track

Role = Literal["video", "keyframe", "audio", "speech"]
ROLES: tuple[Role, ...] = get_args(Role)

#: Longest clip in seconds that the captioning models take; longer events are described in parts.
MAX_CLIP_S: Seconds = 30.0

#: Longest caption of a clip in tokens: one or two sentences.
CAPTION_TOKENS = 128

#: Frames per clip for a video captioner.
CLIP_FRAMES = 8


@dataclass(frozen=True)
class Clip:
    """Part of a video that a captioner describes, at most [`MAX_CLIP_S`] long; a whole event for the template.

    Args:
        start: seconds.
        end: seconds.
        frames: uint8 [8, H, W, 3], evenly spaced; None without frames.
        audio: float32 [samples], 16 kHz; empty without sound.
        measured: measurements of the clip.
        tracks: what the tracks of the video hold within the clip.
        facts: what is known of the event without models.
    """

    start: Seconds
    end: Seconds
    frames: np.ndarray | None = field(repr=False)
    audio: np.ndarray = field(repr=False)
    measured: Measurements
    tracks: Mapping[Track, Sequence[Span]] = field(default_factory=dict)
    facts: Sequence[Fact] = ()

    @property
    def key_frame(self) -> np.ndarray | None:
        """Return the middle frame: uint8 [H, W, 3]."""
        return None if self.frames is None else self.frames[len(self.frames) // 2]


class Captioner(Protocol):
    """Interface of a captioner of one role.

    A registered class or function is called with the role and [`ModelOptions`], and returns a captioner.

    Example:
        >>> @captioners.register()
        ... class LengthCaptioner:
        ...     "Says how long a clip lasts."
        ...     size = 48
        ...     def __init__(self, role, options):
        ...         self.name = f"length ({role})"
        ...     def __call__(self, clip):
        ...         return f"Something happens for {clip.end - clip.start:.0f} seconds."
        >>> LengthCaptioner("video", ModelOptions()).name
        'length (video)'
    """

    #: Name in the provenance.
    name: str
    #: Shorter side of the input frames in pixels.
    size: int

    def __call__(self, clip: Clip) -> str:
        """Return a sentence; "" if there is nothing to describe. Raises `NoAnswer` if a model writes none."""


def ask_captioner(captioner: Captioner, clip: Clip) -> str:
    """Return the caption of a clip.

    Raises:
        NoAnswer: if the model writes none, fails on this clip or returns something else than text.
        ServerError: if a server gives no answer.

    Example:
        >>> clip = Clip(0, 5, None, np.zeros(0), Measurements(loudness_db=-90.0, voiced=0.0))
        >>> ask_captioner(TemplateCaptioner("audio"), clip)
        ''
    """
    try:
        text = captioner(clip)
    except RuntimeError as error:  # torch raises it, also without enough memory
        raise NoAnswer(f"{captioner.name}: {' '.join(str(error).split())[:300] or type(error).__name__}") from error
    if not isinstance(text, str):
        raise NoAnswer(f"{captioner.name}: returned {'nothing' if text is None else type(text).__name__}, not text")
    return text


def parts(start: Seconds, end: Seconds) -> list[tuple[Seconds, Seconds]]:
    """Split a time range into the fewest equal parts of at most [`MAX_CLIP_S`].

    Example:
        >>> parts(10.0, 80.0)
        [(10.0, 33.333), (33.333, 56.667), (56.667, 80.0)]
    """
    count = max(1, int(np.ceil(round((end - start) / MAX_CLIP_S, 6))))
    edges = [round(start + (end - start) * index / count, 3) for index in range(count)] + [end]
    return list(itertools.pairwise(edges))


# --- facts -----------------------------------------------------------------------------------------------------------


class TemplateCaptioner:
    """Captioner that puts the facts of an event into plain sentences, without a model.

    Args:
        role: one of the four roles.

    Example:
        >>> known = [Fact("audio", "silence", "silence", 0, 3), Fact("audio", "sounds", "Music", 3, 20, 0.9)]
        >>> clip = Clip(0, 20, None, np.zeros(0), Measurements(), facts=known)
        >>> TemplateCaptioner("audio")(clip)
        'Silence at first. Music.'
    """

    size = 48

    def __init__(self, role: Role) -> None:
        self.name, self._role = f"template of facts ({role})", role

    def __call__(self, clip: Clip) -> str:
        """Return the sentences about the role."""
        return plain(clip.facts, self._role, clip.start, clip.end)


# --- models of transformers ------------------------------------------------------------------------------------------


class TransformersCaptioner:
    """Captioner with a model of transformers: an image-, video- or audio-text model with a chat template.

    An omni model such as Qwen2.5-Omni may fill several roles; only its part that generates text is loaded.

    Args:
        role: video, keyframe or audio.
        model: Hub id, ID@REVISION, or folder.
        device: torch device, such as "cuda:0"; default an accelerator if there is one.
        max_tokens: maximum length of a caption; default [`CAPTION_TOKENS`].
        weights: see [`longvale.checkpoints.loading.Weights`]; the default dtype is the stored one.

    Raises:
        FileNotFoundError: if the model does not exist.
        ValueError: if the model cannot be loaded, has no chat template, or does not take the input of the role.
    """

    size = 336

    def __init__(
        self,
        role: Role,
        model: str,
        device: str | None = None,
        *,
        max_tokens: int | None = None,
        **weights: Unpack[Weights],
    ) -> None:
        self.name, self._role = f"{model}{weights_note(weights)}{limit_note(max_tokens)} ({role})", role
        self._max_tokens = max_tokens or CAPTION_TOKENS
        path, revision = split_revision(model)
        options = weight_options(choose_place(device, weights.get("device_map")), **weights)
        self._loaded = explain(lambda path: load_captioner(path, revision, device, **options), path, revision)
        self._processor, self._model = self._loaded.processor, self._loaded.model
        senses = ("feature_extractor", "audio_processor") if role == "audio" else ("image_processor",)
        if not any(hasattr(self._processor, sense) for sense in senses):
            sense = "hear" if role == "audio" else "see pictures"
            raise ValueError(f"{model}: cannot play the role {role!r}: it does not {sense}; name a model that does")
        if not getattr(self._processor, "chat_template", None):
            raise ValueError(f"{model}: cannot play the role {role!r}: it has no chat template; name one that has")

    def __call__(self, clip: Clip) -> str:
        """Return the model's answer to the prompt of the role."""
        from PIL import Image

        if self._role == "audio":
            if clip.measured.silent:
                return ""
            content = [{"type": "audio", "audio": clip.audio}]
        else:
            if clip.frames is None:
                return ""
            frames = clip.frames if self._role == "video" else clip.key_frame[None]
            content = [{"type": "image", "image": Image.fromarray(frame)} for frame in frames]
        content.append({"type": "text", "text": read_prompt(self._role)})
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._model.device)
        inputs = inputs.to(self._model.dtype)  # only frames and audio; token ids stay integers
        answer = self._model.generate(**inputs, max_new_tokens=self._max_tokens, do_sample=False)
        (text,) = self._processor.batch_decode(answer[:, inputs["input_ids"].shape[1] :], skip_special_tokens=False)
        return " ".join(answer_of(text, self._processor.tokenizer, self.name).split())


class LoadedCaptioner:
    """A processor and its model, which captioners of several roles share.

    Args:
        processor: processor of transformers.
        model: model of transformers.
    """

    def __init__(self, processor: Any, model: Any) -> None:
        self.processor, self.model = processor, model


#: Loaded models by path, revision, device and other options, as long as a captioner uses them.
_LOADED: WeakValueDictionary[tuple[str, str | None, str | None, str], LoadedCaptioner] = WeakValueDictionary()


def load_captioner(path: str, revision: str | None, device: str | None, **options: Any) -> LoadedCaptioner:
    """Load a processor and its model once for all roles that name the same: memory is that of one.

    Args:
        path: Hub id or folder.
        revision: revision of the Hub; None for the default branch.
        device: torch device; None for an accelerator if there is one.
        options: arguments of `from_pretrained`, as [`longvale.checkpoints.loading.weight_options`] returns them.
    """
    import transformers

    from ..models.layers import guard_convolutions

    key = (path, revision, device, str(options))
    loaded = _LOADED.get(key)
    if loaded is None:
        processor = transformers.AutoProcessor.from_pretrained(path, revision=revision)
        kind = transformers.AutoConfig.from_pretrained(path, revision=revision).model_type
        loader = getattr(transformers, OMNI_WRITERS.get(kind, "AutoModelForMultimodalLM"))
        options = {"device_map": device or "auto", "dtype": "auto", **options}
        model = loader.from_pretrained(path, revision=revision, **options)
        loaded = _LOADED[key] = LoadedCaptioner(processor, guard_convolutions(model))
    return loaded


# --- a server --------------------------------------------------------------------------------------------------------


class ServerCaptioner:
    """Captioner with a model on an OpenAI-compatible server that sees, or hears.

    Args:
        role: video, keyframe or audio.
        chat: chat client, such as a [`longvale.chat_client.ChatClient`].
    """

    size = 336

    def __init__(self, role: Role, chat: Callable[..., str]) -> None:
        if role == "speech":
            raise ValueError(
                "a server plays the roles video, keyframe and audio, not speech; name a model of transformers"
            )
        self.name, self._role, self._chat = f"{chat.name} ({role})", role, chat

    def __call__(self, clip: Clip) -> str:
        """Return the server's answer to the frames or the sound, and the prompt of the role."""
        content: list[dict[str, Any]]
        if self._role == "audio":
            if clip.measured.silent:
                return ""
            content = [
                {"type": "input_audio", "input_audio": {"data": wav(clip.audio, SAMPLING_RATE), "format": "wav"}}
            ]
        else:
            if clip.frames is None:
                return ""
            frames = clip.frames if self._role == "video" else clip.key_frame[None]
            content = [{"type": "image_url", "image_url": {"url": jpeg_uri(frame, quality=85)}} for frame in frames]
        content.append({"type": "text", "text": read_prompt(self._role)})
        return " ".join(self._chat([{"role": "user", "content": content}], max_tokens=CAPTION_TOKENS).split())


@captioners.register("template")
def _build_template(role: Role, options: ModelOptions) -> Captioner:
    """Facts in plain sentences, without a model."""
    return TemplateCaptioner(role)


@captioners.register("transformers")
def _build_transformers(role: Role, options: ModelOptions) -> Captioner:
    """A model of transformers: an image-, video- or audio-text model; for speech, a recogniser."""
    if role == "speech":
        raise ValueError(f"transformers:{options.need_model()}: what is said comes from --speech-recogniser")
    return TransformersCaptioner(
        role, options.need_model(), options.device, max_tokens=options.max_tokens, **options.weights
    )


@captioners.register("server")
def _build_server(role: Role, options: ModelOptions) -> Captioner:
    """A model on an OpenAI-compatible server that sees, or hears."""
    if options.server is None:
        raise ValueError(f"server:{options.need_model()}: give the URL of the server by --server")
    return ServerCaptioner(role, options.chat())


def read_prompt(name: str) -> str:
    """Read a prompt of the package, a text file in `prompts`.

    Raises:
        FileNotFoundError: if no prompt has this name.
    """
    return files(__package__).joinpath("prompts", f"{name}.txt").read_text(encoding="utf-8").strip()


def template_captioners() -> Mapping[Role, Captioner]:
    """Return template captioners for all four roles."""
    return {role: TemplateCaptioner(role) for role in ROLES}
