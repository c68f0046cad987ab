"""Chat with a language model: loaded by transformers, or on a server, as the options of the command line say."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

from ..chat_client import MAX_TOKENS, Chat, ChatClient, Message, limit_note
from ..checkpoints.loading import (
    Weights,
    choose_place,
    distrust,
    not_found,
    split_revision,
    weight_options,
    weights_note,
)
from ..evaluation.adapters.chat import answer_of
from ..reading.reasoning import strip_reasoning


@dataclass(frozen=True)
class ModelOptions:
    """Options with which registered captioners, taggers and reasoners are created.

    Args:
        model: Hub id, which may be ID@REVISION, folder, or name on the server, as given after the registered name; None
            if none was given.
        server: URL of an OpenAI-compatible server, such as "http://127.0.0.1:8000/v1".
        timeout_s: timeout per complete server reply in seconds.
        max_tokens: maximum length of an answer in tokens; None for the limit of each task.
        device: torch device, such as "cuda:0"; default an accelerator if there is one.
        remove_names: for reasoners, replace the names of people.
        weights: how captioners and language models are loaded here, see [`longvale.checkpoints.loading.Weights`].

    Raises:
        ValueError: if `max_tokens` is below 1.
    """

    model: str | None = None
    server: str | None = None
    timeout_s: float = 120.0
    max_tokens: int | None = None
    device: str | None = None
    remove_names: bool = True
    weights: Weights = field(default_factory=Weights)

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"--max-tokens must be 1 or more, not {self.max_tokens}")

    def need_model(self) -> str:
        """Return the model.

        Raises:
            ValueError: if none was given.
        """
        if self.model is None:
            raise ValueError(
                "name a model: after the colon, such as transformers:Qwen/Qwen2.5-Omni-7B, or with --language-model"
            )
        return self.model

    def chat(self) -> Chat:
        """Return a chat with the model, on the server if one was given.

        The token of the server is that of the environment variable LONGVALE_SERVER_TOKEN, if set.
        """
        if self.server is None:
            return TransformersChat(self.need_model(), device=self.device, max_tokens=self.max_tokens, **self.weights)
        return self.client()

    def client(self) -> ChatClient:
        """Return a client of the model on the server."""
        token = os.environ.get("LONGVALE_SERVER_TOKEN")
        options: dict[str, Any] = {"timeout_s": self.timeout_s, "max_tokens": self.max_tokens}
        return ChatClient(self.need_model(), self.server, token=token, **options)


class TransformersChat:
    """Chat model loaded with transformers in this process.

    With a schema, the answer is prefilled with the schema's first field, so that neither reasoning nor an introduction
    comes before the object. Generation stops when the object is complete.

    Args:
        model: Hub id, ID@REVISION, or folder of a model with a chat template.
        device: torch device, such as "cuda:0"; default an accelerator if there is one.
        max_tokens: maximum length of an answer; None for the limit of each call, or 512 if the call gives none.
        weights: see [`longvale.checkpoints.loading.Weights`]; the default dtype is the stored one.

    Raises:
        FileNotFoundError: if the model does not exist.
        ValueError: if the model cannot be loaded or has no chat template.
    """

    def __init__(
        self, model: str, *, device: str | None = None, max_tokens: int | None = None, **weights: Unpack[Weights]
    ) -> None:
        from transformers import pipeline

        path, revision = split_revision(model)
        distrust(path)
        self.name, self._max_tokens = f"{model}{weights_note(weights)}{limit_note(max_tokens)}", max_tokens
        options = weight_options(choose_place(device, weights.get("device_map")), **weights)
        given = {name: options.pop(name) for name in ("dtype", "device_map") if name in options}
        given |= {} if "device_map" in given else {"device": device}
        try:
            self._pipeline = pipeline("text-generation", model=path, revision=revision, model_kwargs=options, **given)
        except OSError as error:
            raise not_found(path, error, revision) from error
        except (KeyError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{model}: is not a language model that can be loaded: {reason}") from error
        if not getattr(self._pipeline.tokenizer, "chat_template", None):
            raise ValueError(f"{model}: its tokenizer has no chat template; name a model that was tuned to chat")

    def __call__(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None, max_tokens: int | None = None
    ) -> str:
        """Return the model's answer, decoded greedily, without its reasoning.

        Args:
            messages: `{"role": ..., "content": ...}`.
            schema: JSON schema of an object.
            max_tokens: maximum length of the answer; ignored if the constructor was given a limit.

        Raises:
            NoAnswer: if the model wrote only reasoning.
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
        """Return the prefix of an object of a schema; "" if the chat template does not preserve it."""
        begin = _begin(schema)
        probe = [{"role": "user", "content": "?"}, {"role": "assistant", "content": begin}]
        try:
            self._pipeline.tokenizer.apply_chat_template(probe, tokenize=False, continue_final_message=True)
        except ValueError:
            return ""
        return begin


def _begin(schema: Mapping[str, Any]) -> str:
    """Return the prefix of an object of a schema, up to the first value.

    Example:
        >>> _begin({"properties": {"caption": {"type": "string"}}})
        '{"caption":'
    """
    return "{" + "".join(f"{json.dumps(name)}:" for name in list(schema.get("properties", ()))[:1])


def _closed_object(tokenizer: Any, begin: str) -> Any:
    """Return a stopping criterion: the first JSON object of the answer, which includes `begin`, is complete."""
    import torch
    from transformers import StoppingCriteria

    class ClosedObject(StoppingCriteria):
        start: int | None = None  # index of the answer's first token

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
            if self.start is None:
                self.start = input_ids.shape[1] - 1
            closed = "}" in tokenizer.decode(input_ids[0, -1]) and _holds_object(
                begin + tokenizer.decode(input_ids[0, self.start :], skip_special_tokens=True)
            )
            return torch.full((len(input_ids),), closed, device=input_ids.device)

    return ClosedObject()


def _holds_object(text: str) -> bool:
    """Return whether a text contains a complete JSON object after its reasoning.

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
