"""The page over HTTP, without a browser: what it lets nobody do."""

import os
import signal
import time
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from annotated_stages import BOUNDARIES, write

from longvale.app.limits import Limits
from longvale.app.server import choose_examples, example_videos, private_folder, serve

HIDDEN = Path(__file__).resolve()


@pytest.fixture
def client(page_url):
    with httpx.Client(base_url=page_url, timeout=30, trust_env=False) as client:
        yield client


def upload(client, content, name="clip.mp4"):
    return client.post("/gradio_api/upload", files={"files": (name, content, "video/mp4")})


def uploads():
    return Path(os.environ["GRADIO_TEMP_DIR"])


def test_the_page_names_no_other_site_and_allows_none(client):
    response = client.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.status_code == 200 and "fonts.googleapis" not in response.text


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        str(HIDDEN),
        "../../../../etc/passwd",
        "{uploads}/../../../etc/passwd",
        "{uploads}/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "pyproject.toml",
        "{model}/config.json",
        "http://127.0.0.1:1/secret",
        "https://example.org/",
        "file:///etc/passwd",
        "//etc/passwd",
    ],
)
def test_nothing_outside_can_be_read(client, tiny_model, path):
    path = path.format(uploads=uploads(), model=tiny_model)
    for route in (f"/gradio_api/file={path}", f"/file={path}", f"/gradio_api/file/{path}"):
        response = client.get(route)
        assert response.status_code in (403, 404, 405), (route, response.status_code)
        assert "root:" not in response.text and "hidden_size" not in response.text


@pytest.mark.parametrize(
    "name", ["../../../evil.mp4", "/tmp/evil.mp4", "..\\..\\evil.mp4", "%2e%2e%2fevil.mp4", "..", "a\0b.mp4"]
)
def test_uploads_stay_in_their_folder_whatever_they_are_called(client, clips, name):
    response = upload(client, (clips / "text.mp4").read_bytes(), name)
    if response.status_code == 200:
        (path,) = response.json()
        assert Path(path).resolve().is_relative_to(uploads()) and ".." not in Path(path).parts
    else:
        assert response.status_code < 500
    assert not list(Path("/tmp").glob("evil*")) and not list(uploads().parent.parent.glob("evil*"))


def test_the_folder_of_uploads_is_private(page_url):
    assert uploads().parent.stat().st_mode & 0o077 == 0
    assert uploads().parent.name.startswith("longvale-app-")


BOUNDARY = {"content-type": "multipart/form-data; boundary=b"}
HEAD = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'


def test_a_file_that_says_it_is_too_large_is_refused_before_it_is_sent(page_url):
    connection = HTTPConnection(page_url.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/gradio_api/upload")
    for name, value in {**BOUNDARY, "content-length": str(2 * 2**30)}.items():
        connection.putheader(name, value)
    connection.endheaders(HEAD)
    response = connection.getresponse()
    assert response.status == 413 and response.read() == b"The file is too large. Up to 8 MB and 60 seconds."
    connection.close()


def test_a_file_that_grows_too_large_is_refused_and_leaves_nothing(client):
    def body():
        yield HEAD
        for _ in range(40):
            yield b"x" * 2**20

    def stored():
        return sum(path.stat().st_size for path in uploads().rglob("*") if path.is_file())

    before = stored()
    assert client.post("/gradio_api/upload", content=body(), headers=BOUNDARY).status_code == 413
    assert stored() == before


def test_other_doors_are_closed(client):
    for path in ("/monitoring", "/gradio_api/vibe-code", "/gradio_api/proxy=https://example.org/x", "/gradio_api/runs"):
        assert client.get(path).status_code in (401, 403, 404), path
    calls = client.get("/gradio_api/info").json()
    assert calls["named_endpoints"] == {} and calls["unnamed_endpoints"] == {}


def call(client, data, event="upload", **changes):
    """Post what the page's script posts when a visitor does something."""
    config = client.get("/config").json()
    called = next(d["id"] for d in config["dependencies"] if d["targets"] and d["targets"][0][1] == event)
    body = {"data": data, "fn_index": called, "session_hash": "made-up", "trigger_id": None, **changes}
    return client.post("/gradio_api/queue/join", json=body)


@pytest.mark.parametrize("path", ["/etc/passwd", "https://example.org/a.mp4", "http://127.0.0.1:1/a.mp4", "{uploads}"])
def test_a_made_up_path_instead_of_an_upload_is_refused(client, path):
    """What the browser sends after an upload, with a path of the sender's choice."""
    data = {"path": path.format(uploads=uploads()), "meta": {"_type": "gradio.FileData"}, "orig_name": "a.mp4"}
    for value in (data, {**data, "path": "a", "more": data}, [data]):
        response = call(client, [value])
        assert response.status_code == 422 and "field 'data', item 1:" in response.text


def test_a_question_that_the_browser_would_not_let_through_costs_nothing(client, monkeypatch):
    asked = []
    monkeypatch.setattr("longvale.app.page.Page.ask", lambda *arguments: asked.append(arguments))
    response = call(client, ["Ask freely", "why " * 100_000, 0, 10], "click")
    assert response.status_code == 413 and "2000 characters" in response.text
    assert call(client, ["Ask freely", "why " * 1000, 0, 10], "click").status_code == 422
    assert call(client, [], "click", session_hash="x" * 1000).status_code == 422
    for content in (b"[" * 60_000, b'{"data": [' + b"9" * 60_000 + b"]}", b"\xff", b"[]"):
        assert client.post("/gradio_api/queue/join", content=content).status_code == 422

    def endless():
        for _ in range(1000):
            yield b" " * 1024

    assert client.post("/gradio_api/queue/join", content=endless()).status_code == 413
    assert asked == []


def test_an_upload_that_is_broken_off_leaves_nothing(client, page_url):
    before = {path for path in uploads().rglob("*") if path.is_file()}
    connection = HTTPConnection(page_url.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/gradio_api/upload")
    for name, value in {**BOUNDARY, "content-length": str(2**20)}.items():
        connection.putheader(name, value)
    connection.endheaders(HEAD + b"x" * 2**18)
    wait_until(lambda: {path for path in uploads().rglob("*") if path.is_file()} - before)
    connection.sock.close()
    connection.close()
    wait_until(lambda: {path for path in uploads().rglob("*") if path.is_file()} <= before)


def test_an_upload_is_one_file(client):
    before = {path for path in uploads().rglob("*") if path.is_file()}
    field = b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\n' + b"x" * 2**20
    many = [("files", (f"{number}.mp4", b"x", "video/mp4")) for number in range(3)]
    for response in (
        client.post("/gradio_api/upload", content=field + b"\r\n--b--\r\n", headers=BOUNDARY),
        client.post("/gradio_api/upload", content=HEAD + b"x\r\n" + field + b"\r\n--b--\r\n", headers=BOUNDARY),
        client.post("/gradio_api/upload", files=many),
    ):
        assert response.status_code == 400 and response.text == "Send one file at a time."
    assert {path for path in uploads().rglob("*") if path.is_file()} <= before
    pieces = [bytes([byte]) for byte in HEAD + b"whole\r\n--b--\r\n"]  # wherever the network cuts
    assert client.post("/gradio_api/upload", content=iter(pieces), headers=BOUNDARY).status_code == 200


def test_all_uploads_together_are_limited(scripted_pair, clips):
    content = (clips / "clip.mp4").read_bytes()
    limits = Limits(size=2 * len(content), total=2 * len(content) + len(content) // 2)
    with (
        serve(scripted_pair, limits=limits) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        first, second = (upload(client, content + bytes(number)) for number in range(2))
        assert first.status_code == second.status_code == 200
        third = upload(client, content + bytes(2))
        assert third.status_code == 503 and third.text.startswith("The page stores as many videos as it can.")
        os.utime(first.json()[0], (0, 0))  # nobody named it for long
        assert upload(client, content + bytes(3)).status_code == 200
        assert not Path(first.json()[0]).exists()


def wait_until(condition):
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited 10 s")


def test_the_private_folder_is_gone_in_the_end(monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "before")
    with private_folder() as folder:
        Path(os.environ["GRADIO_TEMP_DIR"], "left.mp4").write_bytes(b"x")
    assert not folder.exists() and os.environ["GRADIO_TEMP_DIR"] == "before"


def test_examples(clips, tmp_path):
    names = [path.name for path in example_videos(clips)]
    assert "clip.mp4" in names and "notes.txt" not in names
    for missing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="give a folder of example videos"):
            example_videos(missing)


@pytest.mark.slow
def test_the_command_serves_and_leaves_nothing(tiny_model, clips, tmp_path, preloaded):
    folder = tmp_path / "examples"
    folder.mkdir()
    os.link(clips / "clip.mp4", folder / "clip.mp4")
    command = ["-m", "longvale", "app", tiny_model, "--examples", folder, "--max-length", "60"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with open(tmp_path / "errors", "wb") as errors:
        process = preloaded.start(*command, env=environment, stderr=errors)
    try:
        line = process.stdout.readline().decode()
        assert line.startswith("open http://127.0.0.1:")
        url = line.split()[1]
        assert httpx.get(url, trust_env=False).status_code == 200
        assert httpx.get(f"{url}/gradio_api/file={folder / 'clip.mp4'}", trust_env=False).status_code == 200
        assert list(tmp_path.glob("longvale-app-*"))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    for _ in range(50):
        if not list(tmp_path.glob("longvale-app-*")):
            break
        time.sleep(0.1)
    assert not list(tmp_path.glob("longvale-app-*")) and process.returncode == 128 + signal.SIGTERM


def test_bad_input_is_one_line(longvale, tmp_path, tiny_model):
    for arguments in (
        [tmp_path / "no-model"],
        [tiny_model, "--examples", tmp_path / "nowhere"],
        [tiny_model, "--max-size", 0],
        [tiny_model, "--max-length", -1],
        [tiny_model, "--max-total", 499],
    ):
        result = longvale("app", *arguments)
        assert result.exit_code == 2 and result.stderr.startswith("longvale: error: "), result.stderr
        assert result.stderr.count("\n") == 1 and result.stdout == ""


def test_annotated_videos_are_offered(tmp_path, clips):
    stages = write(tmp_path / "out.stages")
    videos, annotated = choose_examples(clips, stages)
    assert [path.name for path in videos] == ["clip.mp4"] and set(annotated) == {"clip"}
    with pytest.raises(ValueError, match="give the folder of its videos, too"):
        choose_examples(None, stages)
    with pytest.raises(FileNotFoundError, match=r"NAME\.stages"):
        choose_examples(clips, tmp_path)
    with pytest.raises(FileNotFoundError, match="holds none of the videos"):
        choose_examples(
            clips, write(tmp_path / "b.stages", boundaries=({**BOUNDARIES, "video_id": "other"},), events=())
        )
