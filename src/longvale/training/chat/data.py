"""Conversations about videos that chat models are trained on: of LongVALE, or of any dataset with messages."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, IterableDataset

from longvale.data.dialogues import IMAGE_TOKEN, load_dialogues
from longvale.data.rows import dialogue_row
from longvale.data.sources import (
    DIALOGUE_STEMS,
    annotation_file,
    dialogue_file,
    fetch,
    index_videos,
    load_videos,
)
from longvale.evaluation.adapters.prompts import word_answer, word_question
from longvale.evaluation.adapters.time_formats import check_sentences
from longvale.models.media import MediaError, probe
from longvale.registry import time_formats
from longvale.system.names import look_up
from longvale.tasks import TASKS, VIDEO_TOKEN, questions
from longvale.training.chat.arguments import ChatScriptArguments, videos_folder

logger = logging.getLogger(__name__)

_NAMED_IN_A_MESSAGE = 5

#: Builders of `datasets` for single files, by suffix.
_FILES = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def load_conversations(script: ChatScriptArguments) -> Dataset | IterableDataset:
    """Load the rows of a training, as [`longvale.training.chat.collator.ChatCollator`] takes them.

    `id`, `messages` (`[{"role", "content"}, ...]`) and `video`, a source of the video or None. All rows are read once
    here, without decoding videos, unless the dataset is streamed.

    Args:
        script: which dataset, and its options.

    Raises:
        FileNotFoundError: if a file or folder is missing; the message names it.
        ValueError: if the dataset is not one of conversations, a row is invalid, or too many videos are missing.
    """
    if script.dataset_name == "longvale":
        root = videos_folder(script)
        return _with_videos(list(_longvale_rows(script)), script, index_videos(root), root)
    found = _load_dataset(script)
    for column in ("messages",):
        if column not in (found.column_names or ()):
            raise ValueError(
                f"{script.dataset_name}: has no column {column}; there are {', '.join(found.column_names or ())}"
            )
    if "video" in found.column_names and isinstance(found.features["video"], datasets.Video):
        found = found.cast_column("video", datasets.Video(decode=False))
    convert = _Conversations(script)
    if isinstance(found, IterableDataset):
        return found.map(convert, batched=True, batch_size=1, remove_columns=found.column_names)
    texts = found.select_columns([name for name in ("id", "messages") if name in found.column_names])
    for row in texts:
        convert.messages(row)
    kept = usable_rows(script, [convert.video(row) for row in found], [convert.name(row) for row in found])
    return found.select(kept).with_transform(convert)


def _longvale_rows(script: ChatScriptArguments) -> Iterator[dict[str, Any]]:
    """Yield the rows of a configuration of LongVALE, without media, with times in the format of the options."""
    form = time_formats.create(script.times)
    names = str(script.dataset_config).split(",")
    if unknown := [name for name in names if name not in (*DIALOGUE_STEMS, *TASKS)]:
        known = ", ".join((*DIALOGUE_STEMS, *TASKS))
        raise ValueError(
            f"dataset_config: {unknown[0]!r} has no conversations; give some of {known}, with commas between"
        )
    for name in names:
        if name in DIALOGUE_STEMS:
            try:
                check_sentences(script.times)
            except ValueError as error:
                raise ValueError(f"{error}, or set dataset_config to {','.join(TASKS)}") from None
            file = dialogue_file(script.data_dir, name, script.dialogues_size)
            for dialogue in load_dialogues(fetch(script.data_dir, file)):
                row = dialogue_row(dialogue, form)
                yield {"id": row["id"], "messages": row["messages"]}
            continue
        for annotation in load_videos(annotation_file(script.data_dir, script.dataset_train_split)):
            for question in questions(annotation, [name]):
                asked = word_question(question, {annotation.video_id: annotation}, form)
                answer = word_answer(question, annotation, form)
                turns = (("user", f"{VIDEO_TOKEN}\n{asked}"), ("assistant", answer))
                yield {
                    "id": annotation.video_id,
                    "messages": [{"role": role, "content": text} for role, text in turns],
                }


def _with_videos(
    rows: Sequence[dict[str, Any]], script: ChatScriptArguments, videos: Mapping[str, Path], root: Path
) -> Dataset:
    """Return a dataset of rows whose videos exist."""
    if any(IMAGE_TOKEN in row["messages"][0]["content"] for row in rows):
        raise ValueError(f"{script.data_dir}: contains dialogues about images; chat models are trained on videos only")
    paths = [look_up(videos, row["id"]) or root / f"{row['id']}.mp4" for row in rows]
    kept = usable_rows(script, paths, [row["id"] for row in rows])
    return Dataset.from_list([rows[index] | {"video": str(paths[index])} for index in kept])


def _load_dataset(script: ChatScriptArguments) -> Dataset | IterableDataset:
    name, split = script.dataset_name, script.dataset_train_split
    path = Path(name)
    try:
        if path.is_file() and path.suffix in _FILES:
            options = {"data_files": str(path), "split": "train", "streaming": script.dataset_streaming}
            return datasets.load_dataset(_FILES[path.suffix], **options)
        if (path / "dataset_dict.json").is_file():
            return datasets.load_from_disk(name)[split]
        if (path / "state.json").is_file():
            return datasets.load_from_disk(name)
        return datasets.load_dataset(
            name, script.dataset_config, split=split, streaming=script.dataset_streaming, data_dir=script.data_dir
        )
    except (datasets.exceptions.DatasetGenerationError, KeyError, ConnectionError) as error:
        raise ValueError(f"{name}: cannot be loaded: {' '.join(str(error).split())[:200]}") from error


def usable_rows(script: ChatScriptArguments, videos: Sequence[Any], names: Sequence[str]) -> list[int]:
    """Return the indices of rows whose video exists and has a readable header, or that have no video.

    Args:
        script: `max_missing`.
        videos: source of the video of each row, or None.
        names: of the rows, for messages.

    Raises:
        ValueError: if more than `max_missing` of the rows have to be left out.
    """
    faults: dict[str, str | None] = {}
    kept, lost = [], []
    for index, (video, name) in enumerate(zip(videos, names, strict=True)):
        key = str(video) if isinstance(video, str | Path) else f"row {index}"
        if video is not None and key not in faults:
            faults[key] = _fault(video, name)
        if video is None or faults[key] is None:
            kept.append(index)
        else:
            lost.append(key)
    if lost:
        share = len(lost) / len(videos)
        first = faults[lost[0]]
        said = f"{len(lost)} of {len(videos)} rows ({share:.1%}) have a video that cannot be used, the first: {first}"
        if share > script.max_missing or not kept:
            raise ValueError(f"{said}; add the videos, or raise max_missing ({script.max_missing:.1%})")
        logger.warning("%s; they are left out", said)
    if not kept:
        raise ValueError(f"{script.dataset_name}: has no rows")
    return kept


def _fault(video: Any, name: str) -> str | None:
    """Return why a video cannot be used, by its header; None if it can."""
    try:
        if not probe(video).has_video:
            return f"{name}: the file has no picture"
    except (MediaError, FileNotFoundError) as error:
        return str(error)
    return None


class _Conversations:
    """Transform of rows of any dataset into `id`, `messages` and `video`."""

    def __init__(self, script: ChatScriptArguments) -> None:
        self.root, self.dataset = script.videos_dir, script.dataset_name

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        if "messages" not in batch:  # only some columns are accessed
            return {name: list(values) for name, values in batch.items()}
        columns = (self.name, self.messages, self.video)
        return {name: [of(row) for row in rows] for name, of in zip(("id", "messages", "video"), columns, strict=True)}

    def name(self, row: Mapping[str, Any]) -> str:
        """Return the id of a row, or of its video."""
        video = self.video(row)
        return str(row.get("id") or row.get("video_id") or (video if isinstance(video, str) else "?"))

    def messages(self, row: Mapping[str, Any]) -> list[dict[str, str]]:
        """Return the messages of a row, with texts as contents and `<video>` where the video is.

        Raises:
            ValueError: if a message has no role or text, or contains something else than text and a video.
        """
        found = row.get("messages")
        if not isinstance(found, list) or not found:
            raise ValueError(f"{self.dataset}: messages must be a list of role and content, not {str(found)[:60]!r}")
        messages = []
        for message in found:
            role, content = (message or {}).get("role"), (message or {}).get("content")
            if role not in ("system", "user", "assistant") or not isinstance(content, str | list):
                raise ValueError(f"{self.dataset}: not a message: {str(message)[:80]!r}")
            parts = [content] if isinstance(content, str) else [self._text(part) for part in content]
            messages.append({"role": role, "content": "\n".join(parts)})
        if messages[-1]["role"] != "assistant":
            raise ValueError(f"{self.dataset}: the last message must be the assistant's, not {messages[-1]['role']}'s")
        if sum(message["content"].count(VIDEO_TOKEN) for message in messages if message["role"] == "user") > 1:
            raise ValueError(f"{self.dataset}: a conversation has more than one {VIDEO_TOKEN}; one video is supported")
        return messages

    def _text(self, part: Mapping[str, Any]) -> str:
        kind = part.get("type")
        if kind == "text":
            return str(part.get("text") or "")
        if kind == "video":
            return VIDEO_TOKEN
        raise ValueError(f"{self.dataset}: content of type {kind!r} is not supported; expected text and one video")

    def video(self, row: Mapping[str, Any]) -> Any:
        """Return the source of the row's video: of `video`, `videos` or a message; None without one.

        Raises:
            ValueError: if the row has several videos.
        """
        found = row.get("video")
        several = row.get("videos") or []
        inside = [
            part.get("video") or part.get("path") or part.get("url")
            for message in row.get("messages") or []
            if isinstance(message.get("content"), list)
            for part in message["content"]
            if part.get("type") == "video"
        ]
        given = [video for video in ([found] if found is not None else [*several, *inside]) if video is not None]
        if len(given) > 1:
            raise ValueError(f"{self.dataset}: a row has {len(given)} videos; one is supported")
        video = given[0] if given else None
        if isinstance(video, str) and self.root is not None and "://" not in video:
            return str(Path(self.root, video))
        return video
