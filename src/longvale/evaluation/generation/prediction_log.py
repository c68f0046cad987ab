"""The prediction log on disk: appended to during generation, resumable after a kill, sorted at the end."""

from __future__ import annotations

import glob
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ...io import LONE_SURROGATES, atomic_write, load_json, named_when_full
from ...tasks import Prediction, Question, load_predictions

logger = logging.getLogger(__name__)

#: Settings that are recorded but not compared: a model folder may be moved or written differently, and `weights`
#: distinguishes models. `inputs` are compared per video; `skipped` and `unanswered` are results of the last run.
_NOT_COMPARED = ("model", "inputs", "skipped", "unanswered")


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
        >>> with AnswerLog(path, {"model": "m"}, asked) as log:
        ...     log.append([Prediction("abc", "grounding", "From 05 to 25.", 1)])
        >>> with AnswerLog(path, {"model": "m"}, asked) as log:
        ...     [question.sentence_id for question in asked if question.key not in log.done]
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
        self.part = part
        self.run_path = run_path(self.path)
        self.asked = [question.key for question in asked]
        self.done: dict[tuple, Prediction] = {}
        self.skipped: dict[str, str] = {}
        self.unanswered: dict[tuple, str] = {}
        self._file: IO[str] | None = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if overwrite and part == 0:
            for old in (self.path, self.run_path, *self._parts()):
                old.unlink(missing_ok=True)
        self._settings = self._check_settings(json.loads(json.dumps(settings)))
        if part == 0:
            self._collect()
        if self.path.is_file():
            self._read()
        if part == 0 and inputs:
            self._compare_inputs(inputs)

    def _check_settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of the run that started the log, or write and return `settings` if the log is new."""
        remedy = "give another --output, or --overwrite"
        if self.run_path.is_file():
            before = load_json(self.run_path)
            if not isinstance(before, dict):
                raise ValueError(f"{self.run_path}: must be an object of settings; {remedy}")
            # Without weights (a model on a server), only the name distinguishes models.
            recorded = _NOT_COMPARED if settings.get("weights") else [n for n in _NOT_COMPARED if n != "model"]
            for name in {**before, **settings}:
                if name not in recorded and before.get(name) != settings.get(name):
                    raise ValueError(
                        f"{self.path}: was made with {name} {before.get(name)!r}, not {settings.get(name)!r}; {remedy}"
                    )
            return before
        if self.path.is_file():
            raise ValueError(f"{self.path}: exists without {self.run_path.name}, which says how it was made; {remedy}")
        self._write_settings(settings)
        return settings

    def _write_settings(self, settings: Mapping[str, Any]) -> None:
        with atomic_write(self.run_path) as file:
            json.dump(settings, file, indent=2)
            file.write("\n")

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
            self.done = {key: value for key, value in self.done.items() if value.video_id not in replaced}
            self._write_log()
        if known != {**known, **inputs}:
            self._settings = {**self._settings, "inputs": dict(sorted({**known, **inputs}.items()))}
            self._write_settings(self._settings)

    def _parts(self) -> list[Path]:
        return [path for path in self.path.parent.glob(f"{glob.escape(self.path.name)}.part*") if path.is_file()]

    def _collect(self) -> None:
        """Merge the parts of other processes into the log; an incomplete last line of any file is dropped."""
        if self.path.is_file():
            os.truncate(self.path, len(_whole_lines(self.path)))
        for path in sorted(self._parts()):
            with self.path.open("ab") as file:
                file.write(_whole_lines(path))
            path.unlink()

    def _read(self) -> None:
        if not _whole_lines(self.path).strip():
            return
        asked = set(self.asked)
        for prediction in load_predictions(self.path):
            if prediction.key not in asked:
                raise ValueError(
                    f"{self.path}: answers a question that is not asked: {prediction.key}; begin again with --overwrite"
                )
            # A kill between merging a part and removing it leaves the same answers twice.
            if self.done.setdefault(prediction.key, prediction) != prediction:
                raise ValueError(
                    f"{self.path}: answers twice, and differently: {prediction.key}; begin again with --overwrite"
                )

    def __enter__(self) -> AnswerLog:
        path = self.path.with_name(f"{self.path.name}.part{self.part}") if self.part else self.path
        self._file = path.open("a", encoding="utf-8", errors=LONE_SURROGATES, newline="\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with named_when_full(self._file.name):
            self._file.close()

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Write answers and flush them to the operating system, so that a kill does not lose them."""
        with named_when_full(self._file.name):
            for prediction in predictions:
                self._file.write(prediction.to_log() + "\n")
                self.done[prediction.key] = prediction
            self._file.flush()

    def finish(self) -> None:
        """Rewrite the log in the order of the questions; the bytes do not depend on interruptions.

        Questions without an answer are omitted; the manifest lists them as unanswered or their videos as skipped.
        Called by the first process after the others are done.
        """
        if self._parts():
            self._collect()
            self._read()
        self._write_log()
        missing = dict.fromkeys(key[0] for key in self.asked if key not in self.done and key not in self.unanswered)
        left_out = {
            "skipped": {v: self.skipped.get(v, "the process that read it says why") for v in missing},
            "unanswered": {"/".join(map(str, key)): reason for key, reason in self.unanswered.items()},
        }
        if any(self._settings.get(name, {}) != values for name, values in left_out.items()):
            self._settings = {**self._settings, **left_out}
            self._write_settings(self._settings)

    def _write_log(self) -> None:
        with atomic_write(self.path) as file:
            file.writelines(self.done[key].to_log() + "\n" for key in self.asked if key in self.done)


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


def _whole_lines(path: Path) -> bytes:
    lines = path.read_bytes().rpartition(b"\n")
    return lines[0] + lines[1]
