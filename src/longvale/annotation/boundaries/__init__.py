"""Event boundaries: visual events, sounds, speech turns, and omni-modal events fused from all three."""

from .coherence import coherence
from .fusion import fuse

__all__ = ["coherence", "fuse"]
