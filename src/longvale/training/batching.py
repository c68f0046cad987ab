"""Batches of similar length: the dialogues of a step, over all processes, are regrouped to reduce padding.

A step still contains the dialogues that the sampler drew, so the gradient is that of ungrouped batches; only the
dialogues that are computed together change. Lengths need not be known in advance, so streams and composites are grouped
too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch.nn.functional import pad

from longvale.features.store import FOLDERS
from longvale.training.collator import IGNORE_INDEX, TEXT_INPUTS

if TYPE_CHECKING:
    from accelerate import Accelerator

Batch: TypeAlias = dict[str, torch.Tensor]

#: Key of a batch: the ids of its dialogues, as UTF-8 in a tensor, so that they move between processes like the rest.
ROW_IDS = "row_ids"

_FEATURES = tuple(FOLDERS.values())


class RowIdCollator:
    """Collator wrapper that adds the ids of the dialogues to each batch.

    Args:
        collate: turns rows, which may have an `id`, into a batch.
    """

    def __init__(self, collate: Callable[[Sequence[Mapping[str, Any]]], Batch]) -> None:
        self.collate = collate

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        names = [np.frombuffer(str(row.get("id", "?")).encode(), dtype=np.uint8) for row in rows]
        ids = torch.zeros(len(rows), max(map(len, names)), dtype=torch.uint8)
        for row, name in enumerate(names):
            ids[row, : len(name)] = torch.from_numpy(name.copy())
        return self.collate(rows) | {ROW_IDS: ids}


def decode_row_ids(ids: torch.Tensor) -> list[str]:
    """Return the ids that [`RowIdCollator`] has added.

    Example:
        >>> decode_row_ids(RowIdCollator(lambda rows: {})([{"id": "abc"}, {"id": "é"}])[ROW_IDS])
        ['abc', 'é']
    """
    return [bytes(row.tolist()).rstrip(b"\0").decode() for row in ids.cpu()]


def group_by_length(
    batches: Sequence[Batch], widths: Mapping[str, int] | None = None, accelerator: Accelerator | None = None
) -> list[Batch]:
    """Regroup the rows of a step's batches by length, and cut the padding that all rows of a batch share.

    Args:
        batches: of this process, as [`longvale.training.collator.DialogueCollator`] makes them; those of raw videos
            are not regrouped: their towers take far more time than padding does.
        widths: of the stored features by modality; needed with several processes, where one may have no row with a
            modality that another has.
        accelerator: of several processes; each gets as many batches as it gave, with lengths like those of the others.

    Example:
        >>> mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0]])
        >>> [b["attention_mask"].shape for b in group_by_length([{"attention_mask": m} for m in mask.split(2)])]
        [torch.Size([2, 4]), torch.Size([2, 2])]
    """
    processes, rank = (accelerator.num_processes, accelerator.process_index) if accelerator else (1, 0)
    known = {*TEXT_INPUTS, ROW_IDS, *_FEATURES, *(f"{name}_mask" for name in _FEATURES)}
    if len(batches) * processes < 2 or any(name not in known for batch in batches for name in batch):
        return [_cut(batch) for batch in batches]
    step = _merge(batches, widths if processes > 1 else None)
    if accelerator is not None and processes > 1:
        step = {
            name: accelerator.gather(accelerator.pad_across_processes(values, dim=1, pad_index=_filler(name)))
            for name, values in step.items()
        }
    order = step["attention_mask"].sum(dim=1).argsort(descending=True, stable=True)
    groups = order.tensor_split(len(batches) * processes)[rank::processes]
    return [_cut({name: values[rows] for name, values in step.items()}) for rows in groups]


def _merge(batches: Sequence[Batch], widths: Mapping[str, int] | None) -> Batch:
    """Merge all rows into one padded batch; modalities that a batch lacks or only `widths` has become padding."""
    shapes = {name: values.shape[2:] for batch in batches for name, values in batch.items()}
    for modality, width in (widths or {}).items():
        shapes |= {FOLDERS[modality]: (width,), f"{FOLDERS[modality]}_mask": ()}
    merged = {}
    for name in sorted(shapes):  # in the same order in all processes
        length = max((batch[name].shape[1] for batch in batches if name in batch), default=1)
        like = next((batch[name] for batch in batches if name in batch), batches[0]["attention_mask"])
        dtype = torch.float32 if name in _FEATURES else like.dtype
        parts = []
        for batch in batches:
            rows = len(batch["attention_mask"])
            values = batch.get(name)
            if values is None:
                values = torch.zeros(rows, length, *shapes[name], dtype=dtype, device=like.device)
            room = [0, 0] * (values.ndim - 2) + [0, length - values.shape[1]]
            parts.append(pad(values, room, value=_filler(name)))
        merged[name] = torch.cat(parts)
    return merged


def _cut(batch: Batch) -> Batch:
    """Remove the padding that all rows share, and modalities that no row has."""
    cut = {name: values for name, values in batch.items() if name not in _FEATURES}
    length = int(batch["attention_mask"].sum(dim=1).max())
    cut |= {name: batch[name][:, :length] for name in TEXT_INPUTS if name in batch}
    for name in _FEATURES:
        mask = batch.get(f"{name}_mask")
        if mask is None:
            continue
        length = int(mask.sum(dim=1).max())
        cut |= {name: batch[name][:, :length], f"{name}_mask": mask[:, :length]}
        if not length:
            del cut[name], cut[f"{name}_mask"]
    return cut


def _filler(name: str) -> int:
    return IGNORE_INDEX if name == "labels" else 0
