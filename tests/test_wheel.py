"""What a wheel holds, and that it works where only it is installed."""

import os
import re
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Files that are read and not imported, one of each kind.
DATA_FILES = (
    "longvale/py.typed",
    "longvale/dataset_card/README.md",
    "longvale/evaluation/reporting/templates/base.html",
    "longvale/metrics/grounding/README.md",
    "longvale/metrics/text/ptb_data.json",
    "longvale/recipes/accelerate/cpu.yaml",
    "longvale/recipes/configs/boundary_perception.yaml",
    "longvale/recipes/sft.py",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # As `pip wheel .` does it, with the backend that is installed: nothing is fetched.
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("longvale-*.whl")
    return path


def test_content(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names >= set(DATA_FILES)
    sources = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "longvale").rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".nbi", ".nbc") and "__pycache__" not in path.parts
    }
    assert sources <= names  # prompts and templates too, whatever their suffix
    assert {re.sub(r"-[^/]*", "", name.split("/")[0]) for name in names} == {"longvale"}
    assert not [name for name in names if re.search(r"(^|/)(tests?|conftest\.py|\.git)|^(longvale/)?benchmarks", name)]


def test_metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = message_from_string(archive.read(name).decode())
    assert metadata["License-Expression"] == "Apache-2.0" and metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra")) >= {"annotation", "app", "dev", "docs"}
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in archive.namelist())


def test_it_works_where_only_it_is_installed(wheel, tmp_path):
    """In a folder of its own before the packages it needs: no checkout is in reach."""
    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    program = """
import longvale, pathlib, sys
from longvale.hub import card_template
from longvale.training.recipes import recipes_dir
place = pathlib.Path(longvale.__file__).parent
assert place.parent == pathlib.Path(sys.argv[1]), place
assert card_template("model_card").is_relative_to(place) and recipes_dir().is_relative_to(place)
from longvale.cli import app
from typer.testing import CliRunner
for arguments in (["--help"], ["synthesize", "corpus", "--videos", "1", "--size", "32", "--max-length", "20", "-q"]):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
result = CliRunner().invoke(app, ["data", "prepare", "corpus", "--output", "longvale", "-q"])
assert result.exit_code == 0, result.output
"""
    environment = {**os.environ, "PYTHONPATH": str(target), "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-c", program, str(target)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "longvale" / "README.md").is_file()
