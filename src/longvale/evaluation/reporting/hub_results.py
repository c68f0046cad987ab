"""Scores in the format of the Hub: `.eval_results/*.yaml` of a model, shown on its page and on the dataset's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...data.sources import HUB_REPO, HUB_REVISION
from ...io import atomic_write
from ...tasks import TASKS
from ..scoring.score import TABLE
from .published import TEST_QUESTIONS

#: Path of the file in a model's repository.
RESULTS_FILE = Path(".eval_results", "longvale.yaml")


def save_hub_results(folder: str | os.PathLike, scores: Mapping[str, Any]) -> Path | None:
    """Write the scores of the LongVALE test split for the Hub, replacing those of an earlier evaluation.

    Args:
        folder: folder of the model's repository, with its card.
        scores: scores of an evaluation, as in `scores.json`. A task counts if the whole test split was asked.

    Returns:
        Path of the file; None, and nothing is written, if no task was asked about the whole test split.
    """
    import yaml
    from huggingface_hub import eval_result_entries_to_yaml

    entries = hub_results(scores)
    if not entries:
        return None
    path = Path(folder, RESULTS_FILE)
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path) as file:
        yaml.safe_dump(eval_result_entries_to_yaml(entries), file, sort_keys=False)
    return path


def hub_results(scores: Mapping[str, Any]) -> list[Any]:
    """Return `huggingface_hub.EvalResultEntry` of each score that tables show, times 100.

    The id of a task is that of the task and the name of the score, such as `grounding/mIoU`.

    Args:
        scores: as for [`save_hub_results`].

    Example:
        >>> counts = {"grounding": {"questions": 13_867, "answers": 13_867, "missing": 0, "parsed_share": 0.995}}
        >>> scores = {"protocol": "strict", "grounding": {"mIoU": 0.11}, "counts": counts}
        >>> entry, = hub_results(scores)
        >>> entry.dataset_id, entry.task_id, entry.value, entry.notes
        ('ttgeng233/LongVALE', 'grounding/mIoU', 11.0, 'protocol strict, 99.5% of the answers parsed')
    """
    from huggingface_hub import EvalResultEntry

    found = []
    for task in TASKS:
        counts = scores.get("counts", {}).get(task)
        if task not in scores or counts["questions"] != TEST_QUESTIONS[task] or counts["missing"]:
            continue
        notes = f"protocol {scores['protocol']}, {counts['parsed_share']:.1%} of the answers parsed"
        if times := scores.get("times"):
            notes += f", times asked as {times}"
        found += [
            EvalResultEntry(
                dataset_id=HUB_REPO,
                dataset_revision=HUB_REVISION,
                task_id=f"{task}/{name}",
                value=round(100 * scores[task][name], 2),
                notes=notes,
            )
            for name in TABLE[task]
            if name in scores[task]
        ]
    return found
