"""Admission: which videos are worth annotating, and why the others are not.

The paper takes videos of 30 to 600 s; the other thresholds are those reported of its pipeline. Each filter says yes, or
why not with the value it measured and the threshold. All filters are asked, so that all reasons can be counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..events import Seconds
from .languages import check_code

if TYPE_CHECKING:
    import numpy as np

#: Names of the filters in the order of the funnel.
FILTERS = ("readable", "duration", "resolution", "pictures", "sound", "speech", "static", "language", "agreement")


@dataclass(frozen=True)
class FilterOptions:
    """Thresholds of admission; None switches a filter off.

    Args:
        min_duration_s: shortest video in seconds.
        max_duration_s: longest; longer ones are refused by their header, without being decoded.
        min_height: fewest pixels of the shorter side of the picture.
        require_picture: refuse videos without pictures.
        require_sound: refuse videos without sound.
        max_speech: largest share of the time that is speech, 0 to 1.
        max_static: largest share of the time without motion, 0 to 1.
        language: code that Whisper knows, such as "en": the language that the speech recogniser must tell, if it tells
            one; see [`longvale.annotation.languages.spoken_language`].
        min_agreement: least [`longvale.annotation.filters.agreement`] of motion and sound, -1 to 1. The paper's own
            measure, a cosine of joint embeddings above .25, needs weights and is on another scale.

    Raises:
        ValueError: if the language is no code that Whisper knows, naming near ones; if no duration fits.
    """

    min_duration_s: Seconds | None = 30.0
    max_duration_s: Seconds | None = 600.0
    min_height: int | None = 360
    require_picture: bool = True
    require_sound: bool = True
    max_speech: float | None = 0.95
    max_static: float | None = 0.8
    language: str | None = None
    min_agreement: float | None = None

    def __post_init__(self) -> None:
        if self.language is not None:
            check_code(self.language)
        shortest, longest = self.min_duration_s, self.max_duration_s
        if shortest is not None and longest is not None and shortest > longest:
            raise ValueError(f"--min-duration ({shortest} s) is above --max-duration ({longest} s): no video fits")


#: Admits all that can be read and held in memory.
ALL = FilterOptions(None, 7200.0, None, False, False, None, None)


@dataclass(frozen=True)
class Facts:
    """What is known of a video; None is not known, or not there.

    Args:
        duration: seconds.
        height: pixels of the shorter side of the picture.
        has_picture: whether it has pictures.
        has_sound: whether it has sound.
        speech: share of the time that is speech, 0 to 1.
        static: share of the time without motion, 0 to 1.
        language: code of the language of most of the speech; None if nobody speaks, or no language has more than half.
        language_probability: weight of the heaviest language, 0 to 1.
        agreement: of motion and sound, -1 to 1.
    """

    duration: Seconds | None = None
    height: int | None = None
    has_picture: bool = True
    has_sound: bool = True
    speech: float | None = None
    static: float | None = None
    language: str | None = None
    language_probability: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class Rejection:
    """Why a filter said no."""

    filter: str
    reason: str
    value: Any = None
    threshold: Any = None


def admit(facts: Facts, options: FilterOptions) -> list[Rejection]:
    """Ask all filters; what is not known passes.

    Returns:
        The reasons against the video in the order of [`FILTERS`]; none if it is admitted.

    Example:
        >>> admit(Facts(duration=12.0, height=720), FilterOptions())
        [Rejection(filter='duration', reason='too short', value=12.0, threshold=30.0)]
    """
    found: list[Rejection] = []

    def limit(name: str, reason: str, value: Any, threshold: Any, above: bool) -> None:
        if value is not None and threshold is not None and (value > threshold if above else value < threshold):
            found.append(Rejection(name, reason, value, threshold))

    limit("duration", "too short", facts.duration, options.min_duration_s, above=False)
    limit("duration", "too long", facts.duration, options.max_duration_s, above=True)
    limit("resolution", "picture too small", facts.height, options.min_height, above=False)
    if options.require_picture and not facts.has_picture:
        found.append(Rejection("pictures", "no picture"))
    if options.require_sound and not facts.has_sound:
        found.append(Rejection("sound", "no sound"))
    limit("speech", "mostly speech", facts.speech, options.max_speech, above=True)
    limit("static", "mostly still", facts.static, options.max_static, above=True)
    if options.language is not None and facts.language not in (None, options.language):
        found.append(Rejection("language", "other language", facts.language, options.language))
    limit("agreement", "sound does not fit the picture", facts.agreement, options.min_agreement, above=False)
    return found


def agreement(motion: np.ndarray, sound: np.ndarray) -> float | None:
    """How well changes of the picture and of the sound fall together: their largest correlation within half a second.

    Args:
        motion: [n], how much the picture changes at each step.
        sound: [n], how much the sound does.

    Returns:
        -1 to 1; None where one of them never changes.

    Example:
        >>> import numpy as np
        >>> agreement(np.array([0, 0, 1, 0, 0, 0, 1, 0.0]), np.array([0, 1, 0, 0, 0, 1, 0, 0.0]))
        1.0
    """
    import numpy as np

    best = None
    for lag in range(-_LAG, _LAG + 1):
        first, second = motion[max(lag, 0) : len(motion) + min(lag, 0)], sound[max(-lag, 0) : len(sound) - max(lag, 0)]
        if len(first) > 2 and first.std() > 0 and second.std() > 0:
            value = float(np.corrcoef(first, second)[0, 1])
            best = value if best is None else max(best, value)
    return None if best is None else round(best, 3)


#: In steps of .2 s.
_LAG = 2


def funnel(rejections: Mapping[str, Sequence[Rejection]]) -> list[tuple[str, int, int]]:
    """How many videos each filter sees and how many it lets pass, one after the other.

    Args:
        rejections: by video id; no rejection for those admitted.

    Returns:
        Name, videos left after it, videos that it speaks against at all (whether or not another did before).

    Example:
        >>> funnel({"a": [], "b": [Rejection("sound", "no sound")]})[4]
        ('sound', 1, 1)
    """
    left, rows = set(rejections), []
    for name in FILTERS:
        against = {video for video, reasons in rejections.items() if any(r.filter == name for r in reasons)}
        left -= against
        rows.append((name, len(left), len(against)))
    return rows


def format_funnel(rejections: Mapping[str, Sequence[Rejection]]) -> str:
    """The funnel as a table of text; filters that speak against no video are left out."""
    lines = [f"{'filter':<12}{'left':>6}{'against':>9}", f"{'all':<12}{len(rejections):>6}{'':>9}"]
    lines += [f"{name:<12}{left:>6}{against:>9}" for name, left, against in funnel(rejections) if against]
    return "\n".join(lines)
