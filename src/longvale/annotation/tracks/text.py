"""On-screen text: a text reader (OCR) on frames over time; the same text on many frames is one span.

Frames are sampled once per second, less often in videos longer than [`MAX_FRAMES`] seconds. Every second one is read,
those between only next to frames with text, and a frame that looks like one that was just read is not read again.
A line keeps its identity while it stays in its place or moves steadily, so scrolling credits give one span per line.
Text from a video is untrusted: it is stripped of control characters and bounded, and nothing interprets it.
"""

from __future__ import annotations

import itertools
import logging
import re
import threading
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import Any, Protocol, TypeAlias

import numpy as np

from ...chat_client import NoAnswer
from ...events import Seconds
from ...models.media import probe
from ...registry import text_readers
from ...system.extras import is_installed, require
from ..boundaries.fusion import Interval
from ..clip_reader import ClipReader
from ..language_models import ModelOptions
from . import Span, Tracks

logger = logging.getLogger(__name__)

#: Time between sampled frames in seconds, and the maximum number of sampled frames per video.
SAMPLE_S: Seconds = 1.0
MAX_FRAMES = 1200
#: Shorter side of the frames that are read, in pixels; smaller videos keep their size.
READ_SIZE = 576
#: Frames in memory at a time: 57 MB at 1024 x 576.
_BATCH = 32

#: Confidence from which a line counts. Lines on a single frame, and short ones, need more: noise is read as these.
MIN_SCORE, MIN_SCORE_HIGH, _SHORT = 0.6, 0.9, 3
#: Between two frames with more lines than this, as in credits, none is read: the lines stay for seconds.
_DENSE = 12
#: Minimum number of letters and digits of a line.
_MIN_LETTERS = 2
#: Maximum number of lines per frame, of characters per line, and of spans per video.
MAX_LINES, MAX_CHARACTERS, MAX_SPANS = 80, 200, 1000

#: A line may be missing from this many consecutive sampled frames: something passes in front of it.
_MAX_MISSED = 2
#: Minimum similarity of two readings of one line, 0 to 1, if they differ.
_SIMILAR = 0.5
#: Their boxes share at least this fraction of the smaller one, as a line may be uncovered; their heights differ less.
_MIN_SHARED, _MIN_HEIGHT = 0.5, 0.6

#: Frames are alike if no block of 8 x 8 pixels of the reduced frames differs by more than this, of 255.
_ALIKE, _REDUCED = 6.0, 240

#: Where dates have spaces: behind a month, and between the day and the year.
_MONTH = re.compile(
    r"(?i)\b((?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?)(?=\d)"
)
_YEAR = re.compile(r"(?<=\d),(?=(?:1[89]|2[01])\d\d\b)")

#: Left, top, right and bottom.
Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True)
class Line:
    """One line of text on a frame.

    Args:
        text: what is written.
        score: confidence, 0 to 1.
        box: left, top, right and bottom in pixels.
    """

    text: str
    score: float
    box: Box


class TextReader(Protocol):
    """Interface of a text reader. A registered class or function is called with [`ModelOptions`] and returns one.

    Example:
        >>> @text_readers.register()
        ... class ExitReader:
        ...     "Finds exit signs."
        ...     def __init__(self, options):
        ...         self.name = "exit signs"
        ...     def __call__(self, frame):
        ...         green = frame[..., 1] > frame[..., 0] + 100
        ...         return [Line("EXIT", 0.9, (0, 0, *frame.shape[1::-1]))] if green.any() else []
        >>> ExitReader(ModelOptions())(np.full((36, 64, 3), (0, 200, 0), np.uint8))
        [Line(text='EXIT', score=0.9, box=(0, 0, 64, 36))]
    """

    #: Name in the provenance.
    name: str

    def __call__(self, frame: np.ndarray) -> Sequence[Line]:
        """Return the lines of a frame. Raises `NoAnswer` if the reader fails.

        Args:
            frame: uint8 [H, W, 3], RGB, upright, the shorter side at most [`READ_SIZE`].
        """


@text_readers.register("rapidocr")
class RapidOCRReader:
    """RapidOCR: PP-OCRv6 small on ONNX Runtime; its package carries the weights (Apache-2.0), nothing is fetched.

    Args:
        options: no model: there is one.

    Raises:
        ValueError: if `longvale[ocr]` is not installed, or a model is named.
    """

    #: Threads per frame: more of them wait for each other, and videos may be annotated side by side.
    THREADS = 1
    #: Smaller frames are enlarged to this shorter side in pixels for finding text regions. The package's own 736 takes
    #: twice as long and finds no more; without enlarging, small print is lost.
    SHORTER_SIDE = 544
    #: Maximum number of text regions per frame; recognition takes some 20 ms for each, more for long lines.
    MAX_REGIONS = 150

    def __init__(self, options: ModelOptions) -> None:
        if options.model is not None:
            raise ValueError(f"rapidocr:{options.model}: this reader has a single model; give rapidocr alone")
        for module in ("rapidocr", "onnxruntime"):
            require(module)
        self.name = "rapidocr"
        self._engine: Any = None
        self._lock = threading.Lock()  # the engine keeps state while it reads

    def __getstate__(self) -> dict[str, Any]:
        """Leave the engine behind: another process loads its own."""
        return {"name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_engine": None, "_lock": threading.Lock()}

    def __call__(self, frame: np.ndarray) -> list[Line]:
        """Return the lines of a frame."""
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException
        from rapidocr.inference_engine.onnxruntime.main import ONNXRuntimeError

        with self._lock:
            if self._engine is None:
                self._engine = self._load()
            try:
                found = self._engine(np.ascontiguousarray(frame[..., ::-1]))  # BGR
            except (ONNXRuntimeError, RuntimeException, Fail) as error:
                raise NoAnswer(f"{self.name}: {error}") from error
        if found.boxes is None:
            return []
        corners = zip(found.boxes.min(axis=1).tolist(), found.boxes.max(axis=1).tolist(), strict=True)  # of [n, 4, 2]
        return [
            Line(space_dates(text), float(score), (*low, *high))
            for text, score, (low, high) in zip(found.txts, found.scores, corners, strict=True)
        ]

    def _load(self) -> Any:
        threads = {"intra_op_num_threads": self.THREADS, "inter_op_num_threads": 1}
        options = {f"EngineConfig.onnxruntime.{name}": value for name, value in threads.items()}
        return require("rapidocr").RapidOCR(
            params={
                "Global.log_level": "error",
                "Det.limit_side_len": self.SHORTER_SIDE,
                "Det.max_candidates": self.MAX_REGIONS,
                **options,
            }
        )


def space_dates(text: str) -> str:
    """Return a text with the narrow spaces of dates, which recognition of small letters loses.

    Example:
        >>> space_dates("JULY14,2015"), space_dates("MP3 No. 14,201")
        ('JULY 14, 2015', 'MP3 No. 14,201')
    """
    return _YEAR.sub(", ", _MONTH.sub(r"\1 ", text))


def build_text_tracker(name: str | None, options: ModelOptions) -> TextTracker | None:
    """Return the tracker with a reader, as option --text-reader names it.

    Args:
        name: `NAME`, `NAME:MODEL` or `package.module:Name`; "none" for none. None for the default: rapidocr if
            `longvale[ocr]` is installed, else none.
        options: options of the reader.

    Raises:
        ValueError: if there is no such reader, or it cannot be used.

    Example:
        >>> build_text_tracker("none", ModelOptions()) is None
        True
    """
    if name is None:
        name = "rapidocr" if is_installed("rapidocr", "onnxruntime") else "none"
    if name == "none":
        return None
    reader, model = text_readers.split(name)
    if reader is None:  # create says which ones there are
        reader, model = name, None
    return TextTracker(text_readers.create(reader, replace(options, model=model)))


class TextTracker:
    """Tracker of on-screen text.

    Time and memory: at most [`MAX_FRAMES`] frames are read, whatever the duration, and 32 are in memory at a time.

    Args:
        reader: reads a frame.
    """

    def __init__(self, reader: TextReader) -> None:
        self.name, self._reader = reader.name, reader

    def __call__(self, reader: ClipReader, speech: Sequence[Interval], tracks: Tracks) -> list[Span]:
        """Return what is written in a video: one span per line, in the order in which lines appear, top to bottom."""
        if reader.frames is None:
            return []
        step = max(SAMPLE_S, reader.duration / MAX_FRAMES)
        times = np.arange(max(1, round(reader.duration / step))) * step + min(step, reader.duration) / 2
        times = times[times < reader.duration]
        spans = join(list(self._read_all(_frames(reader, times))), step, reader.duration)
        if len(spans) > MAX_SPANS:
            logger.warning("%s: %d lines of text; the %d longest are kept", reader.path, len(spans), MAX_SPANS)
            kept = set(sorted(range(len(spans)), key=lambda n: spans[n].start - spans[n].end)[:MAX_SPANS])
            spans = [span for n, span in enumerate(spans) if n in kept]
        return spans

    def _read_all(self, frames: Iterable[np.ndarray]) -> Iterator[list[Line]]:
        """Yield the lines of each frame; frames between two without text are taken to be without text."""
        memory = _Memory(self._reader)
        before: list[Line] = []
        between: np.ndarray | None = None
        for index, frame in enumerate(frames):
            if index % 2:
                between = frame
                continue
            now = memory.read(frame)
            if between is not None:
                yield memory.read(between) if 0 < max(len(before), len(now)) <= _DENSE else []
            yield now
            before, between = now, None
        if between is not None:
            yield memory.read(between) if before else []


def _frames(reader: ClipReader, times: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the frames at given times, at the size at which they are read: uint8 [H, W, 3]."""
    size = min(READ_SIZE, probe(reader.path).short_side or READ_SIZE)
    for part in np.array_split(times, -(-len(times) // _BATCH)):
        yield from reader.frames_at(part, size)


class _Memory:
    """A reader that remembers the last two frames and their lines: frames that look alike are read once."""

    def __init__(self, reader: TextReader) -> None:
        self._reader = reader
        self._seen: list[tuple[np.ndarray, list[Line]]] = []

    def read(self, frame: np.ndarray) -> list[Line]:
        blocks = _blocks(frame)
        for other, lines in self._seen:
            if np.abs(blocks - other).max() <= _ALIKE:
                return lines
        lines = clean(self._reader(frame))
        self._seen = [*self._seen[-1:], (blocks, lines)]
        return lines


def _blocks(frame: np.ndarray) -> np.ndarray:
    """Return the mean colours of blocks of a frame, 0 to 255: float32 [rows, columns, 3], some 30 along a side."""
    stride = max(1, min(frame.shape[:2]) // _REDUCED)
    reduced = frame[::stride, ::stride]
    side = 8 if min(reduced.shape[:2]) >= 8 else 1
    rows, columns = reduced.shape[0] // side, reduced.shape[1] // side
    blocks = reduced[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def clean(lines: Iterable[Line]) -> list[Line]:
    r"""Return the lines that count: confident ones of two letters or more, without control characters, bounded.

    Example:
        >>> clean([Line("A\x1b[2J  Title\n", 0.9, (0, 0, 9, 9)), Line("..", 0.9, (0, 0, 9, 9))])
        [Line(text='A[2J Title', score=0.9, box=(0, 0, 9, 9))]
    """
    kept = []
    for line in lines:
        shown = "".join(
            " " if c.isspace() else c for c in line.text if c.isspace() or unicodedata.category(c)[0] != "C"
        )
        text = " ".join(shown[: 2 * MAX_CHARACTERS].split())[:MAX_CHARACTERS].rstrip()
        letters = sum(map(str.isalnum, text))
        least = MIN_SCORE if letters > _SHORT else MIN_SCORE_HIGH
        if line.score >= least and letters >= _MIN_LETTERS and np.isfinite(line.box).all():
            kept.append(Line(text, min(float(line.score), 1.0), line.box))
    return sorted(kept, key=lambda line: -line.score)[:MAX_LINES]


# --- the same text over time -----------------------------------------------------------------------------------------


@dataclass
class _Track:
    """A line over time: the sampled frames on which it was read, and how."""

    indices: list[int] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def add(self, index: int, line: Line) -> None:
        self.indices.append(index)
        self.lines.append(line)

    def wording(self) -> Line:
        """Return the wording with the largest sum of confidences, in its most confident reading."""
        votes: dict[str, float] = defaultdict(float)
        for line in self.lines:
            votes[_plain(line.text)] += line.score
        best = max(votes, key=lambda text: votes[text])
        return max((line for line in self.lines if _plain(line.text) == best), key=lambda line: line.score)


def join(readings: Sequence[Sequence[Line]], step: Seconds, duration: Seconds) -> list[Span]:
    """Join the lines of sampled frames to spans.

    Args:
        readings: lines of each frame; the frame at index n is on screen from n * step to (n + 1) * step.
        step: seconds between frames.
        duration: seconds; the end of the last frame.

    Returns:
        Spans by start, then from top to bottom. The wording is that of most readings, weighted by confidence; the score
        is its largest confidence.

    Example:
        >>> join([[], [Line("Tltle", 0.7, (0, 0, 9, 9))], *[[Line("Title", 0.9, (0, 0, 9, 9))]] * 2], 1.0, 3.5)
        [Span(start=1.0, end=3.5, text='Title', score=0.9, speaker='', words=())]
    """
    tracks: list[_Track] = []
    live: list[_Track] = []
    for index, lines in enumerate(readings):
        live = [track for track in live if index - track.indices[-1] <= _MAX_MISSED + 1]
        matches = _match([track.lines[-1] for track in live], lines)
        for n, line in enumerate(lines):
            if n not in matches:
                live.append(_Track())
                tracks.append(live[-1])
            live[matches.get(n, -1)].add(index, line)
    found = [(track, track.wording()) for track in _without_parts(tracks)]
    found = [(track, line) for track, line in found if len(track.indices) > 1 or _is_clear(line, len(readings))]
    found.sort(key=lambda item: (item[0].indices[0], item[0].lines[0].box[1], item[0].lines[0].box[0]))
    return [
        Span(
            round(track.indices[0] * step, 3),
            round(min((track.indices[-1] + 1) * step, duration), 3),
            line.text,
            round(line.score, 3),
        )
        for track, line in found
    ]


def _without_parts(tracks: Sequence[_Track]) -> list[_Track]:
    """Join lines that were read once, as part of one that begins or ends next to them: it slides or zooms in or out."""
    beside: dict[int, list[_Track]] = defaultdict(list)  # by the index of a frame before the first, or after the last
    for track in tracks:
        beside[track.indices[0] - 1].append(track)
        beside[track.indices[-1] + 1].append(track)
    kept = []
    for track in tracks:
        whole = None
        if len(track.indices) == 1:
            part = _plain(track.lines[0].text)
            texts = ((other, _plain(other.wording().text)) for other in beside[track.indices[0]])
            whole = next((other for other, text in texts if part in text and part != text), None)
        if whole is None:
            kept.append(track)
        elif whole.indices[0] > track.indices[0]:
            whole.indices.insert(0, track.indices[0])
        else:
            whole.indices.append(track.indices[0])
    return kept


def _is_clear(line: Line, frames: int) -> bool:
    """Return whether a line on a single frame counts: confident words, not the digits of a clock."""
    return frames == 1 or (line.score >= MIN_SCORE_HIGH and sum(map(str.isalpha, line.text)) > len(line.text) / 2)


def _plain(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())


def _match(before: Sequence[Line], now: Sequence[Line]) -> dict[int, int]:
    """Find the lines of a frame among earlier ones: index of the earlier line by index of the line.

    Equal lines may have moved. How far most of them moved shows where to look for lines that are read differently.
    """
    matches: dict[int, int] = {}
    moves: list[tuple[float, float]] = []
    pairs = [(t, n) for t, n in itertools.product(range(len(before)), range(len(now))) if _fits(before[t], now[n])]
    plain = [[_plain(line.text) for line in lines] for lines in (before, now)]
    equal = [(_distance(before[t].box, now[n].box), t, n) for t, n in pairs if plain[0][t] == plain[1][n]]
    for _, t, n in sorted(equal):
        if n not in matches and t not in matches.values():
            matches[n] = t
            moves.append((now[n].box[0] - before[t].box[0], now[n].box[1] - before[t].box[1]))
    move = tuple(np.median(moves, axis=0).tolist()) if moves else (0.0, 0.0)
    taken = set(matches.values())
    similar = [
        (similarity, -t, -n)
        for t, n in pairs
        if t not in taken and n not in matches and _shared(_moved(before[t].box, move), now[n].box) >= _MIN_SHARED
        if (similarity := _similarity(plain[0][t], plain[1][n])) >= _SIMILAR
    ]
    for _, t, n in sorted(similar, reverse=True):
        if -n not in matches and -t not in taken:
            matches[-n] = -t
            taken.add(-t)
    return matches


def _fits(before: Line, now: Line) -> bool:
    """Return whether a line may have moved from one box to the other: it keeps its height, and its column or row."""
    a, b = before.box, now.box
    heights = sorted((a[3] - a[1], b[3] - b[1]))
    return heights[0] >= _MIN_HEIGHT * heights[1] and ((a[0] < b[2] and b[0] < a[2]) or (a[1] < b[3] and b[1] < a[3]))


def _similarity(first: str, second: str) -> float:
    """Return how similar two readings are, 0 to 1; 0 if they have different digits: another score, another date."""
    if [char for char in first if char.isdigit()] != [char for char in second if char.isdigit()]:
        return 0.0
    if 2 * min(len(first), len(second)) < _SIMILAR * (len(first) + len(second)):  # too different in length
        return 0.0
    return SequenceMatcher(None, first, second, autojunk=False).ratio()


def _distance(a: Box, b: Box) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _moved(box: Box, move: tuple[float, ...]) -> Box:
    return box[0] + move[0], box[1] + move[1], box[2] + move[0], box[3] + move[1]


def _shared(a: Box, b: Box) -> float:
    """Return the area that two boxes share, as a fraction of the smaller one."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return shared / smaller if smaller > 0 else 0.0
