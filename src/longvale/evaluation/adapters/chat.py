"""Adapter for any transformers video model with a chat template; omni models also receive the audio.

Frames and audio are decoded here, in one pass and at known times, so that the input does not depend on a model's own
reader (torchcodec, decord).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from ...chat_replies import ONLY_REASONING, NoAnswer
from ...checkpoints.loading import (
    Weights,
    choose_place,
    distrust,
    not_found,
    placed,
    split_weights,
    weight_options,
    weights_digest,
)
from ...reading.reasoning import strip_reasoning
from ...registry import adapters
from .base import Adapter
from .chat_inputs import OMNI_WRITERS, ChatInputs, without_tokens
from .chat_prefix import SharedPrefix

if TYPE_CHECKING:
    import torch

    from ...models.media import Media
    from ...tasks import Question
    from .options import AdapterOptions

#: Questions about a video that are answered in one batch by a model that cannot share the video's prefix.
TOGETHER = 8


@adapters.register("chat")
class ChatAdapter(Adapter):
    """A video model of transformers with a chat template, such as Qwen-Omni.

    Args:
        model: folder, Hub ID, or a (model, processor) pair.
        device: device such as "cpu"; by default an accelerator if available.
        options: see [`longvale.checkpoints.loading.Weights`], and arguments of [`Adapter`]. A model without audio input
            never receives the audio.

    Raises:
        FileNotFoundError, ValueError: if the model cannot be loaded, or its processor has no chat template.
    """

    def __init__(
        self,
        model: str | os.PathLike | tuple[Any, Any],
        *,
        device: str | None = None,
        **options: Any,
    ) -> None:
        weights, options = split_weights(options)
        loaded = model if isinstance(model, tuple) else load_chat_model(model, device, **weights)
        super().__init__(loaded[0], **options)
        self.inputs = ChatInputs(*loaded, sound=self.sound)
        self.processor, self.sound = self.inputs.processor, self.inputs.sound
        self.prefix = SharedPrefix(loaded[0], self.inputs)

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

    def together(self, questions: Sequence[Question]) -> Iterator[Sequence[Question]]:
        """Yield questions with the same limit together if their prefix cannot be shared, else each alone."""
        waiting = list(questions)
        while waiting:
            limit = self.limits[waiting[0].task]
            most = TOGETHER if self.prefix.shares is False and self.prefix.stacks else 1
            some = [question for question in waiting if self.limits[question.task] == limit][:most]
            yield some
            waiting = [question for question in waiting if question not in some]

    def reply(self, media: Media, text: str, max_new_tokens: int) -> str:
        """Generate a reply greedily.

        Raises:
            NoAnswer: if the model wrote only reasoning.
            MediaError: if the file has no video stream.
        """
        (reply,) = self.replies(media, [text], max_new_tokens)
        if isinstance(reply, NoAnswer):
            raise reply
        return reply

    def replies(self, media: Media, texts: Sequence[str], max_new_tokens: int) -> list[str | NoAnswer]:
        """Generate replies to texts about a video greedily, together."""
        import torch

        prompts = [self.inputs.render(self.inputs.question(text), generate=True) for text in texts]
        inputs = self.prefix.prepare(prompts, media)
        with torch.inference_mode():
            output = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        new_tokens = output[:, inputs["input_ids"].shape[1] :]
        replies: list[str | NoAnswer] = []
        for text in self.processor.batch_decode(new_tokens, skip_special_tokens=False):
            try:
                replies.append(answer_of(text, self.processor.tokenizer, str(self.model.name_or_path)))
            except NoAnswer as error:
                replies.append(error)
        return replies


def answer_of(text: str, tokenizer: Any, name: str) -> str:
    """Extract the answer from generated text, without reasoning.

    Args:
        text: text decoded with special tokens, because some models mark their reasoning with them.
        tokenizer: tokenizer that decoded the text.
        name: name of the model.

    Raises:
        NoAnswer: if the text contains only reasoning.
    """
    special = tokenizer.all_special_tokens
    answer = without_tokens(strip_reasoning(text), special)
    if not answer and without_tokens(text, special):
        raise NoAnswer(f"{name}: {ONLY_REASONING}")
    return answer


def load_chat_model(
    model: str | os.PathLike,
    device: str | torch.device | None = None,
    *,
    revision: str | None = None,
    **weights: Unpack[Weights],
) -> tuple[Any, Any]:
    """Load a model with its processor.

    Args:
        model: folder or Hub ID.
        device: device such as "cpu"; by default an accelerator if available.
        revision: of the model and its processor.
        weights: see [`longvale.checkpoints.loading.Weights`].

    Raises:
        FileNotFoundError: if the model is not available.
        ValueError: if it is not an image-text-to-text model, or cannot be loaded with the options.
    """
    import transformers

    from ...models.layers import guard_convolutions

    chosen = choose_place(device, weights.get("device_map"))
    options = weight_options(chosen, **weights)
    distrust(model)
    version = {} if revision is None else {"revision": revision}
    try:
        kind = transformers.AutoConfig.from_pretrained(model, **version).model_type
        loader = getattr(transformers, OMNI_WRITERS.get(kind, "AutoModelForImageTextToText"))
        loaded = loader.from_pretrained(model, **{"dtype": "auto", **options, **version})
        processor = transformers.AutoProcessor.from_pretrained(model, **version)
    except OSError as error:
        raise not_found(model, error, revision) from error
    except ImportError as error:  # an attention that is not installed
        raise ValueError(f"{model}: cannot be loaded: {error}") from error
    return placed(guard_convolutions(loaded), chosen, weights), processor
