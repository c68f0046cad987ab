"""Checks that flag the events a person should review first, with reasons.

Each rule adds a reason with a gain, an estimate of how likely a person will change the event. Events are sorted by the
sum of their gains; ties by video and time.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...events import Annotation, Seconds, load_annotations
from ...io import atomic_write, load_json
from ..measurements import Measurements
from ..pipeline import stage_folder
from ..stages import StageLog

#: Expected gain of reviewing an event, per reason. Refused answers and contradictions are certainly wrong; events with
#: the other reasons are often right.
GAINS = {
    "refused": 1.0,
    "silence described as sound": 0.9,
    "sound not mentioned": 0.6,
    "no picture described as picture": 0.9,
    "near-duplicate": 0.5,
    "low coherence": 0.4,
    "hole": 0.3,
    "very long": 0.3,
}
#: Minimum difflib ratio of two captions of a video that are near-duplicates.
DUPLICATE_RATIO = 0.9
#: Minimum length in seconds of a hole, a time range without events.
HOLE_S: Seconds = 10.0
#: 5% of the published events are longer than this, in seconds.
LONG_S: Seconds = 60.0
#: An event has low coherence (many shots) if it has more cuts per minute than this, and more than this multiple of the
#: rate of its video: a concert that is cut fast throughout is still one event.
CUTS_A_MINUTE, CUTS_OF_VIDEO = 20.0, 2.0
#: Prefix of the names of captioners without a model: similar facts give similar sentences.
_TEMPLATE = "template of "

#: Words that state that something is heard; whole words only, since "mid-toned" and "cloud" are not sounds.
_HEARD_WORDS = (
    r"hear|hears|heard|hearing|audible|sounds?|sounding|music|musical|nois(?:e|es|y)|tones?|loud|louder|loudly|"
    r"voices?|speak(?:s|ing|er|ers)?|spoke|spoken|speech|says?|saying|said|sing|sings|singing|singers?|sang|songs?|"
    r"bark(?:s|ed|ing)?"
)
#: Words for things that are hardly ever silent. A caption with one of them does not omit the sound.
_SOUNDING_WORDS = (
    r"talk(?:s|ed|ing)?|narrat\w+|comment(?:s|ing|ary)|explain(?:s|ed|ing)?|ask(?:s|ed|ing)?|answers?|announc\w+|"
    r"shout\w*|scream\w*|whisper\w*|laugh\w*|cr(?:y|ies|ying)|plays|playing|guitar|piano|drum\w*|violin|orchestra|"
    r"melod\w+|meow\w*|chirp\w*|roar\w*|growl\w*|buzz\w*|hum|hums|humming|ring(?:s|ing)?|bells?|sirens?|beep\w*|"
    r"click(?:s|ing)?|bang(?:s|ing)?|knock\w*|explo\w+|thunder\w*|engines?|horns?|honk\w*|whistl\w*|applau\w+|"
    r"clap\w*|cheer\w*"
)
_HEARD = re.compile(rf"\b(?:{_HEARD_WORDS})\b", re.IGNORECASE)
_SOUNDING = re.compile(rf"\b(?:{_HEARD_WORDS}|{_SOUNDING_WORDS})\b", re.IGNORECASE)
_SIGHT = re.compile(r"\b(?:seen|pictures?|shows?|shown|showing|visible|colou?rs?|coloured|colored)\b", re.IGNORECASE)
#: Sentences that state that something is absent do not count as descriptions.
_NEGATION = re.compile(
    r"\b(?:no|not|nothing|nobody|none|never|neither|nor|without|silent|silence|silently|inaudible|invisible|unseen)\b|n't\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Flag:
    """An event, or a hole between events, to review.

    Args:
        video_id: id of the video.
        event_id: index of the event; None for a hole.
        start: seconds.
        end: seconds.
        reasons: keys of [`GAINS`].
        gain: sum of their gains.
        caption: caption of the event.
    """

    video_id: str
    event_id: int | None
    start: Seconds
    end: Seconds
    reasons: tuple[str, ...]
    gain: float
    caption: str = field(default="", compare=False)


def check_annotations(path: str | os.PathLike) -> list[Flag]:
    """Flag events of an annotation file, using its stage folder if there is one next to it.

    Args:
        path: JSON of `longvale annotate`, or any official annotations.

    Returns:
        Flags, highest gain first.

    Raises:
        FileNotFoundError, ValueError: as [`longvale.events.load_annotations`]; naming a damaged stage file.
    """
    annotations = load_annotations(path)
    folder = stage_folder(path)
    stages: dict[str, StageLog] = {}
    for name, key in (
        ("captions", ("video_id", "event_id")),
        ("events", ("video_id", "event_id")),
        ("boundaries", ("video_id",)),
    ):
        if (folder / f"{name}.jsonl").is_file():
            stages[name] = StageLog(folder / f"{name}.jsonl", key)
    templates = _template_roles(folder / "settings.json")
    flags = [flag for annotation in annotations.values() for flag in check_video(annotation, stages, templates)]
    return sorted(flags, key=lambda flag: (-flag.gain, flag.video_id, flag.start))


def _template_roles(settings: Path) -> list[str]:
    """Return the roles whose captions are templates."""
    captioners = load_json(settings).get("captioners", {}) if settings.is_file() else {}
    return [role for role, name in captioners.items() if str(name).startswith(_TEMPLATE)]


def check_video(annotation: Annotation, stages: Mapping[str, StageLog], templates: Collection[str] = ()) -> list[Flag]:
    """Flag events and holes of one video.

    Args:
        annotation: annotation of the video.
        stages: `captions`, `events` and `boundaries`, as far as available.
        templates: roles whose captions are templates; similar template captions are not an error.

    Example:
        >>> from longvale.events import Event
        >>> twice = Annotation("a", 20.0, (Event(0, 9, "A dog runs."), Event(9, 20, "A dog runs.")))
        >>> [(flag.event_id, flag.reasons) for flag in check_video(twice, {})]
        [(1, ('near-duplicate',))]
    """
    flags: list[Flag] = []
    earlier: list[str] = []
    boundaries = stages["boundaries"].get(annotation.video_id) if "boundaries" in stages else None
    for index, event in enumerate(annotation.events):
        reasons = []
        record, written = (_same(stages, name, annotation.video_id, index, event) for name in ("captions", "events"))
        if written and written["refused"]:
            reasons.append("refused")
        if record:
            reasons += _contradictions(event.caption, record)
        caption = _without(event.caption, record, templates)
        if caption and any(_alike(caption, other) for other in earlier):
            reasons.append("near-duplicate")
        earlier.append(caption)
        if event.length > LONG_S:
            reasons.append("very long")
        if boundaries and _many_cuts(event.start, event.end, boundaries["cuts"], annotation.duration):
            reasons.append("low coherence")
        if reasons:
            flags.append(_flag(annotation.video_id, index, event.start, event.end, reasons, event.caption))
    flags += [_flag(annotation.video_id, None, a, b, ["hole"], "") for a, b in _holes(annotation)]
    return flags


def _same(stages: Mapping[str, StageLog], name: str, video_id: str, index: int, event: Any) -> dict[str, Any] | None:
    """Return the stage's record of an event; None if there is none, or if the event was moved since."""
    record = stages[name].get(video_id, index) if name in stages else None
    if record and (record["start"], record["end"]) == (event.start, event.end):
        return record
    return None


def _contradictions(caption: str, record: Mapping[str, Any]) -> list[str]:
    """Return contradictions of a caption and the measurements; it must mention sound only if audio or speech has it."""
    measured, heard = record["measured"], {"audio", "speech"} & {*record["modalities"]}
    described = [s for s in re.split(r"(?<=[.!?])\s+", caption) if not _NEGATION.search(s)]
    silent = Measurements(loudness_db=measured.get("loudness_db")).silent
    quoted = any(text and text in caption for text in (record.get("captions", {}).get(r) for r in ("audio", "speech")))
    found = []
    if silent and not heard and any(_HEARD.search(sentence) for sentence in described):
        found.append("silence described as sound")
    if heard and not quoted and not _SOUNDING.search(caption):
        found.append("sound not mentioned")
    if measured.get("brightness") is None and any(_SIGHT.search(sentence) for sentence in described):
        found.append("no picture described as picture")
    return found


def _without(caption: str, record: Mapping[str, Any] | None, templates: Collection[str]) -> str:
    """Return a caption without the sentences that are templates."""
    for role in templates:
        caption = caption.replace((record or {}).get("captions", {}).get(role) or "\0", "")
    return caption.strip()


def _alike(first: str, second: str) -> bool:
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    return matcher.quick_ratio() >= DUPLICATE_RATIO and matcher.ratio() >= DUPLICATE_RATIO


def _many_cuts(start: Seconds, end: Seconds, cuts: Sequence[Seconds], duration: Seconds) -> bool:
    inside = sum(start < cut < end for cut in cuts)
    rate = inside / (end - start) * 60
    return inside > 2 and rate > max(CUTS_A_MINUTE, CUTS_OF_VIDEO * len(cuts) / duration * 60)


def _holes(annotation: Annotation) -> list[tuple[Seconds, Seconds]]:
    holes, covered = [], 0.0
    for start, end in [
        *sorted((e.start, e.end) for e in annotation.events),
        (annotation.duration, annotation.duration),
    ]:
        if start - covered >= HOLE_S:
            holes.append((covered, start))
        covered = max(covered, end)
    return holes


def _flag(video_id: str, event_id: int | None, start: float, end: float, reasons: list[str], caption: str) -> Flag:
    return Flag(video_id, event_id, start, end, tuple(reasons), round(sum(GAINS[r] for r in reasons), 3), caption)


def format_flags(flags: Sequence[Flag], top: int) -> str:
    """Format the first `top` flags as lines of text."""
    lines = [f"{len(flags)} to look at" + (f", the first {top}:" if len(flags) > top else "")]
    for flag in flags[:top]:
        what = "hole" if flag.event_id is None else f"event {flag.event_id}"
        lines.append(
            f"{flag.gain:4.1f}  {flag.video_id} {what} {flag.start:.1f}-{flag.end:.1f} s: {', '.join(flag.reasons)}"
            + (f": {flag.caption[:60]}" if flag.caption else "")
        )
    return "\n".join(lines)


def save_flags(flags: Sequence[Flag], path: str | os.PathLike) -> None:
    """Write flags as JSONL, one object per line."""
    with atomic_write(Path(path)) as file:
        file.writelines(json.dumps(asdict(flag), ensure_ascii=False) + "\n" for flag in flags)
