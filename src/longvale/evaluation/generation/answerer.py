"""The answerer protocol and the answerer for LongVALE's own model; third-party models are in `adapters`."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from ...chat_replies import ONLY_REASONING
from ...checkpoints.loading import weights_digest
from ...events import Annotation
from ...reading.reasoning import strip_reasoning
from ...tasks import AnyTask, Prediction, Question
from ..adapters.prompts import parse_reply, reword_question
from ..adapters.time_formats import own_format
from .blocks import read_ahead, video_blocks
from .inputs import UnusableVideo, VideoInputs
from .model import Features
from .sampling import GREEDY, Decoding
from .video_qa import BATCH_TOKENS, VideoQA, VideoQuestion


@dataclass(frozen=True)
class Unanswered:
    """A question that a model did not answer, for example because it wrote only reasoning.

    Args:
        key: key of the question.
        reason: one line that includes what to change.
    """

    key: tuple
    reason: str


class Answerer(Protocol):
    """Protocol of classes that answer questions about videos in batches."""

    #: Number of videos whose questions are answered by one of several processes: enough to fill batches.
    videos_at_a_time: int

    def settings(self) -> dict[str, Any]:
        """Return the settings that the answers depend on, as JSON values, for the manifest."""
        ...

    def check(self, video_ids: Iterable[str]) -> None:
        """Raise an error for videos that cannot be processed, before any question is asked."""
        ...

    def answer(self, questions: Sequence[Question], done: Container[tuple]) -> Iterator[list[Prediction | Unanswered]]:
        """Answer questions, grouped by video, in any order; skip batches whose keys are all in `done`.

        Raises:
            UnusableVideo: if one of the videos cannot be read; batches yielded before are valid. The questions about
                the other videos are then asked again.
        """
        ...


@dataclass
class LongVALEAnswerer:
    """Answerer for LongVALE's model: questions about a video share its prefix; a batch can mix several videos.

    Args:
        model, processor: the loaded model and its processor.
        inputs: source of the videos.
        limits: maximum answer length per task, in tokens.
        batch_size: maximum number of questions per batch; also the number of videos kept in memory.
        batch_tokens: maximum number of tokens per batch, including the tokens to generate.
        decoding: greedy, or sampled with one seed per question.
        annotations: annotations of the benchmark by video ID; empty for zero-shot tasks. A checkpoint with another
            format of times than timecodes is asked and read in its format.
    """

    model: Any
    processor: Any
    inputs: VideoInputs
    limits: Mapping[AnyTask, int]
    batch_size: int
    batch_tokens: int = BATCH_TOKENS
    decoding: Decoding = GREEDY
    annotations: Mapping[str, Annotation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._times = own_format(self.model.config)

    @property
    def videos_at_a_time(self) -> int:
        """Return `batch_size`, so that tasks with one question per video also fill a batch."""
        return self.batch_size

    def settings(self) -> dict[str, Any]:
        """Return the model, revision, weights, video inputs and decoding settings."""
        config = self.model.config
        return {
            "model": str(getattr(self.model, "name_or_path", "")),
            "revision": getattr(config, "_commit_hash", None),
            "weights": weights_digest(self.model),
            self.inputs.kind: str(self.inputs.root.resolve()),
            "modalities": self.inputs.modalities,
            "zero_features": self.inputs.zero_features,
            "decoding": self.decoding.settings(),
            **({} if self._times is None else {"times": config.time_format}),
        }

    def check(self, video_ids: Iterable[str]) -> None:
        """Check that stored features have the width that the model expects."""
        self.inputs.check_widths(video_ids, self.model)

    def answer(self, questions: Sequence[Question], done: Container[tuple]) -> Iterator[list[Prediction | Unanswered]]:
        """Answer questions, those about `batch_size` videos at a time; the next videos are decoded meanwhile."""
        blocks = list(video_blocks(questions, self.videos_at_a_time))
        blocks = [block for block in blocks if any(question.key not in done for question in block)]
        videos = dict.fromkeys(question.video_id for block in blocks for question in block)
        with closing(read_ahead(videos, partial(self.inputs.read, processor=self.processor))) as read:
            for block in blocks:
                yield from self._answer_block(block, done, read)

    def _answer_block(
        self, questions: Sequence[Question], done: Container[tuple], read: Iterator[tuple[str, Future]]
    ) -> Iterator[list[Prediction | Unanswered]]:
        place_of = {video_id: place for place, video_id in enumerate(dict.fromkeys(q.video_id for q in questions))}
        qa = VideoQA(self.model, self.processor, [self._load(*next(read)) for _ in place_of])
        asked = [
            VideoQuestion(place_of[q.video_id], self._word(q), "/".join(map(str, q.key)), self.limits[q.task])
            for q in questions
        ]
        batches = qa.answer(
            asked,
            max(self.limits.values()),
            self.batch_size,
            self.batch_tokens,
            self.decoding,
            done={place for place, question in enumerate(questions) if question.key in done},
        )
        for places, answers in batches:
            yield [self._read(questions[place], answer) for place, answer in zip(places, answers, strict=True)]

    def _word(self, question: Question) -> str:
        annotation = self.annotations.get(question.video_id)
        if self._times is None or annotation is None:
            return question.question
        return reword_question(question, annotation, self._times)

    def _read(self, question: Question, written: str) -> Prediction | Unanswered:
        """Strip the reasoning from the output; empty output is an answer, output with only reasoning is not."""
        answer = strip_reasoning(written)
        if written.strip() and not answer:
            return Unanswered(question.key, ONLY_REASONING)
        info, annotation = None, self.annotations.get(question.video_id)
        if self._times is not None and annotation is not None:
            reading = parse_reply(question, answer, annotation.duration, self._times)
            answer, info = reading.answer, {"reply": answer, **reading.info()}
        return Prediction(question.video_id, question.task, answer, question.sentence_id, info=info)

    def _load(self, video_id: str, read: Future) -> Features:
        try:
            return self.inputs.load(video_id, self.model, self.processor, read.result())
        except (ValueError, OSError) as error:
            raise UnusableVideo(video_id, error) from error
