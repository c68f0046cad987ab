"""Generation of many answers together, a token of each per step; the row of a finished answer is given to the next one.

`generate` of transformers takes as long as the longest answer of its batch, and for a small model most of a step is
what surrounds the layers. Here a step is one forward pass and one argmax. Answers continue from prefixes that were
computed before; they equal those of `generate`, apart from rounding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from .sampling import SeededNoise
    from .slots import Slots

#: Settings of generation that greedy decoding ignores, or that [`Stepper`] follows.
_FOLLOWED = frozenset(
    {
        *("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id", "suppress_tokens"),
        *("do_sample", "temperature", "min_p", "top_h", "top_k", "top_p", "typical_p"),
        *("max_length", "max_new_tokens", "output_attentions", "output_hidden_states", "output_scores"),
        *("return_dict_in_generate", "transformers_version", "use_cache", "_from_model_config"),
    }
)

#: One forward pass begins several answers: it waits until they are this share of the rows, for this many steps at most.
_REFILL, _REFILL_STEPS = 0.25, 4
#: The longest of the suffixes of one pass, as a multiple of the shortest.
_PADDING = 2


@dataclass(eq=False)
class Writing:
    """An answer that is being written.

    Args:
        prefix: a cache of keys and values, and the row of it in which the answer's prompt begins.
        prefix_mask: ones for the tokens of that row, zeros for padding on the left.
        suffix: the other tokens of the prompt, at least one.
        max_new_tokens: maximum number of tokens of the answer.
        sample: noise that is added to the scores of each next token, so that the highest is a sample; None for greedy
            decoding.

    Attributes:
        tokens: of the answer so far, the end token included.
        finished: whether the answer is complete.
        ended: whether the model ended it; otherwise it has `max_new_tokens`.
    """

    prefix: tuple[Any, int]
    prefix_mask: Sequence[int]
    suffix: Sequence[int]
    max_new_tokens: int
    sample: SeededNoise | None = None
    tokens: list[int] = field(default_factory=list)
    finished: bool = False
    ended: bool = False

    def restart(self) -> None:
        """Begin again: the same tokens follow."""
        self.tokens.clear()
        if self.sample is not None:
            self.sample.restart()


def steps_alone(model: Any) -> bool:
    """Return whether [`Stepper`] generates what `model.generate` does: with full attention in all layers, an attention
    that reads any mask, and no settings of generation that change the scores."""
    settings = getattr(model, "generation_config", None)
    if settings is None or not takes_padding(model) or set(settings.to_diff_dict()) - _FOLLOWED:
        return False
    return model.config.get_text_config()._attn_implementation in ("sdpa", "eager")


class Stepper:
    """Answers that a model writes together.

    Args:
        model: a model of which [`steps_alone`] is true.
        rows: maximum number of answers at a time.
        row_tokens: maximum number of tokens in memory, over all rows; there is always one row.

    Example:
        >>> stepper = Stepper(model, rows=32)  # doctest: +SKIP
        >>> stepper.add(Writing(prefix, mask, suffix, max_new_tokens=64))  # doctest: +SKIP
        >>> while stepper.busy:  # doctest: +SKIP
        ...     finished = stepper.step()
    """

    def __init__(self, model: Any, rows: int, row_tokens: int) -> None:
        self._model, self._rows, self._row_tokens = model, rows, row_tokens
        settings, vocabulary = model.generation_config, model.config.get_text_config().vocab_size
        ends = settings.eos_token_id
        self._ends = frozenset([ends] if isinstance(ends, int) else ends or [])
        self._suppressed = [token for token in settings.suppress_tokens or [] if token < vocabulary]
        self._waiting: deque[Writing] = deque()
        self._written: list[Writing | None] = []  # by row
        self._delayed = 0  # steps for which answers have waited for more rows to be free
        self._slots: Slots | None = None
        self._next: Any = None  # token that each row reads next, int64 [rows]
        self._alive: Any = None  # 1 for rows in use, int64 [rows]

    @property
    def busy(self) -> bool:
        """Return whether answers are being written or are waiting."""
        return bool(self._waiting) or any(self._written)

    def add(self, *writings: Writing) -> None:
        """Let answers wait for a row, in this order."""
        self._waiting.extend(writings)

    def remove(self, writing: Writing) -> None:
        """Give up an answer."""
        import torch

        if writing in self._waiting:
            self._waiting.remove(writing)
        elif writing in self._written:
            with torch.inference_mode():
                self._free([self._written.index(writing)])

    def step(self) -> list[Writing]:
        """Write a token of every answer, or the first token of answers that waited; return those that got one."""
        import torch

        with torch.inference_mode():
            if rows := self._refill():
                return self._begin(rows)
            return self._continue()

    def _refill(self) -> list[int]:
        """Return the rows that begin now."""
        used = sum(writing is not None for writing in self._written)
        wanted = min(used + len(self._waiting), self._rows, self._fitting())
        if used and wanted <= used:
            if 2 * used <= len(self._written):
                self._resize(used)
            return []
        if used and wanted - used < _REFILL * wanted:
            self._delayed += 1
            if self._delayed < _REFILL_STEPS:
                return []
        self._delayed = 0
        if wanted > len(self._written) or 2 * wanted <= len(self._written):
            self._resize(wanted)
        return [row for row, writing in enumerate(self._written) if writing is None][: len(self._waiting)]

    def _fitting(self) -> int:
        """Return how many rows there is memory for, of the length of the longest one or the next ones."""
        longest = 0 if self._slots is None else self._slots.longest
        for writing in islice(self._waiting, self._rows):
            longest = max(longest, len(writing.prefix_mask) + len(writing.suffix))
        return max(1, self._row_tokens // (longest + 1))

    def _resize(self, count: int) -> None:
        """Change the number of rows; those in use stay."""
        import torch

        from .slots import Slots

        if self._slots is None:
            cache, _ = self._waiting[0].prefix
            self._slots = Slots(cache, count, self._model.dtype)
            self._written = [None] * count
            self._next = torch.zeros(count, dtype=torch.long, device=self._model.device)
            self._alive = torch.zeros_like(self._next)
            return
        used = [row for row, writing in enumerate(self._written) if writing is not None]
        self._slots.select(used, count)
        empty = [0] * (count - len(used))
        self._written = [*(self._written[row] for row in used), *[None] * len(empty)]
        chosen = torch.tensor([*used, *empty], dtype=torch.long, device=self._next.device)
        self._next, self._alive = self._next[chosen], self._alive[chosen]
        self._alive[len(used) :] = 0

    def _begin(self, rows: list[int]) -> list[Writing]:
        """Run the prompts of waiting answers, and write their first tokens."""
        import torch

        begun = self._next_alike(len(rows))
        rows = rows[: len(begun)]
        device, longest = self._model.device, max(len(writing.prefix_mask) for writing in begun)
        prefix_mask, _ = padded_left([writing.prefix_mask for writing in begun], 0)
        ids, mask = padded_left([writing.suffix for writing in begun], 0)
        masks = torch.cat([prefix_mask, mask], dim=1).to(device)
        chosen = torch.tensor(rows, device=device)
        self._slots.begin_rows(chosen, [writing.prefix for writing in begun], masks)
        positions = (masks.cumsum(dim=1) - 1).clamp(min=0)[:, longest:]
        scores = self._forward(ids.to(device), positions, self._slots.rows_mask(chosen, masks.shape[1]))
        for row, writing in zip(rows, begun, strict=True):
            self._written[row] = writing
        self._alive[chosen] = 1
        return self._take(rows, scores)

    def _next_alike(self, most: int) -> list[Writing]:
        """Take the first answers that wait, without those whose prompts would be mostly padding beside the first one:
        they stay first in line, for the next step."""
        first, skipped, chosen = len(self._waiting[0].suffix), [], []
        while self._waiting and len(chosen) < most:
            writing = self._waiting.popleft()
            alike = max(first, len(writing.suffix)) <= _PADDING * min(first, len(writing.suffix))
            (chosen if alike else skipped).append(writing)
        self._waiting.extendleft(reversed(skipped))
        return chosen

    def _continue(self) -> list[Writing]:
        """Write the next token of all answers."""
        slots = self._slots
        if (slots.longest + 1) * len(slots) > self._row_tokens and len(slots) > 1:
            self._make_room()
        slots.begin_tokens()
        scores = self._forward(self._next[:, None], slots.positions[:, None], slots.step_mask())
        rows = [row for row, writing in enumerate(self._written) if writing is not None]
        slots.end_tokens(rows, self._alive)
        return self._take(rows, scores[rows] if len(rows) < len(scores) else scores)

    def _make_room(self) -> None:
        """Let the shorter half of the answers wait again, from their beginning."""
        used = [row for row, writing in enumerate(self._written) if writing is not None]
        used.sort(key=lambda row: len(self._written[row].tokens))
        again = used[: len(used) // 2]
        for row in reversed(again):
            self._written[row].restart()
            self._waiting.appendleft(self._written[row])
        self._free(again)
        self._resize(len(used) - len(again))

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the scores of the next tokens, [rows, vocabulary]."""
        inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": mask, "cache": self._slots}
        return self._model(**inputs, use_cache=True, logits_to_keep=1).logits[:, -1].float()

    def _take(self, rows: list[int], scores: torch.Tensor) -> list[Writing]:
        """Choose the next tokens, and free the rows of answers that are complete."""
        if self._suppressed:
            scores[:, self._suppressed] = -float("inf")
        written = [self._written[row] for row in rows]
        for place, writing in enumerate(written):
            if writing.sample is not None:
                scores[place] = writing.sample(None, scores[place : place + 1])[0]
        tokens = scores.argmax(dim=1)
        self._next[rows] = tokens
        for writing, token in zip(written, tokens.tolist(), strict=True):
            writing.tokens.append(token)
            writing.ended = token in self._ends
            writing.finished = writing.ended or len(writing.tokens) >= writing.max_new_tokens
        self._free([row for row, writing in zip(rows, written, strict=True) if writing.finished])
        return written

    def _free(self, rows: Sequence[int]) -> None:
        """Empty rows."""
        if rows:
            self._slots.clear(rows)
            self._alive[list(rows)] = 0
            for row in rows:
                self._written[row] = None


def takes_padding(model: Any) -> bool:
    """Return whether padding between video and question is harmless: full attention masks it, but sliding windows and
    recurrent states do not."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config.get_text_config()).layers)


def padded_left(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad rows on the left; return their values and the mask, both int64 [rows, longest].

    Example:
        >>> ids, mask = padded_left([(5, 6, 7), (8,)], 0)
        >>> ids.tolist(), mask.tolist()
        ([[5, 6, 7], [0, 0, 8]], [[1, 1, 1], [0, 0, 1]])
    """
    import torch

    ids = torch.full((len(rows), max(map(len, rows))), pad)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, -len(tokens) :] = torch.as_tensor(tokens)
        mask[row, -len(tokens) :] = 1
    return ids, mask
