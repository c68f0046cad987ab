"""From questions to answers: batched, resumable at the question, each video read once, over one process or several."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from ...chat_client import NoAnswer, Patience
from ...data.publish.validate import other_length
from ...data.sources import ANNOTATION_FILES, annotation_file
from ...events import MODALITIES, Annotation, Modality, load_annotations
from ...locks import hold
from ...tasks import TASKS, ZERO_SHOT_TASKS, AnyTask, Prediction, Question, check_tasks, questions
from ..adapters.options import AdapterOptions
from ..benchmarks.scoring import load_questions as load_zero_shot_questions
from .answerer import Answerer, LongVALEAnswerer, Unanswered
from .distributed import Processes, join_processes
from .inputs import UnusableVideo, VideoInputs
from .model import ModelLike, load_model, token_limits
from .prediction_log import AnswerLog
from .prefix_cache import BATCH_TOKENS
from .sampling import GREEDY, Decoding

logger = logging.getLogger(__name__)

#: "validation" is there for zero-shot tasks only.
Split: TypeAlias = Literal["train", "validation", "test"]
Item = TypeVar("Item")

#: What to do about videos that cannot be read.
_SKIP = "or leave such videos out with --skip-missing"
_LEAVE = "or leave such questions out with --skip-missing"
#: Questions in a row without an answer that end a run.
_MAX_UNANSWERED = 20

#: Packages whose release the answers depend on.
_VERSIONED = ("longvale", "torch", "transformers")


def annotations_path(data: str | os.PathLike, split: Split = "test") -> Path:
    """Where a data set's folder keeps the annotations of a split, or the output of `longvale annotate`.

    Raises:
        FileNotFoundError: if the folder does not exist or contains none.
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
    dtype: str | None = None,
    load_in_4bit: bool = False,
    progress: bool = True,
) -> Path:
    """Let a model answer the questions of a benchmark split.

    Every answer is on disk as soon as its batch is done. The same call goes on where a killed one stopped, and the
    finished file is the same, byte for byte. Launched as several processes, each answers its share of the videos.

    Args:
        model: folder, Hub id, or (model, processor) pair.
        data: folder that holds `longvale-annotations-eval.json`, or the official file of a zero-shot benchmark.
        output: official log (JSONL) to write; `<output>.run.json` beside it tells how it was made.
        tasks: which tasks' questions to ask; those of one benchmark.
        split: "test" or "train"; of zero-shot benchmarks also "validation".
        features, videos, modalities, zero_features: what the model gets of a video, see [`VideoInputs`].
        batch_size: questions that are answered together at most, and videos that are kept for it.
        batch_tokens: tokens of a batch at most, those to be generated among them.
        max_new_tokens: longest answer in tokens, one number or one a task; by default enough for the benchmark.
        decoding: greedy, or sampled with a seed a question.
        prompt: words around the questions of a zero-shot benchmark, published ones by name or a text file.
        adapter: how to ask a model of others, from raw videos; None for LongVALE's own. With it, `batch_size`,
            `batch_tokens`, `decoding`, `modalities` and `zero_features` do not count.
        limit: only the first so many videos.
        skip_missing: leave out the questions about videos that have no file or one that cannot be read, and those that
            the model does not answer, and name them in a warning and in the manifest, instead of refusing.
        overwrite: begin anew if the log exists.
        device: such as "cpu"; by default an accelerator if there is one.
        dtype, load_in_4bit: of the weights, see [`longvale.evaluation.generation.model.load_model`].
        progress: show a progress bar.

    Returns:
        The path of the log, with the answers in the order of the annotations.

    Raises:
        FileNotFoundError: if the model, the annotations or a video's input is missing.
        ValueError: if an option or a file is refused, or `output` was made with other settings.
    """
    limits = token_limits(max_new_tokens)
    for name, number in (("batch_size", batch_size), ("batch_tokens", batch_tokens)):
        if number < 1:
            raise ValueError(f"{name} must be 1 or more, not {number}")
    references, asked, settings = load_questions(data, tasks, split, limit, prompt)
    settings["max_new_tokens"] = {task: limits[task] for task in settings["tasks"]}
    if adapter is not None and features is not None:
        raise ValueError(f"features ({features}) are of LongVALE's towers; models of others take videos")
    inputs = VideoInputs(data, features, _videos_folder(data, videos, adapter), modalities, zero_features)
    skipped = without_input(asked, inputs, references, skip_missing=skip_missing)
    usable = [video_id for video_id in dict.fromkeys(q.video_id for q in asked) if video_id not in skipped]
    annotations = {} if asked[0].task in ZERO_SHOT_TASKS else load_annotations(references)
    if annotations:
        _name_other_lengths(inputs.lengths(usable), annotations)
    processes = join_processes()
    device = device or processes.device
    if adapter is None:
        pair = load_model(model, device, dtype=dtype, load_in_4bit=load_in_4bit)
        answerer: Answerer = LongVALEAnswerer(*pair, inputs, limits, batch_size, batch_tokens, decoding)
    else:
        answerer = adapter.build(model, inputs.root, annotations, limits, device, dtype, load_in_4bit)
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
    """The file of a benchmark split, its questions in the order of the file, and what a manifest says of them.

    Args:
        data, tasks, split, limit, prompt: as of [`generate`].

    Raises:
        FileNotFoundError: if the folder, the file or the prompt is missing.
        ValueError: if an option or the file is refused.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be 1 or more, not {limit}")
    tasks = check_tasks(tasks)
    settings: dict[str, Any] = {"tasks": tasks, "limit": limit}
    if any(task in ZERO_SHOT_TASKS for task in tasks):
        if any(task in TASKS for task in tasks):
            raise ValueError(f"tasks {', '.join(tasks)} are of several benchmarks; ask one at a time")
        _check_folder(data)
        references, asked = load_zero_shot_questions(data, split, tasks, prompt)
        settings["prompt"] = _digest("\n".join(question.question for question in asked).encode(errors="replace"))
    else:
        if prompt is not None:
            raise ValueError("prompt is for zero-shot tasks; LongVALE's questions are as published")
        references = annotations_path(data, split)
        asked = [q for annotation in load_annotations(references).values() for q in questions(annotation, tasks)]
    settings["annotations"] = _digest(references.read_bytes())
    if not asked:
        raise ValueError(f"{references}: asks no {' or '.join(tasks)} question; none of its videos has events")
    chosen = set(list(dict.fromkeys(question.video_id for question in asked))[:limit])
    return references, [question for question in asked if question.video_id in chosen], settings


def without_input(
    asked: Sequence[Question], inputs: VideoInputs, references: Path, *, skip_missing: bool = False
) -> dict[str, str]:
    """The videos that have no input or a damaged one, with the reason; they are refused now, not hours later.

    Raises:
        FileNotFoundError: naming the file that is missing, unless those are to be skipped.
        ValueError: naming the file that is damaged, unless those are to be skipped; or if no video is left.
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
    """Warn of videos that are not as long as their annotations: their times cannot be right."""
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
    """Let an answerer answer questions into a log; see [`generate`].

    Args:
        answerer: such as [`LongVALEAnswerer`].
        asked: the questions, those about a video together.
        output: log to write, or to go on with.
        settings: what a manifest says of the questions.
        processes: this process among all.
        inputs: what the videos are, see [`AnswerLog`].
        skipped: why nothing is to be asked about a video, by its id.
        skip_missing: leave out, too, what turns out to be unreadable on the way, and questions without an answer.
        overwrite: begin anew if the log exists.
        progress: show a progress bar, of the first process.

    Raises:
        Locked: if another run writes the log.
        NoAnswer: if the model wrote no answer to some questions and they are not to be left out, or to many in a row.
        ValueError: if `output` was made with other settings, or a video cannot be read.
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
        with log:
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

    mine = [question.key for block in blocks for question in block]
    of_all = f" of process 1 of {processes.count}" if processes.count > 1 else ""
    with tqdm(
        total=len(mine),
        initial=sum(key in log.done for key in mine),
        desc=f"answers{of_all}",
        unit="question",
        disable=not progress or processes.rank > 0,
    ) as bar:
        patience = Patience(_MAX_UNANSWERED)
        for block in blocks:
            while block:
                try:
                    for batch in answerer.answer(block, log.done.keys()):
                        # What a kill left of a batch was asked as the whole batch again: rounding cannot differ.
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
                    block = [question for question in block if question.video_id != error.video_id]


def _note_unanswered(answers: Iterable[Prediction | Unanswered], log: AnswerLog, patience: Patience) -> None:
    """Keep what has no answer out of the log and count it; a model that answers nothing at all ends the run."""
    for answer in answers:
        if isinstance(answer, Prediction):
            patience.used()
            continue
        log.unanswered[answer.key] = answer.reason
        try:
            patience.refused(answer.reason)
        except NoAnswer as error:
            raise NoAnswer(f"{log.path}: {error}; what was answered is kept") from None


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


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one perhaps shorter (`itertools.batched` needs Python 3.12)."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _videos_folder(
    data: str | os.PathLike, videos: str | os.PathLike | None, adapter: AdapterOptions | None
) -> str | os.PathLike | None:
    """The folder of raw videos that an adapter needs; without one, what is asked for."""
    return Path(data, "videos") if adapter is not None and videos is None else videos


def _check_folder(path: str | os.PathLike) -> None:
    if not Path(path).is_dir():
        raise FileNotFoundError(f"{path}: no such folder")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
