"""Fusion of visual and audio boundaries into omni-modal events.

The published rule (arXiv 2411.19772, figure 2): visual boundaries are the anchors, and a sound that overlaps one stays
whole. The paper does not say where an anchor within a sound moves. Here it moves to the nearer end of that sound, so
that a sound belongs to the visual event that it mostly overlaps. Joining the two visual events instead would turn a
whole video into one event if its sounds follow each other without a pause.

Music or talk that continues over many shots of a film would move their boundaries, or swallow the shots. Such sounds
are background, see [`split_background`]; they move no anchor.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from ...events import Seconds
from ...io import is_number

#: Start and end in seconds.
Interval: TypeAlias = tuple[Seconds, Seconds]

#: A sound that lies within music with more than this fraction is part of it.
_MOSTLY = 0.5
#: A sound is long if it is longer than this many times the shorter visual event beside the boundary.
_LONGER = 2.0


def fuse(
    visual: Iterable[Interval],
    audio: Iterable[Interval],
    *,
    background: Iterable[Interval] = (),
    min_length: Seconds = 0.0,
) -> list[Interval]:
    """Fuse visual and audio events into omni-modal events.

    Args:
        visual: start and end of each visual event in seconds; both are anchors.
        audio: start and end of each sound and speech turn in seconds. Overlapping sounds count as one sound.
        background: start and end of sounds that move no anchor and may be split, from [`split_background`]. Where
            nothing else is, they are events.
        min_length: events shorter than this in seconds, which moved anchors may cause, join their shorter neighbour.

    Returns:
        Events sorted by start, without overlap. Together they cover every input event, each sound of `audio` is
        within one event, and they begin and end within the range of the input. Without sounds these are the visual
        events.

    Raises:
        ValueError: if a time is not a finite number, 0 or more, an event does not end after it starts, or `min_length`
            is negative.

    Example:
        The figure of the paper: two visual events, and a sound across their boundary.

        >>> fuse([(4.7, 32.6), (32.6, 38.9)], [(5.8, 16.1), (16.1, 19.5), (19.5, 39.6)])
        [(4.7, 39.6)]
        >>> fuse([(0, 10), (10, 20)], [(9, 13), (15, 18)])
        [(0, 9), (9, 20)]
        >>> fuse([(0, 10), (10, 20)], [(15, 18)], background=[(9, 25)])
        [(0, 10), (10, 20), (20, 25)]
    """
    named = ((visual, "visual"), (audio, "audio"), (background, "background"))
    pictures, sounds, others = (_checked(events, name) for events, name in named)
    if not is_number(min_length) or min_length < 0:
        raise ValueError(f"min_length must be 0 s or more, not {min_length!r}")
    clusters = join_overlapping(sounds)
    anchors = sorted({_outside(time, clusters) for event in pictures for time in event})
    events = _between(anchors, pictures, clusters)
    return _join_short(sorted([*events, *_uncovered(join_overlapping(others), events)]), min_length)


def split_background(
    visual: Iterable[Interval], audio: Iterable[Interval], music: Iterable[Interval] = ()
) -> tuple[list[Interval], list[Interval]]:
    """Split sounds into those that may move the boundaries of visual events, and the background that may not.

    The background is: sounds that mostly lie within music; and sounds, alone or with those that they overlap, that
    contain several boundaries of visual events, or are longer than twice a visual event beside the boundary. A sound
    that contains no boundary is in the foreground. Without visual events all sounds are.

    Args:
        visual: start and end of each visual event in seconds.
        audio: start and end of each sound and speech turn in seconds.
        music: start and end of each passage of music in seconds, as a tagger finds them.

    Returns:
        Foreground and background, each sorted by start.

    Raises:
        ValueError: as [`fuse`].

    Example:
        A sound over two cuts, one that is much longer than the shot beside its cut, and a short one.

        >>> split_background([(0, 9), (9, 12), (12, 30), (30, 34)], [(8, 13), (25, 34), (14, 16)])
        ([(14, 16)], [(8, 13), (25, 34)])
        >>> split_background([(0, 9), (9, 20)], [(8, 11), (12, 14)], music=[(7, 11)])
        ([(12, 14)], [(8, 11)])
    """
    named = ((visual, "visual"), (audio, "audio"), (music, "music"))
    pictures, sounds, passages = (_checked(events, name) for events, name in named)
    anchors = sorted({time for event in pictures for time in event})
    played = join_overlapping(passages)
    background = {sound for sound in sounds if _inside(sound, anchors) and share_in(sound, played) > _MOSTLY}
    background |= {sound for sound in sounds if _is_long(sound, anchors)}
    for cluster in join_overlapping([sound for sound in sounds if sound not in background]):
        if _is_long(cluster, anchors):
            background |= {s for s in sounds if cluster[0] <= s[0] and s[1] <= cluster[1] and _inside(s, anchors)}
    return [sound for sound in sounds if sound not in background], sorted(background)


def _inside(sound: Interval, anchors: Sequence[Seconds]) -> Sequence[Seconds]:
    """Return the anchors within a sound; its ends are not within."""
    return anchors[bisect_right(anchors, sound[0]) : bisect_left(anchors, sound[1])]


def _is_long(sound: Interval, anchors: Sequence[Seconds]) -> bool:
    """Return whether a sound contains several anchors, or is much longer than the visual event beside its anchor."""
    within = _inside(sound, anchors)
    if len(within) != 1:
        return len(within) > 1
    index = bisect_left(anchors, within[0])
    beside = [b - a for a, b in itertools.pairwise(anchors[max(0, index - 1) : index + 2])]
    return sound[1] - sound[0] > _LONGER * min(beside)


def share_in(sound: Interval, passages: Sequence[Interval]) -> float:
    """Return the fraction of a sound that lies within passages.

    Args:
        sound: start and end in seconds.
        passages: start and end in seconds, sorted, without overlap.

    Example:
        >>> share_in((0, 4), [(1, 2), (3, 9)])
        0.5
    """
    first = max(0, bisect_right(passages, sound[0], key=lambda passage: passage[0]) - 1)
    last = bisect_left(passages, sound[1], key=lambda passage: passage[0])
    shared = sum(max(0.0, min(b, sound[1]) - max(a, sound[0])) for a, b in passages[first:last])
    return shared / (sound[1] - sound[0])


def _uncovered(sounds: Sequence[Interval], events: Sequence[Interval]) -> list[Interval]:
    """Return the parts of sounds that no event covers; both are sorted and do not overlap."""
    found = []
    for start, end in sounds:
        first = max(0, bisect_right(events, start, key=lambda event: event[0]) - 1)
        for a, b in events[first : bisect_left(events, end, key=lambda event: event[0])]:
            if start < a:
                found.append((start, a))
            start = max(start, b)
        if start < end:
            found.append((start, end))
    return found


def _checked(events: Iterable[Interval], name: str) -> list[Interval]:
    checked = []
    for event in events:
        start, end = event
        if not (is_number(start) and is_number(end) and 0 <= start < end):
            raise ValueError(f"{name} event must have finite times with 0 <= start < end, not {start!r} to {end!r}")
        checked.append((start, end))
    return sorted(set(checked))


def join_overlapping(events: Sequence[Interval]) -> list[Interval]:
    """Merge events that overlap; events that only touch stay separate.

    Args:
        events: start and end in seconds, sorted.

    Example:
        >>> join_overlapping([(0, 4), (3, 6), (6, 7)])
        [(0, 6), (6, 7)]
    """
    joined: list[Interval] = []
    for start, end in events:
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _outside(time: Seconds, clusters: Sequence[Interval]) -> Seconds:
    """Return the time, or the nearer end of the sound that contains it (the later one if both are equally near)."""
    for start, end in clusters:
        if start < time < end:
            return start if time - start < end - time else end
    return time


def _between(anchors: Sequence[Seconds], pictures: Sequence[Interval], clusters: Sequence[Interval]) -> list[Interval]:
    """Return the events between consecutive anchors: one if there is a visual event, else one per sound."""
    whole = min([time for event in (*pictures, *clusters) for time in event], default=0.0)
    last = max([time for event in (*pictures, *clusters) for time in event], default=0.0)
    edges = sorted({whole, *anchors, last})
    events: list[Interval] = []
    for left, right in itertools.pairwise(edges):
        seen = [(max(a, left), min(b, right)) for a, b in pictures if a < right and b > left]
        heard = [(a, b) for a, b in clusters if a < right and b > left]  # anchors cut no sound: each lies within
        if seen:
            parts = seen + heard
            events.append((min(a for a, _ in parts), max(b for _, b in parts)))
        else:
            events += heard
    return events


def _join_short(events: Sequence[Interval], min_length: Seconds) -> list[Interval]:
    """Join each event that is too short to the shorter of the neighbours that touch it."""
    events = list(events)
    while True:
        short = [i for i, (a, b) in enumerate(events) if b - a < min_length and _neighbours(events, i)]
        if not short:
            return events
        index = min(short, key=lambda i: (events[i][1] - events[i][0], i))
        other = min(_neighbours(events, index), key=lambda i: (events[i][1] - events[i][0], i))
        first, second = sorted((index, other))
        events[first : second + 1] = [(events[first][0], events[second][1])]


def _neighbours(events: Sequence[Interval], index: int) -> list[int]:
    found = []
    if index > 0 and events[index - 1][1] == events[index][0]:
        found.append(index - 1)
    if index + 1 < len(events) and events[index][1] == events[index + 1][0]:
        found.append(index + 1)
    return found
