"""Collation of dialogues into batches: the model's inputs, and the tokens that it is trained on."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from longvale.checkpoints.chat_templates import render_template
from longvale.data.dialogues import IMAGE_TOKEN
from longvale.evaluation.generation.model import build_prompt
from longvale.events import MODALITIES

if TYPE_CHECKING:
    from longvale.models.processing_longvale import LongVALEProcessor

logger = logging.getLogger(__name__)

IGNORE_INDEX = -100

#: Inputs of a batch that are as long as the dialogues.
TEXT_INPUTS = ("input_ids", "attention_mask", "labels")

#: One item of a row's `messages`: `{"role", "content"}`.
Message: TypeAlias = Mapping[str, str]

#: A line of a dense-captioning answer.
_EVENT_LINE = re.compile(r"From \S.{,20} to \S")


class DialogueCollator:
    """Collator of `boundary_perception` or `instruction` rows into a batch with labels.

    A row has `messages` (`[{"role", "content"}, ...]`, `<video>` or `<image>` once, in the first user turn) and its
    video as `visual_features`, `audio_features`, `speech_features` (arrays [n, width] or None) or as `video` (a path).

    The labels cover the assistant's words and their end token, as the chat template marks them with `generation`,
    without what a prompt already contains, such as the empty reasoning block of a model with thinking disabled.
    A dialogue that is too long loses whole turns from its end, and a single dense-captioning answer whole events, as in
    the published training. With a processor whose `preprocessing` is "official", the rest is also worded as there:
    a space before each end mark but the last, or spaces in place of the line breaks between events.

    Args:
        processor: of the model.
        max_length: maximum number of tokens per row, video included; None for no limit. The published code counts the
            video as one token, and so does this one if the processor's `preprocessing` is "official".

    Raises:
        ValueError: when called, if a row has no video or no placeholder for it, or one question with its answer alone
            is longer than `max_length`; on creation, if the chat template has no `generation` marks.

    Example:
        >>> collator = DialogueCollator(processor, max_length=2048)  # doctest: +SKIP
        >>> sorted(collator(list(dataset.take(2))))[:3]  # doctest: +SKIP
        ['attention_mask', 'audio_features', 'audio_features_mask']
    """

    def __init__(self, processor: LongVALEProcessor, max_length: int | None = 2048) -> None:
        if "generation" not in (processor.chat_template or ""):
            raise ValueError(
                "the chat template does not mark what to train on; put {% generation %} ... {% endgeneration %} around "
                "the assistant's words and end token"
            )
        self.processor = processor
        self.max_length = max_length
        self._opening = _opening(processor)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `input_ids`, `attention_mask`, `labels` [B, L], padded on the right, and the video inputs of rows."""
        video_inputs, counts = self._video_inputs(rows)
        return self._pad([self._encode_row(row, count) for row, count in zip(rows, counts, strict=True)]) | video_inputs

    def _pad(self, encoded: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, torch.Tensor]:
        shape = len(encoded), max(len(ids) for ids, _ in encoded)
        input_ids = np.full(shape, self.processor.tokenizer.pad_token_id or 0)
        labels = np.full(shape, IGNORE_INDEX)
        attention_mask = np.zeros(shape, dtype=np.int64)
        for i, (ids, targets) in enumerate(encoded):
            input_ids[i, : len(ids)] = ids
            labels[i, : len(ids)] = targets
            attention_mask[i, : len(ids)] = 1
        text = zip(TEXT_INPUTS, (input_ids, attention_mask, labels), strict=True)
        return {name: torch.from_numpy(values) for name, values in text}

    def encode(self, messages: Sequence[Message], count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return token ids and labels of one dialogue whose video has `count` features.

        Returns:
            ids [L] and labels [L], which are the ids at trained positions and -100 elsewhere.
        """
        kept = messages = list(messages)
        official, limit = self.processor.preprocessing == "official", self._limit(count)
        while True:
            ids, labels, answers = self._tokenize(messages, count)
            if len(ids) <= limit:
                return ids, labels
            kept = self._shorten(kept, answers, len(ids), limit)
            messages = _word_as_published(kept) if official else kept

    def _limit(self, count: int) -> float:
        """Return the maximum number of tokens of a dialogue whose video has `count` features."""
        if self.max_length is None:
            return math.inf
        return self.max_length + (count - 1) * (self.processor.preprocessing == "official")

    def _encode_row(self, row: Mapping[str, Any], count: int) -> tuple[np.ndarray, np.ndarray]:
        try:
            return self.encode(row["messages"], count)
        except ValueError as error:
            raise ValueError(f"dialogue about {row.get('id', 'a video')!r}: {error}") from None

    def _tokenize(self, messages: Sequence[Message], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ids [L], labels [L], and for each answer the number of tokens up to its end."""
        rendered, spans = _render(self.processor, self._place_video(messages))
        # Text that a prompt to the model already contains is not learned.
        opening = self._opening
        spans = [(at + len(opening) * rendered.startswith(opening, at), stop) for at, stop in spans]
        # Placeholders come before the first answer, so they shift every span equally.
        shift = (count - 1) * len(self.processor.video_token)
        spans = np.array(spans).reshape(-1, 2) + shift  # characters [answers, 2]
        expanded = self.processor.expand_placeholders([rendered], [count])[0]
        encoding = self.processor.tokenize_prompts(expanded, return_offsets_mapping=True)
        ids, (starts, ends) = np.array(encoding["input_ids"]), np.array(encoding["offset_mapping"]).T
        answer = np.searchsorted(spans[:, 0], starts, side="right") - 1  # the last one begun, -1 before the first
        trained = (answer >= 0) & (ends > starts) & (ends <= spans[answer, 1])
        return ids, np.where(trained, ids, IGNORE_INDEX), np.searchsorted(ends, spans[:, 1], side="right")

    def _shorten(self, messages: Sequence[Message], answers: np.ndarray, length: int, limit: float) -> list[Message]:
        """Drop as many last turns as exceed the limit, or the last event if there is only one turn."""
        excess = len(answers) - max(1, int((answers <= limit).sum()))
        if excess:
            return list(messages[: -2 * excess])
        *head, last = messages
        lines = last["content"].splitlines()
        if len(lines) < 2 or not all(_EVENT_LINE.match(line.strip()) for line in lines):
            raise ValueError(
                f"the first question and its answer have {length} tokens with the video, more than max_length "
                f"({self.max_length}); raise max_length or shorten the dialogue"
            )
        return [*head, {**last, "content": "\n".join(lines[:-1])}]

    def _place_video(self, messages: Sequence[Message]) -> list[Message]:
        """Mark the video's place in the first user turn; text that spells the placeholder elsewhere is escaped."""
        escape, token = self.processor.escape, self.processor.video_token
        placed = [{**message, "content": escape(message["content"])} for message in messages]
        first = next((i for i, message in enumerate(messages) if message["role"] != "system"), 0)
        content = messages[first]["content"] if messages[first]["role"] == "user" else ""
        tag = token if token in content else IMAGE_TOKEN
        if tag not in content:
            raise ValueError(f"the first turn must be the user's and hold {token}: that is where the video goes")
        if messages[-1]["role"] != "assistant":
            raise ValueError("the last turn must be the assistant's: there is nothing to learn from a question alone")
        before, after = content.split(tag, 1)
        placed[first]["content"] = f"{escape(before)}{token}{escape(after)}"
        return placed

    def _video_inputs(self, rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, torch.Tensor], list[int]]:
        columns = {f"{modality}_features": [row.get(f"{modality}_features") for row in rows] for modality in MODALITIES}
        if any(value is not None for column in columns.values() for value in column):
            return self.processor.video_inputs(**columns)
        absent = [str(row.get("id")) for row in rows if row.get("video") is None]
        if absent:
            raise ValueError(f"dialogue about {absent[0]!r}: has neither stored features nor a video file")
        return self.processor.video_inputs(videos=[row["video"] for row in rows])


class PreferenceCollator(DialogueCollator):
    """Collator of preferences into the batches of TRL's `DPOTrainer`.

    A row has messages (`[{"role", "content"}, ...]`) in `prompt`, which is as the `messages` of [`DialogueCollator`]
    and ends with a question, and in `chosen` and `rejected`, the better and the worse answer. Its video is given as
    there. Both answers get the video; only their words and end token are compared.

    `DPOTrainer` tokenizes rows itself, without their video, unless they have a column `images`, which may be empty.

    Args:
        processor: of the model.
        max_length: maximum number of tokens of a question with its answer, video included; None for no limit. No answer
            is shortened.

    Raises:
        ValueError: when called, if a field is missing, a row has no video or no placeholder for it, or is too long.

    Example:
        >>> collator = PreferenceCollator(processor)  # doctest: +SKIP
        >>> collator(list(preferences.take(2)))["completion_mask"].shape  # chosen, then rejected  # doctest: +SKIP
        torch.Size([4, 181])
    """

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `input_ids`, `attention_mask`, `completion_mask` [2 B, L], padded on the right, and the video inputs:
        first with the chosen answers, then with the rejected ones."""
        video_inputs, counts = self._video_inputs(rows)
        batch = self._pad(
            [
                self._encode_answer(row, kind, count)
                for kind in ("chosen", "rejected")
                for row, count in zip(rows, counts, strict=True)
            ]
        )
        batch["completion_mask"] = (batch.pop("labels") != IGNORE_INDEX).long()
        return batch | {name: torch.cat([values, values]) for name, values in video_inputs.items()}

    def _encode_answer(self, row: Mapping[str, Any], kind: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ids [L] and labels [L] of a question with its chosen or rejected answer."""
        name = f"preference about {row.get('id', 'a video')!r}"
        for field in ("prompt", kind):
            if not isinstance(row.get(field), list) or not row[field]:
                raise ValueError(f"{name}: {field} must be a list of messages [{{'role', 'content'}}]")
        try:
            ids, labels, answers = self._tokenize([*row["prompt"], *row[kind]], count)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if len(ids) > self._limit(count):
            raise ValueError(
                f"{name}: the question and its {kind} answer have {len(ids)} tokens with the video, more than "
                f"max_length ({self.max_length}); raise max_length or leave the row out"
            )
        earlier = sum(message["role"] == "assistant" for message in row["prompt"])
        if earlier:
            labels[: answers[earlier - 1]] = IGNORE_INDEX
        return ids, labels


def _render(processor: LongVALEProcessor, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
    """Render a dialogue by the chat template; return it with the characters of each marked answer, [at, stop)."""
    rendered, spans = render_template(
        [list(messages)],
        chat_template=processor.chat_template,
        return_assistant_tokens_mask=True,
        enable_thinking=False,  # as in prompts to the model
        **processor.tokenizer.special_tokens_map,
    )
    return rendered[0], spans[0]


def _opening(processor: LongVALEProcessor) -> str:
    """Return the text that starts marked answers and also ends a prompt: an empty reasoning block."""
    video = processor.video_token
    rendered, spans = _render(processor, [{"role": "user", "content": video}, {"role": "assistant", "content": "Yes."}])
    prompt = build_prompt(processor, video)
    if not spans or not rendered.startswith(prompt):
        logger.warning(
            "the chat template begins answers otherwise when it generates (%r) than in a dialogue (%r); the model is "
            "trained on the latter and asked with the former",
            prompt[-40:],
            rendered[-40:],
        )
        return ""
    return rendered[spans[0][0] : len(prompt)]


def _word_as_published(messages: Sequence[Message]) -> list[Message]:
    """Word a shortened dialogue as the published training does."""
    last = len(messages) - 1
    return [
        {**message, "content": f"{message['content']} " if i < last else " ".join(message["content"].splitlines())}
        if message["role"] == "assistant"
        else message
        for i, message in enumerate(messages)
    ]
