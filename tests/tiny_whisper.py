"""Whisper, tiny and untrained, with a tokenizer of single letters."""

import string

import torch
from tiny_chat import enlarge
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)


def build_whisper(languages=("en", "zh", "de", "es")):
    """A model and its processor.

    Args:
        languages: codes; none for a Whisper of English alone, which is not told a language or a task.
    """
    letters = {letter: place for place, letter in enumerate(string.ascii_lowercase)}
    tokenizer = WhisperTokenizer(vocab={**letters, "<|endoftext|>": len(letters)}, merges=[])
    marks = ["<|startoftranscript|>", *(f"<|{code}|>" for code in languages)]
    marks += ["<|translate|>", "<|transcribe|>", "<|notimestamps|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    ids = {mark: tokenizer.convert_tokens_to_ids(mark) for mark in marks}
    end = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    start = {"decoder_start_token_id": ids["<|startoftranscript|>"], **end}
    size = {f"{side}_{name}": 1 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, num_mel_bins=20,
        max_target_positions=16, **size, **start,
    )  # fmt: skip
    torch.manual_seed(0)
    model = enlarge(WhisperForConditionalGeneration(config))
    many = {
        "lang_to_id": {f"<|{code}|>": ids[f"<|{code}|>"] for code in languages},
        "task_to_id": {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
    }
    model.generation_config = GenerationConfig(
        **start, max_length=16, no_timestamps_token_id=ids["<|notimestamps|>"], return_timestamps=False,
        suppress_tokens=list(ids.values()), is_multilingual=bool(languages), **(many if languages else {}),
    )  # fmt: skip
    return model, WhisperProcessor(WhisperFeatureExtractor(feature_size=20), tokenizer)
