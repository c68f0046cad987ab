"""Feature store: one array per video and modality, in the layout of the published archives.

::

    <root>/visual_features/<video_id>.npy    [F, 768]   one row per frame
    <root>/audio_features/<video_id>.npy     [A, 768]   one row per window of 5.12 s
    <root>/speech_features/<video_id>.npy    [S, 1280]  one row per window of 5.12 s

The widths are those of the published towers; other widths are stored in the same way. A modality that a video does not
have (no audio track) is also a file, of shape [0, 0]: a missing file always means "not extracted", so that runs are
resumable.

A store can also be read from the published archives without unpacking, `<root>/visual_features_7240.zip` and so on, on
disk or at a URL, or from the Parquet shards of `longvale features pack`.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np

from ..events import MODALITIES, Modality, check_video_id
from ..io import atomic_write
from ..system.names import temporary_prefix
from .backends import FeatureFiles, NpyArchive, NpyFolder, find_archives, is_url
from .manifest import load_records
from .shards import ParquetColumn, ParquetShards

#: Folder of each modality under the root of a store.
FOLDERS: dict[Modality, str] = {modality: f"{modality}_features" for modality in MODALITIES}


class OtherWidth(ValueError):
    """Error for valid features of another model."""


class FeatureStore:
    """Stored features of many videos.

    Args:
        root: folder with one or more of `visual_features`, `audio_features`, `speech_features` (folders of `.npy`
            files, or zip archives with these names, optionally followed by a number), or with Parquet shards, in the
            folder or in its subfolder `data`. A folder of archives can also be a URL that fsspec can list, such as
            `hf://datasets/ttgeng233/LongVALE/features_eval`: one video is then read without downloading the rest. A
            missing modality is not part of the store.
        widths: required width of each modality; [`load`] refuses others. Modalities not listed may have any width.

    Raises:
        FileNotFoundError: if `root` is not a folder or contains none of the three.
        ValueError: naming the archive or the shard that is damaged or unsafe.

    Example:
        >>> import tempfile
        >>> root = tempfile.mkdtemp()
        >>> save_features(root, "abc", {"visual": np.ones((4, 8)), "audio": np.ones((2, 8)), "speech": None})
        >>> store = FeatureStore(root)
        >>> features = store.load("abc")
        >>> features["visual"].shape, features["speech"]
        ((4, 8), None)
        >>> store.has("abc"), store.has("xyz"), store.widths()
        (True, False, {'visual': 8, 'audio': 8})
    """

    def __init__(self, root: str | os.PathLike, widths: Mapping[Modality, int] | None = None) -> None:
        self.root: str | Path = str(root) if is_url(root) else Path(root)
        self.expected_widths = dict(widths or {})
        self._files = _find_files(self.root)
        self.modalities: tuple[Modality, ...] = tuple(self._files)
        if not self.modalities:
            raise FileNotFoundError(
                f"{self.root}: holds no folder {', '.join(FOLDERS.values())}, archives or shards of them"
            )

    def video_ids(self) -> list[str]:
        """Return the sorted ids of the videos with at least one modality."""
        return sorted({video_id for files in self._files.values() for video_id in files.ids()})

    def missing(self, video_id: str) -> tuple[Modality, ...]:
        """Return the modalities of the store without an array for this video; a recorded absence counts as an array.

        Raises:
            ValueError: if the id could name a file outside the store.
        """
        return tuple(m for m, files in self._files.items() if not files.has(video_id))

    def files(self, modality: Modality) -> FeatureFiles:
        """Return the backend of a modality of the store."""
        return self._files[modality]

    def has(self, video_id: str) -> bool:
        """Return whether each modality of the store has a file for this video."""
        return not self.missing(video_id)

    def load(self, video_id: str, missing: Literal["error", "none"] = "error") -> dict[Modality, np.ndarray | None]:
        """Load the features of a video.

        Args:
            video_id: id of the video.
            missing: meaning of a missing file: "error", or "none" for a modality that the video does not have, as in
                the published archives.

        Returns:
            float32 [n, width] per modality; None for a modality that the video or the store does not have. A published
            single vector of an image, [width], becomes [1, width].

        Raises:
            FileNotFoundError: naming the missing file, unless `missing` is "none".
            ValueError: naming the file, if it is not a complete array of finite floats [n, width] or does not have the
                required width.
        """
        if missing not in ("error", "none"):
            raise ValueError(f"missing must be 'error' or 'none', not {missing!r}")
        absent = self.missing(video_id)
        if absent and missing == "error":
            place = self._files[absent[0]].place(video_id)
            raise FileNotFoundError(
                f"{place}: no such file; make it with `longvale features`, or load with missing='none'"
            )
        present = [m for m in self.modalities if m not in absent]
        return {m: self.load_one(video_id, m) if m in present else None for m in MODALITIES}

    def check_widths(self, video_id: str, widths: Mapping[Modality, int]) -> None:
        """Check the feature widths of a video, from the file headers where possible.

        Args:
            video_id: id of the video; modalities without a file are skipped.
            widths: required width of each modality; modalities not listed are not checked.

        Raises:
            ValueError: naming the first file that is not an array of floats [n, width], or has another width.
        """
        for modality, files in self._files.items():
            if modality in widths and files.has(video_id):
                shape = files.shape(video_id)
                if 0 not in shape:
                    check_width(shape, widths[modality], files.place(video_id))

    def widths(self) -> dict[Modality, int]:
        """Return the width of each modality, from its first file that is not empty; others are omitted.

        Raises:
            ValueError: naming a file that is not an array of floats [n, width].
        """
        widths: dict[Modality, int] = {}
        for modality, files in self._files.items():
            shapes = (files.shape(video_id) for video_id in files.ids())
            width = next((shape[-1] for shape in shapes if 0 not in shape), None)
            if width is not None:
                widths[modality] = width
        return widths

    def fingerprint(self) -> str:
        """Return a digest that changes if a file is added, removed or rewritten (by names, sizes and times)."""
        digest = hashlib.sha256()
        for modality, files in self._files.items():
            digest.update(f"{modality}\n".encode())
            files.digest_into(digest)
        return digest.hexdigest()

    def identity(self, video_id: str, modalities: Iterable[Modality] = MODALITIES) -> str:
        """Identify a video's stored features by their content, wherever they are stored.

        Args:
            video_id: id of the video; modalities without an array are omitted.
            modalities: modalities to include.

        Returns:
            16 hexadecimal digits.
        """
        chosen = {m: self._files[m] for m in modalities if m in self._files}
        parts = [f"{m} {files.identity(video_id)}\n" for m, files in chosen.items() if files.has(video_id)]
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]

    def load_one(self, video_id: str, modality: Modality) -> np.ndarray | None:
        """Load one modality of a video in the format of [`load`].

        Raises:
            ValueError: as [`load`], and if the file does not match its checksum in the manifest, which is compared when
                the file is first read.
        """
        files = self._files[modality]
        stored = files.read(video_id)
        if 0 in stored.shape:
            return None
        features = np.array(np.atleast_2d(stored), dtype=np.float32, order="C")  # [n, width], a copy in memory
        if not np.isfinite(features).all():
            raise ValueError(f"{files.place(video_id)}: holds NaN, infinity or a number beyond float32; make it again")
        if modality in self.expected_widths:
            check_width(features.shape, self.expected_widths[modality], files.place(video_id))
        return features


def _find_files(root: str | Path) -> dict[Modality, FeatureFiles]:
    if isinstance(root, str):  # a URL
        try:
            return {modality: NpyArchive(url) for modality, url in find_archives(root, FOLDERS).items()}
        except FileNotFoundError:
            raise FileNotFoundError(f"{root}: no such folder of features, or one that cannot be listed") from None
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder of features")
    archives = find_archives(str(root), FOLDERS)
    found: dict[Modality, FeatureFiles] = {}
    records = load_records(root)
    for modality, folder in FOLDERS.items():
        if (root / folder).is_dir():
            checksums = {v: r["sha256"][modality] for v, r in records.items() if modality in r.get("sha256", {})}
            found[modality] = NpyFolder(root / folder, checksums)
        elif modality in archives:
            found[modality] = NpyArchive(archives[modality])
    shards = sorted(root.glob("*.parquet")) or sorted(root.glob("data/*.parquet"))
    if not found and shards:
        rows = ParquetShards(root, shards)
        found = {
            modality: ParquetColumn(rows, modality) for modality in MODALITIES if FOLDERS[modality] in rows.columns
        }
    return found


def save_features(root: str | os.PathLike, video_id: str, features: Mapping[Modality, np.ndarray | None]) -> None:
    """Store the features of a video as float32.

    All files are written under temporary names and then renamed, the first modality (visual, if given) last; its old
    file is removed before the others change. A killed run therefore never leaves a mixture that [`is_complete`] accepts
    as finished.

    Args:
        root: folder of the store, created if needed.
        video_id: id of the video.
        features: floats [n, width] per modality; None records that the video does not have it. Other modalities are not
            changed.

    Raises:
        ValueError: if the id could name a file outside the store, or an array is not floats [n, width], n and width at
            least 1, all finite. Nothing is written then.
    """
    unknown = [name for name in features if name not in MODALITIES]
    if unknown or not features:
        raise ValueError(f"{video_id!r}: features must be of {', '.join(MODALITIES)}, not {unknown or 'none of them'}")
    contents = {m: feature_bytes(features[m], f"{video_id!r}: {m} features") for m in MODALITIES if m in features}
    paths = {m: feature_path(root, video_id, m) for m in contents}
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    # The stack renames in reverse order of opening: the first modality is renamed last.
    with ExitStack() as files:
        for modality, content in contents.items():
            files.enter_context(atomic_write(paths[modality], "wb")).write(content)
        next(iter(paths.values())).unlink(missing_ok=True)


def feature_bytes(features: np.ndarray | None, name: str) -> bytes:
    """Return the content of the `.npy` file of features, as float32.

    Args:
        features: floats [n, width], or None for a modality that the video does not have.
        name: name of the features, for the message.

    Raises:
        ValueError: if they are not floats [n, width], n and width at least 1, all finite.
    """
    file = io.BytesIO()
    np.save(file, _stored_form(features, name), allow_pickle=False)
    return file.getvalue()


def remove_unfinished(root: str | os.PathLike, video_ids: Iterable[str]) -> None:
    """Delete the temporary files left by a killed [`save_features`].

    Args:
        root: folder of the store; it need not exist.
        video_ids: ids of the videos; no other process may be writing their files.
    """
    wanted = {temporary_prefix(f"{video_id}.npy") for video_id in video_ids}
    for folder in FOLDERS.values():
        for path in Path(root, folder).glob(".*.*.tmp"):
            if path.name[: path.name.removesuffix(".tmp").rindex(".") + 1] in wanted:
                path.unlink(missing_ok=True)


def remove_features(root: str | os.PathLike, video_id: str) -> None:
    """Delete the features of a video, if there are any.

    Args:
        root: folder of the store; it need not exist.
        video_id: id of the video.
    """
    for modality in MODALITIES:
        feature_path(root, video_id, modality).unlink(missing_ok=True)


def is_complete(root: str | os.PathLike, video_id: str, modalities: Iterable[Modality] = MODALITIES) -> bool:
    """Return whether [`save_features`] has finished a video: each of these modalities has a file.

    Args:
        root: folder of the store; it need not exist.
        video_id: id of the video.
        modalities: modalities given to [`save_features`].
    """
    return all(os.path.isfile(feature_path(root, video_id, modality)) for modality in modalities)


def feature_path(root: str | os.PathLike, video_id: str, modality: Modality) -> Path:
    """Return the path of a video's features of one modality.

    Raises:
        ValueError: if the id could name a file outside the store.

    Example:
        >>> feature_path("store", "abc", "visual").as_posix()
        'store/visual_features/abc.npy'
    """
    check_video_id(video_id)
    return Path(root) / FOLDERS[modality] / f"{video_id}.npy"


def check_width(shape: tuple[int, ...], expected: int, place: str | os.PathLike) -> None:
    """Refuse features whose width does not match the model.

    Args:
        shape: shape of the features, (n, width).
        expected: width of the model.
        place: origin of the features, for the message.

    Raises:
        OtherWidth: a ValueError, naming the place and both widths.

    Example:
        >>> check_width((100, 512), 768, "visual_features/abc.npy")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        longvale.features.store.OtherWidth: visual_features/abc.npy: features are 512 wide, expected 768; make them ...
    """
    if shape[-1] != expected:
        raise OtherWidth(
            f"{place}: features are {shape[-1]} wide, expected {expected}; make them with the model's towers"
        )


def _stored_form(features: np.ndarray | None, name: str) -> np.ndarray:
    if features is None:
        return np.zeros((0, 0), np.float32)
    features = np.asarray(features)
    if not np.issubdtype(features.dtype, np.floating) or features.ndim != 2 or 0 in features.shape:
        raise ValueError(
            f"{name} must be floats of shape [n, width], not {features.dtype} of shape {features.shape}; "
            "give None for a modality that the video does not have"
        )
    with np.errstate(over="ignore"):
        stored = features.astype(np.float32)
    if not np.isfinite(stored).all():
        raise ValueError(f"{name} hold NaN, infinity or a number beyond float32")
    return stored
