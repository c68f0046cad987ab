"""The engine that lets a vLLM server write the answers: it gets the embeddings of prompts, with the video merged in.

The towers, the projectors and the word embeddings stay in this process. vLLM's completions accept embeddings in place
of tokens if it was started with `--enable-prompt-embeds`: a tensor [tokens, hidden] as written by `torch.save`, in
base64 (docs.vllm.ai, "Prompt Embedding Inputs").
"""

from __future__ import annotations

import base64
import io
import shutil
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from ..chat_client import ChatClient, ServerError
from ..checkpoints.loading import Weights, load_checkpoint
from ..events import Seconds
from ..reading.reasoning import strip_reasoning
from .chat_requests import RequestError
from .local_engine import checked_prompt
from .scheduler import Job, Update

if TYPE_CHECKING:
    import torch

    from ..evaluation.generation.model import ModelLike
    from ..evaluation.generation.video_qa import VideoQA

#: Name of the language model on the vLLM server that this process starts.
SERVED_NAME = "longvale"
#: Requests in flight; vLLM batches them.
_IN_FLIGHT = 64
#: Seconds for vLLM to load a model and to compile its kernels, and between two looks.
_START_S, _LOOK_S = 1800.0, 1.0


def load_towers(model: ModelLike, device: str | None = None, **weights: Unpack[Weights]) -> tuple[Any, Any]:
    """Load a checkpoint without the layers of its language model, and its processor; arguments as of `load_model`."""
    from ..models.modeling_longvale import LongVALEModel

    if isinstance(model, tuple):
        return model
    return load_checkpoint(model, LongVALEModel, device=device, only_towers=True, **weights)


class VLLMEngine:
    """Writes answers by a vLLM server.

    Args:
        model, processor: towers and projectors, and the processor.
        url: of the server, such as "http://127.0.0.1:8001/v1".
        name: name of the language model on the server.
        timeout_s: timeout per answer in seconds.
    """

    def __init__(
        self, model: Any, processor: Any, url: str, *, name: str = SERVED_NAME, timeout_s: Seconds = 600.0
    ) -> None:
        self._client = ChatClient(name, url, timeout_s=timeout_s)
        self._pool = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="longvale-vllm")
        vocabulary = model.config.get_text_config().vocab_size
        placeholder = model.config.video_token_id
        self._bias = {str(placeholder): -100} if placeholder < vocabulary else {}

    def add(self, job: Job, video: VideoQA) -> None:
        """Begin an answer, see [`longvale.serving.scheduler.Engine`]."""
        prompt = checked_prompt(job, video)
        fields: dict[str, Any] = {
            "prompt_embeds": encode_embeddings(video.embed(prompt)),
            "max_tokens": job.ask.max_new_tokens,
            "temperature": job.decoding.temperature,
        }
        if job.decoding.temperature:
            fields["seed"] = job.decoding.seed
        if self._bias:
            fields["logit_bias"] = self._bias
        self._pool.submit(self._ask, job, fields, len(prompt))

    def _ask(self, job: Job, fields: dict[str, Any], prompt_tokens: int) -> None:
        if job.cancelled:
            return
        try:
            written = self._client.complete(**fields)
        except ServerError as error:
            job.report(Update(error=RequestError(f"vLLM: {error}", status=502)))
            return
        job.report(Update(strip_reasoning(written.text).strip(), written.tokens, prompt_tokens, written.finish))

    def step(self) -> bool:
        """Do nothing: the server writes."""
        return False

    def remove(self, job: Job) -> None:
        """Do nothing: a request that was sent is not taken back."""

    def drop(self) -> list[Job]:
        """Return no questions: this engine fails for each alone."""
        return []


def encode_embeddings(embeddings: torch.Tensor) -> str:
    """Return embeddings [tokens, hidden] as vLLM reads them.

    Example:
        >>> import torch
        >>> content = base64.b64decode(encode_embeddings(torch.ones(2, 3)))
        >>> torch.load(io.BytesIO(content), weights_only=True).tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    import torch

    buffer = io.BytesIO()
    torch.save(embeddings.detach().cpu().contiguous().clone(), buffer)
    return base64.b64encode(buffer.getvalue()).decode()


class VLLMServer:
    """A vLLM server that this process starts for the language model of a checkpoint, and ends.

    Args:
        model: folder or Hub ID of the LongVALE checkpoint.
        folder: folder of its language model, which is written if it does not exist; None writes a temporary one.
        dtype: precision of the weights; None for the checkpoint's.

    Raises:
        ValueError: if vLLM is not installed, or ends before it serves.
    """

    def __init__(self, model: str, folder: Path | None = None, dtype: str | None = None) -> None:
        if shutil.which("vllm") is None:
            raise ValueError(
                "vLLM is not installed here: install it, or start `vllm serve` with --enable-prompt-embeds in an "
                "environment of its own and give its --engine-url"
            )
        self._temporary = tempfile.TemporaryDirectory(prefix="longvale-vllm-") if folder is None else None
        folder = folder or Path(self._temporary.name, "model")
        if not folder.exists():
            write_language_model(model, folder, dtype)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        command = ["vllm", "serve", str(folder), "--enable-prompt-embeds", "--served-model-name", SERVED_NAME]
        self._process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)])
        self._wait(port)

    def _wait(self, port: int) -> None:
        ends = time.monotonic() + _START_S
        while time.monotonic() < ends:
            if self._process.poll() is not None:
                raise ValueError(f"vllm ended with exit code {self._process.returncode}; its messages are above")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(_LOOK_S)
        self.close()
        raise ValueError(f"vLLM did not serve within {_START_S:g} s")

    def close(self) -> None:
        """End the server, and delete its temporary folder."""
        self._process.terminate()
        self._process.wait()
        if self._temporary is not None:
            self._temporary.cleanup()


def write_language_model(model: str, folder: Path, dtype: str | None = None) -> None:
    """Write the language model of a checkpoint, see [`longvale.checkpoints.language_model.save_language_model`]."""
    from ..checkpoints.language_model import save_language_model
    from ..models.modeling_longvale import LongVALEForConditionalGeneration

    save_language_model(
        *load_checkpoint(model, LongVALEForConditionalGeneration, device="cpu", dtype=dtype), folder=folder
    )
