"""Speech recogniser behind a server: `/v1/audio/transcriptions`, as OpenAI, vLLM and faster-whisper servers have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ....chat_client import ChatClient
from ....evaluation.adapters.messages import wav_file
from ....models.media import SAMPLING_RATE
from ....registry import recognisers
from ...language_models import ModelOptions
from .. import Word
from ..guards import Heard

#: Requests at a time; servers recognise several together.
_REQUESTS = 4


@recognisers.register("server")
class ServerRecogniser:
    """Speech recogniser on a server: `--speech-recogniser server:NAME --server http://HOST:8000/v1`.

    Servers that give segments and words (`verbose_json`) give confidence and word times; others only the text.

    Args:
        options: model (name on the server) and server.

    Raises:
        ValueError: if no model or no server is named.
    """

    def __init__(self, options: ModelOptions) -> None:
        model = options.need_model()
        if options.server is None:
            raise ValueError(f"server:{model}: give the URL of the server by --server")
        self._client: ChatClient = options.client()
        self.name = self._client.name

    def __call__(self, parts: Sequence[np.ndarray]) -> list[Heard]:
        """Return what is said in each part. Raises `ServerError` if the server gives no answer."""
        with ThreadPoolExecutor(_REQUESTS) as pool:
            return list(pool.map(self._hear, parts))

    def _hear(self, part: np.ndarray) -> Heard:
        return read_heard(self._client.transcribe(wav_file(part, SAMPLING_RATE)), len(part) / SAMPLING_RATE)


def read_heard(transcript: Mapping[str, Any], duration: float) -> Heard:
    """Return what a server heard; values that are not as documented are left out.

    Args:
        transcript: `text`, and optionally `segments` (`avg_logprob`, `no_speech_prob`, `tokens`) and `words` (`word`,
            `start`, `end`), as in OpenAI's reference of the verbose transcription object.
        duration: of the recording in seconds; no word is outside of it.

    Example:
        >>> spoken = [{"word": "Good", "start": 0.2, "end": 0.5}, {"word": "morning", "start": 0.5, "end": 1.0}]
        >>> heard = read_heard({"text": "Good morning.", "words": spoken}, 2.0)
        >>> [word.text for word in heard.words]
        ['Good', ' morning.']
    """
    segments = [s for s in _list(transcript.get("segments")) if isinstance(s, Mapping) and not _is_unmeasured(s)]
    return Heard(
        transcript["text"].strip(),
        _words(transcript["text"].strip(), _list(transcript.get("words")), duration),
        _mean(segments, "avg_logprob"),
        _mean(segments, "no_speech_prob"),
    )


def _is_unmeasured(segment: Mapping[str, Any]) -> bool:
    """Return whether a segment has vLLM's -1 in place of its log-probability and compression."""
    return segment.get("avg_logprob") == segment.get("compression_ratio") == -1.0


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if usable else None


def _mean(segments: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Return the mean of a field of the segments, weighted by their tokens; None if a segment has none."""
    values = [_number(segment.get(name)) for segment in segments]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    weights = [max(1, len(_list(segment.get("tokens")))) for segment in segments]
    return float(np.average(known, weights=weights))


def _words(text: str, words: Sequence[Any], duration: float) -> tuple[Word, ...]:
    """Return words with their spaces and punctuation, which servers leave out; () if they are not those of the text."""
    found: list[tuple[int, float, float]] = []  # where each begins in the text, start and end
    reached, last = 0, 0.0
    for word in words:
        spoken = word.get("word") if isinstance(word, Mapping) else None
        start, end = (_number(word.get(name)) for name in ("start", "end")) if spoken else (None, None)
        if not isinstance(spoken, str) or start is None or end is None:
            return ()
        place = text.find(spoken.strip(), reached)
        if place < 0:
            return ()
        reached = place + len(spoken.strip())
        start = min(max(start, last), duration)
        last = min(max(end, start), duration)
        found.append((place, start, last))
    edges = [_boundary(text, place) for place, _, _ in found]
    edges = [0, *edges[1:], len(text)]
    return tuple(Word(start, end, text[a:b]) for (_, start, end), a, b in zip(found, edges, edges[1:], strict=False))


def _boundary(text: str, place: int) -> int:
    """Return where a word at `place` begins: at the space before it, if only marks are between them."""
    space = text.rfind(" ", 0, place)
    return place if space < 0 or any(letter.isalnum() for letter in text[space:place]) else space
