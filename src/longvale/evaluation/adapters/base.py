"""Base class of adapters, which convert questions and raw videos to a model's input and its replies to answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...chat_replies import NoAnswer
from ...events import Annotation
from ...models.media import MediaError
from ...tasks import AnyTask, Prediction, Question
from ..generation.answerer import Unanswered
from ..generation.inputs import UnusableVideo
from .media import RawVideos
from .prompts import UNITS, Unit, read_reply, word_question

if TYPE_CHECKING:
    from ...models.media import Media


class Adapter(ABC):
    """An [`longvale.evaluation.generation.answerer.Answerer`] for a model that was not trained on LongVALE.

    Args:
        videos: the media files.
        annotations: annotations of the benchmark by video ID; empty for zero-shot tasks.
        limits: maximum answer length per task, in tokens.
        unit: unit of the times in questions and answers.

    Raises:
        ValueError: if the unit is unknown.
    """

    #: Videos are processed one after the other; there are no batches of several videos.
    videos_at_a_time = 1

    def __init__(
        self,
        videos: RawVideos,
        annotations: Mapping[str, Annotation],
        limits: Mapping[AnyTask, int],
        unit: Unit = "seconds",
    ) -> None:
        if unit not in UNITS:
            raise ValueError(f"unknown unit of times {unit!r}; expected one of {', '.join(UNITS)}")
        self.videos, self.annotations, self.limits, self.unit = videos, annotations, limits, unit

    @abstractmethod
    def reply(self, media: Media, text: str, max_new_tokens: int) -> str:
        """Return the model's reply to a text about a video.

        Raises:
            MediaError: if the model cannot process the video.
            NoAnswer: if the model writes no answer.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return settings that identify the model, for the manifest."""

    def settings(self) -> dict[str, Any]:
        """Return the settings of the model, its video inputs and its prompts."""
        return {
            **self.describe(),
            "videos": str(self.videos.root.resolve()),
            "frames": self.videos.frames,
            "frame_size": self.videos.size,
            "times": self.unit,
        }

    def check(self, video_ids: Iterable[str]) -> None:
        """Check that all videos exist."""
        self.videos.check(video_ids)

    def answer(self, questions: Sequence[Question], done: Container[tuple]) -> Iterator[list[Prediction | Unanswered]]:
        """Answer questions one by one."""
        for question in questions:
            if question.key in done:
                continue
            text = word_question(question, self.annotations, self.unit)
            try:
                media = self.videos.read(question.video_id)
                reply = self.reply(media, text, self.limits[question.task])
            except (MediaError, FileNotFoundError) as error:
                raise UnusableVideo(question.video_id, error) from error
            except NoAnswer as error:
                yield [Unanswered(question.key, str(error))]
                continue
            # Times in the question and the answer refer to the duration that the question contains.
            named = self.annotations.get(question.video_id)
            answer = read_reply(question, reply, named.duration if named else media.duration, self.unit)
            # `info` keeps the model's raw reply next to the parsed answer.
            yield [Prediction(question.video_id, question.task, answer, question.sentence_id, info={"reply": reply})]
