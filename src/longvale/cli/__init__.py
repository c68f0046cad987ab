"""The command line, `longvale ...`: parses, calls, prints.

Heavy packages are imported inside the commands, so that help and errors of spelling come at once.
"""

from . import demo, data, evaluation, models, annotation, datasets, pictures, page, doctor  # isort: skip  # noqa: F401
from .base import app, main

__all__ = ["app", "main"]
