"""Preprocessing of a video file to inputs of the towers: the part of an extraction that needs CPUs, but no model.

It runs in worker processes (`workers.py`) or in tasks of a cluster (`ray_engine.py`). Long sound is split into pieces,
so that a video of three hours takes no more memory than one of half an hour.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..models.feature_extraction_beats import FRAME_LENGTH, FRAME_SHIFT
from ..models.media import Media, MediaError, MediaStream
from ..run_log import fingerprint
from ..system.checksums import file_identity

#: Samples of the next piece that the last filterbank frames of a piece overlap.
_OVERLAP = FRAME_LENGTH - FRAME_SHIFT


def prepare(path: str | os.PathLike, processor: Any, threads: int = 1) -> Iterator[dict[str, Any]]:
    """Read a video in one pass and yield the inputs of the towers.

    Args:
        path: path of the file.
        processor: processor such as [`LongVALEProcessor`].
        threads: decoder threads.

    Returns:
        Yields inputs of the towers (see [`preprocess`]): those of each piece of sound, then those of the frames. The
        last item is `{"facts": {...}}`, with `duration` in seconds, `bytes` and `identity` (see [`file_identity`]) of
        the file, `warnings`, and the `seconds` of reading and preprocessing.

    Raises:
        MediaError: if the file cannot be read.
    """
    path = Path(path)
    begin = time.perf_counter()
    try:
        window_s = processor.piece_samples / processor.sampling_rate
        stream = MediaStream(path, window_s=window_s, threads=threads, **processor.media_kwargs())
        identity = file_identity(path)  # before decoding: a file replaced meanwhile then differs from the record
        for waveform, following in _with_following(iter(stream), _shortest_piece(processor)):
            yield _sound_inputs(processor, waveform, following)
        if stream.media.frames is not None:
            yield preprocess(processor, _media(processor, frames=stream.media.frames))
    except OSError as error:  # deleted or unreadable meanwhile: an error of this video, not of the output
        raise MediaError(f"{path}: {error.strerror or error}") from error
    facts = {"duration": stream.media.duration, "bytes": int(identity.partition("-")[0]), "identity": identity}
    facts |= {"warnings": list(stream.media.warnings), "seconds": time.perf_counter() - begin}
    yield {"facts": facts}


def describe_processor(processor: Any) -> dict[str, Any]:
    """Return what changes the inputs of the towers, for the manifest: settings, and digests of the two extractors."""
    own = ("preprocessing", "num_frames", "audio_window_frames", "speech_window_states")
    images = ("size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std")
    steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
    settings = {name: getattr(processor, name) for name in own}
    for part, names in (
        ("image_processor", (*images, *steps)),
        ("feature_extractor", ("sampling_rate", "feature_size", "chunk_length", "hop_length", "n_fft")),
    ):
        values = [getattr(getattr(processor, part), name) for name in names]
        settings[part] = fingerprint(json.dumps(values, default=dict, sort_keys=True))
    return settings


def _shortest_piece(processor: Any) -> int:
    """Return the minimum length of a last piece in samples. A shorter one is joined to the piece before it: official
    preprocessing would drop less than half of a window, and less than a frame gives no filterbank frame."""
    return processor.audio_window_frames * FRAME_SHIFT + FRAME_LENGTH


def _with_following(windows: Iterator[np.ndarray], shortest: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each piece with the beginning of the next one; a last piece that is too short is joined to the previous.

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
    inputs = preprocess(processor, _media(processor, waveform=np.concatenate([waveform, following])))
    if len(following):
        # Only the last filterbank frames needed the overlap; for speech it belongs to the next piece.
        chunks = math.ceil(len(waveform) / processor.feature_extractor.n_samples)
        for name in ("input_features", "input_features_mask"):
            inputs[name] = inputs[name][:chunks]
    return inputs


def _media(processor: Any, frames: np.ndarray | None = None, waveform: np.ndarray | None = None) -> Media:
    return Media(0.0, frames, np.empty(0), waveform, processor.sampling_rate)


def preprocess(processor: Any, video: str | os.PathLike | Media) -> dict[str, np.ndarray]:
    """Return the inputs of the towers for one video, without the batch dimension."""
    inputs = processor(videos=[video], return_tensors="pt")
    return {name: values[0].numpy() for name, values in inputs.items() if name != "visual_features_mask"}
