"""Batched generation of answers, resumable per question, in one process or several; each video is read once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias, Unpack

from ...chat_client import NoAnswer, Patience
from ...checkpoints.loading import Weights
from ...data.publish.validate import other_length
from ...data.sources import ANNOTATION_FILES, annotation_file, load_videos
from ...events import MODALITIES, Annotation, Modality
from ...run_log import fingerprint
from ...system.locks import hold
from ...tasks import TASKS, AnyTask, Prediction, Question, check_tasks, questions
from ..adapters.options import AdapterOptions
from ..benchmarks.scoring import load_questions as load_zero_shot_questions
from .answerer import Answerer, LongVALEAnswerer, Unanswered
from .blocks import video_blocks
from .distributed import Processes, join_processes
from .inputs import UnusableVideo, VideoInputs
from .model import ModelLike, load_model, token_limits
from .prediction_log import AnswerLog
from .sampling import GREEDY, Decoding
from .video_qa import BATCH_TOKENS

logger = logging.getLogger(__name__)

#: "validation" exists for zero-shot tasks only.
Split: TypeAlias = Literal["train", "validation", "test"]

#: Remedies in error messages, for videos that cannot be read and for unanswered questions.
_SKIP = "or leave such videos out with --skip-missing"
_LEAVE = "or leave such questions out with --skip-missing"
#: Number of consecutive unanswered questions that ends a run.
_MAX_UNANSWERED = 20

#: Packages whose version the answers depend on.
_VERSIONED = ("longvale", "torch", "transformers")


def annotations_path(data: str | os.PathLike, split: Split = "test") -> Path:
    """Return the path of a split's annotations in a data folder, or of the output of `longvale annotate`.

    Raises:
        FileNotFoundError: if the folder does not exist or contains no annotations.
        ValueError: if the split is unknown.
    """
    if split not in ANNOTATION_FILES:
        raise ValueError(f"unknown split {split!r}; expected one of {', '.join(ANNOTATION_FILES)}")
    _check_folder(data)
    return annotation_file(data, split)


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
    batch_size: int = 32,
    batch_tokens: int = BATCH_TOKENS,
    max_new_tokens: int | Mapping[AnyTask, int] | None = None,
    decoding: Decoding = GREEDY,
    prompt: str | None = None,
    adapter: AdapterOptions | None = None,
    limit: int | None = None,
    skip_missing: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    progress: bool = True,
    **weights: Unpack[Weights],
) -> Path:
    """Answer the questions of a benchmark split with a model.

    Answers are written to disk as soon as their batch is done. Repeating an interrupted call resumes it, and the
    finished file is identical, byte for byte. With several processes, each answers its share of the videos.

    Args:
        model: folder, Hub id, or (model, processor) pair.
        data: folder that contains `longvale-annotations-eval.json`, or the official file of a zero-shot benchmark.
        output: prediction log (JSONL) to write; `<output>.run.json` next to it contains the settings of the run.
        tasks: tasks whose questions are asked, all of one benchmark.
        split: "test" or "train"; for zero-shot benchmarks also "validation".
        features, videos, modalities, zero_features: video inputs of the model, see [`VideoInputs`].
        batch_size: maximum number of questions per batch, and number of videos kept in memory.
        batch_tokens: maximum number of tokens per batch, including the tokens to generate.
        max_new_tokens: maximum answer length in tokens, one number or one per task; the default is enough for the
            benchmark.
        decoding: greedy, or sampled with one seed per question.
        prompt: prompt template for the questions of a zero-shot benchmark, a published name or a text file.
        adapter: options of an adapter that asks a third-party model about raw videos; None for LongVALE's own model.
            With an adapter, `batch_size`, `batch_tokens`, `decoding`, `modalities` and `zero_features` are ignored.
        limit: use only the first `limit` videos.
        skip_missing: instead of raising an error, skip questions about videos whose file is missing or unreadable and
            questions that the model does not answer; list them in a warning and in the manifest.
        overwrite: start over if the log exists.
        device: device such as "cpu"; by default an accelerator if available.
        progress: show a progress bar.
        weights: see [`longvale.checkpoints.loading.Weights`].

    Returns:
        The path of the log, with the answers in the order of the annotations.

    Raises:
        FileNotFoundError: if the model, the annotations or a video's input is missing.
        ValueError: if an option or a file is invalid, or `output` was written with other settings.
    """
    for name, number in (("batch_size", batch_size), ("batch_tokens", batch_tokens)):
        if number < 1:
            raise ValueError(f"{name} must be 1 or more, not {number}")
    references, asked, settings = load_questions(data, tasks, split, limit, prompt)
    limits = token_limits(max_new_tokens, settings["tasks"])
    settings["max_new_tokens"] = {task: limits[task] for task in settings["tasks"]}
    if adapter is not None and features is not None:
        raise ValueError(f"features ({features}) are of LongVALE's towers; models of others take videos")
    inputs = VideoInputs(data, features, _videos_folder(data, videos, adapter), modalities, zero_features)
    skipped = without_input(asked, inputs, references, skip_missing=skip_missing)
    usable = [video_id for video_id in dict.fromkeys(q.video_id for q in asked) if video_id not in skipped]
    is_own = asked[0].task in TASKS
    annotations = {video.video_id: video for video in load_videos(references)} if is_own else {}
    if annotations:
        _name_other_lengths(inputs.lengths(usable), annotations)
    processes = join_processes()
    device = device or processes.device
    if adapter is None:
        pair = load_model(model, device, **weights)
        answerer: Answerer = LongVALEAnswerer(*pair, inputs, limits, batch_size, batch_tokens, decoding, annotations)
    else:
        answerer = adapter.build(model, inputs.root, annotations, limits, device, **weights)
    return answer_all(
        answerer,
        asked,
        output,
        settings,
        processes,
        inputs=inputs.identities(usable),
        skipped=skipped,
        skip_missing=skip_missing,
        overwrite=overwrite,
        progress=progress,
    )


def load_questions(
    data: str | os.PathLike,
    tasks: Iterable[str] = TASKS,
    split: Split = "test",
    limit: int | None = None,
    prompt: str | None = None,
) -> tuple[Path, list[Question], dict[str, Any]]:
    """Return the file of a benchmark split, its questions in file order, and their settings for the manifest.

    Args:
        data, tasks, split, limit, prompt: as in [`generate`].

    Raises:
        FileNotFoundError: if the folder, the file or the prompt is missing.
        ValueError: if an option or the file is invalid.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be 1 or more, not {limit}")
    tasks = check_tasks(tasks)
    settings: dict[str, Any] = {"tasks": tasks, "limit": limit}
    if any(task not in TASKS for task in tasks):
        if any(task in TASKS for task in tasks):
            raise ValueError(f"tasks {', '.join(tasks)} are of several benchmarks; ask one at a time")
        _check_folder(data)
        references, asked = load_zero_shot_questions(data, split, tasks, prompt)
        settings["prompt"] = fingerprint("\n".join(question.question for question in asked))
    else:
        if prompt is not None:
            raise ValueError("prompt is for zero-shot tasks; LongVALE's questions are as published")
        references = annotations_path(data, split)
        asked = [question for video in load_videos(references) for question in questions(video, tasks)]
    settings["annotations"] = fingerprint(references.read_bytes())
    if not asked:
        raise ValueError(f"{references}: asks no {' or '.join(tasks)} question; none of its videos has events")
    chosen = set(list(dict.fromkeys(question.video_id for question in asked))[:limit])
    return references, [question for question in asked if question.video_id in chosen], settings


def without_input(
    asked: Sequence[Question], inputs: VideoInputs, references: Path, *, skip_missing: bool = False
) -> dict[str, str]:
    """Return the videos whose input is missing or damaged, with the reason; checks all videos before generation starts.

    Raises:
        FileNotFoundError: with the name of the missing file, unless `skip_missing`.
        ValueError: with the name of the damaged file, unless `skip_missing`; or if no video is left.
    """
    skipped: dict[str, str] = {}
    video_ids = dict.fromkeys(question.video_id for question in asked)
    for video_id in video_ids:
        try:
            inputs.check(video_id)
        except (FileNotFoundError, ValueError) as error:
            if not skip_missing:
                raise type(error)(f"{error}, {_SKIP}") from error
            skipped[video_id] = str(error)
    if len(skipped) == len(video_ids):
        first = next(iter(skipped.values()))
        raise ValueError(f"{references}: none of its videos can be read from {inputs.root}; the first: {first}")
    for video_id, reason in skipped.items():
        logger.warning("skipped: %s: %s", video_id, reason)
    return skipped


def _name_other_lengths(lengths: Mapping[str, float], annotations: Mapping[str, Annotation]) -> None:
    """Warn about videos whose length differs from their annotation's duration: their times would be wrong."""
    for video_id, lasts in lengths.items():
        if other := other_length(video_id, lasts, annotations[video_id].duration):
            logger.warning("%s", other)


def answer_all(
    answerer: Answerer,
    asked: Sequence[Question],
    output: str | os.PathLike,
    settings: Mapping[str, Any],
    processes: Processes | None = None,
    *,
    inputs: Mapping[str, str] | None = None,
    skipped: Mapping[str, str] | None = None,
    skip_missing: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Answer questions and write the answers to a prediction log; see [`generate`].

    Args:
        answerer: an answerer such as [`LongVALEAnswerer`].
        asked: the questions, grouped by video.
        output: log to write or to resume.
        settings: settings of the questions for the manifest.
        processes: rank of this process and number of processes.
        inputs: identity of each video's content, see [`AnswerLog`].
        skipped: skipped videos by id, with the reason.
        skip_missing: also skip videos found to be unreadable during the run, and unanswered questions.
        overwrite: start over if the log exists.
        progress: show a progress bar, for the first process.

    Raises:
        Locked: if another run writes to the log.
        NoAnswer: if questions remain unanswered without `skip_missing`, or too many in a row are unanswered.
        ValueError: if `output` was written with other settings, or a video cannot be read.
    """
    processes, skipped = processes or Processes(), skipped or {}
    todo = [question for question in asked if question.video_id not in skipped]
    answerer.check(dict.fromkeys(question.video_id for question in todo))
    settings = {**answerer.settings(), **settings, "versions": {name: version(name) for name in _VERSIONED}}
    lock = hold(Path(output).parent, Path(output).name, work="answering questions")
    with lock if processes.rank == 0 else nullcontext():
        with processes.first_goes_first():
            log = AnswerLog(output, settings, asked, inputs=inputs, overwrite=overwrite, part=processes.rank)
        log.skipped.update(skipped)
        blocks = list(video_blocks(todo, answerer.videos_at_a_time))
        processes.wait()
        _answer_blocks(answerer, log, blocks[processes.rank :: processes.count], processes, skip_missing, progress)
        processes.wait()
        with processes.first_goes_first():
            if processes.rank == 0:
                log.finish()
    if log.unanswered and not skip_missing:
        key, reason = next(iter(log.unanswered.items()))
        raise NoAnswer(
            f"{log.path}: {len(log.unanswered)} of {len(asked)} questions have no answer, the first, "
            f"{'/'.join(map(str, key))}, because of: {reason}; the other answers are kept; {_LEAVE}"
        )
    return log.path


def _answer_blocks(
    answerer: Answerer,
    log: AnswerLog,
    blocks: Sequence[list[Question]],
    processes: Processes,
    skip_missing: bool,
    progress: bool,
) -> None:
    from tqdm.auto import tqdm

    todo = [question for block in blocks for question in block]
    of_all = f" of process 1 of {processes.count}" if processes.count > 1 else ""
    with tqdm(
        total=len(todo),
        initial=sum(question.key in log.done for question in todo),
        desc=f"answers{of_all}",
        unit="question",
        disable=not progress or processes.rank > 0,
    ) as bar:
        patience = Patience(_MAX_UNANSWERED)
        while todo:
            try:
                for batch in answerer.answer(todo, log.done.keys()):
                    # A partly written batch is generated again as a whole, so that rounding does not differ.
                    new = [answer for answer in batch if answer.key not in log.done]
                    log.append(answer for answer in new if isinstance(answer, Prediction))
                    bar.update(len(new))
                    _note_unanswered(new, log, patience)
                break
            except UnusableVideo as error:
                if not skip_missing:
                    raise ValueError(f"{error}; what was answered is kept; {_SKIP}") from error
                logger.warning("skipped: %s: %s", error.video_id, error)
                log.skipped[error.video_id] = str(error)
                left = (question for question in todo if question.video_id != error.video_id)
                todo = [question for question in left if question.key not in log.unanswered]


def _note_unanswered(answers: Iterable[Prediction | Unanswered], log: AnswerLog, patience: Patience) -> None:
    """Record unanswered questions and count consecutive ones; too many in a row end the run."""
    for answer in answers:
        if isinstance(answer, Prediction):
            patience.used()
            continue
        log.unanswered[answer.key] = answer.reason
        try:
            patience.refused(answer.reason)
        except NoAnswer as error:
            raise NoAnswer(f"{log.path}: {error}; what was answered is kept") from None


def _videos_folder(
    data: str | os.PathLike, videos: str | os.PathLike | None, adapter: AdapterOptions | None
) -> str | os.PathLike | None:
    """Return `videos`; with an adapter, the default is the folder `videos` in `data`."""
    return Path(data, "videos") if adapter is not None and videos is None else videos


def _check_folder(path: str | os.PathLike) -> None:
    if not Path(path).is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
