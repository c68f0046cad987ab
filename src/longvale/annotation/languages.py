"""Identification of the spoken language by the speech recogniser, for the language filter of admission."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..events import Seconds
from .captions import parts

if TYPE_CHECKING:
    import numpy as np

#: Number of speech parts used to identify the language, the longest of a video.
LONGEST_PARTS = 3


@runtime_checkable
class LanguageIdentifier(Protocol):
    """Interface of a speech recogniser that identifies the spoken language."""

    name: str
    #: Codes of the languages that it can identify; empty if it cannot.
    languages: tuple[str, ...]

    def identify_languages(self, sound: np.ndarray) -> Mapping[str, float]:
        """Return the probability of each language, 0 to 1; the sum is 1.

        Args:
            sound: float32 [samples], 16 kHz, at most 30 s.
        """


def check_language(language: str | None, recogniser: Any) -> None:
    """Check that the recogniser can identify a language; None passes.

    Raises:
        ValueError: naming the recogniser and what to use instead.

    Example:
        >>> from longvale.annotation.captions import TemplateCaptioner
        >>> check_language(None, TemplateCaptioner("speech"))
    """
    if language is None:
        return
    known = recogniser.languages if isinstance(recogniser, LanguageIdentifier) else ()
    if language not in known:
        name = "nothing that recognises speech" if recogniser is None else recogniser.name
        what = f"identifies {len(known)} languages, not this one" if known else "does not identify languages"
        better = "openai/whisper-large-v3" if known else "openai/whisper-base"
        raise ValueError(
            f"language {language!r}: {name} {what}; choose a Whisper of many languages, such as "
            f"--speech-recogniser {better}"
        )


def spoken_language(
    turns: Sequence[tuple[Seconds, Seconds]],
    sound: Callable[[Seconds, Seconds], np.ndarray],
    identifier: LanguageIdentifier,
) -> tuple[str | None, float | None]:
    """Identify the language of most of the speech.

    Turns are split into parts of at most 30 s, and the [`LONGEST_PARTS`] longest parts are used. The weight of a
    language is its probability from the recogniser, averaged over these parts by their length.

    Args:
        turns: speech turns, start and end in seconds.
        sound: function that returns the waveform between two times in seconds.
        identifier: the recogniser.

    Returns:
        The code of the language with the largest weight, or None if its weight is not above half; and that weight, 0 to
        1. (None, None) without speech.

    Example:
        >>> class Stub:
        ...     name, languages = "stub", ("de", "en")
        ...     def identify_languages(self, sound):
        ...         return {"de": 0.2, "en": 0.8} if sound > 5 else {"de": 1.0, "en": 0.0}
        >>> spoken_language([(0.0, 4.0), (10.0, 22.0)], lambda start, end: end - start, Stub())
        ('en', 0.6)
    """
    pieces = [piece for turn in turns for piece in parts(*turn)]
    pieces = sorted(pieces, key=lambda piece: piece[0] - piece[1])[:LONGEST_PARTS]
    if not pieces:
        return None, None
    weights: dict[str, float] = defaultdict(float)
    for start, end in pieces:
        for language, probability in identifier.identify_languages(sound(start, end)).items():
            weights[language] += probability * (end - start)
    heaviest = max(weights, key=lambda language: weights[language])
    weight = round(weights[heaviest] / sum(end - start for start, end in pieces), 3)
    return (heaviest if weight > 0.5 else None), weight


def check_code(language: str) -> None:
    """Check that a language is a Whisper language code.

    Raises:
        ValueError: naming similar codes.

    Example:
        >>> check_code("english")
        Traceback (most recent call last):
        ...
        ValueError: language must be a code that Whisper knows, such as en, not 'english'; near: en (english)
    """
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    if language in LANGUAGES:
        return
    codes = {**TO_LANGUAGE_CODE, **{code: code for code in LANGUAGES}}
    asked = language.lower().replace("_", "-").partition("-")[0]  # accept en-US for en
    names = [asked] if asked in codes else get_close_matches(asked, codes)
    near = dict.fromkeys(codes[name] for name in names)
    hint = "; near: " + ", ".join(f"{code} ({LANGUAGES[code]})" for code in near) if near else ""
    raise ValueError(f"language must be a code that Whisper knows, such as en, not {language!r}{hint}")
