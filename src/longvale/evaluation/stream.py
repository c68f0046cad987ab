"""An answer word by word, as it is generated, and able to be stopped."""

from __future__ import annotations

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
    from transformers import StoppingCriteriaList, TextIteratorStreamer

    stop = stop or threading.Event()
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    inputs = prepare_question(model, processor, [question], [features])
    failures: list[Exception] = []

    def generate() -> None:
        import torch

        def stopped(input_ids: Any, scores: Any, **_: Any) -> Any:
            return torch.full((len(input_ids),), stop.is_set(), device=input_ids.device)

        try:
            model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([stopped]),
            )
        except Exception as error:  # noqa: BLE001  handed to the thread that waits
            failures.append(error)
            streamer.end()

    thread = threading.Thread(target=generate, name="generate", daemon=True)
    thread.start()
    text = ""
    try:
        for piece in streamer:
            text += piece
            if piece:
                yield text.strip()
        thread.join()
        if failures:
            raise failures[0]
    finally:
        stop.set()
        thread.join()
