"""A server that is busy, slow, broken or gone."""

import pytest
from serving import GOOD, Server, completion, cut_off, send, slow

from longvale.annotation.servers import ServerChat, ServerError

QUESTION = [{"role": "user", "content": "Hello?"}]
SCHEMA = {"type": "object"}


@pytest.fixture
def ask(online):
    """Ask a server of this script -> (answer, server, seconds waited)."""
    servers = []

    def call(*script, **options):
        server = Server(*script)
        servers.append(server)
        waited = []
        chat = ServerChat(server.url, "m", sleep=waited.append, **{"retries": 3, "timeout_s": 5.0, **options})
        return chat(QUESTION, schema=SCHEMA), server, waited

    yield call
    for server in servers:
        server.stop()


def test_an_answer(ask):
    answer, server, waited = ask(GOOD)
    assert answer == GOOD and waited == []
    (asked,) = server.asked
    assert asked["messages"] == QUESTION and asked["model"] == "m" and asked["temperature"] == 0.0
    assert SCHEMA in asked["response_format"].values()


@pytest.mark.parametrize(
    "trouble",
    [
        429,
        500,
        503,
        slow(1.5),
        cut_off,
        lambda handler: send(handler, 200, b"<html>busy</html>"),
        lambda handler: send(handler, 200, b'{"choices": []}'),
        lambda handler: send(handler, 200, completion(None)),
        lambda handler: handler.connection.close(),
    ],
    ids=["429", "500", "503", "slow", "cut off", "HTML", "no choice", "no text", "hangs up"],
)
def test_trouble_that_passes_is_waited_for(ask, trouble):
    answer, server, waited = ask(trouble, trouble, GOOD, timeout_s=0.5)
    assert answer == GOOD and len(server.asked) == 3
    assert 1 <= waited[0] <= 1.1 and 2 <= waited[1] <= 2.2


def test_the_server_says_how_long_to_wait(ask):
    _, _, waited = ask(lambda handler: send(handler, 429, b"{}", Retry_After="7"), GOOD)
    assert 7 <= waited[0] <= 7.7


def test_trouble_that_stays_is_told(ask):
    with pytest.raises(
        ServerError, match=r"m at http://127.*: no answer after 4 attempts \(HTTP 500\); start the server"
    ):
        ask(500)


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_what_waiting_does_not_help_is_told_at_once(ask, status):
    with pytest.raises(ServerError, match="refuses the question"):
        ask(status)


def test_nobody_there(online):
    chat = ServerChat("http://127.0.0.1:9/v1", "m", retries=1, sleep=lambda seconds: None)
    with pytest.raises(ServerError, match="no answer after 2 attempts"):
        chat(QUESTION)


def test_a_token_of_the_hub_is_not_sent_to_other_servers(ask, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    seen = []
    ask(lambda handler: (seen.append(handler.headers["Authorization"]), send(handler, 200, completion(GOOD))))
    assert seen == ["Bearer none"]


def test_offline_mode_is_named():
    with pytest.raises(ServerError, match="HF_HUB_OFFLINE forbids all connections"):
        ServerChat("http://127.0.0.1:9/v1", "m", sleep=lambda seconds: None)(QUESTION)
