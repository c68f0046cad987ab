"""longvale: videos that are seen, heard and spoken.

Importing it teaches `datasets.load_dataset` the name "longvale" and the Auto classes of transformers its models, and
does nothing else.
"""

from . import auto as _auto
from . import metrics as metrics
from .data import registration as _registration

__version__ = "0.1.0"

_registration.register()
_auto.register()
