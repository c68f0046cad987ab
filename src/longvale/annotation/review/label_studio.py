"""Refinement by people in Label Studio (1.23): export of tasks, import of the results, and a log of changes.

The timeline of Label Studio counts frames from 1: frame `f` begins at `(f - 1) / fps`, and an event that ends at `t`
seconds ends with the last frame that begins before `t`. Boundaries that were not moved keep their exact seconds.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...events import DURATION_TOLERANCE_S, RELATIONS, Annotation, Event, Seconds, load_annotations, save_annotations
from ...io import atomic_write, is_number, load_json
from ..pipeline import stage_folder
from ..stages import StageLog

logger = logging.getLogger(__name__)

#: Model version that Label Studio shows for predictions.
MODEL_VERSION = "longvale annotate"


@dataclass(frozen=True)
class Change:
    """Change of one event by a person.

    Args:
        video_id: id of the video.
        event_id: index before the change; None for an added event.
        kind: added, removed, moved, reworded, or the value for a changed relation.
        by: id or e-mail address of the person.
        at: time, as Label Studio writes it.
        before: start, end, caption, relation; None for an added event.
        after: the same fields; None for a removed event.
    """

    video_id: str
    event_id: int | None
    kind: str
    by: str
    at: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


def to_frames(start: Seconds, end: Seconds, fps: float) -> tuple[int, int]:
    """Return the first and last frame of a time range, counted from 1.

    Example:
        >>> to_frames(0.0, 2.0, 25.0)
        (1, 50)
    """
    first = math.floor(start * fps + 1e-6) + 1
    return first, max(first, math.ceil(end * fps - 1e-6))


def to_seconds(first: int, last: int, fps: float) -> tuple[Seconds, Seconds]:
    """Return start and end in seconds of a range of frames, counted from 1, the last one included.

    Example:
        >>> to_seconds(1, 50, 25.0)
        (0.0, 2.0)
    """
    return round((first - 1) / fps, 3), round(last / fps, 3)


def export_tasks(
    annotations: str | os.PathLike,
    output: str | os.PathLike,
    *,
    videos_url: str,
    fps: float = 25.0,
    suffix: str = ".mp4",
) -> tuple[int, Path]:
    """Write tasks for Label Studio, and its labelling interface next to them.

    Args:
        annotations: JSON of annotations.
        output: JSON file of tasks to write.
        videos_url: URL prefix of the names of the video files.
        fps: frames per second of the timeline.
        suffix: suffix of the video files, if the stages do not contain their names.

    Returns:
        The number of tasks, and the path of the labelling interface.

    Raises:
        FileNotFoundError, ValueError: as [`longvale.events.load_annotations`]; if `fps` is not above 0.
    """
    if not is_number(fps) or fps <= 0:
        raise ValueError(f"fps must be above 0, not {fps}")
    names, relations = _known(annotations)
    tasks = []
    for video_id, annotation in load_annotations(annotations).items():
        url = f"{videos_url.rstrip('/')}/{quote(os.fsencode(names.get(video_id, video_id + suffix)))}"
        result = [
            item
            for index, event in enumerate(annotation.events)
            for item in _items(index, event, relations.get((video_id, index)), fps)
        ]
        data = {"video": url, "fps": fps, "video_id": video_id, "duration": annotation.duration}
        tasks.append({"data": data, "predictions": [{"model_version": MODEL_VERSION, "score": 0.5, "result": result}]})
    config = Path(output).with_suffix(".xml")
    interface = files(__package__).joinpath("label_studio.xml").read_text(encoding="utf-8")
    choices = "\n".join(f'    <Choice value="{name}"/>' for name in RELATIONS)
    with atomic_write(config) as file:
        file.write(interface.replace("    <!-- relations -->", choices))
    with atomic_write(output) as file:
        json.dump(tasks, file, ensure_ascii=False)
    return len(tasks), config


def _known(annotations: str | os.PathLike) -> tuple[dict[str, str], dict[tuple[str, int], str]]:
    """Return file names by video and relations by event, from the stages next to the annotations, if there are any."""
    folder = stage_folder(annotations)
    names, relations = {}, {}
    if (folder / "videos.jsonl").is_file():
        names = {r["video_id"]: r["file"] for r in StageLog(folder / "videos.jsonl", ("video_id",)).values()}
    if (folder / "events.jsonl").is_file():
        log = StageLog(folder / "events.jsonl", ("video_id", "event_id"))
        relations = {(r["video_id"], r["event_id"]): r["relation"] for r in log.values() if r["relation"]}
    return names, relations


def _items(index: int, event: Event, relation: str | None, fps: float) -> list[dict[str, Any]]:
    first, last = to_frames(event.start, event.end, fps)
    ranges = {"ranges": [{"start": first, "end": last}]}
    base = {"id": f"e{index}", "to_name": "video"}
    items = [
        {**base, "from_name": "events", "type": "timelinelabels", "value": {**ranges, "timelinelabels": ["event"]}},
        {**base, "from_name": "caption", "type": "textarea", "value": {**ranges, "text": [event.caption]}},
    ]
    if relation:
        items.append({**base, "from_name": "relation", "type": "choices", "value": {**ranges, "choices": [relation]}})
    return items


def import_tasks(
    exported: str | os.PathLike,
    annotations: str | os.PathLike,
    output: str | os.PathLike,
    *,
    annotator: str | None = None,
) -> tuple[int, Path]:
    """Import the results of Label Studio.

    Videos without results stay unchanged. Per video one submission is used, even if the video is in several tasks: the
    latest, or the latest of `annotator`. Items that are neither a range nor the caption or relation of one, such as
    lines between regions, boxes and answers about the whole video, are ignored; the log reports how many.

    Args:
        exported: JSON export of Label Studio (not JSON_MIN or CSV, which do not keep which caption has which range).
        annotations: the annotations that were exported.
        output: annotations to write, such as `out.json`; `out.changes.jsonl` next to it lists who changed what.
        annotator: id or e-mail address of a person.

    Returns:
        The number of changes, and the path of the file that lists them.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: naming the task and the region that cannot be read.
    """
    before, tasks = load_annotations(annotations), load_json(exported)
    _, relations = _known(annotations)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise ValueError(f"{exported}: must be a list of tasks; export in the format JSON")
    latest: dict[str, _Work] = {}
    after, changes, left_out = dict(before), [], Counter[str]()
    place = ""
    try:
        for number, task in enumerate(tasks):
            place = f"{exported}: task {task.get('id', number)}"
            for work in _read_work(task, place, before, annotator):
                if work.video_id not in latest or work.when() >= latest[work.video_id].when():
                    latest[work.video_id] = work
        for video_id, work in latest.items():
            place = work.place
            after[video_id], done, others = _apply(work, before[video_id], relations)
            changes += done
            left_out += others
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    if left_out:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(left_out.items()))
        logger.warning("%s: left out what is neither a range nor its caption or relation: %s", exported, counts)
    save_annotations(after, output)
    path = Path(output).with_suffix(".changes.jsonl")
    with atomic_write(path) as file:
        file.writelines(json.dumps(asdict(change), ensure_ascii=False) + "\n" for change in changes)
    return len(changes), path


@dataclass(frozen=True)
class _Work:
    """Submission of one person for one video, with its task."""

    place: str
    video_id: str
    fps: float
    people: list[str]
    updated_at: str
    result: Any

    def when(self) -> datetime:
        """Return the time of the last change; the earliest `datetime` if the export has none."""
        try:
            time = datetime.fromisoformat(self.updated_at)
        except ValueError:
            return datetime.min.replace(tzinfo=UTC)
        return time if time.tzinfo else time.replace(tzinfo=UTC)


def _read_work(
    task: Mapping[str, Any], place: str, before: Mapping[str, Annotation], annotator: str | None
) -> list[_Work]:
    """Return the submissions of a task, of all people or one, in the order of the export."""
    data, submitted = task.get("data"), task.get("annotations") or []
    video_id = data.get("video_id") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(video_id, str) or video_id not in before:
        raise ValueError(f"data.video_id names no video of the annotations: {video_id!r}")
    fps = data.get("fps")
    if not is_number(fps) or fps <= 0:
        raise ValueError(f"data.fps must be above 0, not {fps!r}")
    if not isinstance(submitted, list):
        raise ValueError("annotations must be a list; export in the format JSON")
    work = [
        _Work(place, video_id, fps, _people(item), str(item.get("updated_at", "")), item.get("result"))
        for item in submitted
        if isinstance(item, dict) and not item.get("was_cancelled")
    ]
    return [item for item in work if annotator is None or annotator in item.people]


def _apply(
    work: _Work, old: Annotation, relations: Mapping[tuple[str, int], str]
) -> tuple[Annotation, list[Change], Counter[str]]:
    """Return the annotation after a submission, its changes, and counts of ignored items by kind."""
    regions, left_out = _read_regions(work.result)
    events, changes = [], []
    who, when = work.people[-1], work.updated_at
    for region_id, region in regions.items():
        index = _index_of(region_id, old)
        kept = None if index is None else old.events[index]
        relation = None if index is None else relations.get((old.video_id, index))
        event = _event(region_id, region, kept, work, old.duration)
        events.append(event)
        changes += _compare(old.video_id, index, kept, relation, event, region["relation"], who, when)
    gone = set(range(len(old.events))) - {_index_of(region_id, old) for region_id in regions}
    for index in sorted(gone):
        before = _event_values(old.events[index], relations.get((old.video_id, index)))
        changes.append(Change(old.video_id, index, "removed", who, when, before, None))
    ordered = tuple(sorted(events, key=lambda event: (event.start, event.end)))
    return Annotation(old.video_id, old.duration, ordered, old.extra), changes, left_out


def _people(work: Mapping[str, Any]) -> list[str]:
    """Return the names of an annotator: the id, and the e-mail address if the export has it."""
    by = work.get("completed_by")
    if isinstance(by, dict):
        return [str(by[name]) for name in ("id", "email") if by.get(name) is not None] or ["unknown"]
    return [str(by) if by is not None else "unknown"]


def _read_regions(result: Any) -> tuple[dict[str, dict[str, Any]], Counter[str]]:
    """Return frames, caption and relation by region id, in export order, and counts of the other items by type."""
    if not isinstance(result, list) or not all(isinstance(item, dict) for item in result):
        raise ValueError("an annotation has no result that is a list of regions; export in the format JSON")
    regions: dict[str, dict[str, Any]] = {}
    left_out = Counter[str]()
    of_others: set[str] = set()
    for item in result:
        kind, value, region_id = str(item.get("type")), item.get("value"), str(item.get("id"))
        value = value if isinstance(value, dict) else {}
        field = "ranges" if kind == "timelinelabels" else item.get("from_name")
        if field not in ("ranges", "caption", "relation") or (field == "ranges" and not value.get("ranges")):
            left_out[kind] += 1  # a line, a box, an answer about the whole video, or the empty range of a box
            of_others.add(region_id)
            continue
        if item.get("id") is None:
            raise ValueError("a region has no id or value; export in the format JSON")
        region = regions.setdefault(region_id, {"ranges": None, "caption": None, "relation": None})
        region[field] = _READ[field](value, region_id)
    for region_id in [region_id for region_id, region in regions.items() if region["ranges"] is None]:
        region = regions[region_id]
        if region["caption"] and region_id not in of_others:
            raise ValueError(f"region {region_id!r} has no range; draw one or remove its caption")
        left_out.update(f"{name} without a range" for name in ("caption", "relation") if region[name])
        del regions[region_id]
    for region_id, region in regions.items():
        if not region["caption"]:
            raise ValueError(f"region {region_id!r} has no caption; write one or remove the region")
    return regions, left_out


def _read_range(value: Mapping[str, Any], region_id: str) -> tuple[int, int]:
    ranges = value["ranges"]
    only = ranges[0] if isinstance(ranges, list) and len(ranges) == 1 and isinstance(ranges[0], dict) else {}
    start, end = only.get("start"), only.get("end")
    if is_number(start) and is_number(end) and start > end:
        raise ValueError(f"region {region_id!r}: start after end, frames {start} to {end}; correct or remove it")
    if not (is_number(start) and is_number(end) and start >= 1):
        raise ValueError(f"region {region_id!r} must have one range of frames from 1 on, not {ranges!r}")
    return round(start), round(end)


def _read_caption(value: Mapping[str, Any], region_id: str) -> str:
    texts = value.get("text")
    texts = [texts] if isinstance(texts, str) else [] if texts is None else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"region {region_id!r}: caption must be a text, not {texts!r}")
    return " ".join(texts).strip()


def _read_relation(value: Mapping[str, Any], region_id: str) -> str | None:
    chosen = value.get("choices") or [None]
    if not isinstance(chosen, list) or chosen[0] not in (None, *RELATIONS):
        name = chosen[0] if isinstance(chosen, list) else chosen
        raise ValueError(f"region {region_id!r}: relation {name!r} is not one of {', '.join(RELATIONS)}")
    return chosen[0]


_READ: dict[str, Any] = {"ranges": _read_range, "caption": _read_caption, "relation": _read_relation}


def _index_of(region_id: str, old: Annotation) -> int | None:
    digits = region_id.removeprefix("e")
    known = region_id.startswith("e") and digits.isascii() and digits.isdigit() and int(digits) < len(old.events)
    return int(digits) if known else None


def _event(region_id: str, region: Mapping[str, Any], kept: Event | None, work: _Work, duration: Seconds) -> Event:
    """Return the event of a region; boundaries that were not moved keep the exact times of the original event."""
    start, end = to_seconds(*region["ranges"], work.fps)
    if kept is not None:
        first, last = to_frames(kept.start, kept.end, work.fps)
        start = kept.start if region["ranges"][0] == first else start
        end = kept.end if region["ranges"][1] == last else end
    latest = max(duration, kept.end if kept else 0.0)
    if start >= latest:
        raise ValueError(
            f"region {region_id!r} ({region['caption']!r}) begins at {start} s, but the video ends at {latest} s; "
            "move or remove it"
        )
    if end > latest + DURATION_TOLERANCE_S:
        logger.warning("%s: region %r ends at %s s; cut at the video's end, %s s", work.place, region_id, end, latest)
    return Event(start, min(end, latest), region["caption"])


def _event_values(event: Event, relation: str | None) -> dict[str, Any]:
    return {"start": event.start, "end": event.end, "caption": event.caption, "relation": relation}


def _compare(
    video_id: str,
    index: int | None,
    kept: Event | None,
    relation: str | None,
    event: Event,
    new_relation: str | None,
    who: str,
    when: str,
) -> list[Change]:
    after = _event_values(event, new_relation)
    if kept is None:
        return [Change(video_id, None, "added", who, when, None, after)]
    before = _event_values(kept, relation)
    kinds = []
    if (kept.start, kept.end) != (event.start, event.end):
        kinds.append("moved")
    if kept.caption.strip() != event.caption:
        kinds.append("reworded")
    if relation != new_relation:
        kinds.append("related anew")
    return [Change(video_id, index, kind, who, when, before, after) for kind in kinds]
