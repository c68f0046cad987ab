"""A server that is busy, slow, broken, hostile or gone, and replies of every form."""

import asyncio
import json
import pickle
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from chat_server import GOOD, Server, completion, cut_off, drip, drip_headers, endless, redirect, send, slow

from longvale import chat_client
from longvale.chat_client import ChatClient, NoAnswer, Patience, ServerError
from longvale.chat_replies import retry_after
from longvale.evaluation.inference import ChatClient as OneQuestion

QUESTION = [{"role": "user", "content": "Hello?"}]
SCHEMA = {"type": "object"}


@pytest.fixture
def serve():
    """Start a server of a script."""
    servers = []

    def start(*script):
        servers.append(Server(*script))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def ask(serve):
    """Ask a server of this script -> (answer, server, seconds waited)."""

    def call(*script, schema=None, **options):
        server, waited = serve(*script), []
        chat = ChatClient("m", server.url, sleep=waited.append, **{"retries": 3, "timeout_s": 5.0, **options})
        return chat(QUESTION, schema=schema), server, waited

    return call


def reply(body, status=200, **headers):
    return lambda handler: send(handler, status, body, **headers)


def test_an_answer(ask):
    answer, server, waited = ask(GOOD)
    assert answer == GOOD and waited == []
    assert server.asked == [{"model": "m", "messages": QUESTION, "max_tokens": 512, "temperature": 0.0}]


def test_the_longest_answer_is_that_of_the_user_or_of_the_task(serve):
    server = serve(GOOD)
    ChatClient("m", server.url)(QUESTION, max_tokens=7)
    ChatClient("m", server.url, max_tokens=9)(QUESTION, max_tokens=7)
    OneQuestion("m", server.url).ask("Hello?", 5)
    assert [body["max_tokens"] for body in server.asked] == [7, 9, 5] and server.asked[2]["messages"] == QUESTION


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1/", "http://h:1/v1/chat/completions"),
        ("https://h/proxy", "https://h/proxy/v1/chat/completions"),
        ("https://h/v1beta/openai", "https://h/v1beta/openai/chat/completions"),
        ("https://h/v1/chat/completions?api-version=1", "https://h/v1/chat/completions?api-version=1"),
    ],
)
def test_where_completions_are(base_url, url):
    assert chat_client._completions_url(base_url) == url


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://h/v1", "http://", "http://h:port/v1", "http://[::1/v1", ""]
)
def test_what_is_not_the_url_of_a_server_is_refused(url):
    with pytest.raises(ValueError, match="the URL of a server must look like http://HOST:8000/v1"):
        ChatClient("m", url)


# --- tokens ---


def test_a_token_of_the_hub_is_not_sent_to_other_servers(ask, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    _, server, _ = ask(GOOD)
    assert server.tokens == [None]
    _, server, _ = ask(GOOD, token="mine\n")
    assert server.tokens == ["Bearer mine"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_token_does_not_follow_to_another_host(serve, monkeypatch, status):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    other = serve(GOOD)
    first = serve(redirect(f"{other.url}/chat/completions", status))
    assert ChatClient("m", first.url, token="mine")(QUESTION) == GOOD
    assert first.tokens == ["Bearer mine"] and other.tokens == [None] and other.asked == first.asked
    same = serve(redirect("/v1/elsewhere", status), GOOD)
    ChatClient("m", same.url, token="mine")(QUESTION)
    assert same.tokens == ["Bearer mine"] * 2


def test_the_token_of_the_hub_goes_to_hugging_face_alone(serve, monkeypatch):
    """Also there it does not follow to another host; offline nothing is asked."""
    with pytest.raises(ServerError, match="m at Hugging Face: HF_HUB_OFFLINE is set"):
        ChatClient("m")(QUESTION)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    other = serve(GOOD)
    hub = serve(redirect(other.url))
    monkeypatch.setattr(chat_client, "PROVIDERS_URL", hub.url)
    assert ChatClient("m")(QUESTION) == GOOD
    assert hub.tokens == ["Bearer hf_secret"] and other.tokens == [None]


def test_secrets_of_an_url_or_a_token_are_not_printed():
    chat = ChatClient("m", "http://me:secret@127.0.0.1:9/v1?key=secret", retries=0, sleep=lambda seconds: None)
    with pytest.raises(ServerError) as error:
        chat(QUESTION)
    assert "secret" not in f"{chat.name} {chat.base_url} {error.value}" and chat.base_url == "http://127.0.0.1:9/v1"
    with pytest.raises(ValueError, match="characters that no token has") as error:
        ChatClient("m", "http://h/v1", token="sec\nret")
    assert "ret;" not in str(error.value)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (redirect("http://127.0.0.1:9/v1", 303), "redirects to http://127.0.0.1:9/v1"),
        (redirect("file:///etc/passwd"), "redirects to file:/+etc/passwd"),
        (redirect("/v1/round"), "more than 5 redirects"),
    ],
)
def test_redirects_that_are_not_followed(ask, action, message):
    with pytest.raises(ServerError, match=message):
        ask(action)


# --- trouble that passes ---


@pytest.mark.parametrize(
    "trouble",
    [429, 500, 503, 529, cut_off, lambda handler: handler.connection.close()],
    ids=["429", "500", "503", "529", "cut off", "hangs up"],
)
def test_trouble_that_passes_is_waited_for(ask, trouble):
    answer, server, waited = ask(trouble, trouble, GOOD)
    assert answer == GOOD and len(server.asked) == 3
    assert 1 <= waited[0] <= 1.1 and 2 <= waited[1] <= 2.2


def test_an_error_that_says_its_status_passes_too(ask):
    answer, server, _ = ask(reply(b'{"error": {"message": "upstream failed", "code": 502}}'), GOOD)
    assert answer == GOOD and len(server.asked) == 2


@pytest.mark.parametrize(
    "trouble",
    [slow(3), reply(b"<html>busy</html>"), reply(b'{"choices": []}'), reply(completion(None)), reply(completion(" "))],
    ids=["silent", "HTML", "no choice", "no text", "white space"],
)
def test_what_may_have_been_an_accident_is_asked_once_more(ask, trouble):
    answer, server, _ = ask(trouble, GOOD, timeout_s=1)
    assert answer == GOOD and len(server.asked) == 2
    with pytest.raises(ServerError, match=r"m at http://127.*: no answer after 2 attempts"):
        ask(trouble, timeout_s=0.3)


@pytest.mark.parametrize("status", [429, 503])
def test_the_server_says_how_long_to_wait(ask, status):
    _, _, waited = ask(reply(b"{}", status, Retry_After="7"), GOOD)
    assert 7 <= waited[0] <= 7.7
    with pytest.raises(ServerError, match="asks to wait 86400 s: run the same command then"):
        ask(reply(b"{}", status, Retry_After="86400"))


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("-3", 0),
        ("nan", 0),
        ("", 0),
        ("soon", 0),
        ("1e400", float("inf")),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0),
        ("Thu, 01 Jan 2026 12:00:30", 30),
        ("Thu, 99 Jan 2026 12:00:30 GMT", 0),
    ],
)
def test_retry_after(text, seconds):
    assert retry_after({"retry-after": text}, NOON) == seconds


def test_trouble_that_stays_is_said(ask):
    with pytest.raises(
        ServerError, match=r"m at http://127.*: no answer after 4 attempts \(HTTP 500 no\); start the server"
    ):
        ask(500)


def test_nobody_there():
    chat = ChatClient("m", "http://127.0.0.1:9/v1", retries=1, sleep=lambda seconds: None)
    with pytest.raises(ServerError, match="no answer after 2 attempts"):
        chat(QUESTION)


# --- what is refused at once ---


@pytest.mark.parametrize("status", [400, 401, 404, 422, 501])
def test_what_waiting_does_not_help_is_refused_at_once(ask, status):
    with pytest.raises(ServerError, match=f"refuses the question: HTTP {status} no$"):
        ask(status)


@pytest.mark.parametrize("action", [drip, drip_headers], ids=["body", "headers"])
def test_the_deadline_is_of_the_whole_answer(ask, action):
    """Each byte comes in time, the answer never does: a timeout per read would wait for ever."""
    with pytest.raises(ServerError, match=r"no whole answer within 0.4 s.*; raise --timeout"):
        ask(action, timeout_s=0.4)


def test_a_reply_is_bounded(ask, monkeypatch):
    monkeypatch.setattr(chat_client, "_MAX_REPLY_BYTES", 2**20)
    with pytest.raises(ServerError, match="a reply of more than 1 MiB"):
        ask(endless)
    with pytest.raises(ServerError, match="a compressed reply"):
        ask(reply(b"x", Content_Encoding="gzip"))


STREAM = b'data: {"choices": [{"delta": {"content": "From"}}]}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>gateway</html>", "not a chat completion: not JSON"),
        (b"", "not a chat completion: not JSON"),
        (b'{"choices": [{"message": {"content": "\xff"}}]}', "not UTF-8"),
        (b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"choices": ' + b"[" * 100_000, "not a chat completion"),
        (b"[1]", "not an object"),
        (b"{}", "without choices"),
        (b'{"choices": null}', "without choices"),
        (b'{"choices": {}}', "without choices"),
        (b'{"choices": [3]}', "without a message"),
        (b'{"choices": [{"message": null}]}', "without a message"),
        (b'{"choices": [{"text": "as completions, not chats, have it"}]}', "without a message"),
        (b'{"error": "upstream failed"}', "refuses the question: upstream failed"),
        (b'{"error": {"message": "no such model", "code": "404"}}', "refuses the question: HTTP 404 no such model"),
        (b'{"object": "error", "message": "too long", "code": 40303}', "refuses the question: too long"),
        (b'{"error": {"message": "a\\u001b[31mred\\nline"}}', r"refuses the question: a \[31mred line$"),
        (STREAM, "a stream, which was not asked for"),
        (completion(5), "content that is not text but 5"),
        (completion({"text": "x"}), "content that is not text"),
    ],
)
def test_every_malformed_reply_is_one_line_that_names_model_and_server(ask, body, message):
    with pytest.raises(ServerError, match=message) as error:
        ask(reply(body))
    assert str(error.value).startswith("m at http://127.0.0.1:") and "\n" not in str(error.value)
    assert not isinstance(error.value, NoAnswer)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (completion(None, reasoning_content="I think"), "only reasoning and no answer; raise the longest answer"),
        (completion("", reasoning="I think"), "only reasoning"),
        (completion("<think>I think", "length"), "only reasoning"),
        (completion([{"type": "text", "text": "<think>I think"}]), "only reasoning"),
        (completion(None, "length"), "no text within the longest answer; raise"),
        (completion(None, tool_calls=[{"id": "t"}]), "a tool call and no text"),
        (completion(None, refusal="I must not"), "refuses to answer: I must not"),
        (completion(None, "content_filter"), "refuses to answer: content filter"),
        (completion([{"type": "image_url"}]), "an answer without text"),
    ],
)
def test_a_model_that_answers_nothing_is_said(ask, body, message):
    with pytest.raises(NoAnswer, match=message) as error:
        ask(reply(body))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "From 10 "}, {"type": "text", "text": "to 20."}],
        ["From 10 to 20."],
        [{"type": "thinking", "text": "From 1 to 2."}, {"type": "text", "text": "From 10 to 20."}],
        "<think>Perhaps 5?</think>\n\nFrom 10 to 20.",
    ],
)
def test_content_in_parts_is_joined_and_reasoning_dropped(ask, content):
    assert ask(reply(completion(content)))[0] == "From 10 to 20."


# --- schemas ---


def test_a_schema_is_sent_and_left_out_where_it_is_refused(serve):
    def refuses(handler):
        if "response_format" in server.asked[-1]:
            return send(handler, 400, b'{"error": "response_format is not known"}')
        return send(handler, 200, completion(GOOD))

    server = serve(refuses)
    chat = ChatClient("m", server.url)
    assert chat(QUESTION, schema=SCHEMA) == chat(QUESTION, schema=SCHEMA) == GOOD
    first, *others = server.asked
    form = {"name": "answer", "schema": SCHEMA, "strict": True}
    assert first["response_format"] == {"type": "json_schema", "json_schema": form}
    assert len(others) == 2 and not any("response_format" in body for body in others)  # it is not tried again


def test_a_refusal_that_is_not_of_the_schema_stays_one(ask):
    with pytest.raises(ServerError, match="refuses the question: HTTP 400"):
        ask(400, schema=SCHEMA)
    with pytest.raises(ServerError, match="refuses the question: HTTP 401"):
        ask(401, schema=SCHEMA)


# --- where it is used ---


def test_it_works_inside_a_running_event_loop_and_on_another_machine(serve):
    chat = pickle.loads(pickle.dumps(ChatClient("m", serve(GOOD).url)))  # noqa: S301 - made here

    async def notebook():
        return chat(QUESTION)

    assert asyncio.run(notebook()) == GOOD


def test_patience_ends_with_refusals_in_a_row():
    patience = Patience(2)
    patience.refused("a")
    patience.used()
    patience.refused("b")
    with pytest.raises(NoAnswer, match="2 answers in a row cannot be used, the last because of: c"):
        patience.refused("c")
    assert patience.reasons == ["a", "b", "c"]
    with pytest.raises(ValueError, match="must be 1 or more, not 0"):
        Patience(0)


def test_lone_surrogates_pass(serve):
    server = serve(lambda handler: send(handler, 200, completion(json.loads('"\\ud800 a"'))))
    assert ChatClient("m", server.url)([{"role": "user", "content": "\ud800"}]) == "\ud800 a"


def test_a_connection_serves_several_requests_and_no_cookies_are_kept():
    connections, cookies = set(), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            connections.add(self.client_address)
            cookies.append(self.headers["Cookie"])
            send(self, 200, completion(GOOD), Set_Cookie="session=1; Path=/")

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    chat = ChatClient("m", f"http://127.0.0.1:{server.server_port}/v1")
    assert [chat(QUESTION) for _ in range(4)] == [GOOD] * 4
    assert len(connections) == 1 and cookies == [None] * 4
    server.shutdown()


def test_a_connection_that_the_server_has_closed_is_not_used_again(serve):
    """The server answers one request per connection, and says nothing of it."""

    def once(handler):
        handler.protocol_version = "HTTP/1.1"
        send(handler, 200, completion(GOOD))
        handler.close_connection = True

    server, waited = serve(once), []
    chat = ChatClient("m", server.url, sleep=waited.append)
    for _ in range(3):
        assert chat(QUESTION) == GOOD
        time.sleep(0.1)  # for the end of the connection to arrive
    assert waited == [] and len(server.asked) == 3
