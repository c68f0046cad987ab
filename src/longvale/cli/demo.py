"""The command demo, which runs the whole system."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .base import app, echo
from .options import Quiet


@app.command(epilog="Example: longvale demo --output demo")
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the corpus, the models, the scores and the report.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Random seed of the corpus and of the training.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Run the whole system on synthetic videos, offline.

    It synthesizes a corpus, extracts features, tunes a tiny model in two stages, evaluates it and writes a report.
    """
    from longvale.demo.run import run_demo
    from longvale.evaluation.analysis.ablation import format_ablation
    from longvale.evaluation.scoring.score import format_scores
    from longvale.io import load_json

    run_demo(output, seed=seed, progress=not quiet)
    echo(format_scores(load_json(output / "scores.json")))
    echo(f"\n{format_ablation(load_json(output / 'ablation.json'))}")
    echo(f"report: {output / 'report.html'}")
