"""Refinement by people in Label Studio (1.23): tasks out, their work back in, and who changed what.

Its timeline counts frames from 1: frame `f` begins at `(f - 1) / fps`, and an event that ends at `t` seconds ends with
the last frame that begins before `t`. Boundaries that nobody moved keep their exact seconds.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..events import (
    RELATIONS,
    Annotation,
    Event,
    Seconds,
    atomic_write,
    is_number,
    load_annotations,
    load_json,
    save_annotations,
)
from .pipeline import stage_folder
from .stages import StageLog

#: Version of the model that Label Studio shows for what was not made by people.
MODEL_VERSION = "longvale annotate"


@dataclass(frozen=True)
class Change:
    """What a person did to one event.

    Args:
        video_id: of the video.
        event_id: index before; None for one that was added.
        kind: added, removed, moved, reworded or related anew.
        by: who.
        at: when, as Label Studio says it.
        before: start, end, caption, relation; None for one that was added.
        after: the same; None for one that was removed.
    """

    video_id: str
    event_id: int | None
    kind: str
    by: str
    at: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


def to_frames(start: Seconds, end: Seconds, fps: float) -> tuple[int, int]:
    """First and last frame of a stretch, counted from 1.

    Example:
        >>> to_frames(0.0, 2.0, 25.0)
        (1, 50)
    """
    first = math.floor(start * fps + 1e-6) + 1
    return first, max(first, math.ceil(end * fps - 1e-6))


def to_seconds(first: int, last: int, fps: float) -> tuple[Seconds, Seconds]:
    """Start and end in seconds of frames counted from 1, the last one included.

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
    """Write tasks for Label Studio, and its labelling interface beside them.

    Args:
        annotations: JSON of annotations.
        output: JSON file of tasks to write.
        videos_url: what stands in front of the names of the video files.
        fps: frames a second of the timeline.
        suffix: of the video files, where the stages do not name them.

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
        url = f"{videos_url.rstrip('/')}/{quote(names.get(video_id, video_id + suffix))}"
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
    """Names of files and relations of events, from the stages beside the annotations, where there are any."""
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
    """Read people's work back.

    Videos that nobody worked on stay as they are. The work of one person counts a video: the latest, or `annotator`'s.

    Args:
        exported: JSON export of Label Studio (not JSON_MIN or CSV, which lose which caption has which range).
        annotations: what was exported.
        output: annotations to write; `<output>.changes.jsonl` beside it says who changed what.
        annotator: id or e-mail address of a person.

    Returns:
        The number of changes, and the path of their list.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: naming the task and the region that cannot be read.
    """
    before, tasks = load_annotations(annotations), load_json(exported)
    _, relations = _known(annotations)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise ValueError(f"{exported}: must be a list of tasks; export in the format JSON")
    after, changes = dict(before), []
    for number, task in enumerate(tasks):
        try:
            found = _read_task(task, before, relations, annotator)
        except ValueError as error:
            raise ValueError(f"{exported}: task {task.get('id', number)}: {error}") from None
        if found is not None:
            video_id, annotation, done = found
            after[video_id] = annotation
            changes += done
    save_annotations(after, output)
    path = Path(output).with_suffix(".changes.jsonl")
    with atomic_write(path) as file:
        file.writelines(json.dumps(asdict(change), ensure_ascii=False) + "\n" for change in changes)
    return len(changes), path


def _read_task(
    task: Mapping[str, Any],
    before: Mapping[str, Annotation],
    relations: Mapping[tuple[str, int], str],
    annotator: str | None,
) -> tuple[str, Annotation, list[Change]] | None:
    data = task.get("data")
    if not isinstance(data, dict) or data.get("video_id") not in before:
        raise ValueError("data.video_id names no video of the annotations")
    fps = data.get("fps")
    if not is_number(fps) or fps <= 0:
        raise ValueError(f"data.fps must be above 0, not {fps!r}")
    work = [w for w in task.get("annotations") or [] if isinstance(w, dict) and not w.get("was_cancelled")]
    if annotator is not None:
        work = [w for w in work if annotator in _people(w)]
    if not work:
        return None
    latest = max(work, key=lambda w: str(w.get("updated_at", "")))
    old = before[data["video_id"]]
    who, when = _people(latest)[-1], str(latest.get("updated_at", ""))
    regions = _read_regions(latest.get("result"), fps)
    events, changes = [], []
    for region_id, region in regions.items():
        index = _index_of(region_id, old)
        kept = None if index is None else old.events[index]
        relation = None if index is None else relations.get((old.video_id, index))
        event = _event(region, kept, fps, old.duration)
        events.append(event)
        changes += _compare(old.video_id, index, kept, relation, event, region["relation"], who, when)
    gone = set(range(len(old.events))) - {_index_of(region_id, old) for region_id in regions}
    for index in sorted(gone):
        told = _told(old.events[index], relations.get((old.video_id, index)))
        changes.append(Change(old.video_id, index, "removed", who, when, told, None))
    ordered = tuple(sorted(events, key=lambda event: (event.start, event.end)))
    return old.video_id, Annotation(old.video_id, old.duration, ordered, old.extra), changes


def _people(work: Mapping[str, Any]) -> list[str]:
    """Names by which an annotator is known: the id, and the e-mail address where the export has it."""
    by = work.get("completed_by")
    if isinstance(by, dict):
        return [str(by[name]) for name in ("id", "email") if by.get(name) is not None] or ["unknown"]
    return [str(by) if by is not None else "unknown"]


def _read_regions(result: Any, fps: float) -> dict[str, dict[str, Any]]:
    """Frames, caption and relation by region id, in the order of the export."""
    if not isinstance(result, list):
        raise ValueError("an annotation has no result")
    regions: dict[str, dict[str, Any]] = {}
    for item in result:
        value = item.get("value") if isinstance(item, dict) else None
        if not isinstance(value, dict) or not isinstance(item.get("id"), str):
            raise ValueError("a region has no id or value; export in the format JSON")
        region = regions.setdefault(item["id"], {"ranges": None, "caption": None, "relation": None})
        if item.get("type") == "timelinelabels":
            ranges = value.get("ranges")
            first = ranges[0] if isinstance(ranges, list) and len(ranges) == 1 and isinstance(ranges[0], dict) else {}
            if not (
                is_number(first.get("start")) and is_number(first.get("end")) and 1 <= first["start"] <= first["end"]
            ):
                raise ValueError(f"region {item['id']!r} must have one range of frames from 1 on, not {ranges!r}")
            region["ranges"] = (round(first["start"]), round(first["end"]))
        elif item.get("from_name") == "caption":
            texts = value.get("text")
            region["caption"] = " ".join(texts) if isinstance(texts, list) else texts
        elif item.get("from_name") == "relation":
            chosen = value.get("choices") or [None]
            if chosen[0] is not None and chosen[0] not in RELATIONS:
                raise ValueError(f"region {item['id']!r}: relation {chosen[0]!r} is not one of {', '.join(RELATIONS)}")
            region["relation"] = chosen[0]
    for region_id, region in regions.items():
        if region["ranges"] is None:
            raise ValueError(f"region {region_id!r} has no range")
        if not isinstance(region["caption"], str) or not region["caption"].strip():
            raise ValueError(f"region {region_id!r} has no caption; write one or remove the region")
    return regions


def _index_of(region_id: str, old: Annotation) -> int | None:
    digits = region_id.removeprefix("e")
    known = region_id.startswith("e") and digits.isascii() and digits.isdigit() and int(digits) < len(old.events)
    return int(digits) if known else None


def _event(region: Mapping[str, Any], kept: Event | None, fps: float, duration: Seconds) -> Event:
    """The event of a region; with the exact times of the event that it was, where nobody moved it."""
    start, end = to_seconds(*region["ranges"], fps)
    if kept is not None:
        first, last = to_frames(kept.start, kept.end, fps)
        start = kept.start if region["ranges"][0] == first else start
        end = kept.end if region["ranges"][1] == last else end
    return Event(start, min(end, max(duration, kept.end if kept else 0.0)), region["caption"].strip())


def _told(event: Event, relation: str | None) -> dict[str, Any]:
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
    after = _told(event, new_relation)
    if kept is None:
        return [Change(video_id, None, "added", who, when, None, after)]
    before = _told(kept, relation)
    kinds = []
    if (kept.start, kept.end) != (event.start, event.end):
        kinds.append("moved")
    if kept.caption.strip() != event.caption:
        kinds.append("reworded")
    if relation != new_relation:
        kinds.append("related anew")
    return [Change(video_id, index, kind, who, when, before, after) for kind in kinds]
