"""Facts in plain words: what is sure, as short sentences without colours and hertz.

Times are words where words do ("at first", "throughout", "at the end"); otherwise they are those of the video, as a
player shows them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from ...events import Seconds
from .fact import Fact, Source, clock
from .heard import VOICE_LABELS, first_name

#: Words of a transcript that are quoted in a caption; the facts hold all of them.
MAX_WORDS = 60
#: Readings of text on screen that are quoted, and their total length in characters.
_READINGS, _CHARACTERS = 4, 200
#: Sounds that are named.
_SOUNDS = 4
#: Gap within which two spans of the same are one.
_GAP_S: Seconds = 1.0
#: Names of sounds that make a sentence on their own: "Music throughout." Others are listed: "Sounds: dog at first."
_ALONE = {
    "music", "applause", "laughter", "singing", "cheering", "rain", "wind", "thunder", "traffic", "noise", "speech",
    "chatter", "crowd",
}  # fmt: skip


def plain(facts: Sequence[Fact], role: str, start: Seconds, end: Seconds) -> str:
    """Return what the facts say of one role, in sentences; "" if nothing is known.

    Args:
        facts: facts of an event.
        role: `video`, `keyframe`, `audio` or `speech`.
        start: start of the event in seconds.
        end: end of the event in seconds.

    Example:
        >>> known = [Fact("visual", "shots", "one shot", 0, 9), Fact("visual", "text", "EXIT", 0, 9)]
        >>> plain(known, "video", 0, 9)
        'One shot. The words "EXIT" are on the screen.'
    """
    write = {"video": _seen, "audio": _heard, "speech": _spoken}.get(role)
    return " ".join(sentence for sentence in write(facts, start, end) if sentence) if write else ""


def on_screen(facts: Sequence[Fact], start: Seconds, end: Seconds) -> str:
    """Return the sentence about text on the screen; "" without any."""
    groups = _grouped(_of(facts, "text"))
    texts = [text for text, _ in groups]
    if not texts:
        return ""
    quoted = list(itertools.accumulate(texts, lambda total, text: total + len(text), initial=0))[1:]
    fits = [text for text, total in zip(texts, quoted, strict=True) if total <= _CHARACTERS][:_READINGS]
    fits = fits or [texts[0][:_CHARACTERS].rsplit(" ", 1)[0]]
    names = _joined([f'"{text}"' for text in fits])
    if len(fits) < len(texts):
        return f"Much text is on the screen, such as {names}."
    if len(groups) == 1:
        time = when([(f.start, f.end) for f in groups[0][1]], start, end)
        return f"The words {names} are on the screen{'' if time == 'throughout' else f' {time}'}."
    return f"The words {names} are on the screen."


def _seen(facts: Sequence[Fact], start: Seconds, end: Seconds) -> list[str]:
    shots = next((f.text for f in _of(facts, "shots")), "")
    camera = next((f.text for f in _of(facts, "camera")), "")
    fades = [f.text for f in _of(facts, "fade")]
    several = shots not in ("", "one shot")
    parts = [shots or ("a picture" if fades and fades[0].startswith("fades") else "")]
    for fade in fades:
        if not fade.startswith("fades"):
            return [_sentence(fade), on_screen(facts, start, end)]
        whose = ("the first " if fade.startswith("fades in") else "the last ") if several else "that "
        parts.append(f"{whose}{fade}")
    first = _sentence(f"{parts[0]}{', ' if several and len(parts) > 1 else ' '}{' and '.join(parts[1:])}".strip())
    if camera:
        first = "A picture that does not move." if "does not" in camera else first[:-1] + "; the camera is still."
    text = on_screen(facts, start, end)
    colour = next((f.text for f in _of(facts, "colour")), "")
    if colour and not text and not fades:  # nothing better is known
        return [f"A plain {colour} picture."]
    return [first, text]


def _heard(facts: Sequence[Fact], start: Seconds, end: Seconds) -> list[str]:
    silences = _of(facts, "silence")
    if any(f.text != "silence" for f in silences):
        return ["There is no sound."]
    if sum(f.end - f.start for f in silences) >= 0.98 * (end - start):
        return ["Silence."]
    named, listed = [], []
    voiced = any(f.modality == "speech" for f in facts)
    for label, own in _grouped(sorted(_of(facts, "sounds"), key=_importance)):
        name = first_name(label)
        if voiced and name in VOICE_LABELS:
            continue
        item = (name, when([(f.start, f.end) for f in own], start, end))
        (named if name in _ALONE else listed).append(item)
    named, listed = named[:_SOUNDS], listed[: max(0, _SOUNDS - len(named[:_SOUNDS]))]
    named = named or [(f.text, when([(f.start, f.end)], start, end)) for f in _of(facts, "sound")]
    change = next(iter(_of(facts, "loudness")), None)
    later = f"{change.text} from {clock(change.start)}" if change else ""
    texts = []
    if named:
        texts.append(_sentence(f"{_timed(named)}, {later}" if later else _timed(named)))
    if listed:
        texts.append(f"Sounds: {_timed(listed)}.")
    if later and not named:
        texts.append(_sentence(later))
    longest = max(silences, key=lambda f: f.end - f.start, default=None)
    if longest and longest.end - longest.start >= 0.1 * (end - start):
        texts = [text.replace(" throughout", "") for text in texts]  # except in the silence
        texts.append(_sentence(f"silence {when([(f.start, f.end) for f in silences], start, end)}"))
        texts = texts[-1:] + texts[:-1] if longest.start <= start + 0.1 else texts
    return texts


def _importance(fact: Fact) -> tuple[float, str]:
    return -(1.0 if fact.confidence is None else fact.confidence) * (fact.end - fact.start), fact.text


def _spoken(facts: Sequence[Fact], start: Seconds, end: Seconds) -> list[str]:
    said = sorted(_of(facts, "transcript"), key=lambda f: f.start)
    speakers = _of(facts, "speakers")
    labels = list(dict.fromkeys(f.text for f in speakers))
    labels = [label for label in labels if sum(f.end - f.start for f in speakers if f.text == label) >= 0.5]
    spans = [(f.start, f.end) for f in (speakers or _of(facts, "voices"))]
    time = when(spans, start, end) if spans else ""
    texts = []
    if labels:
        names = ("no", "one", "two", "three", "four", "five", "six")
        count = names[len(labels)] if len(labels) < len(names) else "many"
        texts.append(
            f"{count.capitalize()} voice{'s speak' if len(labels) > 1 else ' speaks'} {time}{_at_once(speakers)}."
        )
        if len(labels) == 1 and said and {f.speaker for f in said} <= {"", labels[0]}:
            words = quotes([replace(f, speaker="") for f in said])
            return [f"{texts[0][:-1]}: {words[0].partition(': ')[2]}"] if words else texts
    elif spans and not said:
        texts.append(f"Somebody speaks {time}.")
    return texts + quotes(said)


def quotes(said: Sequence[Fact]) -> list[str]:
    """Return what is said, one sentence per turn of a speaker, at most [`MAX_WORDS`] words in all."""
    texts, left = [], MAX_WORDS
    for speaker, turns in itertools.groupby(said, key=lambda f: f.speaker):
        words = " ".join(f.text for f in turns).replace('"', "'").split()
        if left <= 0 or not words:
            break
        shown, more = " ".join(words[:left]), len(words) > left
        texts.append(f'{speaker.capitalize() or "A voice"} says: "{shown}{" ..." if more else ""}"')
        left -= len(words)
    return texts


def _at_once(speakers: Sequence[Fact]) -> str:
    together = sum(
        max(0.0, min(a.end, b.end) - max(a.start, b.start))
        for a, b in itertools.combinations(speakers, 2)
        if a.text != b.text
    )
    return ", for a time at once" if together >= 0.5 else ""


def when(spans: Sequence[tuple[Seconds, Seconds]], start: Seconds, end: Seconds) -> str:
    """Say when something is there in an event.

    Args:
        spans: start and end in seconds, within the event.
        start: start of the event in seconds.
        end: end of the event in seconds.

    Example:
        >>> [when([span], 10, 40) for span in ((10, 40), (10, 14), (35, 40), (22, 40), (20, 25))]
        ['throughout', 'at first', 'at the end', 'from 0:22 on', 'from 0:20 to 0:25']
    """
    merged: list[list[Seconds]] = []
    for a, b in sorted(spans):
        if merged and a - merged[-1][1] <= _GAP_S:
            merged[-1][1] = max(merged[-1][1], b)
        else:
            merged.append([a, b])
    length = end - start
    covered = sum(b - a for a, b in merged) / length
    near = max(0.15 * length, min(1.5, 0.25 * length))
    early, late = merged[0][0] <= start + near, merged[-1][1] >= end - near
    if early and late and covered >= 0.7:
        return "throughout"
    if len(merged) > 1 and covered > 0.5:
        return "most of the time"
    if len(merged) == 2:
        return " and ".join(when([(a, b)], start, end) for a, b in merged)
    if len(merged) > 2:
        return "several times"
    ((a, b),) = merged
    if early:
        return "at first" if covered <= 1 / 3 else f"until {clock(b)}"
    if late:
        return "at the end" if covered <= 1 / 3 else f"from {clock(a)} on"
    return f"from {clock(a)} to {clock(b)}" if clock(a) != clock(b) else f"at {clock(a)}"


def _of(facts: Sequence[Fact], source: Source) -> list[Fact]:
    return [fact for fact in facts if fact.source == source]


def _grouped(facts: Sequence[Fact]) -> list[tuple[str, list[Fact]]]:
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(fact.text, []).append(fact)
    return list(groups.items())


def _timed(items: Sequence[tuple[str, str]]) -> str:
    """Join names with their times; a time that several share is written once.

    Example:
        >>> _timed([("music", "throughout"), ("rain", "at first"), ("applause", "throughout")])
        'music and applause throughout and rain at first'
    """
    groups: dict[str, list[str]] = {}
    for name, time in items:
        groups.setdefault(time, []).append(name)
    return _joined([f"{_joined(names)} {time}" for time, names in groups.items()])


def _joined(items: Sequence[str]) -> str:
    """Join items with commas and "and"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
