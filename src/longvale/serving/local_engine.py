"""The engine that writes answers with the model in this process, all of them together."""

from __future__ import annotations

from collections import deque
from typing import Any

from ..evaluation.generation.model import decode_answers
from ..evaluation.generation.stepping import Stepper, Writing, steps_alone
from ..evaluation.generation.video_qa import BATCH_TOKENS, Prompt, VideoQA
from .chat_requests import RequestError
from .scheduler import Job, Update


class LocalEngine:
    """Writes answers a token at a time; questions join and leave at any step.

    Language models that [`steps_alone`] excludes answer one question after the other.

    Args:
        model, processor: the loaded model and its processor.
        rows: maximum number of answers at a time.
        row_tokens: maximum number of tokens in memory, prompts included.
    """

    def __init__(self, model: Any, processor: Any, *, rows: int = 32, row_tokens: int = BATCH_TOKENS) -> None:
        self._model, self._processor, self._sizes = model, processor, (rows, row_tokens)
        self._stepper = Stepper(model, rows, row_tokens) if steps_alone(model) else None
        self._jobs: dict[Writing, Job] = {}
        self._queue: deque[tuple[Job, VideoQA, Prompt]] = deque()

    def add(self, job: Job, video: VideoQA) -> None:
        """Begin an answer, see [`longvale.serving.scheduler.Engine`]."""
        prompt = checked_prompt(job, video)
        if self._stepper is None:
            self._queue.append((job, video, prompt))
            return
        writing = video.begin(prompt, job.ask.max_new_tokens, job.decoding, job.ask.name)
        self._jobs[writing] = job
        self._stepper.add(writing)

    def step(self) -> bool:
        """Write the next token of every answer."""
        if self._stepper is None:
            return self._answer_next()
        if self._stepper.busy:
            for writing in self._stepper.step():
                self._report(writing)
        return self._stepper.busy

    def _report(self, writing: Writing) -> None:
        job = self._jobs[writing]
        if not writing.finished and not job.stream:
            return
        (text,) = decode_answers(self._processor, [writing.tokens])
        finish = None
        if writing.finished:
            del self._jobs[writing]
            finish = "stop" if writing.ended else "length"
        prompt = sum(writing.prefix_mask) + len(writing.suffix)
        job.report(Update(text, len(writing.tokens), prompt, finish))

    def _answer_next(self) -> bool:
        """Answer a question as a whole."""
        if self._queue:
            job, video, prompt = self._queue.popleft()
            _, (text,) = next(video.answer([job.ask], job.ask.max_new_tokens, decoding=job.decoding))
            tokens = len(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])
            finish = "length" if tokens >= job.ask.max_new_tokens else "stop"
            job.report(Update(text, tokens, len(prompt), finish))
        return bool(self._queue)

    def remove(self, job: Job) -> None:
        """Give up an answer, if it was begun."""
        self._queue = deque(entry for entry in self._queue if entry[0] is not job)
        for writing in [writing for writing, known in self._jobs.items() if known is job]:
            self._stepper.remove(writing)
            del self._jobs[writing]

    def drop(self) -> list[Job]:
        """Give up all answers, and return their questions."""
        jobs = [*self._jobs.values(), *(job for job, _, _ in self._queue)]
        self._jobs.clear()
        self._queue.clear()
        if self._stepper is not None:
            self._stepper = Stepper(self._model, *self._sizes)
        return jobs


def checked_prompt(job: Job, video: VideoQA) -> Prompt:
    """Return the prompt of a question.

    Raises:
        RequestError: if prompt and answer are longer than the language model's context.
        ValueError: if the question does not contain `<video>`.
    """
    (prompt,) = video.split([job.ask])
    context = getattr(video.model.config.get_text_config(), "max_position_embeddings", None)
    needed = len(prompt) + job.ask.max_new_tokens
    if context is not None and needed > context:
        raise RequestError(
            f"max_tokens: prompt and answer would have {needed} tokens, the model reads {context}; lower max_tokens",
            "max_tokens",
        )
    return prompt
