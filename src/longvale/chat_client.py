"""One client for language models behind OpenAI-compatible servers and Hugging Face's inference providers.

The only module that sends requests with the HTTP library (httpx2, which huggingface_hub depends on).
`InferenceClient` is not used: its timeout is per read, so a server that sends a byte per second never times out; it
reads replies of any size; and it sends the Hub's token to every server unless it is given another.
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit, urlunsplit

from .chat_replies import (
    RESUME,
    Completion,
    NoAnswer,
    Reply,
    ServerError,
    Trouble,
    brief,
    read_completion,
    read_served_model,
    read_text_completion,
    read_transcript,
    read_upload,
)
from .events import Seconds

Message = Mapping[str, Any]
T = TypeVar("T")

#: OpenAI-compatible address of the inference providers, the one that `InferenceClient(provider="auto")` uses.
PROVIDERS_URL = "https://router.huggingface.co/v1"

#: Longest answer in tokens where neither the chat nor the caller sets a limit.
MAX_TOKENS = 512

#: Statuses of servers that do not support `response_format` or the schema in it.
_NO_SCHEMA = frozenset({400, 404, 415, 422, 501})
#: Longest wait between two attempts, and the longest that a server may request by Retry-After.
_MAX_BACKOFF_S, _MAX_RETRY_AFTER_S = 60.0, 300.0
#: Connection timeout.
_CONNECT_S = 30.0
#: Seconds for which an unused connection is kept: less than the 5 after which servers of uvicorn close it.
_KEEP_S = 2.0
#: A reply is a text of some thousand tokens; a longer body is not a valid reply.
_MAX_REPLY_BYTES = 8 * 2**20
_MAX_REDIRECTS = 5


class Chat(Protocol):
    """Callable that answers messages: [`ChatClient`], or a local model."""

    name: str

    def __call__(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None, max_tokens: int | None = None
    ) -> str:
        """Return the answer without the model's reasoning.

        Args:
            messages: `{"role": ..., "content": ...}`.
            schema: JSON schema that the answer should follow, where it can be enforced.
            max_tokens: longest answer, reasoning included, unless the chat was made with its own limit.

        Raises:
            ServerError: if a server gives no answer.
            NoAnswer: if the model wrote none.
        """
        ...


class Patience:
    """Counter of unusable answers that ends a run after several in a row.

    Args:
        in_a_row: number of consecutive unusable answers that ends the run.

    Attributes:
        reasons: of all unusable answers.

    Raises:
        ValueError: if `in_a_row` is below 1.

    Example:
        >>> patience = Patience(2)
        >>> patience.refused("only reasoning"), patience.used(), patience.refused("only reasoning")
        (None, None, None)
        >>> len(patience.reasons)
        2
    """

    def __init__(self, in_a_row: int = 5) -> None:
        if in_a_row < 1:
            raise ValueError(f"the number of refusals in a row must be 1 or more, not {in_a_row}")
        self.in_a_row, self.reasons, self._row = in_a_row, [], 0

    def used(self) -> None:
        """Record a usable answer."""
        self._row = 0

    def refused(self, reason: str) -> None:
        """Record an unusable answer.

        Raises:
            NoAnswer: after too many in a row, with the last reason.
        """
        self.reasons.append(reason)
        self._row += 1
        if self._row >= self.in_a_row:
            raise NoAnswer(f"{self._row} answers in a row cannot be used, the last because of: {reason}")


class ChatClient:
    """Client that sends messages to a model on a server and decodes greedily.

    The answer arrives within `timeout_s` or the call fails, however slowly the server sends. Temporary failures are
    retried, each time after twice the wait or after the time that the server requests. A failed or broken connection
    and HTTP 408, 425, 429 and 5xx are retried up to `retries` times. A server that is silent until the deadline, and a
    reply that is not a chat completion, are retried once. Permanent refusals are not retried.

    Servers are sent `token` and no other token; it is not sent to another host after a redirect. Only Hugging Face's
    inference providers get the Hub's token.

    Args:
        model: its name on the server, or a Hub id.
        base_url: of the server, for example "http://127.0.0.1:8000/v1"; None for Hugging Face's inference providers.
        token: of the server, if it requires one.
        max_tokens: longest answer, reasoning included; None leaves it to each call, 512 where that does not set it.
        timeout_s: deadline of a whole answer in seconds.
        extra_body: further fields of each request, such as `mm_processor_kwargs` of vLLM.
        retries: maximum number of retries.
        backoff_s: seconds before the second attempt; doubles each time, up to 60.
        sleep: function that waits; tests replace it.

    Raises:
        ValueError: if the URL is not an HTTP URL, or the token has characters that are not allowed in tokens.

    Example:
        >>> chat = ChatClient("Qwen/Qwen3-4B", "http://127.0.0.1:8000/v1")
        >>> chat.name
        'Qwen/Qwen3-4B at http://127.0.0.1:8000/v1'
        >>> chat([{"role": "user", "content": "Which instruments are heard?"}])  # doctest: +SKIP
        'A flute and a drum.'
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        token: str | None = None,
        max_tokens: int | None = None,
        timeout_s: Seconds = 120.0,
        extra_body: Mapping[str, Any] | None = None,
        retries: int = 4,
        backoff_s: Seconds = 1.0,
        sleep: Callable[[Seconds], None] = time.sleep,
    ) -> None:
        self.model, self.base_url = model, None if base_url is None else _without_secrets(base_url)
        self.name = f"{model} at {self.base_url or 'Hugging Face'}{limit_note(max_tokens)}"
        self._max_tokens = max_tokens
        self._url, self._token = _completions_url(base_url or PROVIDERS_URL), token and token.strip()
        if self._token and not (self._token.isascii() and self._token.isprintable()):
            raise ValueError(f"{self.name}: the token of the server has characters that no token has; copy it again")
        self._timeout_s, self._retries, self._backoff_s, self._sleep = timeout_s, retries, backoff_s, sleep
        self._takes_schemas, self._gives_times, self._extra_body = True, True, dict(extra_body or {})

    def __call__(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None, max_tokens: int | None = None
    ) -> str:
        """Answer messages, without the model's reasoning.

        Args:
            messages: `{"role": ..., "content": ...}`.
            schema: JSON schema of the answer; if the server refuses schemas, the request is repeated without it, and
                the caller checks the answer.
            max_tokens: longest answer, reasoning included, unless the client was made with its own limit.

        Raises:
            NoAnswer: if the model wrote no answer.
            ServerError: if the server cannot be reached, refuses, or its reply is not an answer.
        """
        body = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": self._max_tokens or max_tokens or MAX_TOKENS,
            "temperature": 0.0,
            **self._extra_body,
        }
        if schema is None or not self._takes_schemas:
            return self._ask(body)
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema), "strict": True}}
        try:
            return self._ask({**body, "response_format": form})
        except _Refused as error:
            if error.status not in _NO_SCHEMA:
                raise
            answer = self._ask(body)
            self._takes_schemas = False
            return answer

    def transcribe(self, recording: bytes, *, words: bool = True) -> Mapping[str, Any]:
        """Transcribe speech at the server's `/audio/transcriptions`.

        Args:
            recording: a WAV file.
            words: ask for segments and words with times (`verbose_json`); if the server refuses, the request is
                repeated without, and later ones ask for the text alone.

        Returns:
            The object of the reply: `text`, and where the server gives them `language`, `segments` and `words`.

        Raises:
            ServerError: if the server cannot be reached, refuses, or its reply is not a transcript.
        """
        import httpx2

        url = self._url.removesuffix("/chat/completions") + "/audio/transcriptions"
        timed = words and self._gives_times
        fields: dict[str, Any] = {"model": self.model, "temperature": "0"}
        fields["response_format"] = "verbose_json" if timed else "json"
        if timed:
            fields["timestamp_granularities[]"] = ["segment", "word"]
        form = httpx2.Request("POST", url, data=fields, files={"file": ("speech.wav", recording, "audio/wav")})
        try:
            return self._send(url, form.read(), form.headers["content-type"], read_transcript)
        except _Refused as error:
            if not timed or error.status not in _NO_SCHEMA:
                raise
            found = self.transcribe(recording, words=False)
            self._gives_times = False
            return found

    def served_model(self) -> dict[str, Any] | None:
        """Return what the server lists under the model's name in `/v1/models`; None if it lists no such model.

        Only fields that identify the weights are kept, such as `root` and `revision`. Servers fill others, such as
        `created`, with the time of the request.

        Raises:
            ServerError: if the server cannot be reached.
        """
        if self.base_url is None:
            return None
        url = self._url.removesuffix("/chat/completions") + "/models"
        try:
            return self._send(url, None, "application/json", lambda reply: read_served_model(reply, self.model))
        except _Refused as error:
            if error.status is None:
                raise
            return None  # a server without this address

    def complete(self, **fields: Any) -> Completion:
        """Let the model continue a prompt (`/v1/completions`): a text, or embeddings for servers of vLLM.

        Args:
            fields: of the request, such as `prompt_embeds` and `max_tokens`.

        Raises:
            ServerError: as a call does.
        """
        url = self._url.removesuffix("/chat/completions") + "/completions"
        body = json.dumps({"model": self.model, **fields}).encode()
        return self._send(url, body, "application/json", read_text_completion)

    def upload(self, file: Path) -> str:
        """Upload a file to the server's `/files`, and return its id.

        Raises:
            ServerError: as a call does.
        """
        import httpx2

        url = self._url.removesuffix("/chat/completions") + "/files"
        named = {"file": (file.name, file.read_bytes(), "application/octet-stream")}
        form = httpx2.Request("POST", url, data={"purpose": "user_data"}, files=named)
        return self._send(url, form.read(), form.headers["content-type"], read_upload)

    def _ask(self, body: Mapping[str, Any]) -> str:
        return self._send(self._url, json.dumps(body).encode(), "application/json", read_completion)

    def _send(self, url: str, content: bytes | None, kind: str, read: Callable[[Reply], T]) -> T:
        headers = self._headers() | {"Content-Type": kind}
        attempt = 0
        while True:
            attempt += 1
            try:
                return read(_request(url, content, headers, self._timeout_s))
            except Trouble as trouble:
                reason = f"no answer after {attempt} attempts ({trouble})" if attempt > 1 else str(trouble)
                if trouble.wait_s > _MAX_RETRY_AFTER_S:
                    remedy = f"; it asks to wait {trouble.wait_s:.0f} s: run the same command then, it resumes"
                    raise ServerError(f"{self.name}: {reason}{remedy}") from trouble
                if attempt > min(self._retries, trouble.retries):
                    if trouble.no_answer:
                        raise NoAnswer(f"{self.name}: {reason}{trouble.remedy}") from trouble
                    raise _Refused(f"{self.name}: {reason}{trouble.remedy}", trouble.status) from trouble
                wait = max(trouble.wait_s, min(_MAX_BACKOFF_S, self._backoff_s * 2 ** (attempt - 1)))
            self._sleep(wait * (1 + 0.1 * random.random()))

    def _headers(self) -> dict[str, str]:
        """Return the request headers; compression is not requested, so that the size of a reply is the size sent."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        elif self.base_url is None:
            from huggingface_hub.constants import is_offline_mode
            from huggingface_hub.utils import build_hf_headers

            if is_offline_mode():
                raise ServerError(f"{self.name}: HF_HUB_OFFLINE is set; unset it, or give a server")
            of_hub = {name.title(): value for name, value in build_hf_headers().items()}
            headers |= {name: of_hub[name] for name in ("Authorization",) if name in of_hub}
        return headers


class _Refused(ServerError):
    """A refusal with its HTTP status, None where it has none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def limit_note(max_tokens: int | None) -> str:
    """Return a requested limit as a part of a chat's name: names identify finished work.

    Example:
        >>> limit_note(64), limit_note(None)
        (' (at most 64 tokens)', '')
    """
    return "" if max_tokens is None else f" (at most {max_tokens} tokens)"


# --- addresses -------------------------------------------------------------------------------------------------------


def _completions_url(base_url: str) -> str:
    """Return the URL of chat completions: `/v1` is added if the path contains no version."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        versioned = any(part[:1] == "v" and part[1:2].isdigit() for part in path.split("/"))
        path += "/chat/completions" if versioned else "/v1/chat/completions"
    return urlunsplit(parts._replace(path=path, fragment=""))


def _without_secrets(base_url: str) -> str:
    """Return the URL for printing and logging: without user, password and query.

    Raises:
        ValueError: if it is not an HTTP URL.
    """
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        shown = brief(base_url.rpartition("@")[2])
        raise ValueError(f"{shown}: the URL of a server must look like http://HOST:8000/v1 or https://HOST/v1")
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


# --- one request -----------------------------------------------------------------------------------------------------


def _request(url: str, content: bytes | None, headers: Mapping[str, str], timeout_s: Seconds) -> Reply:
    """Send a request, without content a GET, from a thread that may run its own event loop, such as a notebook's."""
    future = asyncio.run_coroutine_threadsafe(_exchange(url, content, headers, timeout_s), _loop())
    try:
        return future.result()
    except CancelledError:
        raise Trouble("the request was cancelled") from None
    finally:
        future.cancel()  # after Ctrl-C


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of all requests, in its own thread, so that asyncio's deadline always ends a request."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="chat-client", daemon=True).start()
    return loop


@functools.cache
def _connections() -> Any:
    """Return the client of all requests, which keeps connections open between them, and no cookies."""
    import httpx2

    jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    limits = httpx2.Limits(max_connections=None, keepalive_expiry=_KEEP_S)
    return httpx2.AsyncClient(timeout=None, verify=_certificates(), limits=limits, cookies=jar)


def _forget_connections() -> None:
    """Begin with a new thread and new connections: in a child process these do not exist."""
    _loop.cache_clear()
    _connections.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_connections)


async def _exchange(url: str, content: bytes | None, headers: Mapping[str, str], timeout_s: Seconds) -> Reply:
    """Send a request and read the reply, all within `timeout_s`; redirects keep method and body."""
    import httpx2

    timeout = httpx2.Timeout(None, connect=min(_CONNECT_S, timeout_s))
    replied, headers = False, dict(headers)
    try:
        async with asyncio.timeout(timeout_s):
            for _ in range(_MAX_REDIRECTS + 1):
                async with _connections().stream(
                    "GET" if content is None else "POST", url, content=content, headers=headers, timeout=timeout
                ) as response:
                    replied = True
                    if not response.has_redirect_location:
                        return Reply(response.status_code, response.headers, await _read(response))
                    url = str(_redirected(response, headers))
            raise Trouble(f"more than {_MAX_REDIRECTS} redirects, the last to {brief(url)}")
    except TimeoutError:
        deadline = f"no whole answer within {timeout_s:g} s"
        remedy = "; raise --timeout, or lower the longest answer"
        raise Trouble(deadline, retries=0 if replied else 1, remedy=remedy) from None
    except (OSError, httpx2.HTTPError) as error:
        reason = f"{type(error).__name__}: {brief(str(error))}".rstrip(": ")
        raise Trouble(reason, retries=math.inf, remedy=RESUME) from error
    except httpx2.InvalidURL as error:
        raise Trouble(f"not a URL: {brief(str(error))}") from error


def _redirected(response: Any, headers: dict[str, str]) -> Any:
    """Return the redirect's address; the token is dropped if it is on another host."""
    url = response.url.join(response.headers["location"])
    if response.status_code == 303 or url.scheme not in ("http", "https") or response.url.scheme > url.scheme:
        raise Trouble(f"redirects to {brief(str(url))} (HTTP {response.status_code}); name that server if it is right")
    before, after = ((u.scheme, u.host, u.port) for u in (response.url, url))
    if before != after:
        headers.pop("Authorization", None)
    return url


async def _read(response: Any) -> bytes:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise Trouble("a compressed reply, which was not asked for", retries=1)
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > _MAX_REPLY_BYTES:
            raise Trouble(f"a reply of more than {_MAX_REPLY_BYTES // 2**20} MiB")
    return bytes(body)


@functools.cache
def _certificates() -> Any:
    """Return the certificates of the machine, read once: this takes some 20 ms."""
    import httpx2

    return httpx2.create_ssl_context()
