"""HTML building blocks of the reports: self-contained pages, tables and images."""

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
    """Write a page atomically.

    Args:
        path: file to write; its folder must exist.
        title: any text.
        parts: HTML fragments, in order.

    Returns:
        The path of the file.
    """
    template = Template(files(__package__).joinpath("report_template.html").read_text(encoding="utf-8"))
    with atomic_write(path) as file:
        file.write(template.substitute(title=escape(title), body="\n".join(parts)))
    return Path(path)


def times(event: Event) -> str:
    """Format the start and end of an event in seconds."""
    return f"{event.start:.1f}-{event.end:.1f} s"


def percent(value: float | None) -> str:
    """Format a score times 100; an empty string for None."""
    return "" if value is None else f"{value * 100:.2f}"


def image(uri: str, description: str) -> str:
    """Return an image element for a `data:` URI."""
    return f'<img src="{uri}" alt="{escape(description)}">'


def details(summary: str, content: str) -> str:
    """Return a collapsible HTML element; the content is shown when the summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}\n</details>"


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] | None = None
) -> str:
    """Return a table of texts, which are escaped; `numbers` are right-aligned columns, by default all but the first."""
    right = range(1, len(head)) if numbers is None else numbers
    marks = [" class=number" if column in right else "" for column in range(len(head))]
    titles = "".join(f"<th scope=col{mark}>{escape(text)}</th>" for text, mark in zip(head, marks, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{mark}>{escape(text)}</td>" for text, mark in zip(row, marks, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table>\n<caption>{escape(caption)}</caption>\n<tr>{titles}</tr>\n{body}\n</table>"
