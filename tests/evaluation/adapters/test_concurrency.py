"""Questions to servers, several in flight: the same log, nothing lost, nothing asked twice."""

import itertools
import json
import threading

import pytest
from chat_server import Server, completion, cut_off, send

from longvale import chat_client
from longvale.chat_client import ServerError
from longvale.evaluation.adapters.options import AdapterOptions
from longvale.evaluation.generation.blocks import in_parallel, read_ahead
from longvale.evaluation.generation.generate import generate, load_questions
from longvale.tasks import load_predictions


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Retries follow at once."""
    waits = chat_client.ChatClient.__init__.__kwdefaults__
    monkeypatch.setitem(waits, "sleep", lambda seconds: None)


def reply(handler, body):
    """Answer by the question alone, so that order and number of questions cannot matter."""
    text = body["messages"][0]["content"][-1]["text"]
    start = sum(text.encode()) % 50
    send(handler, 200, completion(f"From {start}% to {start + 20}%, a bell rings."))


class Asked(Server):
    """A server that counts what is in flight, and lets `trouble(number, handler)` answer some requests."""

    def __init__(self, trouble=lambda number, handler: False, together=1):
        self._numbers, self._trouble = itertools.count(), trouble
        self._barrier = threading.Barrier(together)
        self.answered = []
        super().__init__(self._act)

    def _act(self, handler):
        body, number = handler.asked, next(self._numbers)
        if self._barrier.parties > 1 and number < self._barrier.parties:
            self._barrier.wait(timeout=30)  # passes when that many are in flight
        if not self._trouble(number, handler):
            self.answered.append(body["messages"][0]["content"][-1]["text"])
            reply(handler, body)


def run(corpus, output, server, **options):
    adapter = AdapterOptions("server", server.url, frames=2, frame_size=32, times="percent", sound=False, **options)
    return generate("m", corpus, output, adapter=adapter, progress=False)


def count(corpus):
    return len(load_questions(corpus)[1])


def test_the_log_does_not_depend_on_how_many_are_in_flight(tiny_corpus, tmp_path):
    one = run(tiny_corpus, tmp_path / "1.jsonl", Asked(), concurrency=1).read_bytes()
    server = Asked(together=6)
    log = run(tiny_corpus, tmp_path / "6.jsonl", server, concurrency=6)
    assert log.read_bytes() == one and len(server.asked) == count(tiny_corpus)
    assert len({p.answer for p in load_predictions(log)}) > 3


def test_temporary_failures_lose_nothing(tiny_corpus, tmp_path):
    expected = run(tiny_corpus, tmp_path / "p.jsonl", Asked(), concurrency=4).read_bytes()

    troubles = itertools.cycle(
        [lambda handler: send(handler, 429, b"{}", Retry_After="0"), lambda handler: send(handler, 503, b"{}"), cut_off,
         lambda handler: handler.connection.close()]
    )  # fmt: skip
    refused, lock = set(), threading.Lock()

    def trouble(number, handler):
        question = json.dumps(handler.asked)
        with lock:  # each question is refused once: repeated requests could otherwise be refused without end
            if question in refused:
                return False
            refused.add(question)
            respond = next(troubles)
        respond(handler)
        return True

    server = Asked(trouble)
    log = run(tiny_corpus, tmp_path / "q.jsonl", server, concurrency=4)
    assert log.read_bytes() == expected
    assert len(server.answered) == len(refused) == count(tiny_corpus) and len(server.asked) == 2 * count(tiny_corpus)


def test_a_server_that_dies_ends_the_run_and_the_next_one_asks_the_rest(tiny_corpus, tmp_path):
    whole = Asked()
    expected = run(tiny_corpus, tmp_path / "p.jsonl", whole, concurrency=4).read_bytes()
    first = Asked(lambda number, handler: number >= 7 and send(handler, 400, b'{"error": "gone"}') is None)
    with pytest.raises(ServerError, match="gone"):
        run(tiny_corpus, tmp_path / "q.jsonl", first, concurrency=4)
    assert len(load_predictions(tmp_path / "q.jsonl")) == len(first.answered) == 7
    manifest = json.loads((tmp_path / "q.jsonl.run.json").read_text())
    second = Asked()
    (tmp_path / "q.jsonl.run.json").write_text(json.dumps({**manifest, "server": second.url}))
    assert run(tiny_corpus, tmp_path / "q.jsonl", second, concurrency=4).read_bytes() == expected
    assert sorted(first.answered + second.answered) == sorted(whole.answered)  # each once
    assert len(second.asked) == count(tiny_corpus) - 7


def test_a_number_of_questions_below_one(tiny_corpus, tmp_path):
    with pytest.raises(ValueError, match="--concurrency must be 1 or more, not 0"):
        run(tiny_corpus, tmp_path / "p.jsonl", Asked(), concurrency=0)


def test_results_of_what_is_in_progress_come_before_the_error():
    begun, go = [], threading.Event()

    def task(number):
        begun.append(number)
        if number == 1:
            raise ValueError("broken")
        assert number == 0 and go.wait(30)
        return number

    found = in_parallel((lambda n=n: task(n) for n in range(9)), 2)
    threading.Timer(0.05, go.set).start()
    assert next(found) == 0
    with pytest.raises(ValueError, match="broken"):
        next(found)
    assert begun == [0, 1]


def test_videos_are_read_ahead_but_not_all():
    begun = []
    read = read_ahead(range(9), lambda number: begun.append(number) or number, readers=2)
    number, future = next(read)
    assert (number, future.result()) == (0, 0)
    read.close()
    assert set(begun) <= {0, 1, 2}
