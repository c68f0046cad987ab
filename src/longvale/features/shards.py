"""Parquet backend of the feature store: shards written by [`longvale.extraction.pack.pack_features`]."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..events import Modality, check_video_id
from ..system.names import look_up
from .backends import check_kind, short_reason

#: Errors that pyarrow raises, in addition to its own, on damaged Parquet files or unexpected columns.
_PARQUET_ERRORS = (ValueError, TypeError, KeyError, OSError, OverflowError, MemoryError, NotImplementedError)


class ParquetColumn:
    """A feature column of Parquet shards: lists of rows, written by [`pack_features`].

    Args:
        shards: shards, which also contain the columns of the other modalities.
        modality: modality of the column.
    """

    def __init__(self, shards: ParquetShards, modality: Modality) -> None:
        self._shards, self._modality = shards, modality

    def ids(self) -> Iterator[str]:
        yield from sorted(self._shards.rows)

    def place(self, video_id: str) -> str:
        row = look_up(self._shards.rows, video_id)
        path = self._shards.root if row is None else row[0]
        return f"{path}: video {video_id!r}: {self._modality}_features"

    def has(self, video_id: str) -> bool:
        check_video_id(video_id)
        return look_up(self._shards.rows, video_id) is not None

    def read(self, video_id: str) -> np.ndarray:
        return self._shards.array(video_id, self._modality, self.place(video_id))

    def shape(self, video_id: str) -> tuple[int, ...]:
        return self.read(video_id).shape

    def digest_into(self, digest: Any) -> None:
        for path in self._shards.paths:
            status = os.stat(path)
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())

    def identity(self, video_id: str) -> str:
        return str(self._shards.checksums(video_id).get(self._modality))


class ParquetShards:
    """Rows of `*.parquet` by video id. Reads all ids and checksums first, and row groups on demand.

    Raises:
        ValueError: naming the file that is not such a shard, or the video that occurs twice.
    """

    def __init__(self, root: Path, paths: list[Path]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.root, self.paths = root, paths
        self.rows: dict[str, tuple[Path, int, int]] = {}  # shard, row group, row in the group
        self._checksums: dict[str, dict[str, str | None]] = {}
        self.columns: set[str] = set()
        self._group: tuple[tuple[Path, int], Any] | None = None  # the row group that was read last
        for path in paths:
            try:
                file = pq.ParquetFile(path)
                _check_columns(file.schema_arrow)
                self.columns |= set(file.schema_arrow.names)
                named = ["video_id", "sha256"]
                groups = [file.read_row_group(g, columns=named).to_pylist() for g in range(file.num_row_groups)]
                for video_id in (row["video_id"] for group in groups for row in group):
                    check_video_id(video_id)
            except (*_PARQUET_ERRORS, pa.ArrowException) as error:
                raise ValueError(
                    f"{path}: not a shard of features ({short_reason(error)}); make it with `longvale features pack`"
                ) from None
            for group, videos in enumerate(groups):
                for row, video_id in enumerate(video["video_id"] for video in videos):
                    if video_id in self.rows:
                        raise ValueError(
                            f"{path}: video {video_id!r} is in {self.rows[video_id][0].name}, too; keep one"
                        )
                    self.rows[video_id] = (path, group, row)
                    self._checksums[video_id] = videos[row]["sha256"] or {}

    def array(self, video_id: str, modality: Modality, place: str) -> np.ndarray:
        """Return float16 [n, width]; [0, 0] for a modality that the video does not have."""
        path, group, row = look_up(self.rows, video_id)
        table = self._read_group(path, group)
        rows = table.column(f"{modality}_features")[row]
        if not rows.is_valid:
            return np.zeros((0, 0), np.float16)
        values = rows.values  # list<halffloat> of this video
        lengths = np.diff(values.offsets.to_numpy())
        if not len(lengths) or (lengths != lengths[0]).any() or values.null_count or values.flatten().null_count:
            raise ValueError(f"{place}: has rows of different widths, or without values; pack it again")
        array = values.flatten().to_numpy(zero_copy_only=False).reshape(len(lengths), -1)
        if self.checksums(video_id).get(modality) != array_digest(array):
            raise ValueError(f"{place}: is not what was packed (checksum); copy or download the shard again")
        return check_kind(array, place)

    def checksums(self, video_id: str) -> dict[str, str | None]:
        """Return the checksums of a video's packed arrays by modality."""
        return look_up(self._checksums, video_id)

    def _read_group(self, path: Path, group: int) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._group is None or self._group[0] != (path, group):
            try:
                table = pq.ParquetFile(path).read_row_group(group)
            except (*_PARQUET_ERRORS, pa.ArrowException) as error:
                raise ValueError(f"{path}: damaged ({short_reason(error)}); copy it again") from None
            columns = {n: pa.chunked_array([_storage(c) for c in table.column(n).chunks]) for n in table.column_names}
            self._group = (path, group), pa.table(columns).combine_chunks()
        return self._group[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_group": None}


def _check_columns(schema: Any) -> None:
    """Refuse shards whose columns differ from those of [`row_features`]."""
    import pyarrow as pa

    kinds = {"video_id": "a text", "sha256": "a struct of texts"}
    kinds |= {name: "lists of lists of floats" for name in schema.names if name.endswith("_features")}
    for name, kind in kinds.items():
        if name not in schema.names:
            raise ValueError(f"has no column {name!r}")
        found = schema.field(name).type
        storage = getattr(found, "storage_type", found)
        if name == "video_id":
            fits = pa.types.is_string(storage) or pa.types.is_large_string(storage)
        elif name == "sha256":
            fits = pa.types.is_struct(storage) and all(pa.types.is_string(item.type) for item in storage)
        else:
            fits = (
                _is_list(storage)
                and _is_list(storage.value_type)
                and pa.types.is_floating(storage.value_type.value_type)
            )
        if not fits:
            raise ValueError(f"column {name!r} must be {kind}, not {str(found)[:80]}")


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _storage(array: Any) -> Any:
    """Return the storage array, without the extension type that `datasets` uses for 2D arrays."""
    return getattr(array, "storage", array)


def array_digest(array: np.ndarray) -> str:
    """Compute the SHA-256 of an array's shape and values as float16, the packed format of features."""
    digest = hashlib.sha256(repr(array.shape).encode())
    digest.update(np.ascontiguousarray(array, np.dtype("<f2")).tobytes())
    return digest.hexdigest()
