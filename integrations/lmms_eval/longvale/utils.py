"""LongVALE's three tasks for lmms-eval: the questions of the published evaluation, scored by longvale's metrics.

`LONGVALE_VIDEOS` names the folder of the videos, `<video_id>.mp4` and the like. Annotations come from the Hub, or from
the `data_dir` of a task's `dataset_kwargs`.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import longvale  # noqa: F401  teaches datasets the name that the tasks give
from longvale.data.sources import index_videos
from longvale.evaluation.scoring.score import TABLE, score_predictions
from longvale.events import Annotation, Event
from longvale.tasks import VIDEO_TOKEN, Prediction, Task

#: An answer, and the row of the data that asked for it, as JSON.
Item = tuple[str, str]


def doc_to_visual(doc: Mapping[str, Any]) -> list[str]:
    """The path of the video.

    Raises:
        FileNotFoundError: if `LONGVALE_VIDEOS` is not set, or the folder has no such video.
    """
    folder = os.environ.get("LONGVALE_VIDEOS")
    if not folder:
        raise FileNotFoundError("LONGVALE_VIDEOS is not set; let it name the folder of the videos")
    videos = _videos(folder)
    if doc["video_id"] not in videos:
        raise FileNotFoundError(f"{Path(folder, doc['video_id'])}.mp4: no such file; add it, or use --limit")
    return [str(videos[doc["video_id"]])]


@cache
def _videos(folder: str) -> dict[str, Path]:
    return index_videos(folder)


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, str] | None = None) -> str:
    """The published question, without the place of the video; `pre_prompt` and `post_prompt` of a model around it."""
    words = lmms_eval_specific_kwargs or {}
    question = doc["question"].replace(VIDEO_TOKEN, "", 1).strip()
    return f"{words.get('pre_prompt', '')}{question}{words.get('post_prompt', '')}"


def _process(task: Task, doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Item]:
    """The answer with its row, under the name of each score: all are of all answers together."""
    item = results[0], json.dumps(doc, sort_keys=True)
    return dict.fromkeys((*TABLE[task], "parsed"), item)


process_grounding = partial(_process, "grounding")
process_dense_captioning = partial(_process, "dense_captioning")
process_segment_captioning = partial(_process, "segment_captioning")


@lru_cache(maxsize=8)
def _scores(task: Task, items: tuple[Item, ...]) -> dict[str, float]:
    """All scores of a task; computed once, since lmms-eval asks for each by itself."""
    videos: dict[str, dict[int, Event]] = {}
    durations: dict[str, float] = {}
    predictions = []
    for answer, row in items:
        doc = json.loads(row)
        number = doc.get("sentence_id")
        predictions.append(Prediction(doc["video_id"], task, answer, number))
        durations[doc["video_id"]] = doc["duration"]
        events = videos.setdefault(doc["video_id"], {})
        for event in doc["events"] if number is None else [doc]:
            place = event["event_id"] if number is None else number
            events[place] = Event(event["start"], event["end"], event.get("caption") or doc["reference"])
    # Rows of one event each, and fewer than all with --limit: what was not asked about has no answer to score.
    annotations = {
        name: Annotation(name, durations[name], tuple(events.get(i, _UNASKED) for i in range(max(events) + 1)))
        for name, events in videos.items()
    }
    scores = score_predictions(predictions, annotations, tasks=[task], partial=True)
    return {**scores[task], "parsed": scores["counts"][task]["parsed_share"]}


#: Stands for an event that was not asked about.
_UNASKED = Event(0.0, 0.001, "")


def _score(task: Task, name: str, items: Sequence[Item]) -> float:
    return _scores(task, tuple(map(tuple, items)))[name]


def _aggregation(task: Task, name: str) -> Callable[[Sequence[Item]], float]:
    return partial(_score, task, name)


for _task, _names in TABLE.items():
    for _name in (*_names, "parsed"):
        globals()[f"{_task}_{_name.replace('@', '_at_').replace('.', '_')}"] = _aggregation(_task, _name)
