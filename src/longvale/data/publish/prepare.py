"""The scriptless form of the dataset: Parquet that plain `datasets.load_dataset` and the Hub's viewer read, and back.

A folder contains `<configuration>/<split>-00000-of-0000N.parquet`, a `README.md` with the configurations, `SHA256SUMS`,
and `problems.jsonl` if there were problems. The configurations have the columns of [`longvale.data.builder`]. `videos`
and the dialogues also have what is needed to write the official files again with the same values: a row that its
columns cannot reproduce (it has additional fields, for example) is stored as JSON in the column `original`, which is
None for all other rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import datasets
from datasets import List, Value
from tqdm import tqdm

from ...events import Annotation
from ...hub import CARD_FILE, card_template, write_card
from ...io import atomic_folder, atomic_write, load_json, parse_json
from ...system.checksums import CHECKSUMS_FILE, changed_files, read_checksums, write_checksums
from ...tasks import TASKS
from ..builder import COLUMNS
from ..rows import event_rows, rows
from ..sources import (
    ANNOTATION_FILES,
    DIALOGUE_STEMS,
    EVENTS_FILE,
    annotation_files,
    dialogue_file_name,
    dialogue_files,
    folder_of,
    load_event_lines,
    load_stage_events,
    stage_events,
    with_lines,
    with_records,
)
from .card import fill_metadata
from .shards import Written, read_shards, storable, write_shards
from .validate import CheckedVideo, Problem, check_training_dialogue, check_video, fits_columns

PROBLEMS_FILE = "problems.jsonl"

#: Treatment of invalid rows: write nothing, leave them out, or keep them where a table can hold them.
Invalid: TypeAlias = Literal["stop", "drop", "keep"]

_ORIGINAL = {"original": Value("string")}
_TURNS = {
    "conversations": List({"from": Value("string"), "value": Value("string")}),
    "tokens": List({"token": Value("string"), "time": Value("float64")}),
}


def columns(name: str) -> dict[str, Any]:
    """Return the columns of a configuration in the scriptless form: the builder's, and those that [`restore`] needs.

    Args:
        name: for example "events", or "boundary_perception_7k" for dialogues in several sizes.
    """
    stage = _stage(name)
    if stage is not None:
        return {**COLUMNS[stage], **_TURNS, **_ORIGINAL}
    return COLUMNS[name] | (_ORIGINAL if name == "videos" else {})


@dataclass
class Prepared:
    """Result of [`prepare`].

    Args:
        written: amount of data written, by configuration and split.
        problems: all problems of the official files.
    """

    written: dict[str, dict[str, Written]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def prepare(
    official_dir: str | os.PathLike,
    output: str | os.PathLike,
    *,
    invalid: Invalid = "stop",
    max_shard_size: str = "500MB",
    card: str | os.PathLike | None = None,
    progress: bool = True,
) -> Prepared:
    """Write the scriptless form of official files.

    Args:
        official_dir: folder with at least one annotation file, or one such file, including output of
            `longvale annotate`. Dialogue files, an `events.jsonl`, and modalities and relations known from annotation
            are included.
        output: folder to write, which must not exist. It is written completely or not at all.
        invalid: "stop" if anything is invalid; "drop" invalid events, videos and dialogues; or "keep" them where
            columns can hold them. Questions are made only of valid events.
        max_shard_size: of a file before compression, in the notation of `datasets`: "500MB".
        card: a `README.md` to use instead of LongVALE's; its YAML is completed.
        progress: show progress bars.

    Returns:
        What was written, and the problems.

    Raises:
        FileExistsError: if `output` exists.
        FileNotFoundError: if the annotation files are missing.
        ValueError: if a file is not JSON or not in the official format (the message names it), or an option is invalid.
        InvalidData: if anything is invalid and `invalid` is "stop".
    """
    from datasets.utils.py_utils import convert_file_size_to_int

    if invalid not in get_args(Invalid):
        raise ValueError(f"invalid must be one of {', '.join(get_args(Invalid))}, not {invalid!r}")
    max_bytes = convert_file_size_to_int(max_shard_size)
    result = Prepared()
    videos = _read_videos(Path(official_dir), result.problems)
    dialogues = _read_dialogues(Path(official_dir), _ids(videos.get("test", ())), invalid, result.problems)
    if result.problems and invalid == "stop":
        raise InvalidData(result.problems)
    with atomic_folder(output) as folder:

        def write(name: str, split: str, rows: Iterator[dict[str, Any]]) -> None:
            (folder / name).mkdir(exist_ok=True)
            written = write_shards(folder / name, split, rows, datasets.Features(columns(name)), max_bytes)
            result.written.setdefault(name, {})[split] = written

        for name in ("events", "videos", *TASKS):
            for split, checked in videos.items():
                bar = tqdm(_chosen(checked, invalid), desc=f"{name}/{split}", unit=" videos", disable=not progress)
                write(name, split, (row for video in bar for row in _video_rows(name, video, invalid == "keep")))
        for name, chosen in dialogues.items():
            write(name, "train", map(_dialogue_row, tqdm(chosen, desc=name, unit=" dialogues", disable=not progress)))
        if result.problems:
            _write_problems(result.problems, invalid, folder / PROBLEMS_FILE)
        template = card_template("dataset_card") if card is None else Path(card)
        write_card(folder / CARD_FILE, template, fill=lambda data: fill_metadata(data, result.written, columns))
        write_checksums(folder)
    return result


class InvalidData(ValueError):
    """Official files are invalid; `problems` lists all problems."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        rest = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{rest}; or choose to drop or to keep what is wrong")


def check_prepared(folder: str | os.PathLike) -> list[str]:
    """Compare a folder that [`prepare`] wrote with its checksums.

    Returns:
        Names of the files in the checksum list.

    Raises:
        FileNotFoundError: if the folder or the list is missing.
        ValueError: naming the first file that is missing, changed or not in the list.
    """
    if not Path(folder, CHECKSUMS_FILE).is_file():
        raise FileNotFoundError(
            f"{Path(folder, CHECKSUMS_FILE)}: no such file; `longvale data prepare` writes such a folder"
        )
    for line in changed_files(folder):
        raise ValueError(f"{line}; prepare the data again")
    return sorted(read_checksums(folder))


def restore(folder: str | os.PathLike, output: str | os.PathLike) -> list[Path]:
    """Write official files from the scriptless form, with the values of the original files.

    Args:
        folder: that [`prepare`] wrote; its checksums are verified first.
        output: folder to write, which must not exist. It is written completely or not at all.

    Returns:
        The paths of the files: annotations and dialogues, and an `events.jsonl` if modalities are known.

    Raises:
        FileExistsError: if `output` exists.
        FileNotFoundError: if the folder has no checksums.
        ValueError: if a file has changed or cannot be read; the message names it.
    """
    folder, output = Path(folder), Path(output)
    parts = [name.split("/") for name in check_prepared(folder)]
    tables = sorted({(name, file.partition("-")[0]) for name, file in (p for p in parts if len(p) == 2)})
    with atomic_folder(output) as target:
        lines: list[dict[str, Any]] = []
        for name, split in tables:
            stage = _stage(name)
            if stage is not None:
                official: Any = [_official_dialogue(row) for row in read_shards(folder / name, split, columns(name))]
                file = dialogue_file_name(stage, name.removeprefix(stage).removeprefix("_"))
            elif name == "videos" and split in ANNOTATION_FILES:
                videos = list(read_shards(folder / name, split, columns(name)))
                official = {row["video_id"]: _official_video(row) for row in videos}
                lines += [line for row in videos for line in _event_lines(row)]
                file = ANNOTATION_FILES[split]
            else:
                continue
            with atomic_write(target / file) as opened:
                json.dump(official, opened, ensure_ascii=False)
        if lines:
            with atomic_write(target / EVENTS_FILE) as opened:
                opened.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return sorted(output.iterdir())


def _stage(name: str) -> str | None:
    """Return the stage whose dialogues a configuration contains, or None."""
    return next((stage for stage in DIALOGUE_STEMS if name == stage or name.startswith(f"{stage}_")), None)


def _ids(videos: Sequence[CheckedVideo]) -> set[str]:
    return {video.video_id for video in videos}


def _read_videos(folder: Path, problems: list[Problem]) -> dict[str, list[CheckedVideo]]:
    """Read the videos of each split, with modalities where an `events.jsonl` or the annotation stages have them."""
    events_path = folder_of(folder) / EVENTS_FILE
    lines = load_event_lines(events_path) if events_path.is_file() else {}
    splits: dict[str, list[CheckedVideo]] = {}
    # The test split first: its videos must not be in the training split.
    for split, file in sorted(annotation_files(str(folder)).items(), key=lambda item: item[0] != "test"):
        path = folder_of(folder) / file
        values = load_json(path)
        if not isinstance(values, dict) or not values:
            raise ValueError(f"{path}: must be an object {{video_id: annotation}} that is not empty")
        test_ids = _ids(splits.get("test", ()))
        videos = [check_video(video_id, value, path.name, test_ids) for video_id, value in values.items()]
        problems += [problem for video in videos for problem in video.problems]
        if (stages := stage_events(path)).is_file():
            splits[split] = _with_stages(videos, stages)
        else:
            splits[split] = [_with_modalities(video, lines.get(video.video_id), events_path) for video in videos]
    return {split: splits[split] for split in ANNOTATION_FILES if split in splits}


def _with_stages(videos: Sequence[CheckedVideo], path: Path) -> list[CheckedVideo]:
    facts = load_stage_events(path)
    return [
        video if video.annotation is None else replace(video, annotation=with_records(video.annotation, facts))
        for video in videos
    ]


def _with_modalities(video: CheckedVideo, lines: Any, path: Path) -> CheckedVideo:
    if video.annotation is None or lines is None:
        return video
    if len(lines) == len(video.value["timestamps"]):
        lines = [lines[place] for place in video.places]
    return replace(video, annotation=with_lines(video.annotation, lines, path))


def _read_dialogues(
    folder: Path, test_ids: Collection[str], invalid: Invalid, problems: list[Problem]
) -> dict[str, list[dict[str, Any]]]:
    """Read the dialogues to write, by configuration."""
    chosen: dict[str, list[dict[str, Any]]] = {}
    for stage in DIALOGUE_STEMS:
        for size, file in dialogue_files(str(folder), stage).items():
            path = folder_of(folder) / file
            dialogues = load_json(path)
            if not isinstance(dialogues, list) or not dialogues:
                raise ValueError(f"{path}: must be a list of dialogues that is not empty")
            found = [check_training_dialogue(index, d, file, test_ids) for index, d in enumerate(dialogues)]
            problems += [problem for problem in found if problem]
            chosen[f"{stage}{'_' if size else ''}{size}"] = [
                dialogue
                for dialogue, problem in zip(dialogues, found, strict=True)
                if problem is None or (problem.keepable and invalid == "keep")
            ]
    return chosen


def _chosen(videos: Sequence[CheckedVideo], invalid: Invalid) -> list[CheckedVideo]:
    return [video for video in videos if not (video.in_test and invalid == "drop")]


def _video_rows(name: str, video: CheckedVideo, keep: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of a video in a configuration; if invalid events are kept, events keep their index in the file."""
    annotation = video.annotation
    if annotation is None:  # the whole video is invalid
        return
    if name in TASKS:
        for row in rows(name, annotation):
            yield _renumber(row, video.places) if keep else row
        return
    events = _kept_events(video, annotation) if keep else event_rows(annotation)
    if name == "events":
        for event in events:
            yield {"video_id": video.video_id, **event, "duration": annotation.duration}
        return
    row = storable({"video_id": video.video_id, "duration": annotation.duration, "events": events})
    official = _official_value(video, events)
    yield row | {"original": None if _official_video({**row, "original": None}) == official else json.dumps(official)}


def _kept_events(video: CheckedVideo, annotation: Annotation) -> list[dict[str, Any]]:
    """Return the events of the file, valid or not, that columns can hold."""
    right = dict(zip(video.places, event_rows(annotation), strict=True))
    events = []
    for index, (times, caption) in enumerate(zip(video.value["timestamps"], video.value["sentences"], strict=True)):
        if index in right:
            events.append(right[index] | {"event_id": index})
        elif fits_columns(times, caption):
            facts = {"caption": caption, "modalities": None, "relation": None}
            events.append({"event_id": index, "start": times[0], "end": times[1], **facts})
    return events


def _renumber(row: dict[str, Any], places: Sequence[int]) -> dict[str, Any]:
    if "events" in row:
        return row | {"events": [event | {"event_id": places[event["event_id"]]} for event in row["events"]]}
    return row | {"sentence_id": places[row["sentence_id"]]}


def _official_value(video: CheckedVideo, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the video's value in the official file, with these events only."""
    timestamps = [[event["start"], event["end"]] for event in events]
    return {**video.value, "timestamps": timestamps, "sentences": [event["caption"] for event in events]}


def _official_video(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the official file's value for a row of `videos`."""
    if row["original"] is not None:
        return parse_json(row["original"])
    return {
        "duration": row["duration"],
        "timestamps": [[event["start"], event["end"]] for event in row["events"]],
        "sentences": [event["caption"] for event in row["events"]],
    }


def _event_lines(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the lines of `events.jsonl` for a video; none if no event has known modalities."""
    if not any(event["modalities"] for event in row["events"]):
        return []
    names = ("start", "end", "caption", "relation")
    return [
        {"video_id": row["video_id"], **{name: event[name] for name in names}, "modalities": event["modalities"] or []}
        for event in row["events"]
    ]


def _dialogue_row(dialogue: Mapping[str, Any]) -> dict[str, Any]:
    (row,) = rows("instruction", dialogue)
    tokens = (dialogue.get("meta") or {}).get("token", {})
    row["conversations"] = [{"from": turn["from"], "value": turn["value"]} for turn in dialogue["conversations"]]
    row["tokens"] = [{"token": token, "time": time} for token, time in tokens.items()]
    row = storable(row)
    same = _official_dialogue({**row, "original": None}) == dialogue
    return row | {"original": None if same else json.dumps(dialogue)}


def _official_dialogue(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the official file's dialogue for a row."""
    if row["original"] is not None:
        return parse_json(row["original"])
    dialogue: dict[str, Any] = {"id": row["id"]}
    if row["source"] is not None:
        dialogue["source"] = row["source"]
    dialogue["conversations"] = row["conversations"]
    if row["duration"] is not None:
        split = {} if row["split"] is None else {"split": row["split"]}
        token = {item["token"]: item["time"] for item in row["tokens"]}
        dialogue["meta"] = {"duration": row["duration"], **split, "token": token}
    return dialogue


def _write_problems(problems: Sequence[Problem], invalid: Invalid, path: Path) -> None:
    with atomic_write(path) as file:
        for problem in problems:
            fate = "kept" if invalid == "keep" and problem.keepable else "dropped"
            line = {"file": problem.file, "place": problem.place, "problem": problem.message, "row": fate}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
