"""Pretraining of the demo's towers on single clips and their contents, as CLIP, BEATs and Whisper on their corpora.

A random tower distinguishes colours but hardly shapes or words. Each tower learns to predict which words of the corpus
belong to a clip (a frame, or an audio window): a bag of words, after Joulin et al., "Learning Visual Features from
Large Weakly Supervised Data" (ECCV 2016). A window that is half filled by an event has a target of one half.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from tqdm.auto import tqdm

from longvale.events import MODALITIES, Modality, Seconds
from longvale.models.media import read_media
from longvale.synthetic.corpus import load_events
from longvale.synthetic.planning import COLOURS, SHAPES, SOUNDS, WORDS, Piece

if TYPE_CHECKING:
    from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
    from longvale.models.processing_longvale import LongVALEProcessor

VOCABULARY: dict[Modality, tuple[str, ...]] = {"visual": (*COLOURS, *SHAPES), "audio": SOUNDS, "speech": WORDS}


@dataclass(frozen=True)
class Clips:
    """Tower inputs of one video and the words of each of its features.

    Args:
        inputs: of `model.encode`, with a batch dimension of 1.
        words: by modality, the share [n, words] of each feature's time in which each word's content is present.
    """

    inputs: Mapping[str, torch.Tensor]
    words: Mapping[Modality, torch.Tensor]


def pretrain_towers(
    model: LongVALEForConditionalGeneration,
    processor: LongVALEProcessor,
    corpus: Path,
    *,
    epochs: Mapping[Modality, int],
    batch_videos: int = 4,
    learning_rate: float = 2e-3,
    seed: int = 0,
    progress: bool = True,
) -> dict[Modality, float]:
    """Train the three towers of `model` in place on the training videos of a synthetic corpus.

    Args:
        model: with towers.
        processor: of the model.
        corpus: directory of [`longvale.synthetic.corpus.synthesize`].
        epochs: passes over the videos, per modality.
        batch_videos: videos per step; their clips are the batch.
        learning_rate: peak value; it warms up and decays to zero.
        seed: of order and heads.
        progress: show one progress bar per tower.

    Returns:
        Mean loss of the last tenth of the steps, per modality.
    """
    clips, rng = load_clips(processor, corpus), random.Random(f"{seed}:turns")
    forwards: dict[Modality, Callable[[Sequence[Clips]], torch.Tensor]] = {
        "visual": lambda batch: model.model.get_visual_features(turn(_cat(batch, "pixel_values_videos"), rng)),
        "audio": lambda batch: model.model.get_audio_features(
            _cat(batch, "input_values"), _cat(batch, "input_values_mask")
        ),
        "speech": lambda batch: model.model.get_speech_features(
            _cat(batch, "input_features"), _cat(batch, "input_features_mask")
        )[0],
    }
    losses = {}
    for modality in MODALITIES:
        tower = getattr(model.model, f"{modality}_tower")
        losses[modality] = _train_tower(
            tower,
            forwards[modality],
            clips,
            modality,
            width=model.config.feature_sizes[modality],
            steps=epochs[modality] * len(clips) // batch_videos,
            batch_videos=batch_videos,
            learning_rate=learning_rate,
            seed=seed,
            progress=progress,
        )
    return losses


def load_clips(processor: LongVALEProcessor, corpus: Path) -> list[Clips]:
    """Load tower inputs of the training videos, and the contents of their frames and windows."""
    pieces: dict[str, list[Piece]] = {}
    for record in load_events(corpus):
        if record.split == "train":
            pieces.setdefault(record.video_id, []).extend(record.pieces)
    clips = []
    for video_id in sorted(pieces):
        media = read_media(corpus / "videos" / f"{video_id}.mp4", **processor.media_kwargs())
        inputs = processor(videos=media)
        spans = feature_spans(processor, media.duration, inputs)
        words = {m: word_shares(pieces[video_id], m, spans[m]) for m in MODALITIES}
        clips.append(Clips(inputs, words))
    return clips


def turn(videos: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Rotate each video by a random number of quarter turns, and mirror it with probability one half.

    Args:
        videos: [B, F, 3, H, W], H = W.
        rng: draws the turns.

    Returns:
        [B, F, 3, H, W].
    """
    turned = [torch.rot90(video, rng.randrange(4), (-2, -1)) for video in videos]
    return torch.stack([video.flip(-1) if rng.random() < 0.5 else video for video in turned])


def feature_spans(
    processor: LongVALEProcessor, duration: Seconds, inputs: Mapping[str, torch.Tensor]
) -> dict[Modality, list[tuple[Seconds, Seconds]]]:
    """Return start and end in seconds of each feature of a video; for a frame, which is a moment, both are equal."""
    frames = inputs["pixel_values_videos"].shape[1]
    centres = [(index + 0.5) * duration / frames for index in range(frames)]
    windows = {
        "audio": (processor.audio_window_frames * 0.01, inputs["input_values"].shape[1]),
        "speech": (processor.speech_window_states * 0.02, _speech_windows(processor, inputs)),
    }
    spans: dict[Modality, list[tuple[Seconds, Seconds]]] = {"visual": [(time, time) for time in centres]}
    for modality, (length, count) in windows.items():
        spans[modality] = [(i * length, min((i + 1) * length, duration)) for i in range(count)]
    return spans


def _speech_windows(processor: LongVALEProcessor, inputs: Mapping[str, torch.Tensor]) -> int:
    states = int(inputs["input_features_mask"][..., ::2].sum())
    return -(-states // processor.speech_window_states)


def word_shares(pieces: Sequence[Piece], modality: Modality, spans: Sequence[tuple[Seconds, Seconds]]) -> torch.Tensor:
    """Return the share of each span in which each word of the modality's vocabulary is present: [n, words] in [0, 1].

    Example:
        >>> word_shares([Piece("audio", 0, 3, "bell")], "audio", [(0, 2), (2, 4)])[:, SOUNDS.index("bell")].tolist()
        [1.0, 0.5]
    """
    vocabulary = VOCABULARY[modality]
    shares = torch.zeros(len(spans), len(vocabulary))
    for row, (start, end) in enumerate(spans):
        for piece in pieces:
            if piece.modality != modality:
                continue
            if start == end:
                share = float(piece.start <= start < piece.end)
            else:
                share = max(0.0, min(end, piece.end) - max(start, piece.start)) / (end - start)
            for word in piece.content.split():
                shares[row, vocabulary.index(word)] += share
    return shares


def _train_tower(
    tower: nn.Module,
    forward: Callable[[Sequence[Clips]], torch.Tensor],
    clips: Sequence[Clips],
    modality: Modality,
    *,
    width: int,
    steps: int,
    batch_videos: int,
    learning_rate: float,
    seed: int,
    progress: bool,
) -> float:
    rng = random.Random(f"{seed}:{modality}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = nn.Linear(width, len(VOCABULARY[modality]))
    for name, parameter in tower.named_parameters():
        parameter.requires_grad_("embed_positions" not in name)  # the sinusoids of Whisper are constants
    parameters = [*tower.parameters(), *head.parameters()]
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=0.01)
    warm_up = max(0.1, 2 / steps)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=warm_up)
    tower.train()
    losses = []
    bar = tqdm(range(steps), desc=f"{modality} tower", unit="step", disable=not progress)
    for _ in bar:
        batch = rng.sample(clips, batch_videos)
        features = forward(batch)
        counts = [len(video.words[modality]) for video in batch]
        logits = torch.cat([head(row[:count]) for row, count in zip(features, counts, strict=True)])
        targets = torch.cat([video.words[modality] for video in batch])
        loss = nn.functional.binary_cross_entropy_with_logits(logits, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}")
    tower.requires_grad_(False).eval()
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)


def _cat(batch: Sequence[Clips], name: str) -> torch.Tensor:
    """Concatenate inputs of several videos into one batch, padded with zeros in the second dimension."""
    tensors = [video.inputs[name][0] for video in batch]
    longest = max(len(tensor) for tensor in tensors)
    return torch.stack([torch.cat([t, t.new_zeros(longest - len(t), *t.shape[1:])]) for t in tensors])
