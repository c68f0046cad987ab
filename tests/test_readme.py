"""The README's blocks run as they are written, in a folder that looks as `make demo` leaves it."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")

#: A fenced block below the comment that marks those that need no network.
_BLOCK = re.compile(r"^<!-- test: offline -->\n```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    code: str

    def command(self):
        return [sys.executable, "-c", self.code] if self.language == "python" else ["bash", "-euc", self.code]


BLOCKS = [
    Block(TEXT[: match.start("code")].count("\n") + 1, match["language"], match["code"])
    for match in _BLOCK.finditer(TEXT)
]


def test_all_blocks_that_can_run_are_marked():
    runnable = re.findall(r"^```(?:python|bash)$", TEXT, re.MULTILINE)
    assert len(BLOCKS) == len(runnable) == 7


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"line{block.line}")
def test_block(block, tiny_corpus, tiny_model, tmp_path):
    folder = tmp_path / "clone"
    (folder / "demo" / "models").mkdir(parents=True)
    (folder / "recipes").symlink_to(ROOT / "recipes")
    (folder / "demo" / "corpus").symlink_to(tiny_corpus)
    for name in ("model", "models/base"):
        (folder / "demo" / name).symlink_to(tiny_model)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(block.command(), cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block.code}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.strip() or any((folder / "outputs").iterdir())


def test_commands_named_in_the_text_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake (\w+)\b", TEXT)) & targets >= {"demo", "test"}
    from typer.main import get_command

    from longvale.cli import app

    commands = set(get_command(app).commands)
    assert set(re.findall(r"`?longvale ([a-z]+) ", TEXT)) <= commands


def test_files_named_in_the_text_exist():
    for name in re.findall(r"`((?:src|recipes)/[\w./]+)`|\]\((\w+(?:\.md)?)\)", TEXT):
        assert (ROOT / (name[0] or name[1])).exists(), name
