"""What `import longvale` costs and does, each time in a fresh interpreter."""

import json
import os
import subprocess
import sys

TELL = """
import json, os, sys, time, warnings
environment, path, filters = dict(os.environ), list(sys.path), list(warnings.filters)
start = time.perf_counter()
import longvale
seconds = time.perf_counter() - start
import datasets.load
print(json.dumps({
    "seconds": seconds,
    "heavy": [name for name in ("torch", "transformers", "av", "matplotlib", "trl", "peft") if name in sys.modules],
    "environment": dict(os.environ) == environment,
    "path": sys.path == path,
    "registered": "longvale" in datasets.load._PACKAGED_DATASETS_MODULES,
}))
"""


def tell(tmp_path):
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    environment = os.environ | {"HOME": str(home), "HF_HOME": str(home / "hf"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TELL], env=environment, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_import_takes_less_than_two_seconds(tmp_path):
    assert min(tell(tmp_path)[0]["seconds"] for _ in range(3)) < 2.0


def test_import_registers_the_builder_and_does_nothing_else(tmp_path):
    told, errors = tell(tmp_path)
    assert told["registered"]
    assert told["heavy"] == []
    assert told["environment"] and told["path"]
    assert errors == ""
    assert list((tmp_path / "home").rglob("*")) == []
