"""Keys and values of a video, which the questions about it share, for any video model of transformers.

The prompts of questions about one video are equal up to the end of the video. Its frames and audio are preprocessed and
encoded, and this prefix is read by the language model, once per video; each question continues from a copy.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..generation.stepping import padded_left, takes_padding
from .chat_inputs import ChatInputs, cast_inputs

if TYPE_CHECKING:
    import torch

    from ...models.media import Media

#: Inputs with one value per token that can be computed from the tokens.
_PER_TOKEN = frozenset({"input_ids", "attention_mask", "mm_token_type_ids"})
#: Largest mean difference of the scores of a next token, in standard deviations of the scores, that is rounding: of
#: float32, and of types with fewer bits.
_ROUNDING, _COARSE_ROUNDING = 1e-3, 0.05


class SharedPrefix:
    """Inputs of generation for questions about videos; the last video's prefix is kept.

    Whether a model can continue from a prefix is tried with the first question: its scores of the next token must be
    those of the whole prompt, apart from rounding. If they are not, or the model has layers whose state cannot be
    continued, such as linear attention, prompts are read as a whole, several together.

    Args:
        model: a video model of transformers.
        inputs: of the model.

    Attributes:
        shares: whether questions continue from a prefix; None before the first question.
        stacks: whether whole prompts can be read together; false before the first question.
    """

    def __init__(self, model: Any, inputs: ChatInputs) -> None:
        self._model, self._inputs = model, inputs
        self.shares: bool | None = None if _continues(model) else False
        self.stacks = False
        self._media: Media | None = None  # the video of the prefix
        self._head: tuple[str, str] = ("", "")  # start of its prompts: before and after placeholders were replaced
        self._tokens: list[int] = []  # of the prefix
        self._cache: Any = None
        self._positions: torch.Tensor | None = None  # of the first prompt about the video, [..., tokens]

    def prepare(self, prompts: Sequence[str], media: Media) -> dict[str, Any]:
        """Return the arguments of `model.generate` for questions about a video.

        Args:
            prompts: rendered, each with the placeholder of the video; one, unless `stacks` is true.
            media: the video; the same object for all questions about it.

        Raises:
            MediaError: if the file has no video stream.
        """
        if len(prompts) > 1:
            return self._stack(prompts, media)
        (prompt,) = prompts
        if media is not self._media or (given := self._continue(prompt)) is None:
            whole = self._encode(prompt, media)
            given = self._begin(prompt, media, whole) or whole
        return given

    def _stack(self, prompts: Sequence[str], media: Media) -> dict[str, Any]:
        """Return several whole prompts about a video, padded on the left; its frames and audio are encoded once."""
        import torch

        first, processor = self._encode(prompts[0], media), self._inputs.processor
        before, expanded = self._head
        if all(prompt.startswith(before) for prompt in prompts):
            rows = [self._tokenize(expanded + prompt[len(before) :], prompt) for prompt in prompts]
        else:  # a template that writes the question before the video
            rows = [self._encode(prompt, media)["input_ids"][0].tolist() for prompt in prompts]
        ids, mask = padded_left(rows, processor.tokenizer.pad_token_id)
        given = {name: torch.cat([values] * len(rows)) for name, values in first.items() if name not in _PER_TOKEN}
        given |= {"input_ids": ids, "attention_mask": mask}
        if "mm_token_type_ids" in first:
            given["mm_token_type_ids"] = torch.tensor(processor.create_mm_token_type_ids(ids.tolist()))
        return {name: values.to(self._model.device) for name, values in given.items()}

    def _encode(self, prompt: str, media: Media) -> dict[str, Any]:
        """Encode a prompt as a whole, and keep what its placeholders were replaced by."""
        self._media, self._cache = None, None
        inputs = dict(self._inputs.encode(prompt, media, return_text_replacement_offsets=True))
        replaced = inputs.pop("text_replacement_offsets", [[]])[0]
        end = replaced[-1]["span"][1] if replaced else 0
        expanded, done = "", 0
        for part in replaced:
            expanded += prompt[done : part["span"][0]] + part["replacement"]
            done = part["span"][1]
        self._head = (prompt[:end], expanded)
        length = inputs["input_ids"].shape[1]
        per_token = {name for name, values in inputs.items() if tuple(values.shape[:2]) == (1, length)}
        self.stacks = bool(replaced) and per_token <= _PER_TOKEN
        moved = {name: values.to(self._model.device) for name, values in inputs.items()}
        return cast_inputs(moved, self._model.dtype)

    def _begin(self, prompt: str, media: Media, whole: Mapping[str, Any]) -> dict[str, Any] | None:
        """Read the first prompt about a video, and return what continues from its prefix; None if it has none."""
        if self.shares is False or not self._head[0]:
            return None
        tokens = whole["input_ids"][0].tolist()
        length = _common(tokens, self._tokenize(self._head[1], prompt))
        if length == 0 or not self._is_text(tokens[length:]):
            return None
        read, positions = self._read(whole)
        read.cache.crop(length - len(tokens))
        self._tokens, self._cache, self._positions = tokens[:length], read.cache, positions
        given = self._continue(prompt)
        if self.shares is None:
            self.shares = given is not None and self._agree(self._read(given)[0].logits[0], read.logits[0])
            given = self._continue(prompt) if self.shares else None
        self._media = media if given else None
        return given

    def _read(self, inputs: Mapping[str, Any]) -> tuple[Any, torch.Tensor | None]:
        """Let the model read a prompt; return the scores of the next token and the cache, and the positions of the
        prompt's tokens, [..., tokens], if this model has any."""
        import torch

        positions = []
        options = {"max_new_tokens": 1, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
        hook = self._model.register_forward_pre_hook(
            lambda _, args, given: positions.append(given.get("position_ids")), with_kwargs=True
        )
        with hook, torch.inference_mode():
            return self._model.generate(**inputs, **options), positions[0]

    def _continue(self, prompt: str) -> dict[str, Any] | None:
        """Return the inputs of a question about the video; None if its prompt begins differently."""
        import torch

        before, expanded = self._head
        length = len(self._tokens)
        tokens = self._tokenize(expanded + prompt[len(before) :], prompt)
        if not prompt.startswith(before) or tokens[:length] != self._tokens or not self._is_text(tokens[length:]):
            return None
        ids = torch.tensor([tokens], device=self._model.device)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "cache": copy.deepcopy(self._cache)}
        if self._positions is not None:  # text after a video counts on from the first token after it
            later = torch.arange(len(tokens) - length, device=self._positions.device)
            known = self._positions
            given["position_ids"] = torch.cat([known[..., :length], known[..., length : length + 1] + later], dim=-1)
        return given

    def _agree(self, scores: torch.Tensor, expected: torch.Tensor) -> bool:
        """Return whether scores of a next token, [1, vocabulary], differ by rounding only."""
        most = _ROUNDING if self._model.dtype.itemsize > 2 else _COARSE_ROUNDING
        return float((scores - expected).abs().mean()) <= most * float(expected.std())

    def _tokenize(self, expanded: str, prompt: str) -> list[int]:
        """Return the tokens of a text whose placeholders were replaced."""
        return self._inputs.processor.tokenizer(expanded, **self._inputs.tokenizer_options(prompt))["input_ids"]

    def _is_text(self, tokens: Sequence[int]) -> bool:
        """Return whether there are tokens, none of them of frames or audio."""
        processor = self._inputs.processor
        groups = (processor.image_token_ids, processor.video_token_ids, processor.audio_token_ids)
        return bool(tokens) and not set(tokens) & {token for group in groups for token in group}


def _continues(model: Any) -> bool:
    """Return whether prompts can be read in parts: all layers keep the keys and values of all tokens."""
    settings = model.generation_config
    return not model.config.is_encoder_decoder and settings.cache_implementation is None and takes_padding(model)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the number of equal tokens at the beginning."""
    return next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
