"""The command line `longvale ...`: parse arguments, call the library, print results.

Heavy packages are imported inside the commands, so that help and usage errors appear immediately.
"""

from . import demo, data, evaluation, models, annotation, datasets, pictures, page, serving, doctor, listing  # isort: skip  # noqa: F401
from .base import app, main

__all__ = ["app", "main"]
