"""The demo's base model: the counterpart of Vicuna and VTimeLLM's first stage for the published model.

1. The tiny language model is trained on the corpus's text, without any video: it learns the language and the
   conversation.
2. The projectors are fitted to captions: a frame (or an audio window) of a thing is mapped to the embeddings of its
   words.
3. The embedding of each timecode gets the time embedding of a frame at that time.
4. The language model learns to look up when things happen, and what happens when, which a large one can do before it
   has seen a video.

All other questions are left to the two tuning stages.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from longvale.data.dialogues import Turn, fill_timecodes, grounding_turn, make_dialogue, segment_turn
from longvale.demo.optimizer import muon_for
from longvale.events import MODALITIES, Annotation, Modality
from longvale.synthetic.compositing import CompositeVideos, FeatureBank, compose
from longvale.synthetic.planning import plan_video
from longvale.training.collator import DialogueCollator

if TYPE_CHECKING:
    from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
    from longvale.models.processing_longvale import LongVALEProcessor

Batch = dict[str, Any]
#: `[{"step": ..., "loss": ...}, ...]`
Curve = list[dict[str, float]]

#: Share of questions about what happens at a time: in the first steps, in the later steps; share of first steps.
FEW_SEGMENTS, HALF_SEGMENTS, FIRST_STEPS = 0.25, 0.5, 0.4
#: Learning rates of the matrices (Muon) and of the other weights (AdamW).
MATRIX_LEARNING_RATE, OTHER_LEARNING_RATE = 0.01, 3e-3


def pretrain_language_model(
    model: LongVALEForConditionalGeneration,
    processor: LongVALEProcessor,
    texts: Sequence[str],
    *,
    steps: int,
    batch_size: int = 16,
    length: int = 96,
    seed: int = 0,
    progress: bool = True,
) -> Curve:
    """Train `model` in place to continue texts.

    Args:
        texts: sentences; they are joined and cut into sequences of `length` tokens.
    """
    ids = torch.tensor([token for text in texts for token in processor.tokenizer(text)["input_ids"]])
    rng = random.Random(seed)

    def batch(_: int) -> Batch:
        starts = [rng.randrange(len(ids) - length) for _ in range(batch_size)]
        rows = torch.stack([ids[start : start + length] for start in starts])
        return {"input_ids": rows, "labels": rows}

    frozen = [p for name, p in model.model.named_parameters() if not name.startswith("language_model.")]
    return _train(model, batch, steps, "language model", progress, frozen)


def fit_projectors(
    model: LongVALEForConditionalGeneration, processor: LongVALEProcessor, bank: FeatureBank, ridge: float = 1e-2
) -> dict[Modality, float]:
    """Fit the projectors of `model` in place: features of a clip to the sum of its caption's word embeddings.

    An empty clip is mapped to the origin. The fit is a ridge regression, so it needs no training.

    Args:
        bank: stored features by content.
        ridge: regularisation, as a share of the features' mean square.

    Returns:
        The share of the embeddings' variance that is explained, per modality.
    """
    embeddings = model.get_input_embeddings().weight.detach().double()

    def target(content: str | None) -> torch.Tensor:
        ids = processor.tokenizer(content or "", add_special_tokens=False)["input_ids"]
        return embeddings[ids].sum(dim=0)

    explained = {}
    for modality in MODALITIES:
        groups = list(_clips(bank, modality))
        x = torch.from_numpy(np.concatenate([clips for _, clips in groups])).double()
        y = torch.cat([target(content).expand(len(clips), -1) for content, clips in groups])
        x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
        gram = x.T @ x
        gram += ridge * len(x) * x.square().mean() * torch.eye(len(gram), dtype=x.dtype)
        solution = torch.linalg.solve(gram, x.T @ y)  # [width + 1, hidden]
        projector = getattr(model.model, f"{modality}_projector")
        with torch.no_grad():
            projector.weight.copy_(solution[:-1].T)
            projector.bias.copy_(solution[-1])
        explained[modality] = 1 - float((x @ solution - y).square().sum() / (y - y.mean(dim=0)).square().sum())
    return explained


def _clips(bank: FeatureBank, modality: Modality) -> Iterator[tuple[str | None, np.ndarray]]:
    """Yield each content with all stored features [n, width] that show it."""
    if modality == "visual":
        for content, runs in bank.visual.items():
            yield content, np.concatenate(runs)
        return
    for (sound, word), vectors in bank.sounds[modality].items():
        yield sound if modality == "audio" else word, np.stack(vectors)


def name_times(model: LongVALEForConditionalGeneration, processor: LongVALEProcessor) -> None:
    """Add to the embedding of each timecode, in place, the time embedding of a frame at that time.

    A timecode then matches the frames around it, as the words of a thing match its frames. Input and output embeddings
    are untied by this: if they stayed tied, neighbouring timecodes would be easily confused.
    """
    from longvale.models.layers import fourier_features

    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    head.weight = nn.Parameter(embedding.weight.detach().clone())
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    vocabulary = processor.tokenizer.get_vocab()
    codes = [code for code in range(100) if f"▁{code:02d}" in vocabulary]  # the others are spelled
    times = fourier_features(torch.tensor(codes) / 100, embedding.embedding_dim)
    with torch.no_grad():
        embedding.weight[[vocabulary[f"▁{code:02d}"] for code in codes]] += model.config.time_embedding_scale * times


def learn_to_look_up(
    model: LongVALEForConditionalGeneration,
    processor: LongVALEProcessor,
    composites: CompositeVideos,
    *,
    steps: int,
    batch_size: int = 24,
    seed: int = 0,
    progress: bool = True,
) -> Curve:
    """Train `model` in place on when events are and what they are, in new timelines of stored features.

    Times of things come first, since things at times build on them: with equal shares from the start, some runs have
    not learned to find all sounds by the last step.

    Args:
        composites: source of the timelines.
    """
    collator = DialogueCollator(processor)

    def batch(step: int) -> Batch:
        rows = []
        segments = FEW_SEGMENTS if step < FIRST_STEPS * steps else HALF_SEGMENTS
        for row in range(batch_size):
            name = f"{seed}:{step}:{row}"
            plan, rng = plan_video("base", name, composites.options), random.Random(name)
            features = compose(plan, composites.bank, rng)
            dialogue = make_dialogue(plan.annotation, look_up_turns(plan.annotation, rng, segments))
            named = {f"{modality}_features": values for modality, values in features.items()}
            rows.append({"messages": fill_timecodes(dialogue), **named})
        inputs = collator(rows)
        return inputs | turns_apart(inputs, processor.video_token_id, processor.tokenizer.eos_token_id)

    # Word embeddings and projectors are aligned with each other, so both stay frozen.
    frozen = [p for name, p in model.model.named_parameters() if not name.startswith("language_model.layers.")]
    return _train(model, batch, steps, "looking up", progress, frozen)


def turns_apart(batch: Mapping[str, torch.Tensor], video_token_id: int, end_token_id: int) -> Batch:
    """Return an attention mask and positions under which each turn sees only the video and itself.

    A model that sees all questions and answers about a video finds most times by elimination, and does not look.

    Args:
        batch: `input_ids` and `attention_mask` [B, L], padded on the right, the video in the first turn.
        video_token_id: of the video's placeholders.
        end_token_id: of the token that ends each answer.

    Returns:
        `attention_mask` [B, 1, L, L], true where a token may attend, and `position_ids` [B, L].

    Example:
        >>> ids = torch.tensor([[1, 9, 5, 2, 6, 2]])  # begin, video, two turns
        >>> masks = turns_apart({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, 9, 2)
        >>> masks["position_ids"].tolist(), masks["attention_mask"][0, 0, 4].int().tolist()
        ([[0, 1, 2, 3, 2, 3]], [1, 1, 0, 0, 1, 0])
    """
    ids = batch["input_ids"]  # [B, L]
    index = torch.arange(ids.shape[1]).expand_as(ids)
    last = (index * (ids == video_token_id)).amax(dim=1, keepdim=True)  # [B, 1] of the video's tokens
    shared = index <= last
    ends = ids == end_token_id
    turn = torch.where(shared, -1, (ends.cumsum(dim=1) - ends.long()))  # the end token belongs to its turn
    begins = torch.zeros_like(shared)
    begins[:, 1:] = turn[:, 1:] != turn[:, :-1]
    offset = index - (index * begins).cummax(dim=1).values  # within the turn
    seen = (turn[:, None, :] == turn[:, :, None]) | shared[:, None, :]  # [B, L, L]
    seen &= (index[:, None, :] <= index[:, :, None]) & batch["attention_mask"].bool()[:, None, :]
    seen |= torch.eye(ids.shape[1], dtype=torch.bool)  # padding attends to itself: softmax needs one position
    return {
        "attention_mask": seen.unsqueeze(1),
        "position_ids": torch.where(shared, index, last + 1 + offset),
    }


def look_up_turns(annotation: Annotation, rng: random.Random, segments: float) -> list[Turn]:
    """Make one turn per event: when it happens, or what happens then.

    Args:
        annotation: of a video.
        rng: draws the order of the events, and the question for each.
        segments: share of events for which the question is what happens.
    """
    events = rng.sample(annotation.events, len(annotation.events))
    asks = rng.choices((grounding_turn, segment_turn), (1 - segments, segments), k=len(events))
    return [ask(event, annotation.duration) for ask, event in zip(asks, events, strict=True)]


def _train(
    model: LongVALEForConditionalGeneration,
    batch: Callable[[int], Batch],
    steps: int,
    name: str,
    progress: bool,
    frozen: Sequence[nn.Parameter],
) -> Curve:
    """Train all parameters except `frozen`, whose `requires_grad` flags are restored afterwards."""
    wanted = [(parameter, parameter.requires_grad) for parameter in frozen]
    for parameter in frozen:
        parameter.requires_grad_(False)
    optimizer = muon_for(model, MATRIX_LEARNING_RATE, OTHER_LEARNING_RATE)
    trained = [p for p in model.parameters() if p.requires_grad]
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / warm_up, 2 * (1 - step / steps) + 0.02)
    )
    model.train()
    curve: Curve = []
    recent: list[float] = []
    bar = tqdm(range(steps), desc=name, unit="step", disable=not progress)
    for step in bar:
        loss = model(**batch(step)).loss
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append(loss.item())
        if len(recent) == 20 or step + 1 == steps:
            curve.append({"step": step + 1, "loss": sum(recent) / len(recent)})
            bar.set_postfix(loss=f"{curve[-1]['loss']:.3f}")
            recent = []
    model.eval()
    for parameter, required in wanted:
        parameter.requires_grad_(required)
    return curve
