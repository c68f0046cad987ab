"""A video file -> what the towers take of it: the part of an extraction that needs processors, but no model.

It runs in worker processes (`workers.py`) or in tasks of a cluster (`ray_engine.py`). A long sound is given in pieces,
so that a video of three hours takes no more memory than one of half an hour.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..checksums import file_identity
from ..models.feature_extraction_beats import FRAME_LENGTH, FRAME_SHIFT
from ..models.media import Media, MediaError, MediaStream

#: Samples of the next piece that the last filterbank frames of a piece reach into.
_OVERLAP = FRAME_LENGTH - FRAME_SHIFT


def prepare(path: str | os.PathLike, processor: Any, threads: int = 1) -> Iterator[dict[str, Any]]:
    """Read a video in one pass and give what the towers take of it.

    Args:
        path: of the file.
        processor: as [`LongVALEProcessor`].
        threads: of the decoder.

    Returns:
        Yields inputs of `LongVALEModel.encode` without the batch dimension, as arrays: those of a piece of sound after
        the other, then those of the frames. The last one yielded is `{"facts": {...}}`, with `duration` in seconds,
        `bytes` and `identity` (see [`file_identity`]) of the file, `warnings` and `seconds` that reading and preparing
        took.

    Raises:
        MediaError: if the file cannot be read.
    """
    path = Path(path)
    begin = time.perf_counter()
    try:
        window_s = processor.piece_samples / processor.sampling_rate
        stream = MediaStream(path, window_s=window_s, threads=threads, **processor.media_kwargs())
        identity = file_identity(path)  # before it is decoded: a file replaced meanwhile is another than on record
        for waveform, following in _with_following(iter(stream), _shortest_piece(processor)):
            yield _sound_inputs(processor, waveform, following)
        if stream.media.frames is not None:
            yield _inputs(processor, frames=stream.media.frames)
    except OSError as error:  # gone or unreadable meanwhile: this video's fault, unlike errors of the output
        raise MediaError(f"{path}: {error.strerror or error}") from error
    facts = {"duration": stream.media.duration, "bytes": int(identity.partition("-")[0]), "identity": identity}
    facts |= {"warnings": list(stream.media.warnings), "seconds": time.perf_counter() - begin}
    yield {"facts": facts}


def _shortest_piece(processor: Any) -> int:
    """In samples; what is left at the end and shorter belongs to the piece before it: official preprocessing drops less
    than half of a window, and less than a frame does not fill one."""
    return processor.audio_window_frames * FRAME_SHIFT + FRAME_LENGTH


def _with_following(windows: Iterator[np.ndarray], shortest: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pieces with the begin of the one that follows, a last piece that is too short joined to the one before.

    Example:
        >>> pieces = [np.arange(500), np.arange(500), np.arange(2)]
        >>> [(len(piece), len(following)) for piece, following in _with_following(iter(pieces), 3)]
        [(500, 240), (502, 0)]
    """
    piece = next(windows, None)
    for following in windows:
        if len(following) < shortest:  # only the last one can be
            piece = np.concatenate([piece, following])
            continue
        yield piece, following[:_OVERLAP]
        piece = following
    if piece is not None:
        yield piece, piece[:0]


def _sound_inputs(processor: Any, waveform: np.ndarray, following: np.ndarray) -> dict[str, np.ndarray]:
    inputs = _inputs(processor, waveform=np.concatenate([waveform, following]))
    if len(following):
        # The filterbanks of the last window needed what follows; for speech it is the begin of the next piece.
        chunks = math.ceil(len(waveform) / processor.feature_extractor.n_samples)
        for name in ("input_features", "input_features_mask"):
            inputs[name] = inputs[name][:chunks]
    return inputs


def _inputs(
    processor: Any, frames: np.ndarray | None = None, waveform: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    media = Media(0.0, frames, np.empty(0), waveform, processor.sampling_rate)
    inputs = processor(videos=[media], return_tensors="pt")
    return {name: values[0].numpy() for name, values in inputs.items() if name != "visual_features_mask"}
