"""The lock of an output: who holds it, who is refused, and how it is released."""

import errno
import os
import subprocess
import sys
import threading
import types

import pytest

from longvale.annotation.dialogues import make_dialogues
from longvale.annotation.pipeline import annotate
from longvale.demo.run import run_demo
from longvale.evaluation.generation.generate import answer_all
from longvale.events import Annotation, Event, save_annotations
from longvale.extraction.extract import extract
from longvale.synthetic.corpus import synthesize
from longvale.system import locks
from longvale.system.locks import Locked, hold

HOLD = """
import os
import sys
from longvale.system.locks import hold

with hold(sys.argv[1], "out.json", work="longvale annotate"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock until its stdin ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_another_process_is_named_with_the_remedy(holder, tmp_path):
    with pytest.raises(Locked) as caught, hold(tmp_path, "out.json", work="x", option="--elsewhere"):
        pass
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'out.json'}: process {holder.pid} on ")
    assert "(longvale annotate) has worked on it since 2" in message
    assert message.endswith("; wait for it, stop it, or give another --elsewhere") and "\n" not in message
    with hold(tmp_path, "other.json", work="x"):  # another output is free
        pass


def test_a_kill_releases_it_and_the_file_is_used_again(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert [path.name for path in tmp_path.iterdir()] == [".out.json.lock"]
    with hold(tmp_path, "out.json", work="x"):
        pass
    assert not list(tmp_path.iterdir())


def test_an_error_in_the_block_releases_it(tmp_path):
    with pytest.raises(KeyError), hold(tmp_path / "made" / "for it", "a", work="x"):
        raise KeyError
    with hold(tmp_path / "made" / "for it", "a", work="x"):
        pass


def test_threads_exclude_each_other(tmp_path):
    refused = []

    def second():
        try:
            with hold(tmp_path, "a", work="x"):
                pass
        except Locked as error:
            refused.append(str(error))

    with hold(tmp_path, "a", work="first"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1 and f"process {os.getpid()} on " in refused[0]


def test_a_file_that_its_holder_removed_in_between_locks_nothing(tmp_path, monkeypatch):
    real, seen = locks._acquire, []

    def acquire(handle, path):
        if not seen:  # the holder ends between opening and locking
            path.unlink()
        seen.append(handle)
        return real(handle, path)

    monkeypatch.setattr(locks, "_acquire", acquire)
    with hold(tmp_path, "a", work="x"):
        assert len(seen) == 2 and (tmp_path / ".a.lock").is_file()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_worker_that_outlives_a_kill_does_not_hold_it(tmp_path):
    # The fork says that it runs: until then it has not let go of what it inherited.
    fork = (
        "    fork_runs, say = os.pipe()\n"
        "    os.fork() or (os.write(say, b'x'), sys.stdin.read(), os._exit(0))\n"
        "    os.read(fork_runs, 1)\n"
        "    print"
    )
    command = [sys.executable, "-c", HOLD.replace("    print", fork), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
        with hold(tmp_path, "out.json", work="x"):  # the fork still waits for its stdin
            pass


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, caplog):
    def flock(handle, how):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with hold(tmp_path, "a", work="x"):
        pass
    assert "has no locks; start no second run" in caplog.text


def test_on_windows_a_byte_behind_the_text_is_locked(tmp_path, monkeypatch):
    taken = set()

    def locking(handle, how, count):
        place = os.fstat(handle).st_ino, os.lseek(handle, 0, os.SEEK_CUR)
        if place in taken:
            raise PermissionError(13, "Permission denied")
        taken.add(place)

    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    monkeypatch.setattr(locks, "fcntl", None)
    with hold(tmp_path, "a", work="first"):
        assert [place[1] for place in taken] == [1 << 30]
        with pytest.raises(Locked, match=r"\(first\) has worked on it"), hold(tmp_path, "a", work="x"):
            pass
    assert not list(tmp_path.iterdir())


def test_names_that_are_too_long_for_a_suffix_have_a_lock(tmp_path):
    with hold(tmp_path, "ä" * 127, work="x"), hold(tmp_path, "ö" * 127, work="x"):
        assert len(list(tmp_path.iterdir())) == 2


class Silent:
    """An answerer that is never asked."""

    videos_at_a_time = 1

    def check(self, video_ids):
        pass

    def settings(self):
        return {}


def annotate_a(folder):
    annotate([folder / "in" / "a.mp4"], folder / "out.json", progress=False)


def write_dialogues(folder):
    save_annotations({"a": Annotation("a", 9.0, (Event(0, 9, "A bell rings."),))}, folder / "in" / "a.json")
    make_dialogues(folder / "in" / "a.json", folder / "out")


RUNS = {
    "annotate": (annotate_a, ".", "out.stages"),
    "dialogues": (write_dialogues, "out", "dialogues"),
    "features": (lambda folder: extract(folder / "in", folder / "out", None, None), "out", "manifest.jsonl"),
    "shard": (
        lambda folder: extract(folder / "in", folder / "out", None, None, shard=(1, 1)), "out", "manifest-1-of-1.jsonl",
    ),
    "synthesize": (lambda folder: synthesize(folder / "out", videos=1, progress=False), "out", "synthesize"),
    "generate": (lambda folder: answer_all(Silent(), [], folder / "out.jsonl", {}), ".", "out.jsonl"),
    "demo": (lambda folder: run_demo(folder / "out", progress=False), "out", "demo"),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_second_run_is_refused_and_changes_nothing(name, tmp_path):
    run, folder, lock = RUNS[name]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"a video")
    with hold(tmp_path / folder, lock, work="the first run"):
        before = sorted(tmp_path.glob("out*/**"))
        with pytest.raises(Locked, match="the first run"):
            run(tmp_path)
        assert sorted(tmp_path.glob("out*/**")) == before
