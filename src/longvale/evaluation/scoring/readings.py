"""How the replies of a log were read: notations of times, and times after the end of the video."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from ...io import load_json
from ...reading.spans import Notation
from ...tasks import TASKS, Prediction
from ..generation.prediction_log import run_path


def count_readings(answers: Iterable[Prediction]) -> dict[str, Any]:
    """Count the notations in which times were read, see [`longvale.evaluation.adapters.prompts.Reading`].

    Args:
        answers: of one task; those of LongVALE's own model have no reader and are not counted.

    Returns:
        `readers`, the number of answers by notation, and `past_end`, the number of answers with times after the end of
        the video; empty if no answer has a reader.

    Example:
        >>> read = {"read": [[6.0, 30.0]], "duration": 60.0, "reader": "clock"}
        >>> count_readings([Prediction("abc", "grounding", "From 10 to 50.", 0, info=read)])
        {'readers': {'clock': 1}, 'past_end': 0}
    """
    infos = [answer.info for answer in answers if answer.info and "reader" in answer.info]
    if not infos:
        return {}
    readers = Counter(str(info["reader"]) for info in infos if info["reader"] is not None)
    return {"readers": dict(readers.most_common()), "past_end": sum(bool(info.get("past_end")) for info in infos)}


def asked_times(log: str | os.PathLike) -> str | None:
    """Return the format of times that a log's questions asked for, from its manifest; None if it is not recorded."""
    path = run_path(log)
    manifest = load_json(path) if path.is_file() else None
    times = manifest.get("times") if isinstance(manifest, dict) else None
    return times if isinstance(times, str) else None


def format_readings(counts: Mapping[str, Any]) -> list[str]:
    """Format the readings of a task as a line of text; empty if nothing was counted.

    Example:
        >>> format_readings({"answers": 4, "readers": {"seconds": 2, "clock": 1}, "past_end": 1})
        ['read as seconds 50.0%, clock 25.0%; 25.0% past the end of the video']
    """
    if "readers" not in counts:
        return []
    answers = counts["answers"]
    named = ", ".join(f"{name} {count / answers:.1%}" for name, count in counts["readers"].items()) or "nothing"
    return [f"read as {named}; {counts['past_end'] / answers:.1%} past the end of the video"]


def reader_warnings(scores: Mapping[str, Any]) -> list[str]:
    """Return a warning per task most of whose times are in another notation than the questions asked for.

    Args:
        scores: with `times`, the format that was asked for, as [`longvale.evaluation.scoring.score.score`] returns.
    """
    asked, warnings = scores.get("times"), []
    if asked not in get_args(Notation):
        return []
    for task in TASKS:
        readers = scores["counts"].get(task, {}).get("readers")
        if readers and (most := next(iter(readers))) != asked:
            warnings.append(
                f"warning: most times of {task} were read as {most}, but {asked} was asked for; "
                f"compare the replies in the log, or ask with --times {most}"
            )
    return warnings
