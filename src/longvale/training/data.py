"""The training set of a stage: stored dialogues about real videos, or a mosaic of a synthetic corpus."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from longvale.data.features import FOLDERS, FeatureStore
from longvale.events import MODALITIES, Modality
from longvale.training.config import SFTStageConfig
from longvale.training.mosaic import load_mosaic

if TYPE_CHECKING:
    from datasets import Dataset

    from longvale.models.configuration_longvale import LongVALEConfig

logger = logging.getLogger(__name__)

_NAMED_IN_A_MESSAGE = 5


def load_training_set(args: SFTStageConfig, config: LongVALEConfig) -> Dataset:
    """The rows of a stage, as [`DialogueCollator`] takes them.

    Missing features are counted, and reported in a warning, here: before the first step.

    Args:
        args: options of the stage.
        config: of the model.

    Raises:
        FileNotFoundError: naming the file or folder that is not there.
        ValueError: naming the file that is not what it should be; or if no row has its video.
    """
    if args.mosaic:
        from datasets import Dataset

        mosaic = load_mosaic(
            args.data_dir, args.features_dir, config, args.dialogues, args.seed, args.turns, args.modality_dropout
        )
        return Dataset.from_dict({"index": range(args.mosaic)}).with_transform(mosaic.transform)
    if args.features_dir is not None:
        dialogues = load_dialogue_set(args.data_dir, args.dialogues, args.dialogues_size)
        return with_features(dialogues, args.features_dir, config.feature_sizes, args.missing_media)
    return load_dialogue_set(
        args.data_dir, args.dialogues, args.dialogues_size, videos_dir=args.videos_dir, missing_media=args.missing_media
    )


def load_dialogue_set(data_dir: str | os.PathLike, name: str, size: str | None = None, **media: Any) -> Dataset:
    """The dialogues of a stage from a folder of official files.

    Args:
        data_dir: of the files.
        name: `boundary_perception` or `instruction`.
        size: which file where there are several.
        media: options of the dataset builder.
    """
    from datasets import load_dataset

    import longvale  # noqa: F401 (registers the builder)

    return load_dataset("longvale", name, split="train", data_dir=str(data_dir), size=size, **media)


def with_features(
    dialogues: Dataset,
    features_dir: str | os.PathLike,
    widths: Mapping[Modality, int],
    missing: Literal["keep", "drop"] = "keep",
) -> Dataset:
    """Let dialogues bring the stored features of their videos, read when a row is asked for.

    The dataset's own feature columns would copy the features into its cache once a dialogue, 25 GB for the published
    61K, and hand them out as lists of numbers.

    Args:
        dialogues: rows with `id` and `messages`.
        features_dir: feature store.
        widths: that the model takes.
        missing: rows that lack the file of a modality: "keep" those that have another, with None for it, or "drop".

    Raises:
        FileNotFoundError: if `features_dir` is no feature store.
        ValueError: if a row that is kept has no features at all, or no row is left.
    """
    store = FeatureStore(features_dir, widths=widths)
    ids = dialogues["id"]
    lacking = {video_id: lacks for video_id in set(ids) if (lacks := store.missing(video_id))}
    incomplete = [video_id for video_id in ids if video_id in lacking]
    without = [video_id for video_id in incomplete if len(lacking[video_id]) == len(store.modalities)]
    if incomplete:
        columns = Counter(FOLDERS[modality] for video_id in incomplete for modality in lacking[video_id])
        logger.warning(
            "%s: %d of %d dialogues lack features and are %s (%s; videos: %s)",
            store.root,
            len(incomplete),
            len(ids),
            "dropped" if missing == "drop" else "kept without them",
            ", ".join(f"{column} {count}" for column, count in columns.items()),
            _some(incomplete),
        )
    if missing == "drop":
        dialogues = dialogues.select([row for row, video_id in enumerate(ids) if video_id not in lacking])
    elif without:
        raise ValueError(
            f"{store.root}: {len(without)} of {len(ids)} dialogues have no features at all (videos: {_some(without)}); "
            "make them with `longvale features`, or set missing_media to drop"
        )
    if not len(dialogues):
        raise ValueError(f"{store.root}: none of the {len(ids)} dialogues has its features; make them first")
    return dialogues.with_transform(_ReadFeatures(store))


class _ReadFeatures:
    """A transform for `datasets`: columns of a batch to the same with features."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        if "id" not in batch:
            return dict(batch)
        videos = [self.store.load(video_id, missing="none") for video_id in batch["id"]]
        return {**batch, **{FOLDERS[modality]: [video[modality] for video in videos] for modality in MODALITIES}}


def _some(video_ids: Sequence[str]) -> str:
    unique = list(dict.fromkeys(video_ids))
    return ", ".join(unique[:_NAMED_IN_A_MESSAGE]) + (", ..." if len(unique) > _NAMED_IN_A_MESSAGE else "")
