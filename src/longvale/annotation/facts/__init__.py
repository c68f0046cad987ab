"""Facts: what is known of an event, with times, confidence and origin; sentences from them, and claims checked by them.

| module | contents |
| --- | --- |
| `fact.py` | one fact, its JSON form, and numbered facts for a language model |
| `seen.py` | shots, camera, fades, text on screen |
| `heard.py` | silence, loudness, sounds, voices, speakers, words |
| `sentences.py` | facts in plain words, without a model |
| `claims.py` | whether facts support what a caption says |
"""

from __future__ import annotations

from collections.abc import Sequence

from ...events import Seconds
from ..boundaries.fusion import Interval
from ..clip_reader import ClipReader
from ..tracks import Tracks, within
from .claims import unsupported
from .fact import Fact, Source, numbered
from .heard import find_heard, find_spoken
from .seen import find_seen
from .sentences import plain

__all__ = ["Fact", "Source", "find_facts", "numbered", "plain", "unsupported"]


def find_facts(
    reader: ClipReader,
    start: Seconds,
    end: Seconds,
    cuts: Sequence[Seconds],
    speech: Sequence[Interval],
    tracks: Tracks,
) -> list[Fact]:
    """Find what is known of an event without the captions of models.

    Args:
        reader: frames and sound of the video.
        start: seconds.
        end: seconds, after `start`.
        cuts: cuts of the video in seconds.
        speech: speech turns of the video in seconds.
        tracks: the tracks of the video.
    """
    found = within(tracks, start, end)
    spoken = find_spoken(reader, start, end, speech, found)
    return [*find_seen(reader, start, end, cuts, found), *find_heard(reader, start, end, found, spoken), *spoken]
