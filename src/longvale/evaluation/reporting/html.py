"""Parts of a page: one HTML file that loads nothing from anywhere, with tables and pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from ...events import Event
from ...io import atomic_write


def write_page(path: str | os.PathLike, title: str, parts: Iterable[str]) -> Path:
    """Write a page; the file appears whole or not at all.

    Args:
        path: file to write; its folder must exist.
        title: any text.
        parts: HTML, one below the other.

    Returns:
        The path of the file.
    """
    template = Template(files(__package__).joinpath("report_template.html").read_text(encoding="utf-8"))
    with atomic_write(path) as file:
        file.write(template.substitute(title=escape(title), body="\n".join(parts)))
    return Path(path)


def times(event: Event) -> str:
    """Start and end of an event in seconds."""
    return f"{event.start:.1f}-{event.end:.1f} s"


def percent(value: float | None) -> str:
    """A score times 100, nothing where there is none."""
    return "" if value is None else f"{value * 100:.2f}"


def image(uri: str, description: str) -> str:
    """A picture from a `data:` URI."""
    return f'<img src="{uri}" alt="{escape(description)}">'


def details(summary: str, content: str) -> str:
    """HTML that is shown when its summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}\n</details>"


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] | None = None
) -> str:
    """A table of texts, escaped here; `numbers` are the columns set flush right, all but the first if None."""
    right = range(1, len(head)) if numbers is None else numbers
    marks = [" class=number" if column in right else "" for column in range(len(head))]
    titles = "".join(f"<th scope=col{mark}>{escape(text)}</th>" for text, mark in zip(head, marks, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{mark}>{escape(text)}</td>" for text, mark in zip(row, marks, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table>\n<caption>{escape(caption)}</caption>\n<tr>{titles}</tr>\n{body}\n</table>"
