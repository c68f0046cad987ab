"""A language model as the judge of free-form answers, as in Video-ChatGPT's evaluation: yes or no, and 0 to 5 points.

The judge is a model on any OpenAI-compatible server or on Hugging Face's inference providers. Its replies are written
to a resumable log, which scoring reads again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...chat_client import NoAnswer, Patience
from ...io import parse_json
from ...run_log import fingerprint
from ...tasks import Prediction, Question
from ..generation.prediction_log import AnswerLog
from ..inference import ChatClient
from .prompting import load_prompt

#: Maximum length of a reply in tokens.
MAX_TOKENS = 2048
#: Appended to the prompt for one retry if a reply cannot be parsed.
_AGAIN = "Reply with the JSON object alone."
#: These patterns match in time linear in the length of the reply, without backtracking.
_OBJECT = re.compile(r"\{[^{}]*+\}")
_PRED = re.compile(r"\bpred['\"]?\s{0,8}:\s{0,8}['\"]?(yes|no)\b", re.IGNORECASE)
_SCORE = re.compile(r"\bscore['\"]?\s{0,8}:\s{0,8}['\"]?([0-5])(?:\.0)?\b", re.IGNORECASE)


@dataclass(frozen=True)
class Rubric:
    """What a judge is asked, and how its replies are read.

    Args:
        prompt: name of the prompt template.
        fields: returns the values of the template's fields for an answer.
        read: parses a reply; returns None if it cannot be parsed.
    """

    prompt: str
    fields: Callable[[Prediction], Mapping[str, str]]
    read: Callable[[str], Any]


@dataclass(frozen=True)
class Judge:
    """Model, server and prompt of the judge.

    Args:
        model: name of the model on the server, or a Hub ID.
        base_url: URL of the server, such as "http://127.0.0.1:8000/v1"; None uses Hugging Face's inference providers.
        prompt: path of a text file with `$reference` and `$prediction`, for zero-shot answers also `$question`; None
            uses the built-in prompt.
        workers: number of concurrent requests.
        timeout_s: timeout per complete reply in seconds.
        max_tokens: maximum length of a reply in tokens. The verdict is a short object; the rest allows reasoning.
        token: token of the server; default: the environment variable LONGVALE_JUDGE_TOKEN, if set.
    """

    model: str
    base_url: str | None = None
    prompt: str | None = None
    workers: int = 4
    timeout_s: float = 600.0
    max_tokens: int = MAX_TOKENS
    token: str | None = field(default=None, repr=False)


def judge_answers(
    judge: Judge,
    answers: Sequence[Prediction],
    asked: Mapping[tuple, Question],
    rubric: Rubric,
    log_path: str | os.PathLike,
    *,
    progress: bool = True,
) -> list[Prediction]:
    """Judge answers with a language model; resumable, so that judged answers are not judged again.

    Args:
        judge: the judge.
        answers: answers to judge.
        asked: questions by key.
        rubric: what the judge is asked.
        log_path: log of the replies (JSONL), in the format of the prediction log.
        progress: show a progress bar.

    Returns:
        The replies, in the order of the answers.

    Raises:
        NoAnswer: if some replies contain only reasoning; the other replies are kept.
        ServerError: if the server cannot be reached or returns an error; earlier replies are kept.
        ValueError: if the log belongs to other answers, another judge or another prompt.
    """
    from tqdm.auto import tqdm

    template = load_prompt(rubric.prompt, judge.prompt, needed="prediction")
    token = judge.token or os.environ.get("LONGVALE_JUDGE_TOKEN")
    client = ChatClient(judge.model, judge.base_url, token=token, timeout_s=judge.timeout_s)
    settings: dict[str, Any] = {
        "judge": judge.model,
        "server": client.base_url,
        "prompt": fingerprint(template.template),
        "answers": fingerprint("\n".join(p.to_log() for p in answers)),
    }
    if judge.max_tokens != MAX_TOKENS:  # logs of earlier versions do not contain it
        settings["max_tokens"] = judge.max_tokens
    given, patience = {answer.key: answer for answer in answers}, Patience()

    def ask(key: tuple) -> Prediction | NoAnswer:
        try:
            reply = _reply(client, template.substitute(rubric.fields(given[key])), judge.max_tokens, rubric.read)
        except NoAnswer as error:
            return error
        return Prediction(given[key].video_id, given[key].task, reply, given[key].sentence_id)

    log = AnswerLog(log_path, settings, [asked[answer.key] for answer in answers])
    todo = [answer.key for answer in answers if answer.key not in log.done]
    bar = tqdm(total=len(answers), initial=len(log.done), desc="judged", unit="answer", disable=not progress)
    with bar, ThreadPoolExecutor(judge.workers) as pool:
        futures = [pool.submit(ask, key) for key in todo]
        try:
            for future in as_completed(futures):
                reply = future.result()
                bar.update()
                if isinstance(reply, NoAnswer):
                    patience.refused(str(reply))
                else:
                    patience.used()
                    log.append([reply])
        except BaseException:
            pool.shutdown(cancel_futures=True)  # waits for running requests, whose replies are kept
            whole = [future.result() for future in futures if not future.cancelled() and not future.exception()]
            log.append(r for r in whole if isinstance(r, Prediction) and r.key not in log.done)
            raise
    if patience.reasons:
        raise NoAnswer(
            f"{log.path}: {len(patience.reasons)} of {len(answers)} answers were not judged, the first because of: "
            f"{patience.reasons[0]}; with another limit delete this file first"
        )
    log.finish()
    return [log.done[answer.key] for answer in answers]


def verdict_rubric(asked: Mapping[tuple, Question], references: Mapping[tuple, Sequence[str]]) -> Rubric:
    """Return the rubric of free-form answers.

    Args:
        asked: questions by key.
        references: reference answers by key; the prompt contains the first.
    """

    def fields(answer: Prediction) -> dict[str, str]:
        question = asked[answer.key].question.partition("\n")[2]  # without the video
        return {"question": question, "reference": references[answer.key][0], "prediction": answer.answer}

    return Rubric("judge", fields, read_verdict)


def _reply(client: ChatClient, text: str, max_tokens: int, read: Callable[[str], Any]) -> str:
    """Return the judge's reply; retry once if it cannot be parsed."""
    for words in (text, f"{text}\n{_AGAIN}"):
        reply = client.ask(words, max_tokens)
        if read(reply) is not None:
            break
    return reply


def read_objects(reply: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a reply that contain no other object.

    Example:
        >>> list(read_objects('As follows: {"named": [1], "true": []}.'))
        [{'named': [1], 'true': []}]
    """
    for found in _OBJECT.findall(reply):
        try:
            yield parse_json(found)
        except ValueError:
            continue


def read_verdict(reply: str) -> tuple[bool, int] | None:
    """Parse a reply into yes or no and points from 0 to 5; return None if it cannot be parsed.

    Example:
        >>> read_verdict('Sure! {"pred": "yes", "score": 4}'), read_verdict("{'pred': 'no', 'score': 1}")
        ((True, 4), (False, 1))
        >>> read_verdict("I think so.") is None
        True
    """
    for value in read_objects(reply):
        pred, score = str(value.get("pred", "")).strip().lower(), value.get("score")
        if pred in ("yes", "no") and isinstance(score, int | float) and 0 <= score <= 5:
            return pred == "yes", round(score)
    pred = _PRED.search(reply)
    score = _SCORE.search(reply, pred.end()) if pred else None
    return None if score is None else (pred[1].lower() == "yes", int(score[1]))


def score_verdicts(replies: Sequence[Prediction], judge: Judge) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Compute accuracy (the share of yes) and mean points; a reply that cannot be parsed counts as no with 0 points.

    Returns:
        `accuracy`, `score`, `unread` replies, `count`, `model`; and one row per answer.
    """
    verdicts = [read_verdict(reply.answer) for reply in replies]
    rows = [
        {
            "judge_accuracy": float(verdict is not None and verdict[0]),
            "judge_score": float(verdict[1] if verdict else 0),
        }
        for verdict in verdicts
    ]
    return {
        "accuracy": sum(row["judge_accuracy"] for row in rows) / len(rows),
        "score": sum(row["judge_score"] for row in rows) / len(rows),
        "unread": sum(verdict is None for verdict in verdicts),
        "count": len(rows),
        "model": judge.model,
    }, rows


def judge_log(predictions_path: str | os.PathLike, task: str) -> Path:
    """Return the path of the judge's log for a prediction log and a task."""
    return Path(f"{predictions_path}.judge.{task}.jsonl")


def choose_judge(
    model: str | None, base_url: str | None, max_tokens: int = MAX_TOKENS, timeout_s: float = 600.0
) -> Judge | None:
    """Return the judge selected by command-line options, or None.

    Raises:
        ValueError: if a server is given without a model, or `max_tokens` is below 1.
    """
    if max_tokens < 1:
        raise ValueError(f"--judge-max-tokens must be 1 or more, not {max_tokens}")
    if model is None and base_url is not None:
        raise ValueError(f"a judge's server is given ({base_url}) but no judge; name the model with --judge")
    return None if model is None else Judge(model, base_url, max_tokens=max_tokens, timeout_s=timeout_s)
