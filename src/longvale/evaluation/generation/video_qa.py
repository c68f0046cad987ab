"""Answering questions about videos: the one place where a model generates answers, in batches, streamed or stopped.

A prompt starts with the opening of the conversation and the video, some hundreds of tokens, followed by the question,
some tens of tokens. The towers and the prefill of the language model run once per video, for this prefix. All questions
of a batch, including those about other videos, continue from the cached keys and values. The answers equal those of one
call per question, as in the published evaluation.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...events import MODALITIES
from ...system.interruption import Stopped, stoppable
from .model import Features, build_prompt, decode_answers
from .sampling import GREEDY, Decoding, seeded_noise

if TYPE_CHECKING:
    import torch

    from ...models.media import Media

#: Token IDs of a part of a prompt: the prefix (up to the end of the video) or the suffix (the rest).
Tokens = tuple[int, ...]

#: Tokens per batch, including the tokens to generate, that fit on one 40 GB GPU together with a 7B model.
BATCH_TOKENS = 32_768


@dataclass(frozen=True)
class VideoQuestion:
    """A question of a batch.

    Args:
        video: index of the question's video in the videos of [`VideoQA`].
        question: text that contains `<video>`.
        name: identifies the question when answers are sampled.
    """

    video: int
    question: str
    name: str = ""


def answer_batch(
    model: Any,
    processor: Any,
    questions: Sequence[str],
    videos: Sequence[Features | str | Media],
    max_new_tokens: int,
    **generation: Any,
) -> list[str]:
    """Answer questions greedily, all in one batch if the language model allows it.

    Args:
        model, processor: the loaded model and its processor.
        questions: texts that contain `<video>`.
        videos: video of each question, see [`VideoQA`]; questions about the same object share its prefix.
        max_new_tokens: maximum number of tokens per answer.
        generation: see [`VideoQA.answer`].

    Returns:
        The answers without reasoning and without leading or trailing whitespace.
    """
    if not questions:
        return []
    own = {id(video): video for video in videos}
    place_of = {key: place for place, key in enumerate(own)}
    asked = [VideoQuestion(place_of[id(v)], question) for question, v in zip(questions, videos, strict=True)]
    qa, answers = VideoQA(model, processor, list(own.values())), [""] * len(asked)
    for places, texts in qa.answer(asked, max_new_tokens, len(asked), sys.maxsize, **generation):
        for place, text in zip(places, texts, strict=True):
            answers[place] = text
    return answers


def answer_question(
    model: Any,
    processor: Any,
    question: str,
    video: Features | str | Media,
    max_new_tokens: int,
    report: Callable[[str], None],
    stop: Callable[[], bool],
) -> str:
    """Answer one question greedily while it is reported how far the answer is; it can be stopped.

    Args:
        model, processor, question, video, max_new_tokens: as for [`answer_batch`].
        report: called with the answer so far, longer each time, without reasoning.
        stop: called before each layer and after each token; True stops the work.

    Returns:
        The answer of [`answer_batch`]; if it was stopped, the answer so far.
    """
    import torch
    from transformers import StoppingCriteriaList

    def stopped(input_ids: Any, scores: Any, **_: Any) -> Any:
        return torch.full((len(input_ids),), stop(), device=input_ids.device)

    streamer, criteria = _TextStreamer(processor, report), StoppingCriteriaList([stopped])
    options = {"streamer": streamer, "stopping_criteria": criteria}
    try:
        with stoppable(model, stop):
            return answer_batch(model, processor, [question], [video], max_new_tokens, **options)[0]
    except Stopped:
        return streamer.text


class _TextStreamer:
    """A streamer of transformers that reports the text of an answer whenever it has changed."""

    def __init__(self, processor: Any, report: Callable[[str], None]) -> None:
        self._processor, self._report = processor, report
        self._ids: list[int] | None = None  # None before the prompt
        self.text = ""

    def put(self, value: Any) -> None:
        if self._ids is None:
            self._ids = []
            return
        self._ids += value.flatten().tolist()
        # Decode all tokens again: the text of a token may depend on its neighbors.
        (text,) = decode_answers(self._processor, [self._ids])
        if text != self.text:
            self.text = text
            self._report(text)

    def end(self) -> None:
        """Do nothing: the answer is returned."""


class VideoQA:
    """Questions and answers about some videos, whose prefixes are computed once and kept.

    Args:
        model: a [`LongVALEForConditionalGeneration`], with any language model.
        processor: a [`LongVALEProcessor`].
        videos: each video's features by modality, its path, or the result of `read_media`.

    Raises:
        ValueError: if a video has no features, or cannot be read.
    """

    def __init__(self, model: Any, processor: Any, videos: Sequence[Features | str | Media]) -> None:
        from ...extraction.encode import encode_video

        self.model, self.processor = model, processor
        features = [v if isinstance(v, Mapping) else encode_video(model, processor, v) for v in videos]
        columns = {f"{modality}_features": [row.get(modality) for row in features] for modality in MODALITIES}
        inputs, self._counts = processor.video_inputs(**columns)
        self._features = {name: values.to(model.device) for name, values in inputs.items()}
        self._caches: list[_Cache] = []

    def answer(
        self,
        asked: Sequence[VideoQuestion],
        max_new_tokens: int,
        batch_size: int = 16,
        batch_tokens: int = BATCH_TOKENS,
        decoding: Decoding = GREEDY,
        done: Container[int] = (),
        **generation: Any,
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
            generation: other arguments of `model.generate`, such as `streamer` and `stopping_criteria`.

        Yields:
            Indices in `asked` of the questions of a batch, and their decoded answers.

        Raises:
            ValueError: if a question does not contain `<video>`, or a size is below 1.
        """
        import torch

        sizes = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "batch_tokens": batch_tokens}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be 1 or more, not {size}")
        if all(place in done for place in range(len(asked))):
            return
        rows = self._split(asked)
        prefixes = dict.fromkeys((video, prefix) for video, prefix, _ in rows)
        with torch.inference_mode():
            self._compute(list(prefixes))
            for cache in self._caches:
                mine = {place: row[2] for place, row in enumerate(rows) if row[:2] in cache.row_of}
                for places in _batches(mine, cache, max_new_tokens, batch_size, batch_tokens):
                    if all(place in done for place in places):
                        continue
                    noise = seeded_noise(decoding, [asked[place].name for place in places])
                    chosen = [(cache.row_of[rows[place][:2]], rows[place][2]) for place in places]
                    yield places, self._generate(cache, chosen, max_new_tokens, **noise, **generation)

    def _split(self, asked: Sequence[VideoQuestion]) -> list[tuple[int, Tokens, Tokens]]:
        """Return the video index of each question, and the prefix and the suffix of its prompt."""
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

    def _compute(self, prefixes: Sequence[tuple[int, Tokens]]) -> None:
        """Compute the key-value caches of prefixes, unless the current caches contain all of them."""
        if all(any(prefix in cache.row_of for cache in self._caches) for prefix in prefixes):
            return
        self._caches = []
        together: dict[int, list[tuple[int, Tokens]]] = {}
        padded = takes_padding(self.model)
        for prefix in prefixes:
            together.setdefault(0 if padded else len(prefix[1]), []).append(prefix)
        for some in together.values():
            self._caches.append(self._prefill(some, padded))

    def _prefill(self, prefixes: Sequence[tuple[int, Tokens]], padded: bool) -> _Cache:
        import torch

        ids, mask = _padded_left([prefix for _, prefix in prefixes], self.processor.tokenizer.pad_token_id)
        videos = torch.tensor([video for video, _ in prefixes], device=self.model.device)
        features = {name: values[videos] for name, values in self._features.items()}
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)  # as in `generate`: padding does not advance positions
        texts = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        texts = {name: values.to(self.model.device) for name, values in texts.items()}
        cache = self.model(**texts, **features, use_cache=True, logits_to_keep=1).cache
        return _Cache(cache, ids, mask, {prefix: row for row, prefix in enumerate(prefixes)}, padded)

    def _generate(
        self, prefix: _Cache, rows: Sequence[tuple[int, Tokens]], max_new_tokens: int, **generation: Any
    ) -> list[str]:
        """Answer a batch; `rows` has each question's row of the cache and its suffix, padded between the two."""
        import torch

        from .preallocated_cache import preallocated_cache

        chosen = torch.tensor([row for row, _ in rows])
        suffixes, suffix_mask = _padded_left([suffix for _, suffix in rows], self.processor.tokenizer.pad_token_id)
        ids = torch.cat([prefix.ids[chosen], suffixes], dim=1)
        mask = torch.cat([prefix.mask[chosen], suffix_mask], dim=1)
        if prefix.padded:
            more = suffixes.shape[1] + max_new_tokens
            cache = preallocated_cache(prefix.cache, chosen.to(self.model.device), more)
        else:
            cache = copy.deepcopy(prefix.cache)  # generation appends to it
            cache.reorder_cache(chosen.to(self.model.device))
        output = self.model.generate(
            input_ids=ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            cache=cache,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            **generation,
        )
        return decode_answers(self.processor, output[:, ids.shape[1] :])


@dataclass(frozen=True)
class _Cache:
    """Keys and values of prefixes [prefixes, ...], with their tokens and mask [prefixes, longest], padded on the left.

    `row_of` maps a video and its prefix to a row. If `padded` is false, prefixes and suffixes must not be padded.
    """

    cache: Any
    ids: torch.Tensor
    mask: torch.Tensor
    row_of: Mapping[tuple[int, Tokens], int]
    padded: bool


def _padded_left(rows: Sequence[Tokens], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad rows on the left; return token IDs and mask, both [rows, longest]."""
    import torch

    ids = torch.full((len(rows), max(map(len, rows))), pad)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, -len(tokens) :] = torch.tensor(tokens)
        mask[row, -len(tokens) :] = 1
    return ids, mask


def takes_padding(model: Any) -> bool:
    """Return whether padding between video and question is harmless: full attention masks it, but sliding windows and
    recurrent states do not."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config.get_text_config()).layers)


def _batches(
    suffix_of: Mapping[int, Tokens], prefix: _Cache, max_new_tokens: int, size: int, tokens: int
) -> Iterator[list[int]]:
    """Yield indices of questions per batch, grouped by similar length, or by equal length if padding is not allowed.

    The longest come first, so that a lack of memory shows immediately.
    """
    batch: list[int] = []
    row_tokens = 0
    for place in sorted(suffix_of, key=lambda place: (-len(suffix_of[place]), place)):
        same = prefix.padded or (batch and len(suffix_of[batch[0]]) == len(suffix_of[place]))
        if batch and (len(batch) == size or (len(batch) + 1) * row_tokens > tokens or not same):
            yield batch
            batch = []
        if not batch:
            row_tokens = prefix.ids.shape[1] + len(suffix_of[place]) + max_new_tokens
        batch.append(place)
    if batch:
        yield batch
