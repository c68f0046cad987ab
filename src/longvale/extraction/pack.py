"""Packing of a feature store into Parquet shards for the Hub: `longvale features pack DIR --output DIR`.

::

    <output>/README.md                            dataset card, with the configuration that `load_dataset` reads
    <output>/data/train-00000-of-00012.parquet    one row per video, see [`row_features`]
    <output>/SHA256SUMS                           checksums of the shards, in the format of `sha256sum --check`
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.publish.card import fill_metadata
from ..data.publish.shards import measure_shards, write_shards
from ..events import MODALITIES, Modality
from ..features.backends import NpyFolder
from ..features.shards import array_digest
from ..features.store import FOLDERS, FeatureStore
from ..hub import CARD_FILE, write_card
from ..io import name_full_disk
from ..system.checksums import write_checksums
from ..system.locks import hold

if TYPE_CHECKING:
    from datasets import Features
    from huggingface_hub import CardData

#: Size of a shard before compression: gives few shards for the whole benchmark, but is small enough to stream.
SHARD_BYTES = 256 << 20

#: Videos per row group, which are read together: about 4 MB.
_GROUP_ROWS = 8

_CARD = Path(__file__).with_name("features_card.md")


@dataclass(frozen=True)
class PackSummary:
    """Summary of packing.

    Args:
        videos: number of videos.
        shards: number of files.
        bytes: total size of the shards.
        absent: number of videos without each modality.
    """

    videos: int
    shards: int
    bytes: int
    absent: Mapping[Modality, int]

    def __str__(self) -> str:
        without = "".join(f", {count} without {modality}" for modality, count in self.absent.items() if count)
        return f"{self.videos} videos in {self.shards} shards, {self.bytes / 1e6:.1f} MB{without}"


def pack_features(
    store_root: str | os.PathLike,
    output: str | os.PathLike,
    *,
    split: str = "train",
    shard_bytes: int = SHARD_BYTES,
    progress: bool = True,
) -> PackSummary:
    """Write stored features as float16 Parquet shards that `datasets` can stream.

    Args:
        store_root: folder of `.npy` files or of the published archives, see [`FeatureStore`].
        output: folder for shards, checksums and card. Shards of other splits are kept, those of this split are
            replaced.
        split: name of the split of the shards.
        shard_bytes: size of a shard before compression, which only a larger group of rows exceeds.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: if there is no store, or a video lacks a file that `longvale features` should have written.
        ValueError: naming the file that is damaged, has values outside the range of float16, or differs from the
            manifest. Nothing is written then.

    Example:
        >>> pack_features("features", "packed", split="test")  # doctest: +SKIP
        PackSummary(videos=1171, shards=2, bytes=411836172, absent={'visual': 0, 'audio': 31, 'speech': 31})
    """
    from tqdm import tqdm

    if not re.fullmatch(r"\w+(\.\w+)*", split):
        raise ValueError(f"split must be a name of letters, digits and underscores, not {split!r}")
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes must be 1 or more, not {shard_bytes}")
    store, output = FeatureStore(store_root), Path(output)
    video_ids = store.video_ids()
    if not video_ids:
        raise FileNotFoundError(f"{store_root}: holds no features")
    for video_id in video_ids:
        if video_id.encode(errors="replace").decode() != video_id:
            raise ValueError(f"{store_root}: the name {video_id!r} is not UTF-8, which Parquet needs; rename its files")
    features = row_features(store.widths())
    (output / "data").mkdir(parents=True, exist_ok=True)
    absent = dict.fromkeys(MODALITIES, 0)
    with hold(output.parent, output.name, work="longvale features pack", resumes=False):
        rows = (_row(store, video_id, absent) for video_id in tqdm(video_ids, unit="video", disable=not progress))
        with name_full_disk(output):
            written = write_shards(output / "data", split, rows, features, shard_bytes, group_rows=_GROUP_ROWS)
        write_checksums(output)
        _write_card(output, features)
    return PackSummary(written.rows, written.shards, written.file_bytes, absent)


def row_features(widths: Mapping[Modality, int]) -> Features:
    """Return the columns of a shard.

    Args:
        widths: feature width of each modality.

    Example:
        >>> row_features({"visual": 768})["visual_features"]
        Array2D(shape=(None, 768), dtype='float16')
    """
    from datasets import Array2D, Features, Value

    columns = {FOLDERS[m]: Array2D(shape=(None, widths[m]), dtype="float16") for m in MODALITIES if m in widths}
    digests = {m: Value("string") for m in MODALITIES if m in widths}
    return Features({"video_id": Value("string"), **columns, "sha256": digests})


def _row(store: FeatureStore, video_id: str, absent: dict[Modality, int]) -> dict[str, Any]:
    """Build the row of a video, with features as float16."""
    lacking = [m for m in store.missing(video_id) if isinstance(store.files(m), NpyFolder)]
    if lacking:  # in published archives, a missing file means that the video does not have the modality
        raise FileNotFoundError(
            f"{store.files(lacking[0]).place(video_id)}: no such file; run `longvale features` again"
        )
    row: dict[str, Any] = {"video_id": video_id, "sha256": {}}
    for modality, values in store.load(video_id, missing="none").items():
        if modality not in store.modalities:
            continue
        if values is None:
            absent[modality] += 1
        row[FOLDERS[modality]] = None if values is None else _half(values, store.files(modality).place(video_id))
        row["sha256"][modality] = None if values is None else array_digest(row[FOLDERS[modality]])
    return row


def _half(values: np.ndarray, place: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError(
            f"{place}: holds {np.abs(values).max():.3g}, which float16 cannot; these features cannot be packed"
        )
    return half


def _write_card(output: Path, features: Features) -> None:
    """Write `README.md` of the dataset, with the splits in the folder."""
    splits = sorted({path.name.rsplit("-", 3)[0] for path in (output / "data").glob("*-*-of-*.parquet")})
    written = {split: measure_shards(output / "data", split) for split in splits}
    total = sum(of.rows for of in written.values())

    def fill(metadata: CardData) -> None:
        sizes = "n<1K" if total < 1000 else "1K<n<10K" if total < 10_000 else "10K<n<100K"
        metadata["size_categories"] = [sizes]
        fill_metadata(metadata, {"features": written}, lambda name: features, folder="data")

    table = "\n".join(f"| {split} | {of.rows} | {of.file_bytes / 1e6:.1f} MB |" for split, of in written.items())
    widths = {m: str(features[FOLDERS[m]].shape[1]) if FOLDERS[m] in features else "-" for m in MODALITIES}
    write_card(output / CARD_FILE, _CARD, {"splits": table, **widths}, fill)
