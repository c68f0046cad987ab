"""Processor of LongVALE models: converts media or stored features, and a prompt, to model inputs."""

import math
from typing import Any

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.models.auto import AutoFeatureExtractor, AutoImageProcessor
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack
from transformers.tokenization_utils_base import BatchEncoding

from .configuration_longvale import MODALITIES
from .feature_extraction_beats import FRAME_SHIFT, BeatsFeatureExtractor
from .media import read_media
from .prompts import add_placeholder, break_up_control_tokens, current_template, tokenize_parts
from .video_processing_longvale import (
    LongVALEVideoProcessor,
    as_rows,
    batch_features,
    is_file,
    pad,
    to_type,
    video_rows,
)

#: Raw inputs of the model and their masks; see `LongVALEModel.forward`.
RAW_INPUTS = (
    "pixel_values_videos",
    "input_values",
    "input_values_mask",
    "input_features",
    "input_features_mask",
)

#: Outputs of a call about its text, by `return_NAME`.
_MORE_OUTPUTS = ("mm_token_type_ids", "text_replacement_offsets")


#: Options of `audio_kwargs`; the windows and chunks of the sound follow from the processor.
_AUDIO_OPTIONS = {"sampling_rate", "return_tensors", "load_audio_backend"}

#: Options of the processor that are kept by its video processor and by its sound extractor.
_VIDEO_OPTIONS, _SOUND_OPTIONS = ("num_frames", "preprocessing"), ("audio_window_frames", "preprocessing")


class LongVALEProcessorKwargs(ProcessingKwargs, total=False):
    """Options of a call of [`LongVALEProcessor`]: those of the tokenizer, of the video processor and of the sound."""


class LongVALEProcessor(ProcessorMixin):
    r"""
    Processor that converts a video and a prompt to the inputs of a LongVALE model.

    A video is given raw (a path, bytes, an open file, a [`Media`], or frames) or as stored features. The prompt
    contains `<video>` once; the processor repeats it for each feature of the video: the frames, then the sound windows,
    then the speech windows. In a batch, prompts without a video have no `<video>`.

    Args:
        video_processor ([`LongVALEVideoProcessor`] or an image processor): of the visual tower; an image processor is
            converted.
        feature_extractor (`WhisperFeatureExtractor`): feature extractor of the speech tower.
        tokenizer: tokenizer of the language model. If it has no video placeholder, it is prepared: the placeholder is
            added, and padding is on the left.
        audio_extractor ([`BeatsFeatureExtractor`] or `dict`, *optional*): feature extractor of the sound tower.
        chat_template (`str`, *optional*): Jinja template; the published Vicuna v1.1 conversation by default.
        video_token (`str`): the placeholder.
        speech_window_states (`int`): encoder states (20 ms) per speech window; 256 is the published 5.12 s.
        image_processor (*optional*): image processor of the visual tower, instead of `video_processor`.
        num_frames (`int`, *optional*): frames per video, by default those of the video processor, 100.
        audio_window_frames (`int`, *optional*): filterbank frames (10 ms) per sound window, by default those of the
            sound extractor; 512 is the published 5.12 s.
        preprocessing (`str`, *optional*): `"strict"`, the default, takes frames at the centres of equal parts of the
            duration, and every audio sample counts once. `"official"` is the published preprocessing: frames from the
            first to the last by index, resized without antialiasing; sound windows as in [`BeatsFeatureExtractor`];
            speech windows over whole chunks including their padding, without the last states that fill no window; the
            texts before and after the video are tokenized separately. Both resample sound with a low-pass filter.

    Raises:
        ValueError: if an option is out of range, or the feature extractors have different sampling rates.

    Example:

    ```python
    >>> prompt = processor.apply_chat_template(
    ...     [{"role": "user", "content": "<video>\nWhat happens?"}], add_generation_prompt=True
    ... )  # doctest: +SKIP
    >>> inputs = processor(text=prompt, videos="video.mp4", return_tensors="pt")  # doctest: +SKIP
    ```
    """

    valid_processor_kwargs = LongVALEProcessorKwargs
    text_kwargs = {"return_tensors": "pt"}  # noqa: RUF012

    def __init__(
        self,
        video_processor=None,
        feature_extractor=None,
        tokenizer=None,
        audio_extractor=None,
        chat_template=None,
        video_token="<video>",
        speech_window_states=256,
        **options,
    ):
        video_processor = options.pop("image_processor", video_processor)
        unknown = options.keys() - {*_VIDEO_OPTIONS, *_SOUND_OPTIONS}
        if unknown:
            raise TypeError(f"unknown argument {min(unknown)!r} of the processor")
        video_processor = _video_processor(video_processor, options)
        self.audio_extractor = _audio_extractor(
            audio_extractor, {"preprocessing": video_processor.preprocessing} | options
        )
        chat_template = current_template(chat_template, video_token, video_processor.preprocessing)
        super().__init__(video_processor, feature_extractor, tokenizer, chat_template=chat_template)
        if speech_window_states < 1:
            raise ValueError(f"speech_window_states must be 1 or more, not {speech_window_states}")
        if feature_extractor.sampling_rate != self.audio_extractor.sampling_rate:
            raise ValueError(
                f"the feature extractor wants {feature_extractor.sampling_rate} Hz, but the sound tower hears "
                f"{self.audio_extractor.sampling_rate} Hz; give one of that sampling rate"
            )
        self.video_token = video_token
        self.speech_window_states = speech_window_states
        if video_token not in tokenizer.get_vocab():
            add_placeholder(tokenizer, video_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(video_token)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path, processor_dict=None, **kwargs):
        """Load the parts. Processors of earlier versions have an image processor, and keep all options themselves."""
        saved = {} if processor_dict is None else processor_dict
        options = {}
        for name in {*_VIDEO_OPTIONS, *_SOUND_OPTIONS}:
            earlier, given = saved.pop(name, None), kwargs.pop(name, None)
            options[name] = earlier if given is None else given
        if isinstance(saved.get("video_processor"), dict):
            given = {
                name: v for name, v in kwargs.items() if name in LongVALEVideoProcessor.valid_kwargs.__annotations__
            }
            video_processor = LongVALEVideoProcessor.from_dict(saved["video_processor"], **given)
        else:
            video_processor = AutoImageProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs)
        video_processor = _video_processor(video_processor, options)
        # An argument of `__init__`, to which the base class passes it.
        saved["audio_extractor"] = _audio_extractor(
            saved.get("audio_extractor"), {"preprocessing": video_processor.preprocessing} | options
        )
        feature_extractor = AutoFeatureExtractor.from_pretrained(pretrained_model_name_or_path, **kwargs)
        tokenizer = cls._load_tokenizer_from_pretrained("tokenizer", pretrained_model_name_or_path, **kwargs)
        if "video_processor" not in saved:
            tokenizer.padding_side = "left"  # earlier versions did not save it
        return [video_processor, feature_extractor, tokenizer]

    @property
    def image_processor(self) -> Any:
        """Image processor with the options of the video processor."""
        return self.video_processor.image_processor

    @property
    def num_frames(self) -> int:
        """Frames per video file."""
        return self.video_processor.num_frames

    @property
    def preprocessing(self) -> str:
        """How media are read: `"strict"` or `"official"`."""
        return self.video_processor.preprocessing

    @property
    def audio_window_frames(self) -> int:
        """Filterbank frames (10 ms) per sound window."""
        return self.audio_extractor.window_frames

    @property
    def sampling_rate(self) -> int:
        """Sampling rate of the waveforms for both sound towers, in Hz."""
        return self.feature_extractor.sampling_rate

    @property
    def piece_samples(self) -> int:
        """Length of the pieces into which a long waveform can be split, in samples: at its multiples, the windows of
        both sound towers and the chunks of the speech tower begin together. It is 1920 s for the published windows."""
        hop = self.feature_extractor.hop_length  # samples per mel frame; two frames give one state
        windows = self.audio_window_frames * FRAME_SHIFT, self.speech_window_states * 2 * hop
        return math.lcm(*windows, self.feature_extractor.n_samples)

    @property
    def model_input_names(self) -> list[str]:
        features = [f"{modality}_features" for modality in MODALITIES]
        return ["input_ids", "attention_mask", *features, *(f"{name}_mask" for name in features), *RAW_INPUTS]

    def media_kwargs(self) -> dict:
        """Return the keyword arguments of [`read_media`] that read a file for this processor."""
        return self.video_processor.media_kwargs() | {"sampling_rate": self.sampling_rate}

    def __call__(
        self,
        images=None,
        text=None,
        videos=None,
        audio=None,
        visual_features=None,
        audio_features=None,
        speech_features=None,
        **kwargs: Unpack[LongVALEProcessorKwargs],
    ) -> BatchFeature:
        r"""Convert prompts and videos to model inputs.

        Args:
            text (`str` or `list[str]`, *optional*): prompts, each with the placeholder once if it has a video. Without
                text, only the inputs of the videos are returned, as expected by `model.encode`.
            videos (*optional*): one video per text: a path, a URL, bytes, an open file, a value of a `Video` column of
                datasets, a [`Media`], frames [F, H, W, 3] or [F, 3, H, W] as uint8, or a list of images; None in a list
                for an item with only sound, or without a video.
            audio (*optional*): one sound per text, a waveform (mono floats in [-1, 1], at `sampling_rate`) or a file,
                used with frames; a video file already includes its sound.
            visual_features, audio_features, speech_features (*optional*): one array [n, width] per text, or a list of
                them; any may be None.
            kwargs: options of the tokenizer, such as `padding` (on by default for several texts), and of the video
                processor: `num_frames`, `fps`, `do_sample_frames`, `video_metadata`, `size` and others; also grouped as
                `text_kwargs`, `videos_kwargs` and `audio_kwargs`. `sampling_rate` is checked against that of the
                processor. `return_tensors` is `"pt"` (default), `"np"`, or None for lists of ids.

        Returns:
            [`BatchFeature`] with `input_ids` and `attention_mask` [B, L], and for each modality present either its
            features [B, n, width] and `*_features_mask` [B, n], or the raw inputs of its tower.

        Raises:
            ValueError: if a prompt with a video does not contain the placeholder exactly once, a prompt with the
                placeholder has no video, a feature is not a finite array [n, width], or truncation would remove a part
                of the video.
            TypeError: for an argument unknown to the processor and its parts.
            MediaError: if a file cannot be read.
        """
        if images is not None or kwargs.get("images_kwargs"):
            raise ValueError("images are not taken: give one picture as videos=frames of shape [1, H, W, 3]")
        options = self._options(kwargs)
        return_tensors = options["text_kwargs"].pop("return_tensors", None)
        stored = {"visual": visual_features, "audio": audio_features, "speech": speech_features}
        data, counts = self._inputs_of_videos(stored, videos, audio, options["videos_kwargs"])
        data = to_type(data, return_tensors)
        if text is None:
            if counts is None:
                raise ValueError("give a text, videos or features")
            _check_counts(counts)
            return BatchFeature(data)
        texts = [text] if isinstance(text, str) else list(text)
        return BatchFeature({**self._text_inputs(texts, counts, return_tensors, options["text_kwargs"]), **data})

    def _options(self, kwargs: dict) -> dict:
        """Return the options of a call by modality; refuse unknown ones."""
        groups = LongVALEProcessorKwargs.__annotations__
        known = {"common_kwargs", *groups, *LongVALEVideoProcessor.valid_kwargs.__annotations__}
        known |= {name for group in groups.values() for name in getattr(group, "__annotations__", {})}
        unknown = kwargs.keys() - known
        if unknown:
            raise TypeError(f"unknown argument {min(unknown)!r}; videos are given as videos, audio or *_features")
        unused = (kwargs.get("audio_kwargs") or {}).keys() - _AUDIO_OPTIONS
        if unused:
            raise TypeError(f"audio_kwargs has no {min(unused)!r}: windows of sound follow from the processor")
        options = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        sampling_rate = options["audio_kwargs"].get("sampling_rate")
        if sampling_rate not in (self.sampling_rate, None):
            raise ValueError(f"waveforms are at {sampling_rate} Hz; resample them to {self.sampling_rate} Hz")
        options["videos_kwargs"].pop("return_tensors", None)
        return options

    def video_inputs(
        self, videos=None, audio=None, visual_features=None, audio_features=None, speech_features=None
    ) -> tuple[dict[str, torch.Tensor], list[int] | None]:
        """Return the inputs of the videos of a batch, and how many placeholders each needs.

        Args:
            videos, audio, visual_features, audio_features, speech_features: as in `__call__`.

        Returns:
            Model inputs without text, and the number of features per video; None if no video was given.

        Raises:
            ValueError: if a video has no features of any modality.
        """
        stored = {"visual": visual_features, "audio": audio_features, "speech": speech_features}
        data, counts = self._inputs_of_videos(stored, videos, audio, {})
        _check_counts(counts or ())
        return data, counts

    def _inputs_of_videos(
        self, stored: dict, videos, audio, video_options: dict
    ) -> tuple[dict[str, torch.Tensor], list[int] | None]:
        """As [`video_inputs`], but rows without a video have a count of 0."""
        stored = {modality: values for modality, values in stored.items() if values is not None}
        if not stored:
            return ({}, None) if videos is None and audio is None else self._batch_raw(videos, audio, video_options)
        if videos is not None or audio is not None:
            raise ValueError("give either videos or stored features, not both")
        return batch_features(stored)

    def expand_placeholders(self, texts: list[str], counts: list[int] | None) -> list[str]:
        """Repeat the placeholder of each text `counts[i]` times.

        Args:
            texts: prompts.
            counts: number of features of each text's video, 0 for a text without a video; None if there are no videos.

        Raises:
            ValueError: if the numbers of texts and videos differ, or a text with a video does not contain the
                placeholder once.
        """
        if counts is None:
            counts = [None] * len(texts)
        if len(counts) != len(texts):
            raise ValueError(f"{len(texts)} texts but {len(counts)} videos; give one video a text")
        expanded = []
        for row, (text, count) in enumerate(zip(texts, counts, strict=True)):
            found = text.count(self.video_token)
            if found and count == 0:
                raise ValueError(f"video {row} has neither picture nor sound: no features of any modality")
            if found != bool(count):
                wanted = "it must hold it once" if count else "no video was given for it"
                raise ValueError(f"text {row} holds {self.video_token} {found} times, but {wanted}")
            expanded.append(text.replace(self.video_token, self.video_token * (count or 1)))
        return expanded

    def escape(self, text: str) -> str:
        """Break up placeholders and control tokens in the text of a user, so that they are tokenized as plain text."""
        return break_up_control_tokens(text, self.tokenizer)

    def tokenize_prompts(self, texts: str | list[str], **text_kwargs) -> BatchEncoding:
        """Tokenize the output of a chat template with one begin token, added by the template or the tokenizer.

        With official preprocessing, the texts before and after the placeholders are tokenized separately.
        """
        begin = self.tokenizer.bos_token
        if begin and all(text.startswith(begin) for text in ([texts] if isinstance(texts, str) else texts)):
            text_kwargs.setdefault("add_special_tokens", False)
        if self.preprocessing == "official":
            return tokenize_parts(self.tokenizer, texts, self.video_token, **text_kwargs)
        return self.tokenizer(texts, **text_kwargs)

    def _text_inputs(
        self, texts: list[str], counts: list[int] | None, return_tensors: str | None, text_kwargs: dict
    ) -> dict:
        """Tokenize prompts with repeated placeholders; return offsets in the format of `apply_chat_template`."""
        types, offsets = (text_kwargs.pop(f"return_{name}", False) for name in _MORE_OUTPUTS)
        text_kwargs.setdefault("padding", len(texts) > 1)
        expanded = self.expand_placeholders(texts, counts)
        encoding = self.tokenize_prompts(expanded, **text_kwargs)
        placeholders = [list(ids).count(self.video_token_id) for ids in encoding["input_ids"]]
        for row, (found, count) in enumerate(zip(placeholders, counts or placeholders, strict=True)):
            if found != count:
                raise ValueError(f"text {row} keeps {found} of its {count} video placeholders; raise max_length")
        if types:
            encoding["mm_token_type_ids"] = self.create_mm_token_type_ids(encoding["input_ids"])
        encoding = dict(encoding.convert_to_tensors(return_tensors))
        if offsets:
            encoding["text_replacement_offsets"] = [
                self._replacements(text, count) for text, count in zip(texts, counts or [0] * len(texts), strict=True)
            ]
        return encoding

    def _replacements(self, text: str, count: int) -> list[dict]:
        if not count:
            return []
        start, length = text.find(self.video_token), len(self.video_token)
        replacement = {"text": self.video_token, "replacement": self.video_token * count}
        spans = {"span": (start, start + length), "new_span": (start, start + length * count)}
        return [{"type": "video", **spans, **replacement}]

    # Raw media

    def _multimodal_inputs_from_conversations(self, conversations, audio_loading_params, load_audio_from_video=False):
        """Return one list of videos and one sound per conversation, as files, which the processor reads."""
        videos, sounds = [], []
        for row, conversation in enumerate(conversations):
            parts = [part for m in conversation if isinstance(m.get("content"), list) for part in m["content"]]
            videos.append(_files(parts, "video"))
            heard = _files(parts, "audio")
            if len(heard) > 1:
                raise ValueError(f"text {row} has {len(heard)} sounds; give one sound a text")
            sounds.append(heard[0] if heard else None)
        heard = sounds if any(sound is not None for sound in sounds) else []
        return [[] for _ in videos], videos, heard, {}

    def _batch_raw(self, videos, audio, video_options: dict) -> tuple[dict[str, torch.Tensor], list[int]]:
        videos, audio = [] if videos is None else video_rows(videos), [] if audio is None else as_rows(audio, 2)
        rows = max(len(videos), len(audio))
        videos, audio = videos or [None] * rows, audio or [None] * rows
        if len(videos) != len(audio):
            raise ValueError(f"{len(videos)} videos but {len(audio)} waveforms; give one of each a text, None for none")
        given = enumerate(zip(videos, audio, strict=True))
        samples = [
            self._raw_inputs(*self._read(v, sound, row, video_options), video_options) for row, (v, sound) in given
        ]
        counts = [sample.pop("count") for sample in samples]
        data = {}
        for name in RAW_INPUTS:
            values = [sample.get(name) for sample in samples]
            if any(value is not None for value in values):
                data[name], mask = pad(values, name)
                if name == "pixel_values_videos":
                    data["visual_features_mask"] = mask
        return data, counts

    def _read(self, video, sound, row: int, options: dict) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return the validated frames and waveform of one video; None for each that it lacks."""
        media = self.video_processor.read(video, row, self.sampling_rate, **options)
        if is_file(sound):
            sound = read_media(sound, sampling_rate=self.sampling_rate, num_frames=1).waveform
        if media.waveform is not None and media.sampling_rate != self.sampling_rate:
            raise ValueError(
                f"the sound of video {row} is at {media.sampling_rate} Hz; read it with {self.sampling_rate} Hz"
            )
        waveform = media.waveform if sound is None else sound
        return media.frames, None if waveform is None else _check_waveform(waveform, row)

    def _raw_inputs(self, frames: np.ndarray | None, waveform: np.ndarray | None, options: dict) -> dict:
        """Return the inputs of one video without the batch dimension, and the number of features in `count`."""
        inputs = {"count": 0}
        if frames is not None:
            inputs["pixel_values_videos"] = self.video_processor.pixels(frames, **options)  # [F, 3, H, W]
            inputs["count"] += len(frames)
        if waveform is not None:
            audio = self.audio_extractor(waveform, sampling_rate=self.sampling_rate)
            inputs["input_values"] = audio["input_values"][0]  # [A, T, mels]
            inputs["input_values_mask"] = (~audio["padding_mask"][0]).long()  # [A, T]
            inputs["input_features"], mask = self._speech_inputs(waveform)  # [C, mels, frames], [C, frames]
            inputs["input_features_mask"] = mask
            states = int(mask[:, ::2].sum())
            inputs["count"] += len(inputs["input_values"]) + math.ceil(states / self.speech_window_states)
        return inputs

    def _speech_inputs(self, waveform: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log-mel chunks [C, mels, frames] and the mask of frames to average [C, frames]."""
        length = self.feature_extractor.n_samples
        speech = self.feature_extractor(
            [waveform[start : start + length] for start in range(0, len(waveform), length)],
            sampling_rate=self.sampling_rate,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = speech["attention_mask"].long()
        if self.preprocessing == "official":
            # One state is two frames. All count, including padding, up to the end of the last whole window.
            windows = max(mask.numel() // 2 // self.speech_window_states, 1)
            mask = (torch.arange(mask.numel()) < 2 * windows * self.speech_window_states).long().view_as(mask)
        return speech["input_features"], mask


def _video_processor(processor: Any, options: dict) -> LongVALEVideoProcessor:
    """Return a video processor with changed options; an image processor is converted."""
    if not hasattr(processor, "to_dict"):
        raise TypeError(
            f"{type(processor).__name__} for argument video_processor; give the visual tower's image processor"
        )
    options = {name: options[name] for name in _VIDEO_OPTIONS if options.get(name) is not None}
    if not hasattr(processor, "frame_processor_type"):
        return LongVALEVideoProcessor.from_image_processor(processor, **options)
    same = all(getattr(processor, name) == value for name, value in options.items())
    return processor if same else type(processor)(**processor.to_dict() | options)


def _audio_extractor(extractor: Any, options: dict) -> BeatsFeatureExtractor:
    """Return a sound extractor, new or with changed options."""
    names = {"audio_window_frames": "window_frames"}
    options = {names.get(name, name): options[name] for name in _SOUND_OPTIONS if options.get(name) is not None}
    saved = {} if extractor is None else extractor if isinstance(extractor, dict) else extractor.to_dict()
    if saved and extractor is not saved and all(saved[name] == value for name, value in options.items()):
        return extractor
    return BeatsFeatureExtractor(**saved | options)


def _files(parts: list[dict], kind: str) -> list:
    return [part[key] for part in parts if part["type"] == kind for key in (kind, "url", "path") if key in part]


def _check_waveform(waveform, row: int) -> np.ndarray:
    waveform = np.asarray(waveform)
    if waveform.ndim != 1 or not len(waveform) or not np.issubdtype(waveform.dtype, np.floating):
        raise ValueError(
            f"the waveform of video {row} must be mono floats [samples] in [-1, 1], "
            f"not {waveform.dtype} {list(waveform.shape)}"
        )
    if not np.isfinite(waveform).all():
        raise ValueError(f"the waveform of video {row} holds NaN or infinity; repair or remove it")
    return waveform.astype(np.float32)


def _check_counts(counts: list[int]) -> None:
    if 0 in counts:
        raise ValueError(f"video {counts.index(0)} has neither picture nor sound: no features of any modality")


LongVALEProcessor.register_for_auto_class()

__all__ = ["LongVALEProcessor"]
