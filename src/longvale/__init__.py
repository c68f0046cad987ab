"""longvale: understanding of long videos by vision, audio and speech.

Importing it registers the name "longvale" with `datasets.load_dataset` and our models with the Auto classes of
transformers, and does nothing else.
"""

from . import auto as _auto
from . import metrics as metrics
from .data import registration as _registration

__version__ = "0.1.0"

_registration.register()
_auto.register()
