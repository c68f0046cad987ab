"""Collation of conversations about raw videos into batches of a chat model: its inputs, and the tokens to train on."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.nn.functional import pad

from longvale.models.media import MediaError
from longvale.tasks import VIDEO_TOKEN
from longvale.training.collator import IGNORE_INDEX

if TYPE_CHECKING:
    from longvale.evaluation.adapters.chat_inputs import ChatInputs
    from longvale.evaluation.adapters.media import VideoReader
    from longvale.models.media import Media

logger = logging.getLogger(__name__)

#: Inputs of one row, or of a batch.
Inputs: TypeAlias = dict[str, torch.Tensor]

#: Inputs with one value per token; processors return one of the last two for some models.
PER_TOKEN = ("input_ids", "attention_mask", "labels", "mm_token_type_ids", "token_type_ids")

#: What takes the place of an answer while the template is rendered: characters for private use, which no text has.
_MARK = "\ue000{}\ue001"
_MARKED = re.compile("\ue000(\\d+)\ue001")


class ChatCollator:
    """Collator of rows into a batch with labels, for any video model of transformers with a chat template.

    A row has `messages` (`[{"role", "content"}, ...]`, with texts as contents) and `video`, a path or another source of
    the reader, or None. The video is placed where `<video>` is in the first user message, or before its text.

    Labels cover the assistant's words and the token that ends them, whatever the template. A conversation that is too
    long loses whole turns from its end.

    Args:
        inputs: prompts and processor of the model.
        reader: of the videos.
        max_length: maximum number of tokens per row, video included; None for no limit.

    Raises:
        ValueError: when called, if a conversation does not end with an answer, or the first question and its answer
            are longer than `max_length`; the message names the row.

    Example:
        >>> collator = ChatCollator(ChatInputs(model, processor), VideoReader(64, 224))  # doctest: +SKIP
        >>> batch = collator([{"id": "abc", "messages": messages, "video": "abc.mp4"}])  # doctest: +SKIP
    """

    def __init__(self, inputs: ChatInputs, reader: VideoReader, max_length: int | None = None) -> None:
        self.inputs, self.reader, self.max_length = inputs, reader, max_length
        self.tokenizer = inputs.processor.tokenizer
        self._opening = self._find_opening()

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Inputs:
        """Return the inputs of the rows, padded on the right, with `labels`.

        A row whose video cannot be decoded has no labels in the batch; a warning names it.
        """
        return merge([self._encode_row(row) for row in rows], self.tokenizer.pad_token_id or 0)

    def _encode_row(self, row: Mapping[str, Any]) -> Inputs:
        name = row.get("id", "a video")
        try:
            media = None if row.get("video") is None else self.reader(row["video"])
            return self.encode(row["messages"], media)
        except (MediaError, FileNotFoundError) as error:
            logger.warning("conversation about %r is left out of its batch: %s", name, error)
            one = torch.ones(1, 1, dtype=torch.long)
            return {
                "input_ids": one * (self.tokenizer.eos_token_id or 0),
                "attention_mask": one,
                "labels": one * IGNORE_INDEX,
            }
        except ValueError as error:
            raise ValueError(f"conversation about {name!r}: {error}") from None

    def encode(self, messages: Sequence[Mapping[str, str]], media: Media | None) -> Inputs:
        """Return the inputs of one conversation, with labels: the ids at trained positions and -100 elsewhere."""
        kept = list(messages)
        while True:
            prompt, spans = self.render(kept, media is not None)
            inputs = dict(self.inputs.encode(prompt, media))
            length = inputs["input_ids"].shape[1]
            if self.max_length is None or length <= self.max_length:
                return inputs | {"labels": self._label(prompt, spans, inputs["input_ids"])}
            if len(spans) < 2:
                raise ValueError(
                    f"the first question and its answer have {length} tokens with the video, more than max_length "
                    f"({self.max_length}); raise max_length, or lower frames or frame_size"
                )
            last = max(i for i, message in enumerate(kept[:-1]) if message["role"] == "assistant")
            kept = kept[: last + 1]

    def render(self, messages: Sequence[Mapping[str, str]], video: bool) -> tuple[str, list[tuple[int, int]]]:
        """Render a conversation; return it with the characters of each answer and its end token, [start, stop).

        Raises:
            ValueError: if the last turn is not the assistant's, or the template leaves out an answer.
        """
        if not messages or messages[-1]["role"] != "assistant":
            raise ValueError("the last turn must be the assistant's: there is nothing to learn from a question alone")
        answers, parts, placed = [], [], not video
        for message in messages:
            words = message["content"].strip()
            if message["role"] == "assistant":
                answers.append(self.inputs.text(words)["text"])
                content = [{"type": "text", "text": _MARK.format(len(answers) - 1)}]
            elif message["role"] == "user" and not placed:
                placed = True
                before, _, after = words.rpartition(VIDEO_TOKEN)
                texts = [self.inputs.text(text.strip()) for text in (before, after)]
                content = [*texts[: bool(before.strip())], {"type": "video"}, texts[1]]
            else:
                content = [self.inputs.text(words)]
            parts.append({"role": message["role"], "content": content})
        if not placed:
            raise ValueError("the conversation has no turn of the user, which the video belongs to")
        return self._fill(self.inputs.render(parts), answers)

    def _fill(self, rendered: str, answers: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
        """Put the answers into a rendered template; return it with their spans."""
        pieces = _MARKED.split(rendered)
        if pieces[1::2] != [str(number) for number in range(len(answers))]:
            raise ValueError("the chat template does not write each answer once; this recipe cannot train with it")
        text, spans = pieces[0], []
        for answer, rest in zip(answers, pieces[2::2], strict=True):
            start = len(text) - len(self._opening) if text.endswith(self._opening) else len(text)
            text += answer
            spans.append((start, len(text) + self._end(rest)))
            text += rest
        return text, spans

    def _end(self, rest: str) -> int:
        """Return the number of characters of the end token at the beginning of a text, with spaces before it."""
        stripped = rest.lstrip()
        ends = [token for token in self.tokenizer.all_special_tokens if stripped.startswith(token)]
        return len(rest) - len(stripped) + max(map(len, ends)) if ends else 0

    def _find_opening(self) -> str:
        """Return what the template writes between a prompt and an answer, such as a space: the model generates it."""
        asked = self.inputs.question("When?")
        prompt = self.inputs.render(asked, generate=True)
        answered = [*asked, {"role": "assistant", "content": [{"type": "text", "text": _MARK.format(0)}]}]
        before, *_, after = _MARKED.split(self.inputs.render(answered))
        if not self._end(after):
            logger.warning(
                "the chat template writes no end token after an answer (%r); the model does not learn to stop", after
            )
        if before.startswith(prompt):
            return before[len(prompt) :]
        logger.warning(
            "the chat template begins answers otherwise when it generates (%r) than in a conversation (%r); the model "
            "is trained on the latter and asked with the former",
            prompt[-40:],
            before[-40:],
        )
        return ""

    def _label(self, prompt: str, spans: Sequence[tuple[int, int]], ids: torch.Tensor) -> torch.Tensor:
        """Return labels [1, L] of expanded ids [1, L]; the tokens from the first answer on are those of the prompt."""
        options = self.inputs.tokenizer_options(prompt)
        plain = self.tokenizer(prompt, return_offsets_mapping=True, **options)
        tail = [
            (token, start, stop)
            for token, (start, stop) in zip(plain["input_ids"], plain["offset_mapping"], strict=True)
            if start >= spans[0][0]
        ]
        labels = torch.full_like(ids, IGNORE_INDEX)
        expected = torch.tensor([token for token, _, _ in tail])
        if not torch.equal(ids[0, -len(tail) :], expected):
            raise ValueError("the processor tokenizes answers otherwise than its tokenizer; the answers are not found")
        trained = torch.tensor(
            [any(a <= start < stop <= b for a, b in spans) for _, start, stop in tail], dtype=torch.bool
        )
        labels[0, -len(tail) :] = torch.where(trained, expected, IGNORE_INDEX)
        return labels


def merge(rows: Sequence[Inputs], pad_token_id: int) -> Inputs:
    """Merge the inputs of single rows into a batch: those per token are padded on the right to the longest row.

    Args:
        rows: inputs of one row each.
        pad_token_id: for `input_ids`.

    Example:
        >>> rows = [{"input_ids": torch.tensor([[1, 2]])}, {"input_ids": torch.tensor([[3]]), "x": torch.ones(4, 2)}]
        >>> batch = merge(rows, pad_token_id=0)
        >>> batch["input_ids"].tolist(), batch["x"].shape
        ([[1, 2], [3, 0]], torch.Size([4, 2]))
    """
    fillers = {"input_ids": pad_token_id, "labels": IGNORE_INDEX}
    length = max(row["input_ids"].shape[1] for row in rows)
    batch: Inputs = {}
    for name in PER_TOKEN:
        if any(name in row for row in rows):
            # A row without a video may have no types of its tokens: they are text, which is 0.
            values = [row.get(name, torch.zeros_like(row["input_ids"])) for row in rows]
            batch[name] = torch.cat([pad(v, (0, length - v.shape[1]), value=fillers.get(name, 0)) for v in values])
    return batch | merge_media([{name: v for name, v in row.items() if name not in PER_TOKEN} for row in rows])


def merge_media(rows: Sequence[Inputs]) -> Inputs:
    """Merge the inputs of the videos of single rows: their first dimension is a video, a sound or a patch.

    Their other dimensions are padded with zeros. What only some rows have, such as sound, is that of those rows.

    Args:
        rows: inputs of one video each; empty without a video.

    Example:
        >>> merge_media([{"x": torch.ones(1, 2)}, {}, {"x": torch.ones(2, 3)}])["x"].tolist()
        [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    batch: Inputs = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        found = [row[name] for row in rows if name in row]
        shape = [max(sizes) for sizes in zip(*(values.shape[1:] for values in found), strict=True)]
        parts = []
        for values in found:
            missing = [size - had for size, had in zip(shape, values.shape[1:], strict=True)]
            parts.append(pad(values, [room for size in reversed(missing) for room in (0, size)]))
        batch[name] = torch.cat(parts)
    return batch
