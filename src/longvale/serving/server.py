"""Start and end of the server."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias, Unpack, get_args

from ..checkpoints.loading import Weights, weights_digest
from ..evaluation.adapters.time_formats import require_timecodes
from ..evaluation.generation.model import ModelLike, load_model
from ..events import Seconds
from .api import build_api
from .local_engine import LocalEngine
from .scheduler import Engine, Scheduler
from .videos import ServingLimits, Videos
from .vllm_engine import VLLMEngine, VLLMServer, load_towers

EngineName: TypeAlias = Literal["longvale", "vllm"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)

#: Port of vLLM and SGLang, which clients expect.
PORT = 8000
#: Environment variable with the token that clients must send.
TOKEN_VARIABLE = "LONGVALE_SERVE_TOKEN"
#: Seconds for the server to accept connections, and for open answers when it ends.
_START_S, _END_S = 30.0, 2


@contextmanager
def serve(
    model: ModelLike,
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: int = PORT,
    token: str | None = None,
    limits: ServingLimits | None = None,
    media_hosts: Collection[str] = (),
    media_folders: Collection[str | os.PathLike] = (),
    rows: int = 32,
    row_tokens: int = 32_768,
    kept_videos: int = 16,
    engine: EngineName = "longvale",
    engine_url: str | None = None,
    device: str | None = None,
    **weights: Unpack[Weights],
) -> Iterator[str]:
    """Serve a LongVALE checkpoint by the OpenAI API while the block runs.

    Args:
        model: folder, Hub ID, or (model, processor) pair.
        name: name of the model for clients; default: `model` as given.
        host: address to listen on; "0.0.0.0" accepts connections from other machines.
        port: port to listen on; 0 takes a free one.
        token: token that clients must send; default: the environment variable LONGVALE_SERVE_TOKEN, if set.
        limits: limits of requests.
        media_hosts, media_folders: hosts and folders whose videos requests may name, see [`Videos`].
        rows: maximum number of answers that are written together.
        row_tokens: maximum number of their tokens in memory, prompts included.
        kept_videos: number of videos whose features and prefixes are kept.
        engine: "longvale" writes the answers in this process; with "vllm" the language model runs in a vLLM server, to
            which this process sends the embeddings of prompts.
        engine_url: of that server; None starts `vllm serve`.
        device: device such as "cpu"; by default an accelerator if available.
        weights: see [`longvale.checkpoints.loading.Weights`].

    Yields:
        The URL of the API, such as "http://127.0.0.1:8000/v1".

    Raises:
        FileNotFoundError: if the model or a folder is missing.
        ValueError: if an option or the model is invalid.
        OSError: if the port is in use.

    Example:
        >>> with serve("demo/model") as url:  # doctest: +SKIP
        ...     print(url)
        http://127.0.0.1:8000/v1
    """
    import uvicorn

    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}; expected one of {', '.join(ENGINES)}")
    if engine_url is not None and engine != "vllm":
        raise ValueError(f"--engine-url {engine_url} is for --engine vllm")
    limits = limits or ServingLimits()
    token = token or os.environ.get(TOKEN_VARIABLE) or None
    name = name or _name(model)
    with ExitStack() as stack:
        if engine == "vllm":
            if engine_url is None:
                engine_url = stack.enter_context(closing(VLLMServer(str(model), dtype=weights.get("dtype")))).url
            pair = load_towers(model, device, **weights)
            writer: Engine = VLLMEngine(*pair, engine_url)
        else:
            pair = load_model(model, device, **weights)
            writer = LocalEngine(*pair, rows=rows, row_tokens=row_tokens)
        require_timecodes(pair[0].config, "longvale serve")
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="longvale-serve-"))
        media = {"hosts": media_hosts, "folders": media_folders}
        videos = Videos(Path(folder), limits, pair[1].media_kwargs(), **media)
        scheduler = Scheduler(*pair, writer, kept_videos=kept_videos, identity=_identity(model, pair[0]))
        stack.callback(scheduler.close)
        api = build_api(scheduler, videos, limits, name=name, token=token)
        options = {"log_level": "warning", "access_log": False, "timeout_graceful_shutdown": _END_S}
        server = _Server(uvicorn.Config(api, host=host, port=port, lifespan="off", **options))
        yield f"http://{host}:{stack.enter_context(server.running())}/v1"


class _Server:
    """A uvicorn server in a thread; signals are left to the command line."""

    def __init__(self, config: Any) -> None:
        import uvicorn

        self._server, self._config = uvicorn.Server(config), config

    @contextmanager
    def running(self) -> Iterator[int]:
        """Serve while the block runs, and yield the port; raise `OSError` if it is in use."""
        socket = _listen(self._config.host, self._config.port)
        thread = threading.Thread(target=self._server.run, args=([socket],), name="longvale-serve", daemon=True)
        thread.start()
        try:
            _wait(lambda: self._server.started, _START_S)
            yield socket.getsockname()[1]
        finally:
            self._server.should_exit = True
            thread.join()
            socket.close()


def _listen(host: str, port: int) -> Any:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(f"{host}:{port}: {(error.strerror or str(error)).lower()}; give another --port") from None
    return listener


def _wait(condition: Any, seconds: Seconds) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise OSError(f"the server did not start within {seconds:g} s")
        time.sleep(0.01)


def _identity(model: ModelLike, loaded: Any) -> dict[str, Any]:
    """Return what identifies the weights, for `/v1/models`: clients that resume compare it."""
    return {"root": _name(model), "fingerprint": weights_digest(loaded)}


def _name(model: ModelLike) -> str:
    path = getattr(model[0], "name_or_path", "") if isinstance(model, tuple) else model
    return str(path) or "longvale"
