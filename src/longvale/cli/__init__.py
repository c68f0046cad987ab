"""The command line, `longvale ...`: parses, calls, prints.

Heavy packages are imported inside the commands, so that help and errors of spelling come at once.
"""

from . import demo, data, evaluation, models, annotation  # isort: skip  # noqa: F401  in the order of the help
from .base import app, main

__all__ = ["app", "main"]
