"""What adapters share: question and raw video become a model's own input, its reply an answer of the benchmark."""

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
    """An [`longvale.evaluation.generation.answerer.Answerer`] for a model that knows nothing of LongVALE.

    Args:
        videos: the media files.
        annotations: of the benchmark by video id; empty for zero-shot tasks.
        limits: longest answer of each task in tokens.
        unit: in which times are asked for.

    Raises:
        ValueError: if the unit is unknown.
    """

    #: Videos follow each other; no batch holds several.
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
        """What the model says to a text about a video.

        Raises:
            MediaError: if the model can do nothing with such a video.
            NoAnswer: if the model writes no answer.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Which model this is, for the manifest."""

    def settings(self) -> dict[str, Any]:
        """The model, what it is given of a video, and how it is asked."""
        return {
            **self.describe(),
            "videos": str(self.videos.root.resolve()),
            "frames": self.videos.frames,
            "frame_size": self.videos.size,
            "times": self.unit,
        }

    def check(self, video_ids: Iterable[str]) -> None:
        """Look whether all videos are there."""
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
            # Times in a question and in its answer are of one length, which the question names.
            named = self.annotations.get(question.video_id)
            answer = read_reply(question, reply, named.duration if named else media.duration, self.unit)
            # The model's own words stay beside what was read of them.
            yield [Prediction(question.video_id, question.task, answer, question.sentence_id, info={"reply": reply})]
