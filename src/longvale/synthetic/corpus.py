"""The synthetic corpus: real MP4 files with exactly known events, annotations, and dialogues for both stages.

[`synthesize`] writes a directory that the rest of the library reads like the published data::

    videos/train_0000.mp4 ...                      H.264 + AAC
    longvale-annotations-{training,eval}.json      official annotations
    longvale-sft-{bp,it}.json                      official dialogues about the training videos
    events.jsonl                                   one event per line, with modalities, relation and pieces
    synthetic.json                                 seed and options, from which a later run resumes
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from ..data.dialogues import boundary_dialogue, save_dialogues
from ..data.sources import ANNOTATION_FILES, EVENTS_FILE
from ..events import Event, save_annotations
from ..io import atomic_write, parse_json, parse_lines
from ..run_log import check_folder, claim
from ..system.extras import require
from ..system.interruption import interrupts_blocked
from ..system.locks import hold
from .instructions import instruction_dialogue
from .planning import Piece, Plan, SyntheticOptions, plan_video
from .rendering import Renderer
from .sounds import render_sound

__all__ = [
    "EventRecord",
    "Piece",
    "Plan",
    "SyntheticOptions",
    "instruction_dialogue",
    "load_events",
    "plan_video",
    "synthesize",
    "write_video",
]

#: Incremented when the same seed would give other videos than before, so that old and new ones do not mix.
FORMAT_VERSION = 1

SETTINGS_FILE = "synthetic.json"
LOCK = "synthesize"
_REMEDY = "give another directory"
DIALOGUE_FILES = {"boundary_perception": "longvale-sft-bp.json", "instruction": "longvale-sft-it.json"}

#: Dialogues per training video, near the published ratios (7K and 25K for 7.2K videos).
DIALOGUES_A_VIDEO = {"boundary_perception": 1, "instruction": 3}

_AUDIO_BIT_RATE = 32_000
_AUDIO_FRAME = 1024  # samples of an AAC frame
_KEY_FRAME_S = 5
_VIDEOS_A_WORKER = 8  # fewer are rendered faster than a process starts


@dataclass(frozen=True)
class EventRecord:
    """One line of `events.jsonl`.

    Args:
        video_id: of the video.
        split: "train" or "test".
        event_id: index of the event in its annotation.
        event: with modalities and relation.
        pieces: content of each modality, with exact times.
    """

    video_id: str
    split: Literal["train", "test"]
    event_id: int
    event: Event
    pieces: tuple[Piece, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of the line."""
        head = {"video_id": self.video_id, "split": self.split, "event_id": self.event_id}
        return head | asdict(self.event) | {"pieces": [asdict(piece) for piece in self.pieces]}

    @classmethod
    def from_json(cls, value: object) -> EventRecord:
        """Read the object of a line.

        Raises:
            ValueError: if a field is missing or has another type, or [`Event`] refuses its value.
        """
        if not isinstance(value, dict):
            raise ValueError(f"must be an object, not {str(value)[:60]!r}")
        try:
            event = Event(*(value[name] for name in ("start", "end", "caption", "modalities", "relation")))
            pieces = tuple(
                Piece(*(piece[name] for name in ("modality", "start", "end", "content"))) for piece in value["pieces"]
            )
            return cls(value["video_id"], value["split"], value["event_id"], event, pieces)
        except KeyError as error:
            raise ValueError(f"field {error} is missing") from None
        except TypeError as error:
            raise ValueError(f"a field has another form than expected: {error}") from None


def load_events(path: str | os.PathLike) -> list[EventRecord]:
    """Read `events.jsonl`.

    Args:
        path: the file, or the directory that [`synthesize`] wrote.

    Returns:
        The events of all videos, in the order of the file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it contains no event, or a line is invalid; the message names the line.
    """
    path = Path(path)
    path = path / EVENTS_FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with path.open("rb") as file:
        records = [
            record for _, record in parse_lines(path, file, lambda line: EventRecord.from_json(parse_json(line)))
        ]
    if not records:
        raise ValueError(f"{path}: holds no event")
    return records


def write_video(plan: Plan, path: str | os.PathLike, options: SyntheticOptions | None = None) -> None:
    """Render one plan as an MP4 file: H.264 at `fps`, AAC in mono; the file is written completely or not at all.

    Args:
        plan: events of the video.
        path: file to write; its folder must exist.
        options: size, frame rate, sound; default [`SyntheticOptions`].

    Raises:
        FileNotFoundError: if the folder does not exist.
        ValueError: if espeak-ng is selected and espeakng-loader is missing.
    """
    path, options = Path(path), options or SyntheticOptions()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / "unfinished"  # a name that a search for videos does not find
        _encode(plan, temporary, options)
        os.replace(temporary, path)


def _encode(plan: Plan, path: Path, options: SyntheticOptions) -> None:
    import av

    renderer, sound = Renderer(plan, options), render_sound(plan, options)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        x264 = {"preset": "ultrafast", "crf": "20", "g": str(_KEY_FRAME_S * options.fps)}
        video = container.add_stream("libx264", rate=options.fps, options=x264)
        video.width = video.height = options.size
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1  # processes run in parallel: threads only cost
        audio = container.add_stream("aac", rate=options.sound_rate, layout="mono", options={"aac_coder": "fast"})
        audio.bit_rate = _AUDIO_BIT_RATE
        for index in range(round(plan.annotation.duration * options.fps)):
            frame = av.VideoFrame.from_ndarray(renderer.frame(index / options.fps), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, options.fps)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        for start in range(0, len(sound), _AUDIO_FRAME):
            samples = sound[None, start : start + _AUDIO_FRAME]  # [1, n]
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = options.sound_rate, start
            container.mux(audio.encode(frame))
        container.mux(audio.encode())


def synthesize(
    output: str | os.PathLike,
    *,
    videos: int,
    test_videos: int | None = None,
    seed: int = 0,
    options: SyntheticOptions | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, int]:
    """Make a corpus, or resume one: videos that exist are not rendered again.

    Args:
        output: directory to write; created if missing, else empty or of an earlier run with the same seed and options.
        videos: number of training videos, 1 or more.
        test_videos: number of test videos, 1 or more; default a quarter of `videos`.
        seed: determines everything, on any machine.
        options: default [`SyntheticOptions`].
        workers: maximum number of rendering processes; default one per CPU. They are spawned, so a script that calls
            this with more than one needs the usual `if __name__ == "__main__":`.
        progress: show a progress bar.

    Returns:
        Counts: `train`, `test` (videos), `events`, `boundary_perception`, `instruction` (dialogues), `rendered` and
        `kept` (videos rendered now, and found from an earlier run).

    Raises:
        ChildProcessError: if a rendering process died.
        Locked: if another run is using the same directory.
        ValueError: if a number is below 1; if the directory has other content, other settings, or videos beyond the
            requested number; if espeak-ng is selected and espeakng-loader is missing.
    """
    output, options = Path(output), options or SyntheticOptions()
    for name, value in (("videos", videos), ("test_videos", test_videos), ("workers", workers)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be a whole number of 1 or more, not {value!r}")
    test_videos = test_videos or max(1, videos // 4)
    if options.voice == "espeak":
        require("espeakng_loader")
    plans = {
        split: [plan_video(f"{split}_{index:04d}", seed, options) for index in range(count)]
        for split, count in (("train", videos), ("test", test_videos))
    }
    check_folder(output, SETTINGS_FILE, _REMEDY)
    with hold(output, LOCK, work="longvale synthesize"):
        settings = {"format": FORMAT_VERSION, "seed": seed, "options": asdict(options)}
        claim(output / SETTINGS_FILE, settings, remedy=_REMEDY)
        (output / "videos").mkdir(exist_ok=True)
        rendered = _render(output / "videos", [*plans["train"], *plans["test"]], options, workers or _cpus(), progress)
        counts = {split: len(items) for split, items in plans.items()}
        counts |= _write_texts(output, plans)
    return counts | {"rendered": rendered, "kept": videos + test_videos - rendered}


def _render(folder: Path, plans: Sequence[Plan], options: SyntheticOptions, workers: int, progress: bool) -> int:
    """Write the missing videos and return their number."""
    from tqdm import tqdm

    wanted = {f"{plan.annotation.video_id}.mp4" for plan in plans}
    for unfinished in folder.glob(".*.mp4.*"):  # left by a killed run
        shutil.rmtree(unfinished)
    found = {path.name for path in folder.iterdir()}
    if found - wanted:
        raise ValueError(
            f"{folder}: {min(found - wanted)} is not among the videos asked for; ask for as many as before or more, or "
            "give another directory"
        )
    missing = [plan for plan in plans if f"{plan.annotation.video_id}.mp4" not in found]
    jobs = [(plan, folder / f"{plan.annotation.video_id}.mp4", options) for plan in missing]
    with tqdm(total=len(plans), initial=len(found), desc="videos", unit="video", disable=not progress) as bar:
        for _ in _run(jobs, min(workers, len(jobs) // _VIDEOS_A_WORKER)):
            bar.update()
    return len(missing)


def _run(jobs: Sequence[tuple[Plan, Path, SyntheticOptions]], workers: int) -> Iterable[None]:
    """Yield once per finished video."""
    if workers <= 1:
        for job in jobs:
            yield write_video(*job)
        return
    executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        with interrupts_blocked():
            futures = [executor.submit(write_video, *job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise ChildProcessError(
            f"a process that renders videos died; give it memory, or take fewer than {workers} --workers; the videos "
            "that are finished are kept"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


def _cpus() -> int:
    """Return the number of CPUs that this process may use, where the system reports it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write_texts(output: Path, plans: dict[str, list[Plan]]) -> dict[str, int]:
    """Write annotations, events and dialogues, and return their numbers."""
    records = []
    for split, items in plans.items():
        save_annotations(
            {plan.annotation.video_id: plan.annotation for plan in items}, output / ANNOTATION_FILES[split]
        )
        for plan in items:
            pairs = zip(plan.annotation.events, plan.pieces, strict=True)
            records += [EventRecord(plan.annotation.video_id, split, i, *pair) for i, pair in enumerate(pairs)]
    with atomic_write(output / EVENTS_FILE) as file:
        file.writelines(json.dumps(record.to_json()) + "\n" for record in records)
    counts = {"events": len(records)}
    for stage, name in DIALOGUE_FILES.items():
        dialogues = [dialogue for plan in plans["train"] for dialogue in _dialogues(plan, stage)]
        save_dialogues(dialogues, output / name)
        counts[stage] = len(dialogues)
    return counts


def _dialogues(plan: Plan, stage: str) -> list[dict[str, Any]]:
    rng = random.Random(f"{plan.seed}:{stage}")
    if stage == "boundary_perception":
        return [boundary_dialogue(plan.annotation, rng) for _ in range(DIALOGUES_A_VIDEO[stage])]
    return [instruction_dialogue(plan.annotation, plan.pieces, rng) for _ in range(DIALOGUES_A_VIDEO[stage])]
