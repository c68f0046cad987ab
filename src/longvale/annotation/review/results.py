"""Results of `longvale annotate`, read from its stage files, for figures and the page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...events import MODALITIES, RELATIONS, Annotation, Event, Modality, Seconds
from ...io import is_number, parse_json, parse_lines
from ...run_log import whole_lines

#: The stage files that are read, in the folder NAME.stages that `longvale annotate --output NAME.json` writes.
BOUNDARIES_FILE, CAPTIONS_FILE, EVENTS_FILE = "boundaries.jsonl", "captions.jsonl", "events.jsonl"
TRACKS_FILE = "tracks.jsonl"

#: Names of the pipeline's roles on the page.
_ROLES = {"video": "seen", "keyframe": "seen in a picture", "audio": "heard", "speech": "said"}


@dataclass(frozen=True)
class AnnotatedVideo:
    """The annotation of a video and the intermediate results that it was made from.

    Args:
        annotation: the events, with modalities and relation.
        boundaries: the segments of each modality alone, (start, end) in seconds.
        sources: for each event the entries (kind, text) that its caption was made from.
        cuts: times of the hard cuts in seconds.
        tracks: what was found over the whole video, by track: start, end and text.
    """

    annotation: Annotation
    boundaries: Mapping[Modality, tuple[tuple[Seconds, Seconds], ...]]
    sources: tuple[tuple[tuple[str, str], ...], ...]
    cuts: tuple[Seconds, ...] = ()
    tracks: Mapping[str, tuple[tuple[Seconds, Seconds, str], ...]] = field(default_factory=dict)


def load_annotated(folder: str | os.PathLike) -> dict[str, AnnotatedVideo]:
    """Read the stages that `longvale annotate` wrote; of a run in progress, what is finished.

    Args:
        folder: stage folder, such as `annotations.stages`.

    Returns:
        The videos by id, only those with boundaries.

    Raises:
        FileNotFoundError: if the folder contains no stages.
        ValueError: naming file and line, if a line is not what `longvale annotate` writes.
    """
    folder = Path(folder)
    if not (folder / BOUNDARIES_FILE).is_file():
        raise FileNotFoundError(
            f"{folder / BOUNDARIES_FILE}: no such file; give the folder NAME.stages that `longvale annotate` leaves "
            "beside NAME.json"
        )
    captions = {
        (line["video_id"], line["event_id"]): line for _, line in _lines(folder / CAPTIONS_FILE, "video_id", "event_id")
    }
    events: dict[str, list[tuple[Event, tuple[tuple[str, str], ...]]]] = {}
    for place, line in _lines(folder / EVENTS_FILE, "video_id", "event_id", "start", "end", "caption"):
        try:
            event = _event(line)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place}: {error}") from None
        sources = tuple(_sources(captions.get((line["video_id"], line["event_id"]), {}), line))
        events.setdefault(line["video_id"], []).append((event, sources))
    found, tracks = {}, load_tracks(folder)
    for place, line in _lines(folder / BOUNDARIES_FILE, "video_id", "duration", *MODALITIES):
        of_video = sorted(events.get(line["video_id"], []), key=lambda item: (item[0].start, item[0].end))
        try:
            annotation = Annotation(line["video_id"], line["duration"], tuple(event for event, _ in of_video))
            boundaries = {modality: tuple(_spans(line[modality], modality)) for modality in MODALITIES}
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place}: {error}") from None
        sources = tuple(s for _, s in of_video)
        cuts = tuple(filter(is_number, line.get("cuts") or ()))
        of_tracks = tracks.get(annotation.video_id, {})
        found[annotation.video_id] = AnnotatedVideo(annotation, boundaries, sources, cuts, of_tracks)
    return found


def load_tracks(folder: str | os.PathLike) -> dict[str, dict[str, tuple[tuple[Seconds, Seconds, str], ...]]]:
    """Read the tracks of each video, by track: start, end and text of each span.

    Args:
        folder: stage folder, such as `annotations.stages`; one without tracks has none.

    Raises:
        ValueError: naming file and line, if a line is not what `longvale annotate` writes.
    """
    found: dict[str, dict[str, tuple[tuple[Seconds, Seconds, str], ...]]] = {}
    for place, line in _lines(Path(folder) / TRACKS_FILE, "video_id", "track", "spans"):
        try:
            times = [[span["start"], span["end"]] for span in line["spans"]]
            texts = [str(span["text"]) for span in line["spans"]]
            spans = tuple((*time, text) for time, text in zip(_spans(times, "spans"), texts, strict=True))
        except (KeyError, TypeError):
            raise ValueError(f"{place}: field 'spans' must hold objects with start, end and text") from None
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        found.setdefault(line["video_id"], {})[line["track"]] = spans
    return found


def _lines(path: Path, *fields: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a JSONL file with their locations; an incomplete last line is omitted."""
    if not path.is_file():
        return
    for number, value in parse_lines(path, whole_lines(path.read_bytes()).splitlines(), parse_json):
        place = f"{path}: line {number}"
        missing = [name for name in fields if not isinstance(value, dict) or name not in value]
        if missing:
            raise ValueError(f"{place}: field '{missing[0]}' is missing; give what `longvale annotate` wrote")
        yield place, value


def _event(line: Mapping[str, Any]) -> Event:
    modalities = tuple(m for m in MODALITIES if m in (line.get("modalities") or ()))
    relation = line.get("relation")
    return Event(line["start"], line["end"], line["caption"], modalities, relation if relation in RELATIONS else None)


def _spans(values: Any, name: str) -> Iterator[tuple[Seconds, Seconds]]:
    if not isinstance(values, list):
        raise ValueError(f"field '{name}' must be a list of [start, end]")
    for span in values:
        if not (isinstance(span, list) and len(span) == 2 and all(map(is_number, span)) and 0 <= span[0] <= span[1]):
            raise ValueError(f"field '{name}' must hold [start, end] in seconds, not {str(span)[:60]}")
        yield span[0], span[1]


def _sources(captions: Mapping[str, Any], event: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the caption of each role, the measurements, the relations and the reason of a refusal."""
    for role, text in (captions.get("captions") or {}).items():
        if text:
            yield _ROLES.get(role, str(role)), str(text)
    if captions.get("measured"):
        yield "measured", ", ".join(f"{name} {_short(value)}" for name, value in captions["measured"].items())
    if event.get("relations"):
        yield "relations", ", ".join(map(str, event["relations"]))
    if event.get("refused"):
        yield "refused", str(event["refused"])


def _short(value: Any) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)
