"""Parquet files of a split, in shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets

_ROWS_A_GROUP = 1000
_WHOLE_IN_FLOAT64 = 2**53


@dataclass(frozen=True)
class Written:
    """Amount of data written for a split: rows, and bytes in memory and on disk."""

    rows: int
    memory_bytes: int
    file_bytes: int


def write_shards(
    folder: Path, split: str, rows: Iterable[dict[str, Any]], features: datasets.Features, max_bytes: int
) -> Written:
    """Write rows as `<folder>/<split>-00000-of-0000N.parquet`.

    Args:
        folder: existing folder.
        split: first part of the file names.
        rows: read once; only a batch at a time is in memory.
        features: of the dataset; also stored in the files.
        max_bytes: a new shard is started once the current one reaches this size in memory.

    Returns:
        The amount of data. Without rows, one file with no rows is written.
    """
    import pyarrow
    import pyarrow.parquet

    schema = features.arrow_schema
    paths: list[Path] = []
    count, memory_bytes, batches = 0, 0, _batches(rows)
    while (batch := next(batches, None)) is not None:
        paths.append(folder / f"{split}-{len(paths):05d}.parquet")
        in_shard = 0
        with pyarrow.parquet.ParquetWriter(paths[-1], schema) as writer:
            while batch is not None:
                table = pyarrow.Table.from_pylist([storable(row) for row in batch], schema=schema)
                writer.write_table(table)
                count, in_shard = count + len(batch), in_shard + table.nbytes
                batch = next(batches, None) if in_shard < max_bytes else None
        memory_bytes += in_shard
    named = [path.rename(path.with_name(f"{path.stem}-of-{len(paths):05d}.parquet")) for path in paths]
    return Written(count, memory_bytes, sum(path.stat().st_size for path in named))


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
                for batch in file.iter_batches(_ROWS_A_GROUP):
                    yield from batch.to_pylist()
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path}: not readable as Parquet ({reason}); fetch it again") from None


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield rows a thousand at a time; at least one batch, so that a split without rows has a file."""
    rows = iter(rows)
    batch = list(islice(rows, _ROWS_A_GROUP))
    yield batch
    while batch := list(islice(rows, _ROWS_A_GROUP)):
        yield batch
