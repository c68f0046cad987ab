"""The annotation stages of one video: admission, boundaries, captions per modality, and correlation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..chat_client import NoAnswer, Patience
from ..models.media import MediaError, MediaLengthError, probe
from ..plotting.style import strip_times
from ..system.checksums import identities
from .boundaries.audio import find_audio_events
from .boundaries.coherence import measure_coherence
from .boundaries.descriptors import AudioEmbedder, ColourEmbedder, FrameEmbedder, TimbreEmbedder, loudness
from .boundaries.embedders import checked
from .boundaries.fusion import Interval
from .boundaries.guided import confirmed_turns, fuse_guided, guide_sounds
from .boundaries.options import AudioOptions, SpeechOptions, VisualOptions
from .boundaries.speech import find_speech
from .boundaries.visual import find_visual_events
from .captions import ROLES, Captioner, Role, template_captioners
from .clip_reader import ClipReader, open_video
from .correlation import Concatenation, Evidence, Reasoner, ask_reasoner
from .describing import captions_as_facts, describe, modalities_of, with_tracks
from .facts import Fact, find_facts
from .filters import ALL, Facts, FilterOptions, Rejection, admit, agreement
from .languages import LanguageIdentifier, spoken_language
from .measurements import STILL_BELOW, measure
from .stages import Stages
from .tracks import TRACKS, Found, Track, Tracker, Tracks, within
from .tracks.finding import find_track
from .tracks.speakers import voices_of, with_speakers

#: Consecutive events without a usable answer that end a run: the model is too small, or is cut off while it reasons.
MAX_REFUSALS = 5


def _ignore(line: str) -> None:
    """Ignore a line: the default of the progress callbacks."""


@dataclass(frozen=True)
class AnnotationOptions:
    """Thresholds of all stages.

    Args:
        filters: thresholds of admission; by default every readable video is admitted.
        visual: options of visual boundaries.
        audio: options of sounds.
        speech: options of speech turns.
        min_event_s: events shorter than this in seconds join an adjacent neighbour, if there is one.
    """

    filters: FilterOptions = ALL
    visual: VisualOptions = field(default_factory=VisualOptions)
    audio: AudioOptions = field(default_factory=AudioOptions)
    speech: SpeechOptions = field(default_factory=SpeechOptions)
    min_event_s: float = 1.0


@dataclass(frozen=True)
class AnnotationModels:
    """The models of the annotation; the defaults need no weights.

    Args:
        captioners: captioners by role.
        reasoner: writes the captions of events.
        frame_embedder: frames to embeddings, for stitching clips that show the same.
        audio_embedder: audio clips to embeddings, for stitching clips that sound the same.
        trackers: what finds the tracks of a video, by track; none by default.
        origin: what else the provenance says of the models: the preset, revisions and licenses.
    """

    captioners: Mapping[Role, Captioner] = field(default_factory=template_captioners)
    reasoner: Reasoner = field(default_factory=Concatenation)
    frame_embedder: FrameEmbedder = field(default_factory=ColourEmbedder)
    audio_embedder: AudioEmbedder = field(default_factory=TimbreEmbedder)
    trackers: Mapping[Track, Tracker] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recogniser(self) -> Any:
        """Return what recognises speech, for the language filter: that of the transcript, or the speech captioner."""
        tracker = self.trackers.get("transcript")
        return getattr(tracker, "recogniser", None) or self.captioners.get("speech")

    def names(self) -> dict[str, Any]:
        """Return the names of the models, for the settings and the provenance."""
        captioners = {role: self.captioners[role].name for role in ROLES if role in self.captioners}
        return {
            "captioners": captioners,
            "reasoner": self.reasoner.name,
            "pictures": self.frame_embedder.name,
            "sounds": self.audio_embedder.name,
            "tracks": {track: self.trackers[track].name for track in TRACKS if track in self.trackers} or None,
        }


class VideoStages:
    """Annotator of videos, sequential or in several threads; work recorded in the stages is not repeated.

    Args:
        stages: the records so far; new records are added.
        options: thresholds.
        models: captioners, reasoner and embedders.
        max_refusals: consecutive events without a usable caption, or correlation, that end the run.
        report: progress callback, called with one line per event.
        note: callback for problems, called with one line per event without a usable answer.
    """

    def __init__(
        self,
        stages: Stages,
        options: AnnotationOptions,
        models: AnnotationModels,
        *,
        max_refusals: int = MAX_REFUSALS,
        report: Callable[[str], None] = _ignore,
        note: Callable[[str], None] = _ignore,
    ) -> None:
        self.stages, self.options, self.models = stages, options, models
        self._report, self._note = report, note
        self._patience = {name: Patience(max_refusals) for name in ("captioner", "language model", *TRACKS)}

    def __call__(self, video_id: str, path: Path, picture: Path | None = None) -> None:
        """Run the remaining stages of a video.

        Args:
            video_id: id of the video.
            path: video file.
            picture: PNG file for a figure of its boundaries, drawn if it does not exist; None to draw none.

        Raises:
            ValueError: if it was admitted earlier and can no longer be read.
            NoAnswer: if models give no usable answer for too many consecutive events.
            ServerError: if a server gives no answer.
        """
        reader = _LazyReader(path, self.options.filters.max_duration_s)
        try:
            if not self._admit(video_id, path, reader):
                return
            found = self._find_boundaries(video_id, reader)
        except (MediaError, FileNotFoundError) as error:  # missing or changed since it was admitted
            if self.stages.videos.get(video_id) is None:
                raise
            raise ValueError(f"{path}: cannot be read any more: {error}") from error
        if picture is not None and not picture.is_file():
            from .review.figures import boundaries_figure, write_figure

            frames = reader.value.frames
            strip = None if frames is None else reader.value.frames_at(strip_times(found["duration"]))
            write_figure(boundaries_figure(found, strip), picture)
        previous = ""
        for event_id, (start, end) in enumerate(found["events"]):
            self._report(f"{video_id}: event {event_id + 1} of {len(found['events'])}, {start:.1f} to {end:.1f} s")
            described = self._describe(video_id, event_id, start, end, found, reader)
            previous = self._correlate(video_id, event_id, described, previous)["caption"]

    def _admit(self, video_id: str, path: Path, reader: _LazyReader) -> bool:
        record = self.stages.videos.get(video_id)
        if record is None:
            start = time.perf_counter()
            identity = identities({video_id: path}).get(video_id)  # before reading: the file may be replaced meanwhile
            facts, rejections = self._examine(path, reader)
            seconds = _since(start)
            if not rejections:  # boundaries decode every frame, which shows whether the whole file is readable
                try:
                    self._find_boundaries(video_id, reader)
                except MediaError as error:
                    rejections = [_unreadable(error, path)]
            warnings = list(reader.value.warnings) if reader.loaded else []
            record = {
                "video_id": video_id,
                "file": path.name,
                "identity": identity,
                "admitted": not rejections,
                "rejections": [asdict(rejection) for rejection in rejections],
                "facts": asdict(facts),
                "warnings": warnings,
                "seconds": seconds,
            }
            self.stages.videos.add(record)
        return record["admitted"]

    def _examine(self, path: Path, reader: _LazyReader) -> tuple[Facts, list[Rejection]]:
        options = self.options.filters
        if not path.exists():
            return Facts(), [Rejection("readable", f"{path.name}: no such file, or a link to nothing")]
        try:
            info = probe(path)
            claimed = Facts(info.duration, has_picture=info.has_video, has_sound=info.has_audio)
            too_long = [r for r in admit(claimed, options) if r.reason == "too long"]
            if too_long:  # reject long videos by their header, without decoding
                return claimed, too_long
            facts = gather_facts(reader.value, self.options.speech, self.models.recogniser, options)
        except MediaLengthError as error:  # longer than its header claims, so not read completely
            facts = Facts(round(error.duration, 3))
            return facts, [Rejection("duration", "too long", facts.duration, error.limit)]
        except MediaError as error:
            return Facts(), [_unreadable(error, path)]
        return facts, admit(facts, options)

    def _find_boundaries(self, video_id: str, reader: _LazyReader) -> dict[str, Any]:
        record = self.stages.boundaries.get(video_id)
        if record is not None:
            return record
        speech = find_speech(reader.value.waveform, self.options.speech)
        tracks = self._find_tracks(video_id, reader, speech)
        start = time.perf_counter()
        found = find_boundaries(reader.value, self.options, self.models, speech, tracks)
        record = {"video_id": video_id, **found, "seconds": _since(start)}
        self.stages.boundaries.add(record)
        return record

    def _find_tracks(self, video_id: str, reader: _LazyReader, speech: Sequence[Interval]) -> dict[Track, Found]:
        """Find the tracks of a video, each once: one that is on disk is read."""
        tracks: dict[Track, Found] = {}
        for track in TRACKS:
            if track not in self.models.trackers:
                continue
            record = self.stages.tracks.get(video_id, track)
            if record is None:
                self._report(f"{video_id}: {track}")
                start = time.perf_counter()
                turns = confirmed_turns(speech, tracks)
                found, problem = find_track(self.models.trackers[track], reader.value, turns, tracks)
                if track == "transcript":
                    found = Found(with_speakers(found, tracks.get("speakers", ())), found.dropped)
                self._judge(track, video_id, problem)
                record = {
                    "video_id": video_id,
                    "track": track,
                    **found.to_record(),
                    **({"unanswered": problem} if problem else {}),
                    "seconds": _since(start),
                }
                self.stages.tracks.add(record)
            tracks[track] = Found.from_record(record)
        return tracks

    def _known_tracks(self, video_id: str) -> dict[Track, Found]:
        records = {track: self.stages.tracks.get(video_id, track) for track in TRACKS}
        return {track: Found.from_record(record) for track, record in records.items() if record is not None}

    def _describe(
        self, video_id: str, event_id: int, start: float, end: float, found: Mapping[str, Any], reader: _LazyReader
    ) -> dict[str, Any]:
        record = self.stages.captions.get(video_id, event_id)
        if record is not None:
            return record
        begin = time.perf_counter()
        measured, unanswered = measure(reader.value, start, end, found["speech"]), {}
        tracks = self._known_tracks(video_id)
        facts = find_facts(reader.value, start, end, found["cuts"], found["speech"], tracks)
        captioners = self.models.captioners
        captions = describe(reader.value, start, end, found["speech"], captioners, unanswered, tracks, facts)
        self._judge("captioner", _event(video_id, event_id, start, end), "; ".join(unanswered.values()))
        facts = [*captions_as_facts(captions, captioners, start, end), *facts]
        captions = with_tracks(captions, captioners, facts, start, end)
        record = {
            "video_id": video_id,
            "event_id": event_id,
            "start": start,
            "end": end,
            "captions": captions,
            "modalities": modalities_of(start, end, found, measured),
            "facts": [fact.to_record() for fact in facts],
            "measured": asdict(measured),
            **({"unanswered": unanswered} if unanswered else {}),
            "seconds": _since(begin),
        }
        self.stages.captions.add(record)
        return record

    def _correlate(self, video_id: str, event_id: int, described: Mapping[str, Any], previous: str) -> dict[str, Any]:
        record = self.stages.events.get(video_id, event_id)
        if record is not None:
            return record
        begin = time.perf_counter()
        evidence = Evidence(
            described["start"],
            described["end"],
            described["captions"],
            tuple(described["modalities"]),
            previous,
            tuple(Fact.from_record(fact) for fact in described.get("facts", ())),
        )
        written = ask_reasoner(self.models.reasoner, evidence)
        if written.attempts or written.refused:
            where = f"{_event(video_id, event_id, evidence.start, evidence.end)} ({_since(begin):.0f} s)"
            self._judge("language model", where, written.refused)
        record = {
            "video_id": video_id,
            "event_id": event_id,
            "start": described["start"],
            "end": described["end"],
            "caption": written.caption,
            "modalities": list(described["modalities"]),
            "relation": written.relations[0] if written.relations else None,
            "relations": list(written.relations),
            "answers": dict(written.answers),
            "attempts": written.attempts,
            "repairs": list(written.repairs),
            "refused": written.refused,
            **({"unsupported": list(written.unsupported), "first": written.first} if written.unsupported else {}),
            **({"replaced": True} if written.replaced else {}),
            **voices_of(within(self._known_tracks(video_id), described["start"], described["end"])),
            "seconds": _since(begin),
        }
        self.stages.events.add(record)
        return record

    def _judge(self, who: str, where: str, refused: str | None) -> None:
        """Record whether a model gave a usable answer for an event; end the run after too many failures in a row."""
        if not refused:
            self._patience[who].used()
            return
        self._note(f"{where}: no usable answer of the {who}: {refused}")
        try:
            self._patience[who].refused(refused)
        except NoAnswer as error:
            remedy = _REMEDIES.get(who, "name another model of this track; --max-refusals N allows more")
            raise NoAnswer(f"{where}: {who}: {error}; {remedy}") from None


#: Remedies for a model without usable answers.
_REMEDIES = {
    "captioner": "name another captioner, or raise --max-tokens; --max-refusals N allows more",
    "language model": "name a larger --language-model, raise --max-tokens, or give --no-correlation; --max-refusals N "
    "allows more",
}


def _event(video_id: str, event_id: int, start: float, end: float) -> str:
    return f"{video_id}: event {event_id + 1}, {start:.1f} to {end:.1f} s"


class _LazyReader:
    """Clip reader that is opened on first use: a resumed run does not read videos that it does not need."""

    def __init__(self, path: Path, max_duration_s: float | None) -> None:
        self._path, self._limit = path, max_duration_s

    @cached_property
    def value(self) -> ClipReader:
        return open_video(self._path, max_duration_s=self._limit)

    @property
    def loaded(self) -> bool:
        return "value" in vars(self)


def _unreadable(error: MediaError, path: Path) -> Rejection:
    return Rejection("readable", " ".join(str(error).split()).replace(str(path), path.name))


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)


def gather_facts(reader: ClipReader, speech: SpeechOptions, recogniser: Any, options: FilterOptions) -> Facts:
    """Measure the properties of a video that the enabled filters need."""
    spoken = language = probability = None
    if reader.waveform is not None and (options.max_speech is not None or options.language is not None):
        turns = find_speech(reader.waveform, speech)
        spoken = round(sum(end - start for start, end in turns) / reader.duration, 3)
        if options.language is not None and isinstance(recogniser, LanguageIdentifier):
            language, probability = spoken_language(turns, reader.audio, recogniser)
    motion, still = _motion(reader), None
    if len(motion) and options.max_static is not None:
        still = round(float((motion < STILL_BELOW).mean()), 3)
    together = None
    if options.min_agreement is not None and len(motion) > 2 and reader.waveform is not None:
        levels = np.abs(np.diff(loudness(reader.waveform)))
        together = agreement(motion, np.interp(reader.times[1:], np.arange(len(levels)) * 0.1, levels))
    height = None if reader.frames is None else probe(reader.path).short_side
    return Facts(
        round(reader.duration, 3), height, reader.frames is not None, reader.waveform is not None, spoken, still,
        language, probability, together,
    )  # fmt: skip


def _motion(reader: ClipReader) -> np.ndarray:
    """Compute the mean change of a pixel from frame to frame: [F - 1]."""
    if reader.frames is None or len(reader.frames) < 2:
        return np.empty(0)
    pairs = zip(reader.frames, reader.frames[1:], strict=False)
    return np.array([np.abs(a.astype(np.int16) - b).mean() for a, b in pairs])


def find_boundaries(
    reader: ClipReader,
    options: AnnotationOptions,
    models: AnnotationModels,
    speech: Sequence[Interval],
    tracks: Tracks,
) -> dict[str, Any]:
    """Find cuts, visual events, sounds and events; compute coherence before and after stitching.

    Args:
        reader: frames and sound of the video.
        options: thresholds.
        models: embedders.
        speech: speech turns, start and end in seconds.
        tracks: the tracks of the video.
    """
    frame_embedder, audio_embedder = checked(models.frame_embedder), checked(models.audio_embedder)
    models = replace(models, frame_embedder=frame_embedder, audio_embedder=audio_embedder)
    speech = confirmed_turns(speech, tracks)
    visual = find_visual_events(reader, options.visual, models.frame_embedder)
    audio = find_audio_events(reader.waveform, options.audio, models.audio_embedder, speech)
    sounds = guide_sounds(audio.events, speech, tracks)
    events = fuse_guided(visual.events, sounds, speech, tracks, min_length=options.min_event_s)
    if not events:  # no changes and no sounds: one event
        events = [(0.0, reader.duration)]
    return {
        "duration": round(reader.duration, 3),
        "cuts": [round(time, 3) for time in visual.cuts],
        "stitch": None if visual.stitch is None else round(visual.stitch, 3),
        "visual": _rounded(visual.events, reader.duration),
        "audio": _rounded(sounds, reader.duration),
        "speech": _rounded(speech, reader.duration),
        "events": _rounded(events, reader.duration),
        "coherence": measure_coherence(reader, visual, audio, models.frame_embedder, models.audio_embedder),
    }


def _rounded(spans: Iterable[tuple[float, float]], duration: float) -> list[tuple[float, float]]:
    return [(round(a, 2), round(min(b, duration), 2)) for a, b in spans if round(min(b, duration), 2) > round(a, 2)]
