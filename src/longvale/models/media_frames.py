"""Conversion of decoded frames: scaling, square pixels, rotation, and a memory limit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from .media_source import MediaError

#: Largest aspect ratio of frames that are scaled by their shorter side.
_MAX_ASPECT = 100

#: Memory limit of all frames: 100 frames of 3840 x 2160.
_MAX_FRAMES_BYTES = 2_500_000_000


class Converter:
    """Converter of decoded frames to upright RGB arrays with square pixels, all with the shape of the first.

    Args:
        name: name of the file, for errors.
        stream: video stream.
        size: length of the shorter side in pixels; None keeps the original size.
        num_frames: number of frames that will be in memory at once.
    """

    def __init__(self, name: str, stream: Stream, size: int | None, num_frames: int) -> None:
        self._name, self._size, self._num_frames = name, size, num_frames
        self._pixel = stream.sample_aspect_ratio  # read now: the stream closes with its container
        self._reformatter = VideoReformatter()  # reuses the tables of the scaler
        self._shape: tuple[int, int] | None = None  # width, height before rotation
        self._matrix: np.ndarray | None = None

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """Convert a frame to uint8 [H, W, 3].

        Raises:
            MediaError: if the frames would not fit in memory.
        """
        if self._shape is None:
            self._shape = self._scaled(_squared(frame.width, self._pixel), frame.height)
            self._matrix = _display_matrix(frame)
        width, height = self._shape
        image = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=Interpolation.BICUBIC)
        return upright(image.to_ndarray(), self._matrix)

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """Scale the shorter side to `size`; the longer side is rounded down as in CLIP's image processor."""
        size = self._size
        if size is not None:
            if max(width, height) > _MAX_ASPECT * min(width, height):
                raise MediaError(
                    f"{self._name}: its pictures are shown as {width} x {height} pixels, more than {_MAX_ASPECT} times "
                    "as long as wide; crop it"
                )
            scaled = (size, size * height // width) if width <= height else (size * width // height, size)
            width, height = scaled
        total = 3 * width * height * self._num_frames
        if total > _MAX_FRAMES_BYTES:
            raise MediaError(
                f"{self._name}: {self._num_frames} frames of {width} x {height} pixels would take "
                f"{total / 1e9:.1f} GB, more than {_MAX_FRAMES_BYTES / 1e9} GB; ask for fewer or smaller ones, or "
                "crop the video"
            )
        return width, height


def square_size(stream: Stream) -> tuple[int, int]:
    """Return width and height of the frames in square pixels, from the header, before rotation."""
    return _squared(stream.width, stream.sample_aspect_ratio), stream.height


def _squared(width: int, pixel: Fraction | None) -> int:
    """Convert a width to square pixels by the pixel aspect ratio (width / height), if known; the height stays.

    Example:
        >>> _squared(1440, Fraction(4, 3)), _squared(1280, None)
        (1920, 1280)
    """
    return max(1, round(width * pixel)) if pixel else width


def _display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """Return [[a, b], [c, d]] of the display matrix, which maps a point (x, y) to (ax + cy, bx + dy)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]


def upright(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Rotate an image [H, W, 3] by quarter turns and mirror it, according to its display matrix.

    Example:
        >>> upright(np.array([[[1], [2]]]), np.array([[0, -65536], [65536, 0]]))[..., 0]
        array([[2],
               [1]])
    """
    if matrix is None:
        return image
    (a, b), (c, d) = matrix.tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, rows, columns = image.swapaxes(0, 1), b, c
    else:
        rows, columns = d, a
    return image[:: -1 if rows < 0 else 1, :: -1 if columns < 0 else 1]
