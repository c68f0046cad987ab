"""Events and annotations: what the benchmark says happens in a video, and when.

The file format is the one that LongVALE published
(``longvale-annotations-{training,eval}.json`` of ``ttgeng233/LongVALE`` on the Hub)::

    {video_id: {"duration": s, "timestamps": [[s, e], ...], "sentences": [...]}}
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, TypeGuard, get_args

from .locks import hold, is_in_use, marked_in_use
from .names import temporary_prefix

Seconds: TypeAlias = float
Modality: TypeAlias = Literal["visual", "audio", "speech"]

MODALITIES: tuple[Modality, ...] = get_args(Modality)

#: The audio-visual correlation types of the paper (figure 3), most frequent first.
RELATIONS = (
    "complementary",
    "synchronicity",
    "enhancement",
    "scene-aware",
    "temporal association",
    "causality",
    "visual-only",
    "corrective",
    "audio-only",
)

#: Levels of JSON: enough for any file of ours, few enough for whatever walks through it.
_MAX_DEPTH = 200

#: What `open` does with half a character, which JSON may hold and UTF-8 may not: write it as JSON does, `\ud83d`.
LONE_SURROGATES = "backslashreplace"

#: An event may end this much after the video's duration: published durations are rounded, boundaries are not.
DURATION_TOLERANCE_S: Seconds = 0.5


@dataclass(frozen=True)
class Event:
    """One row of the benchmark: something that happens from `start` to `end`, and its caption.

    Args:
        start: begin of the event in seconds from the begin of the video.
        end: end of the event in seconds, after `start`.
        caption: one sentence or more; may hold any characters.
        modalities: the modalities in which the event can be perceived, in the order visual, audio, speech. Empty when
            not known, as in the published files.
        relation: how its modalities belong together, one of [`RELATIONS`], or None when not known.

    Raises:
        ValueError: if a time is not a finite number, is negative, or the event does not end after it starts; if a
            modality or the relation is not a known one.

    Example:
        >>> Event(4.7, 39.6, "A man speaks while a car passes.").length
        34.9
    """

    start: Seconds
    end: Seconds
    caption: str
    modalities: tuple[Modality, ...] = ()
    relation: str | None = None

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            _check_seconds(getattr(self, name), name)
        if self.end <= self.start:
            raise ValueError(
                f"ends ({self.end} s) before it starts ({self.start} s)"
                if self.end < self.start
                else f"has no length: it starts and ends at {self.start} s"
            )
        if not isinstance(self.caption, str):
            raise ValueError(f"caption must be a text, not {self.caption!r}")
        object.__setattr__(self, "modalities", tuple(self.modalities))
        if self.modalities != tuple(m for m in MODALITIES if m in self.modalities):
            raise ValueError(f"modalities must be among {MODALITIES}, each once and in this order: {self.modalities}")
        if self.relation is not None and self.relation not in RELATIONS:
            raise ValueError(f"relation {self.relation!r} is not one of {', '.join(RELATIONS)}")

    @property
    def length(self) -> Seconds:
        """Seconds from start to end."""
        return self.end - self.start


@dataclass(frozen=True)
class Annotation:
    """A video's id, its duration and its events, in the order of the file.

    Args:
        video_id: name of the video, without folder and suffix.
        duration: length of the video in seconds, above 0.
        events: what happens in it; may be empty.
        extra: further fields of the file, kept as they are.

    Raises:
        ValueError: if the id is empty or could leave a folder, the duration is not above 0, or an event ends more than
            [`DURATION_TOLERANCE_S`] after it.

    Example:
        >>> Annotation("abc", 60.0, (Event(0, 12.5, "A dog barks."),)).to_official()
        {'duration': 60.0, 'timestamps': [[0, 12.5]], 'sentences': ['A dog barks.']}
    """

    video_id: str
    duration: Seconds
    events: tuple[Event, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_video_id(self.video_id)
        _check_seconds(self.duration, "duration")
        if self.duration <= 0:
            raise ValueError(f"duration must be above 0 s, not {self.duration}")
        object.__setattr__(self, "events", tuple(self.events))
        for index, event in enumerate(self.events):
            if event.end > self.duration + DURATION_TOLERANCE_S:
                raise ValueError(
                    f"event {index} ends at {event.end} s, after the video's duration of {self.duration} s; "
                    "correct its end or the duration"
                )

    @classmethod
    def from_official(cls, video_id: str, value: Mapping[str, Any]) -> Annotation:
        """Read one value of the official JSON.

        Args:
            video_id: the key that `value` stands under.
            value: `{"duration": s, "timestamps": [[s, e], ...], "sentences": [...]}`; other fields are kept in `extra`.

        Raises:
            ValueError: if a field is missing or of another form, naming it; and whatever the dataclasses refuse.
        """
        if not isinstance(value, Mapping):
            raise ValueError(f"must be an object with duration, timestamps and sentences, not {_short(value)}")
        missing = [name for name in ("duration", "timestamps", "sentences") if name not in value]
        if missing:
            raise ValueError(f"field '{missing[0]}' is missing")
        timestamps, sentences = value["timestamps"], value["sentences"]
        for name, items in (("timestamps", timestamps), ("sentences", sentences)):
            if not isinstance(items, list | tuple):
                raise ValueError(f"field '{name}' must be a list, not {_short(items)}")
        if len(timestamps) != len(sentences):
            raise ValueError(
                f"{len(timestamps)} timestamps but {len(sentences)} sentences; each event needs one of both"
            )
        events = []
        for index, (times, caption) in enumerate(zip(timestamps, sentences, strict=True)):
            if not isinstance(times, list | tuple) or len(times) != 2:
                raise ValueError(f"event {index}: timestamps must be [start, end] in seconds, not {_short(times)}")
            try:
                events.append(Event(times[0], times[1], caption))
            except ValueError as error:
                raise ValueError(f"event {index} {error}") from None
        extra = {k: v for k, v in value.items() if k not in ("duration", "timestamps", "sentences")}
        return cls(video_id, value["duration"], tuple(events), extra)

    def to_official(self) -> dict[str, Any]:
        """The value that stands under `video_id` in the official JSON; numbers are returned as they were read."""
        return {
            "duration": self.duration,
            "timestamps": [[event.start, event.end] for event in self.events],
            "sentences": [event.caption for event in self.events],
            **self.extra,
        }


def load_annotations(path: str | os.PathLike) -> dict[str, Annotation]:
    """Read a file of annotations in the official JSON format.

    Args:
        path: for instance `longvale-annotations-eval.json`.

    Returns:
        Annotations by video id, in the order of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not JSON, empty, names a video twice, or an annotation is refused; the message names file,
            video, event and value.
    """
    path = Path(path)
    values = load_json(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must be an object {{video_id: annotation}}, not {_short(values)}")
    if not values:
        raise ValueError(f"{path}: holds no annotation; expected {{video_id: {{duration, timestamps, sentences}}}}")
    annotations = {}
    for video_id, value in values.items():
        try:
            annotations[video_id] = Annotation.from_official(video_id, value)
        except ValueError as error:
            raise ValueError(f"{path}: video {video_id!r}: {error}") from None
    return annotations


def save_annotations(annotations: Mapping[str, Annotation], path: str | os.PathLike) -> None:
    """Write annotations as official JSON; the file appears whole or not at all.

    Args:
        annotations: by video id.
        path: file to write; its folder is made where needed.
    """
    with atomic_write(path) as file:
        json.dump({key: value.to_official() for key, value in annotations.items()}, file, ensure_ascii=False)


def load_json(path: str | os.PathLike) -> Any:
    """Read a JSON file strictly: no repeated keys, no NaN or infinity.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file and the place where it stops being JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    text = path.read_bytes()
    if not text.strip():
        raise ValueError(f"{path}: the file is empty")
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_json(text: str | bytes) -> Any:
    """Parse strict JSON: `ValueError` on repeated keys, NaN, infinity, wrong UTF-8, deep nesting and broken syntax.

    A byte order mark in front, as editors on Windows write it, is passed over.
    """

    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            repeated = next(key for key, count in counts.items() if count > 1)
            raise ValueError(f"{repeated!r} appears twice; keep one of them")
        return result

    def no_constant(name: str) -> None:
        raise ValueError(f"{name} is not a number; give a finite value")

    if isinstance(text, str):
        text = text.removeprefix("\ufeff")  # of bytes `json` does so itself
    try:
        value = json.loads(text, object_pairs_hook=no_repeats, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text: {error}") from None
    except RecursionError:
        raise ValueError("not readable: nested too deeply") from None
    opened = text.count(b"[") + text.count(b"{") if isinstance(text, bytes) else text.count("[") + text.count("{")
    if opened > _MAX_DEPTH and _is_deeper(value, _MAX_DEPTH):
        raise ValueError("not readable: nested too deeply")
    return value


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested more than so many levels; without recursion."""
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(depth):
        inner = (item.values() if isinstance(item, dict) else item for item in level)
        level = [child for children in inner for child in children if isinstance(child, list | dict)]
        if not level:
            return False
    return True


#: Errors of writing that the system reports without the name of the file: a full disk, a quota, a limit of sizes.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def named_when_full(path: str | os.PathLike) -> Iterator[None]:
    """Put a file's name into the error that ends the block when a disk is full, which the system reports without one.

    Args:
        path: of the file, or of the folder, that the block writes.

    Example:
        >>> with named_when_full("out.json"):
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
            ...
        OSError: [Errno 28] No space left on device: 'out.json'
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL and error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Open a temporary neighbour of `path` and rename it over `path` when the block ends without an error.

    Temporary files of the same target that killed processes have left are removed.

    Args:
        path: the file to write. Until the end it stays as it was. Its folder is made where needed.
        mode: "w" for UTF-8 text (see [`LONE_SURROGATES`]), "wb" for bytes.

    Example:
        >>> import tempfile, pathlib
        >>> target = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
        >>> with atomic_write(target) as file:
        ...     _ = file.write("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in _left_over(path.name, _unfinished_files(os.path.abspath(path.parent)), ".tmp"):
        if not is_in_use(path.with_name(left)):
            path.with_name(left).unlink(missing_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=temporary_prefix(path.name), suffix=".tmp")
    try:
        with marked_in_use(handle):
            # mkstemp gives 0600: restore what a plain open() would have given.
            os.fchmod(handle, 0o666 & ~_umask())
            text = "b" not in mode
            encoding, errors = ("utf-8", LONE_SURROGATES) if text else (None, None)
            with named_when_full(path), open(handle, mode, encoding=encoding, errors=errors) as file:
                yield file
            os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@lru_cache(maxsize=256)
def _unfinished_files(folder: str) -> tuple[str, ...]:
    """Temporary files that were in a folder when this process first wrote there; a store of features has thousands."""
    with os.scandir(folder) as entries:
        return tuple(entry.name for entry in entries if entry.name.endswith(".tmp"))


def _left_over(name: str, found: Iterable[str], suffix: str) -> list[str]:
    """Those of the names that are of unfinished work on `name`: of `a.json`, not of `a.json.gz`."""
    pattern = re.compile(re.escape(temporary_prefix(name)) + r"[a-z0-9_]+" + re.escape(suffix))
    return [other for other in found if pattern.fullmatch(other)]


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A folder to write into that takes its name when the block ends without an error, and else is removed.

    What a killed process has left of the same folder is removed first.

    Args:
        path: the folder to write; folders on the way are made.

    Raises:
        FileExistsError: if it exists.
        Locked: if another process is writing it.

    Example:
        >>> import tempfile, pathlib
        >>> target = pathlib.Path(tempfile.mkdtemp(), "corpus")
        >>> with atomic_folder(target) as folder:
        ...     _ = (folder / "note.txt").write_text("whole")
        >>> [path.name for path in target.iterdir()]
        ['note.txt']
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path}: exists already; give another --output or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold(path.parent, path.name, work="writing it", resumes=False):
        for left in _left_over(path.name, os.listdir(path.parent), ".partial"):
            shutil.rmtree(path.with_name(left))
        partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=temporary_prefix(path.name), suffix=".partial"))
        try:
            partial.chmod(0o777 & ~_umask())  # mkdtemp gives 0700
            with named_when_full(path):
                yield partial
            partial.rename(path)
        except BaseException:
            shutil.rmtree(partial)
            raise


def check_video_id(video_id: str) -> None:
    """Refuse ids that are empty or could name a file outside a folder.

    Raises:
        ValueError: for empty ids, and those with a slash, a backslash, a NUL, or consisting of dots.
    """
    if not isinstance(video_id, str) or not video_id.strip():
        raise ValueError(f"video id must be a text that is not empty, not {video_id!r}")
    if any(c in video_id for c in "/\\\0") or video_id.strip(".") == "":
        raise ValueError(f"video id {video_id!r} must not hold a path; use the file's name without folder and suffix")


def is_number(value: object) -> TypeGuard[float]:
    """Whether this is a finite int or float; not a bool, and no whole number that is too large for a float.

    Example:
        >>> is_number(4.7), is_number(True), is_number(float("nan")), is_number(10**400)
        (True, False, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _check_seconds(value: object, name: str) -> None:
    if not is_number(value):
        raise ValueError(f"{name} must be a finite number of seconds, not {_short(value)}")
    if value < 0:
        raise ValueError(f"{name} must not be negative: {value}")


def _short(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
