"""longvale: videos that are seen, heard and spoken.

Importing it teaches `datasets.load_dataset` the name "longvale" and does nothing else.
"""

from .data import registration as _registration

__version__ = "0.1.0"

_registration.register()
