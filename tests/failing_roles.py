"""Roles of the annotation that work, fail, return something else, or kill the process: one stub for each role."""

import os
import signal
import sys
from pathlib import Path

import numpy as np

from longvale.annotation.boundaries.descriptors import ColourEmbedder, TimbreEmbedder
from longvale.annotation.captions import ROLES
from longvale.annotation.correlation import Concatenation
from longvale.annotation.pipeline import AnnotationModels, annotate
from longvale.annotation.tracks import TRACKS, Span

EMBEDDERS = {"frame_embedder": ColourEmbedder, "audio_embedder": TimbreEmbedder}
#: As a run calls them first.
IN_ORDER = (*TRACKS, *EMBEDDERS, *ROLES, "reasoner")

#: How a span looks that a tracker must not return.
WRONG_SPANS = {
    "NaN": Span(float("nan"), 1.0, "x"),
    "backwards": Span(2.0, 1.0, "x"),
    "beyond": Span(0.0, 99.0, "x"),
    "score": Span(0.0, 1.0, "x", float("nan")),
    "text": Span(0.0, 1.0, None),
    "kind": "a dog",
}


class Role:
    """A role that works, except for what happens on its first call.

    Args:
        role: its name.
        first: function called first, whose result is returned unless it is None.
    """

    size = 48

    def __init__(self, role, first=None):
        self.name, self._role, self._first = f"stub ({role})", role, first
        self._works = Concatenation() if role == "reasoner" else EMBEDDERS[role]() if role in EMBEDDERS else None

    def __call__(self, *inputs):
        first, self._first = self._first, None
        if first is not None and (wrong := first()) is not None:
            return wrong
        if self._works:
            return self._works(*inputs)
        if self._role in TRACKS:
            reader = inputs[0]
            return [Span(1.0, 3.0, f"a {self._role}", 0.5), Span(4.0, reader.duration + 0.5, f"b {self._role}")]
        return f"It is {self._role}." if self._role != "speech" else ""


def build(first=None, role=""):
    """Models whose roles all are stubs; `first` is what `role` does first."""
    made = {name: Role(name, first if name == role else None) for name in IN_ORDER}
    return AnnotationModels(
        {name: made[name] for name in ROLES}, made["reasoner"], made["frame_embedder"], made["audio_embedder"],
        {name: made[name] for name in TRACKS},
    )  # fmt: skip


def wrong_embedding():
    return np.full((1, 3), np.nan, np.float32)


def main(role, video, output):
    """Annotate a video; the first time, the role kills the process."""
    marker = Path(output).with_suffix(f".{role}.killed")

    def kill():
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    annotate([video], output, models=build(kill, role), progress=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
