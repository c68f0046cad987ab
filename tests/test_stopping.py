"""Ctrl-C and SIGTERM in the middle of real commands: reported, over soon, nothing that was finished lost."""

import json
import os
import re
import signal
import sys
import threading
import time

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")

#: A command must have ended within so many seconds: generous, the measured bound is 5 on a machine that is not busy.
WITHIN_S = 60

#: Ctrl-C, and what containers and schedulers send; each test waits seconds for a command to begin.
BOTH = [pytest.param(signal.SIGINT, id="int"), pytest.param(signal.SIGTERM, id="term", marks=pytest.mark.slow)]


class Command:
    """A command line in a process group of its own, as a terminal starts it, whose output is read as it comes."""

    def __init__(self, preloaded, *arguments, script=("-m", "longvale")):
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = preloaded.start(*script, *arguments, env=environment, new_session=True)
        self.output, self._more = b"", threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while chunk := os.read(self.process.stdout.fileno(), 4096):
            with self._more:
                self.output += chunk
                self._more.notify_all()
        with self._more:
            self._more.notify_all()

    def wait_for_output(self, pattern, begin=0):
        with self._more:
            self._more.wait_for(
                lambda: re.search(pattern, self.output[begin:]) or not self._reader.is_alive(), timeout=300
            )
        assert re.search(pattern, self.output[begin:]), self.text()

    def wait_for(self, happened):
        """Until this is true, which is looked at while the command runs."""
        limit = time.monotonic() + 300
        while not happened() and self.process.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        assert happened(), self.text()

    def stop(self, number, times=1):
        """Send the signal: Ctrl-C to all processes, as a terminal does, SIGTERM to this one, as a scheduler does."""
        self.children = psutil.Process(self.process.pid).children(recursive=True)
        send = os.killpg if number == signal.SIGINT else os.kill
        begin = len(self.output)
        send(self.process.pid, number)
        self.wait_for_output(rb"longvale: stopping\n", begin)
        for _ in range(times - 1):
            time.sleep(0.4)  # less is taken for the same press of the keys
            if self.process.poll() is None:
                send(self.process.pid, number)
        self.process.wait(WITHIN_S)
        self._reader.join(WITHIN_S)
        said = self.output[begin:].decode(errors="replace")
        assert self.process.returncode == 128 + number, said
        assert said.count("longvale: stopping\n") == 1
        assert not re.search("Traceback|terminate called|Exception ignored|Warning", said), said
        _, alive = psutil.wait_procs(self.children, timeout=WITHIN_S)
        assert not alive
        return said

    def text(self):
        return self.output.decode(errors="replace")


@pytest.fixture
def start(preloaded):
    """Start a command: `start("annotate", ...)` -> [`Command`], which does not survive the test."""
    started = []

    def run(*arguments, **options):
        started.append(Command(preloaded, *arguments, **options))
        return started[-1]

    yield run
    for command in started:
        if command.process.poll() is None:
            os.killpg(command.process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory):
    """Four videos of 40 s, whose annotation takes seconds each."""
    from longvale.synthetic.corpus import SyntheticOptions, synthesize

    folder = tmp_path_factory.mktemp("long") / "corpus"
    options = SyntheticOptions(size=64, fps=10, min_length_s=40, max_length_s=41)
    synthesize(folder, videos=1, test_videos=3, options=options, workers=1, progress=False)
    return folder / "videos"


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "times"),
    [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGINT, 2)],
    ids=["term", "int", "twice"],
)
def test_annotate(start, longvale, long_videos, tmp_path, number, times):
    output, events = tmp_path / "annotations.json", tmp_path / "annotations.stages" / "events.jsonl"
    command = start("annotate", long_videos, "--output", output)
    command.wait_for(lambda: lines(events))
    said = command.stop(number, times)
    assert "longvale: stopped; what is finished is kept" in said
    kept = [line for line in lines(events) if line.endswith("}")]
    assert kept and not output.exists()
    result = longvale("annotate", long_videos, "--output", output)
    assert result.exit_code == 0 and "4 of 4 videos annotated" in result.stdout
    assert set(kept) <= set(lines(events))


#: Decoding that holds its process as a call into C does: no handler of Python runs until the end.
BLOCKED = """
import hashlib, sys, threading
import longvale.extraction.preprocess as tower_inputs

def prepare(path, *arguments):
    print("decoding", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2_000_000_000)
    yield {}

tower_inputs.prepare = prepare
from longvale.cli import main
main()
"""


@pytest.mark.parametrize("number", BOTH)
def test_a_call_into_c_that_does_not_return(start, long_videos, tiny_model, tmp_path, number):
    options = ["--model", tiny_model, "--output", tmp_path / "f", "--workers", 0, "--quiet"]
    command = start("features", long_videos, *options, script=("-c", BLOCKED))
    command.wait_for_output(rb"decoding\n")
    assert "longvale: stopped; what is finished is kept" in command.stop(number)


@pytest.mark.slow
@pytest.mark.parametrize("number", BOTH)
def test_features_with_workers(start, longvale, long_videos, tiny_model, tmp_path, number):
    options = ["--model", tiny_model, "--output", tmp_path / "f"]
    command = start("features", long_videos, *options, "--workers", 2)
    command.wait_for(lambda: list((tmp_path / "f").glob("visual_features/[!.]*.npy")))
    command.stop(number)
    assert command.children
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "f").glob("visual_features/[!.]*.npy")}
    result = longvale("features", long_videos, *options)
    assert result.exit_code == 0 and f"{4 - len(done)} done, {len(done)} there already" in result.stdout
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())


@pytest.mark.slow
def test_workers_that_are_only_starting(start, long_videos, tiny_model, tmp_path):
    command = start("features", long_videos, "--model", tiny_model, "--output", tmp_path / "f", "--workers", 2)
    # Python's tracker of shared memory, and the server of workers, which imports for seconds before it takes care.
    command.wait_for(lambda: len(psutil.Process(command.process.pid).children()) == 2)
    command.stop(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("number", BOTH)
def test_synthesize_with_workers(start, longvale, tmp_path, number):
    options = ["--videos", 14, "--test-videos", 2, "--size", 32, "--fps", 5, "--min-length", 40, "--max-length", 41]
    command = start("synthesize", tmp_path / "corpus", *options, "--workers", 2)
    command.wait_for(lambda: list((tmp_path / "corpus").glob("videos/[!.]*.mp4")))
    command.stop(number)
    assert command.children
    kept = len(list((tmp_path / "corpus").glob("videos/[!.]*.mp4")))
    assert f"{16 - kept} rendered, {kept} kept" in longvale("synthesize", tmp_path / "corpus", *options).stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", BOTH)
def test_generate(start, longvale, tiny_corpus, tiny_model, tmp_path, number):
    options = ["--data", tiny_corpus, "--batch-size", 1, "--max-new-tokens", 30, "--output", tmp_path / "p.jsonl"]
    command = start("generate", tiny_model, *options)
    command.wait_for(lambda: lines(tmp_path / "p.jsonl"))
    command.stop(number)
    kept = lines(tmp_path / "p.jsonl")
    assert longvale("generate", tiny_model, *options).exit_code == 0
    assert len(kept) < len(lines(tmp_path / "p.jsonl")) and set(kept[:-1]) <= set(lines(tmp_path / "p.jsonl"))


@pytest.mark.slow
def test_prepare_leaves_nothing_behind(start, longvale, tiny_corpus, tmp_path):
    path = tiny_corpus / "longvale-annotations-training.json"
    (value,) = json.loads(path.read_text()).values()
    path.write_text(json.dumps({f"video_{number}": value for number in range(20_000)}))
    command = start("data", "prepare", tiny_corpus, "--output", tmp_path / "out" / "prepared", "--invalid", "drop")
    command.wait_for_output(rb"videos/train")
    command.stop(signal.SIGINT)
    assert list((tmp_path / "out").iterdir()) == []


#: A command that waits for a training, as `longvale demo` does.
LAUNCHING = """
import sys
from longvale.system.interruption import prompt_exit
from longvale.training.recipes import run_sft

model, data, output = sys.argv[1:]
options = "--max_steps 100000 --effective_batch_size 1 --per_device_train_batch_size 1 --dataloader_num_workers 0"
options += " --report_to none --gradient_checkpointing false"
with prompt_exit():
    run_sft("boundary_perception.yaml", model=model, data_dir=data, features_dir=data + "/features",
            output_dir=output, options=options.split())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", BOTH)
def test_a_training_that_a_command_has_launched(start, tiny_corpus, tiny_model, tmp_path, number):
    command = start(tiny_model, tiny_corpus, tmp_path / "tuned", script=("-c", LAUNCHING))
    command.wait_for_output(rb"\b[1-9]\d*/100000")
    command.stop(number)
    assert len(command.children) >= 2  # the launcher and the training


def test_the_page(start, tiny_model, long_videos, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = start("app", tiny_model, "--examples", long_videos)
    command.wait_for_output(rb"open http")
    assert list(tmp_path.glob("longvale-app-*"))
    command.stop(signal.SIGINT)
    assert not list(tmp_path.glob("longvale-app-*"))
