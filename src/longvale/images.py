"""Frames as texts that JSON and HTML can contain."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def jpeg_uri(frame: np.ndarray, quality: int, height: int | None = None) -> str:
    """Encode a frame as JPEG in a `data:` URI.

    Args:
        frame: uint8 [H, W, 3].
        quality: of the JPEG, 1 to 95.
        height: in pixels, to which it is resized with its proportions; None keeps the size.

    Example:
        >>> import numpy as np
        >>> jpeg_uri(np.zeros((4, 4, 3), np.uint8), quality=90)[:31]
        'data:image/jpeg;base64,/9j/4AAQ'
    """
    from PIL import Image

    image = Image.fromarray(frame)
    if height is not None:
        width = max(1, round(image.width * height / image.height))
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
