"""One fact of an event, its JSON form, and the numbered facts that a language model receives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from ...events import Modality, Seconds

Source: TypeAlias = Literal[
    "shots", "camera", "fade", "colour", "text",
    "silence", "loudness", "sound", "sounds",
    "voices", "speakers", "transcript",
    "video", "keyframe", "audio", "speech",
]  # fmt: skip
#: What a fact comes from: measurements, tracks, or the caption of a role.
SOURCES: tuple[Source, ...] = get_args(Source)

#: Confidence below which a language model is warned that a fact is only probable.
_PROBABLE = 0.5


@dataclass(frozen=True)
class Fact:
    """One thing that is known of an event.

    Args:
        modality: how it is perceived.
        source: what it comes from, see [`SOURCES`].
        text: what is known: words on screen, the label of a sound, spoken words, a caption, or a phrase such as
            "four shots".
        start: seconds.
        end: seconds.
        confidence: 0 to 1; None for measurements, and for models that give none.
        speaker: label of the speaker of words, such as "speaker 1".
    """

    modality: Modality
    source: Source
    text: str
    start: Seconds
    end: Seconds
    confidence: float | None = None
    speaker: str = ""

    def to_record(self) -> dict[str, Any]:
        """Return JSON values; fields with their default are left out.

        Example:
            >>> Fact("audio", "sounds", "Dog", 1.0, 2.5, 0.9).to_record()
            {'modality': 'audio', 'source': 'sounds', 'text': 'Dog', 'start': 1.0, 'end': 2.5, 'confidence': 0.9}
        """
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Fact:
        """Read what `to_record` returned."""
        return cls(**{"text": "", **record})


def clock(seconds: Seconds) -> str:
    """Format a time as players show it.

    Example:
        >>> clock(71.6), clock(3725.0)
        ('1:11', '1:02:05')
    """
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minutes}:{second:02d}"


def phrase(fact: Fact) -> str:
    """Return a fact as a phrase that is clear without its source.

    Example:
        >>> phrase(Fact("speech", "transcript", "Hi", 0, 1, speaker="speaker 2"))
        'speaker 2 says: "Hi"'
    """
    if fact.source == "text":
        return f'the words "{fact.text}" on the screen'
    if fact.source in ("transcript", "speech"):
        return f'{fact.speaker or "a voice"} says: "{fact.text}"'
    if fact.source == "speakers":
        return f"{fact.text} speaks"
    return fact.text.split(",")[0].lower() if fact.source == "sounds" else fact.text


def numbered(facts: Sequence[Fact], start: Seconds, end: Seconds) -> str:
    """Format facts as numbered lines under what is seen, heard and said, with times and doubts.

    Args:
        facts: facts of the event; a number is an index in them plus one.
        start: start of the event in seconds.
        end: end of the event in seconds.

    Example:
        >>> known = [Fact("visual", "video", "A man waves.", 0, 9), Fact("audio", "sounds", "Dog", 2, 4, 0.3)]
        >>> print(numbered(known, 0, 9))
        SEEN:
        1. A man waves.
        HEARD:
        2. dog (0:02 to 0:04, not sure)
        SAID:
        (nothing)
    """
    lines = []
    for title, modality in (("SEEN", "visual"), ("HEARD", "audio"), ("SAID", "speech")):
        own = [(number, fact) for number, fact in enumerate(facts, 1) if fact.modality == modality]
        lines += [f"{title}:", *(f"{n}. {phrase(f)}{_notes(f, start, end)}" for n, f in own)]
        lines += [] if own else ["(nothing)"]
    return "\n".join(lines)


def is_whole(fact: Fact, start: Seconds, end: Seconds) -> bool:
    """Return whether a fact is about the whole event, apart from a tenth of it at each end.

    Example:
        >>> [is_whole(Fact("audio", "sounds", "Dog", start, 20), 10, 20) for start in (10.5, 15)]
        [True, False]
    """
    return fact.start <= start + 0.1 * (end - start) and fact.end >= end - 0.1 * (end - start)


def _notes(fact: Fact, start: Seconds, end: Seconds) -> str:
    notes = [] if is_whole(fact, start, end) else [f"{clock(fact.start)} to {clock(fact.end)}"]
    if fact.confidence is not None and fact.confidence < _PROBABLE:
        notes.append("not sure")
    return f" ({', '.join(notes)})" if notes else ""
