"""Encoding of media into features: every command that computes features of videos runs the towers by [`Encoder`]."""

from __future__ import annotations

import copy
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..events import MODALITIES, Modality
from ..models.layers import pool_states
from ..system.interruption import stoppable
from .preprocess import preprocess

if TYPE_CHECKING:
    from ..models.media import Media

#: Batch size of the towers, in frames or windows of sound.
BATCH_SIZE = 32

#: Size of an input of each tower, in frames or windows of sound: a chunk of speech is six windows long.
_SIZES: dict[Modality, int] = {"visual": 1, "audio": 1, "speech": 6}

#: Inputs of each tower, by their names in the output of the processor: its input and, for some, the mask of that input.
_INPUTS: dict[Modality, tuple[str, ...]] = {
    "visual": ("pixel_values_videos",),
    "audio": ("input_values", "input_values_mask"),
    "speech": ("input_features", "input_features_mask"),
}


def encode_video(
    model: Any,
    processor: Any,
    video: str | os.PathLike | Media | Mapping[str, Any],
    *,
    progress: Callable[[Modality, float], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> dict[Modality, np.ndarray | None]:
    """Compute the features of one video.

    Args:
        model: model such as [`LongVALEModel`].
        processor: processor such as [`LongVALEProcessor`].
        video: path of the file, or the output of `read_media` or of [`preprocess`].
        progress: called before each batch with its modality and the fraction of the work that is done.
        stop: called before each layer of a tower; True stops the work.

    Returns:
        float32 [n, width] per modality; None for a modality that the video does not have.

    Raises:
        MediaError: if the file cannot be read.
        Stopped: if `stop` returned True.
    """
    encoder = Encoder(model, equal_batches=False, progress=progress)
    encoder.add("", video if isinstance(video, Mapping) else preprocess(processor, video))
    encoder.complete("")
    with stoppable(model, stop) if stop else nullcontext():
        encoder.run(partial=True)
    ((_, features),) = encoder.finished()
    return features


def only_towers(model: Any) -> Any:
    """Return a copy of the model with only its towers, without the language model, which has most of the weights."""
    towers = copy.copy(model.base_model)
    names = {f"{modality}_tower" for modality in MODALITIES}
    towers._modules = {name: module for name, module in towers._modules.items() if name in names}
    return towers


@dataclass
class _Video:
    """State of a video that is being encoded."""

    rows: dict[Modality, list[torch.Tensor]] = field(default_factory=lambda: {m: [] for m in MODALITIES})
    states: torch.Tensor | None = None  # speech [n, width] that fills no window yet
    waiting: int = 0  # queued frames, windows and chunks
    complete: bool = False  # all of its inputs have been added


class Encoder:
    """Queues that batch frames, windows of sound and chunks of speech of one or several videos.

    Args:
        model: model such as [`LongVALEModel`].
        batch_size: frames or windows of sound per batch; a sixth of it for chunks of speech.
        equal_batches: fill a partial batch with repetitions, so that all have the same size: features of a video then
            do not depend on the other videos, not even in their last digits.
        progress: see [`encode_video`].
    """

    def __init__(
        self,
        model: Any,
        batch_size: int = BATCH_SIZE,
        *,
        equal_batches: bool = True,
        progress: Callable[[Modality, float], None] | None = None,
    ) -> None:
        self._model, self._equal, self._progress = model, equal_batches, progress
        self._batch = {modality: max(1, batch_size // size) for modality, size in _SIZES.items()}
        self._queues: dict[Modality, deque[tuple[str, list[np.ndarray]]]] = {m: deque() for m in MODALITIES}
        self._videos: dict[str, _Video] = {}

    def add(self, video_id: str, inputs: Mapping[str, np.ndarray]) -> None:
        """Queue inputs of a video: all, or a part (see [`prepare`])."""
        video = self._videos.setdefault(video_id, _Video())
        for modality, names in _INPUTS.items():
            if names[0] in inputs:
                items = [list(item) for item in zip(*(inputs[name] for name in names), strict=True)]
                # Windows of padding and chunks of speech after the last window have no feature.
                items = [item for item in items if len(item) == 1 or item[1].any()]
                self._queues[modality].extend((video_id, item) for item in items)
                video.waiting += len(items)

    def complete(self, video_id: str) -> None:
        """Mark a video as complete: all of its inputs have been added."""
        self._videos.setdefault(video_id, _Video()).complete = True

    def forget(self, video_id: str) -> None:
        """Discard all inputs and features of a video."""
        if self._videos.pop(video_id, None) is not None:
            for modality, queue in self._queues.items():
                self._queues[modality] = deque(item for item in queue if item[0] != video_id)

    def run(self, partial: bool = False) -> None:
        """Run the towers on all full batches, or with `partial` on all queued inputs."""
        total = self._queued()
        for modality, queue in self._queues.items():
            while len(queue) >= (1 if partial else self._batch[modality]):
                if self._progress:
                    self._progress(modality, 1 - self._queued() / total)
                self._run_batch(modality)

    def finished(self) -> Iterator[tuple[str, dict[Modality, np.ndarray | None]]]:
        """Yield the finished videos: id and features, float32 [n, width] per modality or None."""
        for video_id in [v for v, video in self._videos.items() if video.complete and not video.waiting]:
            video = self._videos.pop(video_id)
            if video.states is not None:
                self._pool(video, last=True)
            yield video_id, {m: torch.cat(rows).numpy() if rows else None for m, rows in video.rows.items()}

    def _queued(self) -> int:
        return sum(len(queue) * _SIZES[modality] for modality, queue in self._queues.items())

    def _run_batch(self, modality: Modality) -> None:
        queue, size = self._queues[modality], self._batch[modality]
        batch = [queue.popleft()]
        while queue and len(batch) < size and queue[0][1][0].shape == batch[0][1][0].shape:
            batch.append(queue.popleft())
        filled = batch + batch[-1:] * (size - len(batch)) * self._equal
        columns = [torch.from_numpy(np.stack(column)) for column in zip(*(item for _, item in filled), strict=True)]
        columns = [column[None].to(self._model.device) for column in columns]
        with torch.inference_mode():
            outputs = self._encode(modality, columns)
        for (video_id, _), *output in zip(batch, *outputs, strict=False):
            video = self._videos[video_id]
            video.waiting -= 1
            if modality == "speech":
                states = output[0][output[1].bool()]
                video.states = states if video.states is None else torch.cat([video.states, states])
                self._pool(video)  # windows may cross chunk borders
            else:
                video.rows[modality].append(output[0][None].clone())

    def _encode(self, modality: Modality, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the embeddings of frames or windows [n, width], or the states of chunks of speech and their masks."""
        if modality == "visual":
            outputs = [self._model.get_visual_features(*inputs)]
        elif modality == "audio":
            outputs = [self._model.get_audio_features(*inputs)]
        else:
            outputs = list(self._model.get_speech_states(*inputs))
        return [output[0].float().cpu() for output in outputs]

    def _pool(self, video: _Video, last: bool = False) -> None:
        """Average all full windows, and with `last` also the partial one."""
        window = self._model.config.speech_window_states
        count = len(video.states) if last else len(video.states) // window * window
        if count:
            states, video.states = video.states[:count], video.states[count:].clone()
            features, _ = pool_states(states[None], states.new_ones(1, count), window)
            video.rows["speech"].append(features[0])
