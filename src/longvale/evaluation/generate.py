"""From questions to answers: batched, resumable at the question, each video read once."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from ..checkpoints.loading import weights_digest
from ..data.sources import ANNOTATION_FILES
from ..events import MODALITIES, Annotation, Modality, load_annotations
from ..tasks import TASKS, Prediction, Question, Task, check_tasks, questions
from .answer_log import AnswerLog
from .inputs import VideoInputs
from .model import Features, ModelLike, answer_batch, load_model, token_limits

logger = logging.getLogger(__name__)

Split: TypeAlias = Literal["train", "test"]
Item = TypeVar("Item")


def annotations_path(data: str | os.PathLike, split: Split = "test") -> Path:
    """Where a data set's folder keeps the annotations of a split.

    Raises:
        FileNotFoundError: if the folder does not exist.
        ValueError: if the split is unknown.
    """
    if split not in ANNOTATION_FILES:
        raise ValueError(f"unknown split {split!r}; expected one of {', '.join(ANNOTATION_FILES)}")
    if not Path(data).is_dir():
        raise FileNotFoundError(f"{data}: no such folder")
    return Path(data, ANNOTATION_FILES[split])


def generate(
    model: ModelLike,
    data: str | os.PathLike,
    output: str | os.PathLike,
    *,
    tasks: Iterable[str] = TASKS,
    split: Split = "test",
    features: str | os.PathLike | None = None,
    videos: str | os.PathLike | None = None,
    modalities: Iterable[Modality] = MODALITIES,
    zero_features: bool = False,
    batch_size: int = 16,
    max_new_tokens: int | Mapping[Task, int] | None = None,
    limit: int | None = None,
    skip_missing: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    progress: bool = True,
) -> Path:
    """Let a model answer the questions of a benchmark split, greedily.

    Every answer is on disk as soon as its batch is done. The same call goes on where a killed one stopped, and the
    finished file is the same, byte for byte.

    Args:
        model: folder, Hub id, or (model, processor) pair.
        data: folder that holds `longvale-annotations-eval.json`.
        output: official log (JSONL) to write; `<output>.run.json` beside it tells how it was made.
        tasks: which tasks' questions to ask.
        split: "test" or "train".
        features, videos, modalities, zero_features: what the model gets of a video, see [`VideoInputs`].
        batch_size: questions that are answered together.
        max_new_tokens: longest answer in tokens, one number or one a task; by default enough for the benchmark.
        limit: only the first so many videos.
        skip_missing: leave out the questions about videos that have no file, and say so, instead of refusing.
        overwrite: begin anew if the log exists.
        device: such as "cpu"; by default an accelerator if there is one.
        progress: show a progress bar.

    Returns:
        The path of the log, with the answers in the order of the annotations.

    Raises:
        FileNotFoundError: if the model, the annotations or a video's input is missing.
        ValueError: if an option or a file is refused, or `output` was made with other settings.
    """
    for name, number in (("batch_size", batch_size), ("limit", 1 if limit is None else limit)):
        if number < 1:
            raise ValueError(f"{name} must be 1 or more, not {number}")
    tasks, limits = check_tasks(tasks), token_limits(max_new_tokens)
    references = annotations_path(data, split)
    annotations = load_annotations(references)
    inputs = VideoInputs(data, features, videos, modalities, zero_features)
    asked = _questions(annotations, tasks, limit, inputs, skip_missing)
    if not asked:
        raise ValueError(f"{references}: asks no {' or '.join(tasks)} question; none of its videos has events")
    model, processor = load_model(model, device)
    inputs.check_widths(dict.fromkeys(question.video_id for question in asked), model)
    settings = {
        "model": str(getattr(model, "name_or_path", "")),
        "weights": weights_digest(model),
        "annotations": hashlib.sha256(references.read_bytes()).hexdigest()[:16],
        "tasks": tasks,
        inputs.kind: str(inputs.root.resolve()),
        "modalities": inputs.modalities,
        "zero_features": zero_features,
        "max_new_tokens": {task: limits[task] for task in tasks},
        "limit": limit,
    }
    with AnswerLog(output, settings, asked, overwrite=overwrite) as log:
        _answer_all(model, processor, inputs, log, asked, batch_size, limits, progress)
    log.finish()
    return log.path


def _questions(
    annotations: Mapping[str, Annotation],
    tasks: Sequence[Task],
    limit: int | None,
    inputs: VideoInputs,
    skip_missing: bool,
) -> list[Question]:
    """The questions in the order of the annotations; videos without input are refused now, not hours later."""
    asked = []
    for annotation in list(annotations.values())[:limit]:
        try:
            inputs.check(annotation.video_id)
        except FileNotFoundError as error:
            if not skip_missing:
                raise
            logger.warning("skipped: %s", error)
            continue
        asked += questions(annotation, tasks)
    return asked


def _answer_all(
    model: Any,
    processor: Any,
    inputs: VideoInputs,
    log: AnswerLog,
    asked: Sequence[Question],
    batch_size: int,
    limits: Mapping[Task, int],
    progress: bool,
) -> None:
    from tqdm.auto import tqdm

    with tqdm(total=len(asked), initial=len(log.done), desc="answers", unit="question", disable=not progress) as bar:
        for block in video_blocks(asked, batch_size):
            loaded: dict[str, Features] = {}
            for batch in task_batches(block, batch_size):
                todo = [question for question in batch if question.key not in log.done]
                if not todo:
                    continue
                # What a kill left of a batch is asked as the whole batch again, so that rounding cannot differ.
                for video_id in {question.video_id for question in batch} - loaded.keys():
                    loaded[video_id] = inputs.load(video_id, model, processor)
                texts = [question.question for question in batch]
                values = [loaded[question.video_id] for question in batch]
                answers = answer_batch(model, processor, texts, values, limits[batch[0].task])
                answer_of = {question.key: answer for question, answer in zip(batch, answers, strict=True)}
                log.append([Prediction(q.video_id, q.task, answer_of[q.key], q.sentence_id) for q in todo])
                bar.update(len(todo))


def video_blocks(asked: Iterable[Question], videos: int) -> Iterator[list[Question]]:
    """The questions of so many videos at a time: few enough to keep their features, enough to fill batches.

    Example:
        >>> asked = [Question(video_id, "dense_captioning", None, "", "") for video_id in "aabbbc"]
        >>> ["".join(question.video_id for question in block) for block in video_blocks(asked, 2)]
        ['aabbb', 'c']
    """
    of_videos = (list(group) for _, group in groupby(asked, key=lambda question: question.video_id))
    for block in batched(of_videos, videos):
        yield [question for group in block for question in group]


def task_batches(block: Sequence[Question], batch_size: int) -> Iterator[list[Question]]:
    """Batches of one task each: answers of different lengths would wait for the longest."""
    for task in TASKS:
        yield from batched((question for question in block if question.task == task), batch_size)


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one perhaps shorter (`itertools.batched` needs Python 3.12)."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
