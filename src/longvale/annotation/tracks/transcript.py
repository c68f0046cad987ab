"""Transcript: what is said, with times, from a speech recogniser and the guards of `guards.py`.

Speech turns are collected into parts of at most 30 s; longer ones are cut where they are quietest. Words outside of
speech turns, repetitions and inventions are dropped, and what was dropped is recorded with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from ...events import Seconds
from ...models.media import SAMPLING_RATE
from ..boundaries.fusion import Interval
from ..clip_reader import ClipReader
from . import Found, Span, Tracks, Word
from .guards import Dropped, Heard, is_doubtful, reject, reject_sentence, repeated

#: Longest part in seconds: Whisper's window.
MAX_PART_S: Seconds = 30.0
#: Speech turns with shorter pauses are recognised together: context helps. Longer pauses make Whisper invent words.
_JOINED_S: Seconds = 2.0
#: Silence around a part in seconds: the detector of speech cuts first and last sounds.
_MARGIN_S: Seconds = 0.2
#: A long turn is cut where it is quietest, in this last part of the 30 s.
_CUT_WITHIN_S: Seconds = 8.0
#: Characters of dropped words that are recorded.
_MAX_DROPPED = 200
#: Parts per call of the recogniser.
_BATCH = 64

#: A passage ends with a sentence or at a pause; it has at most this many seconds.
_PAUSE_S: Seconds = 1.0
_MAX_PASSAGE_S: Seconds = 15.0
_SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’»)]*$")
#: Words that look like the end of a sentence.
_ABBREVIATION = re.compile(r"(?i)^\W*(mr|mrs|ms|dr|st|prof|jr|sr|vs|no|\w)\.$")


@runtime_checkable
class Recogniser(Protocol):
    """Interface of a speech recogniser. A registered class or function is called with `ModelOptions` and returns one.

    One that also has `languages` and `identify_languages` serves the language filter, see
    [`longvale.annotation.languages.LanguageIdentifier`].

    Example:
        >>> from longvale.annotation.language_models import ModelOptions
        >>> from longvale.registry import recognisers
        >>> @recognisers.register()
        ... class Counter:
        ...     "Says how long a part is."
        ...     def __init__(self, options):
        ...         self.name = "counter"
        ...     def __call__(self, parts):
        ...         return [Heard(f"{len(part) // 16_000} seconds.") for part in parts]
        >>> Counter(ModelOptions())([np.zeros(32_000, np.float32)])[0].text
        '2 seconds.'
    """

    #: Name in the provenance.
    name: str

    def __call__(self, parts: Sequence[np.ndarray]) -> Sequence[Heard]:
        """Return what is said in each part of a video's sound. Raises `NoAnswer` or `ServerError` if that fails.

        Args:
            parts: float32 [samples] each, 16 kHz, at most 30 s, in the order of the video.
        """


class TranscriptTracker:
    """Tracker of what is said.

    Time grows with the speech, memory does not.

    Args:
        recogniser: recognises the speech of parts.
    """

    def __init__(self, recogniser: Recogniser) -> None:
        self.name, self.recogniser = recogniser.name, recogniser

    def __call__(self, reader: ClipReader, speech: Sequence[Interval], tracks: Tracks) -> Found:
        """Return the passages of a video, with words and confidence; `with_speakers` finds who says them."""
        spans: list[Span] = []
        dropped: list[Dropped] = []
        ranges = speech_parts(speech, reader.audio, reader.duration)
        for start in range(0, len(ranges), _BATCH):
            batch = ranges[start : start + _BATCH]
            heard = self.recogniser([reader.audio(a, b) for a, b in batch])
            for (a, b), found in zip(batch, heard, strict=True):
                spans += _passages(found, a, b, speech, dropped)
        notes = tuple((round(d.start, 2), round(d.end, 2), d.text[:_MAX_DROPPED], d.reason) for d in dropped)
        return Found(spans, notes)


# --- parts -----------------------------------------------------------------------------------------------------------


def speech_parts(
    turns: Sequence[Interval], audio: Audio, duration: Seconds, longest: Seconds = MAX_PART_S
) -> list[Interval]:
    """Return the parts to recognise: start and end in seconds.

    Args:
        turns: speech turns, start and end in seconds, ascending.
        audio: returns the sound between two times in seconds, float32 at 16 kHz.
        duration: of the video in seconds.
        longest: longest part in seconds.

    Example:
        >>> silence = lambda start, end: np.zeros(round((end - start) * 16_000), np.float32)
        >>> speech_parts([(1.0, 4.0), (5.0, 9.0), (20.0, 21.0)], silence, 60.0)
        [(0.8, 9.2), (19.8, 21.2)]
    """
    room = longest - 2 * _MARGIN_S
    pieces = [piece for turn in turns for piece in _cut(turn, audio, room)]
    joined: list[list[float]] = []
    for a, b in pieces:
        if joined and a - joined[-1][1] <= _JOINED_S and b - joined[-1][0] <= room:
            joined[-1][1] = b
        else:
            joined.append([a, b])
    edges = [-_MARGIN_S, *(edge for part in joined for edge in part), duration + _MARGIN_S]
    parts = []
    for n, (a, b) in enumerate(joined):  # margins do not reach into the next part
        before, after = edges[2 * n], edges[2 * n + 3]
        low, high = max(a - _MARGIN_S, (a + before) / 2, 0.0), min(b + _MARGIN_S, (b + after) / 2, duration)
        parts.append((round(low, 3), round(high, 3)))
    return [(a, b) for a, b in parts if b > a]


class Audio(Protocol):
    """Function that returns the sound between two times."""

    def __call__(self, start: Seconds, end: Seconds) -> np.ndarray:
        """Return float32 [samples], 16 kHz."""


def _cut(turn: Interval, audio: Audio, longest: Seconds) -> list[Interval]:
    """Cut a turn into pieces of at most `longest` seconds, each where it is quietest near its end."""
    start, end = turn
    pieces = []
    while end - start > longest:
        low = start + max(longest - _CUT_WITHIN_S, longest / 2)
        cut = _quietest(audio(low, start + longest), low, start + longest)
        pieces.append((start, cut))
        start = cut
    return [*pieces, (start, end)]


def _quietest(sound: np.ndarray, start: Seconds, end: Seconds, window: Seconds = 0.2) -> Seconds:
    """Return the middle of the quietest window of a sound."""
    size = round(window * SAMPLING_RATE)
    if len(sound) <= size:
        return end
    energy = np.concatenate([[0.0], np.cumsum(np.square(sound, dtype=np.float64))])
    hop = size // 4
    loudness = energy[size::hop] - energy[:-size:hop]
    return round(start + (int(loudness.argmin()) * hop + size / 2) / SAMPLING_RATE, 3)


# --- passages --------------------------------------------------------------------------------------------------------


def _passages(
    heard: Heard, start: Seconds, end: Seconds, turns: Sequence[Interval], dropped: list[Dropped]
) -> list[Span]:
    """Return the passages of a part that are believed; what is not believed is added to `dropped`."""
    text = " ".join(heard.text.split())
    inside = [(max(a, start), min(b, end)) for a, b in turns if a < end and b > start]
    if not text:
        return []
    if reason := reject(heard, sum(b - a for a, b in inside)):
        dropped.append(Dropped(start, end, text, reason))
        return []
    doubtful = is_doubtful(heard)
    if not heard.words:
        a, b = (inside[0][0], inside[-1][1]) if inside else (start, end)
        if reason := reject_sentence(text, a, b, inside, doubtful=doubtful):
            dropped.append(Dropped(a, b, text, reason))
            return []
        return [Span(round(a, 2), round(b, 2), text, heard.score())]
    words = [Word(start + w.start, start + w.end, w.text) for w in heard.words]
    scores = heard.probabilities or (None,) * len(words)
    if twice := set(repeated([word.text for word in words])):
        lost = [word for n, word in enumerate(words) if n in twice]
        dropped.append(Dropped(lost[0].start, lost[-1].end, _join(lost), "repeats itself"))
        words, scores = zip(
            *((w, s) for n, (w, s) in enumerate(zip(words, scores, strict=True)) if n not in twice), strict=True
        )
    spans = []
    for group in _sentences(words):
        said, a, b = [words[n] for n in group], words[group[0]].start, words[group[-1]].end
        if reason := reject_sentence(_join(said), a, b, inside, doubtful=doubtful):
            dropped.append(Dropped(a, b, _join(said), reason))
            continue
        known = [scores[n] for n in group if scores[n] is not None]
        score = round(float(np.mean(known)), 3) if known else heard.score()
        spans.append(_span(said, score))
    return spans


def _span(words: Sequence[Word], score: float | None) -> Span:
    start, end = round(words[0].start, 2), round(words[-1].end, 2)
    rounded = tuple(Word(round(w.start, 2), round(w.end, 2), w.text.strip()) for w in words)
    return Span(start, max(end, start + 0.01), _join(words), score, words=rounded)


def _join(words: Sequence[Word]) -> str:
    """Return the text of words; those of languages that write spaces begin with one."""
    return " ".join("".join(word.text for word in words).split())


def _sentences(words: Sequence[Word]) -> list[list[int]]:
    """Return the indices of words by passage."""
    groups: list[list[int]] = []
    for n, word in enumerate(words):
        new = not groups
        if groups:
            last, first = words[groups[-1][-1]], words[groups[-1][0]]
            ended = _SENTENCE_END.search(last.text.strip()) and not _ABBREVIATION.match(last.text.strip())
            new = bool(ended) or word.start - last.end > _PAUSE_S or word.end - first.start > _MAX_PASSAGE_S
        if new:
            groups.append([])
        groups[-1].append(n)
    return groups
