"""The server, asked as its clients ask it: over HTTP, by the `openai` package and by this library."""

import base64
import http.server
import json
import logging
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import openai
import pytest
from one_video import answer_plainly

from longvale.evaluation.adapters.options import AdapterOptions
from longvale.evaluation.generation.generate import generate
from longvale.evaluation.generation.inputs import VideoInputs
from longvale.serving.server import serve
from longvale.serving.videos import ServingLimits, Videos
from longvale.tasks import load_predictions

WEB = httpx2.Client(timeout=120)
QUESTIONS = ["When does the bell ring?", "What happens?", "What happens in the end?", "What is heard?"]


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def video(folder):
    return sorted(folder.glob("test_*.mp4"))[0]


@pytest.fixture(scope="module")
def expected(pair, folder, video):
    """Greedy answers by one call of `generate` a question."""
    features = VideoInputs(folder.parent, videos_dir=folder).load(video.stem, *pair)
    return {question: answer_plainly(*pair, f"<video>\n{question}", features, 12) for question in QUESTIONS}


def by_path(video):
    return {"type": "video_url", "video_url": {"url": video.as_uri()}}


def ask(client, part, question, **options):
    messages = [{"role": "user", "content": [part, {"type": "text", "text": question}]}]
    options = {"max_tokens": 12, "temperature": 0, **options}
    return client.chat.completions.create(model="tiny", messages=messages, **options)


def test_answers_are_those_of_the_model(client, video, expected):
    assert len(set(expected.values())) > 2
    for question, answer in expected.items():
        reply = ask(client, by_path(video), question)
        assert reply.choices[0].message.content == answer
        assert reply.choices[0].finish_reason == "length" and reply.usage.completion_tokens == 12
        assert reply.usage.prompt_tokens > 20


def test_the_same_video_however_it_is_given(client, url, video, expected):
    question, answer = next(iter(expected.items()))
    upload = client.files.create(file=video.open("rb"), purpose="user_data")
    assert client.files.create(file=video.open("rb"), purpose="user_data").id == upload.id  # by content
    assert upload.id in [file.id for file in client.files.list()] and upload.bytes == video.stat().st_size
    data = base64.b64encode(video.read_bytes()).decode()
    files = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _quiet(video.parent))
    threading.Thread(target=files.serve_forever, args=(0.01,), daemon=True).start()
    parts = [
        {"type": "file", "file": {"file_id": upload.id}},
        {"type": "file", "file": {"file_data": data}},
        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}},
        {"type": "video_url", "video_url": {"url": f"http://127.0.0.1:{files.server_port}/{video.name}"}},
    ]
    for part in parts:
        assert ask(client, part, question).choices[0].message.content == answer
    files.shutdown()
    assert client.files.delete(upload.id).deleted
    with pytest.raises(openai.NotFoundError, match="no such file; upload it"):
        ask(client, parts[0], question)


def _quiet(folder):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

        def log_message(self, *arguments):
            pass

    return Handler


def test_a_stream_is_the_answer_in_parts(client, video, expected):
    for question, answer in expected.items():
        chunks = list(ask(client, by_path(video), question, stream=True, stream_options={"include_usage": True}))
        texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(texts) == answer and sum(map(bool, texts)) > 1
        assert chunks[-2].choices[0].finish_reason == "length" and chunks[-1].usage.completion_tokens == 12


def test_clients_at_the_same_time_get_the_answers_of_one(client, folder, pair, expected, video):
    """Questions about several videos join and leave at any time."""
    videos = sorted(folder.glob("*.mp4"))
    inputs = VideoInputs(folder.parent, videos_dir=folder)
    features = {path: inputs.load(path.stem, *pair) for path in videos}
    asked = [(path, question, 3 + 4 * number) for path in videos for number, question in enumerate(QUESTIONS)] * 2

    def answer(task):
        path, question, tokens = task
        return ask(client, by_path(path), question, max_tokens=tokens).choices[0].message.content

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(answer, asked))
    alone = {
        (path, question): answer_plainly(*pair, f"<video>\n{question}", features[path], tokens)
        for path, question, tokens in asked
    }
    assert found == [alone[path, question] for path, question, _ in asked]


def test_curl(url, video, expected):
    question, answer = next(iter(expected.items()))
    content = [by_path(video), {"type": "text", "text": question}]
    body = json.dumps({"model": "tiny", "max_tokens": 12, "messages": [{"role": "user", "content": content}]})
    command = ["curl", "-sS", f"{url}/chat/completions", "-H", "Content-Type: application/json", "-d", body]
    reply = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert reply["choices"][0]["message"]["content"] == answer


def test_samples_repeat_with_a_seed(client, video):
    texts = [
        ask(client, by_path(video), "What?", temperature=1.5, seed=seed).choices[0].message.content
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def post(url, body, **options):
    return WEB.post(f"{url}/chat/completions", json=body, **options)


def message(*parts):
    return {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "When?"}]}]}


def link(url):
    return {"type": "video_url", "video_url": {"url": url}}


def frame(url):
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    ("parts", "status", "text"),
    [
        ([link("file:///etc/passwd")], 400, "reads files only from the folders named by --media-dir"),
        ([link("ftp://host/a.mp4")], 400, "must begin with https://"),
        ([link("http://169.254.169.254/latest")], 403, "fetches nothing from 169.254.169.254"),
        ([link("http://127.0.0.1:9/a.mp4")], 400, "cannot be fetched: ConnectError"),
        ([link("data:video/mp4;base64,AAAA")], 400, "the video cannot be read"),
        ([{"type": "file", "file": {"file_id": "file-0"}}], 404, "file-0: no such file"),
        (
            [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
            400,
            "image_url 0: is not an image",
        ),
        ([{"type": "image_url", "image_url": {"url": "http://host/a.png"}}], 400, "must be a data URI"),
    ],
)
def test_bad_videos_are_refused_and_the_next_request_is_answered(url, client, video, expected, parts, status, text):
    reply = post(url, message(*parts))
    assert reply.status_code == status and text in reply.json()["error"]["message"]
    question, answer = next(iter(expected.items()))
    assert ask(client, by_path(video), question).choices[0].message.content == answer


def test_bad_requests(url, client, video):
    assert WEB.post(f"{url}/chat/completions", content=b"{").json()["error"]["message"].startswith("the request is not")
    assert WEB.get(f"{url}/nothing").status_code == 404
    reply = post(url, {**message(by_path(video)), "model": "other"})
    assert reply.status_code == 404 and "'other' is not served here; it is 'tiny'" in reply.json()["error"]["message"]
    reply = post(url, {**message(by_path(video)), "max_tokens": 10**6})
    assert reply.status_code == 400 and "the model reads 2048; lower max_tokens" in reply.json()["error"]["message"]
    with pytest.raises(openai.APIStatusError, match="file: is larger than 2 MB"):
        client.files.create(file=b"x" * (2 * 2**20 + 1), purpose="user_data")
    with pytest.raises(openai.BadRequestError, match="file: is empty"):
        client.files.create(file=b"", purpose="user_data")
    reply = WEB.post(f"{url}/chat/completions", content=b"x" * (4 * 2**20))
    assert reply.status_code == 413


def test_the_oldest_uploads_make_room(url, client):
    ids = [client.files.create(file=bytes([n]) * (2**20 + 1), purpose="user_data").id for n in range(4)]
    kept = [file.id for file in client.files.list()]
    assert ids[0] not in kept and ids[-1] in kept


def test_the_model_is_named_with_what_identifies_its_weights(client):
    (model,) = client.models.list().data
    assert model.id == "tiny" and len(model.fingerprint) == 16


def test_a_token_and_a_limit_of_requests(pair, folder, video, monkeypatch):
    limits = ServingLimits(waiting=1)
    with serve(pair, name="tiny", port=0, token="secret", limits=limits, media_folders=[folder]) as url:
        assert WEB.get(f"{url}/models").status_code == 401
        assert WEB.get(f"{url.removesuffix('/v1')}/health").json()["status"] == "ok"
        headers = {"Authorization": "Bearer secret"}
        assert WEB.get(f"{url}/models", headers=headers).status_code == 200
        held, find = threading.Event(), Videos.find
        monkeypatch.setattr(Videos, "find", lambda *arguments: held.wait(60) and find(*arguments))
        body = {**message(by_path(video)), "max_tokens": 3}
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(post, url, body, headers=headers, timeout=None)
            while not WEB.get(f"{url.removesuffix('/v1')}/health").json()["waiting"]:
                pass
            second = post(url, body, headers=headers)
            assert second.status_code == 429 and second.headers["retry-after"] == "1"
            held.set()
            assert first.result().status_code == 200
        assert post(url, body, headers=headers, timeout=None).status_code == 200
    with pytest.raises(httpx2.ConnectError):
        WEB.get(f"{url}/models", headers=headers)


def test_evaluate_gets_the_answers_of_the_model_in_one_process(url, pair, _corpus, tmp_path):
    options = {"max_new_tokens": 8, "progress": False}
    here = generate(pair, _corpus, tmp_path / "here.jsonl", videos=_corpus / "videos", **options)
    served = AdapterOptions("served", url, concurrency=8)
    there = generate("tiny", _corpus, tmp_path / "there.jsonl", adapter=served, **options)
    answers = [{p.key: p.answer for p in load_predictions(log)} for log in (here, there)]
    assert answers[0] == answers[1] and len(set(answers[0].values())) > 5
    manifest = json.loads((tmp_path / "there.jsonl.run.json").read_text())
    assert len(manifest["served_model"]["fingerprint"]) == 16 and "times" not in manifest


def test_a_client_that_leaves_while_it_sends_leaves_no_trace(url, client, video, expected, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("uvicorn"), "propagate", True)
    address = httpx2.URL(url)
    with socket.create_connection((address.host, address.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    with caplog.at_level("ERROR"):
        assert ask(client, by_path(video), QUESTIONS[0]).choices[0].message.content == expected[QUESTIONS[0]]
    assert WEB.get(f"{url.removesuffix('/v1')}/health").json() == {"status": "ok", "waiting": 0}
    assert not caplog.records
