"""Processor of LongVALE models: converts media or stored features, and a prompt, to model inputs."""

import math
from collections.abc import Sequence
from os import PathLike

import numpy as np
import torch
from torch.nn.functional import interpolate
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin, TextKwargs, Unpack
from transformers.tokenization_utils_base import BatchEncoding

from .configuration_longvale import MODALITIES
from .control_tokens import break_up_control_tokens
from .feature_extraction_beats import FRAME_SHIFT, BeatsFeatureExtractor
from .media import read_media

#: The conversation template of the published model (Vicuna v1.1) in Jinja. `generation` marks the tokens to train on:
#: the assistant's answer and the end token. A message refers to a video by `<video>` or by a content part; sound
#: belongs to its video.
CHAT_TEMPLATE = (
    "{%- macro words(content) -%}"
    "{%- if content is string -%}{{- content -}}"
    "{%- else -%}"
    "{%- for part in content -%}"
    "{%- if part['type'] == 'video' -%}{{- '<video>\\n' -}}"
    "{%- elif part['type'] == 'text' -%}{{- part['text'] -}}"
    "{%- elif part['type'] != 'audio' -%}{{- raise_exception('unknown content: ' ~ part['type']) -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{%- endmacro -%}"
    "{%- if messages[0]['role'] == 'system' -%}"
    "{{- words(messages[0]['content']) -}}{%- set turns = messages[1:] -%}"
    "{%- else -%}"
    "{{- 'A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user\\'s questions.' -}}"
    "{%- set turns = messages -%}"
    "{%- endif -%}"
    "{{- ' ' -}}"
    "{%- for message in turns -%}"
    "{%- if message['role'] == 'user' -%}{{- 'USER: ' ~ words(message['content']) ~ ' ASSISTANT:' -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- ' ' ~ words(message['content']) ~ eos_token -}}{%- endgeneration -%}"
    "{%- else -%}{{- raise_exception('unknown role: ' ~ message['role']) -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
)

#: Raw inputs of the model and their masks; see `LongVALEModel.forward`.
RAW_INPUTS = (
    "pixel_values_videos",
    "input_values",
    "input_values_mask",
    "input_features",
    "input_features_mask",
)


class LongVALEProcessor(ProcessorMixin):
    r"""
    Processor that converts a video and a prompt to the inputs of a LongVALE model.

    A video is given raw (a path, bytes, an open file, a [`Media`], or frames) or as stored features. The prompt
    contains `<video>` once; the processor repeats it for each feature of the video: the frames, then the sound windows,
    then the speech windows.

    Args:
        image_processor: image processor of the visual tower.
        feature_extractor (`WhisperFeatureExtractor`): feature extractor of the speech tower.
        tokenizer: tokenizer of the language model; the video placeholder is added to it if missing.
        chat_template (`str`, *optional*): Jinja template; the published Vicuna v1.1 conversation by default.
        video_token (`str`): the placeholder.
        num_frames (`int`): frames per video.
        audio_window_frames (`int`): filterbank frames (10 ms) per sound window; 512 is the published 5.12 s.
        speech_window_states (`int`): encoder states (20 ms) per speech window; 256 is the published 5.12 s.
        preprocessing (`str`): `"strict"` takes frames at the centres of equal parts of the duration, and every audio
            sample counts once. `"official"` is the published preprocessing: frames from the first to the last by index,
            resized without antialiasing; sound windows as in [`BeatsFeatureExtractor`]; speech windows over whole
            chunks including their padding, without the last states that fill no window. Both resample sound with a
            low-pass filter.

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

    def __init__(
        self,
        image_processor=None,
        feature_extractor=None,
        tokenizer=None,
        chat_template=None,
        video_token="<video>",
        num_frames=100,
        audio_window_frames=512,
        speech_window_states=256,
        preprocessing="strict",
    ):
        chat_template = chat_template or CHAT_TEMPLATE.replace("<video>", video_token)
        super().__init__(image_processor, feature_extractor, tokenizer, chat_template=chat_template)
        if speech_window_states < 1 or num_frames < 1:
            raise ValueError(
                f"num_frames ({num_frames}) and speech_window_states ({speech_window_states}) must be 1 or more"
            )
        self.audio_extractor = BeatsFeatureExtractor(window_frames=audio_window_frames, preprocessing=preprocessing)
        if feature_extractor.sampling_rate != self.audio_extractor.sampling_rate:
            raise ValueError(
                f"the feature extractor wants {feature_extractor.sampling_rate} Hz, but the sound tower hears "
                f"{self.audio_extractor.sampling_rate} Hz; give one of that sampling rate"
            )
        size, crop = image_processor.size, image_processor.crop_size
        if preprocessing == "official" and not (crop and "shortest_edge" in (size or {})):
            raise ValueError(
                "official preprocessing resizes to a shortest edge and crops: give an image processor with "
                "size={'shortest_edge': ...} and crop_size"
            )
        self.video_token = video_token
        self.num_frames = num_frames
        self.audio_window_frames = audio_window_frames
        self.speech_window_states = speech_window_states
        self.preprocessing = preprocessing
        if video_token not in tokenizer.get_vocab():
            tokenizer.add_special_tokens({"additional_special_tokens": [video_token]})
        self.video_token_id = tokenizer.convert_tokens_to_ids(video_token)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
        # For generation in batches, all prompts must end at the same position.
        tokenizer.padding_side = "left"

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
        size = None
        # Scaling while decoding saves memory; the published preprocessing resizes the full frame.
        if self.preprocessing == "strict" and self.image_processor.do_resize:
            wanted = dict(self.image_processor.size)
            size = wanted.get("shortest_edge") or max(wanted.get("height") or 0, wanted.get("width") or 0) or None
        return {
            "num_frames": self.num_frames,
            "size": size,
            "sampling_rate": self.sampling_rate,
            "decode": self.preprocessing,
        }

    def __call__(
        self,
        images=None,
        text=None,
        videos=None,
        audio=None,
        visual_features=None,
        audio_features=None,
        speech_features=None,
        sampling_rate=None,
        return_tensors="pt",
        **text_kwargs: Unpack[TextKwargs],
    ) -> BatchFeature:
        r"""Convert prompts and videos to model inputs.

        Args:
            text (`str` or `list[str]`, *optional*): prompts, each with the placeholder once. Without text, only the
                inputs of the videos are returned, as expected by `model.encode`.
            videos (*optional*): one video per text: a path, a URL, bytes, an open file, a value of a `Video` column of
                datasets, a [`Media`], or frames [F, H, W, 3] as uint8; None in a list for an item with only sound.
            audio (*optional*): one waveform per text (mono floats in [-1, 1], at `sampling_rate`), used with frames; a
                video file already includes its sound.
            visual_features, audio_features, speech_features (*optional*): one array [n, width] per text, or a list of
                them; any may be None.
            sampling_rate (`int`, *optional*): sampling rate of the waveforms, checked against that of the processor.
            return_tensors (`str`): only `"pt"`.
            text_kwargs: arguments of the tokenizer, such as `padding` (on by default for several texts).

        Returns:
            [`BatchFeature`] with `input_ids` and `attention_mask` [B, L], and for each modality present either its
            features [B, n, width] and `*_features_mask` [B, n], or the raw inputs of its tower.

        Raises:
            ValueError: if a prompt does not contain the placeholder exactly once, a row has no video, a feature is not
                a finite array [n, width], or truncation would remove a part of the video.
            TypeError: for an argument unknown to the processor and the tokenizer.
            MediaError: if a file cannot be read.
        """
        if images is not None:
            raise ValueError("images are not taken: give one picture as videos=frames of shape [1, H, W, 3]")
        if return_tensors not in ("pt", None):
            raise ValueError(f"return_tensors must be 'pt', not {return_tensors!r}")
        if sampling_rate not in (self.sampling_rate, None):
            raise ValueError(f"waveforms are at {sampling_rate} Hz; resample them to {self.sampling_rate} Hz")
        unknown = text_kwargs.keys() - TextKwargs.__annotations__.keys()
        if unknown:
            raise TypeError(f"unknown argument {min(unknown)!r}; videos are given as videos, audio or *_features")
        data, counts = self.video_inputs(videos, audio, visual_features, audio_features, speech_features)
        if text is None:
            if counts is None:
                raise ValueError("give a text, videos or features")
            return BatchFeature(data)
        texts = [text] if isinstance(text, str) else list(text)
        return BatchFeature({**self._text_inputs(texts, counts, **text_kwargs), **data})

    def video_inputs(
        self, videos=None, audio=None, visual_features=None, audio_features=None, speech_features=None
    ) -> tuple[dict[str, torch.Tensor], list[int] | None]:
        """Return the inputs of the videos of a batch, and how many placeholders each needs.

        Args:
            videos, audio, visual_features, audio_features, speech_features: as in `__call__`.

        Returns:
            Model inputs without text, and the number of features per video; None if no video was given.
        """
        stored = {"visual": visual_features, "audio": audio_features, "speech": speech_features}
        stored = {modality: values for modality, values in stored.items() if values is not None}
        if not stored:
            return ({}, None) if videos is None and audio is None else self._batch_raw(videos, audio)
        if videos is not None or audio is not None:
            raise ValueError("give either videos or stored features, not both")
        return _batch_stored(stored)

    def expand_placeholders(self, texts: list[str], counts: list[int] | None) -> list[str]:
        """Repeat the placeholder of each text `counts[i]` times.

        Args:
            texts: prompts.
            counts: number of features of each text's video; None if there are no videos.

        Raises:
            ValueError: if the numbers of texts and videos differ, or a text does not contain the placeholder once.
        """
        if counts is None:
            counts = [None] * len(texts)
        if len(counts) != len(texts):
            raise ValueError(f"{len(texts)} texts but {len(counts)} videos; give one video a text")
        expanded = []
        for row, (text, count) in enumerate(zip(texts, counts, strict=True)):
            found = text.count(self.video_token)
            if found != (0 if count is None else 1):
                wanted = "no video was given for it" if count is None else "it must hold it once"
                raise ValueError(f"text {row} holds {self.video_token} {found} times, but {wanted}")
            expanded.append(text if count is None else text.replace(self.video_token, self.video_token * count))
        return expanded

    def escape(self, text: str) -> str:
        """Break up placeholders and control tokens in the text of a user, so that they are tokenized as plain text."""
        return break_up_control_tokens(text, self.tokenizer)

    def tokenize_prompts(self, texts: str | list[str], **text_kwargs) -> BatchEncoding:
        """Tokenize the output of a chat template with one begin token, added by the template or the tokenizer."""
        begin = self.tokenizer.bos_token
        if begin and all(text.startswith(begin) for text in ([texts] if isinstance(texts, str) else texts)):
            text_kwargs.setdefault("add_special_tokens", False)
        return self.tokenizer(texts, **text_kwargs)

    def _text_inputs(
        self, texts: list[str], counts: list[int] | None, return_text_replacement_offsets: bool = False, **text_kwargs
    ) -> dict:
        """Tokenize prompts with repeated placeholders; return offsets in the format of `apply_chat_template`."""
        text_kwargs.setdefault("padding", len(texts) > 1)
        expanded = self.expand_placeholders(texts, counts)
        encoding = self.tokenize_prompts(expanded, return_tensors="pt", **text_kwargs)
        placeholders = (encoding["input_ids"] == self.video_token_id).sum(dim=1).tolist()
        for row, (found, count) in enumerate(zip(placeholders, counts or placeholders, strict=True)):
            if found != count:
                raise ValueError(f"text {row} keeps {found} of its {count} video placeholders; raise max_length")
        if not return_text_replacement_offsets:
            return dict(encoding)
        offsets, length = [], len(self.video_token)
        for text, count in zip(texts, counts or [0] * len(texts), strict=True):
            start = text.find(self.video_token)
            span, new_span = (start, start + length), (start, start + length * count)
            offsets.append([{"type": "video", "span": span, "new_span": new_span}] if count else [])
        return {**encoding, "text_replacement_offsets": offsets}

    # Raw media

    def _batch_raw(self, videos, audio) -> tuple[dict[str, torch.Tensor], list[int]]:
        videos, audio = ([] if given is None else _as_list(given) for given in (videos, audio))
        rows = max(len(videos), len(audio))
        videos, audio = videos or [None] * rows, audio or [None] * rows
        if len(videos) != len(audio):
            raise ValueError(f"{len(videos)} videos but {len(audio)} waveforms; give one of each a text, None for none")
        given = enumerate(zip(videos, audio, strict=True))
        samples = [self._raw_inputs(*self._read(video, sound, row)) for row, (video, sound) in given]
        counts = [sample.pop("count") for sample in samples]
        _check_counts(counts)
        data = {}
        for name in RAW_INPUTS:
            values = [sample.get(name) for sample in samples]
            if any(value is not None for value in values):
                data[name], mask = _pad(values, name)
                if name == "pixel_values_videos":
                    data["visual_features_mask"] = mask
        return data, counts

    def _read(self, video, sound, row: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return the validated frames and waveform of one video; None for each that it lacks."""
        if isinstance(video, list | tuple) and len(video) < 2 and np.ndim(video[:1]) != 4:
            video = video[0] if video else None  # conversations have a list of videos per row
        is_value = isinstance(video, dict) or hasattr(video, "_hf_encoded")  # value of a datasets column
        if isinstance(video, str | PathLike | bytes) or hasattr(video, "read") or is_value:
            video = read_media(video, **self.media_kwargs())
        # Not `isinstance`: the caller's `Media` may be a class of another copy of the code.
        if hasattr(video, "waveform"):
            if video.waveform is not None and video.sampling_rate != self.sampling_rate:
                raise ValueError(
                    f"the sound of video {row} is at {video.sampling_rate} Hz; read it with {self.sampling_rate} Hz"
                )
            frames, waveform = video.frames, video.waveform
        else:
            frames, waveform = video, None
        waveform = waveform if sound is None else sound
        return (
            None if frames is None else _check_frames(frames, row),
            None if waveform is None else _check_waveform(waveform, row),
        )

    def _raw_inputs(self, frames: np.ndarray | None, waveform: np.ndarray | None) -> dict:
        """Return the inputs of one video without the batch dimension, and the number of features in `count`."""
        inputs = {"count": 0}
        if frames is not None:
            inputs["pixel_values_videos"] = self._pixels(frames)  # [F, 3, H, W]
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

    def _pixels(self, frames: np.ndarray) -> torch.Tensor:
        """Convert frames uint8 [F, H, W, 3] to the input of the visual tower, float32 [F, 3, H, W]."""
        if self.preprocessing == "strict":
            images = self.image_processor(list(frames), input_data_format="channels_last", return_tensors="pt")
            return images["pixel_values"]
        options = self.image_processor
        edge, crop = options.size["shortest_edge"], (options.crop_size["height"], options.crop_size["width"])
        pixels = torch.stack([_resize_and_crop(torch.tensor(frame).permute(2, 0, 1), edge, crop) for frame in frames])
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (options.image_mean, options.image_std))
        return (pixels - mean) / std

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


def _batch_stored(stored: dict) -> tuple[dict[str, torch.Tensor], list[int]]:
    columns = {modality: _as_list(values) for modality, values in stored.items()}
    rows = {len(column) for column in columns.values()}
    if len(rows) > 1:
        raise ValueError(f"modalities have features for different numbers of videos: {sorted(rows)}")
    data, counts = {}, [0] * rows.pop()
    for modality, column in columns.items():
        arrays = [None if a is None else _check_features(a, modality, row) for row, a in enumerate(column)]
        arrays = [None if a is None or not len(a) else a for a in arrays]
        if all(a is None for a in arrays):
            continue
        name = f"{modality}_features"
        data[name], data[f"{name}_mask"] = _pad(arrays, name)
        counts = [count + (0 if a is None else len(a)) for count, a in zip(counts, arrays, strict=True)]
    _check_counts(counts)
    return data, counts


def _as_list(values) -> list:
    """Return a list with one entry per text; a value that is not a list or batch [B, n, width] is for one text."""
    if isinstance(values, list | tuple) or getattr(values, "ndim", None) == 3:
        return list(values)
    return [values]


def _check_features(values, modality: str, row: int) -> torch.Tensor:
    features = torch.as_tensor(values if isinstance(values, torch.Tensor) else np.array(values)).float()
    if features.ndim != 2:
        raise ValueError(f"{modality}_features of video {row} must be [n, width], not {list(features.shape)}")
    if not torch.isfinite(features).all():
        raise ValueError(f"{modality}_features of video {row} hold NaN or infinity; extract them again")
    return features


def _check_frames(frames, row: int) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(
            f"frames of video {row} must be uint8 [F, H, W, 3] in RGB, not {frames.dtype} {list(frames.shape)}"
        )
    return frames


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


def _pad(rows: Sequence[torch.Tensor | None], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack [n_i, ...] into [B, max n, ...] padded with zeros on the right; also returns the mask [B, max n]."""
    present = [row for row in rows if row is not None]
    shapes = sorted({tuple(row.shape[1:]) for row in present})
    if len(shapes) > 1:
        raise ValueError(f"{name} of one batch have different shapes: {', '.join(map(str, shapes))}")
    lengths = [0 if row is None else len(row) for row in rows]
    batch = present[0].new_zeros(len(rows), max(lengths), *shapes[0])
    mask = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        if length:
            batch[i, :length] = row
            mask[i, :length] = 1
    return batch, mask


def _resize_and_crop(image: torch.Tensor, edge: int, crop: tuple[int, int]) -> torch.Tensor:
    """Apply the published image transform, uint8 [3, H, W] -> float32 [3, *crop] in about [0, 1].

    torchvision's `Resize(edge, BICUBIC)` and `CenterCrop` on float tensors: bicubic without antialiasing or clamping.
    """
    height, width = image.shape[1:]
    scale = edge / min(height, width)
    size = [edge if side == min(height, width) else int(scale * side) for side in (height, width)]
    resized = interpolate(image[None] / 255, size=size, mode="bicubic", align_corners=False)[0]
    top, left = (round((side - kept) / 2) for side, kept in zip(size, crop, strict=True))
    return resized[:, top : top + crop[0], left : left + crop[1]]


LongVALEProcessor.register_for_auto_class()

__all__ = ["LongVALEProcessor"]
