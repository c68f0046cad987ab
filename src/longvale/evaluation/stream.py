"""An answer word by word, as it is generated, and able to be stopped."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

from .model import Features, prepare_question


def stream_answer(
    model: Any,
    processor: Any,
    question: str,
    features: Features,
    max_new_tokens: int,
    stop: threading.Event | None = None,
) -> Iterator[str]:
    """Answer one question greedily; the last text is what [`longvale.evaluation.model.answer_batch`] gives.

    Args:
        question: text that holds `<video>`.
        features: of the video.
        max_new_tokens: of the answer.
        stop: when set, the answer ends with the token that is being made.

    Yields:
        The answer so far, longer each time. Leaving the iterator ends the generation, too.

    Raises:
        Exception: what the generation raised.
    """
    import torch
    from transformers import StoppingCriteriaList

    ended = threading.Event()
    inputs = prepare_question(model, processor, [question], [features])
    tokens = _Tokens()
    failures: list[Exception] = []

    def stopped(input_ids: Any, scores: Any, **_: Any) -> Any:
        wanted = ended.is_set() or (stop is not None and stop.is_set())
        return torch.full((len(input_ids),), wanted, device=input_ids.device)

    def generate() -> None:
        try:
            model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                streamer=tokens,
                stopping_criteria=StoppingCriteriaList([stopped]),
            )
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
            answer = processor.batch_decode([ids], skip_special_tokens=True)[0].strip()
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
