"""Which language is spoken in a video, as the speech recogniser tells it: one filter of admission."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..events import Seconds
from .captions import parts

if TYPE_CHECKING:
    import numpy as np

#: So many stretches of speech are listened to, the longest of a video.
STRETCHES = 3


@runtime_checkable
class LanguageTeller(Protocol):
    """A speech recogniser that tells which language it hears."""

    name: str
    #: Codes of those that it can tell; none if it cannot.
    languages: tuple[str, ...]

    def tell_languages(self, sound: np.ndarray) -> Mapping[str, float]:
        """How probable each language is, 0 to 1, together 1.

        Args:
            sound: float32 [samples], 16 kHz, at most 30 s.
        """


def check_language(language: str | None, recogniser: Any) -> None:
    """Refuse a language that the recogniser cannot tell; None asks for none.

    Raises:
        ValueError: naming the recogniser and what to use instead.

    Example:
        >>> from longvale.annotation.captions import TemplateCaptioner
        >>> check_language(None, TemplateCaptioner("speech"))
    """
    if language is None:
        return
    known = recogniser.languages if isinstance(recogniser, LanguageTeller) else ()
    if language not in known:
        name = "nothing that recognises speech" if recogniser is None else recogniser.name
        what = f"tells {len(known)} languages, not this one" if known else "does not tell languages"
        better = "openai/whisper-large-v3" if known else "openai/whisper-base"
        raise ValueError(
            f"language {language!r}: {name} {what}; choose a Whisper of many languages, such as "
            f"--speech-recogniser {better}"
        )


def spoken_language(
    turns: Sequence[tuple[Seconds, Seconds]],
    sound: Callable[[Seconds, Seconds], np.ndarray],
    teller: LanguageTeller,
) -> tuple[str | None, float | None]:
    """The language of most of the speech.

    Turns are cut into parts of at most 30 s, and the [`STRETCHES`] longest are listened to. A language weighs what the
    recogniser takes for its probability, averaged over these by their length.

    Args:
        turns: speech turns, start and end in seconds.
        sound: the waveform between two seconds.
        teller: the recogniser.

    Returns:
        Its code, None unless it has more than half of the weight; and the weight of the heaviest language, 0 to 1. None
        and None without speech.

    Example:
        >>> class Stub:
        ...     name, languages = "stub", ("de", "en")
        ...     def tell_languages(self, sound):
        ...         return {"de": 0.2, "en": 0.8} if sound > 5 else {"de": 1.0, "en": 0.0}
        >>> spoken_language([(0.0, 4.0), (10.0, 22.0)], lambda start, end: end - start, Stub())
        ('en', 0.6)
    """
    pieces = [piece for turn in turns for piece in parts(*turn)]
    pieces = sorted(pieces, key=lambda piece: piece[0] - piece[1])[:STRETCHES]
    if not pieces:
        return None, None
    weights: dict[str, float] = defaultdict(float)
    for start, end in pieces:
        for language, probability in teller.tell_languages(sound(start, end)).items():
            weights[language] += probability * (end - start)
    heaviest = max(weights, key=lambda language: weights[language])
    weight = round(weights[heaviest] / sum(end - start for start, end in pieces), 3)
    return (heaviest if weight > 0.5 else None), weight


def check_code(language: str) -> None:
    """Refuse what is no language code of Whisper.

    Raises:
        ValueError: naming near ones.

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
    asked = language.lower().replace("_", "-").partition("-")[0]  # en-US is a way to say en
    names = [asked] if asked in codes else get_close_matches(asked, codes)
    near = dict.fromkeys(codes[name] for name in names)
    told = "; near: " + ", ".join(f"{code} ({LANGUAGES[code]})" for code in near) if near else ""
    raise ValueError(f"language must be a code that Whisper knows, such as en, not {language!r}{told}")
