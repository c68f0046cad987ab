"""Grounding callback: evaluates a small fixed set of videos during training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback
from trl.models.utils import unwrap_model_for_generation

from longvale.data.rows import rows
from longvale.data.sources import load_videos
from longvale.evaluation.adapters.time_formats import own_times
from longvale.evaluation.generation.generate import annotations_path
from longvale.evaluation.generation.inputs import VideoInputs
from longvale.evaluation.generation.model import MAX_NEW_TOKENS, Features
from longvale.evaluation.generation.stepping import takes_padding
from longvale.evaluation.generation.video_qa import answer_batch
from longvale.metrics.grounding.compute_score import Interval, iou
from longvale.training.rewards import read_shares

if TYPE_CHECKING:
    from transformers import Trainer

_BATCH = 16


@dataclass(frozen=True)
class GroundingSet:
    """Grounding questions with the data for answering and scoring them.

    Args:
        questions: texts that contain `<video>`.
        spans: of the events, as fractions of the duration.
        durations: of the videos in seconds.
        features: of the videos.
        times: format of the times of answers; empty for timecodes.
    """

    questions: Sequence[str]
    spans: Sequence[Interval]
    durations: Sequence[float]
    features: Sequence[Features]
    times: str = ""


def load_grounding_set(
    data_dir: str, features_dir: str | None, videos: int, model: Any, processor: Any, split: str = "test"
) -> GroundingSet:
    """Load the grounding questions of the first videos of a split.

    Args:
        data_dir: folder of the annotations.
        features_dir: feature store; by default `features` in `data_dir`.
        videos: number of videos.
        model, processor: that the features are for.
        split: "test" or "train".

    Raises:
        FileNotFoundError: if a file is missing; the message names it.
        ValueError: if the videos have no events to ask about.
    """
    path, inputs = annotations_path(data_dir, split), VideoInputs(data_dir, features_dir)
    texts, spans, durations, features = [], [], [], []
    for video in load_videos(path)[:videos]:
        found = inputs.load(video.video_id, model, processor)
        for row in rows("grounding", video):
            texts.append(row["question"])
            spans.append((row["start"] / video.duration, row["end"] / video.duration))
            durations.append(video.duration)
            features.append(found)
    if not texts:
        raise ValueError(f"{path}: the first {videos} videos have no events to ask about")
    return GroundingSet(texts, spans, durations, features, own_times(model.config))


def answer_share(model: Any, processor: Any, asked: GroundingSet, rank: int = 0, processes: int = 1) -> torch.Tensor:
    """Answer one process's share of the questions greedily.

    All processes run the model equally often, so that all of them take part in gathering sharded weights. A language
    model that takes no padding runs once per length of a text, so several processes then answer one question at a time.

    Returns:
        float64 [3]: sum of IoU, number of answers that parsed, number of answers.
    """
    found = torch.zeros(3, dtype=torch.float64)
    size = _BATCH if processes == 1 or takes_padding(model) else 1
    for batch in range(math.ceil(len(asked.questions) / (size * processes))):
        start = (batch * processes + rank) * size
        rows = list(range(start, min(start + size, len(asked.questions))))
        answers = answer_batch(
            model,
            processor,
            [asked.questions[row] for row in rows or [0]],
            [asked.features[row] for row in rows or [0]],
            MAX_NEW_TOKENS["grounding"],
        )
        for row, answer in zip(rows, answers[: len(rows)], strict=True):
            span = read_shares(answer, asked.durations[row], asked.times)
            found += torch.tensor([iou(span, asked.spans[row]) if span else 0.0, span is not None, 1.0])
    return found


class GroundingCallback(TrainerCallback):
    """Callback that logs the grounding mIoU (strict protocol, a fraction) and the share of answers that parsed.

    Args:
        trainer: whose model answers, and whose log gets `grounding_miou`, `grounding_parsed` and `grounding_answers`.
        processor: of the model.
        asked: the questions; the same each time.
        steps: steps between two evaluations; there is one at the end of training too.
    """

    def __init__(self, trainer: Trainer, processor: Any, asked: GroundingSet, steps: int) -> None:
        self.trainer, self.processor, self.asked, self.steps = trainer, processor, asked, steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate every `steps` steps and at the end of training."""
        if state.global_step % self.steps == 0 or state.global_step == state.max_steps:
            self.trainer.log(self.evaluate())

    def evaluate(self) -> Mapping[str, float]:
        """Answer all questions with the current model; random states are restored afterwards."""
        accelerator, model = self.trainer.accelerator, self.trainer.model
        training = model.training
        with torch.random.fork_rng(), unwrap_model_for_generation(self.trainer.model_wrapped, accelerator) as unwrapped:
            unwrapped.eval()
            found = answer_share(
                unwrapped, self.processor, self.asked, accelerator.process_index, accelerator.num_processes
            ).to(accelerator.device, torch.float32)
        model.train(training)
        total, parsed, count = accelerator.reduce(found).tolist()
        return {"grounding_miou": total / count, "grounding_parsed": parsed / count, "grounding_answers": count}
