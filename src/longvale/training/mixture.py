"""A training set as a mixture: files of dialogues, their weights, and the folders of their videos and images."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

from longvale.data.dialogues import IMAGE_TOKEN, TimeWriter, load_dialogues
from longvale.data.media import Media
from longvale.data.rows import dialogue_row
from longvale.data.sources import index_videos
from longvale.events import MODALITIES, Modality
from longvale.features.backends import is_url
from longvale.features.store import FOLDERS, FeatureStore, OtherWidth
from longvale.models.media import probe


@dataclass(frozen=True)
class Source:
    """One item of `mixture:` in a configuration.

    Args:
        dialogues: file in the official format; relative to `data_dir`.
        features: folders of stored features, relative to `features_dir`, searched in this order for each video or
            image. A folder that contains only `visual_features` has videos without sound.
        videos: folder of video files, relative to `videos_dir`, instead of `features`.
        source: only dialogues whose field `source` has this value; None for all.
        weight: number of times per epoch that a dialogue is used; for a fraction, a random share of the dialogues.

    Example:
        >>> Source("longvale-sft-bp-7k.json", features=("longvale",)).weight
        1.0
    """

    dialogues: str
    features: tuple[str, ...] = ()
    videos: str | None = None
    source: str | None = None
    weight: float = 1.0


def parse_mixture(mixture: object) -> list[Source]:
    """Parse the sources that a configuration declares.

    Raises:
        ValueError: naming the item, the field and the invalid value.

    Example:
        >>> parse_mixture([{"dialogues": "bp.json", "features": "longvale", "weight": 0.5}])
        [Source(dialogues='bp.json', features=('longvale',), videos=None, source=None, weight=0.5)]
        >>> parse_mixture([{"dialogues": "bp.json", "features": "longvale", "wieght": 2}])
        Traceback (most recent call last):
            ...
        ValueError: mixture: item 1: unknown field 'wieght'; known are dialogues, features, videos, source, weight
    """
    if not isinstance(mixture, list) or not mixture:
        raise ValueError(f"mixture must be a list of sources with dialogues and features, not {mixture!r}")
    sources = []
    for number, item in enumerate(mixture, start=1):
        try:
            sources.append(_parse_source(item))
        except ValueError as error:
            raise ValueError(f"mixture: item {number}: {error}") from None
    if len({source.videos is None for source in sources}) > 1:
        raise ValueError("mixture: some sources have features and some videos; store features of the videos too")
    return sources


def _parse_source(item: object) -> Source:
    if not isinstance(item, dict):
        raise ValueError(f"must be fields such as dialogues and features, not {item!r}")
    known = [field.name for field in fields(Source)]
    for name, value in item.items():
        if name not in known:
            raise ValueError(f"unknown field {name!r}; known are {', '.join(known)}")
        if name in ("dialogues", "videos", "source") and (not isinstance(value, str) or not value):
            raise ValueError(f"{name} must be a text, not {value!r}")
    if "dialogues" not in item:
        raise ValueError("dialogues is not given; name a file of dialogues")
    roots, weight = item.get("features", ()), item.get("weight", 1.0)
    roots = (roots,) if isinstance(roots, str) else roots
    if not isinstance(roots, list | tuple) or not all(isinstance(root, str) for root in roots):
        raise ValueError(f"features must be a folder or a list of folders, not {roots!r}")
    if bool(roots) == ("videos" in item):
        raise ValueError("give either features (folders of stored features) or videos (a folder of video files)")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        raise ValueError(f"weight must be a number above 0, not {weight!r}")
    return Source(**{**item, "features": tuple(roots), "weight": float(weight)})


class SourceMedia(Media):
    """Videos and images of a source, and which of them are missing or damaged.

    Args:
        source: of the mixture.
        features_dir, videos_dir: that its folders are relative to.
        widths: of the features that the model takes.

    Raises:
        FileNotFoundError: if one of the folders does not exist.
    """

    def __init__(
        self,
        source: Source,
        features_dir: str | None,
        videos_dir: str | None,
        widths: Mapping[Modality, int],
    ) -> None:
        super().__init__(
            [FeatureStore(Path(features_dir or "", root), widths) for root in source.features],
            None if source.videos is None else index_videos(Path(videos_dir or "", source.videos)),
        )
        self._damage: dict[str, str | None] = {}

    def damage(self, video_id: str) -> str | None:
        """Return why the files of a video cannot be used; None if they can be used or do not exist.

        Stored features are read once, those behind a URL only when needed; of a video file only the header is read.
        """
        if video_id not in self._damage:
            self._damage[video_id] = None
            try:
                if (path := self.file(video_id)) is not None:
                    probe(path)
                elif (store := self.store(video_id)) is not None and not is_url(store.root):
                    store.load(video_id, missing="none")
            except OtherWidth:  # features of another model, as all of them will be: refused when a row is read
                pass
            except (ValueError, FileNotFoundError) as error:
                self._damage[video_id] = str(error)
        return self._damage[video_id]

    def lacking(self, video_id: str, image: bool) -> tuple[str, ...]:
        """Return the columns that are missing; all if the video is missing or damaged. An image needs a vector only."""
        if self.absent(video_id):
            modalities = MODALITIES[:1] if image else self.modalities
            return tuple(FOLDERS[modality] for modality in modalities) if self.stores else ("video",)
        return tuple(column for column in self.missing(video_id) if not image or column == FOLDERS["visual"])

    def absent(self, video_id: str) -> bool:
        """Return whether nothing of this video can be used."""
        found = self.store(video_id) if self.stores else self.file(video_id)
        return found is None or self.damage(video_id) is not None

    def load(self, video_id: str) -> dict[str, Any]:
        """Return the columns of a row.

        Raises:
            FileNotFoundError: if the features that were there when the rows were counted are gone.
            ValueError: as in the base class.
        """
        if self.stores and self.store(video_id) is None:
            raise FileNotFoundError(f"{self.stores[0].root}: the features of {video_id!r} are gone; make them again")
        return super().load(video_id)


def read_rows(path: Path, source: Source, times: TimeWriter | None = None) -> Iterator[dict[str, Any]]:
    """Yield the dialogues of a source: `id` and `messages` with timecodes filled in, or times as `times` writes them.

    Raises:
        FileNotFoundError, ValueError: as in [`load_dialogues`]; or if no dialogue has the requested source.
    """
    dialogues = load_dialogues(path)
    wanted = [d for d in dialogues if source.source is None or d.get("source") == source.source]
    if not wanted:
        found = sorted({str(dialogue.get("source")) for dialogue in dialogues})
        raise ValueError(f"{path}: no dialogue has the source {source.source!r}; there are {', '.join(found[:10])}")
    for dialogue in wanted:
        row = dialogue_row(dialogue, times)
        yield {"id": row["id"], "messages": row["messages"]}


def is_image(row: Mapping[str, Any]) -> bool:
    """Return whether a dialogue is about a single image.

    Example:
        >>> is_image({"messages": [{"role": "user", "content": "<image>\\nWhat is it?"}]})
        True
    """
    return IMAGE_TOKEN in row["messages"][0]["content"]


def repeats(count: int, weight: float, seed: str) -> list[int]:
    """Return the indices of the rows of an epoch: each `weight` times, the fraction as a random share.

    Example:
        >>> sorted(repeats(4, 1.5, "0:bp.json"))[:2], len(repeats(4, 1.5, "0:bp.json")), repeats(3, 1.0, "0")
        ([0, 1], 6, [0, 1, 2])
    """
    whole = int(weight)
    drawn = random.Random(seed).sample(range(count), round(count * (weight - whole)))
    return [*chain.from_iterable([range(count)] * whole), *sorted(drawn)]


class LoadMedia:
    """Transform for `datasets` that adds the media to rows with `id` and `source` (its index)."""

    def __init__(self, media: Sequence[SourceMedia]) -> None:
        self.media = media

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        if not {"id", "source"} <= set(batch):  # only some columns are accessed
            return dict(batch)
        columns = [self.media[number].load(name) for name, number in zip(batch["id"], batch["source"], strict=True)]
        names = dict.fromkeys(chain.from_iterable(columns))
        return {**batch, **{name: [column.get(name) for column in columns] for name in names}}
