"""Where events begin and end: visual boundaries, sounds, speech turns, and events of all three together."""

from .coherence import coherence
from .fusion import fuse

__all__ = ["coherence", "fuse"]
