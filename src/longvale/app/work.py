"""Long-running work: decoding, encoding, answering, weighing. All of it reports progress and can be stopped."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..evaluation.analysis.attribution import lanes, weigh_modalities
from ..evaluation.ask import read_answer
from ..evaluation.generation.model import Features
from ..evaluation.generation.video_qa import answer_question
from ..events import Event, Modality, Seconds
from ..system.interruption import Stopped, stoppable
from ..tasks import Task
from .limits import NamedFile

if TYPE_CHECKING:
    from ..models.media import Media

Report = TypeVar("Report")

#: Interval of progress updates to the browser, in seconds.
_PERIOD_S = 0.1

_DOING = {"visual": "Looking at the pictures", "audio": "Listening to the sound", "speech": "Listening for speech"}


def in_background(work: Callable[[Callable[[Report], None]], None], stop: threading.Event) -> Iterator[Report]:
    """Run `work(report)` in a thread and yield its latest report ten times per second, and always the last one.

    Args:
        work: may call `report` at any rate; must check `stop`.
        stop: set when the iterator is closed.

    Raises:
        Exception: the exception that `work` raised, except [`Stopped`].

    Example:
        >>> list(in_background(lambda report: report("all"), threading.Event()))
        ['all']
    """
    reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
    failures: list[Exception] = []

    def run() -> None:
        try:
            work(reports.put)
        except Stopped:
            pass
        except Exception as error:  # noqa: BLE001  raised again in the waiting thread
            failures.append(error)

    thread = threading.Thread(target=run, name="longvale-work", daemon=True)
    thread.start()
    try:
        while thread.is_alive() or not reports.empty():
            thread.join(_PERIOD_S)
            newest = []
            while not reports.empty():
                newest = [reports.get()]
            yield from newest
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]


def decode(
    path: Path,
    media_kwargs: dict[str, Any],
    max_length: Seconds,
    report: Callable[[float], None],
    stop: threading.Event,
) -> Media:
    """Read a video file.

    Args:
        media_kwargs: decoding options of the model's processor.
        max_length: maximum duration in seconds.
        report: called with the fraction of the file that was read.
        stop: checked at each block that is read.

    Raises:
        Stopped: if `stop` was set.
        ValueError: if the file is rejected; the message names it without its folder.
    """
    from ..models.media import read_media

    with open(path, "rb") as file:
        watched = _WatchedFile(file, path.name, path.stat().st_size, report, stop)
        try:
            return read_media(watched, **media_kwargs, max_duration_s=max_length)
        except ValueError:
            if stop.is_set():  # an interrupted read looks like a damaged file
                raise Stopped from None
            raise


class _WatchedFile(NamedFile):
    """File that reports the fraction that was read: the decoder reads it once, and some parts again."""

    def __init__(self, file: Any, name: str, size: int, report: Callable[[float], None], stop: threading.Event) -> None:
        super().__init__(file, name)
        self._size, self._report, self._stop, self._bytes = size, report, stop, 0

    def read(self, size: int = -1) -> bytes:
        if self._stop.is_set():
            raise Stopped
        data = self._file.read(size)
        self._bytes += len(data)
        self._report(min(self._bytes / self._size, 0.99))
        return data


def encode(
    model: Any, processor: Any, media: Media, report: Callable[[str, float], None], stop: threading.Event
) -> Features:
    """Compute the features of a decoded video, see [`longvale.extraction.encode.encode_video`].

    Args:
        report: called with the current step and the fraction that is done.
        stop: checked between the layers of the towers.

    Raises:
        Stopped: if `stop` was set.
    """
    from ..extraction.encode import encode_video

    def progress(modality: Modality, share: float) -> None:
        report(_DOING[modality], share)

    report("Preparing the video", 0.0)
    return encode_video(model, processor, media, progress=progress, stop=stop.is_set)


def answer(
    model: Any,
    processor: Any,
    question: str,
    features: Features,
    max_new_tokens: int,
    report: Callable[[str], None],
    stop: threading.Event,
) -> str:
    """Answer a question; `report` is called with the answer so far. If stopped, return the text so far.

    Raises:
        Stopped: if `stop` was set before the first word.
    """
    text = answer_question(model, processor, question, features, max_new_tokens, report, stop.is_set)
    if stop.is_set() and not text:
        raise Stopped
    return text


def attribute_events(
    model: Any,
    processor: Any,
    question: str,
    features: Features,
    text: str,
    events: tuple[Event, ...],
    report: Callable[[float], None],
    stop: threading.Event,
) -> tuple[tuple[Event, ...], list[dict[Modality, float]]]:
    """Compute how much each modality contributes to each event; return the events with modalities, and the weights.

    Raises:
        Stopped: if `stop` was set.
    """
    weights: list[dict[Modality, float]] = []
    with stoppable(model, stop.is_set):
        for share, result in weigh_modalities(model, processor, question, features, text, events):
            if stop.is_set():
                raise Stopped
            report(share)
            weights = result or weights
    return tuple(replace(event, modalities=lanes(w)) for event, w in zip(events, weights, strict=True)), weights


def find_events(
    text: str, duration: Seconds, task: Task | None, caption: str, span: tuple[float, float] | None
) -> tuple:
    """Read the events of an answer for the timeline; each gets a caption.

    Args:
        text: the answer so far.
        duration: duration of the video in seconds.
        task: task of the question; None for a free question.
        caption: for intervals without a caption, such as the query of grounding; for a free question the whole answer
            is used instead.
        span: time range of segment captioning in seconds; the answer is its caption.
    """
    if task == "segment_captioning":
        return (Event(*span, " ".join(text.split())),) if text else ()
    if task is None:
        caption = " ".join(text.split())
    return tuple(
        event if event.caption else replace(event, caption=caption) for event in read_answer(text, duration, task)
    )


def cut_off(text: str, events: tuple[Event, ...]) -> tuple[str, tuple[Event, ...]]:
    """Mark a stopped answer as cut off: its text, and the caption of the event that was being written.

    Args:
        text: the answer so far.
        events: the events of the text.

    Example:
        >>> cut_off("From 00 to 50, a bell.\\nFrom 50 to 99, a d", (Event(0, 5, "a bell."), Event(5, 10, "a d")))[1][1]
        Event(start=5, end=10, caption='a d …', modalities=(), relation=None)
        >>> cut_off("A dog.", (Event(0, 5, "A dog."),))[0]
        'A dog.'
    """
    if text.endswith((".", "!", "?")):
        return text, events
    *whole, last = events or (None,)
    line = text.splitlines()[-1] if text else ""
    if last is not None and (line == text or read_answer(line, last.end)):
        events = (*whole, replace(last, caption=f"{last.caption} …"))
    return f"{text} …", events
