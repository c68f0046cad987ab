"""Files that the dataset is read from: the official names in a directory or on the Hub, and the media next to them."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from ..events import Annotation, Event, Modality, Seconds, check_video_id, load_annotations
from ..io import parse_json, parse_lines
from ..models.media_formats import VIDEO_SUFFIXES
from ..run_log import whole_lines
from ..system.names import printable

logger = logging.getLogger(__name__)

HUB_REPO = "ttgeng233/LongVALE"
HUB_REVISION = "18889b01886e30c36b0d1c650ac4439ad460ee73"

#: The official annotation file of each split.
ANNOTATION_FILES = {"train": "longvale-annotations-training.json", "test": "longvale-annotations-eval.json"}

#: Stems of the official dialogue file names; `-SIZE` may follow.
DIALOGUE_STEMS = {"boundary_perception": "longvale-sft-bp", "instruction": "longvale-sft-it"}

#: The sizes that are on the Hub.
HUB_SIZES = {"boundary_perception": ("7k", "154k"), "instruction": ("25k", "61k")}

#: One event per line with its modalities and relation; the events of a video in the order of its annotation. The
#: published data has no such file, the synthetic corpus does.
EVENTS_FILE = "events.jsonl"

#: Number of ignored files in a folder of videos that the warning names.
_NAMED = 3

_LINE_FIELDS = ("video_id", "start", "end", "modalities")

#: Times in both files come from the same number; this only allows for its formatting.
_SAME_TIME_S: Seconds = 1e-3


def absolute(path: str | os.PathLike) -> str:
    """Return the absolute path, `~` expanded: a cache key that does not depend on the working directory."""
    return str(Path(path).expanduser().resolve())


def annotation_files(data_dir: str | None) -> dict[str, str]:
    """Return the names of the annotation files by split, absolute or relative to [`folder_of`] the directory.

    Args:
        data_dir: a directory with official files, or with the output of one run of `longvale annotate`; one such file;
            None for the Hub. A file without an official name is the train split.

    Raises:
        FileNotFoundError: if the directory does not exist or contains none of the files; the message names them.
        ValueError: if it contains no official file but the outputs of several runs of `longvale annotate`.
    """
    if data_dir is None:
        return dict(ANNOTATION_FILES)
    if os.path.isfile(data_dir):
        splits = {name: split for split, name in ANNOTATION_FILES.items()}
        return {splits.get(Path(data_dir).name, "train"): absolute(data_dir)}
    present = set(os.listdir(_check_directory(data_dir)))
    found = {split: name for split, name in ANNOTATION_FILES.items() if name in present}
    annotated = sorted(name for name in present if name.endswith(".json") and _provenance(name) in present)
    if not found and len(annotated) > 1:
        raise ValueError(f"{data_dir}: contains {', '.join(annotated)}; give one of these files")
    if not found and not annotated:
        names = " nor ".join(ANNOTATION_FILES.values())
        raise FileNotFoundError(f"{data_dir}: holds neither {names}, nor an output of `longvale annotate`")
    return found or {"train": annotated[0]}


def annotation_file(data_dir: str | os.PathLike, split: str) -> Path:
    """Return the path of a split's annotations; a file without an official name serves any split.

    Raises:
        FileNotFoundError: if the directory does not exist, or contains no annotations of the split.
        ValueError: as in [`annotation_files`].
    """
    files = annotation_files(str(data_dir))
    named = any(Path(name).name in ANNOTATION_FILES.values() for name in files.values())
    if named and split not in files:
        raise FileNotFoundError(f"{Path(folder_of(data_dir), ANNOTATION_FILES[split])}: no such file")
    return Path(folder_of(data_dir), files[split] if named else next(iter(files.values())))


def folder_of(data_dir: str | os.PathLike) -> Path:
    """Return the directory itself, or the parent directory of a file."""
    return Path(data_dir).parent if os.path.isfile(data_dir) else Path(data_dir)


def _provenance(name: str) -> str:
    """Return the name of the provenance file that `longvale annotate` writes next to its output."""
    return str(Path(name).with_suffix(".provenance.json"))


def stage_events(name: str | os.PathLike) -> Path:
    """Return the path of the events with modalities and relations that `longvale annotate` keeps next to its output.

    Example:
        >>> stage_events("out/mine.json").as_posix()
        'out/mine.stages/events.jsonl'
    """
    return Path(name).with_suffix(".stages") / EVENTS_FILE


def dialogue_file(data_dir: str | None, stage: str, size: str | None = None) -> str:
    """Return the name of a stage's dialogue file.

    Args:
        data_dir: the directory, or None for the Hub.
        stage: `boundary_perception` or `instruction`.
        size: suffix of the name, for example "7k"; "" for the file without a size. None takes the only file there is.

    Raises:
        FileNotFoundError: if the directory does not exist or contains no such file; the message names it.
        ValueError: if `size` is None and there are several; the message names them.
    """
    place = data_dir or f"{HUB_REPO} on the Hub"
    names = dialogue_files(data_dir, stage)
    if size is None and len(names) > 1:
        raise ValueError(
            f"{place}: holds {', '.join(names.values())}; choose one with "
            f"size={' or '.join(repr(known) for known in names)}"
        )
    if not names or (size is not None and size not in names):
        wanted = dialogue_file_name(stage, size or "")
        raise FileNotFoundError(f"{place}: holds no {wanted}; there is {', '.join(names.values()) or 'no other size'}")
    return next(iter(names.values())) if size is None else names[size]


def dialogue_files(data_dir: str | None, stage: str) -> dict[str, str]:
    """Return the names of a stage's dialogue files by size, "" for the one without a size.

    Args:
        data_dir: the directory, or None for the Hub.
        stage: `boundary_perception` or `instruction`.

    Raises:
        FileNotFoundError: if the directory does not exist.
    """
    if data_dir is None:
        return {size: dialogue_file_name(stage, size) for size in HUB_SIZES[stage]}
    pattern = re.compile(rf"{re.escape(DIALOGUE_STEMS[stage])}(?:-([\w.]+))?\.json")
    matches = (pattern.fullmatch(name) for name in sorted(os.listdir(_check_directory(folder_of(data_dir)))))
    return {match[1] or "": match[0] for match in matches if match}


def dialogue_file_name(stage: str, size: str) -> str:
    """Return the official name of a dialogue file.

    Example:
        >>> dialogue_file_name("boundary_perception", "7k"), dialogue_file_name("instruction", "")
        ('longvale-sft-bp-7k.json', 'longvale-sft-it.json')
    """
    return f"{DIALOGUE_STEMS[stage]}{'-' if size else ''}{size}.json"


def fetch(data_dir: str | None, name: str, token: str | bool | None = None) -> Path:
    """Return the path of a file in the directory, or of the Hub's file in the local cache, downloaded if missing.

    Args:
        data_dir: the directory, or None for the pinned revision of the published dataset.
        name: of the file.
        token: Hub token.

    Raises:
        FileNotFoundError: if it cannot be downloaded from the Hub.
    """
    if data_dir is not None:
        return Path(folder_of(data_dir), name)
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled

    try:
        path = huggingface_hub.hf_hub_download(HUB_REPO, name, repo_type="dataset", revision=HUB_REVISION, token=token)
    except (EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled) as error:
        reason = " ".join(str(error).split())
        raise FileNotFoundError(
            f"{name}: cannot be had from {HUB_REPO} on the Hub; pass data_dir= with a directory that has it ({reason})"
        ) from error
    return Path(path)


def load_videos(path: str | os.PathLike) -> list[Annotation]:
    """Read the annotations of a file, with the modalities and relation of their events where known.

    They are known from the stages of `longvale annotate`, or from an `events.jsonl` next to the file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if an entry is invalid; the message names file and place.
    """
    annotations = load_annotations(path).values()
    if (stages := stage_events(path)).is_file():
        records = load_stage_events(stages)
        return [with_records(annotation, records) for annotation in annotations]
    events_path = Path(path).with_name(EVENTS_FILE)
    if not events_path.is_file():
        return list(annotations)
    lines = load_event_lines(events_path)
    return [with_lines(a, lines[a.video_id], events_path) if a.video_id in lines else a for a in annotations]


def index_videos(videos_dir: str | os.PathLike) -> dict[str, Path]:
    """Return the video files of a directory by video id (the name without suffix); subfolders are not searched.

    Files whose suffix is not in `VIDEO_SUFFIXES` are ignored; one warning counts them.

    Raises:
        FileNotFoundError: if the directory does not exist.
        ValueError: if two files have the same id.
    """
    videos: dict[str, Path] = {}
    others: list[str] = []
    for path in sorted(_check_directory(videos_dir).iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            others.append(path.name)
            continue
        if path.stem in videos:
            raise ValueError(f"{path}: video id {path.stem!r} has a second file, {videos[path.stem].name}; keep one")
        videos[path.stem] = path
    if others:
        _warn_once(str(videos_dir), len(others), ", ".join(others[:_NAMED]) + (", ..." if others[_NAMED:] else ""))
    return videos


@lru_cache(maxsize=256)
def _warn_once(folder: str, count: int, names: str) -> None:
    logger.warning("%s: %d passed over that are not videos by their names: %s", folder, count, printable(names))


def digest_files(data_dir: str | None, names: Iterable[str]) -> str:
    """Return a digest of the content of the files that exist; of the Hub's revision if the directory is None."""
    digest = hashlib.sha256(f"{HUB_REPO}@{HUB_REVISION}".encode() if data_dir is None else b"")
    for name in names:
        digest.update(f"\0{name}\0".encode())
        path = None if data_dir is None else Path(folder_of(data_dir), name)
        if path is not None and path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def digest_listing(paths: Mapping[str, Path]) -> str:
    """Return a digest that changes when a file is added, removed or rewritten (name, size and time, not content)."""
    digest = hashlib.sha256()
    for path in paths.values():
        try:
            stat = path.stat()
        except FileNotFoundError:  # a broken link; the rows report it as missing
            continue
        digest.update(f"{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _check_directory(path: str | os.PathLike) -> Path:
    if not os.path.isdir(path):
        raise FileNotFoundError(f"{path}: no such directory")
    return Path(path)


def load_event_lines(path: Path) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """Read the numbered lines of an `events.jsonl` by video id, in the order of the file.

    Raises:
        ValueError: if a line is invalid; the message names file, line and field.
    """
    lines: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    with path.open("rb") as file:
        for number, value in parse_lines(path, file, _parse_event_line):
            lines.setdefault(value["video_id"], []).append((number, value))
    return lines


def _parse_event_line(line: bytes) -> dict[str, Any]:
    value = parse_json(line)
    missing = [name for name in _LINE_FIELDS if not isinstance(value, dict) or name not in value]
    if missing:
        raise ValueError(f"field '{missing[0]}' is missing")
    check_video_id(value["video_id"])
    return value


def with_lines(annotation: Annotation, lines: list[tuple[int, dict[str, Any]]], path: Path) -> Annotation:
    """Return the annotation with modalities and relations from the lines of [`load_event_lines`], one line per event.

    Raises:
        ValueError: if there are more or fewer lines than events, or a line does not match the event at its index.
    """
    if len(lines) != len(annotation.events):
        raise ValueError(
            f"{path}: video {annotation.video_id!r} has {len(lines)} events, but its annotation "
            f"{len(annotation.events)}; give the file that was written with the annotations"
        )
    events = tuple(_with_line(event, *line, path) for event, line in zip(annotation.events, lines, strict=True))
    return replace(annotation, events=events)


#: Modalities and relation by video id, start and end.
StageFacts: TypeAlias = Mapping[tuple[str, Seconds, Seconds], tuple[tuple[Modality, ...], str | None]]


def load_stage_events(path: Path) -> StageFacts:
    """Read the modalities and relations that `longvale annotate` keeps for its events.

    Args:
        path: see [`stage_events`]; an incomplete last line (still being written) is ignored.

    Raises:
        ValueError: if a line is invalid; the message names file, line and field.
    """
    lines = whole_lines(path.read_bytes()).splitlines()
    return dict(fact for _, fact in parse_lines(path, lines, _parse_stage_event))


def _parse_stage_event(line: bytes) -> tuple[tuple[str, Seconds, Seconds], tuple[tuple[Modality, ...], str | None]]:
    value = _parse_event_line(line)
    event = _event_of(value, "")
    return (value["video_id"], event.start, event.end), (event.modalities, event.relation)


def _event_of(line: Mapping[str, Any], caption: str) -> Event:
    if not isinstance(line["modalities"], list):
        raise ValueError(f"field 'modalities' must be a list, not {line['modalities']!r}")
    return Event(line["start"], line["end"], caption, tuple(line["modalities"]), line.get("relation"))


def with_records(annotation: Annotation, facts: StageFacts) -> Annotation:
    """Return the annotation with modalities and relations from the stages; events added or moved by a person have none.

    Example:
        >>> video = Annotation("a", 9.0, (Event(0, 4, "A bell rings."), Event(5, 9, "A dog barks.")))
        >>> facts = {("a", 0, 4): (("audio",), "audio-only")}
        >>> [event.relation for event in with_records(video, facts).events]
        ['audio-only', None]
    """
    events = []
    for event in annotation.events:
        modalities, relation = facts.get((annotation.video_id, event.start, event.end), ((), None))
        events.append(replace(event, modalities=modalities, relation=relation))
    return replace(annotation, events=tuple(events))


def _with_line(event: Event, number: int, line: Mapping[str, Any], path: Path) -> Event:
    try:
        recorded = _event_of(line, event.caption)
    except ValueError as error:
        raise ValueError(f"{path}: line {number}: {error}") from None
    if max(abs(recorded.start - event.start), abs(recorded.end - event.end)) > _SAME_TIME_S:
        raise ValueError(
            f"{path}: line {number}: event of video {line['video_id']!r} is at {recorded.start}-{recorded.end} s, "
            f"but at {event.start}-{event.end} s in its annotation; give the file that was written with it"
        )
    return replace(event, modalities=recorded.modalities, relation=recorded.relation)
