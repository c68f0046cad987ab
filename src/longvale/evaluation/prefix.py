"""Many questions about one video: what they have in common is computed once.

A prompt begins with the conversation's opening and the video, some hundreds of tokens, and only then come the words of
the question, some tens. The towers run once a video, and so does the language model over that beginning; its cache of
keys and values is continued by all questions of a batch at a time. The answers are those of one call a question, as the
published evaluation makes them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..events import MODALITIES
from .model import Features, build_prompt

if TYPE_CHECKING:
    import torch

    from ..models.media import Media

#: Of a prompt, in tokens: what comes up to the end of the video, and what comes after.
Tokens = tuple[int, ...]


def answer_about_video(
    model: Any,
    processor: Any,
    video: Features | str | Media,
    questions: Sequence[str],
    max_new_tokens: int,
    batch_size: int = 16,
) -> list[str]:
    """Answer questions about one video greedily.

    Args:
        model: as [`LongVALEForConditionalGeneration`], with any language model.
        processor: as [`LongVALEProcessor`].
        video: stored features by modality, or what the processor takes: a path, frames, what `read_media` read.
        questions: texts that hold `<video>`.
        max_new_tokens: of an answer.
        batch_size: questions answered together. Memory grows with it, not with the number of questions.

    Returns:
        The answers in the order of the questions, stripped of white space at both ends.

    Raises:
        ValueError: if the video has no features, or a question does not hold `<video>`.

    Example:
        >>> questions = ["<video>\\nWhen does the bell ring?"]
        >>> answer_about_video(model, processor, "video.mp4", questions, max_new_tokens=32)  # doctest: +SKIP
        ['From 05 to 50.']
    """
    return VideoPrefix(model, processor, video).answer(questions, max_new_tokens, batch_size)


class VideoPrefix:
    """A video that questions are asked about again and again; see [`answer_about_video`].

    Args:
        model, processor, video: as there.
    """

    def __init__(self, model: Any, processor: Any, video: Features | str | Media) -> None:
        self.model, self.processor = model, processor
        self._features, self._count = _encode(model, processor, video)
        self._head: Tokens = ()
        self._cache: Any = None

    def answer(self, questions: Sequence[str], max_new_tokens: int, batch_size: int = 16) -> list[str]:
        """Answer questions greedily; as [`answer_about_video`]."""
        import torch

        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
        tails: dict[Tokens, dict[int, Tokens]] = {}  # what follows the video, by what comes up to its end and by row
        for row, (head, tail) in enumerate(self._split(questions)):
            tails.setdefault(head, {})[row] = tail
        answers = [""] * len(questions)
        with torch.inference_mode():
            for head, tail_of in tails.items():
                self._compute(head)
                for rows in _batches(tail_of, batch_size, padded=_takes_padding(self._cache)):
                    texts = self._generate([tail_of[row] for row in rows], max_new_tokens)
                    for row, text in zip(rows, texts, strict=True):
                        answers[row] = text
        return answers

    def _split(self, questions: Sequence[str]) -> Iterator[tuple[Tokens, Tokens]]:
        """Tokens of the prompts up to the end of the video, and after it."""
        prompts = [build_prompt(self.processor, question) for question in questions]
        for text in self.processor.expand_placeholders(prompts, [self._count] * len(prompts)):
            tokens = tuple(self.processor.tokenizer(text)["input_ids"])
            end = len(tokens) - tokens[::-1].index(self.processor.video_token_id)
            if end == len(tokens):
                raise ValueError("nothing follows the video in the prompt; the chat template must begin an answer")
            yield tokens[:end], tokens[end:]

    def _compute(self, head: Tokens) -> None:
        """The cache of keys and values of a head; only the last one is kept."""
        import torch

        if head == self._head:
            return
        ids = torch.tensor([head], device=self.model.device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **self._features}
        self._cache = self.model(**inputs, use_cache=True, logits_to_keep=1).cache
        self._head = head

    def _generate(self, tails: Sequence[Tokens], max_new_tokens: int) -> list[str]:
        """Answers to a batch of questions by the tokens that follow the video, padded between it and them."""
        import torch

        length, tokenizer = len(self._head) + max(map(len, tails)), self.processor.tokenizer
        ids = torch.full((len(tails), length), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, tail in enumerate(tails):
            for start, tokens in ((0, self._head), (length - len(tail), tail)):
                ids[row, start : start + len(tokens)] = torch.tensor(tokens)
                mask[row, start : start + len(tokens)] = 1
        cache = copy.deepcopy(self._cache)  # generation goes on in it
        cache.reorder_cache(torch.zeros(len(tails), dtype=torch.long))  # its only row for each question
        output = self.model.generate(
            input_ids=ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            cache=cache,
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        return [text.strip() for text in self.processor.batch_decode(output[:, length:], skip_special_tokens=True)]


def _encode(model: Any, processor: Any, video: Features | str | Media) -> tuple[dict[str, torch.Tensor], int]:
    """The model's inputs of a video as features, and how many placeholders it needs."""
    import torch

    if isinstance(video, Mapping):
        stored = {f"{modality}_features": [video.get(modality)] for modality in MODALITIES}
        inputs, counts = processor.video_inputs(**stored)
    else:
        inputs, counts = processor.video_inputs(videos=[video])
    inputs = {name: values.to(model.device) for name, values in inputs.items()}
    if not isinstance(video, Mapping):
        with torch.inference_mode():
            encoded = model.encode(**inputs)
        inputs = {f"{modality}_features": values for modality, (values, _) in encoded.items()}
        inputs |= {f"{modality}_features_mask": mask for modality, (_, mask) in encoded.items()}
    return inputs, counts[0]


def _takes_padding(cache: Any) -> bool:
    """Whether padding between video and question is harmless: masked in full attention, it is not where a window
    slides over the tokens or a state runs through them."""
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in cache.layers)


def _batches(tail_of: Mapping[int, Tokens], size: int, padded: bool) -> Iterator[list[int]]:
    """Rows that are answered together: of like length, or where they must not be padded of the same."""
    batch: list[int] = []
    for row in sorted(tail_of, key=lambda row: len(tail_of[row])):
        if len(batch) == size or (batch and not padded and len(tail_of[batch[0]]) != len(tail_of[row])):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
