"""Speed of the evaluation: of the own model, of servers with several requests in flight, and of `longvale serve`.

    python benchmarks/evaluation.py                 # after `make demo`; about six minutes
    python benchmarks/evaluation.py --videos 40     # a quick run
    python benchmarks/evaluation.py --full          # also all 28,905 questions, by the library alone

**Own model.** The demo's tiny trained model answers all questions about 200 synthetic videos with stored features: when
each event happens, what happens during it, and which events there are. One way is
`longvale.evaluation.generation.generate`. The other, in turn with it, is one `model.generate` per question, which gets
the video's features again each time, as in the published evaluation; it runs on every fifth video only, to save time.
Both decode greedily. Prints questions per second of each, their ratio, whether all answers that both gave are the same,
and how long the LongVALE test split of 28,905 questions would take at this rate. `--full` asks that many, about copies
of the demo's videos under other names: the time without extrapolation. The share of matrix products is that of the
operators of torch (linear layers and attention) in the time of the library's run, from torch's profiler.

**A server** that takes 200 ms for an answer gets the same questions with `--concurrency 1` and 16. Prints the ratio of
the times, and whether the sorted logs are the same.

**`longvale serve`**, in a process of its own, gets questions one after the other and by 16 clients at once, in turn,
each three times. Prints the ratio, and whether the answers are those of `longvale evaluate`.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median
from typing import Any

import torch

from longvale.chat_client import ChatClient
from longvale.data.sources import ANNOTATION_FILES
from longvale.evaluation.adapters.options import AdapterOptions
from longvale.evaluation.generation.blocks import batched
from longvale.evaluation.generation.generate import generate
from longvale.evaluation.generation.inputs import VideoInputs
from longvale.evaluation.generation.model import MAX_NEW_TOKENS, decode_answers, load_model, prepare_question
from longvale.events import Annotation, load_annotations, save_annotations
from longvale.features.store import FOLDERS
from longvale.tasks import VIDEO_TOKEN, Question, load_predictions, questions

#: Questions of the LongVALE test split: two per event, and one per video.
TEST_SPLIT = 2 * 13_867 + 1_171

#: One of this many videos is evaluated with one call per question.
SHARE = 5

#: Requests in flight, and seconds that the server takes for an answer.
CLIENTS, DELAY_S = 16, 0.2

#: How often each question is asked in a run of `longvale serve`: at the end of a run few clients still wait.
REPEATED = 3

#: Operators of torch that are matrix products, attention included.
PRODUCTS = ("addmm", "mm", "bmm", "linear", "matmul", "baddbmm", "scaled_dot_product", "mkldnn")


# --- own model -------------------------------------------------------------------------------------------------------


def run_one_by_one(model: Any, processor: Any, inputs: VideoInputs, asked: Sequence[Question]) -> dict[tuple, str]:
    """Return answers by key, each from a separate call."""
    answers = {}
    for question in asked:
        features = inputs.load(question.video_id, model, processor)
        given = prepare_question(model, processor, [question.question], [features])
        with torch.inference_mode():
            output = model.generate(**given, max_new_tokens=MAX_NEW_TOKENS[question.task], do_sample=False)
        (answers[question.key],) = decode_answers(processor, output[:, given["input_ids"].shape[1] :])
    return answers


def run_evaluation(
    model: Any, processor: Any, folders: dict[str, Path], annotations: Sequence[Annotation], batch_size: int
) -> dict[tuple, str]:
    """Return answers by key, from the library's runner, with its log on disk."""
    with tempfile.TemporaryDirectory() as folder:
        save_annotations({a.video_id: a for a in annotations}, Path(folder, ANNOTATION_FILES["test"]))
        log = generate(
            (model, processor), folder, Path(folder, "p.jsonl"), batch_size=batch_size, progress=False, **folders
        )
        return {prediction.key: prediction.answer for prediction in load_predictions(log)}


def share_of_products(model: Any, processor: Any, folders: dict[str, Path], videos: Sequence[Annotation]) -> float:
    """Return the share of the time of a run that matrix products take."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        run_evaluation(model, processor, folders, videos, len(videos))
        seconds = time.perf_counter() - start
    products = sum(e.self_cpu_time_total for e in profiler.key_averages() if any(name in e.key for name in PRODUCTS))
    return products / 1e6 / seconds


def copies(videos: Sequence[Annotation], features: Path, target: Path) -> Iterator[Annotation]:
    """Yield the videos repeatedly under other names, with their features linked into `target`."""
    for folder in FOLDERS.values():
        (target / folder).mkdir(parents=True)
    for number, video in enumerate(itertools.cycle(videos)):
        copy = replace(video, video_id=f"{video.video_id}_{number:05d}")
        for folder in FOLDERS.values():
            if (stored := features / folder / f"{video.video_id}.npy").exists():
                (target / folder / f"{copy.video_id}.npy").symlink_to(stored.resolve())
        yield copy


def run_full(
    model: Any, processor: Any, videos: Sequence[Annotation], features: Path, batch_size: int
) -> tuple[int, int, float]:
    """Answer as many questions as the test split has; return the numbers of videos and answers, and the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        copied = copies(videos, features, Path(folder, "features"))
        asked, many = 0, []
        while asked < TEST_SPLIT:
            many.append(next(copied))
            asked += sum(1 for _ in questions(many[-1]))
        start = time.perf_counter()
        found = run_evaluation(model, processor, {"features": Path(folder, "features")}, many, batch_size)
        return len(many), len(found), time.perf_counter() - start


def measure_own_model(options: argparse.Namespace, videos: Sequence[Annotation], corpus: Path) -> None:
    model, processor = load_model(options.demo / "model", "cpu")
    inputs = VideoInputs(corpus, features_dir=corpus / "features")
    folders = {"features": corpus / "features"}
    rates: dict[str, list[float]] = {"one by one": [], "longvale": []}
    same, compared, total = 0, 0, 0
    for some in batched(videos, -(-len(videos) // options.rounds)):
        asked = [question for video in some[::SHARE] for question in questions(video)]
        start = time.perf_counter()
        expected = run_one_by_one(model, processor, inputs, asked)
        rates["one by one"].append(len(expected) / (time.perf_counter() - start))
        start = time.perf_counter()
        found = run_evaluation(model, processor, folders, some, options.batch_size)
        rates["longvale"].append(len(found) / (time.perf_counter() - start))
        same += sum(found[key] == answer for key, answer in expected.items())
        compared, total = compared + len(expected), total + len(found)
        print(json.dumps({name: round(values[-1], 2) for name, values in rates.items()}), flush=True)

    slow, fast = (median(values) for values in rates.values())
    ratio = median(b / a for a, b in zip(*rates.values(), strict=True))
    print(f"{len(videos)} videos, {total} questions, {compared} of them one by one")
    print(f"one by one  {slow:8.2f} questions/s   {TEST_SPLIT} in {TEST_SPLIT / slow / 3600:.2f} h")
    print(f"longvale    {fast:8.2f} questions/s   {TEST_SPLIT} in {TEST_SPLIT / fast / 3600:.2f} h")
    print(f"ratio       {ratio:8.2f}   (median of the rounds)")
    print(f"answers the same: {same} of {compared}; peak memory {peak_gb():.2f} GB")
    print(f"matrix products: {share_of_products(model, processor, folders, videos[:50]):.0%} of the time", flush=True)
    if options.full:
        count, answers, seconds = run_full(model, processor, videos, corpus / "features", options.batch_size)
        rate, minutes = answers / seconds, seconds / 60
        print(f"in full     {rate:8.2f} questions/s   {answers} about {count} videos in {minutes:.1f} min")
        print(f"peak memory {peak_gb():.2f} GB", flush=True)


def peak_gb() -> float:
    """Return the peak memory of this process so far in GB."""
    return getrusage(RUSAGE_SELF).ru_maxrss / 1e6


# --- a server that takes its time ------------------------------------------------------------------------------------


def serve_slowly(ports: Any) -> None:
    """Answer each question after a while, in a process of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send({"data": []})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(DELAY_S)
            start = sum(body["messages"][0]["content"][-1]["text"].encode()) % 50
            message = {"role": "assistant", "content": f"From {start}% to {start + 20}%, something happens."}
            self._send({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

        def _send(self, value: dict[str, Any]) -> None:
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket.listen(128)
    ports.put(server.server_port)
    server.serve_forever()


def measure_concurrency(videos: Sequence[Annotation], corpus: Path) -> None:
    ports = multiprocessing.get_context("spawn").Queue()
    server = multiprocessing.get_context("spawn").Process(target=serve_slowly, args=(ports,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ports.get()}/v1"
    seconds, logs = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        save_annotations({a.video_id: a for a in videos}, Path(folder, ANNOTATION_FILES["test"]))
        for count in (1, CLIENTS):
            adapter = AdapterOptions(
                "server", url, times="percent", frames=8, frame_size=64, sound=False, concurrency=count
            )
            start = time.perf_counter()
            log = generate(
                "m", folder, Path(folder, f"{count}.jsonl"), videos=corpus / "videos", adapter=adapter, progress=False
            )
            seconds[count], logs[count] = time.perf_counter() - start, sorted(log.read_text().splitlines())
    server.terminate()
    asked, ratio = len(logs[1]), seconds[1] / seconds[CLIENTS]
    print(f"a server that takes {DELAY_S * 1000:.0f} ms, {asked} questions: {seconds[1]:.1f} s one after the other,")
    print(f"{seconds[CLIENTS]:.1f} s with --concurrency {CLIENTS}; ratio {ratio:.2f}, ", end="")
    print(f"sorted logs {'the same' if logs[1] == logs[CLIENTS] else 'DIFFERENT'}", flush=True)


# --- longvale serve --------------------------------------------------------------------------------------------------


@contextmanager
def served(model: Path) -> Iterator[str]:
    """Yield the URL of `longvale serve`, in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "longvale",
        "serve",
        str(model),
        "--name",
        "demo",
        "--port",
        "0",
        "--device",
        "cpu",
    ]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process.stdout.readline().split()[2].rstrip(";")
        finally:
            process.terminate()


def measure_serving(options: argparse.Namespace, videos: Sequence[Annotation], corpus: Path) -> None:
    asked = [question for video in videos for question in questions(video)] * REPEATED
    with served(options.demo / "model") as url:
        client = ChatClient("demo", url, timeout_s=600)
        ids = {video.video_id: client.upload(corpus / "videos" / f"{video.video_id}.mp4") for video in videos}

        def ask(question: Question) -> str:
            text = question.question.removeprefix(f"{VIDEO_TOKEN}\n")
            parts = [{"type": "file", "file": {"file_id": ids[question.video_id]}}, {"type": "text", "text": text}]
            return client([{"role": "user", "content": parts}], max_tokens=MAX_NEW_TOKENS[question.task])

        def ask_all(clients: int) -> tuple[float, list[str]]:
            start = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                answers = list(pool.map(ask, asked))
            return time.perf_counter() - start, answers

        ask_all(CLIENTS)  # decodes and encodes the videos
        ratios, found = [], []
        for _ in range(options.rounds):
            (slow, one_by_one), (fast, together) = ask_all(1), ask_all(CLIENTS)
            ratios.append(slow / fast)
            found += [one_by_one, together]
            print(json.dumps({"serve, 1 client": round(slow, 2), f"{CLIENTS} clients": round(fast, 2)}), flush=True)
    pair = load_model(options.demo / "model", "cpu")
    expected = run_evaluation(*pair, {"videos": corpus / "videos"}, videos, options.batch_size)
    same = all(answers == [expected[question.key] for question in asked] for answers in found)
    print(
        f"longvale serve, {len(asked)} questions: {CLIENTS} clients at once {median(ratios):.2f} times as fast as one;"
    )
    print(f"answers {'those of longvale evaluate' if same else 'DIFFERENT from longvale evaluate'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder of `longvale demo` (default: demo)")
    parser.add_argument("--videos", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--served-videos", type=int, default=16, help="how many for the servers (default: 16)")
    parser.add_argument("--rounds", type=int, default=4, help="how often two take turns (default: 4)")
    parser.add_argument("--batch-size", type=int, default=50, help="of the runner (default: 50)")
    parser.add_argument("--full", action="store_true", help="ask as many questions as the test split has, too")
    options = parser.parse_args()
    corpus = options.demo / "corpus"
    if not (options.demo / "model").is_dir():
        parser.error(f"{options.demo}: holds no model; run `make demo` first, or name the folder of a demo")
    videos = [a for file in ANNOTATION_FILES.values() for a in load_annotations(corpus / file).values()][
        : options.videos
    ]
    measure_own_model(options, videos, corpus)
    some = videos[: options.served_videos]
    measure_concurrency(some, corpus)
    measure_serving(options, some, corpus)


if __name__ == "__main__":
    main()
