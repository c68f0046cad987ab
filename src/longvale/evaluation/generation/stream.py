"""Streaming of an answer during generation, with the option to stop it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .model import Features, decode_answers, prepare_question


class Stopped(Exception):
    """Raised when generation was asked to stop."""


@contextmanager
def stoppable(model: Any, wanted: Callable[[], bool]) -> Iterator[None]:
    """Make this thread's forward passes of a model stoppable between layers.

    One forward pass of a long prompt takes minutes on a slow machine, and generation checks its stopping criteria only
    afterwards. The numbers do not change.

    Args:
        model: any module with its layers in a `ModuleList`, towers included.
        wanted: called before each layer; True stops the work.

    Raises:
        Stopped: inside the block, before the next layer.

    Example:
        >>> import torch
        >>> model = torch.nn.Module()
        >>> model.layers = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
        >>> with stoppable(model, lambda: True):
        ...     model.layers[0](torch.zeros(1, 2))
        Traceback (most recent call last):
        longvale.evaluation.generation.stream.Stopped
    """
    from torch.nn import ModuleList

    thread = threading.get_ident()

    def look(*_: Any) -> None:
        if threading.get_ident() == thread and wanted():
            raise Stopped

    layers = {layer for group in model.modules() if isinstance(group, ModuleList) for layer in group}
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def stream_answer(
    model: Any,
    processor: Any,
    question: str,
    features: Features,
    max_new_tokens: int,
    stop: threading.Event | None = None,
) -> Iterator[str]:
    """Answer one question greedily, as a stream; the last text equals the answer of
    [`longvale.evaluation.generation.model.answer_batch`].

    Args:
        question: text that contains `<video>`.
        features: features of the video.
        max_new_tokens: maximum number of tokens of the answer.
        stop: when set, generation stops before the next layer.

    Yields:
        The answer so far, longer each time, without reasoning. Closing the iterator also stops the generation.

    Raises:
        Exception: any exception of the generation.
    """
    import torch
    from transformers import StoppingCriteriaList

    ended = threading.Event()
    inputs = prepare_question(model, processor, [question], [features])
    tokens = _Tokens()
    failures: list[Exception] = []

    def wanted() -> bool:
        return ended.is_set() or (stop is not None and stop.is_set())

    def stopped(input_ids: Any, scores: Any, **_: Any) -> Any:
        return torch.full((len(input_ids),), wanted(), device=input_ids.device)

    def generate() -> None:
        try:
            with stoppable(model, wanted):
                model.generate(
                    **inputs,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    streamer=tokens,
                    stopping_criteria=StoppingCriteriaList([stopped]),
                )
        except Stopped:
            pass
        except Exception as error:  # noqa: BLE001  raised again in the waiting thread
            failures.append(error)
        finally:
            tokens.end()

    thread = threading.Thread(target=generate, name="generate", daemon=True)
    thread.start()
    text = ""
    try:
        for ids in tokens:
            # Decode all tokens again: the text of a token may depend on its neighbors.
            answer = decode_answers(processor, [ids])[0]
            if answer != text:
                text = answer
                yield text
        thread.join()
        if failures:
            raise failures[0]
    finally:
        ended.set()
        thread.join()


class _Tokens:
    """A transformers streamer that yields the IDs of the answer so far, whenever there are new ones."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[list[int] | None] = queue.SimpleQueue()
        self._prompt = True

    def put(self, value: Any) -> None:
        if not self._prompt:
            self._queue.put(value.flatten().tolist())
        self._prompt = False

    def end(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[list[int]]:
        ids: list[int] = []
        while (new := self._queue.get()) is not None:
            ids += new
            yield ids
