"""`longvale.load_dataset`: rows of LongVALE from our builder, through the public interface of `datasets` alone."""

from __future__ import annotations

import os
from typing import Any

from .registration import NAME, source_hash


def load_dataset(
    name: str | None = None,
    *,
    data_dir: str | os.PathLike | None = None,
    split: str | None = None,
    streaming: bool = False,
    num_proc: int | None = None,
    cache_dir: str | os.PathLike | None = None,
    download_mode: str | None = None,
    token: str | bool | None = None,
    **options: Any,
) -> Any:
    """Load LongVALE's events, questions or dialogues.

    `datasets.load_dataset("longvale", name, ...)` gives the same rows from the same cache after `import longvale`,
    which registers the name inside of `datasets`. This function does not need that.

    Args:
        name: configuration: events (default), videos, grounding, dense_captioning, segment_captioning,
            boundary_perception or instruction.
        data_dir: folder of official files; default: download them from the Hub.
        split: "train", "test", or a slice such as "train[:10]"; default all, as a dict.
        streaming: return an iterable dataset that reads the files while it is iterated.
        num_proc: number of processes that prepare the cache; default one.
        cache_dir: folder of the cache; default that of `datasets`.
        download_mode: "reuse_dataset_if_exists" (default) or "force_redownload", which prepares the cache again.
        token: token of the Hub.
        options: `features_dir`, `videos_dir`, `video_column`, `missing_media` and `size`, see
            [`longvale.data.builder`][].

    Returns:
        As `datasets.load_dataset`: a `Dataset` for one split, a `DatasetDict` for all; with `streaming`,
        `IterableDataset` or `IterableDatasetDict`.

    Raises:
        FileNotFoundError: if a file or folder is missing; the message names it.
        ValueError: if a file or an option is invalid; the message is one line.

    Example:
        >>> import json, tempfile, longvale
        >>> folder = tempfile.mkdtemp()
        >>> video = {"duration": 9.0, "timestamps": [[0, 4]], "sentences": ["A bell rings."]}
        >>> with open(f"{folder}/longvale-annotations-eval.json", "w") as file:
        ...     json.dump({"a": video}, file)
        >>> rows = longvale.load_dataset("events", data_dir=folder, split="test", streaming=True)
        >>> [row["caption"] for row in rows]
        ['A bell rings.']
    """
    from .builder import COLUMNS, LongVALE

    if name is not None and name not in COLUMNS:
        raise ValueError(f"configuration must be one of {', '.join(COLUMNS)}, not {name!r}")
    if streaming and num_proc is not None:
        raise ValueError(f"num_proc={num_proc} is for the cache, which streaming does not use; leave one of them out")
    builder = LongVALE(
        config_name=name,
        data_dir=data_dir,
        data_files={},  # as for the registered name: the options are part of the name of the cache
        cache_dir=None if cache_dir is None else os.fspath(cache_dir),
        dataset_name=NAME,
        hash=source_hash(),
        token=token,
        **options,
    )
    if streaming:
        return builder.as_streaming_dataset(split=split)
    builder.download_and_prepare(download_mode=download_mode, num_proc=num_proc)
    return builder.as_dataset(split=split)
