"""Questions and answers in the formats of other projects, for evaluation and training there.

Sources of the formats: the custom datasets of ms-swift (`messages`, `videos`), the multimodal datasets of LLaMA-Factory
(`dataset_info.json`), the tasks of lmms-eval, the Batch API of OpenAI, which `vllm run-batch` takes, too.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..data.sources import index_videos, load_videos
from ..events import Annotation
from ..io import atomic_write
from ..registry import time_formats
from ..system.names import look_up
from ..tasks import TASKS, VIDEO_TOKEN, Question, check_tasks, questions
from .adapters.messages import text_part, video_part
from .adapters.prompts import word_answer, word_question
from .adapters.time_formats import TimeFormat
from .generation.generate import Split, annotations_path
from .generation.model import token_limits


@dataclass(frozen=True)
class AskedQuestion:
    """A question in the words of a time format.

    Args:
        question: the question of the benchmark.
        text: its words, without the video.
        answer: the answer of the annotation, with times in the format.
        video: path of the file.
    """

    question: Question
    text: str
    answer: str
    video: Path

    @property
    def id(self) -> str:
        """Return `VIDEO/TASK/EVENT`, by which `longvale score` matches answers with questions."""
        video_id, task, index = self.question.key
        return f"{video_id}/{task}" if index is None else f"{video_id}/{task}/{index}"


def export_questions(
    data: str | os.PathLike,
    output: str | os.PathLike,
    to: str,
    *,
    times: str = "seconds",
    split: Split = "test",
    tasks: Iterable[str] = TASKS,
    videos: str | os.PathLike | None = None,
    model: str | None = None,
) -> list[Path]:
    """Write the questions of a split, with the answers of the annotations, in the format of another project.

    With the training split of a project that trains, `train.yaml` is written, too: settings that its command takes.

    Args:
        data: folder of official files or of `longvale annotate`.
        output: folder to write.
        to: one of [`QUESTION_FORMATS`].
        times: name of a registered time format, of questions and answers.
        split: "test" or "train".
        tasks: tasks of LongVALE.
        videos: folder of the videos; default: `videos` in `data`. Files contain absolute paths.
        model: name of the model in the requests of a batch.

    Returns:
        The paths of the files.

    Raises:
        FileNotFoundError: if a file of the data or a video is missing.
        ValueError: if an option is unknown, or a file is invalid.
    """
    if to not in QUESTION_FORMATS:
        raise ValueError(f"unknown format {to!r}; --to must be one of {', '.join(QUESTION_FORMATS)}")
    if (to == "openai-batch") != (model is not None):
        needed = "needs --model NAME, the model of the requests" if model is None else "has no model; leave out --model"
        raise ValueError(f"--to {to} {needed}")
    chosen = check_tasks(tasks)
    if foreign := [task for task in chosen if task not in TASKS]:
        raise ValueError(f"task {foreign[0]} is of another benchmark; expected some of {', '.join(TASKS)}")
    form, found = time_formats.create(times), index_videos(videos or Path(data, "videos"))
    asked = [
        question
        for annotation in load_videos(annotations_path(data, split))
        for question in _word(annotation, chosen, form, found, Path(videos or Path(data, "videos")))
    ]
    if not asked:
        raise ValueError(f"{data}: {split}: asks no {' or '.join(chosen)} question")
    folder = Path(output).resolve()
    base = folder / f"longvale_{split}"
    written = QUESTION_FORMATS[to](asked, base, model)
    if split == "train" and to in TRAINERS:
        words = {"DATASET": f"{base}.jsonl", "FOLDER": str(folder), "NAME": base.name, "OUTPUT": str(folder / "tuned")}
        written["train.yaml"] = _template(f"{to}/train.yaml", **words)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in written.items():
        with atomic_write(folder / name) as file:
            file.write(text)
    return [Path(output, name) for name in written]


def _word(
    annotation: Annotation, tasks: Iterable[Any], form: TimeFormat, videos: Mapping[str, Path], root: Path
) -> Iterator[AskedQuestion]:
    path = look_up(videos, annotation.video_id)
    if annotation.events and path is None:
        raise FileNotFoundError(f"{root / annotation.video_id}.mp4: no such file; add it, or give --videos")
    for question in questions(annotation, tasks):
        text = word_question(question, {annotation.video_id: annotation}, form)
        answer = word_answer(question, annotation, form)
        yield AskedQuestion(question, text, answer, path.resolve())


def _messages(asked: AskedQuestion) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"{VIDEO_TOKEN}{asked.text}"},
        {"role": "assistant", "content": asked.answer},
    ]


def _swift(asked: Iterable[AskedQuestion], base: Path, model: str | None) -> dict[str, str]:
    """Return the standard format of ms-swift: `swift sft --dataset FILE`, or `swift infer --val_dataset FILE`."""
    rows = ({"id": row.id, "messages": _messages(row), "videos": [str(row.video)]} for row in asked)
    return {f"{base.name}.jsonl": _lines(rows)}


def _llamafactory(asked: Iterable[AskedQuestion], base: Path, model: str | None) -> dict[str, str]:
    """Return a dataset of LLaMA-Factory and its entry in `dataset_info.json`, which `dataset_dir` names."""
    info = {
        base.name: {
            "file_name": f"{base.name}.json",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "videos": "videos"},
            "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
        }
    }
    rows = [{"messages": _messages(row), "videos": [str(row.video)]} for row in asked]
    return {f"{base.name}.json": _json(rows), "dataset_info.json": _json(info)}


def _lmms_eval(asked: Iterable[AskedQuestion], base: Path, model: str | None) -> dict[str, str]:
    """Return the rows and a task of lmms-eval, `--include_path DIR --tasks NAME --log_samples`."""
    rows = ({"id": row.id, "video": str(row.video), "question": row.text, "answer": row.answer} for row in asked)
    task = _template("lmms_eval/task.yaml", NAME=base.name, FILE=f"{base}.jsonl")
    utils = _template("lmms_eval/utils.py.txt")
    return {f"{base.name}.jsonl": _lines(rows), f"{base.name}.yaml": task, "utils.py": utils}


def _openai_batch(asked: Iterable[AskedQuestion], base: Path, model: str | None) -> dict[str, str]:
    """Return requests of a batch, `vllm run-batch -i FILE`; videos are `file://` links."""
    limits = token_limits(None, TASKS)
    requests = (
        {
            "custom_id": row.id,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": model,
                "messages": [{"role": "user", "content": [_link(row.video), text_part(row.text)]}],
                "max_tokens": limits[row.question.task],
                "temperature": 0.0,
            },
        }
        for row in asked
    )
    return {f"{base.name}.jsonl": _lines(requests)}


def _link(path: Path) -> dict[str, Any]:
    part = video_part(path, path.parent, None, "")
    return {name: part[name] for name in ("type", "video_url")}


def _template(name: str, **values: str) -> str:
    """Return a file of the package with its words in capitals replaced: quoted as YAML takes them."""
    text = (files(__package__) / "templates" / name).read_text(encoding="utf-8")
    for word, value in values.items():
        text = re.sub(rf"\b{word}\b", json.dumps(value).replace("\\", r"\\"), text)
    return text


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


#: Formats of questions by project: the files' texts by name, of the questions, the path without a suffix and the model.
QUESTION_FORMATS: dict[str, Callable[[Iterable[AskedQuestion], Path, str | None], dict[str, str]]] = {
    "swift": _swift,
    "llamafactory": _llamafactory,
    "lmms-eval": _lmms_eval,
    "openai-batch": _openai_batch,
}

#: Projects that train, with settings in `templates/PROJECT/train.yaml`.
TRAINERS = ("swift", "llamafactory")
