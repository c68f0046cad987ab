"""Coherence of events: the published "max running semantic difference"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .fusion import Interval

if TYPE_CHECKING:
    import numpy as np

    from ..clip_reader import ClipReader
    from .audio import AudioBoundaries
    from .descriptors import AudioEmbedder, FrameEmbedder
    from .visual import VisualBoundaries

#: Maximum number of frames at the embedder's size in memory at a time.
_MOST_FRAMES = 2048


def coherence(embeddings: np.ndarray, times: np.ndarray, events: Sequence[Interval]) -> list[float | None]:
    """Compute the max running semantic difference of each event; lower is more coherent.

    The paper names the measure and reports its mean (.53 for visual events), without a formula. Here it is the largest
    distance between two consecutive embeddings, so the embeddings should be about one second apart.

    Args:
        embeddings: [n, d] of frames or audio windows.
        times: [n], ascending, the time of each embedding in seconds.
        events: start and end in seconds.

    Returns:
        One Euclidean distance per event; None for events with fewer than two embeddings.

    Raises:
        ValueError: if the numbers of times and embeddings differ.

    Example:
        >>> import numpy as np
        >>> rows = np.array([[0.0], [0.1], [1.0], [1.1]])
        >>> [round(value, 3) for value in coherence(rows, np.arange(4.0), [(0, 4), (0, 2)])]
        [0.9, 0.1]
    """
    import numpy as np

    embeddings, times = np.asarray(embeddings), np.asarray(times)
    if len(embeddings) != len(times):
        raise ValueError(f"{len(embeddings)} embeddings but {len(times)} times; each embedding needs one")
    differences = []
    for start, end in events:
        inside = embeddings[(times >= start) & (times < end)]
        steps = np.linalg.norm(np.diff(inside, axis=0), axis=1) if len(inside) > 1 else np.empty(0)
        differences.append(float(steps.max()) if steps.size else None)
    return differences


def measure_coherence(
    reader: ClipReader,
    visual: VisualBoundaries,
    audio: AudioBoundaries,
    frame_embedder: FrameEmbedder,
    audio_embedder: AudioEmbedder,
) -> dict[str, Any]:
    """Compute mean length in seconds and mean max running semantic difference of clips and of stitched events.

    Args:
        reader: frames and sound of the video.
        visual: clips and events of the frames.
        audio: clips and events of the sound.
        frame_embedder: embeds a frame per second.
        audio_embedder: embeds each second of the sound.
    """
    import numpy as np

    seconds = np.arange(0.5, reader.duration, 1.0)
    measured: dict[str, Any] = {}
    rows: dict[str, tuple[np.ndarray, Any]] = {}
    if reader.frames is not None and len(seconds):
        parts = np.array_split(seconds, -(-len(seconds) // _MOST_FRAMES))
        embedded = [frame_embedder(reader.frames_at(part, frame_embedder.size)) for part in parts]
        rows["visual"] = (np.concatenate(embedded), visual)
    if reader.waveform is not None and len(seconds):
        rows["audio"] = (audio_embedder([reader.audio(t - 0.5, t + 0.5) for t in seconds]), audio)
    for name, (embeddings, found) in rows.items():
        for when, spans in (("clips", found.clips), ("events", found.events)):
            differences = [d for d in coherence(embeddings, seconds, spans) if d is not None]
            measured[f"{name}_{when}"] = {
                "count": len(spans),
                "mean_length": round(float(np.mean([b - a for a, b in spans])), 3) if spans else None,
                "difference": round(float(np.mean(differences)), 3) if differences else None,
            }
    return measured
