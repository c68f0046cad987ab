"""Data of a video and of an answer that the browser draws, as JSON-serializable values.

The state of the page (`view`) is one object::

    {"serial": int,                       increases; the browser ignores states that arrive after a newer one
     "stage": {"text", "share"} | None,   current step; share is 0 to 1, or None if unknown
     "error": str | None, "note": str | None,
     "video": {...} | None,               see `describe_video`
     "answer": {...} | None}              see `describe_answer`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..annotation.review.results import AnnotatedVideo
from ..events import MODALITIES, Annotation, Event, Modality, Seconds
from ..exports import export_files
from ..images import jpeg_uri

if TYPE_CHECKING:
    import numpy as np

    from ..models.media import Media

#: Number of waveform bars and of thumbnails, chosen for a wide screen, and the height of thumbnails in pixels.
PEAKS, THUMBNAILS, THUMBNAIL_HEIGHT = 480, 12, 72

EMPTY: dict[str, Any] = {"serial": 0, "stage": None, "error": None, "note": None, "video": None, "answer": None}


def stage(text: str, share: float | None = None) -> dict[str, Any]:
    """Return the current step and the fraction of it that is done."""
    return {"text": text, "share": None if share is None else round(share, 3)}


def describe_video(name: str, url: str, media: Media) -> dict[str, Any]:
    """Describe a video for the player and the backgrounds of the lanes; the page adds `questions` and `boundaries`.

    Args:
        name: display name of the file.
        url: URL that the browser plays.
        media: decoded video.
    """
    frames = media.frames
    chosen = [] if frames is None else _spread(len(frames), THUMBNAILS)
    notes = list(media.warnings)
    if media.waveform is None:
        notes.append("This video has no sound.")
    if frames is None:
        notes.append("This file has no picture.")
    return {
        "name": name,
        "url": url,
        "duration": round(media.duration, 3),
        "peaks": None if media.waveform is None else waveform_peaks(media.waveform, PEAKS),
        "thumbnails": [thumbnail(frames[index]) for index in chosen],
        "notes": notes,
    }


def describe_answer(
    question: str,
    text: str,
    events: Sequence[Event],
    weights: Sequence[Mapping[Modality, float]] | None,
    saved: Annotation | None,
) -> dict[str, Any]:
    """Describe an answer for the timeline.

    Args:
        question: the question in words for people.
        text: the answer as generated.
        events: events of the answer, with modalities once they are known.
        weights: weights of the modalities of each event in nats; None before they are known.
        saved: annotation for the save buttons; None before the answer is complete.
    """
    return {
        "question": question,
        "text": text,
        "done": saved is not None,
        "events": [
            {
                "start": round(event.start, 3),
                "end": round(event.end, 3),
                "caption": event.caption,
                "lanes": list(event.modalities),
                "weights": None if weights is None else [round(weights[index][m], 2) for m in MODALITIES],
            }
            for index, event in enumerate(events)
        ],
        "files": export_files(saved) if saved is not None and events else [],
    }


def describe_annotation(found: AnnotatedVideo) -> dict[str, Any]:
    """Describe the result of the annotation pipeline like an answer; each event also contains its `sources`."""
    described = describe_answer("Annotation", "", found.annotation.events, None, found.annotation)
    for event, sources in zip(described["events"], found.sources, strict=True):
        event["sources"] = [list(source) for source in sources]
    return described


def waveform_peaks(waveform: np.ndarray, bars: int) -> list[float]:
    """Compute the peak of each of `bars` equal parts, 0 to 1, scaled so that the highest peak is 1.

    Example:
        >>> import numpy as np
        >>> waveform_peaks(np.array([0.0, 0.1, -0.5, 0.2, 0.0, 0.0], np.float32), 3)
        [0.2, 1.0, 0.0]
    """
    import numpy as np

    if not len(waveform):
        return []
    edges = np.linspace(0, len(waveform), min(bars, len(waveform)) + 1).astype(int)
    peaks = np.maximum.reduceat(np.abs(waveform), edges[:-1])
    return [round(float(peak), 3) for peak in peaks / max(peaks.max(), 1e-4)]


def thumbnail(frame: np.ndarray) -> str:
    """Encode a frame, uint8 [H, W, 3], as a small JPEG in a `data:` URI."""
    return jpeg_uri(frame, quality=80, height=THUMBNAIL_HEIGHT)


def to_annotation(name: str, duration: Seconds, events: Sequence[Event]) -> Annotation:
    """Return the events of an answer as an annotation whose id is a valid file name."""
    return Annotation(_video_id(name), duration, tuple(sorted(events, key=lambda event: (event.start, event.end))))


def _video_id(name: str) -> str:
    """Return a file's name without its suffix, with unsafe characters replaced."""
    stem = name.rpartition(".")[0] or name
    kept = "".join(c if c.isalnum() or c in "-_ ." else "_" for c in stem).strip(". ")
    return kept[:100] or "video"


def _spread(count: int, wanted: int) -> list[int]:
    """Return the indices at the middles of equal parts."""
    wanted = min(count, wanted)
    return [int((index + 0.5) * count / wanted) for index in range(wanted)]
