"""Boundaries with the help of tracks: class changes of a sound tagger, and changes of speaker.

A tagger knows what MFCCs do not: that a passage is music, whose notes are not sounds of their own, and that what a
speech detector found is not speech. Its windows are long, so its times are less precise: the start or end of a class is
moved to a change of the MFCCs nearby, and is a boundary of its own only where there is none.

Times and memory grow linearly with the number of sounds, apart from sorting.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from ...events import Seconds
from ..tracks import Found, Span, Tracks
from ..tracks.audioset import SoundKind, kind_of
from .fusion import Interval, fuse, join_overlapping, share_in, split_background

#: Music that continues for this time is a passage, of which sounds shorter than the second time are notes.
PASSAGE_S: Seconds = 8.0
NOTE_S: Seconds = 3.0
#: Fraction of a sound that must lie within a passage for it to be a note.
_NOTE_SHARE = 0.9
#: Probability of a label whose start and end are boundaries, and the distance within which they move to another one.
_SURE, _NEAR_S = 0.5, 1.0


def confirmed_turns(turns: Sequence[Interval], tracks: Tracks) -> list[Interval]:
    """Drop the speech turns in which a sound tagger found no speech.

    Args:
        turns: start and end of each speech turn in seconds.
        tracks: the tracks of the video. Without sounds, or if their tagger has no label of speech, all turns are
            returned.

    Example:
        >>> sounds = [Span(0.0, 9.0, "Music"), Span(12.0, 20.0, "Conversation")]
        >>> confirmed_turns([(3.0, 4.0), (13.0, 15.0)], {"sounds": sounds})
        [(13.0, 15.0)]
    """
    sounds = tracks.get("sounds", ())
    if not sounds or (isinstance(sounds, Found) and not sounds.tells_speech):
        return list(turns)
    spoken = _passages(sounds, {"speech"})
    return [turn for turn in turns if share_in(turn, spoken) > 0]


def voice_turns(turns: Sequence[Interval], tracks: Tracks) -> list[Interval]:
    """Return the turns of the speakers, and the speech turns in which there is no speaker.

    Args:
        turns: start and end of each speech turn in seconds.
        tracks: the tracks of the video.

    Example:
        >>> speakers = [Span(0.0, 4.0, "speaker 1"), Span(3.5, 6.0, "speaker 2")]
        >>> voice_turns([(0.1, 5.9), (8.0, 9.0)], {"speakers": speakers})
        [(0.0, 4.0), (3.5, 6.0), (8.0, 9.0)]
    """
    voices = [(span.start, span.end) for span in tracks.get("speakers", ())]
    known = join_overlapping(sorted(voices))
    return sorted([*voices, *(turn for turn in turns if not share_in(turn, known))])


def music_passages(tracks: Tracks, least_s: Seconds = PASSAGE_S) -> list[Interval]:
    """Return start and end of the music, of at least `least_s` seconds each, as a sound tagger found it.

    Example:
        >>> sounds = [Span(0.0, 6.0, "Music"), Span(5.0, 9.0, "Guitar"), Span(20.0, 22.0, "Music")]
        >>> music_passages({"sounds": sounds})
        [(0.0, 9.0)]
    """
    passages = _passages(tracks.get("sounds", ()), {"music", "singing"})
    return [(start, end) for start, end in passages if end - start >= least_s]


def guide_sounds(sounds: Sequence[Interval], turns: Sequence[Interval], tracks: Tracks) -> list[Interval]:
    """Drop the notes of music from sounds, and add what a tagger is sure of.

    Args:
        sounds: start and end of each sound in seconds, found without the tagger.
        turns: start and end of each speech turn in seconds.
        tracks: the tracks of the video; the sounds are returned if there is no track of sounds.

    Returns:
        Sounds sorted by start.

    Example:
        The note from 3 to 4 s is part of the music, which ends with the sound at 12.3 s; the dog is added.

        >>> tagged = [Span(0.0, 12.0, "Music", 0.9), Span(15.0, 16.0, "Dog", 0.8)]
        >>> guide_sounds([(0.0, 12.3), (3.0, 4.0)], [], {"sounds": tagged})
        [(0.0, 12.3), (15.0, 16.0)]
    """
    labelled = tracks.get("sounds", ())
    if not labelled:
        return sorted(sounds)
    passages = music_passages(tracks)
    kept = {
        sound
        for sound in sounds
        if sound[1] - sound[0] >= NOTE_S or not passages or share_in(sound, passages) <= _NOTE_SHARE
    }
    edges = sorted({time for interval in (*kept, *turns) for time in interval})
    sure = [span for span in labelled if span.score is None or span.score >= _SURE]
    for kinds in ({"music", "singing"}, {"sound"}):
        for start, end in _passages(sure, kinds):
            start, end = _nearest(start, edges), _nearest(end, edges)
            if start < end:
                kept.add((start, end))
    return sorted(kept)


def fuse_guided(
    visual: Sequence[Interval],
    sounds: Sequence[Interval],
    turns: Sequence[Interval],
    tracks: Tracks,
    *,
    min_length: Seconds = 0.0,
) -> list[Interval]:
    """Fuse visual events with sounds and voices, as the pipeline does: the background moves no boundary.

    Args:
        visual: start and end of each visual event in seconds.
        sounds: start and end of each sound in seconds, from [`guide_sounds`].
        turns: start and end of each speech turn in seconds, from [`confirmed_turns`].
        tracks: the tracks of the video.
        min_length: as in [`fuse`].

    Example:
        Two cuts within music, one of them also within a sentence.

        >>> fuse_guided([(0, 10), (10, 20), (20, 30)], [(2, 28)], [(19, 22)], {})
        [(0, 10), (10, 19), (19, 30)]
    """
    heard = [*sounds, *voice_turns(turns, tracks)]
    foreground, background = split_background(visual, heard, music_passages(tracks))
    return fuse(visual, foreground, background=background, min_length=min_length)


def _passages(sounds: Iterable[Span], kinds: set[SoundKind]) -> list[Interval]:
    """Return start and end of the labels of some kinds, overlapping ones joined."""
    return join_overlapping(sorted((span.start, span.end) for span in sounds if kind_of(span.text) in kinds))


def _nearest(time: Seconds, edges: Sequence[Seconds]) -> Seconds:
    """Return the nearest edge within [`_NEAR_S`], else the time itself; edges are sorted."""
    index = bisect_left(edges, time)
    near = min(edges[max(0, index - 1) : index + 1], key=lambda edge: abs(edge - time), default=time)
    return near if abs(near - time) <= _NEAR_S else time
