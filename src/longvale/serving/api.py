"""Routes of the OpenAI API: models, files, chat completions."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from ..evaluation.generation.video_qa import VideoQuestion
from ..io import parse_json
from .chat_requests import ChatRequest, RequestError, read_chat
from .scheduler import Job, Scheduler, Update
from .videos import FoundVideo, ServingLimits, Videos

#: Size of a request in addition to the video that it may contain in base64.
_ENVELOPE_BYTES = 2**20
#: Interval in seconds at which is checked whether a client has left.
_LOOK_S = 1.0


def build_api(
    scheduler: Scheduler, videos: Videos, limits: ServingLimits, *, name: str, token: str | None = None
) -> FastAPI:
    """Return the application.

    Args:
        scheduler: answers the questions.
        videos: videos that requests may name.
        limits: limits of requests.
        name: name of the model, as clients write it.
        token: token that clients must send; None for none.
    """
    api = FastAPI(title="longvale", docs_url=None, redoc_url=None, openapi_url=None)
    created, numbers = int(time.time()), itertools.count()
    waiting: set[object] = set()

    api.add_middleware(_Gate, token=token, size=limits.size)

    @api.exception_handler(RequestError)
    async def refuse(_: Request, error: RequestError) -> Response:
        return _refused(error)

    @api.exception_handler(HTTPException)
    async def refuse_route(_: Request, error: HTTPException) -> Response:
        return _refused(RequestError(str(error.detail).lower(), status=error.status_code))

    @api.exception_handler(ClientDisconnect)
    async def forget(_: Request, error: ClientDisconnect) -> Response:
        return _refused(RequestError("the client has left", status=499))

    @api.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "waiting": len(waiting)}

    @api.get("/v1/models")
    async def models() -> dict[str, Any]:
        entry = {"id": name, "object": "model", "created": created, "owned_by": "longvale", **scheduler.identity}
        return {"object": "list", "data": [entry]}

    @api.post("/v1/files")
    async def upload(request: Request) -> dict[str, Any]:
        try:
            form = await request.form(max_files=1, max_fields=8)
        except MultiPartException as error:
            raise RequestError(f"the form cannot be read: {error.message}") from None
        file = form.get("file")
        if file is None or isinstance(file, str):
            raise RequestError("file: must be a file of a multipart form", "file")
        return (await run_in_threadpool(videos.add, file.file, file.filename or "video")).body()

    @api.get("/v1/files")
    async def files() -> dict[str, Any]:
        return {"object": "list", "data": [upload.body() for upload in videos.uploads()], "has_more": False}

    @api.get("/v1/files/{file_id}")
    async def file(file_id: str) -> dict[str, Any]:
        return videos.upload(file_id).body()

    @api.delete("/v1/files/{file_id}")
    async def delete(file_id: str) -> dict[str, Any]:
        videos.delete(file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    @api.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        if len(waiting) >= limits.waiting:
            raise RequestError(f"{limits.waiting} requests are waiting, as many as allowed", None, 429, 1)
        ticket = object()
        waiting.add(ticket)
        streamed = False
        try:
            asked, model = _read_body(await request.body())
            if model not in (None, name):
                raise RequestError(f"model: {model!r} is not served here; it is {name!r}", "model", 404)
            answer = _Answer(scheduler, request, asked, await _find(videos, asked), next(numbers))
            head = {"id": f"chatcmpl-{secrets.token_hex(8)}", "created": int(time.time()), "model": name}
            update = await answer.next()
            if not asked.stream:
                return JSONResponse(_completion(head, update))
            streamed = True
            lines = _stream(update, answer, head, asked.usage, lambda: waiting.discard(ticket))
            return StreamingResponse(lines, media_type="text/event-stream")
        finally:
            if not streamed:
                waiting.discard(ticket)

    return api


class _Gate:
    """Refuses requests without the token, and those that are too large, before they are read.

    Args:
        app: what answers the other requests.
        token: as for [`build_api`].
        size: maximum size of a video in bytes.
    """

    def __init__(self, app: ASGIApp, token: str | None, size: int) -> None:
        self._app, self._token, self._size = app, token, size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        refusal = self._refusal(Request(scope)) if scope["type"] == "http" else None
        await (self._app if refusal is None else _refused(refusal))(scope, receive, send)

    def _refusal(self, request: Request) -> RequestError | None:
        if request.url.path == "/health":
            return None
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._token is not None and not hmac.compare_digest(given.encode(), self._token.encode()):
            return RequestError("the token is missing or wrong", status=401)
        size = request.headers.get("content-length", "0")
        if not size.isdecimal() or int(size) > self._size * 4 // 3 + _ENVELOPE_BYTES:
            return RequestError(f"the request is larger than {self._size / 2**20:g} MB", status=413)
        return None


class _Answer:
    """An answer that a client waits for; it is given up when the client leaves."""

    def __init__(
        self, scheduler: Scheduler, request: Request, asked: ChatRequest, video: FoundVideo, number: int
    ) -> None:
        self._scheduler, self._request = scheduler, request
        self._updates: asyncio.Queue[Update] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        # Random numbers depend on the question if a seed was given, else on the request.
        name = json.dumps(asked.messages) if asked.decoding.seed else f"{secrets.token_hex(8)}/{number}"
        self._job = Job(
            VideoQuestion(0, asked.messages, name, asked.max_tokens),
            video,
            lambda update: loop.call_soon_threadsafe(self._updates.put_nowait, update),
            asked.decoding,
            asked.stream,
        )
        scheduler.submit(self._job)

    async def next(self) -> Update:
        """Wait for the next update.

        Raises:
            RequestError: if there is no answer.
        """
        update = None
        try:
            while update is None:
                try:
                    update = await asyncio.wait_for(self._updates.get(), timeout=_LOOK_S)
                except TimeoutError:
                    if await self._request.is_disconnected():
                        raise RequestError("the client has left", status=499) from None
        finally:
            if update is None:
                self.leave()
        if update.error is not None:
            raise update.error
        return update

    def leave(self) -> None:
        """Give up the answer."""
        self._scheduler.cancel(self._job)


def _read_body(content: bytes) -> tuple[ChatRequest, Any]:
    try:
        body = parse_json(content)
    except ValueError as error:
        raise RequestError(f"the request is not JSON: {error}") from None
    return read_chat(body), body.get("model")


async def _find(videos: Videos, asked: ChatRequest) -> FoundVideo:
    """Find the video, in a thread if that takes long."""
    if asked.video.kind == "file":
        return videos.find(asked.video)
    return await run_in_threadpool(videos.find, asked.video)


async def _stream(
    update: Update, answer: _Answer, head: dict[str, Any], usage: bool, end: Callable[[], None]
) -> AsyncIterator[str]:
    """Yield the answer as server-sent events."""
    head = {**head, "object": "chat.completion.chunk"}
    sent = ""
    try:
        yield _event({**head, "choices": [_delta({"role": "assistant", "content": ""})]})
        while True:
            # A character may need several tokens, and spaces at the end are not part of an answer.
            text = update.text if update.finish else update.text.rstrip("\ufffd \n")
            if text.startswith(sent) and len(text) > len(sent):
                yield _event({**head, "choices": [_delta({"content": text[len(sent) :]})]})
                sent = text
            if update.finish is not None:
                break
            try:
                update = await answer.next()
            except RequestError as error:
                yield _event(error.body())
                return
        yield _event({**head, "choices": [_delta({}, update.finish)]})
        if usage:
            yield _event({**head, "choices": [], "usage": _usage(update)})
        yield "data: [DONE]\n\n"
    finally:
        end()
        if update.finish is None:
            answer.leave()


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _delta(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish}


def _completion(head: dict[str, Any], update: Update) -> dict[str, Any]:
    message = {"role": "assistant", "content": update.text}
    choice = {"index": 0, "message": message, "finish_reason": update.finish, "logprobs": None}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(update)}


def _usage(update: Update) -> dict[str, int]:
    return {
        "prompt_tokens": update.prompt_tokens,
        "completion_tokens": update.tokens,
        "total_tokens": update.prompt_tokens + update.tokens,
    }


def _refused(error: RequestError) -> Response:
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return JSONResponse(error.body(), status_code=error.status, headers=headers)
