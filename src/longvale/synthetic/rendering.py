"""Frames of synthetic videos: coloured moving shapes on greyish backgrounds that cut and fade.

Backgrounds, paths and directions, which a plan does not define, are drawn from the plan's seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..events import Event, Seconds
from .planning import PULSE_S, Piece, Plan, SyntheticOptions

#: RGB of the colours of [`longvale.synthetic.planning.COLOURS`].
COLOUR_RGB = {
    "red": (225, 25, 25),
    "orange": (250, 130, 0),
    "yellow": (240, 225, 20),
    "green": (20, 165, 40),
    "cyan": (20, 215, 225),
    "blue": (30, 60, 230),
    "purple": (150, 30, 190),
    "white": (250, 250, 250),
}
PATTERNS = ("plain", "gradient", "checker", "stripes")

#: Radius of a shape as a share of the frame's width.
_RADIUS = 0.2
_FADE_S = (1.0, 3.0)
_MAX_CHANGES = 3

Array = np.ndarray


@dataclass(frozen=True)
class Scene:
    """A background from `start` on, reached from the previous one within `fade_s` (0: a cut)."""

    start: Seconds
    fade_s: Seconds
    picture: Array  # [H, W, 3] float32


class Renderer:
    """Renderer of the frames of one plan; backgrounds and paths are computed once.

    Args:
        plan: events of the video.
        options: `size` is used.

    Example:
        >>> from longvale.synthetic.planning import plan_video
        >>> Renderer(plan_video("train_0000", seed=0), SyntheticOptions()).frame(1.0).shape
        (64, 64, 3)
    """

    def __init__(self, plan: Plan, options: SyntheticOptions) -> None:
        self._size = options.size
        self._axis = np.arange(options.size, dtype=np.float32) + 0.5
        self._scenes = draw_scenes(plan, options.size)
        self._pieces = [(piece, _path(event, piece, plan.seed)) for event, piece in plan.lane("visual")]

    def frame(self, time: Seconds) -> Array:
        """Draw the frame at a time in seconds: uint8 [H, W, 3], RGB."""
        picture = self._background(time)
        for piece, path in self._pieces:
            if piece.start <= time < piece.end:
                self._draw(picture, piece.content, path((time - piece.start) / (piece.end - piece.start), time))
        return (picture + 0.5).astype(np.uint8)

    def _background(self, time: Seconds) -> Array:
        index = max(i for i, scene in enumerate(self._scenes) if scene.start <= time)
        scene = self._scenes[index]
        share = (time - scene.start) / scene.fade_s if scene.fade_s else 1.0
        if share >= 1:
            return scene.picture.copy()
        before = self._scenes[index - 1].picture
        return before + (scene.picture - before) * np.float32(share)

    def _draw(self, picture: Array, content: str, pose: Pose) -> None:
        colour, shape = content.split()
        radius = _RADIUS * self._size * pose.scale
        # The centre keeps a distance from the border, so that the whole shape is visible.
        room = self._size - 2 * radius
        x, y = radius + pose.x * room, radius + pose.y * room
        columns, rows = (slice(max(0, int(c - radius - 2)), int(c + radius + 3)) for c in (x, y))
        dx, dy = np.meshgrid(self._axis[columns] - np.float32(x), self._axis[rows] - np.float32(y))
        cos, sin = math.cos(pose.angle), math.sin(pose.angle)
        distance = _DISTANCES[shape](cos * dx + sin * dy, cos * dy - sin * dx, radius)
        cover = np.clip(0.5 - distance, 0, 1)[..., None]  # [h, w, 1]: antialiased over one pixel
        patch = picture[rows, columns]
        patch += (np.array(COLOUR_RGB[colour], np.float32) - patch) * cover


def render_frame(plan: Plan, time: Seconds, options: SyntheticOptions | None = None) -> Array:
    """Render one frame of a plan; for many frames make a [`Renderer`].

    Args:
        plan: events of the video.
        time: seconds from the start of the video.
        options: default [`SyntheticOptions`].

    Returns:
        uint8 [H, W, 3], RGB.
    """
    return Renderer(plan, options or SyntheticOptions()).frame(time)


def draw_scenes(plan: Plan, size: int) -> list[Scene]:
    """Draw the backgrounds: one from the start, and others from some event boundaries, by a cut or a fade.

    Args:
        plan: source of the seed and the boundaries.
        size: width and height in pixels.

    Returns:
        One to four scenes by start; the first starts at 0.
    """
    rng = random.Random(f"{plan.seed}:scenes")
    duration = plan.annotation.duration
    boundaries = sorted({t for e in plan.annotation.events for t in (e.start, e.end) if 0 < t < duration - _FADE_S[1]})
    changes = sorted(rng.sample(boundaries, min(len(boundaries), rng.randint(0, _MAX_CHANGES))))
    scenes = [Scene(0.0, 0.0, _background(rng, size))]
    for start in changes:
        fade = rng.uniform(*_FADE_S) if rng.random() < 0.5 else 0.0
        scenes.append(Scene(start, fade, _background(rng, size)))
    return scenes


def _background(rng: random.Random, size: int) -> Array:
    """Draw a dim background of low contrast and little colour, so that shapes are visible: float32 [H, W, 3]."""
    shade = rng.uniform(55, 130)
    first = np.array([shade + rng.uniform(-10, 10) for _ in range(3)], np.float32)
    second = first + np.float32(rng.choice((-1, 1)) * rng.uniform(15, 35))
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    pattern, cells = rng.choice(PATTERNS), rng.randint(2, 4)
    if pattern == "plain":
        mix = np.zeros_like(x)
    elif pattern == "gradient":
        angle = rng.uniform(0, math.tau)
        mix = 0.5 + (math.cos(angle) * (x - 0.5) + math.sin(angle) * (y - 0.5)) / math.sqrt(2)
    elif pattern == "checker":
        mix = (np.floor(x * cells) + np.floor(y * cells)) % 2
    else:
        along = x if rng.random() < 0.5 else y
        mix = np.floor(along * 2 * cells) % 2
    return first + (second - first) * mix[..., None].astype(np.float32)


@dataclass(frozen=True)
class Pose:
    """Pose of a shape: x and y from 0 (left, top) to 1, its angle in radians and its scale, 1 for the usual size."""

    x: float
    y: float
    angle: float = 0.0
    scale: float = 1.0


#: Maps the elapsed share of the piece and the seconds since the start of the video to a pose.
_Path = Callable[[float, Seconds], Pose]


def _path(event: Event, piece: Piece, seed: str) -> _Path:
    """Return the motion for the event's relation, its direction and place drawn from the seed."""
    rng = random.Random(f"{seed}:{piece.content}")
    x, y = rng.random(), rng.random()
    side = rng.choice((0.0, 1.0))
    match event.relation:
        case "synchronicity":  # touches the ground at every beat of the sound
            return lambda u, t: Pose(x, 1 - abs(math.sin(math.pi * (t - piece.start) / PULSE_S)))
        case "complementary":
            turn = rng.choice((-1, 1)) * math.tau / 3  # a turn in three seconds
            return lambda u, t: Pose(
                x=0.25 + 0.5 * x + 0.25 * math.cos(turn * t),
                y=0.25 + 0.5 * y + 0.25 * math.sin(turn * t),
                angle=turn * t,
            )
        case "causality":  # accelerates until it hits the left or right border
            return lambda u, t: Pose(abs(1 - side - u * u), y)
        case "temporal association":
            return lambda u, t: Pose(x, y, scale=0.6 + 0.4 * min(1.0, 4 * u))
        case _:
            return lambda u, t: Pose(abs(side - u), y)


# Signed distances in pixels from the edge of each shape, negative inside. x and y are [h, w] from its centre, y down.
def _circle(x: Array, y: Array, radius: float) -> Array:
    return np.hypot(x, y) - radius


def _ring(x: Array, y: Array, radius: float) -> Array:
    return np.abs(np.hypot(x, y) - 0.72 * radius) - 0.28 * radius


def _square(x: Array, y: Array, radius: float) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - 0.85 * radius


def _triangle(x: Array, y: Array, radius: float) -> Array:
    slope = math.sqrt(3) / 2
    return np.maximum(slope * np.abs(x) - 0.5 * y, y) - 0.5 * radius


def _star(x: Array, y: Array, radius: float) -> Array:
    # Five points: fold the plane onto half of one of them, whose edge runs from the tip to the inner corner.
    angle = np.abs((np.arctan2(x, -y) + math.pi / 5) % (math.tau / 5) - math.pi / 5)
    along, across = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * np.sin(angle)
    inner_x, inner_y = 0.5 * radius * math.cos(math.pi / 5), 0.5 * radius * math.sin(math.pi / 5)
    edge_x, edge_y = inner_x - radius, inner_y
    return (edge_y * (along - radius) - edge_x * across) / math.hypot(edge_x, edge_y)


_DISTANCES = {"circle": _circle, "ring": _ring, "square": _square, "triangle": _triangle, "star": _star}
