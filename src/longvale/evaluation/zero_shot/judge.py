"""A language model as the judge of free answers, as Video-ChatGPT's evaluation has it: right or not, and 0 to 5 points.

The judge is a model of any server of the OpenAI kind, or of Hugging Face's inference providers. What it said is on
disk, resumable like answers are, and is read again when scoring.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...events import parse_json
from ...tasks import Prediction, Question
from ..answer_log import AnswerLog
from ..inference import ChatClient
from .prompting import load_prompt

#: A reply is a short object; so many tokens leave room for a model that explains.
_MAX_TOKENS = 128
#: Asked once more, with this added, when a reply cannot be read.
_AGAIN = "Reply with the JSON object alone."
_OBJECT = re.compile(r"\{[^{}]*\}")
_LOOSE = re.compile(
    r"['\"]?pred['\"]?\s*:\s*['\"]?(yes|no)\b.*?['\"]?score['\"]?\s*:\s*['\"]?([0-5])(?:\.0)?\b", re.I | re.S
)


@dataclass(frozen=True)
class Judge:
    """Who judges, and by which words.

    Args:
        model: name of the model, as the server knows it, or a Hub id.
        base_url: of the server, such as "http://127.0.0.1:8000/v1"; None asks Hugging Face's inference providers.
        prompt: path of a text file with `$question`, `$reference` and `$prediction`; None is ours.
        workers: requests at a time.
        timeout_s: of a request, in seconds.
    """

    model: str
    base_url: str | None = None
    prompt: str | None = None
    workers: int = 4
    timeout_s: float = 120.0


def judge_answers(
    judge: Judge,
    answers: Sequence[Prediction],
    asked: Mapping[tuple, Question],
    references: Mapping[tuple, Sequence[str]],
    log_path: str | os.PathLike,
    *,
    progress: bool = True,
) -> list[Prediction]:
    """Let a model judge answers; what is judged is on disk and is not asked again.

    Args:
        judge: who.
        answers: to judge.
        asked: the questions by key.
        references: the right answers by key; the judge is told the first.
        log_path: JSONL of the replies, in the form of the answers.
        progress: show a progress bar.

    Returns:
        The replies, in the order of the answers.

    Raises:
        ConnectionError: if the server cannot be reached or refuses; what was judged before stays.
        ValueError: if the log is of other answers, another judge or another prompt.
    """
    from tqdm.auto import tqdm

    template = load_prompt("judge", judge.prompt)
    settings = {
        "judge": judge.model,
        "server": judge.base_url,
        "prompt": hashlib.sha256(template.template.encode()).hexdigest()[:16],
        "answers": hashlib.sha256("\n".join(p.to_log() for p in answers).encode(errors="replace")).hexdigest()[:16],
    }
    client = ChatClient(judge.model, judge.base_url, timeout_s=judge.timeout_s)
    given = {answer.key: answer for answer in answers}

    def ask(key: tuple) -> Prediction:
        text = template.substitute(
            question=_bare(asked[key].question), reference=references[key][0], prediction=given[key].answer
        )
        return Prediction(given[key].video_id, given[key].task, _reply(client, text), given[key].sentence_id)

    with AnswerLog(log_path, settings, [asked[answer.key] for answer in answers]) as log:
        todo = [answer.key for answer in answers if answer.key not in log.done]
        bar = tqdm(total=len(answers), initial=len(log.done), desc="judged", unit="answer", disable=not progress)
        with bar, ThreadPoolExecutor(judge.workers) as pool:
            futures = [pool.submit(ask, key) for key in todo]
            try:
                for future in as_completed(futures):
                    log.append([future.result()])
                    bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)  # waits for those under way: they are kept
                whole = [future for future in futures if not future.cancelled() and future.exception() is None]
                log.append(future.result() for future in whole if future.result().key not in log.done)
                raise
    log.finish()
    return [log.done[answer.key] for answer in answers]


def _bare(question: str) -> str:
    return question.partition("\n")[2]


def _reply(client: ChatClient, text: str) -> str:
    """The judge's words; asked a second time if they cannot be read."""
    for words in (text, f"{text}\n{_AGAIN}"):
        reply = client.ask(words, _MAX_TOKENS)
        if read_verdict(reply) is not None:
            break
    return reply


def read_verdict(reply: str) -> tuple[bool, int] | None:
    """Whether a reply says yes, and its points from 0 to 5; None where it says neither.

    Example:
        >>> read_verdict('Sure! {"pred": "yes", "score": 4}'), read_verdict("{'pred': 'no', 'score': 1}")
        ((True, 4), (False, 1))
        >>> read_verdict("I think so.") is None
        True
    """
    for found in _OBJECT.findall(reply):
        try:
            value = parse_json(found)
        except ValueError:
            continue
        pred, score = str(value.get("pred", "")).strip().lower(), value.get("score")
        if pred in ("yes", "no") and isinstance(score, int | float) and 0 <= score <= 5:
            return pred == "yes", round(score)
    match = _LOOSE.search(reply)
    return None if match is None else (match[1].lower() == "yes", int(match[2]))


def score_verdicts(replies: Sequence[Prediction], judge: Judge) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Accuracy, the share of yes, and mean points; a reply that cannot be read counts as no with 0 points.

    Returns:
        `accuracy`, `score`, `unread` replies, `count`, `model`; and a row an answer.
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
    """Where the replies about a log's answers to a task are kept."""
    return Path(f"{predictions_path}.judge.{task}.jsonl")


def choose_judge(model: str | None, base_url: str | None) -> Judge | None:
    """The judge that a command names, or none.

    Raises:
        ValueError: if there is a server and no model.
    """
    if model is None and base_url is not None:
        raise ValueError(f"a judge's server is given ({base_url}) but no judge; name the model with --judge")
    return None if model is None else Judge(model, base_url)
