"""Parquet files of a split, in shards: the writer of all published data, and a reader of rows."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import datasets
    import pyarrow

_GROUP_ROWS = 1000
_WHOLE_IN_FLOAT64 = 2**53


@dataclass(frozen=True)
class Written:
    """Amount of data of a split: rows, files, and bytes before and after compression."""

    rows: int
    shards: int
    memory_bytes: int
    file_bytes: int


def write_shards(
    folder: Path,
    split: str,
    rows: Iterable[dict[str, Any]],
    features: datasets.Features,
    max_bytes: int,
    *,
    group_rows: int = _GROUP_ROWS,
) -> Written:
    """Write rows as `<folder>/<split>-00000-of-0000N.parquet`, in place of earlier shards of the split.

    The files are written under temporary names and renamed when all are complete.

    Args:
        folder: existing folder; the temporary files are in a folder next to it: the caller must hold a lock.
        split: first part of the file names.
        rows: read once; only one row group at a time is in memory. Columns of the type `Array2D` contain NumPy arrays
            or None.
        features: of the dataset; also stored in the files.
        max_bytes: maximum size of a shard before compression, unless a single row group is larger.
        group_rows: rows per row group, which are read together.

    Returns:
        The amount of data. Without rows, one file with no rows is written.
    """
    import pyarrow.parquet as pq

    schema = features.arrow_schema
    # The metadata lets `datasets` recognise arrays; they are stored as lists, which all Parquet readers support.
    stored = _stored(schema)
    # Feature values hardly ever repeat, so a dictionary would only cost space.
    options = {"compression": "zstd", "use_dictionary": stored.types == schema.types}
    with _unfinished_folder(folder.parent) as unfinished, ExitStack() as opened:
        paths: list[Path] = []
        size = 0
        for batch in _batches(rows, group_rows):
            table = _table(batch, schema, stored)
            if not paths or size + table.nbytes > max_bytes:
                opened.close()
                paths.append(unfinished / f"{len(paths)}.parquet")
                writer = opened.enter_context(pq.ParquetWriter(paths[-1], stored, **options))
                size = 0
            writer.write_table(table)
            size += table.nbytes
        opened.close()
        _put_in_place(paths, folder, split)
    return measure_shards(folder, split)


def measure_shards(folder: Path, split: str) -> Written:
    """Return the amount of data in the shards of a split."""
    import pyarrow.parquet as pq

    paths = list(folder.glob(f"{split}-*-of-*.parquet"))
    files = [pq.read_metadata(path) for path in paths]
    return Written(
        rows=sum(file.num_rows for file in files),
        shards=len(paths),
        memory_bytes=sum(file.row_group(i).total_byte_size for file in files for i in range(file.num_row_groups)),
        file_bytes=sum(path.stat().st_size for path in paths),
    )


@contextmanager
def _unfinished_folder(folder: Path) -> Iterator[Path]:
    """Create a temporary folder for new shards, so that old ones are replaced last; remove those of killed runs."""
    for left in folder.glob(".packing-*"):
        shutil.rmtree(left)
    unfinished = Path(tempfile.mkdtemp(dir=folder, prefix=".packing-"))
    try:
        yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _put_in_place(shards: Sequence[Path], folder: Path, split: str) -> None:
    """Rename the new shards over the old ones of their split."""
    names = [f"{split}-{number:05d}-of-{len(shards):05d}.parquet" for number in range(len(shards))]
    for old in folder.glob(f"{split}-*-of-*.parquet"):
        if old.name not in names:
            old.unlink()
    for shard, name in zip(shards, names, strict=True):
        os.replace(shard, folder / name)


def _batches(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Yield `size` rows at a time; at least one batch, so that a split without rows has a file."""
    rows = iter(rows)
    yield list(islice(rows, size))
    while batch := list(islice(rows, size)):
        yield batch


def _stored(schema: pyarrow.Schema) -> pyarrow.Schema:
    import pyarrow as pa

    fields = [pa.field(field.name, getattr(field.type, "storage_type", field.type)) for field in schema]
    return pa.schema(fields, metadata=schema.metadata)


def _table(rows: Sequence[dict[str, Any]], schema: pyarrow.Schema, stored: pyarrow.Schema) -> pyarrow.Table:
    import pyarrow as pa

    columns = [_column([row.get(field.name) for row in rows], field.type) for field in schema]
    return pa.table(columns, schema=stored)


def _column(values: Sequence[Any], kind: Any) -> pyarrow.Array:
    import pyarrow as pa

    if not hasattr(kind, "storage_type"):
        return pa.array([storable(value) for value in values], kind)
    present = [value for value in values if value is not None]
    width = kind.shape[1]
    flat = np.concatenate(present) if present else np.empty((0, width), kind.value_type)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), width).cast(kind.storage_type.value_type)
    ends = np.cumsum([0 if value is None else len(value) for value in values])
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    return pa.ListArray.from_arrays(offsets, rows, mask=pa.array([value is None for value in values]))


def storable(value: Any) -> Any:
    """Convert a JSON value so that Parquet can store it: lone surrogates become U+FFFD, huge integers become floats.

    Example:
        >>> storable({"caption": "half \\ud83d", "events": [1]}) == {"caption": "half \\ufffd", "events": [1]}
        True
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, int) and abs(value) > _WHOLE_IN_FLOAT64:
        return float(value)
    if isinstance(value, dict):
        return {name: storable(item) for name, item in value.items()}
    return [storable(item) for item in value] if isinstance(value, list) else value


def read_shards(folder: Path, split: str, needed: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a split that [`write_shards`] wrote.

    Args:
        folder: the folder with the files.
        split: first part of their names.
        needed: names of required columns.

    Raises:
        ValueError: if a file is not Parquet or lacks a column; the message names it.
    """
    import pyarrow
    import pyarrow.parquet

    for path in sorted(folder.glob(f"{split}-*.parquet")):
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                if missing := sorted(set(needed) - set(file.schema_arrow.names)):
                    raise ValueError(f"{path}: has no column '{missing[0]}'; prepare the data again")
                for batch in file.iter_batches(_GROUP_ROWS):
                    yield from batch.to_pylist()
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path}: not readable as Parquet ({reason}); fetch it again") from None
