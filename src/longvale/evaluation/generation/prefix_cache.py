"""Answering many questions per video with a shared prefix, which is computed once per video.

A prompt starts with the opening of the conversation and the video, some hundreds of tokens, followed by the question,
some tens of tokens. The towers and the prefill of the language model run once per video. All questions of a batch,
including those about other videos, continue from the cached keys and values. The answers equal those of one call per
question, as in the published evaluation.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...events import MODALITIES
from .model import Features, build_prompt, decode_answers
from .sampling import GREEDY, Decoding, seeded_noise

if TYPE_CHECKING:
    import torch

    from ...models.media import Media

#: Token IDs of a part of a prompt: the head (up to the end of the video) or the tail (the rest).
Tokens = tuple[int, ...]

#: Tokens per batch, including the tokens to generate, that fit on one 40 GB GPU together with a 7B model.
BATCH_TOKENS = 32_768


@dataclass(frozen=True)
class Ask:
    """A question of a batch.

    Args:
        video: index of the question's video in the prefixes.
        question: text that contains `<video>`.
        name: identifies the question when answers are sampled.
    """

    video: int
    question: str
    name: str = ""


class VideoPrefixes:
    """Cached prefixes of videos, to ask many questions about them.

    Args:
        model: a [`LongVALEForConditionalGeneration`], with any language model.
        processor: a [`LongVALEProcessor`].
        videos: stored features by modality of each video; or what the processor takes: paths, frames, or results of
            `read_media`.

    Raises:
        ValueError: if a video has no features.
    """

    def __init__(self, model: Any, processor: Any, videos: Sequence[Features | str | Media]) -> None:
        self.model, self.processor = model, processor
        self._features, self._counts = _encode(model, processor, videos)
        self._caches: list[_Cache] = []

    def answer(
        self,
        asked: Sequence[Ask],
        max_new_tokens: int,
        batch_size: int = 16,
        batch_tokens: int = BATCH_TOKENS,
        decoding: Decoding = GREEDY,
        done: Container[int] = (),
    ) -> Iterator[tuple[list[int], list[str]]]:
        """Answer questions in batches.

        Args:
            asked: the questions.
            max_new_tokens: maximum number of tokens per answer.
            batch_size: maximum number of questions per batch.
            batch_tokens: maximum number of tokens per batch, including the tokens to generate; a batch has at least
                one question.
            decoding: greedy, or sampled with a seed from the question's name.
            done: indices of answered questions. They stay in their batches, so that rounding does not change; batches
                that contain only answered questions are skipped.

        Yields:
            Indices in `asked` of the questions of a batch, and their decoded answers.

        Raises:
            ValueError: if a question does not contain `<video>`, or a size is below 1.
        """
        import torch

        for name, size in (("batch_size", batch_size), ("batch_tokens", batch_tokens)):
            if size < 1:
                raise ValueError(f"{name} must be 1 or more, not {size}")
        if all(place in done for place in range(len(asked))):
            return
        rows = self._split(asked)
        heads = dict.fromkeys((video, head) for video, head, _ in rows)
        with torch.inference_mode():
            self._compute(list(heads))
            for cache in self._caches:
                mine = {place: row[2] for place, row in enumerate(rows) if row[:2] in cache.row_of}
                for places in _batches(mine, cache, max_new_tokens, batch_size, batch_tokens):
                    if all(place in done for place in places):
                        continue
                    names = [asked[place].name for place in places]
                    chosen = [(cache.row_of[rows[place][:2]], rows[place][2]) for place in places]
                    yield places, self._generate(cache, chosen, max_new_tokens, decoding, names)

    def _split(self, asked: Sequence[Ask]) -> list[tuple[int, Tokens, Tokens]]:
        """Return, per question, the video index, the head and the tail of the prompt, split at the end of the video."""
        prompts = [build_prompt(self.processor, ask.question) for ask in asked]
        texts = self.processor.expand_placeholders(prompts, [self._counts[ask.video] for ask in asked])
        rows = []
        for ask, text in zip(asked, texts, strict=True):
            tokens = tuple(self.processor.tokenize_prompts(text)["input_ids"])
            end = len(tokens) - tokens[::-1].index(self.processor.video_token_id)
            if end == len(tokens):
                raise ValueError("nothing follows the video in the prompt; the chat template must begin an answer")
            rows.append((ask.video, tokens[:end], tokens[end:]))
        return rows

    def _compute(self, heads: Sequence[tuple[int, Tokens]]) -> None:
        """Compute the key-value caches of heads, unless the current caches contain all of them."""
        if all(any(head in cache.row_of for cache in self._caches) for head in heads):
            return
        self._caches = []
        together: dict[int, list[tuple[int, Tokens]]] = {}
        padded = _takes_padding(self.model)
        for head in heads:
            together.setdefault(0 if padded else len(head[1]), []).append(head)
        for some in together.values():
            self._caches.append(self._prefill(some, padded))

    def _prefill(self, heads: Sequence[tuple[int, Tokens]], padded: bool) -> _Cache:
        import torch

        ids, mask = _padded_left([head for _, head in heads], self.processor.tokenizer.pad_token_id)
        videos = torch.tensor([video for video, _ in heads], device=self.model.device)
        features = {name: values[videos] for name, values in self._features.items()}
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)  # as in `generate`: padding does not advance positions
        texts = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        texts = {name: values.to(self.model.device) for name, values in texts.items()}
        cache = self.model(**texts, **features, use_cache=True, logits_to_keep=1).cache
        return _Cache(cache, ids, mask, {head: row for row, head in enumerate(heads)}, padded)

    def _generate(
        self,
        prefix: _Cache,
        rows: Sequence[tuple[int, Tokens]],
        max_new_tokens: int,
        decoding: Decoding,
        names: Sequence[str],
    ) -> list[str]:
        """Answer a batch; `rows` has the cache row of each question's head and its tail, padded between the two."""
        import torch

        from .preallocated_cache import roomy_cache

        chosen = torch.tensor([row for row, _ in rows])
        tails, tail_mask = _padded_left([tail for _, tail in rows], self.processor.tokenizer.pad_token_id)
        ids = torch.cat([prefix.ids[chosen], tails], dim=1)
        mask = torch.cat([prefix.mask[chosen], tail_mask], dim=1)
        if prefix.padded:
            cache = roomy_cache(prefix.cache, chosen.to(self.model.device), tails.shape[1] + max_new_tokens)
        else:
            cache = copy.deepcopy(prefix.cache)  # generation appends to it
            cache.reorder_cache(chosen.to(self.model.device))
        output = self.model.generate(
            input_ids=ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            cache=cache,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            **seeded_noise(decoding, names),
        )
        return decode_answers(self.processor, output[:, ids.shape[1] :])


@dataclass(frozen=True)
class _Cache:
    """Keys and values of heads, [heads, ...], with their tokens and mask [heads, longest], padded on the left.

    `row_of` maps a video and its head to a row. If `padded` is false, heads and tails must not be padded.
    """

    cache: Any
    ids: torch.Tensor
    mask: torch.Tensor
    row_of: Mapping[tuple[int, Tokens], int]
    padded: bool


def _encode(
    model: Any, processor: Any, videos: Sequence[Features | str | Media]
) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Return the features of videos as model inputs, and the number of placeholder tokens of each video."""
    import torch

    stored = all(isinstance(video, Mapping) for video in videos)
    if stored:
        columns = {f"{m}_features": [video.get(m) for video in videos] for m in MODALITIES}
        inputs, counts = processor.video_inputs(**columns)
    else:
        inputs, counts = processor.video_inputs(videos=list(videos))
    inputs = {name: values.to(model.device) for name, values in inputs.items()}
    if not stored:
        with torch.inference_mode():
            encoded = model.encode(**inputs)
        inputs = {f"{modality}_features": values for modality, (values, _) in encoded.items()}
        inputs |= {f"{modality}_features_mask": mask for modality, (_, mask) in encoded.items()}
    return inputs, counts


def _padded_left(rows: Sequence[Tokens], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad rows on the left; return token IDs and mask, both [rows, longest]."""
    import torch

    ids = torch.full((len(rows), max(map(len, rows))), pad)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, -len(tokens) :] = torch.tensor(tokens)
        mask[row, -len(tokens) :] = 1
    return ids, mask


def _takes_padding(model: Any) -> bool:
    """Return whether padding between video and question is harmless: full attention masks it, but sliding windows and
    recurrent states do not."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config.get_text_config()).layers)


def _batches(
    tail_of: Mapping[int, Tokens], prefix: _Cache, max_new_tokens: int, size: int, tokens: int
) -> Iterator[list[int]]:
    """Yield indices of questions per batch, grouped by similar length, or by equal length if padding is not allowed.

    The longest come first, so that a lack of memory shows immediately.
    """
    batch: list[int] = []
    row_tokens = 0
    for place in sorted(tail_of, key=lambda place: (-len(tail_of[place]), place)):
        same = prefix.padded or (batch and len(tail_of[batch[0]]) == len(tail_of[place]))
        if batch and (len(batch) == size or (len(batch) + 1) * row_tokens > tokens or not same):
            yield batch
            batch = []
        if not batch:
            row_tokens = prefix.ids.shape[1] + len(tail_of[place]) + max_new_tokens
        batch.append(place)
    if batch:
        yield batch
