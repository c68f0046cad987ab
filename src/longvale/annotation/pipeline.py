"""The annotation pipeline: `longvale annotate VIDEO... --output annotations.json`.

::

    out.json                       official annotations
    out.provenance.json            models, prompts, thresholds, versions, times, counts
    out.funnel.png                 which videos were admitted, if some were not
    out.stages/videos.jsonl        one line per video: whether it was admitted, and if not, why
    out.stages/tracks.jsonl        one line per video and track: sounds, text on screen, speakers, transcript
    out.stages/boundaries.jsonl    one line per video: cuts, visual events, sounds, speech turns, events
    out.stages/captions.jsonl      one line per event: caption of each role, facts, measurements
    out.stages/events.jsonl        one line per event: caption, modalities, relations, how they were found
    out.stages/timelines/ID.png    figure of a video's boundaries

A run is resumable: a stage of a video, or of an event, that is on disk is not repeated, unless the content of the
video file changed, see [`file_identity`].
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from ..chat_client import Patience
from ..events import Annotation, Event, save_annotations
from ..extraction.extract import Engine, find_videos
from ..io import atomic_write
from ..run_log import fingerprint, load_settings
from ..system.checksums import identities
from ..system.extras import version_of
from ..system.locks import hold
from ..system.names import LONGEST_NAME, printable
from .captions import ROLES
from .filters import Rejection, format_funnel
from .languages import check_language
from .stages import SETTINGS_FILE, Stages, claim_stages
from .video_stages import MAX_REFUSALS, AnnotationModels, AnnotationOptions, VideoStages

logger = logging.getLogger(__name__)

#: Number of videos, from the first, whose timelines are drawn.
TIMELINES = 20

_PACKAGES = (
    "longvale",
    "av",
    "numpy",
    "torch",
    "torchaudio",
    "transformers",
    "scenedetect-headless",
    "silero-vad",
    "rapidocr",
    "onnxruntime",
)


@dataclass(frozen=True)
class Summary:
    """Result of a run.

    Args:
        annotations: annotations of the output by video id.
        rejections: rejections by video id; empty for admitted videos.
        refused: number of events for which the language model gave no usable answer.
        replaced: number of events whose captions by the language model said more than the facts, and were replaced by
            plain sentences.
        uncaptioned: number of events for which a captioner's model wrote no caption.
        missing: number of videos without a track, by track, on which its model failed.
    """

    annotations: Mapping[str, Annotation]
    rejections: Mapping[str, Sequence[Rejection]]
    refused: int
    uncaptioned: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)
    replaced: int = 0

    def __str__(self) -> str:
        """Return one line of counts.

        Example:
            >>> str(Summary({"a": Annotation("a", 60.0)}, {"a": [], "b": [Rejection("sound", "no sound")]}, 0))
            '1 of 2 videos annotated, 0 events'
        """
        events = sum(len(annotation.events) for annotation in self.annotations.values())
        line = f"{len(self.annotations)} of {len(self.rejections)} videos annotated, {events} events"
        line += f", {self.refused} of them without correlation" if self.refused else ""
        line += f", {self.replaced} with plain sentences for unsupported captions" if self.replaced else ""
        line += f", {self.uncaptioned} without a caption of some modality" if self.uncaptioned else ""
        return line + "".join(f", {count} videos without {track}" for track, count in self.missing.items())


def annotate(
    videos: Iterable[str | os.PathLike],
    output: str | os.PathLike,
    *,
    options: AnnotationOptions | None = None,
    models: AnnotationModels | None = None,
    engine: Engine = "local",
    concurrency: int | None = None,
    max_refusals: int = MAX_REFUSALS,
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """Annotate videos, or resume a stopped run.

    Args:
        videos: files, and folders of files.
        output: JSON file to write; its folder is created. The stages are written next to it.
        options: thresholds; default [`AnnotationOptions`].
        models: captioners, reasoner and embedders; default [`AnnotationModels`], which need no weights.
        engine: `local`, or `ray` for a Ray cluster (needs `longvale[ray]`), whose machines must all have the videos
            under the same paths. Only this process writes files.
        concurrency: number of videos processed at a time; default one, on a cluster one per CPU, which is also the
            maximum there.
        max_refusals: consecutive events without a usable answer of a captioner, or of the language model, that end the
            run; on a cluster counted per video.
        overwrite: start from scratch instead of resuming.
        progress: show a progress bar, which names the current event.

    Returns:
        Annotations and rejections. One bad video does not stop the others.

    Raises:
        FileNotFoundError: if a video does not exist.
        Locked: if another run uses the same stages.
        ValueError: if engine or concurrency is invalid, two videos have the same id, the stages were made with other
            settings, a package is missing, the speech recogniser cannot identify the language that the filters require,
            or no video was admitted.
        NoAnswer: if models give no usable answer for too many consecutive events; finished work is kept.
        ServerError: if a server gives no answer; finished work is kept.

    Example:
        >>> summary = annotate(["videos"], "annotations.json")  # doctest: +SKIP
    """
    options, models, output = options or AnnotationOptions(), models or AnnotationModels(), Path(output)
    if engine not in get_args(Engine):
        raise ValueError(f"engine must be one of {', '.join(get_args(Engine))}, not {engine!r}")
    if concurrency is not None and concurrency < 1:
        raise ValueError(f"concurrency must be 1 or more, not {concurrency}")
    Patience(max_refusals)  # checks the value before anything is written
    check_language(options.filters.language, models.recogniser)
    paths = _find_all(videos)
    folder = stage_folder(output)
    with hold(folder.parent, folder.name, work="longvale annotate"):
        run = _Run(output, options, models, overwrite)
        run.work(paths, engine, concurrency, max_refusals, progress)
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
    """Return the stage folder of an output.

    Example:
        >>> stage_folder("a/out.json").as_posix()
        'a/out.stages'
    """
    return Path(output).with_suffix(".stages")


def _annotate_here(
    items: Sequence[tuple[str, Path, Path | None]], work: VideoStages, concurrency: int
) -> Iterator[None]:
    """Yield None per finished video; the first error cancels pending videos, Ctrl-C does not wait for running ones."""
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="annotate")
    wait = False
    try:
        for future in as_completed([pool.submit(work, *item) for item in items]):
            yield future.result()
    except Exception:
        wait = True
        raise
    finally:
        pool.shutdown(wait, cancel_futures=True)


#: Names under which earlier versions recorded options of sounds.
_EARLIER_NAMES = {
    "continue_share": "goes_on",
    "added_share": "joins",
    "max_overlap": "at_once",
    "level_floor": "fades",
}


def _noted(options: AnnotationOptions) -> dict[str, Any]:
    """Return the options as they are recorded: under the names of earlier versions, whose stages can be resumed."""
    noted = asdict(options)
    noted["audio"] = {_EARLIER_NAMES.get(name, name): value for name, value in noted["audio"].items()}
    noted["audio"] |= {"splitter": "peaks", "penalty": 2.0}  # earlier versions could split audio in another way
    for name, option in (("visual", "layout"), ("speech", "peak")):  # earlier versions did not have them
        default = next(field.default for field in fields(getattr(options, name)) if field.name == option)
        if noted[name][option] == default:
            del noted[name][option]
    return noted


class _Run:
    """One run over the stages."""

    def __init__(self, output: Path, options: AnnotationOptions, models: AnnotationModels, overwrite: bool) -> None:
        self.output, self.options, self.models = output, options, models
        self.folder = stage_folder(output)
        if overwrite and (self.folder / SETTINGS_FILE).is_file():
            shutil.rmtree(self.folder)
        self.settings = {"options": _noted(options), **models.names(), "prompts": prompt_hashes()}
        if (self.folder / SETTINGS_FILE).is_file():
            self.settings = as_recorded(self.settings, load_settings(self.folder / SETTINGS_FILE))
        claim_stages(self.folder, self.settings)
        self.stages = Stages.load(self.folder)
        self.failed: dict[str, Rejection] = {}  # not recorded in the stages, so that the next run tries again

    def work(
        self, paths: Mapping[str, Path], engine: Engine, concurrency: int | None, max_refusals: int, progress: bool
    ) -> None:
        from tqdm import tqdm

        self._compare(paths)
        items = [(video_id, path, self._picture(video_id, n)) for n, (video_id, path) in enumerate(paths.items())]
        bar = tqdm(total=len(paths), unit="video", desc="annotate", disable=not progress)
        if engine == "ray":
            from .ray_engine import annotate_on_ray

            done = annotate_on_ray(items, self.stages, self.options, self.models, concurrency, max_refusals)
        else:
            lines = {
                "report": lambda line: bar.set_postfix_str(printable(line)),
                "note": lambda line: tqdm.write(printable(line), file=sys.stderr),
            }
            work = VideoStages(
                self.stages, self.options, self.models, max_refusals=max_refusals, **(lines if progress else {})
            )
            done = _annotate_here(items, work, concurrency or 1)
        with bar, closing(done):
            for failure in done:
                if failure is not None:
                    self.failed[failure[0]] = Rejection("readable", failure[1])
                bar.update()

    def _compare(self, paths: Mapping[str, Path]) -> None:
        """Remove the records of videos whose file content changed, and log their ids."""
        known = {video_id: path for video_id, path in paths.items() if self.stages.videos.get(video_id) is not None}
        found = identities(known)
        unidentified = {v for v in found if "identity" not in self.stages.videos.get(v)}
        replaced = {v for v in found if self.stages.videos.get(v).get("identity") != found[v]} - unidentified
        if replaced:
            for video_id in replaced:
                (self.folder / "timelines" / f"{video_id}.png").unlink(missing_ok=True)
            self.stages.forget(replaced)
            names = ", ".join(sorted(replaced))
            logger.warning("%s: annotated again because the video was replaced: %s", self.folder, names)
        if unidentified:
            self.stages.videos.rewrite(
                lambda record: record | {"identity": found[v]} if (v := record["video_id"]) in unidentified else record
            )
            logger.warning(
                "%s: %d videos were annotated without the identity of their files, by an earlier version of longvale: "
                "the stages are taken to be of the files that are there now; if one was replaced, use --overwrite",
                self.folder,
                len(unidentified),
            )

    def _picture(self, video_id: str, number: int) -> Path | None:
        name = f"{video_id}.png"
        fits = len(os.fsencode(name)) <= LONGEST_NAME
        return self.folder / "timelines" / name if number < TIMELINES and fits else None

    # --- the end ---

    def finish(self, paths: Mapping[str, Path]) -> Summary:
        """Write annotations, provenance and funnel of the given videos."""
        from .review.figures import funnel_figure, write_figure

        rejections = {
            v: [self.failed[v]]
            if v in self.failed
            else [Rejection(**r) for r in self.stages.videos.get(v)["rejections"]]
            for v in paths
        }
        admitted = [video_id for video_id, reasons in rejections.items() if not reasons]
        picture = self.output.with_suffix(".funnel.png")
        if any(rejections.values()):
            write_figure(funnel_figure(rejections), picture)
        else:  # no funnel to show; a figure of an earlier run with other filters is outdated
            picture.unlink(missing_ok=True)
        if not admitted:
            reasons = "; ".join(f"{v}: {reason_text(r[0])}" for v, r in list(rejections.items())[:5])
            raise ValueError(
                f"no video was admitted ({len(rejections)} given): {reasons}; see {self.stages.videos.path}"
            )
        annotations = {video_id: self._annotation(video_id) for video_id in admitted}
        records = [r for r in self.stages.events.values() if r["video_id"] in annotations]
        refused = sum(r["refused"] is not None for r in records)
        with atomic_write(self.output.with_suffix(".provenance.json")) as file:
            json.dump(self._provenance(annotations, rejections, records), file, indent=2)
        save_annotations(annotations, self.output)
        self._compare_wordings(annotations)
        replaced = sum(bool(r.get("replaced")) for r in records)
        unanswered = sum(self._unanswered(annotations).values())
        return Summary(annotations, rejections, refused, unanswered, self._missing(annotations), replaced)

    def _compare_wordings(self, annotations: Mapping[str, Annotation]) -> None:
        """Log if captions of an earlier version, which found no facts, are next to captions of this one."""
        records = [r for r in self.stages.captions.values() if r["video_id"] in annotations]
        earlier = sum("facts" not in record for record in records)
        if 0 < earlier < len(records):
            logger.warning(
                "%s: captions of two wordings: an earlier version of longvale described %d of %d events, this one the "
                "others; for one wording, use --overwrite",
                self.output,
                earlier,
                len(records),
            )

    def _unanswered(self, annotations: Mapping[str, Annotation]) -> Counter[str]:
        """Count events without a caption by the roles that wrote none."""
        records = [r for r in self.stages.captions.values() if r["video_id"] in annotations and r.get("unanswered")]
        return Counter(", ".join(r["unanswered"]) for r in records)

    def _missing(self, annotations: Mapping[str, Annotation]) -> dict[str, int]:
        """Count the videos on which a track's model failed, by track."""
        failed = [r for r in self.stages.tracks.values() if r["video_id"] in annotations and r.get("unanswered")]
        return dict(Counter(r["track"] for r in failed))

    def _annotation(self, video_id: str) -> Annotation:
        found = self.stages.boundaries.get(video_id)
        records = [self.stages.events.get(video_id, index) for index in range(len(found["events"]))]
        events = [Event(r["start"], r["end"], r["caption"], tuple(r["modalities"]), r["relation"]) for r in records]
        return Annotation(video_id, found["duration"], tuple(events))

    def _provenance(
        self,
        annotations: Mapping[str, Annotation],
        rejections: Mapping[str, Sequence[Rejection]],
        records: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        languages = [self.stages.videos.get(v)["facts"]["language"] for v in rejections if v not in self.failed]
        return {
            **self.settings,
            **self.models.origin,
            "versions": versions(),
            "seconds": {
                name: round(sum(r["seconds"] for r in log.values()), 2) for name, log in self.stages if log.values()
            },
            "videos": len(annotations),
            "events": len(records),
            "questions": sum(r["attempts"] for r in records),
            "repaired": sum(bool(r["repairs"]) for r in records),
            "uncaptioned": dict(self._unanswered(annotations)),
            "missing_tracks": self._missing(annotations),
            "refused": dict(Counter(r["refused"] for r in records if r["refused"])),
            "unsupported": {
                "asked again": sum(bool(r.get("unsupported")) for r in records),
                "replaced": sum(bool(r.get("replaced")) for r in records),
            },
            "relations": dict(Counter(relation for r in records for relation in r["relations"])),
            "languages": dict(Counter(language for language in languages if language)),
            "funnel": format_funnel(rejections).splitlines(),
        }


def reason_text(rejection: Rejection) -> str:
    """Format a rejection as text.

    Example:
        >>> reason_text(Rejection("duration", "too short", 2.0, 30.0))
        'too short (2.0, threshold 30.0)'
    """
    if rejection.value is None:
        return rejection.reason
    return f"{rejection.reason} ({rejection.value}, threshold {rejection.threshold})"


def as_recorded(settings: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in the words of an earlier version, where they mean the same.

    The template of measurements is the template of facts now; prompts count only if a model is asked with them.

    Args:
        settings: settings of this run.
        before: settings that are on disk.

    Example:
        >>> now = {"captioners": {"video": "template of facts (video)"}, "reasoner": "concatenation", "prompts": {}}
        >>> before = now | {"captioners": {"video": "template of measurements (video)"}, "prompts": {"video.txt": "f8"}}
        >>> as_recorded(now, before) == before
        True
    """
    earlier = before.get("captioners", {})
    renamed = {f"template of facts ({role})": f"template of measurements ({role})" for role in ROLES}
    captioners = {
        role: earlier[role] if earlier.get(role) == renamed.get(name) and role in earlier else name
        for role, name in settings["captioners"].items()
    }
    unasked = settings["reasoner"] == "concatenation" and all(
        name in renamed for name in settings["captioners"].values()
    )
    prompts = before["prompts"] if unasked and "prompts" in before else settings["prompts"]
    return {**settings, "captioners": captioners, "prompts": prompts}


def prompt_hashes() -> dict[str, str]:
    """Return the SHA-256 of each prompt of the package, its first 16 hex digits."""
    folder = files(__package__).joinpath("prompts")
    texts = sorted((item.name, item.read_bytes()) for item in folder.iterdir() if item.name.endswith(".txt"))
    return {name: fingerprint(content) for name, content in texts}


def versions() -> dict[str, str | None]:
    """Return the versions of the packages that affect the result; None for one that is not installed."""
    return {name: version_of(name) for name in _PACKAGES}
