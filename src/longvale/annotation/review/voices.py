"""Export of who speaks and what is said: RTTM, and subtitles with voices, from the tracks of `longvale annotate`.

| format | file | contents |
| --- | --- | --- |
| `rttm` | `<video>.rttm` | turns of speakers, as NIST's scorers and pyannote read them |
| `voices-webvtt` | `<video>.voices.vtt` | what is said, with voices: `<v Speaker 1>` |
| `voices-srt` | `<video>.voices.srt` | what is said, after the name: `Speaker 1: ...` |
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ...events import Annotation, Event, load_annotations
from ...exports import to_srt, to_webvtt
from ...io import atomic_write
from ..pipeline import stage_folder
from ..stages import StageLog
from ..tracks import Span, Track

#: Stand for the brackets of a voice until everything else is escaped; private characters, which texts then lack.
_OPEN, _CLOSE = "\ue000", "\ue001"


def to_rttm(video_id: str, speakers: Sequence[Span]) -> str:
    """Return RTTM: one line per turn with file, start, length and speaker; spaces in names become "_".

    Example:
        >>> print(to_rttm("my video", [Span(0.5, 2.0, "speaker 1")]), end="")
        SPEAKER my_video 1 0.500 1.500 <NA> <NA> speaker_1 <NA> <NA>
    """
    name = "_".join(video_id.split())
    return "".join(
        f"SPEAKER {name} 1 {span.start:.3f} {span.end - span.start:.3f} <NA> <NA> {'_'.join(span.text.split())} "
        "<NA> <NA>\n"
        for span in speakers
    )


def to_voices_webvtt(video_id: str, transcript: Sequence[Span]) -> str:
    """Return WebVTT with a voice per cue.

    Example:
        >>> print(to_voices_webvtt("abc", [Span(0.5, 2.0, "Salt & pepper?", speaker="speaker 1")]), end="")
        WEBVTT
        <BLANKLINE>
        1
        00:00:00.500 --> 00:00:02.000
        <v Speaker 1>Salt &amp; pepper?
    """
    text = to_webvtt(_as_events(video_id, transcript, f"{_OPEN}{{}}{_CLOSE}{{}}"))
    return text.replace(_OPEN, "<v ").replace(_CLOSE, ">")


def to_voices_srt(video_id: str, transcript: Sequence[Span]) -> str:
    """Return SubRip with the name of the speaker before what is said.

    Example:
        >>> print(to_voices_srt("abc", [Span(0.5, 2.0, "Salt?", speaker="speaker 1")]), end="")
        1
        00:00:00,500 --> 00:00:02,000
        Speaker 1: Salt?
    """
    return to_srt(_as_events(video_id, transcript, "{}: {}"))


def _as_events(video_id: str, transcript: Sequence[Span], pattern: str) -> Annotation:
    events = []
    for span in transcript:
        speaker, text = (part.replace(_OPEN, "").replace(_CLOSE, "").strip() for part in (span.speaker, span.text))
        if text:
            events.append(Event(span.start, span.end, pattern.format(speaker.capitalize(), text) if speaker else text))
    return Annotation(video_id, max((event.end for event in events), default=1.0), tuple(events))


#: Formats by name: the track, the suffix of the files, and the writer.
VOICE_FORMATS: dict[str, tuple[Track, str, Callable[[str, Sequence[Span]], str]]] = {
    "rttm": ("speakers", ".rttm", to_rttm),
    "voices-webvtt": ("transcript", ".voices.vtt", to_voices_webvtt),
    "voices-srt": ("transcript", ".voices.srt", to_voices_srt),
}


def export_voices(annotations: str | os.PathLike, output: str | os.PathLike, name: str) -> int:
    """Write the speakers, or what is said, of each video of an annotation file to a file of its own.

    Args:
        annotations: output of `longvale annotate`, with its stages next to it.
        output: folder to write, created if needed.
        name: name in `VOICE_FORMATS`.

    Returns:
        The number of files: videos whose track was found.

    Raises:
        FileNotFoundError: if there are no annotations.
        ValueError: if no video has the track.
    """
    track, suffix, write = VOICE_FORMATS[name]
    path = stage_folder(Path(annotations)) / "tracks.jsonl"
    videos = load_annotations(annotations)
    log = StageLog(path, ("video_id", "track")) if path.is_file() else None
    records = {video_id: log.get(video_id, track) if log else None for video_id in videos}
    found = {video_id: record for video_id, record in records.items() if record is not None}
    if not found:
        remedy = "--speakers" if track == "speakers" else "--speech-recogniser MODEL, and --speakers for voices"
        raise ValueError(f"{path}: no {track} of these videos; annotate them with {remedy}")
    Path(output).mkdir(parents=True, exist_ok=True)
    for video_id, record in found.items():
        with atomic_write(Path(output, f"{video_id}{suffix}")) as file:
            file.write(write(video_id, [Span.from_record(span) for span in record["spans"]]))
    return len(found)
