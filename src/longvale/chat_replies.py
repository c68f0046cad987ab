"""Parsing of server replies: the answer of a chat completion, or the error. Pure functions; nothing is sent here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from .events import Seconds
from .io import parse_json
from .reading.reasoning import strip_reasoning

#: Statuses below 500 after which the same request may be retried (RFC 9110, RFC 8470, RFC 6585).
_TRY_AGAIN = frozenset({408, 425, 429})

#: End of a message about temporary failures.
RESUME = "; start the server and run the same command again: it resumes"
_LONGER = "; raise the longest answer (--max-tokens, --max-new-tokens or --judge-max-tokens)"
#: Message for a model, local or on a server, that was cut off during its reasoning.
ONLY_REASONING = f"only reasoning and no answer{_LONGER}, or turn its reasoning off"
_NOT_A_COMPLETION = "; is it the URL of an OpenAI-compatible server, such as http://HOST:8000/v1?"


class ServerError(ConnectionError):
    """A server gives no answer. Earlier results are kept, and the same command resumes."""


class NoAnswer(ServerError):
    """A model's reply contains no answer: it was cut off during reasoning, or wrote no text."""


class Trouble(Exception):
    """A failed request, with the number of retries and the wait before them."""

    def __init__(
        self,
        reason: str,
        *,
        remedy: str = "",
        retries: float = 0,
        wait_s: Seconds = 0.0,
        status: int | None = None,
        no_answer: bool = False,
    ) -> None:
        super().__init__(reason)
        self.remedy, self.retries, self.wait_s, self.status, self.no_answer = remedy, retries, wait_s, status, no_answer


class Reply(NamedTuple):
    """A complete reply; header names are looked up in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Completion(NamedTuple):
    """A continued prompt: its text, number of tokens, and `finish_reason`."""

    text: str
    tokens: int
    finish: str


def read_completion(reply: Reply) -> str:
    """Read the answer of a reply, without reasoning.

    Raises:
        Trouble: if the reply contains no answer; the message describes the reply.

    Example:
        >>> read_completion(Reply(200, {}, b'{"choices": [{"message": {"content": "<think>Hm</think>A bell."}}]}'))
        'A bell.'
    """
    value = _object_of(reply, "a chat completion")
    return _answer_of(value)


def read_text_completion(reply: Reply) -> Completion:
    """Read a reply of `/completions`; the text may be empty, and keeps its reasoning.

    Raises:
        Trouble: if the reply contains no text; the message describes the reply.

    Example:
        >>> read_text_completion(Reply(200, {}, b'{"choices": [{"text": " A bell.", "finish_reason": "stop"}]}'))
        Completion(text=' A bell.', tokens=0, finish='stop')
    """
    value = _object_of(reply, "a completion")
    choices, usage = value.get("choices"), value.get("usage")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, Mapping) or not isinstance(choice.get("text"), str):
        raise _malformed("a completion without text")
    tokens = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    return Completion(choice["text"], tokens if isinstance(tokens, int) else 0, str(choice.get("finish_reason")))


def read_transcript(reply: Reply) -> Mapping[str, Any]:
    """Read the transcript of a reply of `/audio/transcriptions`: an object with `text`.

    Raises:
        Trouble: if the reply contains no transcript; the message describes the reply.

    Example:
        >>> read_transcript(Reply(200, {}, b'{"text": "Good morning."}'))
        {'text': 'Good morning.'}
    """
    value = _object_of(reply, "a transcript")
    if not isinstance(value.get("text"), str):
        raise _malformed("a transcript without text")
    return value


def read_upload(reply: Reply) -> str:
    """Read the id of an uploaded file.

    Raises:
        Trouble: if the reply contains none; the message describes the reply.

    Example:
        >>> read_upload(Reply(200, {}, b'{"id": "file-1", "object": "file"}'))
        'file-1'
    """
    value = _object_of(reply, "a file")
    if not isinstance(value.get("id"), str):
        raise _malformed("a file without id")
    return value["id"]


def _object_of(reply: Reply, expected: str) -> Mapping[str, Any]:
    """Return the JSON object of a reply; Trouble if it is an error or something else."""
    if reply.status >= 300:
        raise _refusal(reply.status, _error_of(reply.body), reply.headers)
    if "text/event-stream" in reply.headers.get("content-type", "") or reply.body.lstrip()[:5] == b"data:":
        raise Trouble("a stream, which was not asked for" + _NOT_A_COMPLETION)
    try:
        value = parse_json(reply.body)
    except ValueError as error:
        raise _malformed(f"not {expected}: {brief(str(error))}") from None
    if not isinstance(value, Mapping):
        raise _malformed(f"not {expected}: not an object")
    if value.get("error") or value.get("object") == "error":
        error = value.get("error")
        code = str((error if isinstance(error, Mapping) else value).get("code"))
        status = int(code) if len(code) == 3 and code.isdecimal() else None
        raise _refusal(status, _error_of(reply.body), reply.headers)
    return value


#: Fields of a model in `/v1/models` that identify its weights.
_IDENTITY = ("root", "parent", "revision", "sha", "fingerprint", "quantization", "meta")


def read_served_model(reply: Reply, model: str) -> dict[str, Any] | None:
    """Read the entry of a model in a reply of `/v1/models`; None if there is none.

    Raises:
        Trouble: if the server replies with an error.

    Example:
        >>> read_served_model(Reply(200, {}, b'{"data": [{"id": "m", "root": "org/m", "created": 7}]}'), "m")
        {'root': 'org/m'}
    """
    if reply.status >= 300:
        raise _refusal(reply.status, _error_of(reply.body), reply.headers)
    try:
        value = parse_json(reply.body)
    except ValueError:
        return None
    listed = value.get("data") if isinstance(value, Mapping) else None
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, Mapping) and entry.get("id") == model:
            return {name: entry[name] for name in _IDENTITY if entry.get(name) is not None}
    return None


def _answer_of(value: Mapping[str, Any]) -> str:
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping):
        raise _malformed("a chat completion without " + ("a message" if choice else "choices"))
    content = message.get("content")
    text = _joined(content) if isinstance(content, list) else content
    if text is not None and not isinstance(text, str):
        raise _malformed(f"content that is not text but {brief(json.dumps(text))}")
    answer = strip_reasoning(text or "")
    if answer:
        return answer
    if (text or "").strip() or any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking")):
        raise _no_answer(ONLY_REASONING)
    if choice.get("finish_reason") == "length":
        raise _no_answer("no text within the longest answer", _LONGER)
    if message.get("tool_calls") or message.get("function_call"):
        raise _no_answer("a tool call and no text, which was not asked for")
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        raise _no_answer(f"refuses to answer: {brief(str(message.get('refusal') or 'content filter'))}")
    raise _no_answer("an answer without text", retries=1)


def _no_answer(reason: str, remedy: str = "", retries: int = 0) -> Trouble:
    return Trouble(reason, remedy=remedy, retries=retries, no_answer=True)


def _joined(parts: Sequence[Any]) -> str | None:
    """Return the text of content in parts; None if no part is text."""
    spoken = [p.get("text") if isinstance(p, Mapping) and p.get("type", "text") == "text" else p for p in parts]
    texts = [text for text in spoken if isinstance(text, str)]
    return "".join(texts) if texts else None


def _malformed(reason: str) -> Trouble:
    return Trouble(reason, retries=1, remedy=_NOT_A_COMPLETION)


def _refusal(status: int | None, message: str, headers: Mapping[str, str]) -> Trouble:
    """Return a temporary failure, or a permanent refusal, depending on the status."""
    reason = " ".join(part for part in ("" if status is None else f"HTTP {status}", message) if part) or "an error"
    if status is not None and (status in _TRY_AGAIN or (500 <= status < 600 and status != 501)):
        return Trouble(reason, retries=math.inf, wait_s=retry_after(headers), remedy=RESUME, status=status)
    return Trouble(f"refuses the question: {reason}", status=status)


def _error_of(body: bytes) -> str:
    """Return the error message of a body, on one line."""
    text = body[:4096].decode(errors="replace")
    try:
        value = parse_json(body)
    except ValueError:
        return brief(text)
    for name in ("error", "message", "detail"):
        if isinstance(value, Mapping) and value.get(name):
            value = value[name]
    return brief(value if isinstance(value, str) else "")


def brief(text: str) -> str:
    """Return a line of at most 200 printable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:1000]).split())[:200]


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> Seconds:
    """Read the seconds that a server requests to wait, 0 if it sets none (RFC 9110, 10.2.3).

    Args:
        headers: of the reply; `retry-after` is a number of seconds or a date.
        now: default the current time of this machine.

    Example:
        >>> retry_after({"retry-after": "7"}), retry_after({"retry-after": "soon"})
        (7.0, 0.0)
        >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        >>> retry_after({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, noon)
        30.0
    """
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if seconds == seconds else 0.0  # not a number
