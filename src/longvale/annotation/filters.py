"""Admission filters: which videos are annotated, and why the others are rejected.

The paper takes videos of 30 to 600 s; the other thresholds are those reported for its pipeline. Each filter accepts a
video, or rejects it with a reason, the measured value and the threshold. All filters are applied, so that all reasons
can be counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..events import Seconds
from .languages import check_code

if TYPE_CHECKING:
    import numpy as np

#: Names of the filters, in the order of the funnel.
FILTERS = ("readable", "duration", "resolution", "pictures", "sound", "speech", "static", "language", "agreement")


@dataclass(frozen=True)
class FilterOptions:
    """Thresholds of admission; None disables a filter.

    Args:
        min_duration_s: minimum duration in seconds.
        max_duration_s: maximum duration in seconds; longer videos are rejected by their header, without decoding.
        min_height: minimum shorter side of the frames in pixels.
        require_picture: reject videos without frames.
        require_sound: reject videos without sound.
        max_speech: maximum fraction of the duration that is speech, 0 to 1.
        max_static: maximum fraction of the duration without motion, 0 to 1.
        language: Whisper language code, such as "en". Videos in which the speech recogniser identifies another language
            are rejected; see [`longvale.annotation.languages.spoken_language`].
        min_agreement: minimum [`longvale.annotation.filters.agreement`] of motion and sound, -1 to 1. The paper's own
            measure, a cosine of joint embeddings above .25, needs model weights and has another scale.

    Raises:
        ValueError: if the language is not a Whisper language code, naming similar ones; if the minimum duration is
            above the maximum.
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


#: Admits every video that can be read and fits in memory.
ALL = FilterOptions(None, 7200.0, None, False, False, None, None)


@dataclass(frozen=True)
class Facts:
    """Properties of a video that the filters check; None if unknown or absent.

    Args:
        duration: seconds.
        height: shorter side of the frames in pixels.
        has_picture: whether it has frames.
        has_sound: whether it has sound.
        speech: fraction of the duration that is speech, 0 to 1.
        static: fraction of the duration without motion, 0 to 1.
        language: code of the language of most of the speech; None without speech, or if no language has more than half.
        language_probability: weight of the most probable language, 0 to 1.
        agreement: agreement of motion and sound, -1 to 1.
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
    """Reason why a filter rejected a video."""

    filter: str
    reason: str
    value: Any = None
    threshold: Any = None


def admit(facts: Facts, options: FilterOptions) -> list[Rejection]:
    """Apply all filters; a property that is not known passes.

    Returns:
        The rejections in the order of [`FILTERS`]; empty if the video is admitted.

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
    """Return the agreement of motion and sound: the largest correlation of their changes at lags of up to two steps.

    Args:
        motion: [n], change of the frame at each step of 0.2 s.
        sound: [n], change of the sound at each step.

    Returns:
        -1 to 1; None if one of them never changes.

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


#: Maximum lag, in steps of .2 s.
_LAG = 2


def funnel(rejections: Mapping[str, Sequence[Rejection]]) -> list[tuple[str, int, int]]:
    """Count how many videos are left after each filter, and how many each filter rejects.

    Args:
        rejections: rejections by video id; empty for admitted videos.

    Returns:
        Per filter its name, the videos left after it, and all videos that it rejects, also if an earlier filter did.

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
    """Format the funnel as a text table; filters that reject no video are omitted."""
    lines = [f"{'filter':<12}{'left':>6}{'against':>9}", f"{'all':<12}{len(rejections):>6}{'':>9}"]
    lines += [f"{name:<12}{left:>6}{against:>9}" for name, left, against in funnel(rejections) if against]
    return "\n".join(lines)
