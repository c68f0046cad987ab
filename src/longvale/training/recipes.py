"""Where the recipes lie: the training script with its configurations."""

from __future__ import annotations

from pathlib import Path


def recipes_dir() -> Path:
    """The folder that holds `sft.py`, `configs/` and `accelerate/`: beside the package's sources, or inside the wheel.

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
