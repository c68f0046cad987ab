"""Videos -> annotations: `longvale annotate VIDEO... --output annotations.json`.

::

    out.json                       official annotations
    out.provenance.json            models, prompts, thresholds, versions, times, counts
    out.funnel.png                 which videos were admitted
    out.stages/videos.jsonl        a line a video: admitted, or why not
    out.stages/boundaries.jsonl    a line a video: cuts, visual events, sounds, speech, events
    out.stages/captions.jsonl      a line an event: what each role says, what was measured
    out.stages/events.jsonl        a line an event: caption, modalities, relations, how they were found
    out.stages/timelines/ID.png    boundaries of a video, to look at

A stage of a video, or of an event, that is on disk is not done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ..data.extraction import find_videos
from ..events import Annotation, Event, Modality, atomic_write, save_annotations
from ..models.media import MediaError, probe
from .boundaries import coherence, fuse
from .boundaries.audio import AudioOptions, SpeechOptions, find_sounds, find_speech
from .boundaries.visual import VisualOptions, find_visual_events
from .captions import CLIP_FRAMES, ROLES, Captioner, Clip, Role, parts, template_captioners
from .correlation import Concatenation, Evidence, Reasoner
from .descriptors import ColourEmbedder, PictureEmbedder, SoundEmbedder, TimbreEmbedder, loudness
from .filters import ALL, Facts, FilterOptions, Rejection, admit, agreement
from .footage import Footage, read_footage
from .measurements import STILL_BELOW, Measurements, measure

#: Timelines are drawn of the first so many videos.
TIMELINES = 20

#: An event is perceived in a modality that fills at least this share of it, or this many seconds.
_PERCEIVED_SHARE, _PERCEIVED_S = 0.1, 1.0

_PACKAGES = ("longvale", "av", "numpy", "torch", "torchaudio", "transformers", "scenedetect-headless", "silero-vad")


@dataclass(frozen=True)
class AnnotationOptions:
    """Thresholds of all stages.

    Args:
        filters: of admission; by default all that can be read is admitted.
        visual: of visual boundaries.
        audio: of sounds.
        speech: of speech turns.
        min_event_s: events shorter than this join a neighbour, where they touch one.
    """

    filters: FilterOptions = ALL
    visual: VisualOptions = field(default_factory=VisualOptions)
    audio: AudioOptions = field(default_factory=AudioOptions)
    speech: SpeechOptions = field(default_factory=SpeechOptions)
    min_event_s: float = 1.0


@dataclass(frozen=True)
class Workers:
    """Who does the work; the defaults need no weights.

    Args:
        captioners: by role.
        reasoner: writes the captions of events.
        pictures: decides which clips show the same.
        sounds: decides which clips sound the same.
    """

    captioners: Mapping[Role, Captioner] = field(default_factory=template_captioners)
    reasoner: Reasoner = field(default_factory=Concatenation)
    pictures: PictureEmbedder = field(default_factory=ColourEmbedder)
    sounds: SoundEmbedder = field(default_factory=TimbreEmbedder)

    def names(self) -> dict[str, Any]:
        """What each is, for the provenance."""
        captioners = {role: self.captioners[role].name for role in ROLES if role in self.captioners}
        return {
            "captioners": captioners,
            "reasoner": self.reasoner.name,
            "pictures": self.pictures.name,
            "sounds": self.sounds.name,
        }


@dataclass(frozen=True)
class Summary:
    """What came of a run.

    Args:
        annotations: by video id, those of the output.
        rejections: by video id; none for those admitted.
        refused: events whose language model gave no answer that can be used.
    """

    annotations: Mapping[str, Annotation]
    rejections: Mapping[str, Sequence[Rejection]]
    refused: int

    def __str__(self) -> str:
        """One line of counts.

        Example:
            >>> str(Summary({"a": Annotation("a", 60.0)}, {"a": [], "b": [Rejection("sound", "no sound")]}, 0))
            '1 of 2 videos annotated, 0 events'
        """
        events = sum(len(annotation.events) for annotation in self.annotations.values())
        line = f"{len(self.annotations)} of {len(self.rejections)} videos annotated, {events} events"
        return line + (f", {self.refused} of them without correlation" if self.refused else "")


def annotate(
    videos: Iterable[str | os.PathLike],
    output: str | os.PathLike,
    *,
    options: AnnotationOptions | None = None,
    workers: Workers | None = None,
    concurrency: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """Annotate videos, or go on with a run that was stopped.

    Args:
        videos: files, and folders of files.
        output: JSON file to write; its folder is made. The stages stand beside it.
        options: thresholds; default [`AnnotationOptions`].
        workers: models; default [`Workers`], which need none.
        concurrency: videos worked on at a time.
        overwrite: begin anew instead of going on.
        progress: show a progress bar.

    Returns:
        Annotations and rejections. One bad video does not stop the others.

    Raises:
        FileNotFoundError: if a video does not exist.
        ValueError: if two videos have one id, the stages were made with other settings, a package is missing, or no
            video was admitted.
        ServerError: if a server gives no answer; what is done is kept.

    Example:
        >>> summary = annotate(["videos"], "annotations.json")  # doctest: +SKIP
    """
    options, workers, output = options or AnnotationOptions(), workers or Workers(), Path(output)
    if concurrency < 1:
        raise ValueError(f"concurrency must be 1 or more, not {concurrency}")
    paths = _find_all(videos)
    run = _Run(output, options, workers, overwrite)
    run.work(paths, concurrency, progress)
    return run.finish(paths)


def _find_all(videos: Iterable[str | os.PathLike]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for item in videos:
        for video_id, path in find_videos(item).items():
            if video_id in found and found[video_id].resolve() != path.resolve():
                raise ValueError(f"{path}: video id {video_id!r} has a second file, {found[video_id]}; keep one")
            found[video_id] = path
    if not found:
        raise ValueError("no video was given")
    return dict(sorted(found.items()))


def stage_folder(output: str | os.PathLike) -> Path:
    """The folder of the stages of an output.

    Example:
        >>> stage_folder("a/out.json").as_posix()
        'a/out.stages'
    """
    return Path(output).with_suffix(".stages")


class _Run:
    """One run over the stages."""

    def __init__(self, output: Path, options: AnnotationOptions, workers: Workers, overwrite: bool) -> None:
        from .stages import StageLog, claim

        self.output, self.options, self.workers = output, options, workers
        self.folder = stage_folder(output)
        if overwrite and (self.folder / "settings.json").is_file():
            shutil.rmtree(self.folder)
        self.settings = {"options": asdict(options), **workers.names(), "prompts": prompt_hashes()}
        claim(self.folder, self.settings)
        self.videos = StageLog(self.folder / "videos.jsonl", ("video_id",))
        self.boundaries = StageLog(self.folder / "boundaries.jsonl", ("video_id",))
        self.captions = StageLog(self.folder / "captions.jsonl", ("video_id", "event_id"))
        self.events = StageLog(self.folder / "events.jsonl", ("video_id", "event_id"))

    def work(self, paths: Mapping[str, Path], concurrency: int, progress: bool) -> None:
        from tqdm import tqdm

        drawn = set(list(paths)[:TIMELINES])
        with tqdm(total=len(paths), unit="video", desc="annotate", disable=not progress) as bar:
            pool = ThreadPoolExecutor(concurrency, thread_name_prefix="annotate")
            try:
                futures = [pool.submit(self._video, *item, item[0] in drawn) for item in paths.items()]
                for future in futures:
                    future.add_done_callback(lambda _: bar.update())
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    # --- the stages of one video ---

    def _video(self, video_id: str, path: Path, draw: bool) -> None:
        footage = _LazyFootage(path)
        try:
            if not self._admit(video_id, path, footage):
                return
            found = self._find_boundaries(video_id, footage)
        except (MediaError, FileNotFoundError) as error:  # gone or changed since it was admitted
            if self.videos.get(video_id) is None:
                raise
            raise ValueError(f"{path}: cannot be read any more: {error}") from error
        picture = self.folder / "timelines" / f"{video_id}.png"
        if draw and not picture.is_file():
            from .figures import timeline_figure, write_figure

            write_figure(timeline_figure(video_id, found, footage.value), picture)
        previous = ""
        for event_id, (start, end) in enumerate(found["events"]):
            told = self._describe(video_id, event_id, start, end, found, footage)
            previous = self._correlate(video_id, event_id, told, previous)["caption"]

    def _admit(self, video_id: str, path: Path, footage: _LazyFootage) -> bool:
        record = self.videos.get(video_id)
        if record is None:
            start = time.perf_counter()
            facts, rejections = self._examine(path, footage)
            warnings = list(footage.value.warnings) if footage.loaded else []
            record = {
                "video_id": video_id,
                "file": path.name,
                "admitted": not rejections,
                "rejections": [asdict(rejection) for rejection in rejections],
                "facts": asdict(facts),
                "warnings": warnings,
                "seconds": _since(start),
            }
            self.videos.add(record)
        return record["admitted"]

    def _examine(self, path: Path, footage: _LazyFootage) -> tuple[Facts, list[Rejection]]:
        options = self.options.filters
        try:
            info = probe(path)
            claimed = Facts(info.duration, has_picture=info.has_video, has_sound=info.has_audio)
            too_long = [r for r in admit(claimed, options) if r.reason == "too long"]
            if too_long:  # a header is enough to refuse three hours
                return claimed, too_long
            facts = gather_facts(footage.value, self.options.speech, self.workers.captioners.get("speech"), options)
        except MediaError as error:
            return Facts(), [Rejection("readable", " ".join(str(error).split()).replace(str(path), path.name))]
        return facts, admit(facts, options)

    def _find_boundaries(self, video_id: str, footage: _LazyFootage) -> dict[str, Any]:
        record = self.boundaries.get(video_id)
        if record is not None:
            return record
        start = time.perf_counter()
        record = {"video_id": video_id, **find_boundaries(footage.value, self.options, self.workers)}
        record["seconds"] = _since(start)
        self.boundaries.add(record)
        return record

    def _describe(
        self, video_id: str, event_id: int, start: float, end: float, found: Mapping[str, Any], footage: _LazyFootage
    ) -> dict[str, Any]:
        record = self.captions.get(video_id, event_id)
        if record is not None:
            return record
        begin = time.perf_counter()
        measured = measure(footage.value, start, end, found["speech"])
        record = {
            "video_id": video_id,
            "event_id": event_id,
            "start": start,
            "end": end,
            "captions": describe(footage.value, start, end, found["speech"], self.workers.captioners),
            "modalities": modalities_of(start, end, found, measured),
            "measured": asdict(measured),
            "seconds": _since(begin),
        }
        self.captions.add(record)
        return record

    def _correlate(self, video_id: str, event_id: int, told: Mapping[str, Any], previous: str) -> dict[str, Any]:
        record = self.events.get(video_id, event_id)
        if record is not None:
            return record
        begin = time.perf_counter()
        evidence = Evidence(told["start"], told["end"], told["captions"], tuple(told["modalities"]), previous)
        written = self.workers.reasoner(evidence)
        record = {
            "video_id": video_id,
            "event_id": event_id,
            "start": told["start"],
            "end": told["end"],
            "caption": written.caption,
            "modalities": list(told["modalities"]),
            "relation": written.relations[0] if written.relations else None,
            "relations": list(written.relations),
            "answers": dict(written.answers),
            "attempts": written.attempts,
            "repairs": list(written.repairs),
            "refused": written.refused,
            "seconds": _since(begin),
        }
        self.events.add(record)
        return record

    # --- the end ---

    def finish(self, paths: Mapping[str, Path]) -> Summary:
        """Write annotations, provenance and funnel of the videos asked for."""
        from .figures import funnel_figure, write_figure
        from .filters import format_funnel

        rejections = {v: [Rejection(**r) for r in self.videos.get(v)["rejections"]] for v in paths}
        admitted = [video_id for video_id, reasons in rejections.items() if not reasons]
        write_figure(funnel_figure(rejections), self.output.with_suffix(".funnel.png"))
        if not admitted:
            reasons = "; ".join(f"{v}: {reason_text(r[0])}" for v, r in list(rejections.items())[:5])
            raise ValueError(f"no video was admitted ({len(rejections)} given): {reasons}; see {self.videos.path}")
        annotations = {video_id: self._annotation(video_id) for video_id in admitted}
        records = [r for r in self.events.values() if r["video_id"] in annotations]
        refused = sum(r["refused"] is not None for r in records)
        with atomic_write(self.output.with_suffix(".provenance.json")) as file:
            json.dump(self._provenance(annotations, records, format_funnel(rejections)), file, indent=2)
        save_annotations(annotations, self.output)
        return Summary(annotations, rejections, refused)

    def _annotation(self, video_id: str) -> Annotation:
        found = self.boundaries.get(video_id)
        records = [self.events.get(video_id, index) for index in range(len(found["events"]))]
        events = [Event(r["start"], r["end"], r["caption"], tuple(r["modalities"]), r["relation"]) for r in records]
        return Annotation(video_id, found["duration"], tuple(events))

    def _provenance(
        self, annotations: Mapping[str, Annotation], records: Sequence[Mapping[str, Any]], funnel: str
    ) -> dict[str, Any]:
        stages = {
            "videos": self.videos,
            "boundaries": self.boundaries,
            "captions": self.captions,
            "events": self.events,
        }
        return {
            **self.settings,
            "versions": versions(),
            "seconds": {name: round(sum(r["seconds"] for r in log.values()), 2) for name, log in stages.items()},
            "videos": len(annotations),
            "events": len(records),
            "questions": sum(r["attempts"] for r in records),
            "repaired": sum(bool(r["repairs"]) for r in records),
            "refused": dict(Counter(r["refused"] for r in records if r["refused"])),
            "relations": dict(Counter(relation for r in records for relation in r["relations"])),
            "funnel": funnel.splitlines(),
        }


class _LazyFootage:
    """Footage that is read when somebody looks at it: a resumed run does not read what it does not need."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def value(self) -> Footage:
        return read_footage(self._path)

    @property
    def loaded(self) -> bool:
        return "value" in vars(self)


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)


def reason_text(rejection: Rejection) -> str:
    """A rejection in words.

    Example:
        >>> reason_text(Rejection("duration", "too short", 2.0, 30.0))
        'too short (2.0, threshold 30.0)'
    """
    if rejection.value is None:
        return rejection.reason
    return f"{rejection.reason} ({rejection.value}, threshold {rejection.threshold})"


# --- the work of each stage ------------------------------------------------------------------------------------------


def gather_facts(
    footage: Footage, speech: SpeechOptions, recogniser: Captioner | None, options: FilterOptions
) -> Facts:
    """What admission wants to know of a video; what no filter asks for is not worked out."""
    spoken = language = None
    if footage.waveform is not None and (options.max_speech is not None or options.language is not None):
        turns = find_speech(footage.waveform, speech)
        spoken = round(sum(end - start for start, end in turns) / footage.duration, 3)
        if options.language is not None and turns and hasattr(recogniser, "language"):
            language = recogniser.language(footage.sound(*turns[0]))
    motion, still = _motion(footage), None
    if len(motion) and options.max_static is not None:
        still = round(float((motion < STILL_BELOW).mean()), 3)
    together = None
    if options.min_agreement is not None and len(motion) > 2 and footage.waveform is not None:
        levels = np.abs(np.diff(loudness(footage.waveform)))
        together = agreement(motion, np.interp(footage.times[1:], np.arange(len(levels)) * 0.1, levels))
    height = None if footage.frames is None else _picture_height(footage)
    return Facts(
        round(footage.duration, 3), height, footage.frames is not None, footage.waveform is not None, spoken, still,
        language, together,
    )  # fmt: skip


def _motion(footage: Footage) -> np.ndarray:
    """[F - 1]: mean change of a pixel from frame to frame."""
    if footage.frames is None or len(footage.frames) < 2:
        return np.empty(0)
    pairs = zip(footage.frames, footage.frames[1:], strict=False)
    return np.array([np.abs(a.astype(np.int16) - b).mean() for a, b in pairs])


def _picture_height(footage: Footage) -> int:
    import av

    with av.open(f"file:{footage.path.resolve()}") as container:
        stream = container.streams.best("video")
        return min(stream.width, stream.height)


def find_boundaries(footage: Footage, options: AnnotationOptions, workers: Workers) -> dict[str, Any]:
    """Cuts, visual events, sounds, speech turns and events of a video, and the coherence before and after stitching."""
    visual = find_visual_events(footage, options.visual, workers.pictures)
    audio = find_sounds(footage.waveform, options.audio, workers.sounds)
    speech = find_speech(footage.waveform, options.speech)
    events = fuse(visual.events, [*audio.events, *speech], min_length=options.min_event_s)
    if not events:  # nothing changes, nothing sounds: one event
        events = [(0.0, footage.duration)]
    return {
        "duration": round(footage.duration, 3),
        "cuts": [round(time, 3) for time in visual.cuts],
        "visual": _rounded(visual.events, footage.duration),
        "audio": _rounded(audio.events, footage.duration),
        "speech": _rounded(speech, footage.duration),
        "events": _rounded(events, footage.duration),
        "coherence": _coherence(footage, visual, audio, workers),
    }


def _coherence(footage: Footage, visual: Any, audio: Any, workers: Workers) -> dict[str, Any]:
    """Mean length in seconds and mean of the max running semantic difference, of clips and of stitched events."""
    seconds = np.arange(0.5, footage.duration, 1.0)
    told: dict[str, Any] = {}
    rows = {}
    if footage.frames is not None and len(seconds):
        rows["visual"] = (workers.pictures(footage.frames_at(seconds, workers.pictures.size)), visual)
    if footage.waveform is not None and len(seconds):
        rows["audio"] = (workers.sounds([footage.sound(t - 0.5, t + 0.5) for t in seconds]), audio)
    for name, (embeddings, found) in rows.items():
        for when, spans in (("clips", found.clips), ("events", found.events)):
            differences = [d for d in coherence(embeddings, seconds, spans) if d is not None]
            told[f"{name}_{when}"] = {
                "count": len(spans),
                "mean_length": round(float(np.mean([b - a for a, b in spans])), 3) if spans else None,
                "difference": round(float(np.mean(differences)), 3) if differences else None,
            }
    return told


def _rounded(spans: Iterable[tuple[float, float]], duration: float) -> list[tuple[float, float]]:
    return [(round(a, 2), round(min(b, duration), 2)) for a, b in spans if round(min(b, duration), 2) > round(a, 2)]


def describe(
    footage: Footage,
    start: float,
    end: float,
    speech: Sequence[tuple[float, float]],
    captioners: Mapping[Role, Captioner],
) -> dict[Role, str]:
    """What each role says of an event; long ones are described in parts, and what is said twice in a row once."""
    said: dict[Role, list[str]] = {role: [] for role in captioners}
    size = max((captioner.size for captioner in captioners.values()), default=48)
    for a, b in parts(start, end):
        frames = None
        if footage.frames is not None:
            frames = footage.frames_at(a + (np.arange(CLIP_FRAMES) + 0.5) / CLIP_FRAMES * (b - a), size)
        clip = Clip(a, b, frames, footage.sound(a, b), measure(footage, a, b, speech))
        for role, captioner in captioners.items():
            text = captioner(clip)
            if text and said[role][-1:] != [text]:
                said[role].append(text)
    return {role: " ".join(texts) for role, texts in said.items()}


def modalities_of(start: float, end: float, found: Mapping[str, Any], measured: Measurements) -> list[Modality]:
    """In which modalities an event can be perceived."""
    least = min(_PERCEIVED_S, _PERCEIVED_SHARE * (end - start))

    def shared(spans: Sequence[Sequence[float]]) -> float:
        return sum(max(0.0, min(b, end) - max(a, start)) for a, b in spans)

    perceived: list[Modality] = []
    if measured.brightness is not None and shared(found["visual"]) >= least:
        perceived.append("visual")
    if not measured.silent and shared(found["audio"]) >= least:
        perceived.append("audio")
    if shared(found["speech"]) >= least:
        perceived.append("speech")
    return perceived


def prompt_hashes() -> dict[str, str]:
    """SHA-256 of each prompt of the package, the first 16 digits."""
    folder = files(__package__).joinpath("prompts")
    texts = sorted((item.name, item.read_bytes()) for item in folder.iterdir() if item.name.endswith(".txt"))
    return {name: hashlib.sha256(content).hexdigest()[:16] for name, content in texts}


def versions() -> dict[str, str | None]:
    """Versions of the packages that have a say; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
