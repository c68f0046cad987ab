"""Options of the detection of visual events, of sounds and of speech turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ...events import Seconds

Detector = Literal["content", "transnetv2", "none"]


@dataclass(frozen=True)
class VisualOptions:
    """Options of the detection of visual events; the defaults are Panda-70M's except for the last five.

    Args:
        detector: `content` of PySceneDetect, `transnetv2`, or `none`.
        content_threshold: threshold of the content detector, 0 to 255.
        min_scene_frames: minimum number of frames between two cuts.
        long_clip_s: clips longer than this in seconds get forced cuts.
        forced_cut_s: length in seconds of the clips that forced cuts make.
        drop: maximum distance between both ends of a clip; other clips are dropped.
        stitch: maximum distance of the adjacent ends of neighbours that are joined to one event. For embedders other
            than colour histograms `drop` and `stitch` are measured on the video, see `calibration.py`, and a hard cut
            whose sides differ by more than `stitch` in colours is kept.
        min_length_s: events shorter than this in seconds are dropped.
        gradual: minimum distance between windows of descriptors for a change, however slow.
        window_s: length of these windows in seconds.
        abrupt: a change is a cut if at least this fraction of it occurs between two frames.
        margin_s: clips are compared at 5% and 95% of their length, and at least this many seconds from a change, since
            a fade belongs to neither scene.
        layout: maximum distance of the layouts of the adjacent ends of neighbours that are joined, see
            [`LayoutEmbedder`]: shots of different content often share their colours. Only for colour histograms.
    """

    detector: Detector = "content"
    content_threshold: float = 25.0
    min_scene_frames: int = 15
    long_clip_s: Seconds = 7.0
    forced_cut_s: Seconds = 5.0
    drop: float = 1.0
    stitch: float = 0.6
    min_length_s: Seconds = 2.0
    gradual: float = 0.5
    window_s: Seconds = 2.0
    abrupt: float = 0.6
    margin_s: Seconds = 1.0
    layout: float = 0.6

    def __post_init__(self) -> None:
        if self.detector not in get_args(Detector):
            raise ValueError(f"detector must be one of {', '.join(get_args(Detector))}, not {self.detector!r}")
        if not 0 < self.forced_cut_s < self.long_clip_s:
            raise ValueError(f"forced_cut_s must be above 0 and below long_clip_s, {self.long_clip_s}")


@dataclass(frozen=True)
class AudioOptions:
    """Options of the detection of sounds.

    Args:
        change: minimum change between windows, in spreads of an MFCC.
        apart_s: distance in seconds within which only the largest change is kept; the start or end of a sound within
            this distance of a change is moved to it.
        stitch: maximum distance of neighbours that are joined to one sound. For embedders other than MFCC statistics it
            is measured on the video, see `calibration.py`.
        continue_share: fraction of a sound's spectrum that must remain after a change for the sound to continue.
        added_share: minimum fraction of the audible spectrum that a change must add to start another sound beside those
            that continue.
        max_overlap: maximum number of simultaneous sounds: listeners lose count of similar voices beyond three (Huron,
            "Voice Denumerability in Polyphonic Music of Homogeneous Timbres", 1989), and an orchestra would otherwise
            start a new sound with each instrument.
        level_floor: a sound is heard while its level is above this fraction of its maximum.
        pause_s: a sound ends unless it is heard again within this time in seconds.
        silence_db: level below which a step is silent, in dB relative to full scale.
        noise_factor: multiple of the power of the video's quietest tenth that is subtracted from each band as noise.
        min_length_s: sounds shorter than this in seconds are dropped.
    """

    change: float = 0.25
    apart_s: Seconds = 0.5
    stitch: float = 0.25
    continue_share: float = 0.4
    added_share: float = 0.1
    max_overlap: int = 4
    level_floor: float = 0.1
    pause_s: Seconds = 1.2
    silence_db: float = -60.0
    noise_factor: float = 32.0
    min_length_s: Seconds = 0.5

    def __post_init__(self) -> None:
        if self.max_overlap < 1:
            raise ValueError(f"max_overlap must be 1 or more, not {self.max_overlap!r}")
        if not 0 <= self.level_floor < 1:
            raise ValueError(f"level_floor must be 0 or more and below 1, not {self.level_floor!r}")


@dataclass(frozen=True)
class SpeechOptions:
    """Options of the detection of speech turns.

    Args:
        threshold: minimum speech probability of silero-vad.
        pause_s: shorter pauses, in seconds, do not end a turn.
        min_length_s: shorter speech, in seconds, is dropped.
        steady: multiple of the median magnitude of each frequency that is subtracted first; 0 to subtract nothing.
        peak: minimum probability of the most probable window of a turn: music can resemble speech, but is not certain.
    """

    threshold: float = 0.5
    pause_s: Seconds = 1.0
    min_length_s: Seconds = 0.25
    steady: float = 1.5
    peak: float = 0.95

    def __post_init__(self) -> None:
        if not self.steady >= 0:
            raise ValueError(f"steady must be 0 or more, not {self.steady!r}")
        if not 0 <= self.peak <= 1:
            raise ValueError(f"peak must be between 0 and 1, not {self.peak!r}")
