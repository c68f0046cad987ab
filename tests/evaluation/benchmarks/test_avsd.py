import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fake_longvale import FakeModel, FakeProcessor

from longvale.chat_client import NoAnswer
from longvale.evaluation.benchmarks.avsd import load_dialogues, questions
from longvale.evaluation.benchmarks.judge import Judge, read_verdict
from longvale.evaluation.evaluate import evaluate
from longvale.evaluation.scoring.score import format_scores, score


def write_log(path, answers, task="avsd", turn=2):
    lines = [
        {"video_id": video_id, "task": task, "answer": text, "info": {"turn": turn}}
        for video_id, text in answers.items()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_last_question_comes_with_what_was_said(avsd):
    dialogues = load_dialogues(avsd / "test_set4DSTC7-AVSD.json")
    last, first = questions(dialogues[:1], ["avsd", "avsd_first"])
    assert last.question == (
        "<video>\nQuestion: is it day ?\nAnswer: yes it is day\nQuestion: who is there ?\nAnswer: a man is there\n"
        "Question: does he speak ?\nAnswer in one short sentence."
    )
    assert (last.sentence_id, first.sentence_id) == (2, 0)
    assert first.question == "<video>\nQuestion: is it day ?\nAnswer in one short sentence."


def test_both_forms_of_the_file(avsd, tmp_path):
    official = load_dialogues(avsd / "valid_set4DSTC7-AVSD.json")
    later = {
        d.video_id: {"summary": "", "data": [{"question": q, "answer": a, "id": 0} for q, a in d.turns], "split": "val"}
        for d in official
    }
    (tmp_path / "avsd_val.json").write_text(json.dumps(later))
    assert load_dialogues(tmp_path / "avsd_val.json") == official


def test_undisclosed_answers_are_scored_by_the_references_beside(avsd, tmp_path):
    references = avsd / "test_set4DSTC7-AVSD.json"
    log = write_log(tmp_path / "log", {"7UPGT": "he never speaks", "AB12C": "no , not a word"})
    scores = score(log, references)["avsd"]
    assert scores["BLEU_1"] == pytest.approx(1) and scores["ROUGE_L"] == pytest.approx(1)
    assert scores["METEOR"] == pytest.approx(1, abs=1e-3) and scores["CIDEr"] > 1
    worse = score(write_log(tmp_path / "w", {"7UPGT": "yes", "AB12C": "a dog"}), references)["avsd"]
    assert worse["CIDEr"] < scores["CIDEr"] and worse["BLEU_1"] < 0.5
    (avsd / "test_set4DSTC7-AVSD_multiref.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_set4DSTC7-AVSD_multiref\.json: no such file"):
        score(log, references)


def test_evaluate(avsd, tmp_path):
    options = {"tasks": ["avsd", "avsd_first"], "split": "validation", "progress": False}
    scores = evaluate((FakeModel(), FakeProcessor()), avsd, tmp_path / "out", **options)
    assert scores["avsd"]["count"] == scores["avsd_first"]["count"] == 2
    assert "AVSD: the first question" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(ValueError, match="the ablation is of LongVALE's grounding"):
        evaluate((FakeModel(), FakeProcessor()), avsd, tmp_path / "out", with_ablation=True, **options)


class Server:
    """A server of the OpenAI kind that says yes where the prediction stands in its `right`."""

    def __init__(self):
        self.right, self.requests, self.garbled, self.healthy, self.thinking = set(), [], 0, 1000, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append({"path": self.path, **body})
                text = body["messages"][0]["content"]
                prediction = text.partition("Predicted answer: ")[2].partition("\n")[0]
                right = prediction in outer.right
                reply = json.dumps({"pred": "yes" if right else "no", "score": 5 if right else 1})
                if outer.garbled:
                    outer.garbled, reply = outer.garbled - 1, "As a language model I cannot tell."
                if outer.thinking:
                    outer.thinking, reply = outer.thinking - 1, f"<think>{reply}"
                choice = {"index": 0, "message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}
                answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice]}
                content = json.dumps(answer).encode()
                self.send_response(200 if len(outer.requests) <= outer.healthy else 500)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch):
    """A judge that is not waited for."""
    monkeypatch.setattr("longvale.chat_client._MAX_BACKOFF_S", 0)
    running = Server()
    yield running
    running.close()


def test_a_model_judges_and_is_asked_once(avsd, tmp_path, server):
    references = avsd / "valid_set4DSTC7-AVSD.json"
    log = write_log(tmp_path / "log", {"7UPGT": "he is silent", "AB12C": "yes he sings"})
    server.right = {"he is silent"}
    judge = Judge("small-judge", server.url, workers=1)
    scores = score(log, references, judge=judge, progress=False)
    judged = {"accuracy": 0.5, "score": 3.0, "unread": 0, "count": 2, "model": "small-judge"}
    assert scores["avsd"]["judge"] == judged
    first, _ = server.requests
    assert first["path"] == "/v1/chat/completions" and first["model"] == "small-judge" and first["temperature"] == 0
    words = first["messages"][0]["content"]
    assert "does he speak ?" in words and "Right answer: no he does not" in words and "he is silent" in words
    assert "judged by small-judge: accuracy 50.00, score 3.00 of 5" in format_scores(scores)
    assert score(log, references, judge=judge, progress=False) == scores and len(server.requests) == 2
    with pytest.raises(ValueError, match="was made with judge 'small-judge', not 'other'"):
        score(log, references, judge=Judge("other", server.url), progress=False)
    with pytest.raises(ValueError, match=r"was made with server 'http://127.*', not 'http://elsewhere/v1'"):
        score(log, references, judge=Judge("small-judge", "http://elsewhere/v1"), progress=False)


def test_replies_that_cannot_be_read_are_asked_again_and_counted(avsd, tmp_path, server):
    references = avsd / "valid_set4DSTC7-AVSD.json"
    log = write_log(tmp_path / "log", {"7UPGT": "he is silent", "AB12C": "he is silent"})
    server.right, server.garbled = {"he is silent"}, 3
    judge = score(log, references, judge=Judge("j", server.url, workers=1), progress=False)["avsd"]["judge"]
    assert (judge["accuracy"], judge["score"], judge["unread"], judge["count"]) == (0.5, 2.5, 1, 2)
    assert len(server.requests) == 4


def test_a_judge_that_only_reasons_is_counted_and_not_logged(avsd, tmp_path, server):
    """What was judged stays; the same command asks about the rest."""
    references = avsd / "valid_set4DSTC7-AVSD.json"
    log = write_log(tmp_path / "log", {"7UPGT": "he is silent", "AB12C": "no"})
    server.thinking = 1
    judge = Judge("j", server.url, workers=1)
    words = r"log.judge.avsd.jsonl: 1 of 2 answers were not judged, .*only reasoning.*--judge-max-tokens.* delete"
    with pytest.raises(NoAnswer, match=words):
        score(log, references, judge=judge, progress=False)
    assert len((tmp_path / "log.judge.avsd.jsonl").read_text().splitlines()) == 1
    server.requests.clear()
    assert score(log, references, judge=judge, progress=False)["avsd"]["judge"]["count"] == 2
    assert len(server.requests) == 1 and server.requests[0]["max_tokens"] == 2048
    with pytest.raises(ValueError, match="was made with max_tokens None, not 9"):
        score(log, references, judge=Judge("j", server.url, max_tokens=9), progress=False)


def test_a_judge_that_fails_leaves_what_was_judged(avsd, tmp_path, server, longvale):
    references = avsd / "valid_set4DSTC7-AVSD.json"
    log = write_log(tmp_path / "log", {"7UPGT": "he is silent", "AB12C": "no"})
    server.healthy = 1  # request
    arguments = ("score", log, "--references", references, "--judge", "j", "--judge-url", server.url)
    result = longvale(*arguments)
    assert result.exit_code == 2 and "j at http://127.0.0.1" in result.stderr, result.stderr
    assert len((tmp_path / "log.judge.avsd.jsonl").read_text().splitlines()) == 1
    server.healthy, server.requests = 1, []
    assert longvale(*arguments).exit_code == 0 and len(server.requests) == 1
    server.close()
    assert longvale(*arguments).exit_code == 0  # all is judged already
    missing = longvale("score", log, "--references", references, "--judge-url", server.url)
    assert missing.exit_code == 2 and "name the model with --judge" in missing.stderr


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ('{"pred": "yes", "score": 4}', (True, 4)),
        ("```json\n{'pred': 'no', 'score': 0}\n```", (False, 0)),
        ('{"pred": "Yes", "score": 4.8} because', (True, 5)),
        ('{"pred": "yes", "score": 7}', None),
        ('{"pred": "maybe", "score": 1}', None),
        ("yes", None),
        ("{" * 5000, None),
        ('{"pred": "yes"}', None),
        ("pred: no\nbecause it differs, so score: 2", (False, 2)),
        ("score: 2, pred: no", None),
    ],
)
def test_verdicts(reply, verdict):
    assert read_verdict(reply) == verdict


@pytest.mark.timeout(60)  # a quadratic pattern would take hours
@pytest.mark.parametrize("unit", ["pred: yes ", "{", "'pred':'yes' 'score'", "{a", "pred" + " " * 9])
def test_long_replies_are_read_in_linear_time(unit):
    assert read_verdict(unit * 200_000) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must be an object with a list of 'dialogs'"),
        ({"dialogs": []}, "holds no dialogue"),
        ({"dialogs": [{"image_id": "a", "dialog": []}]}, "dialogue 0: field 'dialog' must be a list of turns"),
        ({"dialogs": [{"image_id": "a", "dialog": [{"question": "x"}]}]}, "turn 0: field 'answer' must be a text"),
        ({"dialogs": [3]}, "dialogue 0: video id must be a text"),
        ({"a/b": {"data": [{"question": "x", "answer": "y"}]}}, "must not hold a path"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, content, message):
    (tmp_path / "f.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load_dialogues(tmp_path / "f.json")
