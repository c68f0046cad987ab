"""Language models that answer chat messages: behind an OpenAI-compatible server, or loaded here."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..events import Seconds

Message = Mapping[str, Any]

#: Answers of a server after which the same question may be asked again (RFC 9110, RFC 6585).
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class Chat(Protocol):
    """Answers messages."""

    name: str

    def __call__(self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None) -> str:
        """The answer's text.

        Args:
            messages: `{"role": ..., "content": ...}`.
            schema: JSON schema that the answer should follow, where it can be enforced.

        Raises:
            ServerError: if no answer can be had.
        """


class ServerError(ConnectionError):
    """A server that gives no answer: the run stops here, what is done is kept, and the same command goes on."""


class ServerChat:
    """A model behind an OpenAI-compatible server, asked through `huggingface_hub.InferenceClient`.

    Servers that are busy, slow or failing are asked again, each time after twice as long. `InferenceClient` words a
    schema as text-generation-inference wants it; others read it as "some JSON object", and `transformers serve` ignores
    it. So whoever asks checks the answer.

    Args:
        base_url: such as "http://127.0.0.1:8765/v1"; an `InferenceClient` provider works by `base_url=None`.
        model: as the server calls it; `transformers serve` wants the path that it was started with.
        token: of the server, if it wants one.
        max_tokens: longest answer.
        timeout_s: seconds to wait for one answer.
        retries: how often to ask again.
        backoff_s: seconds before the first time; at most 60.
        sleep: waits; tests give another.
    """

    def __init__(
        self,
        base_url: str | None,
        model: str,
        *,
        token: str | None = None,
        max_tokens: int = 512,
        timeout_s: Seconds = 120.0,
        retries: int = 4,
        backoff_s: Seconds = 1.0,
        sleep: Callable[[Seconds], None] = time.sleep,
    ) -> None:
        from huggingface_hub import InferenceClient

        self.name = f"{model} at {base_url or 'Hugging Face'}"
        self._model, self._max_tokens = model, max_tokens
        self._retries, self._backoff_s, self._sleep = retries, backoff_s, sleep
        target = {"base_url": base_url} if base_url else {}
        # A server of one's own must not be sent the token of the Hub, which is what None would do.
        self._client = InferenceClient(**target, token=token or ("none" if base_url else None), timeout=timeout_s)

    def __call__(self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None) -> str:
        """The text of the first answer that can be had."""
        for attempt in range(self._retries + 1):
            try:
                return self._ask(messages, schema)
            except _TryAgain as error:
                if attempt == self._retries:
                    raise ServerError(
                        f"{self.name}: no answer after {attempt + 1} attempts ({error}); start the server and run the "
                        "same command again: it goes on from here"
                    ) from error
                wait = min(60.0, max(self._backoff_s * 2**attempt, error.wait_s))
                self._sleep(wait * (1 + 0.1 * random.random()))
        raise AssertionError("unreachable")

    def _ask(self, messages: Sequence[Message], schema: Mapping[str, Any] | None) -> str:
        import httpx2  # what huggingface_hub speaks HTTP with
        from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError, OfflineModeIsEnabled

        form = None
        if schema is not None:
            form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema), "strict": True}}
        try:
            answer = self._client.chat_completion(
                list(messages), model=self._model, max_tokens=self._max_tokens, temperature=0.0, response_format=form
            )
            text = answer.choices[0].message.content
        except OfflineModeIsEnabled as error:
            raise ServerError(
                f"{self.name}: HF_HUB_OFFLINE forbids all connections, also to servers of your own; unset it"
            ) from error
        except InferenceTimeoutError as error:
            raise _TryAgain(f"no answer in time: {error}") from error
        except HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else None
            if status not in _TRY_AGAIN:
                raise ServerError(f"{self.name}: refuses the question: {_first_line(error)}") from error
            raise _TryAgain(f"HTTP {status}", _retry_after(error.response)) from error
        except (OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise _TryAgain(f"{type(error).__name__}: {_first_line(error)}") from error
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise _TryAgain(f"an answer that is not of the form of a chat completion: {_first_line(error)}") from error
        if not isinstance(text, str):
            raise _TryAgain("an answer without text")
        return text


class _TryAgain(Exception):
    def __init__(self, message: str, wait_s: Seconds = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


def _retry_after(response: Any) -> Seconds:
    """Seconds that the server asks to wait, 0 if it does not say."""
    try:
        return max(0.0, float(response.headers.get("retry-after", 0)))
    except ValueError:  # a date: our own waiting time will do
        return 0.0


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class TransformersChat:
    """A language model of transformers, loaded here.

    Args:
        model: Hub id or folder, with a chat template.
        device: such as "cuda:0"; default an accelerator if there is one.
        max_tokens: longest answer.

    Raises:
        ValueError: if it cannot be loaded.
    """

    def __init__(self, model: str, *, device: str | None = None, max_tokens: int = 512) -> None:
        from transformers import pipeline

        self.name, self._max_tokens = model, max_tokens
        try:
            self._pipeline = pipeline("text-generation", model=model, device=device)
        except (OSError, KeyError) as error:
            raise ValueError(f"{model}: is no language model that can be loaded: {error}") from error

    def __call__(self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None) -> str:
        """The model's greedy answer; a schema cannot be enforced here."""
        answer = self._pipeline(list(messages), max_new_tokens=self._max_tokens, do_sample=False)
        return answer[0]["generated_text"][-1]["content"]
