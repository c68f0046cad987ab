"""Extraction on a Ray cluster of this machine gives what the local engine gives, also when a worker dies."""

import json
import signal
import subprocess
import sys

import pytest
from needs import needs

from longvale.extraction.extract import extract_features
from longvale.features.store import FeatureStore

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")

#: A run with two workers, in a process of its own. The first worker that comes to the third video kills itself, with
#: SIGKILL as the kernel does when memory runs out; a marker keeps the second attempt from doing so, too. If that is
#: "never", each attempt ends so, as in a decoder that a file crashes.
SCRIPT = """
import os, signal, sys
from pathlib import Path


class Deadly:
    def __init__(self, processor, marker, victim):
        self.__dict__ |= {"processor": processor, "marker": marker, "victim": victim, "reads": 0}

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.processor, name)

    def __call__(self, **kwargs):
        import inspect
        path = next(f.frame.f_locals["path"] for f in inspect.stack() if f.function == "prepare")
        if self.marker == "never" and Path(path).stem == self.victim:
            os.kill(os.getpid(), signal.SIGSEGV)
        if Path(path).stem == self.victim and not Path(self.marker).exists():
            Path(self.marker).write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return self.processor(**kwargs)


def main():
    videos, output, model, marker, victim = sys.argv[1:]
    import ray

    from longvale.checkpoints.loading import load_checkpoint
    from longvale.extraction.extract import extract
    from longvale.models.modeling_longvale import LongVALEModel

    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)  # two that read, one for the towers
    towers, processor = load_checkpoint(model, LongVALEModel, device="cpu")
    deadly = Deadly(processor, marker, victim)
    summary = extract(videos, output, deadly, towers, engine="ray", workers=2, progress=False)
    print("result", os.getpid(), summary)


main()
"""


def find_result(output):
    """The process and the summary that the script prints; Ray may print its own lines before and after."""
    return next(line.split(" ", 2)[1:] for line in output.splitlines() if line.startswith("result "))


@needs("ray")
@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing(tiny_corpus, tiny_model, tmp_path):
    videos = tiny_corpus / "videos"
    for index in range(8):  # of other names, and one that is none
        (videos / f"copy_{index}.mp4").write_bytes((videos / "test_0000.mp4").read_bytes()[: None if index else 1000])
    local = extract_features(videos, tmp_path / "local", model=tiny_model, device="cpu", progress=False)
    assert len(local.done) == 11 and [video_id for video_id, _ in local.failed] == ["copy_0"]

    script, marker = tmp_path / "script.py", tmp_path / "killed"
    script.write_text(SCRIPT)
    command = [sys.executable, script, videos, tmp_path / "ray", tiny_model, marker, "copy_5"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pid, summary = find_result(done.stdout)
    assert summary == str(local)
    assert marker.read_text() not in ("", pid)  # a worker was killed, and not the run

    for video_id in local.done:
        expected, found = FeatureStore(tmp_path / "local").load(video_id), FeatureStore(tmp_path / "ray").load(video_id)
        for modality, rows in expected.items():
            assert abs(found[modality] - rows).max() < 1e-5  # batches of other videos may round differently
    records = [
        [json.loads(line) for line in (tmp_path / engine / "manifest.jsonl").read_text().splitlines()]
        for engine in ("local", "ray")
    ]
    for record in (record for engine in records for record in engine):
        record.pop("sha256", None)
    assert records[0] == records[1]
    assert not list((tmp_path / "ray").rglob("*.tmp"))


@needs("ray")
@pytest.mark.slow
def test_a_video_that_crashes_its_decoder_each_time_fails_alone(tiny_corpus, tiny_model, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, script, tiny_corpus / "videos", tmp_path / "ray", tiny_model, "never", "test_0001"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    _, summary = find_result(done.stdout)
    assert summary.startswith(
        "3 done, 0 there already, 1 failed: test_0001.mp4: the process that worked on it died 3 times"
    )
    assert FeatureStore(tmp_path / "ray").video_ids() == ["test_0000", "test_0002", "train_0000"]
    records = [json.loads(line) for line in (tmp_path / "ray" / "manifest.jsonl").read_text().splitlines()]
    assert [record["video_id"] for record in records if "error" in record] == ["test_0001"]
