"""Description of an event: its captions by role, its facts, and the modalities in which it is perceived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..chat_client import NoAnswer
from ..events import Modality
from .captions import CLIP_FRAMES, Captioner, Clip, Role, TemplateCaptioner, ask_captioner, parts
from .clip_reader import ClipReader
from .facts import Fact
from .facts.sentences import on_screen
from .measurements import Measurements, measure
from .tracks import Tracks, within

#: An event is perceived in a modality that fills at least this fraction of it, or this many seconds.
_PERCEIVED_SHARE, _PERCEIVED_S = 0.1, 1.0


def describe(
    reader: ClipReader,
    start: float,
    end: float,
    speech: Sequence[tuple[float, float]],
    captioners: Mapping[Role, Captioner],
    unanswered: dict[Role, str] | None = None,
    tracks: Tracks | None = None,
    facts: Sequence[Fact] = (),
) -> dict[Role, str]:
    """Caption an event with each role; models caption long events in parts, without consecutive duplicates.

    Args:
        reader: frames and sound of the video.
        start, end: start and end of the event in seconds.
        speech: speech turns of the video in seconds.
        captioners: captioners by role.
        unanswered: filled with the reason of each role whose model wrote no caption for some part; None to raise
            `NoAnswer` instead.
        tracks: the tracks of the video.
        facts: facts of the event.
    """
    said: dict[Role, list[str]] = {role: [] for role in captioners}
    models = {role: captioner for role, captioner in captioners.items() if not isinstance(captioner, TemplateCaptioner)}
    if len(models) < len(captioners):
        whole = Clip(start, end, None, np.empty(0, np.float32), Measurements(), facts=facts)
        texts = {role: captioner(whole) for role, captioner in captioners.items() if role not in models}
        said |= {role: [text] for role, text in texts.items() if text}
    size = max((captioner.size for captioner in models.values()), default=48)
    for a, b in parts(start, end) if models else ():
        frames = None
        if reader.frames is not None:
            frames = reader.frames_at(a + (np.arange(CLIP_FRAMES) + 0.5) / CLIP_FRAMES * (b - a), size)
        clip = Clip(a, b, frames, reader.audio(a, b), measure(reader, a, b, speech), within(tracks or {}, a, b), facts)
        for role, captioner in models.items():
            try:
                text = ask_captioner(captioner, clip)
            except NoAnswer as error:
                if unanswered is None:
                    raise
                unanswered[role] = str(error)
                continue
            if text and said[role][-1:] != [text]:
                said[role].append(text)
    return {role: " ".join(texts) for role, texts in said.items()}


#: Modality of the captions of each role.
_MODALITY: dict[Role, Modality] = {"video": "visual", "keyframe": "visual", "audio": "audio", "speech": "speech"}


def captions_as_facts(
    captions: Mapping[Role, str], captioners: Mapping[Role, Captioner], start: float, end: float
) -> list[Fact]:
    """Return the captions of models as facts of the whole event; those of the template are made of facts."""
    return [
        Fact(_MODALITY[role], role, text, start, end)
        for role, text in captions.items()
        if text and role in _MODALITY and not isinstance(captioners[role], TemplateCaptioner)
    ]


def with_tracks(
    captions: Mapping[Role, str],
    captioners: Mapping[Role, Captioner],
    facts: Sequence[Fact],
    start: float,
    end: float,
) -> dict[Role, str]:
    """Append what tracks hold to the captions of models, which do not use them: text on screen, and sounds."""
    added = dict(captions)
    for role in captioners:
        if isinstance(captioners[role], TemplateCaptioner):
            continue
        known = [f for f in facts if f.source == "text" and f.text.lower() not in added[role].lower()]
        labels = list(dict.fromkeys(f.text for f in facts if f.source == "sounds"))
        more = on_screen(known, start, end) if role == "video" else ""
        more = f"Sounds: {', '.join(labels)}." if role == "audio" and labels else more
        added[role] = f"{added[role]} {more}".strip()
    return added


def modalities_of(start: float, end: float, found: Mapping[str, Any], measured: Measurements) -> list[Modality]:
    """Return the modalities in which an event can be perceived."""
    least = min(_PERCEIVED_S, _PERCEIVED_SHARE * (end - start))

    def shared(spans: Sequence[Sequence[float]]) -> float:
        return sum(max(0.0, min(b, end) - max(a, start)) for a, b in spans)

    perceived: list[Modality] = []
    if measured.brightness is not None and shared(found["visual"]) >= least:
        perceived.append("visual")
    if not measured.silent and shared(found["audio"]) >= least:
        perceived.append("audio")
    if shared(found["speech"]) >= least:
        perceived.append("speech")
    return perceived
