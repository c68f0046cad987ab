"""Layout of the published checkpoint: finding, reading and checking its parts.

The parts are a base language model, the visual projector of stage 1, and for stages 2 and 3 one LoRA each, with the
projectors trained together with it.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..io import load_json
from .loading import file_of

if TYPE_CHECKING:
    import torch

    Tensors: TypeAlias = Mapping[str, torch.Tensor]

#: Published names of the projectors -> our names.
PROJECTORS = {
    "mm_projector": "model.visual_projector",
    "audio_mm_projector": "model.audio_projector",
    "asr_mm_projector": "model.speech_projector",
}
#: Projectors trained in stages 2 and 3; the visual one is trained in stage 1.
TRAINED_PROJECTORS = ("audio_mm_projector", "asr_mm_projector")

ADAPTER_CONFIG, NON_LORA = "adapter_config.json", "non_lora_trainables.bin"
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
TOKENIZER = "tokenizer.model"
_PREFIX = re.compile(r"(base_model\.|model\.)*")
LORA_NAME = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")
#: A buffer stored by older versions of transformers; the configuration determines it.
_STORED_BUFFER = re.compile(r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
#: Patterns of folder names of each stage, in published checkpoints and others: by number, or "bp" for boundary
#: perception and "it" for instruction tuning.
_STAGES = {
    "stage2": re.compile(r"(?i)stage[-_]?2|(^|[-_])bp([-_]|$)"),
    "stage3": re.compile(r"(?i)stage[-_]?3|(^|[-_])it([-_]|$)"),
}
#: Settings of peft that change how a LoRA is merged, and the values with which its update is B A alpha / r.
_PLAIN_LORA = {"peft_type": ("LORA",), "bias": (None, "none")} | dict.fromkeys(
    ("fan_in_fan_out", "use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save"),
    (None, False, {}, []),
)


@dataclass(frozen=True)
class OfficialParts:
    """Paths of the parts of a published checkpoint.

    Args:
        base: folder of the language model: config.json, weights (.bin or .safetensors) and tokenizer.model.
        visual_projector: file of the stage-1 projector.
        stage2: folder of the boundary-perception LoRA with its non_lora_trainables.bin.
        stage3: folder of the instruction-tuning LoRA with its non_lora_trainables.bin.
    """

    base: Path
    visual_projector: Path
    stage2: Path
    stage3: Path


@dataclass(frozen=True)
class Adapter:
    """A LoRA and the projectors trained together with it.

    Args:
        path: file of the LoRA.
        rank, alpha: parameters of the LoRA; it adds alpha / rank B A.
        targets: names of the adapted modules, such as "q_proj".
        down, up: A [rank, in] and B [out, rank] of each module, by our names.
        projectors: weights of the projectors, by our names.
    """

    path: Path
    rank: int
    alpha: float
    targets: tuple[str, ...]
    down: dict[str, torch.Tensor] = field(default_factory=dict)
    up: dict[str, torch.Tensor] = field(default_factory=dict)
    projectors: dict[str, torch.Tensor] = field(default_factory=dict)


# Finding the parts


def find_parts(folder: str | os.PathLike, **given: str | os.PathLike | None) -> OfficialParts:
    """Find the parts of a published checkpoint by the contents of the folders under `folder`.

    Args:
        folder: folder that contains the parts, at any depth.
        given: paths of `base`, `visual_projector`, `stage2` or `stage3` that are known; None for parts to search for.

    Raises:
        FileNotFoundError: if `folder` does not exist, a part is missing, or a given part lacks a file.
        ValueError: if there are several candidates for a part; the message names the option that selects one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    names = [part.name for part in fields(OfficialParts)]
    unknown = given.keys() - set(names)
    if unknown:
        raise TypeError(f"unknown part {min(unknown)!r}; parts are {', '.join(names)}")
    wanted = {name for name in names if given.get(name) is None}
    chosen = {name: Path(path) for name, path in given.items() if path is not None}
    for name in names:
        if name in wanted:
            taken = set(chosen.values()) if name.startswith("stage") else set()
            chosen[name] = _only(name, [path for path in _candidates(name, folder) if path not in taken], folder)
    parts = OfficialParts(**chosen)
    _check_parts(parts)
    return parts


def _candidates(name: str, folder: Path) -> list[Path]:
    if name == "visual_projector":
        return sorted(path for path in folder.rglob("*mm_projector.bin") if path.is_file())
    folders = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    if name == "base":
        return [path for path in folders if (path / "config.json").is_file() and _base_files(path)]
    adapters = [path for path in folders if (path / ADAPTER_CONFIG).is_file()]
    # Training checkpoints inside the folder of a stage are not stages.
    outermost = [path for path in adapters if not set(path.parents) & set(adapters)]
    return [path for path in outermost if _STAGES[name].search(path.name)]


def _only(name: str, found: list[Path], folder: Path) -> Path:
    option = f"--{name.replace('_', '-')}"
    what = {
        "base": "a base model (a folder with config.json and its weights)",
        "visual_projector": "a visual projector (*mm_projector.bin)",
        "stage2": "a stage-2 adapter (a folder with adapter_config.json and stage2 or bp in its name)",
        "stage3": "a stage-3 adapter (a folder with adapter_config.json and stage3 or it in its name)",
    }[name]
    if not found:
        raise FileNotFoundError(f"{folder}: does not hold {what}; name it with {option}")
    if len(found) > 1:
        raise ValueError(f"{folder}: {', '.join(map(str, found))} could each be {what}; choose one with {option}")
    return found[0]


def _check_parts(parts: OfficialParts) -> None:
    """Refuse parts that lack a file, and one adapter for both stages."""
    if parts.stage2.resolve() == parts.stage3.resolve():
        raise ValueError(f"{parts.stage2}: is named as stage 2 and as stage 3; give --stage2 and --stage3")
    needed = [parts.base / "config.json", parts.base / TOKENIZER, parts.visual_projector]
    for stage in (parts.stage2, parts.stage3):
        needed += [stage / ADAPTER_CONFIG, stage / NON_LORA]
        if not any((stage / name).is_file() for name in _ADAPTER_WEIGHTS):
            needed.append(stage / _ADAPTER_WEIGHTS[-1])
    if not _base_files(parts.base):
        needed.append(parts.base / "pytorch_model.bin")
    for path in needed:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")


def _base_files(folder: Path) -> list[Path]:
    """Return the weight files of a base model: those in the index, if there is one; safetensors before .bin."""
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = folder / f"{stem}.{suffix}.index.json"
        if index.is_file():
            content = load_json(index)
            if not isinstance(content, dict) or not isinstance(content.get("weight_map"), dict):
                raise ValueError(f"{index}: holds no weight_map; copy or download it again")
            return [file_of(folder, name, index) for name in sorted(set(map(str, content["weight_map"].values())))]
        if (folder / f"{stem}.{suffix}").is_file():
            return [folder / f"{stem}.{suffix}"]
    return []


# Reading them


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Load the tensors of a file, mapped where the format allows; nothing in the file is executed."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Files written before torch 1.6 are not archives and cannot be mapped.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: is not a complete file of tensors ({reason}); copy or download it again") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ValueError(f"{path}: must hold tensors by name and nothing else")
    return loaded


def _read_named(path: Path) -> dict[str, torch.Tensor]:
    """Load the tensors of a file by their names, without the prefixes `base_model.` and `model.`."""
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in _read_tensors(path).items():
        short = name[_PREFIX.match(name).end() :]
        if short in tensors:
            raise ValueError(f"{path}: holds {short} twice, once as {name}")
        if not tensor.is_floating_point():
            raise ValueError(f"{path}: {name} is {tensor.dtype}; quantised weights cannot be merged")
        tensors[short] = tensor
    return tensors


def read_base(folder: Path) -> dict[str, torch.Tensor]:
    """Read the weights of the language model, by our names."""
    weights: dict[str, torch.Tensor] = {}
    for path in _base_files(folder):
        for name, tensor in _read_named(path).items():
            if _STORED_BUFFER.fullmatch(name):
                continue
            if our_name(name) in weights:
                raise ValueError(f"{path}: holds {name}, which another file of the base model holds too")
            weights[our_name(name)] = tensor
    return weights


def read_projectors(path: Path, projectors: Iterable[str]) -> dict[str, torch.Tensor]:
    """Read the weights of exactly these projectors, by our names."""
    tensors = _read_named(path)
    allowed = [f"{projector}.{kind}" for projector in projectors for kind in ("weight", "bias")]
    refuse_difference(path, tensors.keys(), allowed)
    return {our_name(name): tensor for name, tensor in tensors.items()}


def read_adapter(folder: Path) -> Adapter:
    """Read the LoRA and the projectors of a stage."""
    path = next(folder / name for name in _ADAPTER_WEIGHTS if (folder / name).is_file())
    rank, alpha, targets = _read_adapter_config(folder / ADAPTER_CONFIG)
    adapter = Adapter(path, rank, alpha, targets)
    for name, tensor in _read_named(path).items():
        match = LORA_NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"{path}: unexpected {name}: a LoRA holds lora_A and lora_B weights only")
        if tensor.ndim != 2 or tensor.shape[match["side"] == "B"] != rank:
            raise ValueError(f"{path}: {name} is {list(tensor.shape)}, but {ADAPTER_CONFIG} says r is {rank}")
        (adapter.down if match["side"] == "A" else adapter.up)[our_name(match["module"])] = tensor
    adapter.projectors.update(read_projectors(folder / NON_LORA, TRAINED_PROJECTORS))
    return adapter


def _read_adapter_config(path: Path) -> tuple[int, float, tuple[str, ...]]:
    """Read rank, alpha and target modules of a LoRA that is merged as B A alpha / r."""
    config = load_json(path)
    if not isinstance(config, dict):
        raise ValueError(f"{path}: must be an object")
    rank, alpha = check_plain_lora(config, path)
    targets = config.get("target_modules")
    if not isinstance(targets, list) or not targets:
        raise ValueError(f"{path}: target_modules must be a list of names, not {targets!r}")
    return rank, alpha, tuple(targets)


def check_plain_lora(config: Mapping[str, Any], path: Path) -> tuple[int, float]:
    """Return rank and alpha of an adapter's configuration.

    Raises:
        ValueError: if it is not a plain LoRA that adds alpha / r B A.
    """
    for name, plain in _PLAIN_LORA.items():
        if config.get(name) not in plain:
            raise ValueError(f"{path}: {name} is {config.get(name)!r}; only plain LoRA can be merged")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise ValueError(f"{path}: r must be 1 or more and lora_alpha a number, not {rank!r} and {alpha!r}")
    return rank, alpha


def our_name(name: str) -> str:
    """Return our name of a tensor or module of the published model.

    Example:
        >>> our_name("layers.0.mlp.up_proj.weight"), our_name("asr_mm_projector.bias")
        ('model.language_model.layers.0.mlp.up_proj.weight', 'model.speech_projector.bias')
    """
    first, _, rest = name.partition(".")
    if first in PROJECTORS:
        return f"{PROJECTORS[first]}.{rest}"
    return name if first == "lm_head" else f"model.language_model.{name}"


# Checking them


def refuse_difference(where: object, names: Iterable[str], expected: Iterable[str]) -> None:
    """Refuse names that differ from the expected ones; the error contains the first difference."""
    names, expected = set(names), set(expected)
    for kind, differing in (("missing", expected - names), ("unexpected", names - expected)):
        if differing:
            more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
            raise ValueError(f"{where}: {kind} {min(differing).removeprefix('model.language_model.')}{more}")


def check_weights(weights: Tensors, expected: Tensors, parts: OfficialParts) -> None:
    """Refuse weights that differ from the model in the base's config.json; projectors and towers are checked before."""
    refuse_difference(parts.base, weights.keys(), expected.keys())
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"{name} is {list(tensor.shape)}, but {parts.base / 'config.json'} makes it "
                f"{list(expected[name].shape)}; the parts are of different models"
            )


def check_adapter(adapter: Adapter, expected: Tensors) -> None:
    """Refuse a LoRA whose modules differ from those in its configuration, or whose shapes do not match them."""
    languages = ("model.language_model.", "lm_head.")  # towers have modules with the same names
    modules = [name.removesuffix(".weight") for name in expected if name.startswith(languages)]
    targets = [module for module in modules if module.endswith(tuple(f".{name}" for name in adapter.targets))]
    targets += [module for module in modules if module in adapter.targets]
    for side, tensors in (("lora_A", adapter.down), ("lora_B", adapter.up)):
        names = [f"{module}.{side}.weight" for module in tensors]
        refuse_difference(adapter.path, names, [f"{module}.{side}.weight" for module in targets])
    for module in targets:
        up, down, weight = adapter.up[module], adapter.down[module], expected[f"{module}.weight"]
        if (up.shape[0], down.shape[1]) != tuple(weight.shape):
            raise ValueError(
                f"{adapter.path}: lora_B lora_A of {module} is [{up.shape[0]}, {down.shape[1]}], but the weight is "
                f"{list(weight.shape)}"
            )
