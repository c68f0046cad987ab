"""Loading of checkpoints: problems are reported in one line, before anything is computed or written."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

from ..events import MODALITIES
from ..io import load_json
from ..system.extras import is_installed
from .chat_templates import bound_templates

if TYPE_CHECKING:
    import torch

#: Maximum size of a weights file whose checksum is verified when it is loaded: about two seconds.
_COMPARED_BYTES = 1 << 30

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")

#: Supported dtypes of weights.
DTYPES = ("float32", "bfloat16", "float16")

#: Modules that keep their precision when a language model is quantized.
_NOT_QUANTIZED = ["lm_head", *(f"{name}_{part}" for name in MODALITIES for part in ("tower", "projector"))]


class Weights(TypedDict, total=False):
    """How weights are loaded: keyword arguments of what loads a model, and options of the command line.

    Args:
        dtype: one of [`DTYPES`], or a `torch.dtype`; by default that of the checkpoint.
        load_in_4bit: quantize the language model to 4 bits (NF4, by bitsandbytes on a GPU); other parts keep their
            precision.
        attn_implementation: attention of the language model, such as "sdpa" or "flash_attention_2"; towers that do not
            support it use another one.
        device_map: how accelerate spreads the weights over devices, such as "auto", instead of one device.
    """

    dtype: str | torch.dtype | None
    load_in_4bit: bool
    attn_implementation: str | None
    device_map: str | None


#: Maximum length of error messages of other libraries, which may list every supported model.
_REASON_LENGTH = 200


def load_checkpoint(
    path: str | os.PathLike,
    model_class: type,
    *,
    device: str | torch.device | None = None,
    only_towers: bool = False,
    **weights: Unpack[Weights],
) -> tuple[Any, Any]:
    """Load the model of a checkpoint for inference, and its processor.

    Args:
        path: folder written by `save_pretrained`, or Hub id. Code in the checkpoint is not run, and only safetensors
            are read.
        model_class: `LongVALEForConditionalGeneration` or `LongVALEModel`.
        device: see [`choose_device`].
        only_towers: skip the layers of the language model, most of a checkpoint, which the towers do not need.
        weights: see [`Weights`].

    Returns:
        (model, processor).

    Raises:
        FileNotFoundError: if there is no such folder or repository, or it lacks a file.
        ValueError: naming the item that is damaged, incomplete, or of the wrong type or shape; or if the device cannot
            be used.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    from ..models.configuration_longvale import LongVALEConfig
    from ..models.processing_longvale import LongVALEProcessor

    chosen = choose_place(device, weights.get("device_map"))
    options = weight_options(chosen, **weights)
    check_folder(path)
    check_weights_recorded(path)
    bound_templates()
    try:
        # Other configurations would be completed with the defaults: 7B random parameters.
        kind = LongVALEConfig.get_config_dict(path)[0].get("model_type")
        if kind != LongVALEConfig.model_type:
            raise ValueError(f"config.json has model_type {kind!r}, expected {LongVALEConfig.model_type!r}")
        processor = _load_processor(path, LongVALEProcessor)
        config = LongVALEConfig.from_pretrained(path)
        if only_towers:
            _leave_out_layers(config.text_config)
        model, found = model_class.from_pretrained(
            path,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            **options,
        )
        _check_weights(found)
        if model.config.video_token_id != processor.video_token_id:
            raise ValueError(
                f"the video placeholder is token {processor.video_token_id} of the tokenizer, but "
                f"{model.config.video_token_id} of the model; take both from one checkpoint"
            )
    except OSError as error:  # transformers raises this for any missing file, local or on the Hub
        raise not_found(path, error) from error
    except SafetensorError as error:
        raise ValueError(f"{path}: the weights are damaged ({error}); copy or download them again") from error
    except (ValueError, ImportError, StrictDataclassError) as error:  # ImportError: an attention that is not installed
        raise ValueError(f"{path}: cannot be loaded: {_reason(error)}") from error
    return placed(model, chosen, weights), processor


def choose_place(device: str | torch.device | None, device_map: str | None) -> torch.device | None:
    """Return the device of [`choose_device`]; None if accelerate spreads the weights.

    Raises:
        ValueError: if both are given, or the device cannot be used.
    """
    if device_map is None:
        return choose_device(device)
    if device is not None:
        raise ValueError(f"--device {device} and --device-map {device_map}: give one of them")
    return None


def placed(model: Any, device: torch.device | None, weights: Weights) -> Any:
    """Return a loaded model in evaluation mode, on the device of [`choose_place`]."""
    there = device is None or weights.get("load_in_4bit")  # a quantized model is already there
    return (model if there else model.to(device)).eval()


def weight_options(
    device: torch.device | None,
    *,
    dtype: str | torch.dtype | None = None,
    load_in_4bit: bool = False,
    attn_implementation: str | None = None,
    device_map: str | None = None,
) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` of transformers for [`Weights`].

    Args:
        device: device of the weights; None with a device map.
        dtype, load_in_4bit, attn_implementation, device_map: see [`Weights`]; 4 bits compute in `dtype`, by default
            bfloat16.

    Raises:
        ValueError: if the dtype is unknown, or 4 bits lack bitsandbytes or a GPU; the message contains the remedy.

    Example:
        >>> weight_options(choose_device("cpu"), dtype="bfloat16"), weight_options(None, device_map="auto")
        ({'dtype': 'bfloat16'}, {'device_map': 'auto'})
    """
    if isinstance(dtype, str) and dtype not in DTYPES:
        raise ValueError(f"--dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    given = {"dtype": dtype, "attn_implementation": attn_implementation, "device_map": device_map}
    options = {name: value for name, value in given.items() if value is not None}
    if not load_in_4bit:
        return options
    if not is_installed("bitsandbytes"):
        raise ValueError(
            "--load-in-4bit needs bitsandbytes; pip install bitsandbytes, or give --dtype bfloat16 instead"
        )
    if device is not None and device.type == "cpu":
        raise ValueError("--load-in-4bit needs a GPU, and the device is cpu; give --dtype bfloat16 instead")
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype or "bfloat16",
        llm_int8_skip_modules=_NOT_QUANTIZED,
    )
    return {"dtype": "bfloat16", "device_map": {"": device}, **options, "quantization_config": quantization}


def weights_note(weights: Weights) -> str:
    """Return the precision that was asked for as a part of a model's name: names identify finished work.

    Example:
        >>> weights_note({"dtype": "bfloat16", "load_in_4bit": True}), weights_note({"device_map": "auto"})
        (' (bfloat16, 4 bits)', '')
    """
    dtype, quantized = weights.get("dtype"), weights.get("load_in_4bit")
    parts = [str(dtype).removeprefix("torch.")] * bool(dtype) + ["4 bits"] * bool(quantized)
    return f" ({', '.join(parts)})" if parts else ""


def split_weights(options: Mapping[str, Any]) -> tuple[Weights, dict[str, Any]]:
    """Separate the options of [`Weights`] from others.

    Example:
        >>> split_weights({"dtype": "bfloat16", "limit": 3})
        ({'dtype': 'bfloat16'}, {'limit': 3})
    """
    weights = {name: value for name, value in options.items() if name in Weights.__annotations__}
    return cast(Weights, weights), {name: value for name, value in options.items() if name not in weights}


def split_revision(model: str) -> tuple[str, str | None]:
    """Split `ID@REVISION` into a Hub id and the revision to load; a folder, and an id alone, have no revision.

    Example:
        >>> split_revision("openai/whisper-base@main"), split_revision("openai/whisper-base"), split_revision("a/b/c@d")
        (('openai/whisper-base', 'main'), ('openai/whisper-base', None), ('a/b/c@d', None))
    """
    name, at, revision = model.partition("@")
    if not at or not revision or Path(model).exists() or not _HUB_ID.fullmatch(name):
        return model, None
    return name, revision


def not_found(path: str | os.PathLike, error: Exception, revision: str | None = None) -> FileNotFoundError:
    """Return the error for a model that transformers could not find; it names a missing folder before the Hub."""
    if Path(path).exists():
        return FileNotFoundError(f"{path}: cannot be loaded: {_reason(error)}")
    if not _HUB_ID.fullmatch(str(path)):
        return FileNotFoundError(f"{path}: cannot be loaded: the folder does not exist")
    fetch = f"hf download {path}" + (f" --revision {revision}" if revision else "")
    return FileNotFoundError(
        f"{path}: cannot be loaded: the folder does not exist, and the Hub: {_reason(error).rstrip('.')}; to fetch it: "
        f"{fetch}"
    )


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Return the device to compute on: the given one, otherwise an accelerator if available, otherwise the CPU.

    Args:
        device: device such as "cpu" or "cuda:1".

    Raises:
        ValueError: if there is no such device, or this build of torch cannot use it.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    import torch

    if device is None:
        return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # AssertionError: a build of torch without this kind of device
        raise ValueError(f"device {str(device)!r} cannot be used ({_reason(error)}); give another, as cpu") from error


def weights_digest(model: torch.nn.Module, part: str = "") -> str:
    """Compute a short digest of at least 64 values of each parameter, or all if it has fewer. Training changes nearly
    every value, so this distinguishes checkpoints at a fraction of the cost of reading all weights.

    Args:
        model: one of our models, with or without the head of the language model.
        part: include only parameters whose name contains this, such as "_tower.".
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if part in name:
            values = parameter.detach().flatten()
            digest.update(f"{name.removeprefix('model.')}{tuple(parameter.shape)}{parameter.dtype}".encode())
            digest.update(values[:: max(1, len(values) // 64)].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def check_weights_recorded(folder: str | os.PathLike) -> None:
    """Compare files of weights with the checksums in their folder, if there are any.

    Checksums come from the `manifest.json` of a trainer checkpoint, and from a `SHA256SUMS` in the format of
    `sha256sum`. Files above 1 GiB are skipped, because they would take seconds each time; for those, use
    `sha256sum --check SHA256SUMS`.

    Args:
        folder: folder of the files; Hub ids are skipped.

    Raises:
        ValueError: naming the file that does not match its checksum.
    """
    recorded: dict[str, Any] = {}
    manifest, sums = Path(folder, "manifest.json"), Path(folder, "SHA256SUMS")
    if manifest.is_file() and isinstance(content := load_json(manifest), dict):
        recorded |= content
    if sums.is_file():
        lines = (line.split(maxsplit=1) for line in sums.read_text(encoding="utf-8", errors="replace").splitlines())
        recorded |= {parts[1].removeprefix("*"): parts[0] for parts in lines if len(parts) == 2}
    for path in sorted(Path(folder).glob("*.safetensors")):
        if path.name in recorded and path.stat().st_size <= _COMPARED_BYTES:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != recorded[path.name]:
                raise ValueError(f"{path}: is not what its checksum says; copy or download it again")


def check_folder(path: str | os.PathLike) -> None:
    """Refuse a folder without the files of a checkpoint; Hub ids are checked when they are downloaded."""
    folder = Path(path)
    if not folder.is_dir():
        if isinstance(path, str) and _HUB_ID.fullmatch(path) and not folder.exists():
            return
        raise FileNotFoundError(f"{path}: no such model folder")
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder / 'config.json'}: no such file; give a folder written by save_pretrained")
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(f"{folder / 'model.safetensors'}: no such file; the checkpoint has no weights")
    if not (folder / "processor_config.json").is_file():
        raise FileNotFoundError(
            f"{folder / 'processor_config.json'}: no such file; save the processor beside the weights"
        )
    for file in sorted(folder.glob("*.json")):
        try:
            content = json.loads(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"{file}: not JSON: {error}; copy or download it again") from None
        if file.name == "config.json" and not isinstance(content, dict):
            raise ValueError(f"{file}: must be an object, not {str(content)[:60]!r}; copy or download it again")
    check_indexes(folder)


def distrust(model: str | os.PathLike) -> None:
    """Prepare for loading an untrusted model with transformers: check its file names, and limit its chat template.

    Raises:
        ValueError: as [`check_indexes`].
    """
    bound_templates()
    check_indexes(model)


def check_indexes(folder: str | os.PathLike) -> None:
    """Refuse a folder whose weight indexes name files outside of it; Hub ids are skipped.

    Raises:
        ValueError: naming the index and the file, see [`file_of`].
    """
    for index in sorted(Path(folder).glob("*.index.json")) if Path(folder).is_dir() else ():
        try:
            content = json.loads(index.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{index}: not JSON: {error}; copy or download it again") from None
        files = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(files, dict):
            raise ValueError(f"{index}: has no weight_map; copy or download it again")
        for name in sorted(set(map(str, files.values()))):
            file_of(Path(folder), name, index)


def file_of(folder: Path, name: str, place: str | os.PathLike) -> Path:
    """Return the path of a file named in a checkpoint's JSON, which must be in the checkpoint's folder.

    Args:
        folder: folder of the checkpoint. In the Hub's cache, where files are links, it includes their targets.
        name: relative name, with slashes.
        place: the file that contains the name, for the message.

    Raises:
        ValueError: if the name is absolute, has a drive, or leaves the folder, also through a link.

    Example:
        >>> file_of(Path("model"), "../.ssh/id_rsa", "model.safetensors.index.json")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: model.safetensors.index.json: '../.ssh/id_rsa' is not a file of this folder; get ...
    """
    parts = PurePosixPath(name).parts
    path, root = folder / name, folder.resolve()
    plain = bool(parts) and "/" not in parts[0] and ".." not in parts and not set(name) & set("\\:\0")
    if plain:
        target, blobs = path.resolve(), root.parent.parent / "blobs"
        plain = target.is_relative_to(root) or (root.parent.name == "snapshots" and target.parent == blobs)
    if not plain:
        raise ValueError(f"{place}: {name!r} is not a file of this folder; get the checkpoint from its source")
    return path


def _load_processor(path: str | os.PathLike, processor_class: type) -> Any:
    try:
        return processor_class.from_pretrained(path, trust_remote_code=False)
    except (KeyError, TypeError, AttributeError) as error:  # missing fields of the tokenizer or image processor
        raise ValueError(f"the tokenizer or the processor is damaged ({error!r}); copy or download it again") from error


def _leave_out_layers(text_config: Any) -> None:
    text_config.num_hidden_layers = 0
    if getattr(text_config, "layer_types", None):
        text_config.layer_types = []


def _check_weights(found: dict[str, Any]) -> None:
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise ValueError(f"the checkpoint lacks {len(missing)} weights, for instance {missing[0]}")
    if found["mismatched_keys"]:
        name, stored, expected = min(found["mismatched_keys"])
        raise ValueError(f"weight {name} is {list(stored)}, but config.json says {list(expected)}")
    # With only the towers, the head of the language model is not loaded.
    unexpected = sorted(name for name in found["unexpected_keys"] if not name.startswith("lm_head."))
    if unexpected:
        raise ValueError(f"config.json has no place for {len(unexpected)} weights, for instance {unexpected[0]}")


def _reason(error: Exception) -> str:
    """Return an error message of another library in one line of limited length."""
    text = " ".join(str(error).split())
    return text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 3] + "..."
