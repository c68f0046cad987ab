"""The command doctor, which checks the machine."""

from __future__ import annotations

import typer

from .base import app, echo


@app.command(epilog="Example: longvale doctor")
def doctor() -> None:
    """Print what is installed and what is missing.

    Versions, devices, codecs and caches. Exit code 1 if something is missing without which nothing works.
    """
    from longvale.system.doctor import examine, format_findings

    findings = examine()
    echo(format_findings(findings))
    missing = [finding.name for finding in findings if finding.state == "missing"]
    echo(f"\nmissing: {', '.join(missing)}" if missing else "\nnothing that is always needed is missing")
    raise typer.Exit(bool(missing))
