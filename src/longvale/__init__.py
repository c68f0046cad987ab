"""longvale: understanding of long videos by vision, audio and speech.

Importing it registers our models with the Auto classes of transformers and the name "longvale" with
`datasets.load_dataset`, and does nothing else. `longvale.load_dataset` gives the same rows without that name.
"""

from . import auto as _auto
from . import metrics as metrics
from .data import registration as _registration
from .data.loading import load_dataset as load_dataset

__version__ = "0.1.0"

_registration.register()
_auto.register()
