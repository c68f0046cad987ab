"""Writing of a checkpoint without its model in memory: code and settings, then one weight at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ..models.configuration_longvale import LongVALEConfig
    from ..models.modeling_longvale import LongVALEForConditionalGeneration
    from ..models.processing_longvale import LongVALEProcessor


@contextmanager
def saving(path: str | os.PathLike) -> Iterator[None]:
    """Convert errors of torch and safetensors when writing weights, as on a full disk, to one line.

    Args:
        path: path of the file or the folder that the block writes.

    Raises:
        ValueError: naming the path and the reason.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, RuntimeError) as error:  # torch has no specific error
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: cannot be written ({reason}); make room on the disk") from error


def save_code_and_config(
    config: LongVALEConfig, processor: LongVALEProcessor, output: Path
) -> LongVALEForConditionalGeneration:
    """Save the code, configuration and generation settings of a model.

    Returns:
        The model on the meta device: names, shapes and dtype of its weights without their values.
    """
    import torch
    from transformers.dynamic_module_utils import custom_object_save

    from ..models.modeling_longvale import LongVALEForConditionalGeneration

    with torch.device("meta"):
        model = LongVALEForConditionalGeneration(config).to(config.dtype)
    # Greedy, without the sampling options of the base model: answers must be reproducible.
    tokenizer = processor.tokenizer
    model.generation_config.update(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    custom_object_save(model, output, config=config)
    config.save_pretrained(output)
    model.generation_config.save_pretrained(output)
    return model


def save_weights(
    output: Path, expected: Mapping[str, torch.Tensor], make: Callable[[str], torch.Tensor], max_shard_size: str
) -> None:
    """Write weights in shards with an index, or in one file if they fit; one tensor is in memory at a time.

    Args:
        output: output folder.
        expected: names, shapes and dtype of the weights.
        make: function that returns the weight of a name.
        max_shard_size: maximum size of a file, such as "5GB".
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


def _save_shard(path: Path, expected: Mapping[str, torch.Tensor], make: Callable[[str], torch.Tensor]) -> None:
    """Write a safetensors file tensor by tensor, which the library does not offer.

    Format: the header's length as 8 bytes, the header in JSON, and the values in header order without gaps
    (https://github.com/huggingface/safetensors#format).
    """
    import torch

    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64"}
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
