"""Embedders with pretrained weights: models of transformers, or the visual tower of a LongVALE checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoints.loading import distrust, not_found, split_revision
from ...models.media import SAMPLING_RATE
from .descriptors import ColourEmbedder, TimbreEmbedder

_BATCH = 16


def checked(embedder: Any) -> Any:
    """Return an embedder that checks its embeddings; measured descriptors need no check, and stay what they are.

    Args:
        embedder: frame or audio embedder.
    """
    return embedder if isinstance(embedder, ColourEmbedder | TimbreEmbedder) else CheckedEmbedder(embedder)


class CheckedEmbedder:
    """An embedder whose embeddings are checked: boundaries of numbers that are not finite would be of no use.

    Args:
        embedder: frame or audio embedder.

    Example:
        >>> from .descriptors import ColourEmbedder
        >>> CheckedEmbedder(ColourEmbedder())(np.zeros((2, 4, 4, 3), np.uint8)).shape
        (2, 320)
    """

    def __init__(self, embedder: Any) -> None:
        self.name, self._embedder = embedder.name, embedder
        self.size = getattr(embedder, "size", None)

    def __call__(self, inputs: Any) -> np.ndarray:
        """Embed frames or audio clips -> float [n, d].

        Raises:
            ValueError: if the model fails, or returns something else than finite numbers [n, d].
        """
        remedy = "name another --visual-model or --audio-model, or --device cpu"
        try:
            rows = self._embedder(inputs)
        except RuntimeError as error:  # torch raises it, also without enough memory
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"{self.name}: {reason}; {remedy}") from error
        if not (
            isinstance(rows, np.ndarray) and rows.ndim == 2 and len(rows) == len(inputs) and np.isfinite(rows).all()
        ):
            raise ValueError(f"{self.name}: returned embeddings that are not finite numbers [n, d]; {remedy}")
        return rows


class TransformersFrameEmbedder:
    """Frame embedder: an image model of transformers, such as CLIP or DINOv2; embeddings have length 1.

    Args:
        model: Hub id, ID@REVISION, or folder.
        device: torch device, such as "cuda:0".

    Raises:
        ValueError: if the model cannot be loaded.
    """

    size = 224

    def __init__(self, model: str, device: str | None = None) -> None:
        from transformers import AutoImageProcessor

        self.name = model
        self._model = _load(model, device)
        self._processor = _from_pretrained(AutoImageProcessor, model)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Embed frames: uint8 [n, H, W, 3] -> float32 [n, d]."""
        import torch

        rows = []
        for begin in range(0, len(frames), _BATCH):
            inputs = self._processor(images=list(frames[begin : begin + _BATCH]), return_tensors="pt")
            with torch.inference_mode():
                rows.append(_embed(self._model, "get_image_features", inputs.to(self._model.device)))
        return np.concatenate(rows)


class TransformersAudioEmbedder:
    """Audio embedder: an audio model of transformers, such as CLAP; embeddings have length 1.

    Args:
        model: Hub id, ID@REVISION, or folder.
        device: torch device, such as "cuda:0".

    Raises:
        ValueError: if the model cannot be loaded.
    """

    def __init__(self, model: str, device: str | None = None) -> None:
        from transformers import AutoFeatureExtractor

        self.name = model
        self._model = _load(model, device)
        self._extractor = _from_pretrained(AutoFeatureExtractor, model)

    def __call__(self, clips: list[np.ndarray]) -> np.ndarray:
        """Embed audio clips: float32 [samples] each, 16 kHz -> float32 [n, d]."""
        import torch
        import torchaudio

        rate, rows = self._extractor.sampling_rate, []
        for clip in clips:
            resampled = torchaudio.functional.resample(torch.from_numpy(clip), SAMPLING_RATE, rate).numpy()
            resampled = np.pad(resampled, (0, max(0, rate // 10 - len(resampled))))  # extractors need a minimum length
            inputs = self._extractor(resampled, sampling_rate=rate, return_tensors="pt").to(self._model.device)
            with torch.inference_mode():
                rows.append(_embed(self._model, "get_audio_features", inputs))
        return np.concatenate(rows)


class CheckpointFrameEmbedder:
    """Frame embedder: the visual tower of a LongVALE checkpoint; embeddings have length 1.

    Args:
        model: folder or Hub id.
        device: torch device, such as "cuda:0".

    Raises:
        FileNotFoundError, ValueError: as [`longvale.checkpoints.loading.load_checkpoint`].
    """

    size = 224

    def __init__(self, model: str, device: str | None = None) -> None:
        from ...checkpoints.loading import load_checkpoint
        from ...models.modeling_longvale import LongVALEModel

        self.name = f"{model} (visual tower)"
        self._model, self._processor = load_checkpoint(model, LongVALEModel, device=device, only_towers=True)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Embed frames: uint8 [n, H, W, 3] -> float32 [n, d]."""
        import torch

        rows = []
        for begin in range(0, len(frames), _BATCH):
            pixels = self._processor(videos=[frames[begin : begin + _BATCH]], return_tensors="pt")
            with torch.inference_mode():
                values = self._model.get_visual_features(pixels["pixel_values_videos"].to(self._model.device))
            rows.append(_unit(values[0]))
        return np.concatenate(rows)


def _load(model: str, device: str | None) -> Any:
    from transformers import AutoModel

    from ...models.layers import guard_convolutions

    loaded = guard_convolutions(_from_pretrained(AutoModel, model)).eval()
    return loaded.to(device) if device else loaded


def _from_pretrained(kind: Any, model: str) -> Any:
    path, revision = split_revision(model)
    distrust(path)
    try:
        return kind.from_pretrained(path, revision=revision)
    except (OSError, KeyError, ValueError) as error:
        if isinstance(error, OSError) and not Path(path).exists():
            raise not_found(path, error, revision) from error
        raise ValueError(f"{model}: cannot be loaded as a tower: {' '.join(str(error).split())[:200]}") from error


def _embed(model: Any, method: str, inputs: Any) -> np.ndarray:
    """Return embeddings [n, d]: from the model's own method, else its pooled output, else the mean of its states."""
    output = getattr(model, method)(**inputs) if hasattr(model, method) else model(**inputs)
    if not hasattr(output, "shape"):
        pooled = getattr(output, "pooler_output", None)
        output = output.last_hidden_state.mean(dim=1) if pooled is None else pooled
    return _unit(output)


def _unit(rows: Any) -> np.ndarray:
    import torch

    return torch.nn.functional.normalize(rows.float(), dim=-1).cpu().numpy()
