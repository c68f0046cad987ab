"""Adapter for any transformers video model with a chat template; omni models also receive the audio.

Frames and audio are decoded here, in one pass and at known times, so that the input does not depend on a model's own
reader (torchcodec, decord).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ...chat_replies import ONLY_REASONING, NoAnswer
from ...checkpoints.loading import choose_device, distrust, not_found, weight_options, weights_digest
from ...models.media import MediaError
from ...models.prompts import break_up_control_tokens
from ...reading.reasoning import strip_reasoning
from ...registry import adapters
from .base import Adapter

if TYPE_CHECKING:
    from ...models.media import Media
    from .options import AdapterOptions

#: Models that interleave audio with video frames, and the class of their text generator; the full model also generates
#: speech.
OMNI_WRITERS = {
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen2_5_omni_thinker": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
    "qwen3_omni_moe_thinker": "Qwen3OmniMoeThinkerForConditionalGeneration",
}


#: Ticks per second of the clock in [`video_metadata`].
_TICKS = 1000


@adapters.register("chat")
class ChatAdapter(Adapter):
    """A video model of transformers with a chat template, such as Qwen-Omni.

    Args:
        model: folder, Hub ID, or a (model, processor) pair.
        device: device such as "cpu"; by default an accelerator if available.
        dtype, load_in_4bit: see [`load_chat_model`].
        options: arguments of [`Adapter`]. A model without audio input never receives the audio.

    Raises:
        FileNotFoundError, ValueError: if the model cannot be loaded, or its processor has no chat template.
    """

    def __init__(
        self,
        model: str | os.PathLike | tuple[Any, Any],
        *,
        device: str | None = None,
        dtype: str | None = None,
        load_in_4bit: bool = False,
        **options: Any,
    ) -> None:
        loaded = model if isinstance(model, tuple) else load_chat_model(model, device, dtype, load_in_4bit)
        super().__init__(loaded[0], **options)
        self.processor = loaded[1]
        self.hears = self.model.config.model_type in OMNI_WRITERS
        self.sound = self.sound and self.hears
        if not getattr(self.processor, "chat_template", None):
            raise ValueError(f"{self.model.name_or_path}: its processor has no chat template; it cannot be asked")

    @classmethod
    def build(cls, model: Any, options: AdapterOptions, weights: Mapping[str, Any], **shared: Any) -> Adapter:
        """Build the adapter, see [`Adapter.build`]."""
        return cls(model, **weights, **shared)

    def describe(self) -> dict[str, Any]:
        """Return the model, revision, weights, and whether the model receives audio."""
        return {
            "model": str(self.model.name_or_path),
            "revision": getattr(self.model.config, "_commit_hash", None),
            "weights": weights_digest(self.model),
            "sound": self.sound,
            "decoding": {"greedy": True},
        }

    def reply(self, media: Media, text: str, max_new_tokens: int) -> str:
        """Generate a reply greedily.

        Raises:
            NoAnswer: if the model wrote only reasoning.
            MediaError: if the file has no video stream.
        """
        import torch

        if media.frames is None:
            raise MediaError("the video has no picture; this model needs frames")
        tokenizer = self.processor.tokenizer
        words = {"type": "text", "text": break_up_control_tokens(text, tokenizer)}
        messages = [{"role": "user", "content": [{"type": "video"}, words]}]
        prompt = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        begun = tokenizer.bos_token is not None and prompt.startswith(tokenizer.bos_token)
        options = {"add_special_tokens": False} if begun else {}  # avoid a duplicate BOS token
        inputs = self.processor(text=[prompt], return_tensors="pt", **self._video(media), **options)
        inputs = inputs.to(self.model.device)
        inputs = inputs.to(self.model.dtype)  # casts frames and audio; token IDs stay integers
        with torch.inference_mode():
            output = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, **self._generation())
        new_tokens = output[:, inputs["input_ids"].shape[1] :]
        (text,) = self.processor.batch_decode(new_tokens, skip_special_tokens=False)
        return answer_of(text, self.processor.tokenizer, str(self.model.name_or_path))

    def _video(self, media: Media) -> dict[str, Any]:
        """Return the processor's arguments: frames with their times and, for models with audio input, the audio."""
        options: dict[str, Any] = {
            "videos": [media.frames],
            "video_metadata": [video_metadata(media)],
            "do_sample_frames": False,
        }
        if self.hears:
            options["fps"] = mean_rate(media)
        if self.sound and media.waveform is not None:
            options |= {"audio": [media.waveform], "audio_from_video_indices": [0], "load_audio_from_video": True}
        return options

    def _generation(self) -> dict[str, Any]:
        return {"use_audio_in_video": self.sound} if self.hears else {}


def video_metadata(media: Media) -> dict[str, Any]:
    """Return metadata from which processors compute the real presentation time of each frame.

    They compute a time as the index of the frame over the rate of the file. The indices here are of a clock with 1000
    ticks per second, which represents irregular times, too.

    Example:
        >>> import numpy as np
        >>> from longvale.models.media import Media
        >>> frames = np.zeros((3, 8, 8, 3), np.uint8)
        >>> media = Media(10.0, frames, np.array([0.0, 1.5, 9.125]), None, 16_000)
        >>> [index / video_metadata(media)["fps"] for index in video_metadata(media)["frames_indices"]]
        [0.0, 1.5, 9.125]
    """
    return {
        "fps": float(_TICKS),
        "total_num_frames": max(round(_TICKS * media.duration), 1),
        "duration": media.duration,
        "frames_indices": [round(_TICKS * float(time)) for time in media.frame_times],
    }


def mean_rate(media: Media) -> float:
    """Return the mean number of frames per second between the first and the last frame, for models with one rate."""
    times = media.frame_times
    if len(times) < 2 or times[-1] <= times[0]:
        return len(times) / media.duration
    return (len(times) - 1) / float(times[-1] - times[0])


def answer_of(text: str, tokenizer: Any, name: str) -> str:
    """Extract the answer from generated text, without reasoning.

    Args:
        text: text decoded with special tokens, because some models mark their reasoning with them.
        tokenizer: tokenizer that decoded the text.
        name: name of the model.

    Raises:
        NoAnswer: if the text contains only reasoning.
    """
    answer = _without(tokenizer.all_special_tokens, strip_reasoning(text))
    if not answer and _without(tokenizer.all_special_tokens, text):
        raise NoAnswer(f"{name}: {ONLY_REASONING}")
    return answer


def _without(tokens: Iterable[str], text: str) -> str:
    for token in tokens:
        text = text.replace(token, "")
    return text.strip()


def load_chat_model(
    model: str | os.PathLike, device: str | None = None, dtype: str | None = None, load_in_4bit: bool = False
) -> tuple[Any, Any]:
    """Load a model with its processor.

    Args:
        model: folder or Hub ID.
        device: device such as "cpu"; by default an accelerator if available.
        dtype: dtype of the weights, such as "bfloat16"; default: the stored dtype.
        load_in_4bit: quantize the weights to 4 bits.

    Raises:
        FileNotFoundError: if the model is not available.
        ValueError: if it is not an image-text-to-text model.
    """
    import transformers

    from ...models.layers import guard_convolutions

    place = choose_device(device)
    precision = weight_options(place, dtype, load_in_4bit)
    distrust(model)
    try:
        kind = transformers.AutoConfig.from_pretrained(model).model_type
        loader = getattr(transformers, OMNI_WRITERS.get(kind, "AutoModelForImageTextToText"))
        loaded = loader.from_pretrained(model, **{"dtype": "auto", **precision})
        processor = transformers.AutoProcessor.from_pretrained(model)
    except OSError as error:
        raise not_found(model, error) from error
    guarded = guard_convolutions(loaded)
    return (guarded if load_in_4bit else guarded.to(place)).eval(), processor
