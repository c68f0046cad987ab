"""How a track is found: what a tracker returns is checked, and its failure on a video has a reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...chat_client import NoAnswer
from ...events import Seconds
from ...io import is_number
from ..boundaries.fusion import Interval
from ..clip_reader import ClipReader
from . import Found, Span, Tracker, Tracks, Word

#: A span may end this much after the video, as models round times up; it is then cut to the end of the video.
_BEYOND_S: Seconds = 1.0


def find_track(tracker: Tracker, reader: ClipReader, speech: Sequence[Interval], tracks: Tracks) -> tuple[Found, str]:
    """Find a track of a video, and check it.

    Args:
        tracker: finds the track.
        reader: frames and sound of the video.
        speech: speech turns, start and end in seconds.
        tracks: the tracks that were found before.

    Returns:
        The spans, and "". If the model fails on this video or returns something else, no spans, and the reason.

    Raises:
        ServerError: if a server gives no answer.
    """
    try:
        found = tracker(reader, speech, tracks)
    except (NoAnswer, RuntimeError) as error:  # torch raises RuntimeError, also without enough memory
        return Found(), " ".join(str(error).split())[:300] or type(error).__name__
    if not isinstance(found, Iterable):
        return Found(), f"{tracker.name}: returned {_kind(found)} instead of spans"
    spans = Found(dropped=getattr(found, "dropped", ()), tells_speech=getattr(found, "tells_speech", True))
    last = round(reader.duration, 3)
    for span in found:
        if fault := _fault(span, reader.duration):
            return Found(), f"{tracker.name}: {fault}"
        if span.start < last:
            spans.append(cut_span(span, last))
    return spans, ""


def cut_span(span: Span, duration: Seconds) -> Span:
    """Return a span that ends with the video at the latest.

    Example:
        >>> cut_span(Span(1.0, 5.2, "Dog"), 5.0).end
        5.0
    """
    if span.end <= duration:
        return span
    words = tuple(Word(word.start, min(word.end, duration), word.text) for word in span.words if word.start < duration)
    return Span(span.start, duration, span.text, span.score, span.speaker, words)


def _fault(span: object, duration: Seconds) -> str:
    """Return what is wrong with a span; "" for one as it should be."""
    if not isinstance(span, Span):
        return f"returned {_kind(span)} instead of a span"
    times = f"{span.start!r} to {span.end!r}"
    if not (is_number(span.start) and is_number(span.end) and 0 <= span.start < span.end <= duration + _BEYOND_S):
        return f"returned a span from {times} s, of a video of {duration:.2f} s"
    if not (isinstance(span.text, str) and isinstance(span.speaker, str)):
        return f"returned a span ({times} s) whose text or speaker is not text"
    if span.score is not None and not (is_number(span.score) and 0 <= span.score <= 1):
        return f"returned a span ({times} s) with a score of {span.score!r} instead of 0 to 1"
    for word in span.words:
        if not (
            isinstance(word, Word) and is_number(word.start) and is_number(word.end) and isinstance(word.text, str)
        ):
            return f"returned a span ({times} s) with a word that is not one: {str(word)[:80]}"
    return ""


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
