"""Batched inference of a model's towers over several videos."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..events import MODALITIES, Modality
from ..models.modeling_longvale import pool_states

#: Batch size of the towers, in frames or windows of sound. A chunk of speech is six windows long.
BATCH_SIZE = 32
_WINDOWS_OF_A_CHUNK = 6

#: Inputs of each tower, by their names in the output of [`prepare`]: its input and, for some, the mask of that input.
_INPUTS: dict[Modality, tuple[str, ...]] = {
    "visual": ("pixel_values_videos",),
    "audio": ("input_values", "input_values_mask"),
    "speech": ("input_features", "input_features_mask"),
}


def only_towers(model: Any) -> Any:
    """Return a copy of the model with only its towers, without the language model, which has most of the weights."""
    towers = copy.copy(getattr(model, "model", model))
    names = {f"{modality}_tower" for modality in MODALITIES}
    towers._modules = {name: module for name, module in towers._modules.items() if name in names}
    return towers


@dataclass
class _Video:
    """State of a video that is being encoded."""

    rows: dict[Modality, list[torch.Tensor]] = field(default_factory=lambda: {m: [] for m in MODALITIES})
    states: torch.Tensor | None = None  # speech [n, width] that fills no window yet, and its mask [n]
    states_mask: torch.Tensor | None = None
    waiting: int = 0  # queued frames, windows and chunks
    complete: bool = False  # all of its inputs have been added


class TowerBatches:
    """Queues that batch frames, windows of sound and chunks of speech of several videos.

    All batches have the same size; a partial batch is padded with repetitions. Features of a video therefore do not
    depend on the other videos.

    Args:
        model: model such as [`LongVALEModel`].
        batch_size: frames or windows of sound per batch; a sixth of it for chunks of speech.

    Raises:
        ValueError: if `batch_size` is below 1 or the model lacks a tower.
    """

    def __init__(self, model: Any, batch_size: int = BATCH_SIZE) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
        model = getattr(model, "model", model)  # without the head of the language model
        absent = [modality for modality in MODALITIES if getattr(model, f"{modality}_tower") is None]
        if absent:
            raise ValueError(f"the model has no {absent[0]} tower; give a checkpoint with all three")
        self._model = model
        self._sizes = {"visual": batch_size, "audio": batch_size, "speech": max(1, batch_size // _WINDOWS_OF_A_CHUNK)}
        self._queues: dict[Modality, deque[tuple[str, list[np.ndarray]]]] = {m: deque() for m in MODALITIES}
        self._videos: dict[str, _Video] = {}

    def add(self, video_id: str, inputs: dict[str, np.ndarray]) -> None:
        """Add a part of a video's inputs and run the towers on full batches."""
        video = self._videos.setdefault(video_id, _Video())
        for modality, names in _INPUTS.items():
            if names[0] in inputs:
                items = zip(*(inputs[name] for name in names), strict=True)
                self._queues[modality].extend((video_id, list(item)) for item in items)
                video.waiting += len(inputs[names[0]])
        for modality, queue in self._queues.items():
            while len(queue) >= self._sizes[modality]:
                self._run(modality)

    def complete(self, video_id: str) -> None:
        """Mark a video as complete: all of its inputs have been added."""
        self._videos.setdefault(video_id, _Video()).complete = True

    def forget(self, video_id: str) -> None:
        """Discard all inputs and features of a video."""
        if self._videos.pop(video_id, None) is not None:
            for modality, queue in self._queues.items():
                self._queues[modality] = deque(item for item in queue if item[0] != video_id)

    def flush(self) -> None:
        """Run the towers on all queued inputs, including partial batches."""
        for modality, queue in self._queues.items():
            while queue:
                self._run(modality)

    def finished(self) -> Iterator[tuple[str, dict[Modality, np.ndarray | None]]]:
        """Yield the finished videos: id and features, float32 [n, width] per modality or None."""
        for video_id in [v for v, video in self._videos.items() if video.complete and not video.waiting]:
            video = self._videos.pop(video_id)
            self._pool(video, last=True)
            yield video_id, {m: torch.cat(rows).numpy() if rows else None for m, rows in video.rows.items()}

    def _run(self, modality: Modality) -> None:
        queue, size = self._queues[modality], self._sizes[modality]
        batch = [queue.popleft()]
        while queue and len(batch) < size and queue[0][1][0].shape == batch[0][1][0].shape:
            batch.append(queue.popleft())
        filled = batch + batch[-1:] * (size - len(batch))
        columns = [torch.from_numpy(np.stack(column)) for column in zip(*(item for _, item in filled), strict=True)]
        with torch.inference_mode():
            outputs = self._encode(modality, [column.to(self._model.device) for column in columns]).float().cpu()
        for (video_id, item), output in zip(batch, outputs, strict=False):
            video = self._videos[video_id]
            video.waiting -= 1
            if modality == "speech":
                self._add_states(video, output, torch.from_numpy(item[1]))
            else:
                video.rows[modality].append(output[None].clone())

    def _encode(self, modality: Modality, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Encode frames or windows to [n, width], chunks of speech to all states [n, states, width]."""
        if modality == "visual":
            return self._model.get_visual_features(inputs[0][None])[0]
        if modality == "audio":
            return self._model.get_audio_features(inputs[0][None], inputs[1][None])[0]
        tower = self._model.speech_tower
        return tower(inputs[0].to(tower.dtype)).last_hidden_state

    # Windows of speech may cross chunk borders.

    def _add_states(self, video: _Video, states: torch.Tensor, mask: torch.Tensor) -> None:
        """Add the states of the next chunk [n, width], and the mask of its mel frames, two per state."""
        mask = mask[::2]
        video.states = states.clone() if video.states is None else torch.cat([video.states, states])
        video.states_mask = mask if video.states_mask is None else torch.cat([video.states_mask, mask])
        self._pool(video)

    def _pool(self, video: _Video, last: bool = False) -> None:
        """Average all full windows, and with `last` also the partial one."""
        if video.states is None:
            return
        window = self._model.config.speech_window_states
        count = len(video.states) if last else len(video.states) // window * window
        if count:
            rows, used = pool_states(video.states[None, :count], video.states_mask[None, :count], window)
            video.rows["speech"] += [rows[0][used[0].bool()]] if used.any() else []
            video.states, video.states_mask = video.states[count:].clone(), video.states_mask[count:]
