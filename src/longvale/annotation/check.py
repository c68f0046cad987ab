"""Which events a person should look at first, and why.

Each rule gives a flag with a gain, a guess of how likely a person will change something there. Events come by the sum
of their gains; ties by video and time.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..events import Annotation, Seconds, atomic_write, load_annotations
from .pipeline import stage_folder
from .stages import StageLog

#: Expected gain of looking at an event, a reason. Refused answers and contradictions are wrong as they stand; the
#: others are often right.
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
#: Two captions of a video are near-duplicates from this ratio of difflib on.
DUPLICATE_RATIO = 0.9
#: Uncovered stretches from this length are holes.
HOLE_S: Seconds = 10.0
#: Events longer than this are 5% of the published ones.
LONG_S: Seconds = 60.0
#: Share of its video's cuts, beyond which an event is of low coherence: it holds many shots.
CUTS_A_MINUTE = 20.0

_SOUND_WORDS = (
    "hear",
    "sound",
    "music",
    "noise",
    "sings",
    "song",
    "speak",
    "says",
    "said",
    "voice",
    "tone",
    "bark",
    "loud",
)
_SIGHT_WORDS = ("seen", "picture", "shows", "shown", "visible", "colour", "color")


@dataclass(frozen=True)
class Flag:
    """An event, or a hole between events, to look at.

    Args:
        video_id: of the video.
        event_id: index of the event; None for a hole.
        start: seconds.
        end: seconds.
        reasons: why, keys of [`GAINS`].
        gain: sum of their gains.
        caption: of the event.
    """

    video_id: str
    event_id: int | None
    start: Seconds
    end: Seconds
    reasons: tuple[str, ...]
    gain: float
    caption: str = field(default="", compare=False)


def check_annotations(path: str | os.PathLike) -> list[Flag]:
    """Flag events of an annotation file, with what its stages know where they stand beside it.

    Args:
        path: JSON of `longvale annotate`, or any official annotations.

    Returns:
        Flags, those with most to gain first.

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
    flags = [flag for annotation in annotations.values() for flag in check_video(annotation, stages)]
    return sorted(flags, key=lambda flag: (-flag.gain, flag.video_id, flag.start))


def check_video(annotation: Annotation, stages: Mapping[str, StageLog]) -> list[Flag]:
    """Flags of one video.

    Args:
        annotation: of the video.
        stages: `captions`, `events` and `boundaries`, those that there are.

    Example:
        >>> from longvale.events import Event
        >>> twice = Annotation("a", 20.0, (Event(0, 9, "A dog runs."), Event(9, 20, "A dog runs.")))
        >>> [(flag.event_id, flag.reasons) for flag in check_video(twice, {})]
        [(1, ('near-duplicate',))]
    """
    flags = []
    boundaries = stages["boundaries"].get(annotation.video_id) if "boundaries" in stages else None
    for index, event in enumerate(annotation.events):
        reasons = []
        told, written = (_same(stages, name, annotation.video_id, index, event) for name in ("captions", "events"))
        if written and written["refused"]:
            reasons.append("refused")
        if told:
            reasons += _contradictions(event.caption, told["measured"], told["modalities"])
        earlier = [other.caption for other in annotation.events[:index]]
        if any(_alike(event.caption, caption) for caption in earlier):
            reasons.append("near-duplicate")
        if event.length > LONG_S:
            reasons.append("very long")
        if boundaries and _many_cuts(event.start, event.end, boundaries["cuts"]):
            reasons.append("low coherence")
        if reasons:
            flags.append(_flag(annotation.video_id, index, event.start, event.end, reasons, event.caption))
    flags += [_flag(annotation.video_id, None, a, b, ["hole"], "") for a, b in _holes(annotation)]
    return flags


def _same(stages: Mapping[str, StageLog], name: str, video_id: str, index: int, event: Any) -> dict[str, Any] | None:
    """The stage's record of an event, unless a person has moved it since."""
    record = stages[name].get(video_id, index) if name in stages else None
    if record and (record["start"], record["end"]) == (event.start, event.end):
        return record
    return None


def _contradictions(caption: str, measured: Mapping[str, Any], modalities: Sequence[str]) -> list[str]:
    text = caption.lower()
    sounds, sights = (any(word in text for word in words) for words in (_SOUND_WORDS, _SIGHT_WORDS))
    found = []
    if sounds and "audio" not in modalities and "speech" not in modalities:
        found.append("silence described as sound")
    if not sounds and ("audio" in modalities or "speech" in modalities):
        found.append("sound not mentioned")
    if sights and measured.get("brightness") is None:
        found.append("no picture described as picture")
    return found


def _alike(first: str, second: str) -> bool:
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    return matcher.quick_ratio() >= DUPLICATE_RATIO and matcher.ratio() >= DUPLICATE_RATIO


def _many_cuts(start: Seconds, end: Seconds, cuts: Sequence[Seconds]) -> bool:
    inside = sum(start < cut < end for cut in cuts)
    return inside > 2 and inside / (end - start) * 60 > CUTS_A_MINUTE


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
    """The first flags as lines of text."""
    lines = [f"{len(flags)} to look at" + (f", the first {top}:" if len(flags) > top else "")]
    for flag in flags[:top]:
        what = "hole" if flag.event_id is None else f"event {flag.event_id}"
        lines.append(
            f"{flag.gain:4.1f}  {flag.video_id} {what} {flag.start:.1f}-{flag.end:.1f} s: {', '.join(flag.reasons)}"
            + (f": {flag.caption[:60]}" if flag.caption else "")
        )
    return "\n".join(lines)


def save_flags(flags: Sequence[Flag], path: str | os.PathLike) -> None:
    """Write flags, one JSON object a line."""
    with atomic_write(Path(path)) as file:
        file.writelines(json.dumps(asdict(flag), ensure_ascii=False) + "\n" for flag in flags)
