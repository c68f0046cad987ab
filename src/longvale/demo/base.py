"""The demo's base model: what Vicuna and VTimeLLM's first stage are to the published one.

Three short trainings of the tiny language model, in the clear and with all weights:

1. as a plain language model on the corpus's text, without any video: it learns the language and the conversation;
2. with its visual projector on single frames and their captions;
3. on looking up: a few frames, then a thing, then when it is there.

Sound and speech play no part yet: learning them is what the boundary-perception stage is for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from tqdm.auto import tqdm

from longvale.data.planning import SyntheticOptions, plan_video
from longvale.timecodes import to_timecode
from longvale.training.collator import IGNORE_INDEX
from longvale.training.mosaic import FeatureBank, compose_visual

if TYPE_CHECKING:
    from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
    from longvale.models.processing_longvale import LongVALEProcessor

Batch = dict[str, Any]


def pretrain_language_model(
    model: LongVALEForConditionalGeneration,
    processor: LongVALEProcessor,
    texts: Sequence[str],
    *,
    steps: int,
    batch_size: int = 16,
    length: int = 96,
    learning_rate: float = 3e-3,
    seed: int = 0,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train `model` in place to go on with a text.

    Args:
        texts: sentences; they are joined and cut into stretches of `length` tokens.

    Returns:
        The loss curve: `{"step", "loss"}` a few times a run.
    """
    ids = torch.tensor([token for text in texts for token in processor.tokenizer(text)["input_ids"]])
    rng = random.Random(seed)

    def batch(_: int) -> Batch:
        starts = [rng.randrange(len(ids) - length) for _ in range(batch_size)]
        rows = torch.stack([ids[start : start + length] for start in starts])
        return {"input_ids": rows, "labels": rows}

    return _train(model, model.parameters(), batch, steps, learning_rate, "language model", progress)


def align_visual_projector(
    model: LongVALEForConditionalGeneration,
    processor: LongVALEProcessor,
    bank: FeatureBank,
    options: SyntheticOptions,
    *,
    caption_steps: int,
    lookup_steps: int,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    seed: int = 0,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train `model` in place on single frames and their captions, then on when things are seen.

    Args:
        bank: stored features of the corpus.
        options: of the planner, for new timelines.

    Returns:
        The loss curve of both.
    """
    tokenizer = processor.tokenizer

    def words(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def caption(index: int) -> Batch:
        rows = []
        for row in range(batch_size):
            rng = random.Random(f"{seed}:caption:{index}:{row}")
            content = rng.choice([content for content in bank.visual if content])
            answer = [*words(content), tokenizer.eos_token_id]
            rows.append((bank.draw_frames(content, 1, rng), [], [(answer, True)]))
        return _batch(rows, processor)

    def lookup(index: int) -> Batch:
        rows = []
        for row in range(batch_size):
            name = f"{seed}:lookup:{index}:{row}"
            rng, plan = random.Random(name), plan_video("lookup", name, options)
            turns = []
            pieces = [piece for _, piece in plan.lane("visual")]
            for piece in rng.sample(pieces, len(pieces)):
                codes = [to_timecode(time, plan.annotation.duration) for time in (piece.start, piece.end)]
                turns += [(words(piece.content), False), (words(f"{codes[0]} to {codes[1]}"), True)]
            rows.append((compose_visual(plan, bank, rng), [], turns))
        return _batch(rows, processor)

    parameters = list(model.parameters())
    curve = _train(model, parameters, caption, caption_steps, learning_rate, "frame captions", progress)
    return curve + _train(model, parameters, lookup, lookup_steps, learning_rate, "looking up", progress)


def _batch(rows: Iterable[tuple[Any, list[int], list[tuple[list[int], bool]]]], processor: LongVALEProcessor) -> Batch:
    """Visual features, a prompt and (tokens, trained on or not) stretches -> a batch padded on the right."""
    features, encoded = [], []
    for visual, prompt, stretches in rows:
        ids = [processor.tokenizer.bos_token_id, *[processor.video_token_id] * len(visual), *prompt]
        labels = [IGNORE_INDEX] * len(ids)
        for tokens, trained in stretches:
            ids += tokens
            labels += tokens if trained else [IGNORE_INDEX] * len(tokens)
        features.append(visual)
        encoded.append((torch.tensor(ids), torch.tensor(labels)))
    inputs, _ = processor.video_inputs(visual_features=features)
    pad = nn.utils.rnn.pad_sequence
    ids = pad([ids for ids, _ in encoded], batch_first=True, padding_value=processor.tokenizer.pad_token_id)
    labels = pad([labels for _, labels in encoded], batch_first=True, padding_value=IGNORE_INDEX)
    mask = pad([torch.ones_like(ids) for ids, _ in encoded], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, **inputs}


def _train(
    model: LongVALEForConditionalGeneration,
    parameters: Iterable[nn.Parameter],
    batch: Callable[[int], Batch],
    steps: int,
    learning_rate: float,
    name: str,
    progress: bool,
) -> list[dict[str, float]]:
    towers = ("visual_tower", "audio_tower", "speech_tower")
    frozen = {id(p) for tower in towers for p in getattr(model.model, tower).parameters()}
    trainable = [p for p in parameters if id(p) not in frozen]
    optimizer = torch.optim.AdamW(trainable, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    model.train()
    curve, recent = [], []
    bar = tqdm(range(steps), desc=name, unit="step", disable=not progress)
    for step in bar:
        loss = model(**batch(step)).loss
        loss.backward()
        nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append(loss.item())
        if (step + 1) % 20 == 0 or step + 1 == steps:
            curve.append({"step": step + 1, "loss": sum(recent) / len(recent)})
            bar.set_postfix(loss=f"{curve[-1]['loss']:.3f}")
            recent = []
    model.eval()
    return curve
