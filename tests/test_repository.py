"""Files that other programs read: continuous integration, the citation."""

import re
from collections import Counter
from pathlib import Path

import yaml

import longvale

ROOT = Path(__file__).resolve().parents[1]


def test_workflows_run_what_anybody_runs():
    paths = list((ROOT / ".github" / "workflows").glob("*.yml"))
    assert paths
    runs = []
    for path in paths:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert told["permissions"] == {"contents": "read"}
        runs += [step["run"] for job in told["jobs"].values() for step in job["steps"] if "run" in step]
    assert "bash .ci/run" in runs
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {run.removeprefix("make ") for run in runs if run.startswith("make ")} <= targets


def test_citation_is_that_of_this_version():
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert told["version"] == longvale.__version__
    assert told["preferred-citation"]["year"] == 2025 and len(told["preferred-citation"]["authors"]) == 6
    assert f'version = "{longvale.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_test_files_have_names_of_their_own():
    """Files of the same name in different folders cannot be collected together."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py")
    assert [name for name, times in names.items() if times > 1] == []
