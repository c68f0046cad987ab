"""Packing of a feature store into Parquet shards for the Hub: `longvale features pack DIR --output DIR`.

::

    <output>/README.md                            dataset card, with the configuration that `load_dataset` reads
    <output>/data/train-00000-of-00012.parquet    one row per video, see [`row_features`]
    <output>/SHA256SUMS                           checksums of the shards, in the format of `sha256sum --check`
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from ..events import MODALITIES, Modality
from ..features.backends import NpyFolder
from ..features.shards import array_digest
from ..features.store import FOLDERS, FeatureStore
from ..io import atomic_write, named_when_full
from ..system.checksums import write_checksums
from ..system.locks import hold

if TYPE_CHECKING:
    from datasets import Features

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
        shard_bytes: maximum size of a shard, before compression.
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
    with (
        hold(output.parent, output.name, work="longvale features pack", resumes=False),
        _unfinished_folder(output) as unfinished,
    ):
        shards: list[Path] = []
        with named_when_full(output), tqdm(total=len(video_ids), unit="video", disable=not progress) as bar:
            rows = (_row(store, video_id, absent) for video_id in video_ids)
            for number, shard in enumerate(_shards(rows, shard_bytes)):
                shards.append(_write_shard(unfinished / f"{number}.parquet", shard, features))
                bar.update(len(shard))
        _put_in_place(shards, output / "data", split)
        shutil.rmtree(unfinished)  # before the files are listed
        write_checksums(output)
        write_card(output, features)
    size = sum(path.stat().st_size for path in (output / "data").glob(f"{split}-*.parquet"))
    return PackSummary(len(video_ids), len(shards), size, absent)


@contextmanager
def _unfinished_folder(output: Path) -> Iterator[Path]:
    """Create a temporary folder for new shards, so that old ones are replaced last; remove those of killed runs."""
    for left in output.glob(".packing-*"):
        shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(dir=output, prefix=".packing-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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


def _shards(rows: Iterable[dict[str, Any]], shard_bytes: int) -> Iterator[list[dict[str, Any]]]:
    shard, size = [], 0
    for row in rows:
        bytes_of_row = sum(value.nbytes for value in row.values() if isinstance(value, np.ndarray))
        if shard and size + bytes_of_row > shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append(row)
        size += bytes_of_row
    if shard:
        yield shard


def _write_shard(path: Path, rows: Sequence[Mapping[str, Any]], features: Features) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # The schema lets `datasets` recognise the arrays; they are stored as lists, which all Parquet readers support.
    schema = features.arrow_schema
    columns = {name: [row[name] for row in rows] for name in schema.names}
    arrays = [_column(columns[field.name], field.type) for field in schema]
    table = pa.table(arrays, names=schema.names).replace_schema_metadata(schema.metadata)
    # Feature values hardly ever repeat, so a dictionary would only cost space.
    pq.write_table(table, path, row_group_size=_GROUP_ROWS, compression="zstd", use_dictionary=False)
    return path


def _column(values: Sequence[Any], kind: Any) -> Any:
    import pyarrow as pa

    if not hasattr(kind, "storage_type"):
        return pa.array(values, kind)
    present = [value for value in values if value is not None]
    width = kind.shape[1]
    flat = np.concatenate(present) if present else np.empty((0, width), np.float16)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), width).cast(kind.storage_type.value_type)
    ends = np.cumsum([0 if value is None else len(value) for value in values])
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    return pa.ListArray.from_arrays(offsets, rows, mask=pa.array([value is None for value in values]))


def _put_in_place(shards: Sequence[Path], folder: Path, split: str) -> None:
    """Rename the new shards over the old ones of their split."""
    names = [f"{split}-{number:05d}-of-{len(shards):05d}.parquet" for number in range(len(shards))]
    for old in folder.glob(f"{split}-*-of-*.parquet"):
        if old.name not in names:
            old.unlink()
    for shard, name in zip(shards, names, strict=True):
        os.replace(shard, folder / name)


def write_card(output: Path, features: Features) -> None:
    """Write `README.md` of the dataset, with the splits in the folder."""
    import pyarrow.parquet as pq
    import yaml
    from datasets import DatasetInfo

    shards: dict[str, list[Path]] = {}
    for path in sorted((output / "data").glob("*-*-of-*.parquet")):
        shards.setdefault(path.name.rsplit("-", 3)[0], []).append(path)
    counts = {split: sum(pq.read_metadata(path).num_rows for path in paths) for split, paths in shards.items()}
    info = DatasetInfo(features=features)._to_yaml_dict()
    info["config_name"] = "features"
    sizes = {split: sum(path.stat().st_size for path in paths) for split, paths in shards.items()}
    info["splits"] = [
        {"name": split, "num_bytes": sizes[split], "num_examples": count} for split, count in counts.items()
    ]
    info |= {"download_size": sum(sizes.values()), "dataset_size": sum(sizes.values())}
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in shards]
    total = sum(counts.values())
    header = {
        "license": "cc-by-nc-sa-4.0",
        "pretty_name": "LongVALE features",
        "task_categories": ["video-text-to-text"],
        "tags": ["video", "audio", "speech", "features", "temporal-grounding", "dense-captioning", "longvale"],
        "size_categories": ["n<1K" if total < 1000 else "1K<n<10K" if total < 10_000 else "10K<n<100K"],
        "configs": [{"config_name": "features", "default": True, "data_files": files}],
        "dataset_info": [info],
    }
    table = "\n".join(f"| {split} | {counts[split]} | {sizes[split] / 1e6:.1f} MB |" for split in shards)
    widths = {m: str(features[FOLDERS[m]].shape[1]) if FOLDERS[m] in features else "-" for m in MODALITIES}
    text = Template(_CARD.read_text(encoding="utf-8")).substitute(
        header=yaml.safe_dump(header, sort_keys=False, allow_unicode=True).rstrip(), splits=table, **widths
    )
    with atomic_write(output / "README.md") as file:
        file.write(text)
