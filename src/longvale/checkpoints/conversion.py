"""Conversion of the published checkpoint, which has four parts in its own layout, for `from_pretrained`.

The published loader applies the parts in order and merges each LoRA before the next part. The same is done here one
tensor at a time, so that only one weight of a 7B model is in memory, in addition to the mapped files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from ..io import atomic_folder, load_json
from .adapters import save_adapter
from .card import save_model_card
from .encoders import Tower, load_towers
from .official import (
    PROJECTORS,
    Adapter,
    OfficialParts,
    check_adapter,
    check_weights,
    find_parts,
    read_adapter,
    read_base,
    read_projectors,
)
from .writing import save_code_and_config, save_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from ..models.configuration_longvale import LongVALEConfig
    from ..models.processing_longvale import LongVALEProcessor
    from .official import Tensors

#: Dtype in which merged weights are computed and stored.
MergeDtype = Literal["float32", "bfloat16", "float16"]

#: Published names of the towers -> their modalities.
TOWERS = {"clip": "visual", "beats": "audio", "whisper": "speech"}

#: Folders that `keep_adapters` writes: the model before the tuning stages, and the adapter of each stage.
BASE_FOLDER, ADAPTERS_FOLDER = "base", "adapters"
_STAGE_NAMES = ("boundary_perception", "instruction")

_ORIGIN = (
    "Converted by `longvale convert` from the parts that the authors published: the base model, the visual projector, "
    "and the adapters of both tuning stages, which are merged."
)


@dataclass(frozen=True)
class _Source:
    """A published checkpoint that has been read; its weights are mapped, not copied."""

    parts: OfficialParts
    weights: dict[str, torch.Tensor]
    adapters: tuple[Adapter, ...]
    config: LongVALEConfig
    processor: LongVALEProcessor
    towers: Mapping[str, Tower] = field(default_factory=dict)


def convert(
    folder: str | os.PathLike,
    output: str | os.PathLike,
    *,
    towers: Mapping[str, str | os.PathLike] | None = None,
    keep_adapters: bool = False,
    merge_dtype: MergeDtype = "float32",
    max_shard_size: str = "5GB",
    **given: str | os.PathLike | None,
) -> OfficialParts:
    """Convert a published checkpoint to safetensors, processor, generation settings, code and model card.

    The processor uses the published preprocessing.

    Args:
        folder: folder in which [`find_parts`] searches for the parts.
        output: output folder; it must not exist. It is written completely or not at all.
        towers: towers to include in the model: "clip" and "whisper" as folders or Hub ids, "beats" as the published .pt
            file. Without a tower, the model accepts that modality as stored features.
        keep_adapters: also write, for peft, `base/`, the model before stage 2, whose audio and speech projectors are
            zero, and `adapters/`, the adapter of each stage.
        merge_dtype: dtype in which adapters are merged and all weights stored. The published loader merges in float16,
            which rounds each weight twice.
        max_shard_size: maximum size of a file of weights, such as "5GB".
        given: parts that are elsewhere or ambiguous, by the names of [`OfficialParts`].

    Returns:
        The parts that were used.

    Raises:
        FileExistsError: if `output` exists.
        FileNotFoundError: naming the missing part or file.
        ValueError: naming the item that is ambiguous, damaged, of the wrong shape, missing or unexpected.

    Example:
        >>> convert("longvalellm-vicuna-v1-5-7b", "longvale-7b", base="vicuna-7b-v1.5")  # doctest: +SKIP
    """
    output = Path(output)
    if output.exists():
        raise FileExistsError(f"{output}: exists already; give another --output or remove it")
    if merge_dtype not in get_args(MergeDtype):
        raise ValueError(f"merge dtype must be one of {', '.join(get_args(MergeDtype))}, not {merge_dtype!r}")
    source = _read(find_parts(folder, **given), towers or {}, merge_dtype)
    with atomic_folder(output) as partial:
        model = _save(source, partial, source.adapters, max_shard_size)
        save_model_card(partial, model, title=output.name, origin=_ORIGIN, published=True)
        if keep_adapters:
            (partial / BASE_FOLDER).mkdir()
            _save(source, partial / BASE_FOLDER, (), max_shard_size)
            for name, adapter in zip(_STAGE_NAMES, source.adapters, strict=True):
                save_adapter(adapter, partial / ADAPTERS_FOLDER / name, base=output / BASE_FOLDER)
    return source.parts


def _read(parts: OfficialParts, towers: Mapping[str, str | os.PathLike], dtype: MergeDtype) -> _Source:
    text_config = _load_text_config(parts.base)
    adapters = read_adapter(parts.stage2), read_adapter(parts.stage3)
    weights = read_base(parts.base) | read_projectors(parts.visual_projector, ("mm_projector",))
    unknown = towers.keys() - TOWERS.keys()
    if unknown:
        raise ValueError(f"unknown tower {min(unknown)!r}; towers are {', '.join(TOWERS)}")
    loaded = load_towers({TOWERS[name]: path for name, path in towers.items()}, dtype)
    processor = _build_processor(parts.base, loaded)
    widths = _widths(weights | adapters[-1].projectors)
    config = _build_config(text_config, processor, widths, loaded, dtype)
    return _Source(parts, weights, adapters, config, processor, loaded)


def _save(source: _Source, folder: Path, adapters: tuple[Adapter, ...], max_shard_size: str) -> PreTrainedModel:
    """Save the model with these adapters merged; returns the saved model on the meta device."""
    import torch

    source.processor.save_pretrained(folder)
    model = save_code_and_config(source.config, source.processor, folder)
    expected = dict(model.state_dict())
    if source.config.tie_word_embeddings:
        del expected["lm_head.weight"]
    weights = dict(source.weights)
    for adapter in source.adapters:
        zeros = {name: torch.zeros_like(tensor) for name, tensor in adapter.projectors.items()}
        weights |= adapter.projectors if adapters else zeros
    for modality, tower in source.towers.items():
        weights |= tower.weights(f"model.{modality}_tower.")
    check_weights(weights, expected, source.parts)
    for adapter in adapters:
        check_adapter(adapter, expected)
    save_weights(folder, expected, lambda name: _merge(name, weights, adapters, expected[name].dtype), max_shard_size)
    return model


def _merge(name: str, weights: Tensors, adapters: tuple[Adapter, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return a weight with the adapters merged in order; each adds alpha / r B A (Hu et al., "LoRA", 2021)."""
    weight, module = weights[name].to(dtype), name.removesuffix(".weight")
    for adapter in adapters:
        if module in adapter.up:
            update = adapter.up[module].to(dtype) @ adapter.down[module].to(dtype)
            weight = weight + update * (adapter.alpha / adapter.rank)
    return weight


def _build_processor(base: Path, towers: Mapping[str, Tower]) -> LongVALEProcessor:
    """Build a processor from the base's tokenizer and the published preprocessing: CLIP, BEATs and Whisper large v2."""
    from transformers import CLIPImageProcessor, WhisperFeatureExtractor

    from ..models.processing_longvale import LongVALEProcessor

    return LongVALEProcessor(
        towers["visual"].preprocessor if "visual" in towers else CLIPImageProcessor(),
        towers["speech"].preprocessor if "speech" in towers else WhisperFeatureExtractor(),
        _load_tokenizer(base),
        preprocessing="official",
    )


def _load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """Load the base's tokenizer and keep `legacy`: whether text after a special token begins with a space."""
    from google.protobuf.message import DecodeError
    from transformers import AutoTokenizer

    path = base / "tokenizer_config.json"
    settings = load_json(path) if path.is_file() else {}
    # If they are not set, the versions of transformers that the published code uses assume True for both.
    legacy, begin = (settings.get(name) is not False for name in ("legacy", "add_bos_token"))
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False, legacy=legacy, add_bos_token=begin)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, DecodeError) as error:
        raise ValueError(f"{base}: the tokenizer is damaged ({' '.join(str(error).split())[:120]})") from error
    tokenizer.init_kwargs["legacy"] = legacy  # otherwise it is not saved
    return tokenizer


def _widths(weights: Tensors) -> dict[str, int]:
    """Return the input widths of the projectors [hidden, width], by field of the configuration."""
    widths = {}
    for name in PROJECTORS.values():
        weight = weights[f"{name}.weight"]
        if weight.ndim != 2:
            raise ValueError(f"{name}.weight is {list(weight.shape)}; a projector is [hidden, width]")
        modality = name.removeprefix("model.").removesuffix("_projector")
        widths[f"{modality}_feature_size"] = weight.shape[1]
    return widths


def _load_text_config(base: Path) -> PreTrainedConfig:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    path = base / "config.json"
    if not isinstance(load_json(path), dict):
        raise ValueError(f"{path}: must be an object; copy or download it again")
    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, StrictDataclassError) as error:
        raise ValueError(f"{path}: is not a model configuration ({' '.join(str(error).split())[:120]})") from error
    config.name_or_path = ""  # a path of this machine
    return config


def _build_config(
    text_config: PreTrainedConfig,
    processor: LongVALEProcessor,
    widths: Mapping[str, int],
    towers: Mapping[str, Tower],
    dtype: MergeDtype,
) -> LongVALEConfig:
    from ..models.configuration_longvale import LongVALEConfig

    text_config.dtype = dtype
    for modality, tower in towers.items():
        if tower.width != widths[f"{modality}_feature_size"]:
            raise ValueError(
                f"{tower.path}: the tower gives features of width {tower.width}, but the projector reads "
                f"{widths[f'{modality}_feature_size']}; it is not the published one"
            )
    return LongVALEConfig(
        text_config=text_config,
        video_token_id=processor.video_token_id,
        preprocessing=processor.preprocessing,
        architectures=["LongVALEForConditionalGeneration"],
        dtype=dtype,
        **{tower.config_name: tower.config for tower in towers.values()},
        **widths,
    )
