"""An answer word by word, as it is generated, and able to be stopped."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .model import Features, decode_answers, prepare_question


class Stopped(Exception):
    """Somebody asked for an end."""


@contextmanager
def stoppable(model: Any, wanted: Callable[[], bool]) -> Iterator[None]:
    """Let what this thread computes with a model end between two of its layers.

    One forward pass of a long prompt takes minutes on a slow machine, and generation looks at its stopping criteria
    only afterwards. The numbers stay what they are.

    Args:
        model: any module with its layers in a `ModuleList`, towers included.
        wanted: is asked before each layer; True ends the work.

    Raises:
        Stopped: inside of the block, before the next layer.

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
    """Answer one question greedily; the last text is what [`longvale.evaluation.generation.model.answer_batch`] gives.

    Args:
        question: text that holds `<video>`.
        features: of the video.
        max_new_tokens: of the answer.
        stop: when set, the answer ends with the token that is being made, or with a layer while the prompt is read.

    Yields:
        The answer so far, longer each time, without reasoning. Leaving the iterator ends the generation, too.

    Raises:
        Exception: what the generation raised.
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
        except Exception as error:  # noqa: BLE001  handed to the thread that waits
            failures.append(error)
        finally:
            tokens.end()

    thread = threading.Thread(target=generate, name="generate", daemon=True)
    thread.start()
    text = ""
    try:
        for ids in tokens:
            # All of it anew: the text of a token may depend on those around it.
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
    """A streamer of transformers: the ids of the answer so far, each time there are more."""

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
