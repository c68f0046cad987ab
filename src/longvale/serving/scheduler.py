"""The thread that owns the model: it encodes videos, keeps them, and lets answers to all requests be written together.

Requests come from many threads or an event loop. Videos are decoded in threads; everything that uses the model happens
in one thread, a step at a time, so that answers that arrive meanwhile join the next step.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..evaluation.generation.sampling import GREEDY, Decoding
from ..evaluation.generation.video_qa import VideoQA, VideoQuestion
from .chat_requests import RequestError
from .videos import FoundVideo

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Update:
    """State of an answer.

    Args:
        text: of the answer so far.
        tokens: number of its tokens so far.
        prompt_tokens: number of tokens of the prompt, the video included.
        finish: "stop" if the model ended the answer, "length" if it reached the maximum; None if it is not complete.
        error: instead of an answer.
    """

    text: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    finish: str | None = None
    error: RequestError | None = None


@dataclass(eq=False)
class Job:
    """A question that waits for its answer.

    Args:
        ask: the question, with the maximum number of tokens.
        video: the video that it is about.
        report: called in the scheduler's thread with the answer, and before with each part of it if `stream` is true.
        decoding: greedy, or sampled.
        stream: report each token.
    """

    ask: VideoQuestion
    video: FoundVideo
    report: Callable[[Update], None]
    decoding: Decoding = GREEDY
    stream: bool = False
    cancelled: bool = False


class Engine(Protocol):
    """What writes the answers; all methods are called in one thread."""

    def add(self, job: Job, video: VideoQA) -> None:
        """Begin an answer about a video.

        Raises:
            RequestError, ValueError: if the question cannot be asked.
        """
        ...

    def step(self) -> bool:
        """Write a part of the answers; return whether there is more to do."""
        ...

    def remove(self, job: Job) -> None:
        """Give up an answer, if it was begun."""
        ...

    def drop(self) -> list[Job]:
        """Give up all answers, and return their questions."""
        ...


@dataclass
class _Video:
    """A kept video, or one that is being decoded, and the questions that wait for it."""

    qa: VideoQA | None = None
    waiting: list[Job] = field(default_factory=list)


class Scheduler:
    """Answers questions of many requests together.

    Args:
        model, processor: the loaded model and its processor.
        engine: what writes the answers.
        kept_videos: number of videos whose features and prefixes are kept; the least recently used is dropped.
        readers: number of threads that decode videos.
        identity: what identifies the model's weights, for clients.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        engine: Engine,
        *,
        kept_videos: int = 16,
        readers: int = 2,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.identity = dict(identity or {})
        self._model, self._processor, self._engine, self._kept = model, processor, engine, kept_videos
        self._videos: OrderedDict[str, _Video] = OrderedDict()
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="longvale-reader")
        self._thread = threading.Thread(target=self._run, name="longvale-model", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Let a question be answered; its `report` is called in another thread."""
        self._inbox.put(lambda: self._begin(job))

    def cancel(self, job: Job) -> None:
        """Give up an answer that nobody waits for."""
        job.cancelled = True
        self._inbox.put(lambda: self._engine.remove(job))

    def close(self) -> None:
        """Stop the thread; answers that are not complete are given up."""
        self._inbox.put(None)
        self._thread.join()
        self._readers.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        busy = False
        while True:
            while not busy or not self._inbox.empty():
                work = self._inbox.get()
                if work is None:
                    return
                work()
                busy = True
            try:
                busy = self._engine.step()
            except RuntimeError as error:  # such as a lack of memory: these requests fail, later ones are answered
                logger.exception("answers failed")
                for job in self._engine.drop():
                    job.report(Update(error=_failed(error)))
                busy = False

    def _begin(self, job: Job) -> None:
        """Answer a question about a kept video; a new video is decoded first."""
        if job.cancelled:
            return
        video = self._videos.setdefault(job.video.identity, _Video())
        self._videos.move_to_end(job.video.identity)
        if video.qa is not None:
            self._start(job, video.qa)
            return
        video.waiting.append(job)
        if len(video.waiting) == 1:
            self._readers.submit(self._decode, job.video)
        for identity in [name for name, kept in self._videos.items() if kept.qa is not None][: -self._kept or None]:
            del self._videos[identity]

    def _decode(self, found: FoundVideo) -> None:
        """Decode and preprocess a video in a thread, and let it be encoded."""
        from ..extraction.preprocess import preprocess

        try:
            inputs = preprocess(self._processor, found.read())
        except RequestError as error:
            failure = error
        except (ValueError, OSError) as error:
            failure = RequestError(f"the video cannot be read: {error}")
        else:
            self._inbox.put(lambda: self._encode(found.identity, inputs))
            return
        self._inbox.put(lambda: self._fail(found.identity, failure))

    def _encode(self, identity: str, inputs: dict[str, Any]) -> None:
        from ..extraction.encode import encode_video

        video = self._videos[identity]
        jobs, video.waiting = [job for job in video.waiting if not job.cancelled], []
        try:
            video.qa = VideoQA(self._model, self._processor, [encode_video(self._model, self._processor, inputs)])
        except (ValueError, RuntimeError) as error:
            video.waiting = jobs
            known = isinstance(error, ValueError)
            self._fail(identity, RequestError(f"the video cannot be used: {error}") if known else _failed(error))
            return
        for job in jobs:
            self._start(job, video.qa)

    def _start(self, job: Job, qa: VideoQA) -> None:
        try:
            self._engine.add(job, qa)
        except RequestError as error:
            job.report(Update(error=error))
        except ValueError as error:
            job.report(Update(error=RequestError(f"messages: {error}", "messages")))
        except RuntimeError as error:
            job.report(Update(error=_failed(error)))

    def _fail(self, identity: str, error: RequestError) -> None:
        for job in self._videos.pop(identity).waiting:
            job.report(Update(error=error))


def _failed(error: RuntimeError) -> RequestError:
    return RequestError(f"the model failed: {str(error).splitlines()[0][:200]}", status=500)
