"""Inputs of video models of transformers with a chat template: text, frames at known times, and audio.

Evaluation and training build the inputs here, one video at a time: some processors take one frame rate for all videos
of a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...models.media import MediaError
from ...models.prompts import break_up_control_tokens

if TYPE_CHECKING:
    import torch

    from ...models.media import Media

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


class ChatInputs:
    """Prompts of a model, and their encoding with a video.

    Args:
        model: a video model of transformers; models that interleave audio are prepared by [`place_rows`].
        processor: of the model.
        sound: pass the audio to models with audio input.

    Raises:
        ValueError: if the processor has no chat template.
    """

    def __init__(self, model: Any, processor: Any, sound: bool = True) -> None:
        self.processor = processor
        self.hears = model.config.model_type in OMNI_WRITERS
        self.sound = sound and self.hears
        if not getattr(processor, "chat_template", None):
            raise ValueError(f"{model.name_or_path}: its processor has no chat template; it cannot be asked")
        if self.hears:
            place_rows(model)

    def question(self, text: str) -> list[dict[str, Any]]:
        """Return the messages of a question about a video; control tokens in the text are broken up."""
        return [{"role": "user", "content": [{"type": "video"}, self.text(text)]}]

    def text(self, text: str) -> dict[str, str]:
        """Return the part of a message for a text, whose control tokens are broken up."""
        return {"type": "text", "text": break_up_control_tokens(text, self.processor.tokenizer)}

    def render(self, messages: Sequence[Mapping[str, Any]], generate: bool = False) -> str:
        """Render messages by the model's chat template.

        Args:
            messages: `role` and `content`, a list of parts.
            generate: end with the beginning of an answer.
        """
        return self.processor.apply_chat_template(list(messages), add_generation_prompt=generate, tokenize=False)

    def tokenizer_options(self, prompt: str) -> dict[str, Any]:
        """Return options that avoid a second BOS token if the template has written one."""
        bos = self.processor.tokenizer.bos_token
        return {"add_special_tokens": False} if bos is not None and prompt.startswith(bos) else {}

    def encode(self, prompt: str, media: Media | None, **options: Any) -> Any:
        """Return the model's inputs for one prompt.

        Args:
            prompt: rendered, with the placeholder of a video if there is one.
            media: the video; None for a text alone.
            options: other arguments of the processor.

        Returns:
            A `BatchFeature` of tensors with one row.

        Raises:
            MediaError: if the file has no video stream.
        """
        video = {} if media is None else self._video(media)
        options |= self.tokenizer_options(prompt)
        return self.processor(text=[prompt], return_tensors="pt", **video, **options)

    def _video(self, media: Media) -> dict[str, Any]:
        """Return the processor's arguments: frames with their times and, for models with audio input, the audio."""
        if media.frames is None:
            raise MediaError("the video has no picture; this model needs frames")
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


def place_rows(model: Any) -> None:
    """Make a model that interleaves audio compute the positions of each row of a batch separately.

    Its own computation takes one flag for all rows, `use_audio_in_video`: rows without audio would get the positions of
    text, and the rows after them the frames of other rows. Here the rows themselves say whether they contain audio, and
    the flag is ignored.

    Args:
        model: a text generator of [`OMNI_WRITERS`]; calling this twice changes nothing.
    """
    for part in (model, model.model):
        if "get_rope_index" not in part.__dict__:
            part.get_rope_index = _RowPositions(part.get_rope_index, model.config)


class _RowPositions:
    """`get_rope_index` of Qwen-Omni, a row at a time, for rows with at most one video, with or without its audio."""

    def __init__(self, place: Any, config: Any) -> None:
        self._place = place
        self._video_id, self._audio_id = config.video_token_id, config.audio_token_id

    def __call__(
        self,
        input_ids: torch.Tensor,
        image_grid_thw: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        use_audio_in_video: bool = False,
        audio_seqlens: torch.Tensor | None = None,
        second_per_grids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        positions, deltas, videos, audio = [], [], 0, 0
        for ids, mask in zip(input_ids, attention_mask, strict=True):
            seen, heard = (bool((ids == token).any()) for token in (self._video_id, self._audio_id))
            place, delta = self._place(
                ids[None],
                None,
                video_grid_thw[videos : videos + 1] if seen else None,
                mask[None],
                heard,
                audio_seqlens[audio : audio + 1] if heard else None,
                second_per_grids[videos : videos + 1] if seen else None,
            )
            videos, audio = videos + seen, audio + heard
            positions.append(place)
            deltas.append(delta.reshape(1, -1))
        return torch.cat(positions, dim=1), torch.cat(deltas)


def cast_inputs(inputs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Cast frames and audio to the type of the weights. Token ids stay integers, and numbers of seconds keep theirs.

    Example:
        >>> import torch
        >>> inputs = {"pixel_values": torch.ones(2, 3), "video_second_per_grid": torch.ones(1)}
        >>> {name: values.dtype for name, values in cast_inputs(inputs, torch.bfloat16).items()}
        {'pixel_values': torch.bfloat16, 'video_second_per_grid': torch.float32}
    """
    return {
        name: values.to(dtype) if values.is_floating_point() and values.ndim > 1 else values
        for name, values in inputs.items()
    }


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


def without_tokens(text: str, tokens: Iterable[str]) -> str:
    """Return a text without any of the tokens and without surrounding spaces."""
    for token in tokens:
        text = text.replace(token, "")
    return text.strip()
