"""Requests of the OpenAI API: reading and checking them, and the errors that are returned. Pure functions of JSON."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..evaluation.generation.model import Conversation
from ..evaluation.generation.sampling import GREEDY, Decoding
from ..io import is_number, shorten
from ..tasks import VIDEO_TOKEN

#: Longest answer in tokens, if a request sets none.
MAX_TOKENS = 1024

#: Fields that would change the answer in a way that this server does not support, and their values without effect.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "stop": ([], ""),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "top_p": (1,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
}


class RequestError(ValueError):
    """A request that is refused.

    Args:
        message: one line with what to change.
        param: name of the field.
        status: HTTP status.
        retry_after_s: seconds after which the same request may succeed.
    """

    def __init__(
        self, message: str, param: str | None = None, status: int = 400, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.param, self.status, self.retry_after_s = param, status, retry_after_s

    def body(self) -> dict[str, Any]:
        """Return the error in the format of the OpenAI API."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": None}}


@dataclass(frozen=True)
class VideoReference:
    """The video of a request.

    Args:
        kind: `url` (http, file or data URI), `file` (id of an upload), `data` (bytes of a file), or `frames`.
        value: URL or id; for `frames` the images, as data URIs.
        content: bytes of a file, of `data`; for `frames` a WAV file, or empty.
    """

    kind: Literal["url", "file", "data", "frames"]
    value: str | tuple[str, ...] = ""
    content: bytes = b""


@dataclass(frozen=True)
class ChatRequest:
    """A request for an answer.

    Args:
        messages: the conversation; `<video>` is where the video is.
        video: the video that it is about.
        max_tokens: maximum number of tokens of the answer.
        decoding: greedy unless a temperature is requested.
        stream: return the answer token by token.
        usage: return the numbers of tokens at the end of a stream.
    """

    messages: Conversation
    video: VideoReference
    max_tokens: int = MAX_TOKENS
    decoding: Decoding = GREEDY
    stream: bool = False
    usage: bool = False


def read_chat(body: Any) -> ChatRequest:
    """Read a request of `/v1/chat/completions`.

    Args:
        body: the parsed JSON.

    Raises:
        RequestError: naming the field that is missing, wrong or not supported.

    Example:
        >>> video = {"type": "video_url", "video_url": {"url": "http://host/a.mp4"}}
        >>> message = {"role": "user", "content": [video, {"type": "text", "text": "When?"}]}
        >>> read_chat({"messages": [message]}).messages
        [{'role': 'user', 'content': '<video>\\nWhen?'}]
    """
    if not isinstance(body, Mapping):
        raise RequestError("the request must be a JSON object")
    for name, allowed in _WITHOUT_EFFECT.items():
        value = body.get(name)
        sampled = name == "top_p" and not body.get("temperature")
        if value is not None and value not in allowed and not sampled:
            raise RequestError(f"{name}: {shorten(value, 60)} is not supported; leave it out", name)
    messages, videos = _read_messages(body.get("messages"))
    if len(videos) != 1:
        raise RequestError(
            f"messages: hold {len(videos)} videos; this model answers about one: give it as video_url, file or frames",
            "messages",
        )
    return ChatRequest(
        messages,
        videos[0],
        _read_max_tokens(body),
        _read_decoding(body),
        _read_flag(body, "stream"),
        _read_flag(_object(body, "stream_options"), "include_usage"),
    )


def _read_messages(messages: Any) -> tuple[list[dict[str, str]], list[VideoReference]]:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise RequestError("messages: must be a list of messages, not empty", "messages")
    read, videos = [], []
    for place, message in enumerate(messages):
        name = f"messages[{place}]"
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in ("system", "developer", "user", "assistant"):
            raise RequestError(f"{name}.role: must be system, user or assistant, not {shorten(role, 40)}", name)
        text, found = _read_content(message.get("content"), f"{name}.content")
        videos += found
        read.append({"role": "system" if role == "developer" else role, "content": text})
    return read, videos


def _read_content(content: Any, name: str) -> tuple[str, list[VideoReference]]:
    """Return the text of a message, with `<video>` where its video is, and its videos."""
    if isinstance(content, str):
        return content, []
    if not isinstance(content, Sequence):
        raise RequestError(f"{name}: must be a text or a list of parts", name)
    texts: list[str] = []
    videos: list[VideoReference] = []
    frames: list[str] = []
    sound = b""
    place: int | None = None  # of the video among the texts
    for number, part in enumerate(content):
        here = f"{name}[{number}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            texts.append(_text(part, "text", here))
            continue
        place = len(texts) if place is None else place
        if kind == "video_url":
            videos.append(VideoReference("url", _text(_object(part, "video_url"), "url", here)))
        elif kind == "file":
            videos.append(_read_file(_object(part, "file"), here))
        elif kind == "image_url":
            frames.append(_text(_object(part, "image_url"), "url", here))
        elif kind == "input_audio":
            sound = decode_base64(_text(_object(part, "input_audio"), "data", here), here)
        else:
            raise RequestError(
                f"{here}.type: must be text, video_url, file, image_url or input_audio, not {shorten(kind, 40)}", here
            )
    if frames or sound:
        videos.append(VideoReference("frames", tuple(frames), sound))
    if place is not None and not any(VIDEO_TOKEN in text for text in texts):
        texts.insert(place, VIDEO_TOKEN)
    return "\n".join(texts), videos


def _read_file(file: Mapping[str, Any], name: str) -> VideoReference:
    if file.get("file_id") is not None:
        return VideoReference("file", _text(file, "file_id", name))
    data = _text(file, "file_data", name)
    return VideoReference("data", content=decode_base64(data.rpartition(",")[2], name))


def decode_base64(text: str, name: str) -> bytes:
    """Decode base64; `RequestError` naming the field if it is not."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"{name}: is not base64", name) from None


def _read_max_tokens(body: Mapping[str, Any]) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is not None:
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise RequestError(f"{name}: must be a whole number, 1 or more, not {shorten(value, 40)}", name)
            return value
    return MAX_TOKENS


def _read_decoding(body: Mapping[str, Any]) -> Decoding:
    temperature, seed = body.get("temperature"), body.get("seed")
    if temperature is not None and (not is_number(temperature) or not 0 <= temperature <= 2):
        raise RequestError(f"temperature: must be from 0 to 2, not {shorten(temperature, 40)}", "temperature")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise RequestError(f"seed: must be a whole number, not {shorten(seed, 40)}", "seed")
    return Decoding(float(temperature), seed or 0) if temperature else GREEDY


def _read_flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value not in (None, True, False):
        raise RequestError(f"{name}: must be true or false, not {shorten(value, 40)}", name)
    return bool(value)


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise RequestError(f"{name}: must be an object, not {shorten(value, 40)}", name)
    return value or {}


def _text(part: Mapping[str, Any], field: str, name: str) -> str:
    value = part.get(field)
    if not isinstance(value, str):
        raise RequestError(f"{name}.{field}: must be a text, not {shorten(value, 40)}", name)
    return value
