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
from .model import Conversation, Features, build_prompts, decode_answers
from .sampling import GREEDY, Decoding, seeded_noise
from .stepping import Stepper, Writing, padded_left, steps_alone, takes_padding

if TYPE_CHECKING:
    import torch

    from ...models.media import Media

#: Token IDs of a part of a prompt: the prefix (up to the end of the video) or the suffix (the rest).
Tokens = tuple[int, ...]

#: Tokens per batch, including the tokens to generate, that fit on one 40 GB GPU together with a 7B model.
BATCH_TOKENS = 32_768


@dataclass(frozen=True)
class Prompt:
    """Tokens of a question's prompt.

    Args:
        video: index of the video.
        prefix: tokens up to the end of the video, which questions about it share.
        suffix: the other tokens.
    """

    video: int
    prefix: Tokens
    suffix: Tokens

    def __len__(self) -> int:
        return len(self.prefix) + len(self.suffix)

    @property
    def shared(self) -> tuple[int, Tokens]:
        """Return what identifies the keys and values of the prefix."""
        return self.video, self.prefix


@dataclass(frozen=True)
class VideoQuestion:
    """A question of a batch.

    Args:
        video: index of the question's video in the videos of [`VideoQA`].
        question: text that contains `<video>`, or a conversation, see [`build_prompt`].
        name: identifies the question when answers are sampled.
        max_new_tokens: maximum number of tokens of the answer; None for the limit of the call.
    """

    video: int
    question: str | Conversation
    name: str = ""
    max_new_tokens: int | None = None


def answer_batch(
    model: Any,
    processor: Any,
    questions: Sequence[str | Conversation],
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
    question: str | Conversation,
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
        """Answer questions, many at a time; those whose answers may be longest begin first.

        Args:
            asked: the questions.
            max_new_tokens: maximum number of tokens per answer, of questions without a limit of their own.
            batch_size: maximum number of questions at a time.
            batch_tokens: maximum number of tokens at a time, answers included; there is at least one question.
            decoding: greedy, or sampled with a seed from the question's name.
            done: indices of answered questions, which are not answered again.
            generation: other arguments of `model.generate`, such as `streamer` and `stopping_criteria`.

        Yields:
            Indices in `asked` of questions that were answered together, and their decoded answers.

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
        prompts = self.split(asked)
        limits = [ask.max_new_tokens or max_new_tokens for ask in asked]
        with torch.inference_mode():
            self._compute([prompt.shared for prompt in prompts])
        if steps_alone(self.model) and not generation:
            yield from self._step(asked, prompts, limits, batch_size, batch_tokens, decoding, done)
            return
        for cache in self._caches:
            mine = {place: prompt.suffix for place, prompt in enumerate(prompts) if prompt.shared in cache.row_of}
            for places in _batches(mine, cache, limits, batch_size, batch_tokens):
                if all(place in done for place in places):
                    continue
                noise = seeded_noise(decoding, [asked[place].name for place in places])
                chosen = [(cache.row_of[prompts[place].shared], prompts[place].suffix) for place in places]
                with torch.inference_mode():
                    answers = self._generate(cache, chosen, limits[places[0]], **noise, **generation)
                yield places, answers

    def _step(
        self,
        asked: Sequence[VideoQuestion],
        prompts: Sequence[Prompt],
        limits: Sequence[int],
        batch_size: int,
        batch_tokens: int,
        decoding: Decoding,
        done: Container[int],
    ) -> Iterator[tuple[list[int], list[str]]]:
        """Answer questions a token at a time, see [`Stepper`]."""
        writings: dict[Writing, int] = {}
        for place in sorted(range(len(asked)), key=lambda place: (-limits[place], -len(prompts[place].suffix), place)):
            if place not in done:
                writings[self._begin(prompts[place], limits[place], decoding, asked[place].name)] = place
        stepper = Stepper(self.model, batch_size, batch_tokens)
        stepper.add(*writings)
        while stepper.busy:
            if finished := [writing for writing in stepper.step() if writing.finished]:
                texts = decode_answers(self.processor, [writing.tokens for writing in finished])
                yield [writings[writing] for writing in finished], texts

    def begin(self, prompt: Prompt, max_new_tokens: int, decoding: Decoding = GREEDY, name: str = "") -> Writing:
        """Return an answer for a [`Stepper`]; the keys and values of the prefix are computed if they were not kept.

        Args:
            prompt: of the question, from `split`.
            max_new_tokens: maximum number of tokens of the answer.
            decoding: greedy, or sampled with a seed from `name`.
            name: identifies the question.
        """
        import torch

        with torch.inference_mode():
            self._compute([prompt.shared])
        return self._begin(prompt, max_new_tokens, decoding, name)

    def _begin(self, prompt: Prompt, max_new_tokens: int, decoding: Decoding, name: str) -> Writing:
        (cache,) = (cache for cache in self._caches if prompt.shared in cache.row_of)
        row = cache.row_of[prompt.shared]
        noise = seeded_noise(decoding, [name])
        sample = noise["logits_processor"][0] if noise else None
        return Writing((cache.cache, row), cache.mask[row].tolist(), prompt.suffix, max_new_tokens, sample)

    def embed(self, prompt: Prompt) -> torch.Tensor:
        """Return the embeddings of a prompt, with the video merged in, [tokens, hidden]."""
        import torch

        ids = torch.tensor([[*prompt.prefix, *prompt.suffix]], device=self.model.device)
        features = {}
        for modality in MODALITIES:
            names = (f"{modality}_features", f"{modality}_features_mask")
            if names[0] in self._features:
                features[modality] = tuple(self._features[name][[prompt.video]] for name in names)
        with torch.inference_mode():
            return self.model.base_model.embed(ids, features)[0][0]

    def split(self, asked: Sequence[VideoQuestion]) -> list[Prompt]:
        """Return the prompts of questions.

        Raises:
            ValueError: if a question does not contain `<video>`.
        """
        prompts = build_prompts(self.processor, [ask.question for ask in asked])
        texts = self.processor.expand_placeholders(prompts, [self._counts[ask.video] for ask in asked])
        found = []
        for ask, ids in zip(asked, self.processor.tokenize_prompts(texts)["input_ids"], strict=True):
            tokens = tuple(ids)
            end = len(tokens) - tokens[::-1].index(self.processor.video_token_id)
            if end == len(tokens):
                raise ValueError("nothing follows the video in the prompt; the chat template must begin an answer")
            found.append(Prompt(ask.video, tokens[:end], tokens[end:]))
        return found

    def _compute(self, prefixes: Sequence[tuple[int, Tokens]]) -> None:
        """Compute the key-value caches of prefixes, unless the current caches contain all of them."""
        prefixes = list(dict.fromkeys(prefixes))
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

        ids, mask = padded_left([prefix for _, prefix in prefixes], self.processor.tokenizer.pad_token_id)
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
        suffixes, suffix_mask = padded_left([suffix for _, suffix in rows], self.processor.tokenizer.pad_token_id)
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


def _batches(
    suffix_of: Mapping[int, Tokens], prefix: _Cache, limits: Sequence[int], size: int, tokens: int
) -> Iterator[list[int]]:
    """Yield indices of questions per batch, grouped by limit and by similar length, or by equal length if padding is
    not allowed.

    The longest come first, so that a lack of memory shows immediately.
    """
    batch: list[int] = []
    row_tokens = 0
    for place in sorted(suffix_of, key=lambda place: (-limits[place], -len(suffix_of[place]), place)):
        same = batch and limits[batch[0]] == limits[place]
        same = same and (prefix.padded or len(suffix_of[batch[0]]) == len(suffix_of[place]))
        if batch and (len(batch) == size or (len(batch) + 1) * row_tokens > tokens or not same):
            yield batch
            batch = []
        if not batch:
            row_tokens = prefix.ids.shape[1] + len(suffix_of[place]) + limits[place]
        batch.append(place)
    if batch:
        yield batch
