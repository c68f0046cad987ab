"""Metadata of dataset cards: the configurations of a folder, for the Hub and plain `datasets`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .shards import Written

if TYPE_CHECKING:
    from huggingface_hub import CardData


def fill_metadata(
    metadata: CardData,
    written: Mapping[str, Mapping[str, Written | None]],
    columns: Callable[[str], Mapping[str, Any]],
    *,
    folder: str | None = None,
) -> None:
    """Set `configs` and `dataset_info` of a card's YAML.

    Args:
        metadata: of the card; modified in place.
        written: amount of data written, by configuration and split; None for a split whose size is omitted. The first
            configuration is the one that `load_dataset(folder)` loads without a name.
        columns: returns the columns of a configuration.
        folder: folder of the files, relative to the card; None for folders with the names of the configurations.
    """
    from datasets import DatasetInfo, Features, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict

    infos = DatasetInfosDict()
    for name, splits in written.items():
        sizes = {split: of for split, of in splits.items() if of is not None}
        infos[name] = DatasetInfo(
            features=Features(columns(name)),
            splits=SplitDict({split: SplitInfo(split, of.memory_bytes, of.rows) for split, of in sizes.items()})
            or None,
            download_size=sum(of.file_bytes for of in sizes.values()) or None,
            dataset_size=sum(of.memory_bytes for of in sizes.values()) or None,
        )
    metadata.pop("dataset_info", None)
    infos.to_dataset_card_data(metadata)
    metadata["configs"] = [
        {
            "config_name": name,
            **({"default": True} if name == next(iter(written)) else {}),
            "data_files": [{"split": split, "path": f"{folder or name}/{split}-*.parquet"} for split in splits],
        }
        for name, splits in written.items()
    ]
