"""Initialization of an untrained model: pretrained language model and towers, randomly initialized projectors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..io import atomic_folder
from .card import save_model_card
from .encoders import Tower, explain, load_towers
from .writing import saving

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..models.configuration_longvale import LongVALEConfig
    from ..models.modeling_longvale import LongVALEForConditionalGeneration
    from ..models.processing_longvale import LongVALEProcessor

_ORIGIN = (
    "Put together by `longvale init` from pretrained parts. The projectors between them are untrained: until they are "
    "tuned, the model reads nothing of a video."
)
#: Supported dtypes of stored weights.
DTYPES = ("float32", "bfloat16", "float16")
#: Tolerance between the logits of our model and of the language model alone: float32 sums in a different order.
_CLOSE = 1e-3


@dataclass(frozen=True)
class Initialized:
    """Result of [`initialize`].

    Args:
        model: the model.
        processor: its processor.
        marks: whether the chat template marks the assistant's answers, which training requires.
    """

    model: LongVALEForConditionalGeneration
    processor: LongVALEProcessor
    marks: bool


def initialize(
    output: str | os.PathLike,
    *,
    llm: str | os.PathLike,
    vision: str | os.PathLike | None = None,
    audio: str | os.PathLike | None = None,
    speech: str | os.PathLike | None = None,
    dtype: str = "float32",
    preprocessing: Literal["strict", "official"] = "strict",
    seed: int = 0,
    max_shard_size: str = "5GB",
) -> Initialized:
    """Write an untrained model: any causal language model of transformers, with towers.

    The language model keeps its vocabulary, chat template and end tokens; generation is greedy.

    Args:
        output: output folder; it must not exist. It is written completely or not at all.
        llm: folder or Hub id of a causal language model with its tokenizer.
        vision: folder or Hub id of a vision model; CLIP is used with its projection.
        audio: published .pt file of BEATs, or a folder of our class.
        speech: folder or Hub id of a Whisper model; only its encoder is used.
        dtype: dtype of the stored weights: float32, bfloat16 or float16.
        preprocessing: how the processor reads media, see [`LongVALEProcessor`].
        seed: random seed of the projectors.
        max_shard_size: maximum size of a file of weights, such as "5GB".

    Raises:
        FileExistsError: if `output` exists.
        FileNotFoundError: naming the missing part.
        ValueError: naming the part that has the wrong type or is damaged, or if the language model's head is not a
            plain matrix.

    Example:
        >>> made = initialize("untrained", llm="Qwen/Qwen3-0.6B", speech="openai/whisper-base")  # doctest: +SKIP
    """
    output = Path(output)
    if output.exists():
        raise FileExistsError(f"{output}: exists already; give another --output or remove it")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    paths = {name: path for name, path in (("visual", vision), ("audio", audio), ("speech", speech)) if path}
    language_model, tokenizer = explain(lambda path: _load_language_model(path, dtype), str(llm))
    towers = load_towers(paths, dtype)
    processor = _build_processor(tokenizer, towers, preprocessing)
    config = _build_config(language_model, processor, towers, dtype)
    model = _assemble(config, language_model, towers, str(llm), seed)
    _set_generation(model, language_model, tokenizer)
    with atomic_folder(output) as partial:
        with saving(output):
            model.save_pretrained(partial, max_shard_size=max_shard_size)
        processor.save_pretrained(partial)
        save_model_card(partial, model, title=output.name, origin=_ORIGIN, published=False)
    return Initialized(model, processor, marks="generation" in processor.chat_template)


def _load_language_model(path: str, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    model, found = AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, trust_remote_code=False, output_loading_info=True
    )
    if found["missing_keys"]:
        raise ValueError(f"{path}: lacks {len(found['missing_keys'])} weights, such as {min(found['missing_keys'])}")
    return model.eval(), tokenizer


def _build_processor(
    tokenizer: PreTrainedTokenizerBase, towers: Mapping[str, Tower], preprocessing: str
) -> LongVALEProcessor:
    """Build a processor from the tokenizer, its chat template and the towers' preprocessors (by default published)."""
    from transformers import CLIPImageProcessor, WhisperFeatureExtractor

    from ..models.processing_longvale import LongVALEProcessor

    return LongVALEProcessor(
        towers["visual"].preprocessor if "visual" in towers else CLIPImageProcessor(),
        towers["speech"].preprocessor if "speech" in towers else WhisperFeatureExtractor(),
        tokenizer,
        chat_template=mark_answers(tokenizer),
        preprocessing=preprocessing,
    )


def mark_answers(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Add `generation` marks around the assistant's answers to the tokenizer's chat template, if possible.

    This supports the templates that TRL supports, and those that write each message in one expression, as in ChatML.

    Returns:
        The template, unchanged if it has marks or is not supported; None if the tokenizer has no single template.
    """
    from trl.chat_template_utils import get_training_chat_template

    template = tokenizer.chat_template
    if template is None or not isinstance(template, str) or "generation %}" in template:
        return template if isinstance(template, str) else None
    if _CHATML.search(template):
        return _CHATML.sub(_MARKED, template)
    try:
        return get_training_chat_template(tokenizer) or template
    except ValueError:  # an unsupported template
        return template


#: A ChatML message in one expression, as in most models; line breaks are literal or escaped.
_CHATML = re.compile(
    r"\{\{ ?(?P<head>'<\|im_start\|>' \+ message\['role'\] \+ '(?:\\n|\n)') \+ "
    r"(?P<answer>message\['content'\] \+ '<\|im_end\|>') \+ (?P<tail>'(?:\\n|\n)') ?\}\}"
)
_MARKED = (
    r"{{ \g<head> }}{% if message['role'] == 'assistant' %}{% generation %}{{ \g<answer> }}{% endgeneration %}"
    r"{% else %}{{ \g<answer> }}{% endif %}{{ \g<tail> }}"
)


def _build_config(
    language_model: PreTrainedModel, processor: LongVALEProcessor, towers: Mapping[str, Tower], dtype: str
) -> LongVALEConfig:
    from ..models.configuration_longvale import LongVALEConfig

    text_config = language_model.config
    text_config.name_or_path = ""  # perhaps a path of this machine
    return LongVALEConfig(
        text_config=text_config,
        video_token_id=processor.video_token_id,
        preprocessing=processor.preprocessing,
        initializer_range=getattr(text_config, "initializer_range", 0.02),
        dtype=dtype,
        **{tower.config_name: tower.config for tower in towers.values()},
        **{f"{modality}_feature_size": tower.width for modality, tower in towers.items()},
    )


def _assemble(
    config: LongVALEConfig, language_model: PreTrainedModel, towers: Mapping[str, Tower], llm: str, seed: int
) -> LongVALEForConditionalGeneration:
    """Build a model from the loaded modules without copying them."""
    import torch

    from ..models.modeling_longvale import LongVALEForConditionalGeneration

    with torch.device("meta"):
        model = LongVALEForConditionalGeneration(config)
    body, head = language_model.base_model, language_model.get_output_embeddings()
    if type(body) is not type(model.model.language_model) or not isinstance(head, torch.nn.Linear):
        raise ValueError(f"{llm}: a {type(language_model).__name__} is not a body with a linear head; choose another")
    if head.bias is not None:
        raise ValueError(f"{llm}: the head of a {type(language_model).__name__} has a bias; take another")
    model.model.language_model, model.lm_head = body, head
    model.set_input_embeddings(model.get_input_embeddings())  # marks the placeholder in the embeddings of the new body
    for modality, tower in towers.items():
        setattr(model.model, f"{modality}_tower", tower.module.requires_grad_(False))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for modality in ("visual", "audio", "speech"):
            projector = getattr(model.model, f"{modality}_projector").to_empty(device="cpu")
            torch.nn.init.normal_(projector.weight, std=config.initializer_range)
            torch.nn.init.zeros_(projector.bias)
    model.to(head.weight.dtype).eval()
    _check_words(model, language_model, llm)
    return model


def _check_words(model: torch.nn.Module, language_model: PreTrainedModel, llm: str) -> None:
    """Refuse a language model that changes its logits after the linear head, for example by scaling or capping."""
    import torch

    ids = torch.arange(1, min(17, model.config.text_config.vocab_size))[None]
    ids = ids[ids != model.config.video_token_id][None]
    with torch.inference_mode():
        ours, expected = model(input_ids=ids).logits.float(), language_model(input_ids=ids).logits.float()
    if not torch.allclose(ours, expected, rtol=_CLOSE, atol=_CLOSE):
        raise ValueError(
            f"{llm}: a {type(language_model).__name__} does more to its logits than a linear head; take another"
        )


def _set_generation(
    model: LongVALEForConditionalGeneration, language_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Copy the language model's special tokens (a chat model may have several end tokens), not its sampling options."""
    own: Any = language_model.generation_config
    model.generation_config.update(
        bos_token_id=own.bos_token_id if own.bos_token_id is not None else tokenizer.bos_token_id,
        eos_token_id=own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
