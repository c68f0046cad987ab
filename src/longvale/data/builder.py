"""The `datasets` builder behind `datasets.load_dataset("longvale", NAME, data_dir=DIR)`.

Columns of each configuration (NAME), times in seconds:

- `events` (default), one row per event: video_id, event_id (index in the video), start, end, caption, modalities,
  relation, duration. Modalities and relation are None unless the directory contains an `events.jsonl` or is the output
  of `longvale annotate`.
- `videos`, one row per video: video_id, duration, events (a list with the event columns of `events`).
- `grounding`, `segment_captioning`, one row per question: video_id, sentence_id (index of the event), question,
  reference, start, end, modalities, relation, duration. `dense_captioning`: video_id, question, reference, events,
  duration.
- `boundary_perception`, `instruction`, one row per dialogue: id (of the video), source, messages with timecodes filled
  in, duration and split (`meta.split` of the file) or None. They have a train split only.

Options of `load_dataset`:

- `features_dir`: a feature store; adds visual_features, audio_features, speech_features, float32 [n, width] or None.
  They are copied into the cache with each row: for many videos use `streaming=True` or the configuration `videos`.
  They cover the whole video: `split` of a dialogue is not cut out of them.
- `videos_dir`: a directory of `<video_id>.mp4`; adds video, the path of the file or None.
- `video_column`: type of that column: "path" (default), "encoded" for `datasets.Video(decode=False)`, a mapping that
  our processor reads, or "decoded" for `datasets.Video()`, which gives a decoder of torchcodec when a row is read.
- `missing_media`: "keep" (default) or "drop" rows that lack one of these files. Both are counted, and a warning
  lists how many and which. The same text is the description in the dataset's info.
- `size`: which dialogue file to read, for example "7k", if there are several.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datasets
from datasets import List, Value
from datasets.exceptions import DatasetGenerationError

from ..events import MODALITIES
from ..features.store import FOLDERS, FeatureStore
from .media import Media
from .publish.shards import storable
from .rows import read_records, rows
from .sources import (
    ANNOTATION_FILES,
    DIALOGUE_STEMS,
    EVENTS_FILE,
    HUB_REPO,
    absolute,
    annotation_files,
    dialogue_file,
    digest_files,
    digest_listing,
    fetch,
    index_videos,
    stage_events,
)

logger = logging.getLogger(__name__)

_FACTS = {"modalities": List(Value("string")), "relation": Value("string")}
_SPAN = {"start": Value("float64"), "end": Value("float64")}
_EVENT = {"event_id": Value("int32"), **_SPAN, "caption": Value("string"), **_FACTS}
_VIDEO_ID = {"video_id": Value("string")}
_DURATION = {"duration": Value("float64")}
_ANSWER = {"question": Value("string"), "reference": Value("string")}
_EVENT_QUESTION = {**_VIDEO_ID, "sentence_id": Value("int32"), **_ANSWER, **_SPAN, **_FACTS, **_DURATION}
_DIALOGUE = {
    "id": Value("string"),
    "source": Value("string"),
    "messages": List({"role": Value("string"), "content": Value("string")}),
    **_DURATION,
    "split": List(Value("float64")),
}

#: Columns of each configuration, without media.
COLUMNS: dict[str, dict[str, Any]] = {
    "events": {**_VIDEO_ID, **_EVENT, **_DURATION},
    "videos": {**_VIDEO_ID, **_DURATION, "events": List(_EVENT)},
    "grounding": _EVENT_QUESTION,
    "dense_captioning": {**_VIDEO_ID, **_ANSWER, "events": List(_EVENT), **_DURATION},
    "segment_captioning": _EVENT_QUESTION,
    "boundary_perception": _DIALOGUE,
    "instruction": _DIALOGUE,
}

#: Lists of numbers, not Array2D: reading a batch of Array2D rows fails in datasets 5 when one of them is null.
_FEATURES = List(List(Value("float32")))

_DIRECTORIES = ("data_dir", "features_dir", "videos_dir")
_MISSING_MEDIA = ("keep", "drop")
_VIDEO_COLUMNS = {
    "path": Value("string"),
    "encoded": datasets.Video(decode=False),
    "decoded": datasets.Video(),
}

#: Videos (or dialogues) per shard, the unit that one process reads with `num_proc` or several DataLoader workers.
_VIDEOS_A_SHARD = 256

#: Rows with features are large (about 1 MB for the published ones), so fewer are buffered before a write to the cache.
_WRITER_BATCH_WITH_FEATURES = 16

_NAMED_IN_A_WARNING = 5


@dataclass
class LongVALEConfig(datasets.BuilderConfig):
    """Rows, sources and media of one configuration; the module docstring lists the options."""

    features_dir: str | None = None
    videos_dir: str | None = None
    video_column: str = "path"
    missing_media: str = "keep"
    size: str | None = None

    def files(self) -> dict[str, str]:
        """Return the names of the files that the rows come from, by split.

        Raises:
            FileNotFoundError: if the directory contains none.
            ValueError: if there are several dialogue files and none is chosen, or an option has an invalid value.
        """
        if self.missing_media not in _MISSING_MEDIA:
            raise ValueError(f"missing_media must be 'keep' or 'drop', not {self.missing_media!r}")
        if self.video_column not in _VIDEO_COLUMNS:
            raise ValueError(f"video_column must be one of {', '.join(_VIDEO_COLUMNS)}, not {self.video_column!r}")
        if self.video_column != "path" and self.videos_dir is None:
            raise ValueError(f"video_column={self.video_column!r} is the type of a column of videos; give videos_dir")
        if self.video_column == "decoded" and not datasets.config.TORCHCODEC_AVAILABLE:
            raise ValueError("video_column='decoded' needs torchcodec; pip install torchcodec, or use 'encoded'")
        if self.name in DIALOGUE_STEMS:
            return {"train": dialogue_file(self.data_dir, self.name, self.size)}
        if self.size is not None:
            raise ValueError(f"size chooses a file of dialogues; {self.name!r} has none: leave out size={self.size!r}")
        return annotation_files(self.data_dir)

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Return the cache name, which depends on the options, the directories and the content of their files."""
        return super().create_config_id({**config_kwargs, "sources": self._fingerprint()}, custom_features)

    def _fingerprint(self) -> str:
        names = list(self.files().values())
        parts = [digest_files(self.data_dir, [*names, EVENTS_FILE, *map(str, map(stage_events, names))])]
        if self.features_dir is not None:
            parts.append(FeatureStore(self.features_dir).fingerprint())
        if self.videos_dir is not None:
            parts.append(digest_listing(index_videos(self.videos_dir)))
        return ",".join(parts)


class LongVALE(datasets.GeneratorBasedBuilder):
    """LongVALE's events, questions and dialogues from a directory of official files, or from the Hub without one.

    Use it through `datasets.load_dataset("longvale", NAME, ...)` after `import longvale`.

    Raises:
        FileNotFoundError: if a file or directory that a configuration or split needs is missing; the message names it.
        ValueError: if a file is invalid; the message is one line.
    """

    BUILDER_CONFIG_CLASS = LongVALEConfig
    BUILDER_CONFIGS = [LongVALEConfig(name=name) for name in COLUMNS]  # noqa: RUF012 (how datasets declares them)
    DEFAULT_CONFIG_NAME = "events"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        for name in _DIRECTORIES:
            if kwargs.get(name) is not None:
                kwargs[name] = absolute(kwargs[name])
        if kwargs.get("features_dir") is not None:
            kwargs.setdefault("writer_batch_size", _WRITER_BATCH_WITH_FEATURES)
        super().__init__(*args, **kwargs)

    def download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        """Prepare as the base class does, but raise errors in the files unchanged and report missing media."""
        try:
            super().download_and_prepare(*args, **kwargs)
        except DatasetGenerationError as error:
            # The base class hides the message that names the file behind "An error occurred".
            if type(error.__cause__) in (ValueError, FileNotFoundError):
                raise error.__cause__ from None
            raise
        self._report()

    def as_dataset(self, split: Any = None, in_memory: bool = False) -> Any:
        """Return the dataset as the base class does; if the file of a split is missing, the error names it."""
        self._check_split(split)
        return super().as_dataset(split, in_memory)

    def as_streaming_dataset(self, split: Any = None, base_path: str | None = None) -> Any:
        """Return the stream as the base class does; errors name a missing split file, missing media are reported."""
        self._check_split(split)
        dataset = super().as_streaming_dataset(split, base_path)
        self._report()
        return dataset

    def _info(self) -> datasets.DatasetInfo:
        columns = dict(COLUMNS[self.config.name])
        if self.config.features_dir is not None:
            columns |= dict.fromkeys(FOLDERS.values(), _FEATURES)
        if self.config.videos_dir is not None:
            columns["video"] = _VIDEO_COLUMNS[self.config.video_column]
        return datasets.DatasetInfo(features=datasets.Features(columns), homepage=f"https://hf.co/datasets/{HUB_REPO}")

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        media, fate = _media_of(self.config), "dropped" if self.config.missing_media == "drop" else "kept with None"
        reports, generators = _notes(media), []
        for split, name in self.config.files().items():
            path = str(fetch(self.config.data_dir, name, self.token))
            # Now, so that an invalid file is reported before anything is written.
            records = read_records(self.config.name, path)
            counts = [(key, len(list(rows(self.config.name, record)))) for key, record in records]
            reports += _count_missing(media, fate, split, counts)
            starts = range(0, len(records), _VIDEOS_A_SHARD)
            ranges = [(start, min(start + _VIDEOS_A_SHARD, len(records))) for start in starts]
            generators.append(datasets.SplitGenerator(name=split, gen_kwargs={"path": path, "ranges": ranges}))
        # The info is stored in the cache, so rows that are loaded from there are reported again.
        self.info.description = "; ".join(reports)
        return generators

    def _generate_examples(self, path: str, ranges: list[tuple[int, int]]) -> Iterator[tuple[str, dict[str, Any]]]:
        records, media = read_records(self.config.name, path), _media_of(self.config)
        for index in (index for start, stop in ranges for index in range(start, stop)):
            video_id, record = records[index]
            if self.config.missing_media == "drop" and media.missing(video_id):
                continue
            columns = media.load(video_id)
            if storable(columns.get("video")) != columns.get("video"):
                raise ValueError(f"{columns['video']}: the name is not UTF-8, which Arrow needs; rename the file")
            for number, row in enumerate(rows(self.config.name, record)):
                yield f"{index}-{number}", storable(row) | columns

    def _check_split(self, split: Any) -> None:
        files = self.config.files()
        for name in re.findall(r"\b(?:train|test)\b", str(split)):
            if name in files:
                continue
            if self.config.name in DIALOGUE_STEMS:
                raise ValueError(f"{self.config.name!r} has no split {name!r}: dialogues are for training; use 'train'")
            raise FileNotFoundError(
                f"{self.config.data_dir}: holds no {ANNOTATION_FILES[name]}, which the split {name!r} is read from"
            )

    def _report(self) -> None:
        if self.info.description:
            logger.warning("longvale/%s: %s", self.config.name, self.info.description)


def _media_of(config: LongVALEConfig) -> Media:
    """Return the media that the options ask for."""
    return Media(
        [] if config.features_dir is None else [FeatureStore(config.features_dir)],
        None if config.videos_dir is None else index_videos(config.videos_dir),
    )


def _notes(media: Media) -> list[str]:
    """Return a note on modalities for which the store has no folder."""
    absent = [FOLDERS[m] for m in MODALITIES if m not in media.modalities]
    return [f"{store.root} has no folder {', '.join(absent)}: None in all rows" for store in media.stores if absent]


def _count_missing(media: Media, fate: str, split: str, rows: list[tuple[str, int]]) -> list[str]:
    """Return one line about the rows of a split that lack a file, or none; `rows` has the row count per video."""
    columns: Counter[str] = Counter()
    lacking: Counter[str] = Counter()
    for video_id, count in rows:
        if count and (absent := media.missing(video_id)):
            columns.update(dict.fromkeys(absent, count))
            lacking[video_id] += count
    if not lacking.total():
        return []
    which = ", ".join(f"{column} {count}" for column, count in columns.items())
    first = ", ".join(list(lacking)[:_NAMED_IN_A_WARNING]) + (", ..." if len(lacking) > _NAMED_IN_A_WARNING else "")
    return [
        f"{lacking.total()} of {sum(count for _, count in rows)} rows of {split} miss media and are {fate} "
        f"({which}; videos: {first})"
    ]
