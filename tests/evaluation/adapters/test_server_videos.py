"""How videos reach a server: frames with their times, frames alone, links to files."""

import base64
import io
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import media_files
import numpy as np
import pytest
from chat_server import completion, send
from PIL import Image

from longvale.io import load_json
from longvale.models.media import read_media
from longvale.tasks import load_predictions

#: Pictures at irregular times in seconds, with their number; the event is shown by the pictures 4 to 7.
SHOWN_S = [0.0, 0.5, 1.0, 2.0, 9.0, 9.5, 10.0, 11.5, 12.0, 14.0, 15.0, 17.0, 18.0, 19.0]
EVENT = range(4, 8)
EVENT_S, DURATION_S = (9.0, 12.0), 20.0


class WatchfulServer:
    """Answers when the event is seen, from what a request contains.

    It knows the times of frames only if they are there; without times it counts the frames as seconds, as models do.
    """

    def __init__(self, served=None):
        self.requests, self.served = [], served
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                found = self.path == "/v1/models" and outer.served is not None
                send(self, 200 if found else 404, json.dumps({"data": [outer.served]}).encode())

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(body)
                seen = list(outer.watch(body["messages"][0]["content"]))
                times = [time for time, number in seen if number in EVENT]
                after = [time for time, number in seen if number > max(EVENT)]
                send(self, 200, completion(f"From {min(times):.1f} to {min(after):.1f} seconds."))

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def watch(self, content):
        time, count = None, 0
        for part in content:
            if part["type"] == "text" and (stamp := re.fullmatch(r"<([\d.]+) seconds>", part["text"])):
                time = float(stamp[1])
            elif part["type"] == "image_url":
                jpeg = base64.b64decode(part["image_url"]["url"].partition(",")[2])
                yield (
                    time if time is not None else float(count),
                    media_files.read_number(np.array(Image.open(io.BytesIO(jpeg)))),
                )
                time, count = None, count + 1
            elif part["type"] == "video_url":
                path = unquote(urlsplit(part["video_url"]["url"]).path)
                media = read_media(path, num_frames=80)
                yield from zip(media.frame_times.tolist(), media_files.numbers(media.frames), strict=True)

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server():
    running = WatchfulServer({"id": "m", "root": "org/model-a", "created": 1})
    yield running
    running.stop()


@pytest.fixture
def videos(tmp_path):
    """A data set of one video whose pictures change at irregular times."""
    data = tmp_path / "data"
    (data / "videos").mkdir(parents=True)
    pts = [round(10 * time) for time in (*SHOWN_S, DURATION_S - 0.1)]
    media_files.write(data / "videos" / "v.mp4", pictures=len(pts), pts=pts)
    annotation = {"duration": DURATION_S, "timestamps": [EVENT_S], "sentences": ["A bell rings."]}
    (data / "longvale-annotations-eval.json").write_text(json.dumps({"v": annotation}))
    return data


def evaluate(longvale, server, data, output, *options):
    words = ("evaluate", "m", "--adapter", "server", "--server", server.url, "--data", data, "--output", output)
    return longvale(*words, "--tasks", "grounding", "--frames", 40, "--no-sound", "--quiet", *options)


@pytest.mark.parametrize(
    ("video_as", "right"), [(None, True), ("timed-frames", True), ("video-url", True), ("frames", False)]
)
def test_a_model_that_reads_times_is_right_only_where_they_are_sent(
    longvale, server, videos, tmp_path, video_as, right
):
    options = () if video_as is None else ("--video-as", video_as)
    result = evaluate(longvale, server, videos, tmp_path / "o", *options)
    assert result.exit_code == 0, result.stderr
    score = load_json(tmp_path / "o" / "scores.json")["grounding"]["mIoU"]
    assert score > 0.85 if right else score < 0.3
    manifest = load_json(tmp_path / "o" / "predictions.jsonl.run.json")
    assert manifest["video_as"] == (video_as or "timed-frames") and manifest["served_model"] == {"root": "org/model-a"}


def test_a_link_is_sent_with_an_identity_and_the_options_of_the_processor(longvale, server, videos, tmp_path):
    kwargs = '{"use_audio_in_video": true, "fps": 2}'
    linked = ("--video-as", "video-url", "--mm-processor-kwargs", kwargs)
    assert evaluate(longvale, server, videos, tmp_path / "o", *linked).exit_code == 0
    (body,) = server.requests
    part, text = body["messages"][0]["content"]
    assert part["video_url"]["url"] == (videos / "videos" / "v.mp4").resolve().as_uri() and text["type"] == "text"
    assert body["mm_processor_kwargs"] == {"use_audio_in_video": True, "fps": 2}
    server.watch = lambda content: [(9.0, 4), (12.0, 8)]
    linked += ("--video-url", "http://host/clips/")
    assert evaluate(longvale, server, videos, tmp_path / "p", *linked).exit_code == 0
    other = server.requests[1]["messages"][0]["content"][0]
    assert other["video_url"]["url"] == "http://host/clips/v.mp4" and other["uuid"] == part["uuid"]
    Path(videos, "videos", "v.mp4").write_bytes(Path(videos, "videos", "v.mp4").read_bytes() + bytes(8))
    assert evaluate(longvale, server, videos, tmp_path / "q", *linked).exit_code == 0
    assert server.requests[2]["messages"][0]["content"][0]["uuid"] != part["uuid"]


def test_answers_of_another_form_of_videos_or_of_other_weights_are_not_resumed(longvale, server, videos, tmp_path):
    assert evaluate(longvale, server, videos, tmp_path / "o").exit_code == 0
    assert evaluate(longvale, server, videos, tmp_path / "o").exit_code == 0 and len(server.requests) == 1
    result = evaluate(longvale, server, videos, tmp_path / "o", "--video-as", "frames")
    assert result.exit_code == 2 and "was made with video_as 'timed-frames', not 'frames'" in result.stderr
    server.served = {"id": "m", "root": "org/model-b"}
    result = evaluate(longvale, server, videos, tmp_path / "o")
    assert result.exit_code == 2 and "served_model.root 'org/model-a', not 'org/model-b'" in result.stderr
    assert len(server.requests) == 1


def test_a_log_that_did_not_record_the_form_of_videos_has_bare_frames(longvale, server, videos, tmp_path):
    assert evaluate(longvale, server, videos, tmp_path / "o", "--video-as", "frames").exit_code == 0
    path = tmp_path / "o" / "predictions.jsonl.run.json"
    path.write_text(json.dumps({k: v for k, v in load_json(path).items() if k not in ("video_as", "prompts")}))
    assert evaluate(longvale, server, videos, tmp_path / "o", "--video-as", "frames").exit_code == 0
    assert len(server.requests) == 1 and len(load_predictions(tmp_path / "o" / "predictions.jsonl")) == 1
    assert evaluate(longvale, server, videos, tmp_path / "o").exit_code == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--video-as", "pictures"), "unknown form of videos 'pictures'; --video-as must be one of timed-frames"),
        (("--video-url", "http://h"), "--video-url http://h is for --video-as video-url, not timed-frames"),
        (("--mm-processor-kwargs", "[1]"), "--mm-processor-kwargs must be a JSON object"),
        (("--adapter", "chat", "--video-as", "frames"), "video_as 'frames' is for servers; leave it out with chat"),
    ],
)
def test_options_that_do_not_fit_are_refused(longvale, server, videos, tmp_path, options, words):
    result = evaluate(longvale, server, videos, tmp_path / "o", *options)
    assert result.exit_code == 2 and words in result.stderr and not server.requests
