"""Adapters of the training stages: saving for peft, and conversion to the published layout."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io import atomic_folder, load_json
from .loading import check_weights_recorded
from .official import ADAPTER_CONFIG, LORA_NAME, NON_LORA, PROJECTORS, TRAINED_PROJECTORS, Adapter, check_plain_lora
from .writing import saving

if TYPE_CHECKING:
    import torch

_WEIGHTS = "adapter_model.safetensors"
_PEFT = "base_model.model."
_LANGUAGE_MODEL = "model.language_model"
#: Our names of the projectors that a stage trains -> published names; peft stores these projectors as full weights.
_OUR_PROJECTORS = {PROJECTORS[name]: name for name in TRAINED_PROJECTORS}


def save_adapter(adapter: Adapter, folder: Path, base: str | os.PathLike) -> None:
    """Write the adapter of a stage for `PeftModel.from_pretrained(model, folder)`.

    Args:
        adapter: adapter to write.
        folder: output folder.
        base: checkpoint that the adapter belongs to, recorded in its configuration.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    names = "|".join(map(re.escape, adapter.targets))
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        target_modules=rf"{re.escape(_LANGUAGE_MODEL)}\.(.*\.)?({names})",
        modules_to_save=[name.rpartition(".")[2] for name in _OUR_PROJECTORS],
        task_type="CAUSAL_LM",
        base_model_name_or_path=os.path.abspath(base),
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    tensors = {f"{_PEFT}{name}": tensor for name, tensor in adapter.projectors.items()}
    for side, of_module in (("A", adapter.down), ("B", adapter.up)):
        tensors |= {f"{_PEFT}{module}.lora_{side}.weight": tensor for module, tensor in of_module.items()}
    with saving(folder / _WEIGHTS):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / _WEIGHTS)


def convert_back(folder: str | os.PathLike, output: str | os.PathLike) -> None:
    """Write one of our adapters in the published layout, for the published loader.

    Args:
        folder: folder of an adapter, such as `adapter/` in the output of a recipe: adapter_config.json and
            adapter_model.safetensors.
        output: output folder; it must not exist.

    Raises:
        FileExistsError: if `output` exists.
        FileNotFoundError: naming the missing file.
        ValueError: if it is not a plain LoRA of the language model with the audio and the speech projector.

    Example:
        >>> convert_back("outputs/instruction/adapter", "longvale-vicuna-v1-5-7b-stage3-it")  # doctest: +SKIP
    """
    import torch

    folder, output = Path(folder), Path(output)
    config_path, weights_path = folder / ADAPTER_CONFIG, folder / _WEIGHTS
    for path in (config_path, weights_path):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; give the folder of an adapter")
    config = load_json(config_path)
    if not isinstance(config, dict):
        raise ValueError(f"{config_path}: must be an object")
    # Full projector weights are allowed in addition to the LoRA: they go into non_lora_trainables.bin.
    rank, alpha = check_plain_lora({**config, "modules_to_save": None}, config_path)
    lora, projectors = _published_names(_load(weights_path), weights_path)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": alpha,
        "lora_dropout": config.get("lora_dropout", 0.0),
        "modules_to_save": None,
        "r": rank,
        "target_modules": sorted({LORA_NAME.fullmatch(name)["module"].rpartition(".")[2] for name in lora}),
    }
    with atomic_folder(output) as partial:
        (partial / ADAPTER_CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        with saving(output):
            torch.save(lora, partial / "adapter_model.bin")
            torch.save(projectors, partial / NON_LORA)


def _load(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_weights_recorded(path.parent)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: the weights are damaged ({error}); copy or download them again") from error


def _published_names(tensors: Mapping[str, torch.Tensor], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the LoRA and the projectors under their published names."""
    lora: dict[str, Any] = {}
    projectors: dict[str, Any] = {}
    for name, tensor in tensors.items():
        module, _, kind = name.removeprefix(_PEFT).rpartition(".")
        published = name.removeprefix(_PEFT).replace(f"{_LANGUAGE_MODEL}.", "model.", 1)
        if module in _OUR_PROJECTORS:
            projectors[f"{_PEFT}model.{_OUR_PROJECTORS[module]}.{kind}"] = tensor
        elif LORA_NAME.fullmatch(name) and published.startswith("model.layers."):
            lora[f"{_PEFT}{published}"] = tensor
        else:
            raise ValueError(
                f"{path}: {name} has no place in the published layout: a LoRA of the language model's "
                "layers, and the audio and the speech projector"
            )
    wanted = {f"{_PEFT}model.{name}.{kind}" for name in TRAINED_PROJECTORS for kind in ("weight", "bias")}
    if wanted - projectors.keys():
        raise ValueError(f"{path}: lacks {min(wanted - projectors.keys()).removeprefix(f'{_PEFT}model.')}")
    if not lora:
        raise ValueError(f"{path}: holds no LoRA")
    return lora, projectors
