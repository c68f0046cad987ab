"""Conversion of model answers to metric inputs; an answer is text or numeric values in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from longvale.events import Seconds
from longvale.io import is_number
from longvale.reading.reasoning import strip_reasoning
from longvale.timecodes import Protocol, parse_events, parse_span

from .dense_captioning.soda import CaptionedInterval
from .grounding.compute_score import Interval


def read_span(answer: str | Sequence[Seconds], duration: Seconds, protocol: Protocol = "strict") -> Interval | None:
    """Return start and end as fractions of the duration, or None if the answer contains no interval.

    Args:
        answer: text with two timecodes, or start and end in seconds, or an empty sequence.
        duration: duration of the video.
        protocol: protocol for parsing text, see [`longvale.timecodes.parse_span`].

    Raises:
        ValueError: if the answer is not two finite times of 0 or more, or the duration is not above 0.

    Example:
        >>> read_span("From 05 to 25.", 60.0), read_span([3, 15], 60.0), read_span("Never.", 60.0)
        ((0.05, 0.25), (0.05, 0.25), None)
    """
    _check_duration(duration)
    if isinstance(answer, str):
        span = parse_span(answer, protocol)
        return None if span is None else (span.start / 100, span.end / 100)
    if not answer:
        return None
    if len(answer) != 2:
        raise ValueError(f"a prediction must be a text, or start and end in seconds, not {list(answer)!r}")
    start, end = _check_times(*answer)
    return start / duration, end / duration


def read_caption(answer: str, protocol: Protocol = "strict") -> str:
    """Return the caption in an answer: the whole answer; in the strict protocol without reasoning.

    Example:
        >>> read_caption("<think>A cat? No.</think> A dog barks."), read_caption("<think>A cat?", "official")
        ('A dog barks.', '<think>A cat?')
    """
    return strip_reasoning(answer) if protocol == "strict" else answer


def read_events(
    answer: str | Sequence[Mapping], duration: Seconds, protocol: Protocol = "strict"
) -> list[CaptionedInterval]:
    """Return start and end in seconds and the caption of each event of an answer.

    Args:
        answer: text with lines such as "From 05 to 25, a dog barks.", or dicts with start, end and caption.
        duration: duration of the video.
        protocol: protocol for parsing text, see [`longvale.timecodes.parse_events`].

    Raises:
        ValueError: if a time is not finite or is below 0, a caption is not text, or the duration is not above 0.

    Example:
        >>> read_events("From 05 to 25, a dog barks.", 60.0)
        [(3.0, 15.0, 'a dog barks.')]
        >>> read_events([{"start": 3, "end": 15, "caption": "a dog barks."}], 60.0)
        [(3, 15, 'a dog barks.')]
    """
    _check_duration(duration)
    if isinstance(answer, str):
        return [(*span.seconds(duration), span.caption) for span in parse_events(answer, protocol)]
    return [_check_event(event) for event in answer]


def _check_duration(duration: Seconds) -> None:
    if not is_number(duration) or duration <= 0:
        raise ValueError(f"the duration must be a number of seconds above 0, not {duration}")


def _check_event(event: Mapping) -> CaptionedInterval:
    start, end = _check_times(event.get("start"), event.get("end"))
    if not isinstance(event.get("caption"), str):
        raise ValueError(f"the caption of an event must be a text, not {event.get('caption')!r}")
    return start, end, event["caption"]


def _check_times(start: object, end: object) -> Interval:
    for name, time in (("start", start), ("end", end)):
        if not is_number(time) or time < 0:
            raise ValueError(f"the {name} must be a number of seconds, 0 or more, not {time}")
    return start, end  # type: ignore[return-value]
