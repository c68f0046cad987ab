"""Pretrained encoders for the towers of a model: any vision model of transformers, BEATs, Whisper's encoder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..events import MODALITIES
from .loading import distrust, not_found

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig

#: Modality -> field of the model's configuration.
_CONFIG_NAMES = {"visual": "vision_config", "audio": "audio_config", "speech": "speech_config"}


@dataclass(frozen=True)
class Tower:
    """A pretrained encoder.

    Args:
        path: path that it was loaded from.
        module: module for the model.
        config: configuration of the module.
        config_name: field of the model's configuration for `config`.
        width: width of its features.
        preprocessor: an image processor or a feature extractor; None for BEATs, whose extractor has no saved settings.
    """

    path: str
    module: nn.Module
    config: PreTrainedConfig
    config_name: str
    width: int
    preprocessor: Any = None

    def weights(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the weights by their names in the model, which begin with `prefix`."""
        return {prefix + name: tensor for name, tensor in self.module.state_dict().items()}


def load_towers(paths: Mapping[str, str | os.PathLike], dtype: str) -> dict[str, Tower]:
    """Load towers by modality.

    Args:
        paths: folders or Hub ids; for "audio", a folder or a published .pt file of BEATs.
        dtype: dtype such as "float32".

    Raises:
        FileNotFoundError: if a tower does not exist.
        ValueError: naming the tower that has the wrong type, or is damaged or incomplete.
    """
    loaders = {"visual": _load_visual, "audio": _load_audio, "speech": _load_speech}
    towers = {}
    for modality in MODALITIES:
        if modality not in paths:
            continue
        path = str(paths[modality])
        module, config, width, preprocessor = explain(loaders[modality], path)
        module.to(getattr(_torch(), dtype)).eval()
        towers[modality] = Tower(path, module, config, _CONFIG_NAMES[modality], width, preprocessor)
    return towers


def explain(load: Callable[[str], Any], path: str, revision: str | None = None) -> Any:
    """Return `load(path)`; convert its errors to one line that begins with the path, and names the revision to fetch.

    Raises:
        FileNotFoundError: if there is nothing to load.
        ValueError: if it is damaged or has the wrong type, or needs a package that is not installed.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    distrust(path)
    try:
        return load(path)
    except OSError as error:  # transformers raises this for any missing file
        raise not_found(path, error, revision) from error
    except (ValueError, KeyError, RuntimeError, ImportError, SafetensorError, StrictDataclassError) as error:
        reason = _reason(error)
        raise ValueError(reason if reason.startswith(path) else f"{path}: cannot be loaded: {reason}") from error


def _load_visual(path: str) -> tuple[nn.Module, PreTrainedConfig, int, Any]:
    from transformers import MODEL_MAPPING, AutoConfig, AutoImageProcessor, CLIPVisionConfig
    from transformers import CLIPVisionModelWithProjection as ClipTower

    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    if hasattr(config, "vision_config"):  # of a model for images and text
        projection = getattr(config, "projection_dim", None)
        config = config.vision_config
        if isinstance(config, CLIPVisionConfig):
            config.projection_dim = projection
    model_class = ClipTower if isinstance(config, CLIPVisionConfig) else MODEL_MAPPING.get(type(config), None)
    if model_class is None:
        raise ValueError(f"{path}: transformers has no vision model of type {config.model_type!r}")
    module = _load_whole(model_class, path, config=config)
    return module, module.config, _visual_width(module.config), AutoImageProcessor.from_pretrained(path)


def _visual_width(config: PreTrainedConfig) -> int:
    """Return the feature width: that of CLIP's projected embedding, or of the pooled output of other models."""
    if config.model_type == "clip_vision_model":
        return config.projection_dim
    width = getattr(config, "hidden_size", None) or next(iter(reversed(getattr(config, "hidden_sizes", ()))), None)
    if width is None:
        raise ValueError(f"the width of a {config.model_type} model's features is not known")
    return width


def _load_audio(path: str) -> tuple[nn.Module, PreTrainedConfig, int, Any]:
    from ..models.modeling_beats import BeatsModel

    module = _load_whole(BeatsModel, path) if Path(path).is_dir() else BeatsModel.from_original(path)
    return module, module.config, module.config.hidden_size, None


def _load_speech(path: str) -> tuple[nn.Module, PreTrainedConfig, int, Any]:
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig.from_pretrained(path)
    if config.model_type != "whisper":
        raise ValueError(f"{path}: is a {config.model_type} model; the speech tower is Whisper's encoder")
    # The weights of the decoder match no name in the encoder, so they are never read.
    module = _load_whole(WhisperEncoder, path, config=config, key_mapping={r"^(model\.)?encoder\.": ""})
    extractor = WhisperFeatureExtractor.from_pretrained(path)
    if extractor.feature_size != config.num_mel_bins:
        raise ValueError(
            f"{path}: preprocessor_config.json makes {extractor.feature_size} mel bands, but config.json takes "
            f"{config.num_mel_bins}"
        )
    return module, config, config.d_model, extractor


def _load_whole(model_class: Any, path: str, **options: Any) -> nn.Module:
    """Load a module, refusing missing or mismatched weights; unexpected weights are ignored."""
    module, found = model_class.from_pretrained(
        path, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False, **options
    )
    if found["missing_keys"]:
        raise ValueError(f"{path}: lacks {len(found['missing_keys'])} weights, such as {min(found['missing_keys'])}")
    if found["mismatched_keys"]:
        name, stored, expected = min(found["mismatched_keys"])
        raise ValueError(f"{path}: {name} is {list(stored)}, but config.json says {list(expected)}")
    return module


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."


def _torch() -> Any:
    import torch

    return torch
