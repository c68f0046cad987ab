"""Base class of adapters, which convert questions and raw videos to a model's input and its replies to answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...chat_replies import NoAnswer
from ...events import Annotation
from ...models.media import MediaError
from ...registry import time_formats
from ...run_log import fingerprint
from ...tasks import TASKS, AnyTask, Prediction, Question
from ..generation.answerer import Unanswered
from ..generation.inputs import UnusableVideo
from .media import RawVideos
from .prompts import parse_reply, word_question

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
        times: name of a registered format of the times in questions and replies, or `package.module:Name`.
        sound: pass the audio to models with audio input.

    Raises:
        ValueError: if the format of times is unknown.

    Example:
        >>> class FirstHalf(Adapter):
        ...     "Answers that everything happens in the first half of the video."
        ...     def reply(self, media, text, max_new_tokens):
        ...         return f"From 0 to {media.duration / 2} seconds, {self.model}."
        ...     def describe(self):
        ...         return {"model": self.model}
    """

    #: Videos are processed one after the other; there are no batches of several videos.
    videos_at_a_time = 1

    def __init__(
        self,
        model: Any,
        *,
        videos: RawVideos,
        annotations: Mapping[str, Annotation],
        limits: Mapping[AnyTask, int],
        times: str = "seconds",
        sound: bool = True,
    ) -> None:
        self.model, self.videos, self.annotations, self.limits = model, videos, annotations, limits
        self.times, self.sound = times, sound
        self._times = time_formats.create(times)

    @classmethod
    def build(cls, model: Any, options: AdapterOptions, weights: Mapping[str, Any], **shared: Any) -> Adapter:
        """Build the adapter from the options of the command line.

        Args:
            model: model as given.
            options: all options of adapters.
            weights: `device`, `dtype` and `load_in_4bit`.
            shared: arguments of [`Adapter`].

        Raises:
            ValueError: if `dtype` or `load_in_4bit` is given, since this method cannot pass them on.
        """
        if weights["dtype"] is not None or weights["load_in_4bit"]:
            raise ValueError(
                f"{options.kind}: this adapter does not load weights; leave out --dtype and --load-in-4bit"
            )
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

    def answer(self, questions: Sequence[Question], done: Container[tuple]) -> Iterator[list[Prediction | Unanswered]]:
        """Answer questions one by one."""
        for question in questions:
            if question.key in done:
                continue
            text = word_question(question, self.annotations, self._times)
            try:
                media = self.watch(question.video_id)
                reply = self.reply(media, text, self.limits[question.task])
            except (MediaError, FileNotFoundError) as error:
                raise UnusableVideo(question.video_id, error) from error
            except NoAnswer as error:
                yield [Unanswered(question.key, str(error))]
                continue
            # Times in the question and the answer refer to the duration that the question contains.
            named = self.annotations.get(question.video_id)
            reading = parse_reply(question, reply, named.duration if named else media.duration, self._times)
            # `info` keeps the model's reply next to what was read.
            info = {"reply": reply, **reading.info()}
            yield [Prediction(question.video_id, question.task, reading.answer, question.sentence_id, info=info)]
