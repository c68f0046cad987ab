"""Language models of transformers that answer chat messages; those of servers are in [`longvale.chat_client`]."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..chat_client import MAX_TOKENS, Message, limit_note
from ..checkpoints.loading import distrust
from ..evaluation.adapters.chat import answer_of
from ..reasoning import strip_reasoning


class TransformersChat:
    """A language model of transformers, loaded here.

    Where a schema is given, the answer is begun for the model with the schema's first field, so that neither reasoning
    nor an introduction comes before the object, and generation ends with the object.

    Args:
        model: Hub id or folder, with a chat template.
        device: such as "cuda:0"; default an accelerator if there is one.
        max_tokens: longest answer; None leaves it to each call, 512 where that does not say.

    Raises:
        ValueError: if it cannot be loaded.
    """

    def __init__(self, model: str, *, device: str | None = None, max_tokens: int | None = None) -> None:
        from transformers import pipeline

        distrust(model)
        self.name, self._max_tokens = f"{model}{limit_note(max_tokens)}", max_tokens
        try:
            self._pipeline = pipeline("text-generation", model=model, device=device)
        except (OSError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{model}: is not a language model that can be loaded: {reason}") from error
        if not getattr(self._pipeline.tokenizer, "chat_template", None):
            raise ValueError(f"{model}: its tokenizer has no chat template; name a model that was tuned to chat")

    def __call__(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None, max_tokens: int | None = None
    ) -> str:
        """The model's greedy answer without its reasoning.

        Args:
            messages: `{"role": ..., "content": ...}`.
            schema: JSON schema of an object.
            max_tokens: longest answer, unless the chat was made with a limit of its own.

        Raises:
            NoAnswer: if the model wrote reasoning alone.
        """
        limit = self._max_tokens or max_tokens or MAX_TOKENS
        options: dict[str, Any] = {"max_new_tokens": limit, "do_sample": False, "skip_special_tokens": False}
        begin = self._begin(schema) if schema else ""
        if schema:
            options["stopping_criteria"] = [_closed_object(self._pipeline.tokenizer, begin)]
        begun = [{"role": "assistant", "content": begin}] if begin else []
        (result,) = self._pipeline([*messages, *begun], return_full_text=False, **options)
        return answer_of(begin + result["generated_text"], self._pipeline.tokenizer, self.name)

    def _begin(self, schema: Mapping[str, Any]) -> str:
        """The beginning of an object of a schema; "" where the chat template does not keep it as it is."""
        begin = _begin(schema)
        probe = [{"role": "user", "content": "?"}, {"role": "assistant", "content": begin}]
        try:
            self._pipeline.tokenizer.apply_chat_template(probe, tokenize=False, continue_final_message=True)
        except ValueError:
            return ""
        return begin


def _begin(schema: Mapping[str, Any]) -> str:
    """The beginning of an object of a schema.

    Example:
        >>> _begin({"properties": {"caption": {"type": "string"}}})
        '{"caption":'
    """
    return "{" + "".join(f"{json.dumps(name)}:" for name in list(schema.get("properties", ()))[:1])


def _closed_object(tokenizer: Any, begin: str) -> Any:
    """A stopping criterion: the first JSON object of the answer, which `begin` is a part of, is complete."""
    import torch
    from transformers import StoppingCriteria

    class ClosedObject(StoppingCriteria):
        start: int | None = None  # of the answer, in tokens

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
            if self.start is None:
                self.start = input_ids.shape[1] - 1
            closed = "}" in tokenizer.decode(input_ids[0, -1]) and _holds_object(
                begin + tokenizer.decode(input_ids[0, self.start :], skip_special_tokens=True)
            )
            return torch.full((len(input_ids),), closed, device=input_ids.device)

    return ClosedObject()


def _holds_object(text: str) -> bool:
    """Whether a text has a complete JSON object after its reasoning.

    Example:
        >>> _holds_object('Sure! {"caption": "A bell"} I hope'), _holds_object('{"caption": "A }')
        (True, False)
    """
    text = strip_reasoning(text)
    start = text.find("{")
    try:
        return start >= 0 and isinstance(json.JSONDecoder().raw_decode(text, start)[0], dict)
    except (ValueError, RecursionError):
        return False
