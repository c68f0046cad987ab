"""Checks of requests before Gradio handles them, and the headers of responses."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from ..io import is_number, parse_json
from .limits import MAX_QUESTION, Limits
from .uploads import NoRoomError, Uploads

#: Scripts on the page can neither load from nor send to other sites. Gradio makes functions from strings (eval) and
#: uses inline styles.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)

#: Maximum size of a multipart request in addition to the file itself.
_ENVELOPE_BYTES = 64 * 1024
#: Maximum size of any other request: the longest question takes a third of it if every character is escaped.
MAX_POST_BYTES = 64 * 1024
#: The form has four fields.
_MAX_FIELDS = 8

_UPLOAD = "/gradio_api/upload"
#: Routes to which the page's own script posts: calls have fields, the others do not.
_CALLS = ("/gradio_api/queue/join", "/gradio_api/run/predict")
_POSTS = (_UPLOAD, *_CALLS, "/gradio_api/cancel", "/gradio_api/reset")
#: Gradio's routes for editors, monitors and other sites, by the start of the route.
_CLOSED = re.compile(r"proxy=|(undo-)?vibe-|(monitoring|runs|run-history|profiling|stream|dev|deep_link)(/|$)")
#: File names for which Gradio would fetch another site.
_ELSEWHERE = re.compile(r"file[=/]\s*[a-z][a-z0-9+.-]+:/", re.IGNORECASE)

Refusal = tuple[int, str]
Receive = Callable[[], Awaitable[dict]]


class _TooLargeError(Exception):
    """Error: a request body exceeds its maximum size."""


class _NotOneFileError(Exception):
    """Error: an upload is not one file. Other parts are kept in memory, and several files have no common limit."""


class _Envelope:
    """Streaming check of a multipart body: it must have one part, which is a file.

    Args:
        content_type: header of the request; without a boundary in it, Gradio refuses the upload itself.
        most: maximum size of the whole body in bytes.
    """

    def __init__(self, content_type: bytes, most: int) -> None:
        found = re.search(rb'boundary="?([^";,\s]+)', content_type)
        self._mark = b"--" + found[1] if found else None
        self._most, self._size, self._marks = most, 0, 0
        self._head, self._tail = b"", b""

    def check(self, data: bytes) -> None:
        """Check the next chunk.

        Raises:
            _TooLargeError: if the body is too large.
            _NotOneFileError: if the body is not one file.
        """
        self._size += len(data)
        if self._size > self._most:
            raise _TooLargeError
        if self._mark is None:
            return
        begun = b"\r\n\r\n" in self._head
        if not begun:
            self._head = (self._head + data)[:_ENVELOPE_BYTES]
            head, end, _ = self._head.partition(b"\r\n\r\n")
            if end and b"filename" not in head.lower():
                raise _NotOneFileError
        searched = self._tail + data
        self._marks += searched.count(self._mark)
        self._tail = searched[len(searched) - len(self._mark) + 1 :] if len(searched) >= len(self._mark) else searched
        if self._marks > 2:  # one before the file and one after it
            raise _NotOneFileError


class Guard:
    """ASGI middleware that refuses requests the page does not need, and adds headers to responses.

    Args:
        app: the guarded ASGI app.
        limits: limits of uploads.
        uploads: upload folder; None is enough for [`Guard.refusal`].
    """

    def __init__(self, app: Callable[..., Awaitable[None]], limits: Limits, uploads: Uploads | None = None) -> None:
        self.app, self.limits, self.uploads = app, limits, uploads

    async def __call__(self, scope: dict, receive: Receive, send: Callable) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: dict) -> None:
            if message["type"] == "http.response.start":
                headers = {
                    b"content-security-policy": CONTENT_SECURITY_POLICY.encode(),
                    b"x-content-type-options": b"nosniff",
                    b"referrer-policy": b"no-referrer",
                }
                kept = [(name, value) for name, value in message["headers"] if name.lower() not in headers]
                message = {**message, "headers": [*kept, *headers.items()]}
            await send(message)

        path = scope["path"].removeprefix(scope.get("root_path", ""))
        headers, post = dict(scope["headers"]), scope["method"] == "POST"
        refusal = self.refusal(path, headers, scope["method"])
        if refusal is None and post and path.rstrip("/") == _UPLOAD:
            refusal = await self._upload(scope, receive, send_with_headers, headers)
        elif refusal is None and post:
            refusal = await self._post(scope, receive, send_with_headers, path.rstrip("/") in _CALLS)
        elif refusal is None:
            await self.app(scope, receive, send_with_headers)
        if refusal is not None:
            from starlette.responses import PlainTextResponse

            status, sentence = refusal
            await PlainTextResponse(sentence, status)(scope, receive, send_with_headers)

    def refusal(self, path: str, headers: dict[bytes, bytes], method: str = "GET") -> Refusal | None:
        """Return status and message if a request is refused for its address or its declared length, else None.

        Args:
            path: path of the request; not trusted.
            headers: headers by lower-case name.
            method: HTTP method, such as "POST".
        """
        for where in (path, unquote(path)):
            route = where.removeprefix("/gradio_api").lstrip("/")
            if _CLOSED.match(route) or _ELSEWHERE.match(route):
                return 403, "This page only serves its own files."
        if method not in ("GET", "HEAD", "OPTIONS") and (method != "POST" or path.rstrip("/") not in _POSTS):
            return 403, "This page does not take that."
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self.limits.size + _ENVELOPE_BYTES:
            return 413, f"The file is too large. {self.limits.sentence}"
        return None

    async def _upload(self, scope: dict, receive: Receive, send: Callable, headers: dict) -> Refusal | None:
        """Pass an upload to the app if there is room for it; return a refusal otherwise."""
        declared = headers.get(b"content-length", b"")
        envelope = _Envelope(headers.get(b"content-type", b""), self.limits.size + _ENVELOPE_BYTES)

        async def looked_at() -> dict:
            message = await receive()
            envelope.check(message.get("body", b""))
            return message

        assert self.uploads is not None
        try:
            with self.uploads.receive(min(int(declared), self.limits.size) if declared.isdigit() else self.limits.size):
                await self.app(scope, looked_at, send)
        except NoRoomError:
            return 503, "The page stores as many videos as it can. Try again in some minutes, or with a smaller file."
        except _TooLargeError:
            return 413, f"The file is too large. {self.limits.sentence}"
        except _NotOneFileError:
            return 400, "Send one file at a time."
        return None

    async def _post(self, scope: dict, receive: Receive, send: Callable, call: bool) -> Refusal | None:
        """Check a whole request of the form before passing it to the app."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return 400, "The request was broken off."
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if len(body) > MAX_POST_BYTES:
                return 413, f"The request is too large. A question may be {MAX_QUESTION} characters long."
        assert self.uploads is not None
        try:
            if call:
                check_call(body, self.uploads)
        except ValueError as error:
            return 422, f"{error}."
        replayed = False

        async def replay() -> dict:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)
        return None


def check_call(body: bytes, uploads: Uploads) -> None:
    """Check the data that the form sends.

    Args:
        body: JSON, as Gradio's script sends it.
        uploads: named files must be among them.

    Raises:
        ValueError: naming the field, if a field has a wrong type, is too long, or is not an upload.

    Example:
        >>> from longvale.app.sessions import Sessions
        >>> uploads = Uploads("uploads", Limits(), Sessions())
        >>> check_call(b'{"session_hash": "a1", "data": ["Find an event", "A bell.", 0, 10]}', uploads)
        >>> check_call(b'{"session_hash": "a1", "data": [["a list"]]}', uploads)
        Traceback (most recent call last):
        ValueError: field 'data', item 1: must be a text, a number or an upload
    """
    call = parse_json(body)
    if not isinstance(call, dict):
        raise ValueError("the request must be a JSON object")
    session, data = call.get("session_hash"), call.get("data")
    if not (isinstance(session, str) and re.fullmatch(r"[\w-]{1,64}", session)):
        raise ValueError("field 'session_hash': must be 1 to 64 letters and digits")
    if not (isinstance(data, list) and len(data) <= _MAX_FIELDS):
        raise ValueError(f"field 'data': must be a list of at most {_MAX_FIELDS} values")
    for number, value in enumerate(data, start=1):
        if error := _wrong(value, uploads):
            raise ValueError(f"field 'data', item {number}: {error}")


def _wrong(value: Any, uploads: Uploads) -> str | None:
    """Return the problem with the value of a field, or None."""
    if isinstance(value, str):
        return f"is {len(value)} characters long, the limit is {MAX_QUESTION}" if len(value) > MAX_QUESTION else None
    if isinstance(value, dict):
        # Gradio reads, or even fetches, files that are named anywhere within a value.
        flat = all(name == "meta" or not isinstance(part, dict | list) for name, part in value.items())
        file = flat and value.get("meta") == {"_type": "gradio.FileData"} and uploads.holds(value.get("path"))
        return None if file else "is not an upload of this page; choose the video again"
    return None if value is None or is_number(value) else "must be a text, a number or an upload"
