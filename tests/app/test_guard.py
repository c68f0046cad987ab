import json

import pytest

from longvale.app.guard import Guard, check_call
from longvale.app.limits import Limits
from longvale.app.sessions import Sessions
from longvale.app.uploads import Uploads

GUARD = Guard(None, Limits(size=100))


@pytest.mark.parametrize(
    "path",
    [
        "/tmp/longvale-app-x/uploads/0a/vibe_check.mp4",
        "/data/monitoring/camera_1.mp4",
        "/data/monitoring",
        "/tmp/x/proxy=on/a.mp4",
        "/tmp/x/gradio_api/runs/stream/dev.mp4",
        "/tmp/a b/what? 100% http.mp4",
        "C:/videos/a.mp4",
    ],
)
def test_files_may_have_any_name(path):
    for prefix in ("/gradio_api/file=", "/file=", "/gradio_api/file/"):
        assert GUARD.refusal(f"{prefix}{path}", {}) is None


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=http%3A//x",
        "/gradio_api/file=HTTPS://x",
        "/gradio_api/file= http://x",
        "/gradio_api/file/http:/x",
        "/gradio_api/proxy=https://x",
        "/proxy=https://x",
        "/monitoring",
        "/monitoring/summary",
        "/gradio_api/%76ibe-code",
        "/gradio_api/undo-vibe-edit",
        "//monitoring",
        "/gradio_api/stream/a/b/1/playlist.m3u8",
    ],
)
def test_doors_to_elsewhere_are_closed(path):
    assert GUARD.refusal(path, {})[0] == 403


def test_what_is_posted_and_how_much():
    for path in ("/gradio_api/upload", "/gradio_api/queue/join/", "/gradio_api/run/predict", "/gradio_api/cancel"):
        assert GUARD.refusal(path, {}, "POST") is None
    for path in ("/gradio_api/call/ask", "/gradio_api/api/predict", "/gradio_api/component_server", "/login", "/"):
        assert GUARD.refusal(path, {}, "POST")[0] == 403
    assert GUARD.refusal("/gradio_api/upload", {}, "PUT")[0] == 403
    assert GUARD.refusal("/", {b"content-length": b"100"}) is None
    assert GUARD.refusal("/", {b"content-length": b"99999999"})[0] == 413


@pytest.fixture
def uploads(tmp_path):
    (tmp_path / "uploads" / "0a").mkdir(parents=True)
    (tmp_path / "uploads" / "0a" / "a.mp4").write_bytes(b"x")
    (tmp_path / "uploads" / "tmp1").write_bytes(b"half of it")
    return Uploads(tmp_path / "uploads", Limits(), Sessions())


def file(path, **more):
    return {"path": str(path), "url": None, "size": 1, "meta": {"_type": "gradio.FileData"}, **more}


def test_what_the_form_sends_is_let_through(uploads):
    data = ["Find an event", "x" * 2000, 0, 10.5, None, file(uploads.folder / "0a" / "a.mp4")]
    check_call(json.dumps({"session_hash": "a1-_", "data": data, "event_data": {"index": 1}}).encode(), uploads)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x" * 2001, "is 2001 characters long, the limit is 2000"),
        (True, "must be a text, a number or an upload"),
        ([], "must be a text"),
        (10**400, "must be a text"),
        (file("{uploads}/tmp1"), "is not an upload"),
        (file("{uploads}/0a"), "is not an upload"),
        (file("{uploads}/0a/../../other/a.mp4"), "is not an upload"),
        (file("{uploads}/0a/link.mp4"), "is not an upload"),
        (file("{uploads}/0a/a.mp4", more=file("http://x")), "is not an upload"),
        (file("{uploads}/0a/a.mp4", meta={}), "is not an upload"),
        (file("{uploads}/0a/a\0.mp4"), "is not an upload"),
        (file("x" * 60_000), "is not an upload"),
        ({}, "is not an upload"),
    ],
)
def test_what_the_form_never_sends_is_refused(uploads, tmp_path, value, message):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.mp4").write_bytes(b"secret")
    (uploads.folder / "0a" / "link.mp4").symlink_to(tmp_path / "other" / "a.mp4")
    if isinstance(value, dict) and "path" in value:
        value = {**value, "path": value["path"].replace("{uploads}", str(uploads.folder))}
    with pytest.raises(ValueError, match=f"field 'data', item 2: {message}"):
        check_call(json.dumps({"session_hash": "a", "data": ["", value]}).encode(), uploads)
