"""Interface to a model: load it, build its prompts and inputs, decode its answers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from ...checkpoints.loading import Weights, choose_device, load_checkpoint
from ...events import MODALITIES, Modality
from ...reading.reasoning import strip_reasoning
from ...registry import benchmarks
from ...tasks import TASKS, VIDEO_TOKEN, AnyTask, Task, check_tasks

if TYPE_CHECKING:
    import numpy as np

#: A folder, a Hub ID, or a loaded model with its processor.
ModelLike: TypeAlias = str | os.PathLike | tuple[Any, Any]
#: One array [n, width] per modality; None if a video lacks the modality.
Features: TypeAlias = Mapping[Modality, "np.ndarray | None"]

#: Messages, each with `role` (user, assistant or system) and `content`; one of them contains `<video>`.
Conversation: TypeAlias = Sequence[Mapping[str, str]]

#: Maximum answer length per task in tokens: enough for an interval, the longest list of events and the longest caption
#: of the benchmark; 1,024 is the limit of the published evaluation.
MAX_NEW_TOKENS: dict[Task, int] = {"grounding": 32, "dense_captioning": 1024, "segment_captioning": 256}


def load_model(model: ModelLike, device: str | None = None, **weights: Unpack[Weights]) -> tuple[Any, Any]:
    """Load a model for inference together with its processor.

    Args:
        model: folder written by `save_pretrained`, Hub ID, or a (model, processor) pair, which is not reloaded.
        device: device such as "cpu" or "cuda:1"; by default an accelerator if available; a pair stays on its device.
        weights: see [`longvale.checkpoints.loading.Weights`]. Not for a pair.

    Raises:
        FileNotFoundError, ValueError: as in [`load_checkpoint`].
    """
    if isinstance(model, tuple):
        if given := [name for name, value in weights.items() if value]:
            raise ValueError(f"the model is loaded already; give {' and '.join(given)} where it is loaded")
        model, processor = model
        return (model if device is None else model.to(choose_device(device))).eval(), processor
    from ...models.modeling_longvale import LongVALEForConditionalGeneration

    return load_checkpoint(model, LongVALEForConditionalGeneration, device=device, **weights)


def token_limits(
    max_new_tokens: int | Mapping[AnyTask, int] | None = None, tasks: Sequence[AnyTask] = TASKS
) -> dict[AnyTask, int]:
    """Return the maximum answer length per task in tokens.

    Args:
        max_new_tokens: one number for all tasks, or numbers for some of them; default [`MAX_NEW_TOKENS`], and for a
            zero-shot task the limit of its benchmark.
        tasks: tasks that are asked.

    Raises:
        ValueError: if a number is below 1 or a task is unknown.
    """
    limits = {t: MAX_NEW_TOKENS[t] if t in TASKS else benchmarks.registered(t).max_new_tokens for t in tasks}
    given = dict.fromkeys(limits, max_new_tokens) if isinstance(max_new_tokens, int) else dict(max_new_tokens or {})
    for task, limit in given.items():
        check_tasks([task])
        if limit < 1:
            raise ValueError(f"max_new_tokens must be 1 or more, not {limit}")
    return limits | given


def build_prompt(processor: Any, question: str | Conversation) -> str:
    """Build one prompt, see [`build_prompts`]."""
    return build_prompts(processor, [question])[0]


def build_prompts(processor: Any, questions: Sequence[str | Conversation]) -> list[str]:
    """Build conversations up to the model's turn, with thinking disabled.

    Only the first `<video>` of each is replaced by its video; other control tokens are escaped as text.

    Args:
        processor: with the chat template, which is rendered once for all: that may take a call of another process.
        questions: for each, one message of the user, or all messages so far.
    """
    conversations = []
    for question in questions:
        turns = [{"role": "user", "content": question}] if isinstance(question, str) else question
        messages, placed = [], False
        for turn in turns:
            before, token, after = (turn["content"], "", "") if placed else turn["content"].partition(VIDEO_TOKEN)
            placed = placed or bool(token)
            content = processor.escape(before) + token + processor.escape(after)
            messages.append({"role": turn["role"], "content": content})
        conversations.append(messages)
    # Options that are not in the template are passed to the processor as arguments.
    options = {"enable_thinking": False} if "enable_thinking" in (processor.chat_template or "") else {}
    return processor.apply_chat_template(conversations, add_generation_prompt=True, tokenize=False, **options)


def decode_answers(processor: Any, tokens: Any) -> list[str]:
    """Decode generated tokens; remove special tokens, reasoning and leading and trailing whitespace."""
    return [strip_reasoning(text).strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]


def prepare_question(
    model: Any,
    processor: Any,
    questions: Sequence[str],
    features: Sequence[Features],
    answers: Sequence[str] | None = None,
    **text_kwargs: Any,
) -> Any:
    """Build the model inputs of questions about videos, on the model's device.

    Args:
        questions: texts that contain `<video>`.
        features: features of each question's video.
        answers: answers to append to the questions, to score them with the model.
        text_kwargs: arguments of the tokenizer.
    """
    columns = {f"{modality}_features": [row.get(modality) for row in features] for modality in MODALITIES}
    texts = build_prompts(processor, questions)
    if answers is not None:
        texts = [f"{text} {processor.escape(answer)}" for text, answer in zip(texts, answers, strict=True)]
    return processor(text=texts, **columns, padding=True, return_tensors="pt", **text_kwargs).to(model.device)
