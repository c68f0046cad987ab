"""The Parquet writer of prepared annotations and packed features."""

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from longvale.data.publish.shards import measure_shards, write_shards

FEATURES = datasets.Features({"name": datasets.Value("string"), "times": datasets.List(datasets.Value("float64"))})
ARRAYS = datasets.Features({"name": datasets.Value("string"), "rows": datasets.Array2D((None, 3), "float16")})


def rows(count):
    return ({"name": f"row {number}", "times": [float(number)] * 4} for number in range(count))


def test_sizes_of_shards_and_row_groups(tmp_path):
    folder = tmp_path / "events"
    folder.mkdir()
    written = write_shards(folder, "test", rows(100), FEATURES, 2000, group_rows=10)
    paths = sorted(folder.iterdir())
    assert [path.name for path in paths] == [f"test-{n:05d}-of-{len(paths):05d}.parquet" for n in range(len(paths))]
    files = [pq.ParquetFile(path) for path in paths]
    groups = [file.metadata.row_group(n).num_rows for file in files for n in range(file.num_row_groups)]
    assert groups == [10] * 10 and 1 < len(files) < 10
    assert all(file.read().nbytes <= 2000 for file in files)
    assert (written.rows, written.shards) == (100, len(files)) and written == measure_shards(folder, "test")
    assert written.file_bytes == sum(path.stat().st_size for path in paths)


def test_a_row_group_that_is_too_large_is_a_shard_and_no_rows_are_a_file(tmp_path):
    (tmp_path / "events").mkdir()
    assert write_shards(tmp_path / "events", "test", rows(30), FEATURES, 1, group_rows=10).shards == 3
    assert write_shards(tmp_path / "events", "test", [], FEATURES, 1).rows == 0
    assert [path.name for path in (tmp_path / "events").iterdir()] == ["test-00000-of-00001.parquet"]


def test_earlier_shards_stay_until_the_new_ones_are_complete(tmp_path):
    folder = tmp_path / "events"
    folder.mkdir()
    write_shards(folder, "train", rows(30), FEATURES, 1, group_rows=10)
    before = {path: path.read_bytes() for path in folder.iterdir()}

    def failing():
        yield from rows(15)
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        write_shards(folder, "train", failing(), FEATURES, 1, group_rows=10)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["events"]


def test_arrays_are_stored_as_lists_that_datasets_reads_as_arrays(tmp_path):
    (tmp_path / "data").mkdir()
    values = [np.arange(6, dtype=np.float16).reshape(2, 3), None, np.zeros((0, 3), np.float16)]
    write_shards(tmp_path / "data", "test", [{"name": "a", "rows": value} for value in values], ARRAYS, 1000)
    (path,) = (tmp_path / "data").iterdir()
    assert str(pq.read_schema(path).field("rows").type) == "list<element: list<element: halffloat>>"
    read = datasets.Dataset.from_parquet(str(path), features=ARRAYS, cache_dir=tmp_path / "cache")
    assert [read[place]["rows"] for place in (0, 2)] == [values[0].tolist(), []]
    assert pq.read_table(path)["rows"].is_null().to_pylist() == [False, True, False]
