"""Export of a video's events to files that other programs read.

| format | file | for |
| --- | --- | --- |
| `json` | `<video>.json` | this library: the official annotations |
| `webvtt` | `<video>.vtt` | players and browsers: one cue per event |
| `srt` | `<video>.srt` | players: the same in the older format |
| `activitynet` | `<video>.activitynet.json` | scorers of ActivityNet Captions: a results file |
| `csv` | `<video>.csv` | spreadsheets: one row per event |
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from .events import Annotation, Event, load_annotations
from .io import atomic_write
from .registry import exporters

#: The arrow between the times of a cue, of any length.
_ARROW = re.compile("-{2,}>")

#: A cell that starts like a formula, also in full-width characters and after characters that spreadsheets ignore.
_FORMULA = re.compile("[\t\n]|[\\s\0\u200b\ufeff]*[=+@\uff1d\uff0b\uff0d\uff20-]")


class Exporter(Protocol):
    """Interface of an exporter: a function, registered with its attributes.

    Example:
        >>> @exporters.register(label="Plain text", suffix=".txt", mime="text/plain")
        ... def to_text(annotation):
        ...     return "".join(f"{event.start:g} s: {event.caption}\\n" for event in annotation.events)
        >>> to_text(Annotation("abc", 60.0, (Event(0.5, 4, "A bell rings."),)))
        '0.5 s: A bell rings.\\n'
    """

    #: Name of the format for users.
    label: str
    #: Suffix of its files, such as ".srt".
    suffix: str
    #: Media type, as in HTTP.
    mime: str

    def __call__(self, annotation: Annotation) -> str:
        """Return the content of a file."""


@exporters.register("json", label="Official JSON", suffix=".json", mime="application/json")
def to_json(annotation: Annotation) -> str:
    """Return the official annotations, as [`longvale.events.load_annotations`] reads them."""
    return json.dumps({annotation.video_id: annotation.to_official()}, ensure_ascii=False, indent=2) + "\n"


@exporters.register("webvtt", label="WebVTT", suffix=".vtt", mime="text/vtt")
def to_webvtt(annotation: Annotation) -> str:
    """Return WebVTT (W3C): one cue per event in the order of their starts; cues may overlap.

    Example:
        >>> print(to_webvtt(Annotation("abc", 60.0, (Event(0.5, 4, "Tom & Jerry."),))), end="")
        WEBVTT
        <BLANKLINE>
        1
        00:00:00.500 --> 00:00:04.000
        Tom &amp; Jerry.
    """
    escapes = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    return "\n\n".join(["WEBVTT", *_cues(annotation.events, ".", lambda text: text.translate(escapes))]) + "\n"


@exporters.register("srt", label="SRT", suffix=".srt", mime="application/x-subrip")
def to_srt(annotation: Annotation) -> str:
    """Return SubRip subtitles: numbered from 1, in the order of the events' starts.

    Example:
        >>> print(to_srt(Annotation("abc", 60.0, (Event(0.5, 4, "A bell rings."),))), end="")
        1
        00:00:00,500 --> 00:00:04,000
        A bell rings.
    """
    cues = list(_cues(annotation.events, ",", lambda text: _ARROW.sub("->", text)))
    return "\n\n".join(cues) + "\n" if cues else ""


@exporters.register("activitynet", label="ActivityNet", suffix=".activitynet.json", mime="application/json")
def to_activitynet(annotation: Annotation) -> str:
    """Return a results file of ActivityNet Captions, with the three keys that its scorer (densevid_eval) requires."""
    rows = [{"sentence": e.caption, "timestamp": [e.start, e.end]} for e in annotation.events]
    results = {
        "version": "VERSION 1.0",
        "results": {annotation.video_id: rows},
        "external_data": {"used": False, "details": ""},
    }
    return json.dumps(results, ensure_ascii=False, indent=2) + "\n"


@exporters.register("csv", label="CSV", suffix=".csv", mime="text/csv")
def to_csv(annotation: Annotation) -> str:
    """Return CSV rows of video_id, start and end in seconds, modalities (separated by ;) and caption.

    A text that a spreadsheet would read as a formula gets a leading apostrophe, as OWASP advises ("CSV injection").

    Example:
        >>> print(to_csv(Annotation("abc", 60.0, (Event(0.5, 4, "A bell, rings.", ("audio",)),))), end="")
        video_id,start,end,modalities,caption
        abc,0.5,4,audio,"A bell, rings."
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["video_id", "start", "end", "modalities", "caption"])
    for event in annotation.events:
        texts = [_no_formula(annotation.video_id), _no_formula(event.caption)]
        writer.writerow([texts[0], event.start, event.end, ";".join(event.modalities), texts[1]])
    return file.getvalue()


def export_files(annotation: Annotation) -> list[dict[str, str]]:
    """Return the events in every format: label, file name, media type and text of each."""
    return [
        {"label": to.label, "name": annotation.video_id + to.suffix, "mime": to.mime, "text": to(annotation)}
        for to in exporters.load_all()
    ]


def exporter_of(path: str | os.PathLike, name: str | None = None) -> Exporter:
    """Return the exporter for a file name.

    Args:
        path: path of the file.
        name: name of the exporter, or `package.module:name`; default by the suffix of the path.

    Raises:
        ValueError: if the suffix or the name is unknown.

    Example:
        >>> exporter_of("events.activitynet.json").label, exporter_of("events.json").label
        ('ActivityNet', 'Official JSON')
    """
    if name is not None:
        return exporters.get(name)
    known = exporters.load_all()
    found = [to for to in known if Path(path).name.lower().endswith(to.suffix)]
    if not found:
        raise ValueError(f"{path}: unknown format; end its name in {', '.join(to.suffix for to in known)}")
    return max(found, key=lambda to: len(to.suffix))


def save_events(annotation: Annotation, path: str | os.PathLike, exporter: Exporter | None = None) -> None:
    """Write the events of a video to a file, completely or not at all.

    Args:
        annotation: video with events.
        path: file to write.
        exporter: exporter; default by the suffix of the path.

    Raises:
        ValueError: as in [`exporter_of`].
    """
    text = (exporter or exporter_of(path))(annotation)
    with atomic_write(path) as file:
        file.write(text)


def export_annotations(annotations: str | os.PathLike, output: str | os.PathLike, name: str) -> int:
    """Write the events of each video of an annotation file to a file of its own.

    Args:
        annotations: official annotations.
        output: folder to write, created if needed.
        name: name of the exporter, or `package.module:name`.

    Returns:
        The number of files.

    Raises:
        FileNotFoundError, ValueError: as in [`longvale.events.load_annotations`]; if the exporter is unknown.
    """
    exporter, videos = exporters.get(name), load_annotations(annotations)
    Path(output).mkdir(parents=True, exist_ok=True)
    for video_id, annotation in videos.items():
        save_events(annotation, Path(output, f"{video_id}{exporter.suffix}"), exporter)
    return len(videos)


def _cues(events: Iterable[Event], point: str, escape: Callable[[str], str]) -> Iterable[str]:
    """Yield numbered cues in the order of their starts; white space becomes a space, since a blank line ends a cue."""
    for number, event in enumerate(sorted(events, key=lambda event: (event.start, event.end)), start=1):
        start, end = round(event.start * 1000), round(event.end * 1000)
        times = f"{_clock(start, point)} --> {_clock(max(end, start + 1), point)}"  # a cue must end after it starts
        caption = " ".join(event.caption.replace("\0", " ").split())
        yield "\n".join([str(number), times, escape(caption)]).rstrip()


def _clock(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{milliseconds:03d}"


def _no_formula(text: str) -> str:
    """Return a cell that no spreadsheet reads as a formula and no reader as two rows: all its line breaks are LF."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if _FORMULA.match(text) else text
