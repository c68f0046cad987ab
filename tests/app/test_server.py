"""The page over HTTP, without a browser: what it lets nobody do."""

import os
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from longvale.app.limits import Limits
from longvale.app.server import Guard, example_videos, private_folder

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


def test_a_made_up_path_instead_of_an_upload_is_refused(client, page_url):
    """What the browser sends after an upload, with a path of the sender's choice."""
    config = client.get("/config").json()
    (called,) = (d["id"] for d in config["dependencies"] if d["targets"] and d["targets"][0][1] == "upload")
    data = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}, "orig_name": "a.mp4"}
    body = {"data": [data], "fn_index": called, "session_hash": "made-up", "trigger_id": None}
    assert client.post("/gradio_api/queue/join", json=body).status_code == 200
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "made-up"}) as stream:
        lines = []
        for line in stream.iter_lines():
            lines.append(line)
            if "process_completed" in line:
                break
    assert '"success": false' in lines[-1].replace('"success":false', '"success": false')
    assert "root:" not in "".join(lines)


def test_the_guard_knows_what_to_refuse():
    guard = Guard(None, Limits(size=100))
    assert guard.refusal("/gradio_api/file=/tmp/a.mp4", {}) is None
    assert guard.refusal("/gradio_api/file=http%3A//x", {})[0] == 403
    assert guard.refusal("/", {b"content-length": b"100"}) is None
    assert guard.refusal("/", {b"content-length": b"99999999"})[0] == 413


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


def test_the_command_serves_and_leaves_nothing(tiny_model, clips, tmp_path, longvale):
    folder = tmp_path / "examples"
    folder.mkdir()
    os.link(clips / "clip.mp4", folder / "clip.mp4")
    command = [sys.executable, "-m", "longvale", "app", tiny_model, "--examples", folder, "--max-length", "60"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith("open http://127.0.0.1:")
        url = line.split()[1]
        assert httpx.get(url, trust_env=False).status_code == 200
        assert httpx.get(f"{url}/gradio_api/file={folder / 'clip.mp4'}", trust_env=False).status_code == 200
        assert list(tmp_path.glob("longvale-app-*"))
    finally:
        process.terminate()
        process.wait(30)
    for _ in range(50):
        if not list(tmp_path.glob("longvale-app-*")):
            break
        time.sleep(0.1)
    assert not list(tmp_path.glob("longvale-app-*")) and process.returncode == 0


def test_bad_input_is_one_line(longvale, tmp_path, tiny_model):
    for arguments in (
        [tmp_path / "no-model"],
        [tiny_model, "--examples", tmp_path / "nowhere"],
        [tiny_model, "--max-size", 0],
        [tiny_model, "--max-length", -1],
    ):
        result = longvale("app", *arguments)
        assert result.exit_code == 2 and result.stderr.startswith("longvale: error: "), result.stderr
        assert result.stderr.count("\n") == 1 and result.stdout == ""
