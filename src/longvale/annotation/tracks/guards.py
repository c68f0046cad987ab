"""Guards against words that a speech recogniser invents: in silence and music, by repeating itself, from subtitles.

Whisper's own thresholds (Radford et al. 2023, "Robust Speech Recognition via Large-Scale Weak Supervision", section
4.5): the mean log-probability of a token, how well the text compresses, and the probability of no speech. Beside them:
words outside of speech turns, text that repeats itself, and phrases that Whisper is known to invent.
"""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from ...events import Seconds
from ..boundaries.fusion import Interval
from . import Word

#: Whisper's thresholds: text that compresses better repeats itself; below this mean log-probability it is a guess.
MAX_COMPRESSION, MIN_LOG_PROBABILITY, MAX_NO_SPEECH = 2.4, -1.0, 0.6
#: Near these limits a phrase that is known to be invented is not believed.
_DOUBTFUL_LOG_PROBABILITY, _DOUBTFUL_NO_SPEECH = -0.6, 0.3
#: Words may be this far outside of a speech turn: attention gives their times to about 0.2 s.
_OUTSIDE_S: Seconds = 0.4
#: A passage is dropped if less than this fraction of it is speech.
_MIN_SPOKEN = 0.3
#: More words per second than anybody speaks: fast speech has about 5, an auctioneer 8.
_MAX_WORDS_PER_S = 10.0
#: A sequence of up to this many words may follow itself at most so often.
_LONGEST_REPEATED, _MAX_REPEATS = 6, 3
#: A sentence may have this many characters more than a phrase that it contains, as a year or a name.
_PHRASE_ROOM = 1.5


@dataclass(frozen=True)
class Heard:
    """What a recogniser hears in a part of the sound.

    Args:
        text: what is said; "" for nothing.
        words: words with times in seconds from the start of the part; empty if the model gives none.
        log_probability: mean natural logarithm of the probability of a token; None if the model gives none.
        no_speech: probability that nobody speaks; None if the model gives none.
        probabilities: of each word, 0 to 1; empty if the model gives none.
    """

    text: str
    words: tuple[Word, ...] = ()
    log_probability: float | None = None
    no_speech: float | None = None
    probabilities: tuple[float, ...] = ()

    def score(self) -> float | None:
        """Return the confidence of the text, 0 to 1: the geometric mean of the probabilities of its tokens."""
        return None if self.log_probability is None else round(math.exp(min(self.log_probability, 0.0)), 3)


@dataclass(frozen=True)
class Dropped:
    """Words that were not believed.

    Args:
        start: seconds.
        end: seconds.
        text: the words.
        reason: why.
    """

    start: Seconds
    end: Seconds
    text: str
    reason: str


def compression(text: str) -> float:
    """Return how much shorter zlib makes a text: 1 for random letters, above [`MAX_COMPRESSION`] if it repeats itself.

    Example:
        >>> compression("no no no " * 30) > 2.4 > compression("Four score and seven years ago our fathers")
        True
    """
    content = text.encode("utf-8", "replace")
    return len(content) / len(zlib.compress(content)) if content else 0.0


def needs_another_try(heard: Heard) -> bool:
    """Return whether a recogniser that samples should try again: the text repeats itself or is a guess.

    Silence is not tried again.

    Example:
        >>> needs_another_try(Heard("so so so " * 30, log_probability=-0.2, no_speech=0.1))
        True
    """
    if _is_silence(heard):
        return False
    guess = heard.log_probability is not None and heard.log_probability < MIN_LOG_PROBABILITY
    return guess or compression(heard.text) > MAX_COMPRESSION


def reject(heard: Heard, duration: Seconds) -> str | None:
    """Return why the whole text of a part is not believed; None if it is.

    Args:
        heard: what the recogniser heard.
        duration: seconds of speech in the part.

    Example:
        >>> reject(Heard("Thank you.", log_probability=-1.3, no_speech=0.9), 2.0)
        'probably no speech (0.90)'
        >>> reject(Heard("Thank you.", log_probability=-0.2, no_speech=0.1), 2.0) is None
        True
    """
    if _is_silence(heard):
        return f"probably no speech ({heard.no_speech:.2f})"
    if heard.log_probability is not None and heard.log_probability < MIN_LOG_PROBABILITY:
        return f"a guess (log-probability {heard.log_probability:.2f})"
    if compression(heard.text) > MAX_COMPRESSION:
        return f"repeats itself (compression {compression(heard.text):.1f})"
    if len(heard.text.split()) > _MAX_WORDS_PER_S * max(duration, 1.0):
        return f"{len(heard.text.split())} words in {duration:.1f} s of speech"
    return None


def _is_silence(heard: Heard) -> bool:
    """Return whether there is probably no speech: Whisper's rule, which wants a low probability of the text, too."""
    if heard.no_speech is None or heard.no_speech <= MAX_NO_SPEECH:
        return False
    return heard.log_probability is None or heard.log_probability < _DOUBTFUL_LOG_PROBABILITY


def is_doubtful(heard: Heard) -> bool:
    """Return whether a text is near the limits of the guards.

    Example:
        >>> is_doubtful(Heard("Bye.", log_probability=-0.8)), is_doubtful(Heard("Bye.", log_probability=-0.3))
        (True, False)
    """
    return (heard.log_probability is not None and heard.log_probability < _DOUBTFUL_LOG_PROBABILITY) or (
        heard.no_speech is not None and heard.no_speech > _DOUBTFUL_NO_SPEECH
    )


def repeated(words: Sequence[str]) -> list[int]:
    """Return the indices of words to drop, so that no sequence follows itself more than twice.

    Example:
        >>> repeated("no no no no no I go".split())
        [3, 4]
    """
    plain = [plain_text(word) for word in words]
    drop: set[int] = set()
    for length in range(1, _LONGEST_REPEATED + 1):
        start = 0
        while start + length <= len(plain):
            end, times = start + length, 1
            while plain[end : end + length] == plain[start : start + length] and any(plain[start : start + length]):
                end, times = end + length, times + 1
            if times > _MAX_REPEATS:
                drop.update(range(start + _MAX_REPEATS * length, end))
            start = end if times > 1 else start + 1
    return sorted(drop)


def spoken_share(start: Seconds, end: Seconds, turns: Sequence[Interval], margin: Seconds = _OUTSIDE_S) -> float:
    """Return the fraction of a time range in speech turns that are widened by a margin in seconds.

    Example:
        >>> spoken_share(0.0, 2.0, [(1.5, 4.0)], margin=0.5)
        0.5
    """
    if end <= start:
        return float(any(a - margin <= start <= b + margin for a, b in turns))
    shared, reached = 0.0, start
    for a, b in turns:  # ascending; widened ones may overlap
        low, high = max(a - margin, reached), min(b + margin, end)
        if high > low:
            shared, reached = shared + high - low, high
    return shared / (end - start)


def reject_sentence(
    text: str, start: Seconds, end: Seconds, turns: Sequence[Interval], *, doubtful: bool
) -> str | None:
    """Return why a sentence is not believed; None if it is. Real speech that says thanks for watching is kept.

    Args:
        text: the sentence.
        start: seconds.
        end: seconds.
        turns: speech turns, start and end in seconds, ascending.
        doubtful: whether the recogniser is unsure, see [`is_doubtful`].

    Example:
        >>> reject_sentence("Thanks for watching!", 8.0, 9.0, [(0.0, 4.0)], doubtful=False)
        'outside of speech turns'
        >>> reject_sentence("Thanks for watching!", 2.0, 3.0, [(0.0, 4.0)], doubtful=True)
        'a phrase that recognisers invent'
        >>> reject_sentence("Thanks for watching!", 2.0, 3.0, [(0.0, 4.0)], doubtful=False) is None
        True
    """
    share = spoken_share(start, end, turns)
    if share < _MIN_SPOKEN:
        return "outside of speech turns"
    if (doubtful or spoken_share(start, end, turns, margin=0.0) < 0.5) and is_known_invention(text):
        return "a phrase that recognisers invent"
    return None


def is_known_invention(text: str) -> bool:
    """Return whether a sentence is, but for a few letters, a phrase that Whisper is known to invent.

    Example:
        >>> is_known_invention("Subtitles by the Amara.org community"), is_known_invention("We were watching birds.")
        (True, False)
    """
    plain = plain_text(text)
    return any(phrase in plain and len(plain) <= _PHRASE_ROOM * len(phrase) for phrase in _phrases())


@cache
def _phrases() -> tuple[str, ...]:
    lines = files(__package__).joinpath("invented_phrases.txt").read_text(encoding="utf-8").splitlines()
    return tuple(plain_text(line.partition("\t")[2]) for line in lines if line and not line.startswith("#"))


def plain_text(text: str) -> str:
    """Return the letters and digits of a text in lower case.

    Example:
        >>> plain_text("¡Gracias por ver el vídeo!")
        'graciasporverelvídeo'
    """
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())
