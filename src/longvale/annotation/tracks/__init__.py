"""Tracks: what is found over a whole video, with times: sounds, text on screen, speakers, and what is said.

A track is found once per video, before boundaries and captions, which both use it. Each kind has a registry, so that
another model is one file:

| track | span | found by |
| --- | --- | --- |
| sounds | label of a sound and its probability | `sounds.py` |
| text | text on screen and its confidence | `text.py` |
| speakers | label of a speaker, such as "speaker 1"; spans may overlap | `speakers.py` |
| transcript | words, and the speaker if known | `transcript.py` |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias, get_args

from ...events import Seconds
from ..boundaries.fusion import Interval
from ..clip_reader import ClipReader

Track: TypeAlias = Literal["sounds", "text", "speakers", "transcript"]
#: All tracks, in the order in which they are found: later ones may use earlier ones.
TRACKS: tuple[Track, ...] = get_args(Track)


@dataclass(frozen=True)
class Word:
    """One spoken word: start and end in seconds, and its text."""

    start: Seconds
    end: Seconds
    text: str


@dataclass(frozen=True)
class Span:
    """Part of a track.

    Args:
        start: seconds.
        end: seconds, after `start`.
        text: label, reading or words.
        score: confidence, 0 to 1; None if the model gives none.
        speaker: label of the speaker of words; "" if not known.
        words: words with times, in a transcript whose model gives them.
    """

    start: Seconds
    end: Seconds
    text: str
    score: float | None = None
    speaker: str = ""
    words: tuple[Word, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return JSON values; fields with their default are left out.

        Example:
            >>> Span(0.0, 2.5, "Dog", 0.9).to_record()
            {'start': 0.0, 'end': 2.5, 'text': 'Dog', 'score': 0.9}
        """
        record = asdict(self) | {"words": [[word.start, word.end, word.text] for word in self.words]}
        return {name: value for name, value in record.items() if value not in (None, "", []) or name == "text"}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Span:
        """Read what `to_record` returned."""
        return cls(**{**record, "words": tuple(Word(*word) for word in record.get("words", ()))})


class Found(list[Span]):
    """Spans of a track, and what was left out.

    Args:
        spans: the spans.
        dropped: what a model gave and the tracker does not believe: start and end in seconds, text, reason.
        tells_speech: in a track of sounds, whether the tagger has a label of speech; if not, its silence about speech
            says nothing.
    """

    def __init__(
        self,
        spans: Iterable[Span] = (),
        dropped: Sequence[tuple[Seconds, Seconds, str, str]] = (),
        *,
        tells_speech: bool = True,
    ) -> None:
        super().__init__(spans)
        self.dropped, self.tells_speech = tuple(dropped), tells_speech

    def to_record(self) -> dict[str, Any]:
        """Return JSON values; what has its default is left out, apart from the spans.

        Example:
            >>> Found([Span(0.0, 2.5, "Dog")], tells_speech=False).to_record()
            {'spans': [{'start': 0.0, 'end': 2.5, 'text': 'Dog'}], 'tells_speech': False}
        """
        record: dict[str, Any] = {"spans": [span.to_record() for span in self]}
        if self.dropped:
            record["dropped"] = self.dropped
        if not self.tells_speech:
            record["tells_speech"] = False
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Found:
        """Read what `to_record` returned."""
        spans = [Span.from_record(span) for span in record["spans"]]
        return cls(spans, record.get("dropped", ()), tells_speech=record.get("tells_speech", True))


#: The tracks of a video.
Tracks: TypeAlias = Mapping[Track, Sequence[Span]]


class Tracker(Protocol):
    """Interface of what finds a track."""

    #: Name in the settings and the provenance; it holds every option that changes the result.
    name: str

    def __call__(self, reader: ClipReader, speech: Sequence[Interval], tracks: Tracks) -> Sequence[Span]:
        """Find the track of a video; a [`Found`] also has what was left out, which is recorded.

        Args:
            reader: frames and sound of the video.
            speech: speech turns, start and end in seconds.
            tracks: the tracks that were found before.

        Raises:
            NoAnswer: if a model fails on this video; the track is then recorded as missing.
            ServerError: if a server gives no answer; the run ends and can be resumed.
        """


def within(tracks: Tracks, start: Seconds, end: Seconds) -> dict[Track, tuple[Span, ...]]:
    """Return the spans that overlap a time range, with start and end clipped to it; words only if they overlap it.

    Example:
        >>> within({"sounds": [Span(0.0, 5.0, "Music"), Span(7.0, 8.0, "Dog")]}, 4.0, 6.0)
        {'sounds': (Span(start=4.0, end=5.0, text='Music', score=None, speaker='', words=()),)}
    """
    return {
        name: tuple(_clipped(span, start, end) for span in spans if span.start < end and span.end > start)
        for name, spans in tracks.items()
    }


def _clipped(span: Span, start: Seconds, end: Seconds) -> Span:
    words = tuple(word for word in span.words if start <= (word.start + word.end) / 2 < end)
    text = span.text if len(words) == len(span.words) else text_of(span, words)
    return replace(span, start=max(span.start, start), end=min(span.end, end), text=text, words=words)


def text_of(span: Span, words: Sequence[Word]) -> str:
    """Return the text of some words of a span as it is written there: not every language has spaces.

    Args:
        span: text with words.
        words: consecutive ones of its words.

    Example:
        >>> said = Span(0.0, 0.9, "你好吗", words=(Word(0.0, 0.3, "你"), Word(0.3, 0.6, "好"), Word(0.6, 0.9, "吗")))
        >>> text_of(said, said.words[1:])
        '好吗'
    """
    if not words:
        return ""
    places, end = [], 0
    for word in span.words:
        start = span.text.find(word.text, end)
        if start < 0:  # a text that is not made of its words
            return " ".join(word.text for word in words)
        end = start + len(word.text)
        places.append((start, end))
    first = span.words.index(words[0])
    return span.text[places[first][0] : places[first + len(words) - 1][1]]
