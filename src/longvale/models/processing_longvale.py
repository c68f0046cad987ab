"""Processor of LongVALE models: media or stored features, and a prompt, to model inputs."""

import math
from os import PathLike

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .feature_extraction_beats import BeatsFeatureExtractor
from .media import Media, read_media


MODALITIES = ("visual", "audio", "speech")

#: The conversation template of the published model (Vicuna v1.1) in Jinja. `generation` marks what a model is trained
#: on: the assistant's words and the end token.
CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' -%}"
    "{%- set system = messages[0]['content'] -%}{%- set turns = messages[1:] -%}"
    "{%- else -%}"
    "{%- set system = 'A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user\\'s questions.' -%}"
    "{%- set turns = messages -%}"
    "{%- endif -%}"
    "{{- system ~ ' ' -}}"
    "{%- for message in turns -%}"
    "{%- if message['content'] is string -%}{%- set content = message['content'] -%}"
    "{%- else -%}"
    "{%- set parts = namespace(text='') -%}"
    "{%- for part in message['content'] -%}"
    "{%- set parts.text = parts.text ~ ('<video>\\n' if part['type'] == 'video' else part['text']) -%}"
    "{%- endfor -%}"
    "{%- set content = parts.text -%}"
    "{%- endif -%}"
    "{%- if message['role'] == 'user' -%}{{- 'USER: ' ~ content ~ ' ASSISTANT:' -}}"
    "{%- else -%}{%- generation -%}{{- ' ' ~ content ~ eos_token -}}{%- endgeneration -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
)


class LongVALEProcessor(ProcessorMixin):
    r"""
    Turns a video and a prompt into the inputs of a LongVALE model.

    A video is given raw (a path, bytes, an open file, a [`Media`], or frames) or as stored features. The prompt holds
    `<video>` once; it is repeated for each feature of the video: the frames, then the sound windows, then the speech
    windows.

    Args:
        image_processor: of the visual tower.
        feature_extractor (`WhisperFeatureExtractor`): of the speech tower.
        tokenizer: of the language model; the video placeholder is added to it if it is not there.
        chat_template (`str`, *optional*): Jinja; the published Vicuna v1.1 conversation when left out.
        video_token (`str`): the placeholder.
        num_frames (`int`): frames taken from a video.
        audio_window_frames (`int`): filterbank frames (10 ms) of a sound window; 512 is the published 5.12 s.
        speech_window_states (`int`): encoder states (20 ms) of a speech window; 256 is the published 5.12 s.
        preprocessing (`str`): `"strict"` takes frames at the centres of equal parts and counts every sample of the
            sound; `"official"` reproduces the published preprocessing.

    Example:

    ```python
    >>> prompt = processor.apply_chat_template(
    ...     [{"role": "user", "content": "<video>\nWhat happens?"}], add_generation_prompt=True, tokenize=False
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
        **kwargs,
    ):
        if preprocessing not in ("strict", "official"):
            raise ValueError(f"preprocessing must be 'strict' or 'official', not {preprocessing!r}")
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
        # Answers are generated in batches: prompts must end together.
        tokenizer.padding_side = "left"
        super().__init__(image_processor, feature_extractor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)
        self.sound_extractor = BeatsFeatureExtractor(window_frames=audio_window_frames, preprocessing=preprocessing)

    @property
    def sampling_rate(self) -> int:
        """Of the waveforms that both sound towers take, in Hz."""
        return self.feature_extractor.sampling_rate

    def media_kwargs(self) -> dict:
        """Keyword arguments for [`read_media`] that give what this processor wants of a file."""
        size = (self.image_processor.size or {}) if self.image_processor.do_resize else {}
        edge = size["shortest_edge"] if "shortest_edge" in size else None
        return {
            "num_frames": self.num_frames,
            # Published preprocessing resizes the full picture; otherwise scaling while decoding saves memory.
            "size": None if self.preprocessing == "official" else edge,
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
        return_tensors="pt",
        **text_kwargs,
    ) -> BatchFeature:
        r"""
        Args:
            text (`str` or `list[str]`, *optional*): prompts, each with the placeholder once. Without text only the
                video's inputs are returned, as `model.encode` takes them.
            videos (*optional*): one video a text: a path, bytes, an open file, a [`Media`], or frames
                [F, H, W, 3] as uint8.
            audio (*optional*): one waveform a text (mono, at `sampling_rate`), beside frames; a path brings its own.
            visual_features, audio_features, speech_features (*optional*): one array [n, width] a text or a list of
                them, any of them None.
            return_tensors (`str`): only `"pt"`.
            text_kwargs: for the tokenizer, such as `padding` (on by default when there are several texts).

        Returns:
            [`BatchFeature`] with `input_ids` and `attention_mask` [B, L], and for each modality that is there either
            its features [B, n, width] and `*_features_mask` [B, n], or the raw inputs of its tower.

        Raises:
            ValueError: if a prompt does not hold the placeholder once, a row has no video at all, or a feature is not a
                finite array [n, width].
            MediaError: if a file cannot be read.
        """
        if images is not None:
            raise ValueError("images are not taken: give one picture as videos=frames of shape [1, H, W, 3]")
        if return_tensors not in ("pt", None):
            raise ValueError(f"return_tensors must be 'pt', not {return_tensors!r}")
        texts = [text] if isinstance(text, str) else text
        data, counts = self.video_inputs(
            videos, audio, visual_features, audio_features, speech_features, size=None if texts is None else len(texts)
        )
        if texts is None:
            if counts is None:
                raise ValueError("give a text, videos or features")
            return BatchFeature(data)
        text_kwargs.setdefault("padding", len(texts) > 1)
        expanded = self.expand_placeholders(texts, counts)
        encoding = self.tokenizer(expanded, return_tensors="pt", **text_kwargs)
        return BatchFeature({**encoding, **data})

    def video_inputs(
        self, videos=None, audio=None, visual_features=None, audio_features=None, speech_features=None, size=None
    ) -> tuple[dict[str, torch.Tensor], list[int] | None]:
        """Inputs of the videos of a batch, and how many placeholders each needs.

        Args:
            videos, audio, visual_features, audio_features, speech_features: as in the call.
            size: number of texts, if there are any.

        Returns:
            model inputs without text, and the number of features a video; None when no video was given.
        """
        stored = {"visual": visual_features, "audio": audio_features, "speech": speech_features}
        if all(value is None for value in stored.values()):
            return ({}, None) if videos is None and audio is None else self._batch_raw(videos, audio)
        if videos is not None or audio is not None:
            raise ValueError("give either videos or stored features, not both")
        return self._batch_stored(stored, size)

    def expand_placeholders(self, texts: list[str], counts: list[int] | None) -> list[str]:
        """Repeat the placeholder of each text `counts[i]` times.

        Args:
            texts: prompts.
            counts: features of each text's video; None when there are no videos at all.

        Raises:
            ValueError: if texts and videos differ in number, or a text does not hold the placeholder once.
        """
        if counts is None:
            counts = [None] * len(texts)
        if len(counts) != len(texts):
            raise ValueError(f"{len(texts)} texts but {len(counts)} videos; give one video a text")
        expanded = []
        for row, (text, count) in enumerate(zip(texts, counts)):
            found = text.count(self.video_token)
            if found != (0 if count is None else 1):
                wanted = "no video was given for it" if count is None else "it must hold it once"
                raise ValueError(f"text {row} holds {self.video_token} {found} times, but {wanted}")
            expanded.append(text if count is None else text.replace(self.video_token, self.video_token * count))
        return expanded

    def escape(self, text: str) -> str:
        """Break up placeholders that a user's words spell, so that they stay words."""
        return text.replace(self.video_token, f"{self.video_token[0]} {self.video_token[1:]}")

    # Stored features

    def _batch_stored(self, stored: dict, size: int | None) -> tuple[dict, list[int]]:
        columns = {modality: _as_list(values, size) for modality, values in stored.items()}
        sizes = {len(column) for column in columns.values() if column is not None}
        if len(sizes) > 1:
            raise ValueError(f"modalities have features for different numbers of videos: {sorted(sizes)}")
        rows = sizes.pop()
        data, counts = {}, [0] * rows
        for modality, column in columns.items():
            arrays = [None if a is None else _check_features(a, modality, row) for row, a in enumerate(column or [])]
            present = [a for a in arrays if a is not None and len(a)]
            if not present:
                continue
            widths = {a.shape[1] for a in present}
            if len(widths) > 1:
                raise ValueError(f"{modality}_features of one batch have different widths: {sorted(widths)}")
            features, mask = _pad([None if a is None or not len(a) else a for a in arrays], present[0].shape[1:])
            data[f"{modality}_features"], data[f"{modality}_features_mask"] = features, mask
            counts = [count + int(n) for count, n in zip(counts, mask.sum(dim=1))]
        _check_counts(counts)
        return data, counts

    # Raw media

    def _batch_raw(self, videos, audio) -> tuple[dict, list[int]]:
        videos = None if videos is None else (list(videos) if isinstance(videos, list | tuple) else [videos])
        audio = None if audio is None else (list(audio) if isinstance(audio, list | tuple) else [audio])
        rows = max(len(videos or []), len(audio or []))
        videos, audio = videos or [None] * rows, audio or [None] * rows
        if len(videos) != len(audio):
            raise ValueError(f"{len(videos)} videos but {len(audio)} waveforms; give one of each a text, None for none")
        samples = [self._raw_inputs(video, sound) for video, sound in zip(videos, audio)]
        counts = [sample.pop("count") for sample in samples]
        _check_counts(counts)
        data = {}
        for name, mask_name in (
            ("pixel_values_videos", "visual_features_mask"),
            ("input_values", "input_values_mask"),
            ("input_features", "input_features_mask"),
        ):
            present = [sample[name] for sample in samples if name in sample]
            if not present:
                continue
            data[name], rows_mask = _pad([sample.get(name) for sample in samples], present[0].shape[1:])
            if mask_name == "visual_features_mask":
                data[mask_name] = rows_mask
            else:
                shape = next(sample[mask_name].shape[1:] for sample in samples if mask_name in sample)
                data[mask_name] = _pad([sample.get(mask_name) for sample in samples], shape)[0].long()
        return data, counts

    def _raw_inputs(self, video, sound) -> dict:
        """Inputs of one video without the batch dimension, and how many features they give."""
        frames, waveform = self._read(video, sound)
        inputs = {"count": 0}
        if frames is not None:
            images = self.image_processor(list(frames), return_tensors="pt")
            inputs["pixel_values_videos"] = images["pixel_values"]  # [F, 3, H, W]
            inputs["count"] += len(frames)
        if waveform is not None:
            sounds = self.sound_extractor(waveform, sampling_rate=self.sampling_rate)
            inputs["input_values"] = sounds["input_values"][0]  # [A, T, mels]
            inputs["input_values_mask"] = (~sounds["padding_mask"][0]).long()  # [A, T]
            chunk = self.feature_extractor.n_samples
            speech = self.feature_extractor(
                [waveform[i : i + chunk] for i in range(0, len(waveform), chunk)],
                sampling_rate=self.sampling_rate,
                return_attention_mask=True,
                return_tensors="pt",
            )
            inputs["input_features"] = speech["input_features"]  # [C, mels, frames]
            inputs["input_features_mask"] = speech["attention_mask"]  # [C, frames]
            states = int(speech["attention_mask"][:, ::2].sum())
            inputs["count"] += len(inputs["input_values"]) + math.ceil(states / self.speech_window_states)
        return inputs

    def _read(self, video, sound) -> tuple[np.ndarray | None, np.ndarray | None]:
        if isinstance(video, str | PathLike | bytes) or hasattr(video, "read"):
            video = read_media(video, **self.media_kwargs())
        if isinstance(video, Media):
            frames, waveform = video.frames, video.waveform
        else:
            frames, waveform = (None if video is None else np.asarray(video)), None
        if sound is not None:
            waveform = np.asarray(sound, dtype=np.float32)
        if frames is not None and (frames.ndim != 4 or frames.shape[-1] != 3):
            raise ValueError(f"frames must be [F, H, W, 3], not {list(frames.shape)}")
        if waveform is not None and (waveform.ndim != 1 or not len(waveform) or not np.isfinite(waveform).all()):
            raise ValueError(f"a waveform must be mono, finite and not empty: shape [samples], not {list(waveform.shape)}")
        return frames, waveform

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask"] + [f"{modality}_features" for modality in MODALITIES]


def _as_list(values, size: int | None) -> list | None:
    """One entry a text: a single array stands for one text."""
    if values is None:
        return None if size is None else [None] * size
    if isinstance(values, list | tuple):
        return list(values)
    if getattr(values, "ndim", None) == 3:
        return list(values)
    return [values]


def _check_features(values, modality: str, row: int) -> torch.Tensor:
    features = torch.as_tensor(np.asarray(values) if not isinstance(values, torch.Tensor) else values).float()
    if features.ndim != 2:
        raise ValueError(f"{modality}_features of video {row} must be [n, width], not {list(features.shape)}")
    if not torch.isfinite(features).all():
        raise ValueError(f"{modality}_features of video {row} hold NaN or infinity; extract them again")
    return features


def _check_counts(counts: list[int]) -> None:
    if 0 in counts:
        raise ValueError(f"video {counts.index(0)} has neither picture nor sound: no features of any modality")


def _pad(rows: list[torch.Tensor | None], shape: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack [n_i, *shape] into [B, max n, *shape] with zeros behind, and tell them apart by a mask [B, max n]."""
    lengths = [0 if row is None else len(row) for row in rows]
    dtype = next(row.dtype for row in rows if row is not None)
    batch = torch.zeros(len(rows), max(lengths), *shape, dtype=dtype)
    mask = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    for i, (row, length) in enumerate(zip(rows, lengths)):
        if length:
            batch[i, :length] = row
            mask[i, :length] = 1
    return batch, mask


LongVALEProcessor.register_for_auto_class()

__all__ = ["LongVALEProcessor"]
