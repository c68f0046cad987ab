"""Prose is plain English: a short list of words that this field does not use for software."""

import ast
import doctest
import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest
from typer.main import get_command

from longvale.cli import app

ROOT = Path(__file__).resolve().parents[1]

#: Software reports, contains, resumes and is read: it does not tell, stand or go on.
WORDS = re.compile(
    r"\b(told|tells?|anew|go(?:es)?\s+on|stands|whoever|of\s+strangers|the\s+way\s+back|words\s+around|"
    r"(?<!there )is\s+no\s+(?!longer|more|less|such)\w+|"
    r"an?\s+(?:event|video|line|epoch|step)\s+an?\s+(?:line|row|event|epoch|video))\b",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_HEAD = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def tracked(*patterns):
    listed = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    if not listed:
        pytest.skip("not a git checkout")
    return listed.splitlines()


def prose_of_python(source):
    """Docstrings without their examples, and comments, by the line in which they begin."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text:
                parts = [part if isinstance(part, str) else "" for part in doctest.DocTestParser().parse(text)]
                yield node.body[0].lineno, "".join(parts)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def prose_of_markdown(source):
    yield 1, _FENCE.sub(lambda block: "\n" * block[0].count("\n"), _HEAD.sub("", source))


def findings(text, first_line=1):
    """Lines and words; what is quoted as code is not prose."""
    text = _CODE.sub("", text)
    return [(first_line + text.count("\n", 0, m.start()), " ".join(m[0].split())) for m in WORDS.finditer(text)]


@pytest.mark.parametrize(
    "text", ["It tells what is wrong.", "It goes\non.", "The file is no video.", "an event a line"]
)
def test_what_is_found(text):
    assert findings(text)


@pytest.mark.parametrize(
    "text", ["It reports what is wrong.", "`tells`", "It is no longer read, there is no file.", "one event per line"]
)
def test_what_is_not_found(text):
    assert not findings(text)


@pytest.mark.parametrize(
    ("patterns", "read"),
    [(["src/*.py", "recipes/*.py", "benchmarks/*.py"], prose_of_python), (["*.md"], prose_of_markdown)],
    ids=["python", "markdown"],
)
def test_prose_is_plain(patterns, read):
    found = []
    for name in tracked(*patterns):
        for line, text in read((ROOT / name).read_text(encoding="utf-8")):
            found += [f"{name}:{number}: {word}" for number, word in findings(text, line)]
    assert not found, "\n".join(["words to replace, see CONTRIBUTING.md:", *found])


def test_help_begins_with_what_an_option_is():
    texts = [
        (name, parameter.name, parameter.help)
        for name, command in walk(get_command(app))
        for parameter in command.params
        if getattr(parameter, "help", None)
    ]
    assert len(texts) > 100
    assert not [
        where for *where, text in texts if re.match(r"(Of|Whose|What|Where|How|Such|To)\b", text) or findings(text)
    ]


def walk(command, name="longvale"):
    yield name, command
    for key, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, f"{name} {key}")
