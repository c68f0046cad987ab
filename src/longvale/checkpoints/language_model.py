"""The language model of a checkpoint as a checkpoint of its own, for engines that write the text only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from .writing import saving


def save_language_model(model: Any, processor: Any, folder: str | os.PathLike) -> Path:
    """Write the language model with its head and tokenizer, in the format of its own architecture.

    Args:
        model: a loaded [`LongVALEForConditionalGeneration`].
        processor: its processor.
        folder: folder to write; it must not exist.

    Raises:
        FileExistsError: if the folder exists.
        ValueError: if the weights cannot be written.

    Example:
        >>> save_language_model(model, processor, "vicuna")  # doctest: +SKIP
        PosixPath('vicuna')
    """
    import torch
    from transformers import AutoModelForCausalLM

    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder}: exists; give another folder")
    config = model.config.get_text_config()
    with torch.device("meta"):
        alone = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    alone.base_model.load_state_dict(model.base_model.language_model.state_dict(), assign=True)
    alone.get_output_embeddings().weight = model.get_output_embeddings().weight
    alone.generation_config.update(
        **{name: getattr(model.generation_config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with saving(folder):
        alone.save_pretrained(partial)
        processor.tokenizer.save_pretrained(partial)
    partial.rename(folder)
    return folder
