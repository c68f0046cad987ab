"""What answers questions about videos: LongVALE's own model here, those of others in `adapters`."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...chat_replies import ONLY_REASONING
from ...checkpoints.loading import weights_digest
from ...reasoning import strip_reasoning
from ...tasks import AnyTask, Prediction, Question
from .inputs import UnusableVideo, VideoInputs
from .model import Features
from .prefix_cache import BATCH_TOKENS, Ask, VideoPrefixes
from .sampling import GREEDY, Decoding


@dataclass(frozen=True)
class Unanswered:
    """A question to which a model wrote no answer, such as reasoning alone.

    Args:
        key: of the question.
        reason: one line, with what to change.
    """

    key: tuple
    reason: str


class Answerer(Protocol):
    """Answers questions about videos, batch by batch."""

    #: Videos that are asked about at a time: few enough to keep what is known of them, enough to fill batches.
    videos_at_a_time: int

    def settings(self) -> dict[str, Any]:
        """What the answers depend on, as JSON values, for the manifest."""
        ...

    def check(self, video_ids: Iterable[str]) -> None:
        """Refuse, before anything is asked, what cannot be answered."""
        ...

    def answer(self, questions: Sequence[Question], done: Container[tuple]) -> Iterator[list[Prediction | Unanswered]]:
        """Answer questions about some videos, but for batches whose keys are all `done`.

        Raises:
            UnusableVideo: if one of the videos cannot be read; what was yielded before is right.
        """
        ...


@dataclass
class LongVALEAnswerer:
    """LongVALE's model: questions about a video share its prefix, and batches hold questions about several videos.

    Args:
        model, processor: as loaded.
        inputs: where the videos come from.
        limits: longest answer of each task in tokens.
        batch_size: questions answered together at most; also how many videos are kept at a time.
        batch_tokens: tokens of a batch at most, those to be generated among them.
        decoding: greedy, or sampled with a seed a question.
    """

    model: Any
    processor: Any
    inputs: VideoInputs
    limits: Mapping[AnyTask, int]
    batch_size: int
    batch_tokens: int = BATCH_TOKENS
    decoding: Decoding = GREEDY

    @property
    def videos_at_a_time(self) -> int:
        """As many as there may be questions in a batch, so that tasks that ask a video once fill it too."""
        return self.batch_size

    def settings(self) -> dict[str, Any]:
        """Model, revision, weights, what it gets of a video, and how it writes."""
        config = self.model.config
        return {
            "model": str(getattr(self.model, "name_or_path", "")),
            "revision": getattr(config, "_commit_hash", None),
            "weights": weights_digest(self.model),
            self.inputs.kind: str(self.inputs.root.resolve()),
            "modalities": self.inputs.modalities,
            "zero_features": self.inputs.zero_features,
            "decoding": self.decoding.settings(),
        }

    def check(self, video_ids: Iterable[str]) -> None:
        """Look whether stored features are as wide as the model takes them."""
        self.inputs.check_widths(video_ids, self.model)

    def answer(self, questions: Sequence[Question], done: Container[tuple]) -> Iterator[list[Prediction | Unanswered]]:
        """Answer questions, a task at a time: answers of different lengths would wait for the longest."""
        if all(question.key in done for question in questions):
            return
        place_of = {video_id: place for place, video_id in enumerate(dict.fromkeys(q.video_id for q in questions))}
        features = [self._load(video_id) for video_id in place_of]
        prefixes = VideoPrefixes(self.model, self.processor, features)
        for task in dict.fromkeys(question.task for question in questions):
            asked = [question for question in questions if question.task == task]
            batches = prefixes.answer(
                [Ask(place_of[q.video_id], q.question, "/".join(map(str, q.key))) for q in asked],
                self.limits[task],
                self.batch_size,
                self.batch_tokens,
                self.decoding,
                done={place for place, question in enumerate(asked) if question.key in done},
            )
            for places, answers in batches:
                yield [_read(asked[place], answer) for place, answer in zip(places, answers, strict=True)]

    def _load(self, video_id: str) -> Features:
        try:
            return self.inputs.load(video_id, self.model, self.processor)
        except (ValueError, OSError) as error:
            raise UnusableVideo(video_id, error) from error


def _read(question: Question, written: str) -> Prediction | Unanswered:
    """What a model wrote, without reasoning; an empty answer is one, reasoning alone is none."""
    answer = strip_reasoning(written)
    if written.strip() and not answer:
        return Unanswered(question.key, ONLY_REASONING)
    return Prediction(question.video_id, question.task, answer, question.sentence_id)
