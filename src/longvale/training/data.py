"""The training set of a stage: a mixture of stored dialogues."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longvale.data.sources import dialogue_file
from longvale.evaluation.adapters.time_formats import TimeFormat, own_format
from longvale.training.config import SFTStageConfig
from longvale.training.mixture import LoadMedia, Source, SourceMedia, is_image, parse_mixture, read_rows, repeats

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

    from longvale.models.configuration_longvale import LongVALEConfig

logger = logging.getLogger(__name__)

_NAMED_IN_A_MESSAGE = 5

#: Buffer size in rows for shuffling a stream.
_SHUFFLE_BUFFER = 10_000


def load_training_set(args: SFTStageConfig, config: LongVALEConfig) -> Dataset | IterableDataset:
    """Load the rows of a stage, as [`DialogueCollator`] takes them.

    All dialogues are read once here, before the first step: missing videos, images and features are counted and
    reported in a warning, and refused above `max_missing`.

    Args:
        args: options of the stage; a stream has no length, so `max_steps` is set from `num_train_epochs` for it.
        config: of the model; its `time_format` is how times are written.

    Raises:
        FileNotFoundError: if a file or folder is missing; the message names it.
        ValueError: if a file is invalid (the message names it), or too much is missing.
    """
    sources, times = mixture_of(args), own_format(config)
    media = [SourceMedia(source, args.features_dir, args.videos_dir, config.feature_sizes) for source in sources]
    paths = [Path(args.data_dir, source.dialogues) for source in sources]
    tables, kept, report = [], [], _MissingMedia()
    for path, source, found in zip(paths, sources, media, strict=True):
        rows = read_rows(path, source, times)
        if not args.streaming:
            rows = list(rows)
            tables.append(rows)
        kept.append(report.count(rows, found, drop=args.missing_media == "drop"))
    report.check(args)
    if args.streaming:
        return _stream(args, sources, paths, media, kept, times)
    return _table(args, sources, tables, media, kept)


def mixture_of(args: SFTStageConfig) -> list[Source]:
    """Return the sources of a stage: its mixture, or the single file of its dialogues in `data_dir`."""
    if args.mixture is not None:
        return parse_mixture(args.mixture)
    name = dialogue_file(args.data_dir, args.dialogues, args.dialogues_size)
    return [Source(name, videos=".") if args.features_dir is None else Source(name, features=(".",))]


def _table(
    args: SFTStageConfig,
    sources: Sequence[Source],
    tables: Sequence[Sequence[dict[str, Any]]],
    media: Sequence[SourceMedia],
    kept: Sequence[Sequence[int]],
) -> Dataset:
    """Build a dataset with all rows in memory; media are read when a row is accessed.

    Columns of features would be copied into the cache once per dialogue (25 GB for the published 61K) and be returned
    as lists of numbers.
    """
    from datasets import Dataset, concatenate_datasets

    parts = []
    for number, (rows, source, numbers) in enumerate(zip(tables, sources, kept, strict=True)):
        order = [numbers[i] for i in repeats(len(numbers), source.weight, f"{args.seed}:{source.dialogues}")]
        if order:
            parts.append(Dataset.from_list([{**rows[i], "source": number} for i in order]))
    return concatenate_datasets(parts).with_transform(LoadMedia(media))


def _stream(
    args: SFTStageConfig,
    sources: Sequence[Source],
    paths: Sequence[Path],
    media: Sequence[SourceMedia],
    kept: Sequence[Sequence[int]],
    times: TimeFormat | None,
) -> IterableDataset:
    """Build a stream of rows, with sources mixed by their weight times their size."""
    from datasets import IterableDataset, interleave_datasets

    parts, sizes = [], []
    for number, (path, source, numbers) in enumerate(zip(paths, sources, kept, strict=True)):
        if numbers:
            arguments = {"path": path, "source": source, "number": number, "kept": frozenset(numbers), "times": times}
            parts.append(IterableDataset.from_generator(_generate, gen_kwargs=arguments))
            sizes.append(len(numbers) * source.weight)
    if args.max_steps <= 0:
        batch = args.world_size * args.per_device_train_batch_size * args.gradient_accumulation_steps
        args.max_steps = math.ceil(args.num_train_epochs * sum(sizes) / batch)
    shares = [size / sum(sizes) for size in sizes]
    mixed = interleave_datasets(parts, shares, seed=args.seed, stopping_strategy="all_exhausted")
    # Media are read after shuffling: the buffer contains texts only.
    return mixed.shuffle(seed=args.seed, buffer_size=_SHUFFLE_BUFFER).map(LoadMedia(media), batched=True, batch_size=1)


def _generate(
    path: Path, source: Source, number: int, kept: frozenset[int], times: TimeFormat | None
) -> Iterator[dict[str, Any]]:
    for index, row in enumerate(read_rows(path, source, times)):
        if index in kept:
            yield {**row, "source": number}


@dataclass
class _MissingMedia:
    """Missing media of the dialogues of a mixture."""

    rows: int = 0
    incomplete: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    columns: Counter[str] = field(default_factory=Counter)
    damaged: dict[str, str] = field(default_factory=dict)

    def count(self, rows: Iterable[dict[str, Any]], media: SourceMedia, drop: bool) -> list[int]:
        """Count the rows of a source, and return the indices of the rows to keep."""
        kept = []
        for number, row in enumerate(rows):
            self.rows += 1
            lacking = media.lacking(row["id"], is_image(row))
            if lacking:
                self.incomplete.append(row["id"])
                self.columns.update(lacking)
                if media.absent(row["id"]):
                    self.without.append(row["id"])
                if damage := media.damage(row["id"]):
                    self.damaged[row["id"]] = damage
            if not (lacking and drop):
                kept.append(number)
        return kept

    def check(self, args: SFTStageConfig) -> None:
        """Report what is missing, and raise an error if too little is left to train on."""
        if not self.incomplete:
            return
        drop, share = args.missing_media == "drop", len(self.incomplete) / self.rows
        columns = ", ".join(f"{column} {count}" for column, count in self.columns.items())
        found = (
            f"{args.features_dir or args.videos_dir}: {len(self.incomplete)} of {self.rows} dialogues "
            f"({share:.1%}) lack media ({columns}; videos: {_some(self.incomplete)})"
        )
        if self.damaged:
            found += f"; {len(self.damaged)} videos are damaged, the first: {next(iter(self.damaged.values()))}"
        if drop and len(self.incomplete) == self.rows:
            raise ValueError(f"{found}: nothing is left to train on; make features with `longvale features`")
        if share > args.max_missing:
            raise ValueError(
                f"{found}, more than max_missing ({args.max_missing:.1%}); make them with `longvale features`, or "
                "raise max_missing"
            )
        if self.without and not drop:
            raise ValueError(
                f"{found}; {len(self.without)} have nothing at all (videos: {_some(self.without)}): make their "
                "features with `longvale features`, or set missing_media to drop"
            )
        logger.warning("%s and are %s", found, "dropped" if drop else "kept without them")


def _some(video_ids: Sequence[str]) -> str:
    unique = list(dict.fromkeys(video_ids))
    return ", ".join(unique[:_NAMED_IN_A_MESSAGE]) + (", ..." if len(unique) > _NAMED_IN_A_MESSAGE else "")
