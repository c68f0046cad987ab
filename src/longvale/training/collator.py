"""From dialogues to batches: what the model reads, and which words it is trained on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils.chat_template_utils import render_jinja_template

from longvale.events import MODALITIES

if TYPE_CHECKING:
    from longvale.models.processing_longvale import LongVALEProcessor

IGNORE_INDEX = -100


class DialogueCollator:
    """Turns rows of `boundary_perception` or `instruction` into a batch with labels.

    A row has `messages` (`[{"role", "content"}, ...]`, `<video>` once, in the first user turn) and its video as
    `visual_features`, `audio_features`, `speech_features` (arrays [n, width] or None) or as `video` (a path).

    The labels cover the assistant's words and their end token, as the chat template marks them with `generation`.
    A dialogue that is too long loses whole turns from its end, as in the published training.

    Args:
        processor: of the model.
        max_length: tokens of a row at most, video included; None for no limit.

    Raises:
        ValueError: when called, if a row has no video, the first turn alone is longer than `max_length`, or the chat
            template has no `generation` marks.

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

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Rows -> `input_ids`, `attention_mask`, `labels` [B, L], padded on the right, and the video inputs."""
        video_inputs, counts = self._video_inputs(rows)
        encoded = [self.encode(row["messages"], count) for row, count in zip(rows, counts, strict=True)]
        length = max(len(ids) for ids, _ in encoded)
        pad_id = self.processor.tokenizer.pad_token_id or 0
        input_ids = torch.full((len(rows), length), pad_id)
        labels = torch.full((len(rows), length), IGNORE_INDEX)
        attention_mask = torch.zeros(len(rows), length, dtype=torch.long)
        for i, (ids, targets) in enumerate(encoded):
            input_ids[i, : len(ids)] = torch.tensor(ids)
            labels[i, : len(ids)] = torch.tensor(targets)
            attention_mask[i, : len(ids)] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels, **video_inputs}

    def encode(self, messages: Sequence[Mapping[str, str]], count: int) -> tuple[list[int], list[int]]:
        """Token ids and labels of one dialogue whose video has `count` features.

        Returns:
            ids [L] and labels [L], the ids where the loss is and -100 elsewhere.
        """
        messages = list(messages)
        while True:
            ids, labels = self._tokenize(messages, count)
            if self.max_length is None or len(ids) <= self.max_length:
                return ids, labels
            if len(messages) <= 2:
                raise ValueError(
                    f"the first turn of a dialogue has {len(ids)} tokens, more than max_length ({self.max_length}); "
                    "raise max_length or shorten the dialogue"
                )
            messages = messages[:-2]

    def _tokenize(self, messages: list[Mapping[str, str]], count: int) -> tuple[list[int], list[int]]:
        messages = [self._escape(message, index) for index, message in enumerate(messages)]
        tokenizer = self.processor.tokenizer
        rendered, spans = render_jinja_template(
            [messages],
            chat_template=self.processor.chat_template,
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
        )
        text, spans = rendered[0], spans[0]
        video_end = text.index(self.processor.video_token) + len(self.processor.video_token)
        # Placeholders stand before the first answer: what they add shifts every span alike.
        shift = (count - 1) * len(self.processor.video_token)
        starts = [start + shift for start, _ in spans]
        ends = [end + shift for _, end in spans]
        if spans and spans[0][0] < video_end:
            raise ValueError(f"{self.processor.video_token} must stand in the first user turn")
        expanded = self.processor.expand_placeholders([text], [count])[0]
        encoding = tokenizer(expanded, return_offsets_mapping=True)
        labels = []
        for token_id, (start, end) in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True):
            span = bisect_right(starts, start) - 1
            trained = span >= 0 and end > start and end <= ends[span]
            labels.append(token_id if trained else IGNORE_INDEX)
        return encoding["input_ids"], labels

    def _escape(self, message: Mapping[str, str], index: int) -> dict[str, str]:
        """Words that spell the placeholder stay words: only the first one of the first user turn is the video."""
        content, token = message["content"], self.processor.video_token
        if message["role"] == "user" and index <= 1 and token in content:
            before, after = content.split(token, 1)
            content = f"{self.processor.escape(before)}{token}{self.processor.escape(after)}"
        else:
            content = self.processor.escape(content)
        return {"role": message["role"], "content": content}

    def _video_inputs(self, rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, torch.Tensor], list[int]]:
        columns = {f"{modality}_features": [row.get(f"{modality}_features") for row in rows] for modality in MODALITIES}
        if any(value is not None for column in columns.values() for value in column):
            return self.processor.video_inputs(**columns)
        return self.processor.video_inputs(videos=[row["video"] for row in rows])
