"""Base class of adapters, which convert questions and raw videos to a model's input and its replies to answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ...chat_replies import NoAnswer
from ...events import Annotation, Seconds
from ...models.media import MediaError
from ...registry import time_formats
from ...run_log import fingerprint
from ...tasks import TASKS, AnyTask, Prediction, Question
from ..generation.answerer import Unanswered
from ..generation.blocks import in_parallel, read_ahead
from ..generation.inputs import UnusableVideo
from .media import RawVideos
from .prompts import Reading, parse_reply, word_question
from .time_formats import recorded_format

if TYPE_CHECKING:
    from ...models.media import Media
    from .options import AdapterOptions


class Adapter(ABC):
    """An [`longvale.evaluation.generation.answerer.Answerer`] for a model that was not trained on LongVALE.

    Subclasses implement `reply` and `describe`, and register with [`longvale.registry.adapters`].

    Args:
        model: name of the model, as given on the command line.
        videos: the media files.
        annotations: annotations of the benchmark by video ID; empty for zero-shot tasks.
        limits: maximum answer length per task, in tokens.
        times: name of a registered format of the times in questions and replies, or `package.module:Name`; None for
            that of the model's configuration, if it is a checkpoint that records one, else seconds.
        sound: pass the audio to models with audio input.
        concurrency: number of questions that are asked at the same time; `reply` is then called in several threads.

    Raises:
        ValueError: if the format of times is unknown, or `concurrency` is below 1.

    Example:
        >>> class FirstHalf(Adapter):
        ...     "Answers that everything happens in the first half of the video."
        ...     def reply(self, media, text, max_new_tokens):
        ...         return f"From 0 to {media.duration / 2} seconds, {self.model}."
        ...     def describe(self):
        ...         return {"model": self.model}
    """

    #: Of several processes, each answers the questions about every n-th video.
    videos_at_a_time = 1

    def __init__(
        self,
        model: Any,
        *,
        videos: RawVideos,
        annotations: Mapping[str, Annotation],
        limits: Mapping[AnyTask, int],
        times: str | None = None,
        sound: bool = True,
        concurrency: int = 1,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"--concurrency must be 1 or more, not {concurrency}")
        self.model, self.videos, self.annotations, self.limits = model, videos, annotations, limits
        self.times = times or recorded_format(getattr(model, "config", None), "seconds")
        self.sound, self.concurrency = sound, concurrency
        self._times = time_formats.create(self.times)

    @classmethod
    def build(cls, model: Any, options: AdapterOptions, weights: Mapping[str, Any], **shared: Any) -> Adapter:
        """Build the adapter from the options of the command line.

        Args:
            model: model as given.
            options: all options of adapters.
            weights: `device`, and those of [`longvale.checkpoints.loading.Weights`].
            shared: arguments of [`Adapter`].

        Raises:
            ValueError: if `weights` has more than a device, since this method cannot pass them on.
        """
        given = [f"--{name.replace('_', '-')}" for name, value in weights.items() if value and name != "device"]
        if given:
            raise ValueError(f"{options.kind}: this adapter does not load weights; leave out {' and '.join(given)}")
        return cls(model, **shared)

    def watch(self, video_id: str) -> Any:
        """Return a video in the form that `reply` takes, with its `duration` in seconds; by default decoded.

        Raises:
            MediaError, FileNotFoundError: if the video cannot be read.
        """
        return self.videos.read(video_id)

    @abstractmethod
    def reply(self, media: Media, text: str, max_new_tokens: int) -> str:
        """Return the model's reply to a text about a video, which is what `watch` returns.

        Raises:
            MediaError: if the model cannot process the video.
            NoAnswer: if the model writes no answer.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return settings that identify the model, for the manifest."""

    def settings(self) -> dict[str, Any]:
        """Return the settings of the model, its video inputs and its prompts."""
        # Answers of one adapter are not resumed by another; built-ins differ in their other settings.
        kind = type(self)
        outside = {} if kind.__module__.startswith("longvale.") else {"adapter": f"{kind.__module__}:{kind.__name__}"}
        return {
            **self.describe(),
            **outside,
            "videos": str(self.videos.root.resolve()),
            "frames": self.videos.frames,
            "frame_size": self.videos.size,
            "times": self.times,
            "prompts": fingerprint("\n".join(self._times.prompt(task) for task in TASKS if task in self.limits)),
        }

    def check(self, video_ids: Iterable[str]) -> None:
        """Check that all videos exist."""
        self.videos.check(video_ids)

    def word(self, question: Question) -> str:
        """Return the text of a question."""
        return word_question(question, self.annotations, self._times)

    def read(self, question: Question, reply: str, duration: Seconds) -> Reading:
        """Return what is read of a reply.

        Args:
            question: the question that was asked.
            reply: of the model.
            duration: of the video in seconds, to which times refer.
        """
        return parse_reply(question, reply, duration, self._times)

    def answer(self, questions: Sequence[Question], done: Container[tuple]) -> Iterator[list[Prediction | Unanswered]]:
        """Answer questions, `concurrency` at a time; the next videos are read meanwhile."""
        todo = [question for question in questions if question.key not in done]
        with closing(read_ahead(dict.fromkeys(question.video_id for question in todo), self.watch)) as videos:
            yield from in_parallel(self._tasks(todo, videos), self.concurrency)

    def _tasks(
        self, questions: Iterable[Question], videos: Iterator[tuple[str, Future]]
    ) -> Iterator[Callable[[], list[Prediction | Unanswered]]]:
        for _, group in groupby(questions, key=lambda question: question.video_id):
            _, video = next(videos)
            yield from (partial(self._answer, some, video) for some in self.together(list(group)))

    def together(self, questions: Sequence[Question]) -> Iterator[Sequence[Question]]:
        """Yield the questions about a video in groups that `replies` answers together; by default each alone."""
        yield from ([question] for question in questions)

    def replies(self, media: Media, texts: Sequence[str], max_new_tokens: int) -> list[str | NoAnswer]:
        """Return the replies to texts about a video, see `reply`; an error in place of an answer that was not given."""
        replies: list[str | NoAnswer] = []
        for text in texts:
            try:
                replies.append(self.reply(media, text, max_new_tokens))
            except NoAnswer as error:
                replies.append(error)
        return replies

    def _answer(self, questions: Sequence[Question], video: Future) -> list[Prediction | Unanswered]:
        try:
            media = video.result()
            texts = [self.word(question) for question in questions]
            replies = self.replies(media, texts, self.limits[questions[0].task])
        except (MediaError, FileNotFoundError) as error:
            raise UnusableVideo(questions[0].video_id, error) from error
        return [self._log(question, reply, media) for question, reply in zip(questions, replies, strict=True)]

    def _log(self, question: Question, reply: str | NoAnswer, media: Media) -> Prediction | Unanswered:
        if isinstance(reply, NoAnswer):
            return Unanswered(question.key, str(reply))
        # Times in the question and the answer refer to the duration that the question contains.
        named = self.annotations.get(question.video_id)
        reading = self.read(question, reply, named.duration if named else media.duration)
        # `info` keeps the model's reply next to what was read.
        info = {"reply": reply, **reading.info()}
        return Prediction(question.video_id, question.task, reading.answer, question.sentence_id, info=info)
