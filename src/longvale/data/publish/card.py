"""The dataset card: a `README.md` whose YAML describes the folder to the Hub and to plain `datasets`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...io import atomic_write
from .shards import Written

if TYPE_CHECKING:
    from huggingface_hub import CardData

#: The configuration that `load_dataset(folder)` loads without a name.
DEFAULT = "events"


def card_template() -> Path:
    """Return the path of LongVALE's card template, in the source checkout or in the installed wheel.

    Raises:
        FileNotFoundError: if the package was installed without it.

    Example:
        >>> card_template().name
        'README.md'
    """
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "dataset_card", package.parents[1] / "dataset_card"):
        if (folder / "README.md").is_file():
            return folder / "README.md"
    raise FileNotFoundError(f"{package / 'dataset_card'}: no card; install longvale again, from a wheel or a checkout")


def write_card(
    path: Path,
    written: Mapping[str, Mapping[str, Written]],
    columns: Callable[[str], Mapping[str, Any]],
    *,
    template: str | os.PathLike | None = None,
) -> None:
    """Write a card whose YAML lists the configurations, their files, columns and sizes.

    Args:
        path: file to write; file names in the card are relative to its folder.
        written: amount of data written, by configuration and split.
        columns: returns the columns of a configuration.
        template: card with the text and the rest of the YAML; None for LongVALE's.

    Raises:
        FileNotFoundError: if the template does not exist.
        ValueError: if its YAML cannot be read.
    """
    import yaml
    from huggingface_hub import DatasetCard

    source = card_template() if template is None else Path(template)
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such file")
    try:
        card = DatasetCard(source.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{source}: its YAML cannot be read ({' '.join(str(error).split())})") from None
    fill_metadata(card.data, written, columns)
    with atomic_write(path) as file:
        file.write(str(card))


def fill_metadata(
    metadata: CardData,
    written: Mapping[str, Mapping[str, Written | None]],
    columns: Callable[[str], Mapping[str, Any]],
) -> None:
    """Set `configs` and `dataset_info` of a card's YAML.

    Args:
        metadata: of the card; modified in place.
        written: amount of data written, by configuration and split; None for a split whose size is omitted.
        columns: returns the columns of a configuration.
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
            **({"default": True} if name == DEFAULT else {}),
            "data_files": [{"split": split, "path": f"{name}/{split}-*.parquet"} for split in splits],
        }
        for name, splits in written.items()
    ]
