"""Location of the recipes (training script and configurations), and running them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from longvale.system.interruption import end_children, interrupts_blocked


def recipes_dir() -> Path:
    """Return the folder of `sft.py`, `configs/` and `accelerate/`, in the source checkout or in the installed wheel.

    Raises:
        FileNotFoundError: if the package was installed without them.

    Example:
        >>> (recipes_dir() / "sft.py").is_file()
        True
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "recipes", package.parents[1] / "recipes"):
        if (folder / "sft.py").is_file():
            return folder
    raise FileNotFoundError(f"{package / 'recipes'}: no recipes; install longvale again, from a wheel or a checkout")


def run_sft(
    config: str | os.PathLike,
    *,
    model: str | os.PathLike,
    data_dir: str | os.PathLike,
    features_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    options: Sequence[str] = (),
    launch: str = "cpu.yaml",
) -> None:
    """Run a recipe as a user would: `accelerate launch recipes/sft.py --config ...`.

    Args:
        config: a file, or the name of one in `recipes/configs`.
        model, data_dir, features_dir, output_dir: of the stage.
        options: further options of the recipe, for example `("--max_steps", "20")`.
        launch: a file, or the name of one in `recipes/accelerate`.

    Raises:
        FileNotFoundError: if a file does not exist.
        RuntimeError: if the recipe fails; it prints its own message before.
    """
    recipes = recipes_dir()
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--quiet"),
        *("--config_file", str(_find(launch, recipes / "accelerate")), str(recipes / "sft.py")),
        *("--config", str(_find(config, recipes / "configs"))),
        *("--model", str(model), "--data_dir", str(data_dir), "--features_dir", str(features_dir)),
        *("--output_dir", str(output_dir), *options),
    ]
    # By default, accelerate counts physical cores, and uses one thread where two are virtual.
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
        "HF_HUB_OFFLINE": "1",
        **os.environ,
    }
    with interrupts_blocked():
        process = subprocess.Popen(command, env=environment)
    try:
        status = process.wait()
    except BaseException:  # the training, a child process of the launcher, must end in every case
        end_children(process.pid)
        process.kill()
        process.wait()
        raise
    if status:
        raise RuntimeError(f"{Path(config).stem} ended with exit code {status}: {' '.join(command)}")


def _find(name: str | os.PathLike, folder: Path) -> Path:
    for path in (Path(name), folder / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name}: no such file, nor in {folder}")
