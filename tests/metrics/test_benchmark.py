"""The benchmark of the metrics: its case, and its refusal without Java."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def make_case():
    spec = importlib.util.spec_from_file_location("metrics_case", FOLDER / "metrics_case.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "metrics_case", module)  # where its dataclass looks for its types
        spec.loader.exec_module(module)
    return module.make_case


def test_a_case_has_the_statistics_of_the_test_split(make_case):
    case = make_case(200)
    captions = [caption for events in case.wanted for _, _, caption in events]
    assert case == make_case(200)
    assert len(case.found) == len(case.wanted) == 200
    assert len(captions) == round(200 * 13867 / 1171) == len(case.retold) and captions == case.captions
    assert 24 < sum(len(caption.split()) for caption in captions) / len(captions) < 30
    assert 0.75 < sum(map(len, case.found)) / len(captions) < 0.95
    assert any(not events for events in case.found)
    assert any(len(found) > len(wanted) for found, wanted in zip(case.found, case.wanted, strict=True))


def test_without_java_it_says_so(tmp_path):
    run = subprocess.run(
        [sys.executable, str(FOLDER / "metrics.py"), "--videos", "2"],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "needs a Java runtime" in run.stderr
