"""The blocks of the README and of docs/ run as they are written, in a folder that looks as `make demo` leaves it.

A block below `<!-- test: offline -->` runs; the blocks of a page run one after another in one folder. One below
`<!-- test: file NAME -->` is written to that file, which a later block uses. One below `<!-- test: parse -->` needs the
network or files that are not ours: its commands and their options must exist.
"""

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from longvale.cli import app
from longvale.io import load_json
from longvale.synthetic.corpus import SyntheticOptions, write_video
from longvale.synthetic.planning import plan_video
from longvale.tasks import Prediction

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}

#: A fenced block below the comment that says how it is tested.
_BLOCK = re.compile(
    r"^<!-- test: (?P<how>offline|parse|file [\w.]+) -->\n```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    how: str
    language: str
    code: str

    def command(self):
        return [sys.executable, "-c", self.code] if self.language == "python" else ["bash", "-euc", self.code]


def find_blocks(page):
    text = PAGES[page]
    return [
        Block(page, text[: match.start("code")].count("\n") + 1, match["how"], match["language"], match["code"])
        for match in _BLOCK.finditer(text)
    ]


BLOCKS = {page: blocks for page in PAGES if (blocks := find_blocks(page))}


def test_all_blocks_that_can_run_are_marked():
    for page, text in PAGES.items():
        runnable = re.findall(r"^```(?:python|bash|shell|console|sh|py)\b", text, re.MULTILINE)
        assert len(BLOCKS.get(page, ())) == len(runnable), page
    assert len(BLOCKS["README.md"]) >= 5 and len(BLOCKS) >= 7


@pytest.fixture
def clone(tiny_corpus, tiny_model, tmp_path):
    """What lies around a reader: the demo's output, the authors' files, a video of one's own; all of them tiny."""
    folder = tmp_path / "clone"
    (folder / "demo" / "models").mkdir(parents=True)
    (folder / "recipes").symlink_to(ROOT / "recipes")
    (folder / "demo" / "corpus").symlink_to(tiny_corpus)
    for name in ("demo/model", "demo/models/base"):
        (folder / name).symlink_to(tiny_model)
    rename_video(tiny_corpus, "test_0001", "test_0003")
    rename_video(tiny_corpus, "test_0002", "test_0009")
    options = SyntheticOptions(size=32, fps=4, min_length_s=10, max_length_s=12)  # a page asks for 3.2 to 9.6 s
    write_video(plan_video("test_0003", 0, options), tiny_corpus / "videos" / "test_0003.mp4", options)
    shutil.copy(tiny_corpus / "videos" / "test_0000.mp4", folder / "my_video.mp4")
    references = load_json(tiny_corpus / "longvale-annotations-eval.json")
    with (folder / "demo" / "predictions.jsonl").open("w") as log:
        for video_id, value in references.items():
            answers = [Prediction(video_id, "dense_captioning", "From 00 to 50, a bell is heard.")]
            for index in range(len(value["sentences"])):
                answers.append(Prediction(video_id, "grounding", "From 00 to 50.", index))
                answers.append(Prediction(video_id, "segment_captioning", "A bell is heard.", index))
            log.writelines(answer.to_log() + "\n" for answer in answers)
    write_official(folder, tiny_corpus)
    return folder


def write_official(folder, tiny_corpus):
    """The authors' files as they lie after downloading: their layout, a tiny checkpoint, features of their widths."""
    official, checkpoints = folder / "official", ROOT / "tests" / "fixtures" / "official" / "tiny_model"
    shutil.copytree(checkpoints, official / "checkpoints")
    for name in ("vicuna-7b-v1.5", "my_llm"):
        shutil.copytree(checkpoints / "vicuna-tiny", folder / name)
    shutil.rmtree(official / "checkpoints" / "vicuna-tiny")
    stage2, stage3 = sorted((official / "checkpoints").glob("*-stage?-*"))
    shutil.copy(stage3 / "non_lora_trainables.bin", stage2)  # the fixture has them once
    for split, file in (("training", "longvale-annotations-training.json"), ("eval", "longvale-annotations-eval.json")):
        rng = np.random.default_rng(0)
        for modality, shape in (("visual", (100, 768)), ("audio", (3, 768)), ("speech", (3, 1280))):
            store = official / f"features_{split}" / f"{modality}_features"
            store.mkdir(parents=True)
            for video_id in load_json(tiny_corpus / file):
                np.save(store / f"{video_id}.npy", rng.standard_normal(shape, dtype=np.float32))
    for name in ("annotations-training", "annotations-eval"):
        (official / f"longvale-{name}.json").symlink_to(tiny_corpus / f"longvale-{name}.json")
    for stem, sizes in (("bp", ("7k", "154k")), ("it", ("25k", "61k"))):
        for size in sizes:
            (official / f"longvale-sft-{stem}-{size}.json").symlink_to(tiny_corpus / f"longvale-sft-{stem}.json")


def rename_video(corpus, old, new):
    """The demo has forty test videos, the tiny corpus three."""
    for path in corpus.rglob(f"{old}.*"):
        path.rename(path.with_name(path.name.replace(old, new)))
    for name in ("longvale-annotations-eval.json", "events.jsonl"):
        path = corpus / name
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", BLOCKS)
def test_blocks(page, clone, tmp_path):
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    for block in BLOCKS[page]:
        if block.how.startswith("file "):
            (clone / block.how.removeprefix("file ")).write_text(block.code, encoding="utf-8")
        if block.how != "offline":
            continue
        before = set((clone / "outputs").glob("*"))
        done = subprocess.run(block.command(), cwd=clone, env=environment, capture_output=True, text=True, check=False)
        where = f"{page}, line {block.line}:\n{block.code}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, where
        assert done.stdout.strip() or set((clone / "outputs").glob("*")) - before, where


COMMANDS = [
    (f"{page}:{block.line}", command)
    for page, blocks in BLOCKS.items()
    for block in blocks
    if block.how == "parse"
    for command in block.code.replace("\\\n", " ").splitlines()
]


@functools.cache
def options_of(program, *names):
    """Options that the help of a command names."""
    told = subprocess.run([program, *names, "--help"], capture_output=True, text=True, check=False)
    assert told.returncode == 0, f"{program} {names}: {told.stderr}"
    return set(re.findall(r"--[a-z][a-z-]+", told.stdout))


@pytest.mark.parametrize(("where", "command"), COMMANDS)
def test_commands_that_need_the_network_parse(where, command):
    words = shlex.split(command)
    program = Path(sys.executable).parent / words[0]
    if not program.exists():
        assert shutil.which(words[0]), f"{where}: no such program"
        return
    names = [word for word in words[1:3] if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-")][:1]
    if words[0] == "longvale" and words[2] in getattr(get_command(app).commands.get(words[1]), "commands", ()):
        names = words[1:3]  # such as `longvale annotate export`
    assert {word for word in words if word.startswith("--")} <= options_of(program, *names), where


def test_commands_named_in_the_text_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake (\w+)\b", PAGES["README.md"])) & targets >= {"demo", "test"}
    commands = set(get_command(app).commands)
    for page, text in PAGES.items():
        code = " ".join(re.findall(r"```bash\n.*?```|`[^`\n]+`", text, re.DOTALL))
        assert set(re.findall(r"\blongvale ([a-z][a-z-]+)(?=[ `\n])", code)) <= commands, page


def test_files_named_in_the_text_exist():
    for page, text in PAGES.items():
        for name in re.findall(r"`((?:src|recipes)/[\w./]+)`", text):
            assert (ROOT / name).exists(), f"{page}: {name}"
        for name in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text):
            assert (ROOT / page).parent.joinpath(name).exists(), f"{page}: {name}"


def test_the_readme_fits_on_three_screens_and_opens_with_two_commands_and_a_picture():
    lines = PAGES["README.md"].splitlines()
    assert len(lines) <= 150  # of fifty lines each
    opening = "\n".join(lines[:12])
    assert opening.index("make demo") < opening.index("make test") < opening.index("](docs/timeline.png)")
