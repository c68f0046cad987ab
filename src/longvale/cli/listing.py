"""The command list, which prints what is registered."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from longvale.registry import REGISTRIES
from longvale.text_table import align

from .base import app, echo


@app.command("list", epilog="Example: longvale list exporters")
def list_(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help=f"{', '.join(REGISTRIES)}.", show_default="all")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """List what can be chosen by name.

    Adapters, captioners, benchmarks and more: those of the package, and those of installed packages. Where a name is
    expected, package.module:Name is one too, of a module that is installed or lies in the current directory.
    """
    if kind is not None and kind not in REGISTRIES:
        raise ValueError(f"unknown kind {kind!r}; expected one of {', '.join(REGISTRIES)}")
    entries = [entry for name in ([kind] if kind else REGISTRIES) for entry in REGISTRIES[name].entries()]
    if as_json:
        for entry in entries:
            echo(json.dumps(asdict(entry)))
        return
    if not entries:
        echo(f"no {kind} with a name; package.module:Name names one")
    for line in align([(entry.kind, entry.name, entry.source, entry.summary) for entry in entries], numbers=False):
        echo(line)
