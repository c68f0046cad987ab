"""Pairing of answers with references: both in the form that the scorers take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from longvale.events import Seconds
from longvale.io import is_number
from longvale.tasks import Prediction, Task, parse_answer
from longvale.timecodes import Protocol, Span

from .dense_captioning.soda import CaptionedInterval
from .grounding.compute_score import Interval


def pair(
    task: Task, answers: Sequence[Any], references: Sequence[Any], protocol: Protocol = "strict"
) -> tuple[list[Any], list[Any]]:
    """Pair answers with references.

    Args:
        task: task of all answers.
        answers: one per reference: a prediction, which is parsed only once, a text, or values as in [`read_span`] and
            [`read_events`].
        references: rows of the dataset: for grounding with `start`, `end` and `duration`, for dense captioning with
            `duration` and `events`; for segment captioning a text, or a row with `reference`.
        protocol: protocol for parsing text.

    Returns:
        The answers and the references. Grounding: start and end as fractions of the duration; dense captioning: start,
        end (seconds) and caption of each event; segment captioning: captions.

    Raises:
        ValueError: if the numbers of answers and references differ, or one is invalid.

    Example:
        >>> pair("grounding", ["From 05 to 25."], [{"start": 3, "end": 15, "duration": 60}])
        ([(0.05, 0.25)], [(0.05, 0.25)])
    """
    pairs = [_PAIR[task](answer, row, protocol) for answer, row in zip(answers, references, strict=True)]
    return [found for found, _ in pairs], [wanted for _, wanted in pairs]


def read_span(
    answer: Prediction | str | Sequence[Seconds], duration: Seconds, protocol: Protocol = "strict"
) -> Interval | None:
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
    span = _parse("grounding", answer, protocol)
    if isinstance(span, Span):
        return span.start / 100, span.end / 100
    if not span:
        return None
    if len(span) != 2:
        raise ValueError(f"a prediction must be a text, or start and end in seconds, not {list(span)!r}")
    start, end = _check_times(*span)
    return start / duration, end / duration


def read_events(
    answer: Prediction | str | Sequence[Mapping], duration: Seconds, protocol: Protocol = "strict"
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
    return [
        (*event.seconds(duration), event.caption) if isinstance(event, Span) else _check_event(event)
        for event in _parse("dense_captioning", answer, protocol)
    ]


def _parse(task: Task, answer: Any, protocol: Protocol) -> Any:
    """Parse text; return values unchanged."""
    if isinstance(answer, Prediction):
        return answer.parse(protocol)
    return parse_answer(task, answer, protocol) if isinstance(answer, str) else answer


def _pair_span(answer: Any, row: Mapping, protocol: Protocol) -> tuple[Interval | None, Interval | None]:
    duration = row["duration"]
    return read_span(answer, duration, protocol), read_span([row["start"], row["end"]], duration)


def _pair_events(
    answer: Any, row: Mapping, protocol: Protocol
) -> tuple[list[CaptionedInterval], list[CaptionedInterval]]:
    return read_events(answer, row["duration"], protocol), read_events(row["events"], row["duration"])


def _pair_caption(answer: Any, row: str | Mapping, protocol: Protocol) -> tuple[str, str]:
    return _parse("segment_captioning", answer, protocol), row if isinstance(row, str) else row["reference"]


_PAIR: dict[Task, Callable[[Any, Any, Protocol], tuple[Any, Any]]] = {
    "grounding": _pair_span,
    "dense_captioning": _pair_events,
    "segment_captioning": _pair_caption,
}


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
