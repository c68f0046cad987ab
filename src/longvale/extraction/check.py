"""Check that a feature store has everything needed for training: `longvale features check DIR --annotations FILE`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

from ..data.publish.validate import other_length
from ..events import MODALITIES, Modality, load_annotations
from ..features.backends import NpyFolder
from ..features.manifest import MANIFEST_FILE, load_records
from ..features.store import FOLDERS, FeatureStore
from ..system.checksums import CHECKSUMS_FILE, changed_files
from ..system.names import look_up

#: Kinds of findings that training would silently ignore, or that would stop it.
_PROBLEMS = ("missing", "damaged", "unrecorded", "width", "archive")

#: Kinds of findings for information.
_NOTES = ("absent", "silent", "length", "failed", "extra", "unchecked")

Kind = Literal[
    "missing", "damaged", "unrecorded", "width", "archive",
    "absent", "silent", "length", "failed", "extra", "unchecked",
]  # fmt: skip

#: Tolerance of the number of sound windows for a duration: rows, share. The last window is seldom full.
_LENGTH_ROWS, _LENGTH_SHARE = 1.5, 0.03


@dataclass(frozen=True)
class Finding:
    """A finding about the features of a video.

    Args:
        video_id: id of the video; empty for findings about a file with several videos.
        kind: `missing` (a modality has no file), `damaged` (unreadable, NaN, or different from the record),
            `unrecorded` (the manifest lacks its checksums, so that damage cannot be detected), `width` (different from
            most), `archive` (a shard does not match its checksum). For information: `absent` (the video does not have
            the modality), `silent` (all rows equal), `length` (does not fit the duration or the other modality),
            `failed` (a run recorded an error), `extra` (videos without annotation), `unchecked` (there is no manifest,
            as in downloaded stores).
        message: one line.
    """

    video_id: str
    kind: Kind
    message: str


@dataclass(frozen=True)
class FeatureReport:
    """Result of [`check_features`].

    Args:
        videos: number of annotated videos.
        complete: number of those without a problem.
        findings: findings by kind, problems first, then by video id.
    """

    videos: int
    complete: int
    findings: tuple[Finding, ...] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not any(finding.kind in _PROBLEMS for finding in self.findings)

    def lines(self, most: int | None = None) -> Iterator[str]:
        """Yield the report as text: one line of counts, then the findings, at most `most` of each kind."""
        counts = Counter(finding.kind for finding in self.findings)
        numbers = ", ".join(f"{counts[kind]} {kind}" for kind in (*_PROBLEMS, *_NOTES) if counts[kind])
        yield f"{self.complete} of {self.videos} videos are complete" + (f" ({numbers})" if numbers else "")
        for kind in (*_PROBLEMS, *_NOTES):
            of_kind = [finding for finding in self.findings if finding.kind == kind]
            for finding in of_kind[:most]:
                yield f"{kind}: {finding.message}"
            if len(of_kind) > len(of_kind[:most]):
                yield f"{kind}: ... and {len(of_kind) - len(of_kind[:most])} more"


def check_features(
    root: str | os.PathLike,
    annotations: str | os.PathLike,
    *,
    widths: Mapping[Modality, int] | None = None,
    progress: bool = True,
) -> FeatureReport:
    """Read all stored features of annotated videos and report problems.

    Files are compared with their checksums, if the manifest of an extraction or `SHA256SUMS` contains them. Run
    `longvale features` again to repair damaged or unrecorded features.

    Args:
        root: root of the store, see [`FeatureStore`].
        annotations: annotation file; its videos must have features.
        widths: feature widths of a model; by default those of most videos.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: if there is no store, or no such file.
        ValueError: if the annotations or the lines of `SHA256SUMS` are invalid.

    Example:
        >>> report = check_features("features", "longvale-annotations-eval.json")  # doctest: +SKIP
        >>> report.ok, next(report.lines())  # doctest: +SKIP
        (False, '1170 of 1171 videos are complete (1 missing, 31 absent)')
    """
    from tqdm import tqdm

    videos, store = load_annotations(annotations), FeatureStore(root)
    records = load_records(root) if Path(root).is_dir() else {}
    findings = [
        Finding("", "missing", f"{root}: holds no {FOLDERS[m]} at all") for m in MODALITIES if m not in store.modalities
    ]
    if Path(root, CHECKSUMS_FILE).is_file():
        findings += [Finding("", "archive", f"{line}; copy or download it again") for line in changed_files(root)]
    seen: dict[str, dict[Modality, tuple[int, int]]] = {}  # (rows, width) of readable arrays
    for video_id in tqdm(videos, unit="video", disable=not progress):
        seen[video_id] = {}
        findings += _look_at(store, video_id, records, seen[video_id])
    findings += _check_widths(store, seen, widths)
    findings += _check_lengths(seen, {video_id: video.duration for video_id, video in videos.items()})
    lengths = {
        video_id: records[video_id]["duration"] for video_id in videos if "duration" in records.get(video_id, {})
    }
    findings += [
        Finding(video_id, "length", other)
        for video_id, lasts in lengths.items()
        if (other := other_length(video_id, lasts, videos[video_id].duration))
    ]
    extra = [video_id for video_id in store.video_ids() if look_up(videos, video_id) is None]
    if extra:  # of another split, or unused
        findings.append(Finding("", "extra", f"{len(extra)} videos are not in {annotations}, the first {extra[0]!r}"))
    if not records and any(isinstance(store.files(modality), NpyFolder) for modality in store.modalities):
        findings.append(
            Finding("", "unchecked", f"{root}: holds no {MANIFEST_FILE}: damage that keeps the form is not seen")
        )
    order = {kind: number for number, kind in enumerate((*_PROBLEMS, *_NOTES))}
    findings.sort(key=lambda finding: (order[finding.kind], finding.video_id))
    incomplete = {finding.video_id for finding in findings if finding.kind in _PROBLEMS}
    return FeatureReport(len(videos), sum(v not in incomplete for v in videos), tuple(findings))


def _look_at(
    store: FeatureStore,
    video_id: str,
    records: Mapping[str, Mapping[str, Any]],
    seen: dict[Modality, tuple[int, int]],
) -> Iterator[Finding]:
    """Check one video without comparing it with others."""
    missing, record = store.missing(video_id), records.get(video_id, {})
    if missing:
        which = ", ".join(FOLDERS[modality] for modality in missing)
        reason = f" ({record['error']})" if "error" in record else ""
        yield Finding(video_id, "missing", f"{video_id}: {which}{reason}")
    elif "error" in record:
        yield Finding(video_id, "failed", f"{video_id}: has features, but a run failed: {record['error']}")
    unrecorded = [
        FOLDERS[modality]
        for modality in store.modalities
        if modality not in (*missing, *record.get("sha256", ())) and isinstance(store.files(modality), NpyFolder)
    ]
    if records and unrecorded and "error" not in record:
        message = (
            f"{video_id}: no checksums of {', '.join(unrecorded)} in {MANIFEST_FILE}; run `longvale features` again"
        )
        yield Finding(video_id, "unrecorded", message)
    for modality in store.modalities:
        if modality in missing:
            continue
        try:
            values = store.load_one(video_id, modality)
        except ValueError as error:
            yield Finding(video_id, "damaged", str(error))
            continue
        if values is None:
            yield Finding(video_id, "absent", f"{video_id}: has no {modality}")
            continue
        seen[modality] = values.shape
        if len(values) > 1 and np.ptp(values, axis=0).max() == 0:
            yield Finding(video_id, "silent", f"{video_id}: all {len(values)} rows of {modality} are alike")


def _check_widths(
    store: FeatureStore, seen: Mapping[str, Mapping[Modality, tuple[int, int]]], widths: Mapping[Modality, int] | None
) -> Iterator[Finding]:
    for modality in store.modalities:
        found = {video_id: shapes[modality][1] for video_id, shapes in seen.items() if modality in shapes}
        if not found:
            continue
        expected = (widths or {}).get(modality) or Counter(found.values()).most_common(1)[0][0]
        for video_id, width in found.items():
            if width != expected:
                message = f"{store.files(modality).place(video_id)}: {width} wide, expected {expected}"
                yield Finding(video_id, "width", message)


def _check_lengths(
    seen: Mapping[str, Mapping[Modality, tuple[int, int]]], durations: Mapping[str, float]
) -> Iterator[Finding]:
    """Compare rows with the duration, at the median seconds per row; and frames with the most common number."""
    frames = Counter(shapes["visual"][0] for shapes in seen.values() if "visual" in shapes)
    for video_id, shapes in seen.items():
        if "visual" in shapes and shapes["visual"][0] != (usual := frames.most_common(1)[0][0]):
            message = f"{video_id}: {shapes['visual'][0]} rows of visual, most videos have {usual}"
            yield Finding(video_id, "length", message)
    for modality in ("audio", "speech"):
        rows = {video_id: shapes[modality][0] for video_id, shapes in seen.items() if modality in shapes}
        if not rows:
            continue
        window_s = median(durations[video_id] / count for video_id, count in rows.items())
        for video_id, count in rows.items():
            expected = durations[video_id] / window_s
            if abs(count - expected) > max(_LENGTH_ROWS, _LENGTH_SHARE * expected):
                message = (
                    f"{video_id}: {count} rows of {modality} for {durations[video_id]:.1f} s, expected {expected:.0f}"
                )
                yield Finding(video_id, "length", message)
    for video_id, shapes in seen.items():
        if "audio" in shapes and "speech" in shapes and abs(shapes["audio"][0] - shapes["speech"][0]) > 1:
            # Both have one row per window of the same length; published speech covers its last 30 s chunk to the end.
            audio, speech = shapes["audio"][0], shapes["speech"][0]
            if speech < audio or speech - audio > 6:
                yield Finding(video_id, "length", f"{video_id}: {audio} rows of audio, but {speech} of speech")
