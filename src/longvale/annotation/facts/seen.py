"""What is surely seen of an event without a model: shots, camera, fades to and from black, one colour; text on screen.

A cut counts if the picture keeps its layout on both sides of it and changes it across: the correlation of the pixels of
the frames before and after is then low, and that of neighbouring frames of one side is high. Pictures that
change as much from frame to frame have no countable shots. The thresholds separate the cuts of ten real clips, each
looked at: animation that a detector cuts (.34 to .49 across, .33 to .58 within) and film (-.26 to .42 across).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...events import Seconds
from ..clip_reader import ClipReader
from ..tracks import Span, Track
from .fact import Fact

#: Highest correlation of the frames on both sides of a cut, and by how much that within the sides exceeds it.
_ACROSS, _MARGIN = 0.6, 0.12
#: A shot lasts at least this long; cuts this near to an event's boundary are that boundary.
_SHORTEST_S: Seconds = 0.3
#: Mean grey level, 0 to 255, up to which a picture is black.
_BLACK = 6.0
#: A fade takes at least this long; shorter is a cut.
_FADE_S: Seconds = 0.5
#: Longest fade that is looked for beyond the boundary of an event.
_BEYOND_S: Seconds = 1.0
#: Change of a pixel with an edge, 0 to 255, up to which it is the same; share of them that are when a camera is still.
_SAME, _STILL_SHARE = 10.0, 0.75
#: Mean change of a pixel from frame to frame up to which a picture is frozen.
_FROZEN = 0.3
#: Standard deviation of the pixels of a plain picture.
_PLAIN = 12.0

#: Shots that are several, and many.
_SEVERAL, _MANY = 3, 8
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


def find_seen(
    reader: ClipReader, start: Seconds, end: Seconds, cuts: Sequence[Seconds], tracks: Mapping[Track, Sequence[Span]]
) -> list[Fact]:
    """Find what is seen in an event.

    Args:
        reader: frames of the video.
        start, end: start and end of the event in seconds.
        cuts: cuts of the video in seconds.
        tracks: tracks within the event.
    """
    if reader.frames is None:
        return []
    readings = [Fact("visual", "text", s.text, s.start, s.end, s.score) for s in tracks.get("text", ()) if s.text]
    inside = (reader.times >= start) & (reader.times < end)
    if not inside.any():
        return readings
    frames, times = reader.frames[inside], reader.times[inside]
    if frames.mean(axis=(1, 2, 3)).max() <= _BLACK:
        return [Fact("visual", "fade", "the picture is black", start, end), *readings]
    found = []
    shots, sure = count_shots(frames, times, [cut for cut in cuts if start < cut < end], start, end)
    if count := _count_word(shots, sure):
        found.append(Fact("visual", "shots", f"{count} shot{'s' if count != 'one' else ''}", start, end))
    if sure and shots == 1:
        if camera := _camera(frames.mean(axis=3, dtype=np.float32)):
            found.append(Fact("visual", "camera", camera, start, end))
        if colour := _plain_colour(frames):
            found.append(Fact("visual", "colour", colour, start, end))
    found += _fades(reader, start, end)
    return found + readings


def _count_word(shots: int, sure: bool) -> str:
    """Return how many shots there are; if cuts are in doubt, whether there are several or many, else ""."""
    if sure and shots < len(_NUMBERS):
        return _NUMBERS[shots]
    return "many" if shots >= _MANY else "several" if shots >= _SEVERAL else ""


def count_shots(
    frames: np.ndarray, times: np.ndarray, cuts: Sequence[Seconds], start: Seconds, end: Seconds
) -> tuple[int, bool]:
    """Count shots.

    Args:
        frames: uint8 [F, H, W, 3], of an event.
        times: float64 [F], their times in seconds.
        cuts: cuts within the event in seconds.
        start, end: start and end of the event in seconds.

    Returns:
        The number of shots, and whether it is sure: no cut in doubt, and no dissolve.
    """
    flat = frames.reshape(len(frames), -1)
    last, shots, sure = start, 1, True
    for cut in cuts:
        after = int(np.searchsorted(times, cut))
        if cut - last < _SHORTEST_S or end - cut < _SHORTEST_S or not 2 <= after <= len(flat) - 2:
            continue
        a, b, c, d = flat[after - 2 : after + 2].astype(np.float32)
        black = min(b.mean(), c.mean()) <= _BLACK < max(b.mean(), c.mean())
        across = correlation(b, c)
        if black or (across < _ACROSS and across < min(correlation(a, b), correlation(c, d)) - _MARGIN):
            shots, last = shots + 1, cut
        else:
            sure = False
    return shots, sure and not _dissolves(flat, times, cuts)


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the correlation of two pictures, 0 if one of them is plain."""
    first, second = first - first.mean(), second - second.mean()
    size = np.sqrt(np.vdot(first, first) * np.vdot(second, second))
    return float(np.vdot(first, second) / size) if size > 0 else 0.0


def _dissolves(flat: np.ndarray, times: np.ndarray, cuts: Sequence[Seconds]) -> bool:
    """Whether a picture between cuts is a blend of two others, before and after it, that differ from each other."""
    reach = 4  # 0.8 s at five frames per second
    edges = np.searchsorted(times, cuts)
    for middle in range(reach, len(flat) - reach):
        if np.any((edges > middle - reach) & (edges <= middle + reach)):
            continue
        before, now, after = flat[middle - reach : middle + reach + 1 : reach].astype(np.float32)
        if correlation(before, after) >= _ACROSS:
            continue
        sides = np.stack([before, after, np.ones_like(now)], axis=1)
        weights, *_ = np.linalg.lstsq(sides, now, rcond=None)
        explained = correlation(sides @ weights, now)
        if explained > 0.95 and min(weights[:2]) > 0.25:
            return True
    return False


def _camera(grey: np.ndarray) -> str:
    """Return whether the picture is frozen or the camera is still: pixels with an edge keep their grey level."""
    if len(grey) < 5:
        return ""
    if np.abs(np.diff(grey, axis=0)).mean() <= _FROZEN:
        return "the picture does not move"
    middle = grey[len(grey) // 2]
    edges = np.hypot(*np.gradient(middle)) > _SAME
    if edges.mean() < 0.02:
        return ""
    steps = grey[np.linspace(0, len(grey) - 1, 8).round().astype(int)]
    same = np.abs(steps - np.median(steps, axis=0))[:, edges] <= _SAME
    return "the camera is still" if same.mean() >= _STILL_SHARE else ""


def _fades(reader: ClipReader, start: Seconds, end: Seconds) -> list[Fact]:
    """Return fades from and to black at the boundaries of an event."""
    wide = (reader.times >= start - _BEYOND_S) & (reader.times < end + _BEYOND_S)
    levels, times = reader.frames[wide].mean(axis=(1, 2, 3)), reader.times[wide]  # type: ignore[index]
    length = min(3.0, (end - start) / 2)
    found = []
    if fade := _fade(levels[::-1], times[::-1], start + length):
        found.append(Fact("visual", "fade", "fades in from black", max(start, fade[1]), min(end, fade[0])))
    if fade := _fade(levels, times, end - length):
        found.append(Fact("visual", "fade", "fades to black", max(start, fade[0]), min(end, fade[1])))
    return found


def _fade(levels: np.ndarray, times: np.ndarray, limit: Seconds) -> tuple[Seconds, Seconds] | None:
    """Return start and end of a steady fall to black that reaches it after `limit` (before it, in reversed time)."""
    forward = times[-1] >= times[0]
    late = times >= limit if forward else times <= limit
    black = np.flatnonzero((levels <= _BLACK) & late)
    if not len(black):
        return None
    last = first = int(black[0])
    while first > 0 and levels[first - 1] > levels[first] + 0.5:
        first -= 1
    steps = -np.diff(levels[first : last + 1])
    if abs(times[last] - times[first]) < _FADE_S or levels[first] < 5 * _BLACK or steps.max() > 0.7 * levels[first]:
        return None
    return float(times[first]), float(times[last])


def _plain_colour(frames: np.ndarray) -> str:
    """Return the colour of a plain picture, such as "red"; "" for any other."""
    from ..measurements import colours

    some = frames[:: max(1, len(frames) // 8)]
    names = colours(some)
    return names[0] if len(names) == 1 and float(some.std(axis=(1, 2)).mean()) <= _PLAIN else ""
