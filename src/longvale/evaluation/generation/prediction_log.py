"""The prediction log on disk: appended to during generation, resumable after a kill, sorted at the end."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ...io import load_json
from ...run_log import REMEDY, RunLog, claim, load_settings, save_settings
from ...tasks import Prediction, Question

logger = logging.getLogger(__name__)

#: Settings that are recorded but not compared: a model folder may be moved or written differently, and `weights`
#: distinguishes models. `inputs` are compared per video; `skipped` and `unanswered` are results of the last run.
_NOT_COMPARED = ("model", "inputs", "skipped", "unanswered")

#: Settings that earlier versions did not record: the value that they used, or None if it is not known. A log of such a
#: version is continued with that value, or without a comparison.
_ADDED = {"video_as": "frames", "served_model": None, "prompts": None}


class AnswerLog:
    """A resumable prediction log in the official JSONL format, with one answer per line.

    `<path>.run.json` contains the settings of the run, so that answers of different runs never mix. With several
    processes, the first writes the log and each other process writes a part, `<path>.part1` and so on. The first
    process merges the parts into the log when it finishes or, after a kill, when it starts again.

    Args:
        path: path of the log; its folder is created.
        settings: settings that the answers depend on, as JSON values.
        asked: all questions of the run, in the order of the finished file.
        inputs: content identity per video; answers about a video whose content has changed are dropped and listed in a
            warning. Videos without an entry are not compared.
        overwrite: start over if the log exists.
        part: index of the process; process 0 opens the log before the others do.

    Attributes:
        done: the answers on disk, by [`Question.key`].
        skipped: skipped videos by ID, with the reason; for the manifest.
        unanswered: unanswered questions by key, with the reason; for the manifest.

    Raises:
        ValueError: if the log was written with other settings or by another program, or contains a line that is not an
            answer of this run. An incomplete last line, left by a kill, is dropped.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "predictions.jsonl")
        >>> asked = [Question("abc", "grounding", i, "When?", "") for i in (0, 1)]
        >>> AnswerLog(path, {"model": "m"}, asked).append([Prediction("abc", "grounding", "From 05 to 25.", 1)])
        >>> log = AnswerLog(path, {"model": "m"}, asked)
        >>> [question.sentence_id for question in asked if question.key not in log.done]
        [0]
    """

    def __init__(
        self,
        path: str | os.PathLike,
        settings: Mapping[str, Any],
        asked: Iterable[Question],
        *,
        inputs: Mapping[str, str] | None = None,
        overwrite: bool = False,
        part: int = 0,
    ) -> None:
        self.path = Path(path)
        self.run_path = run_path(self.path)
        self.asked = dict.fromkeys(question.key for question in asked)
        self.skipped: dict[str, str] = {}
        self.unanswered: dict[tuple, str] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if overwrite and part == 0:
            for old in (self.path, self.run_path, *self._parts()):
                old.unlink(missing_ok=True)
        if self.path.is_file() and not self.run_path.is_file():
            raise ValueError(f"{self.path}: exists without {self.run_path.name}, which says how it was made; {REMEDY}")
        # Without weights (a model on a server), only the name distinguishes models.
        recorded = [name for name in _NOT_COMPARED if name != "model" or settings.get("weights")]
        earlier = load_settings(self.run_path) if self.run_path.is_file() else settings
        recorded += [n for n, used in _ADDED.items() if n not in earlier and used in (None, settings.get(n))]
        self._settings = claim(self.run_path, settings, recorded=recorded)
        self._log = self._open(self.path)
        self._own = self._open(self._part(part)) if part else self._log
        self.done = self._log.records
        if part == 0:
            self._log.add()  # the file exists from the start
            self._collect()
            if inputs:
                self._compare_inputs(inputs)

    def _open(self, path: Path) -> RunLog[Prediction]:
        return RunLog(
            path,
            lambda prediction: prediction.key,
            parse=self._parse,
            dump=Prediction.to_log,
            remedy="delete the line, or begin again with --overwrite",
        )

    def _parse(self, line: bytes) -> Prediction:
        prediction = Prediction.from_log(line)
        if prediction.key not in self.asked:
            raise ValueError(f"answers a question that is not asked: {prediction.key}")
        return prediction

    def _compare_inputs(self, inputs: Mapping[str, str]) -> None:
        """Drop the answers about replaced videos, and record the current identities."""
        before = self._settings.get("inputs", {} if not self.done else None)
        if before is None:
            logger.warning(
                "%s: was begun by an earlier version of longvale, which did not record what its videos are: its "
                "answers are taken to be about those that are there now; if one was replaced, give --overwrite",
                self.path,
            )
        elif not isinstance(before, dict):
            raise ValueError(f"{self.run_path}: inputs must be an object; give another --output, or --overwrite")
        known = before or {}
        replaced = {video_id for video_id, identity in inputs.items() if known.get(video_id, identity) != identity}
        if replaced := sorted(replaced & {prediction.video_id for prediction in self.done.values()}):
            logger.warning("%s: asked again because the video was replaced: %s", self.path, ", ".join(replaced))
            self._sort(without=replaced)
        if known != {**known, **inputs}:
            self._save(inputs=dict(sorted({**known, **inputs}.items())))

    def _save(self, **changes: Any) -> None:
        self._settings = {**self._settings, **changes}
        save_settings(self.run_path, self._settings)

    def _part(self, part: int) -> Path:
        return self.path.with_name(f"{self.path.name}.part{part}")

    def _parts(self) -> list[Path]:
        return [path for path in self.path.parent.glob(f"{glob.escape(self.path.name)}.part*") if path.is_file()]

    def _collect(self) -> None:
        """Merge the parts of other processes into the log."""
        for path in sorted(self._parts()):
            self._log.merge(self._open(path))

    def _sort(self, without: Collection[str] = ()) -> None:
        """Rewrite the log in the order of the questions, without the answers about some videos."""
        answers = (self.done[key] for key in self.asked if key in self.done)
        self._log.write([answer for answer in answers if answer.video_id not in without])

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Write answers to disk, so that a kill does not lose them."""
        predictions = list(predictions)
        self._own.add(*predictions)
        self.done.update((prediction.key, prediction) for prediction in predictions)

    def finish(self) -> None:
        """Rewrite the log in the order of the questions; the bytes do not depend on interruptions.

        Questions without an answer are omitted; the manifest lists them as unanswered or their videos as skipped.
        Called by the first process after the others are done.
        """
        self._collect()
        self._sort()
        missing = dict.fromkeys(key[0] for key in self.asked if key not in self.done and key not in self.unanswered)
        left_out = {
            "skipped": {v: self.skipped.get(v, "the process that read it says why") for v in missing},
            "unanswered": {"/".join(map(str, key)): reason for key, reason in self.unanswered.items()},
        }
        if any(self._settings.get(name, {}) != values for name, values in left_out.items()):
            self._save(**left_out)


def format_skipped(log: str | os.PathLike) -> list[str]:
    """Format the skipped videos and the unanswered questions in the manifest of a log, as lines of text."""
    lines, manifest = [], load_json(run_path(log))
    for name, what in (("skipped", "videos, whose questions"), ("unanswered", "questions, which")):
        if left_out := manifest.get(name, {}):
            lines.append(f"{name}: {len(left_out)} {what} count as missing")
            lines += [f"  {item}: {reason}" for item, reason in left_out.items()]
    return lines


def run_path(log: str | os.PathLike) -> Path:
    """Return the path of a log's manifest."""
    return Path(log).with_name(f"{Path(log).name}.run.json")
