"""The published checkpoint, four parts in a layout of its own, as one that `from_pretrained` loads.

The parts are a base language model, the visual projector of stage 1, and for stages 2 and 3 a LoRA each with the
projectors trained beside it. The published loader puts them on top of each other in that order and merges each LoRA
before the next part comes; the same is done here a tensor at a time, so that a 7B model needs no 7B of memory beyond
the mapped files.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from ..events import atomic_folder, load_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from ..models.configuration_longvale import LongVALEConfig
    from ..models.processing_longvale import LongVALEProcessor

    Tensors: TypeAlias = Mapping[str, torch.Tensor]

#: What merged weights are computed and stored in.
MergeDtype = Literal["float32", "bfloat16", "float16"]

#: The published names of the projectors, and ours.
PROJECTORS = {
    "mm_projector": "model.visual_projector",
    "audio_mm_projector": "model.audio_projector",
    "asr_mm_projector": "model.speech_projector",
}
#: Those that stages 2 and 3 train; the visual one is of stage 1.
TRAINED_PROJECTORS = ("audio_mm_projector", "asr_mm_projector")

_ADAPTER_CONFIG, _NON_LORA = "adapter_config.json", "non_lora_trainables.bin"
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_TOKENIZER = "tokenizer.model"
_PREFIX = re.compile(r"(base_model\.|model\.)*")
_LORA_NAME = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")
#: A buffer that older versions of transformers stored; it follows from the configuration.
_STORED_BUFFER = re.compile(r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
#: How folders of published and home-made checkpoints name their stage: by number, or boundary perception and
#: instruction tuning.
_STAGES = {
    "stage2": re.compile(r"(?i)stage[-_]?2|(^|[-_])bp([-_]|$)"),
    "stage3": re.compile(r"(?i)stage[-_]?3|(^|[-_])it([-_]|$)"),
}
#: Settings of peft that change how a LoRA is merged, and the values under which it is B A alpha / r.
_PLAIN_LORA = {"peft_type": ("LORA",), "bias": (None, "none")} | dict.fromkeys(
    ("fan_in_fan_out", "use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save"),
    (None, False, {}, []),
)


@dataclass(frozen=True)
class OfficialParts:
    """Where the parts of a published checkpoint are.

    Args:
        base: folder of the language model: config.json, weights (.bin or .safetensors) and tokenizer.model.
        visual_projector: file of the stage-1 projector.
        stage2: folder of the boundary-perception LoRA with its non_lora_trainables.bin.
        stage3: folder of the instruction-tuning LoRA likewise.
    """

    base: Path
    visual_projector: Path
    stage2: Path
    stage3: Path


@dataclass(frozen=True)
class _Adapter:
    """A LoRA: of each module (named as in the language model) its A [r, in] and B [out, r]."""

    path: Path
    scale: float  # alpha / r
    targets: tuple[str, ...]
    down: dict[str, torch.Tensor] = field(default_factory=dict)
    up: dict[str, torch.Tensor] = field(default_factory=dict)


def convert(
    folder: str | os.PathLike,
    output: str | os.PathLike,
    *,
    merge_dtype: MergeDtype = "float32",
    max_shard_size: str = "5GB",
    **given: str | os.PathLike | None,
) -> OfficialParts:
    """Write a published checkpoint as one of ours: safetensors, processor, generation settings and code.

    The towers are not in it: the model reads stored features. Its processor preprocesses as published.

    Args:
        folder: where [`find_parts`] looks for the parts.
        output: folder to write; it must not exist. It appears whole or not at all.
        merge_dtype: what the adapters are merged and all weights stored in. The published loader merges in float16,
            which rounds each weight twice.
        max_shard_size: of a file of weights, such as "5GB".
        given: parts that are elsewhere or ambiguous, by the names of [`OfficialParts`].

    Returns:
        The parts that were used.

    Raises:
        FileExistsError: if `output` exists.
        FileNotFoundError: naming the part or file that is not there.
        ValueError: naming what is ambiguous, damaged, of the wrong shape, missing or unexpected.

    Example:
        >>> convert("longvalellm-vicuna-v1-5-7b", "longvale-7b", base="vicuna-7b-v1.5")  # doctest: +SKIP
    """
    output = Path(output)
    if output.exists():
        raise FileExistsError(f"{output}: exists already; give another --output or remove it")
    if merge_dtype not in get_args(MergeDtype):
        raise ValueError(f"merge dtype must be one of {', '.join(get_args(MergeDtype))}, not {merge_dtype!r}")
    parts = find_parts(folder, **given)
    text_config = _load_text_config(parts.base)
    adapters = [_read_adapter(parts.stage2), _read_adapter(parts.stage3)]
    weights = _read_base(parts.base) | _read_projectors(parts)
    processor = _build_processor(parts.base)
    config = _build_config(text_config, processor, weights, merge_dtype)
    with atomic_folder(output) as partial:
        processor.save_pretrained(partial)
        expected = _save_code_and_config(config, processor, partial)
        _check_weights(weights, expected, parts)
        for adapter in adapters:
            _check_adapter(adapter, expected)
        _save_weights(partial, expected, lambda name: _merge(name, weights, adapters, config.dtype), max_shard_size)
    return parts


# Finding the parts


def find_parts(folder: str | os.PathLike, **given: str | os.PathLike | None) -> OfficialParts:
    """Find the parts of a published checkpoint by what is in the folders below `folder`.

    Args:
        folder: holds the parts, at any depth.
        given: `base`, `visual_projector`, `stage2`, `stage3` that are not to be looked for; None for those that are.

    Raises:
        FileNotFoundError: if `folder` does not exist, a part is not there, or a given part lacks a file.
        ValueError: if several could be a part; the message names the option that decides.
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
    adapters = [path for path in folders if (path / _ADAPTER_CONFIG).is_file()]
    # Checkpoints that training left inside the folder of a stage are no stages.
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
    """Refuse parts that lack a file, and one adapter in two roles."""
    if parts.stage2.resolve() == parts.stage3.resolve():
        raise ValueError(f"{parts.stage2}: is named as stage 2 and as stage 3; give --stage2 and --stage3")
    needed = [parts.base / "config.json", parts.base / _TOKENIZER, parts.visual_projector]
    for stage in (parts.stage2, parts.stage3):
        needed += [stage / _ADAPTER_CONFIG, stage / _NON_LORA]
        if not any((stage / name).is_file() for name in _ADAPTER_WEIGHTS):
            needed.append(stage / _ADAPTER_WEIGHTS[-1])
    if not _base_files(parts.base):
        needed.append(parts.base / "pytorch_model.bin")
    for path in needed:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")


def _base_files(folder: Path) -> list[Path]:
    """Files of weights of a base model: those of the index, if there is one; safetensors before .bin."""
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = folder / f"{stem}.{suffix}.index.json"
        if index.is_file():
            content = load_json(index)
            if not isinstance(content, dict) or not isinstance(content.get("weight_map"), dict):
                raise ValueError(f"{index}: holds no weight_map; copy or download it again")
            return [folder / name for name in sorted(set(map(str, content["weight_map"].values())))]
        if (folder / f"{stem}.{suffix}").is_file():
            return [folder / f"{stem}.{suffix}"]
    return []


# Reading them


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, mapped rather than read where the format allows; nothing in it is executed."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Files older than torch 1.6 are no archives and cannot be mapped.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: is no whole file of tensors ({reason}); copy or download it again") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ValueError(f"{path}: must hold tensors by name and nothing else")
    return loaded


def _read_named(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by their names without `base_model.` and `model.` in front."""
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in _read_tensors(path).items():
        short = name[_PREFIX.match(name).end() :]
        if short in tensors:
            raise ValueError(f"{path}: holds {short} twice, once as {name}")
        if not tensor.is_floating_point():
            raise ValueError(f"{path}: {name} is {tensor.dtype}; quantised weights cannot be merged")
        tensors[short] = tensor
    return tensors


def _read_base(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of the language model under our names."""
    weights: dict[str, torch.Tensor] = {}
    for path in _base_files(folder):
        for name, tensor in _read_named(path).items():
            if _STORED_BUFFER.fullmatch(name):
                continue
            if _our_name(name) in weights:
                raise ValueError(f"{path}: holds {name}, which another file of the base model holds too")
            weights[_our_name(name)] = tensor
    return weights


def _read_projectors(parts: OfficialParts) -> dict[str, torch.Tensor]:
    """Weights of the three projectors under our names; what a later stage trained replaces what is there."""
    weights: dict[str, torch.Tensor] = {}
    sources = [(parts.visual_projector, ("mm_projector",))]
    sources += [(stage / _NON_LORA, TRAINED_PROJECTORS) for stage in (parts.stage2, parts.stage3)]
    for path, projectors in sources:
        tensors = _read_named(path)
        allowed = [f"{projector}.{kind}" for projector in projectors for kind in ("weight", "bias")]
        _refuse_difference(path, tensors.keys(), allowed)
        weights |= {_our_name(name): tensor for name, tensor in tensors.items()}
    return weights


def _read_adapter(folder: Path) -> _Adapter:
    config = load_json(folder / _ADAPTER_CONFIG)
    path = next(folder / name for name in _ADAPTER_WEIGHTS if (folder / name).is_file())
    scale, targets = _check_adapter_config(config, folder / _ADAPTER_CONFIG)
    adapter = _Adapter(path, scale, targets)
    for name, tensor in _read_named(path).items():
        match = _LORA_NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"{path}: unexpected {name}: a LoRA holds lora_A and lora_B weights only")
        if tensor.ndim != 2 or tensor.shape[match["side"] == "B"] != config["r"]:
            raise ValueError(f"{path}: {name} is {list(tensor.shape)}, but {_ADAPTER_CONFIG} says r is {config['r']}")
        (adapter.down if match["side"] == "A" else adapter.up)[_our_name(match["module"])] = tensor
    return adapter


def _check_adapter_config(config: Any, path: Path) -> tuple[float, tuple[str, ...]]:
    """Scale and target modules of a LoRA that is merged as B A alpha / r."""
    if not isinstance(config, dict):
        raise ValueError(f"{path}: must be an object")
    for name, plain in _PLAIN_LORA.items():
        if config.get(name) not in plain:
            raise ValueError(f"{path}: {name} is {config.get(name)!r}; only plain LoRA can be merged")
    rank, alpha, targets = (config.get(name) for name in ("r", "lora_alpha", "target_modules"))
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise ValueError(f"{path}: r must be 1 or more and lora_alpha a number, not {rank!r} and {alpha!r}")
    if not isinstance(targets, list) or not targets:
        raise ValueError(f"{path}: target_modules must be a list of names, not {targets!r}")
    return alpha / rank, tuple(targets)


def _our_name(name: str) -> str:
    """Where a tensor or module of the published model lies in ours.

    Example:
        >>> _our_name("layers.0.mlp.up_proj.weight"), _our_name("asr_mm_projector.bias")
        ('model.language_model.layers.0.mlp.up_proj.weight', 'model.speech_projector.bias')
    """
    first, _, rest = name.partition(".")
    if first in PROJECTORS:
        return f"{PROJECTORS[first]}.{rest}"
    return name if first == "lm_head" else f"model.language_model.{name}"


# Checking them


def _refuse_difference(where: object, names: Iterable[str], expected: Iterable[str]) -> None:
    names, expected = set(names), set(expected)
    for kind, differing in (("missing", expected - names), ("unexpected", names - expected)):
        if differing:
            more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
            raise ValueError(f"{where}: {kind} {min(differing).removeprefix('model.language_model.')}{more}")


def _check_weights(weights: Tensors, expected: Tensors, parts: OfficialParts) -> None:
    """Refuse what is not exactly the model of the base's config.json; its projectors are checked before."""
    _refuse_difference(parts.base, weights.keys(), expected.keys())
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"{name} is {list(tensor.shape)}, but {parts.base / 'config.json'} makes it "
                f"{list(expected[name].shape)}; the parts are of different models"
            )


def _check_adapter(adapter: _Adapter, expected: Tensors) -> None:
    """Refuse a LoRA that is not of exactly the modules its configuration names, or does not fit them."""
    modules = [name.removesuffix(".weight") for name in expected if name not in _projector_names(expected)]
    targets = [module for module in modules if module.endswith(tuple(f".{name}" for name in adapter.targets))]
    targets += [module for module in modules if module in adapter.targets]
    for side, tensors in (("lora_A", adapter.down), ("lora_B", adapter.up)):
        names = [f"{module}.{side}.weight" for module in tensors]
        _refuse_difference(adapter.path, names, [f"{module}.{side}.weight" for module in targets])
    for module in targets:
        up, down, weight = adapter.up[module], adapter.down[module], expected[f"{module}.weight"]
        if (up.shape[0], down.shape[1]) != tuple(weight.shape):
            raise ValueError(
                f"{adapter.path}: lora_B lora_A of {module} is [{up.shape[0]}, {down.shape[1]}], but the weight is "
                f"{list(weight.shape)}"
            )


def _projector_names(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.rpartition(".")[0] in PROJECTORS.values()}


# Writing the checkpoint


def _build_processor(base: Path) -> LongVALEProcessor:
    """The base's tokenizer with the published preprocessing: that of CLIP, BEATs and Whisper large v2."""
    from transformers import CLIPImageProcessor, WhisperFeatureExtractor

    from ..models.processing_longvale import CHAT_TEMPLATE, LongVALEProcessor

    # The published code tokenizes what follows the video as a text of its own: sentencepiece puts a space in front.
    user_turn = "words(message['content'])"
    template = CHAT_TEMPLATE.replace(f"{user_turn} ~ ' ASS", f"{user_turn} | replace('<video>', '<video> ') ~ ' ASS")
    return LongVALEProcessor(
        CLIPImageProcessor(),
        WhisperFeatureExtractor(),
        _load_tokenizer(base),
        chat_template=template,
        preprocessing="official",
    )


def _load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """The base's tokenizer, which keeps whether a text after a special token begins with a space (`legacy`)."""
    from google.protobuf.message import DecodeError
    from transformers import AutoTokenizer

    path = base / "tokenizer_config.json"
    settings = load_json(path) if path.is_file() else {}
    # Where they are not set, the versions of transformers that the published code runs on take both to be true.
    legacy, begin = (settings.get(name) is not False for name in ("legacy", "add_bos_token"))
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False, legacy=legacy, add_bos_token=begin)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, DecodeError) as error:
        raise ValueError(f"{base}: the tokenizer is damaged ({' '.join(str(error).split())[:120]})") from error
    tokenizer.init_kwargs["legacy"] = legacy  # else it is not saved
    return tokenizer


def _widths(weights: Tensors) -> dict[str, int]:
    """Widths of the features that the projectors [hidden, width] read, as the configuration names them."""
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
        raise ValueError(f"{path}: is no model's configuration ({' '.join(str(error).split())[:120]})") from error
    config.name_or_path = ""  # a path of this machine
    return config


def _build_config(
    text_config: PreTrainedConfig, processor: LongVALEProcessor, weights: Tensors, dtype: MergeDtype
) -> LongVALEConfig:
    from ..models.configuration_longvale import LongVALEConfig

    text_config.dtype = dtype
    return LongVALEConfig(
        text_config=text_config,
        video_token_id=processor.video_token_id,
        preprocessing=processor.preprocessing,
        architectures=["LongVALEForConditionalGeneration"],
        dtype=dtype,
        **_widths(weights),
    )


def _save_code_and_config(config: LongVALEConfig, processor: LongVALEProcessor, output: Path) -> Tensors:
    """Save all of the model but its weights.

    Returns:
        The weights it has, on the meta device: names, shapes and dtype without values.
    """
    import torch
    from transformers.dynamic_module_utils import custom_object_save

    from ..models.modeling_longvale import LongVALEForConditionalGeneration

    with torch.device("meta"):
        model = LongVALEForConditionalGeneration(config).to(config.dtype)
    # Greedy, whatever the base model's habits are: answers are to be the same each time.
    tokenizer = processor.tokenizer
    model.generation_config.update(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    custom_object_save(model, output, config=config)
    config.save_pretrained(output)
    model.generation_config.save_pretrained(output)
    expected = dict(model.state_dict())
    if config.tie_word_embeddings:
        del expected["lm_head.weight"]
    return expected


def _merge(name: str, weights: Tensors, adapters: list[_Adapter], dtype: torch.dtype) -> torch.Tensor:
    """A weight and what the adapters add to it one after another, alpha / r B A each (Hu et al., "LoRA", 2021)."""
    weight, module = weights[name].to(dtype), name.removesuffix(".weight")
    for adapter in adapters:
        if module in adapter.up:
            weight = weight + (adapter.up[module].to(dtype) @ adapter.down[module].to(dtype)) * adapter.scale
    return weight


def _save_weights(output: Path, expected: Tensors, make: Callable[[str], torch.Tensor], max_shard_size: str) -> None:
    """Write weights in shards with an index, or in one file if they fit; one tensor is in memory at a time.

    Args:
        output: folder.
        expected: names, shapes and dtype.
        make: gives the weight of a name.
        max_shard_size: such as "5GB".
    """
    from huggingface_hub import split_torch_state_dict_into_shards

    split = split_torch_state_dict_into_shards(
        dict(expected), filename_pattern="model{suffix}.safetensors", max_shard_size=max_shard_size
    )
    for file, names in split.filename_to_tensors.items():
        _save_shard(output / file, {name: expected[name] for name in names}, make)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (output / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _save_shard(path: Path, expected: Tensors, make: Callable[[str], torch.Tensor]) -> None:
    """Write a safetensors file tensor by tensor, which the library does not offer.

    The format: the header's length as 8 bytes, the header in JSON, and the values in its order without gaps
    (https://github.com/huggingface/safetensors#format).
    """
    import torch

    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in expected.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name in expected:
            file.write(memoryview(make(name).contiguous().view(torch.uint8).flatten().numpy()))
