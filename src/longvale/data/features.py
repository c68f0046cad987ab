"""The feature store: one `.npy` file a video and modality, in the layout of the published archives.

::

    <root>/visual_features/<video_id>.npy    [F, 768]   one row a frame
    <root>/audio_features/<video_id>.npy     [A, 768]   one row a window of 5.12 s
    <root>/speech_features/<video_id>.npy    [S, 1280]  one row a window of 5.12 s

The widths are those of the published towers; others are stored the same way. A modality that a video does not have (no
sound track) is a file too, of shape [0, 0]: a missing file always means "not made", so that work can be resumed.
"""

from __future__ import annotations

import hashlib
import io
import os
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np

from ..events import MODALITIES, Modality, atomic_write, check_video_id

#: Folder of each modality below the root of a store.
FOLDERS: dict[Modality, str] = {modality: f"{modality}_features" for modality in MODALITIES}

#: What numpy raises on headers that are cut, hostile, or promise more than the file holds.
_HEADER_ERRORS = (ValueError, TypeError, OverflowError, MemoryError, RecursionError, tokenize.TokenError)


class FeatureStore:
    """The stored features of many videos.

    Args:
        root: folder that holds one or more of `visual_features`, `audio_features`, `speech_features`. A modality whose
            folder is not there is not part of the store.
        widths: width that each modality must have; [`load`] refuses others. Modalities left out may have any.

    Raises:
        FileNotFoundError: if `root` is no folder or holds none of the three.

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
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root}: no such folder of features")
        self.expected_widths = dict(widths or {})
        self.modalities: tuple[Modality, ...] = tuple(m for m in MODALITIES if (self.root / FOLDERS[m]).is_dir())
        if not self.modalities:
            raise FileNotFoundError(f"{self.root}: holds no folder {', '.join(FOLDERS.values())}")

    def missing(self, video_id: str) -> tuple[Modality, ...]:
        """The modalities of the store that have no file for this video; a recorded absence is a file.

        Raises:
            ValueError: if the id could name a file outside the store.
        """
        return tuple(m for m in self.modalities if not feature_path(self.root, video_id, m).is_file())

    def has(self, video_id: str) -> bool:
        """Whether each modality of the store has a file for this video."""
        return not self.missing(video_id)

    def load(self, video_id: str, missing: Literal["error", "none"] = "error") -> dict[Modality, np.ndarray | None]:
        """The features of a video.

        Args:
            video_id: of the video.
            missing: what a missing file is: an error, or, as in the published archives, a modality that the video does
                not have.

        Returns:
            float32 [n, width] a modality; None for one that the video or the store does not have. The published single
            vector of an image, [width], becomes [1, width].

        Raises:
            FileNotFoundError: naming the missing file, unless `missing` is "none".
            ValueError: naming the file, if it is no whole array of finite floats [n, width] or has another width than
                the store was opened with.
        """
        if missing not in ("error", "none"):
            raise ValueError(f"missing must be 'error' or 'none', not {missing!r}")
        absent = self.missing(video_id)
        if absent and missing == "error":
            path = feature_path(self.root, video_id, absent[0])
            raise FileNotFoundError(
                f"{path}: no such file; make it with `longvale features`, or load with missing='none'"
            )
        present = [m for m in self.modalities if m not in absent]
        return {m: self._read(video_id, m) if m in present else None for m in MODALITIES}

    def check_widths(self, video_id: str, widths: Mapping[Modality, int]) -> None:
        """Look at the headers of a video's files, without reading the arrays.

        Args:
            video_id: of the video; modalities without a file are passed over.
            widths: that each modality must have; modalities left out are not looked at.

        Raises:
            ValueError: naming the first file that is no array of floats [n, width], or has another width.
        """
        absent = self.missing(video_id)
        for modality in (m for m in self.modalities if m in widths and m not in absent):
            path = feature_path(self.root, video_id, modality)
            header = _open(path)
            if 0 not in header.shape:
                check_width(header, widths[modality], path)

    def widths(self) -> dict[Modality, int]:
        """Width of each modality, as the first file says that is not empty; a modality without one is left out.

        Raises:
            ValueError: naming a file that is no array of floats [n, width].
        """
        widths: dict[Modality, int] = {}
        for modality in self.modalities:
            for path in self._paths(modality):
                shape = _open(path).shape
                if 0 not in shape:
                    widths[modality] = shape[-1]
                    break
        return widths

    def fingerprint(self) -> str:
        """A digest that changes when a file is added, removed or rewritten (name, size and time, not the content)."""
        digest = hashlib.sha256()
        for modality in self.modalities:
            for path in self._paths(modality):
                stat = path.stat()
                digest.update(f"{modality}\0{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def _paths(self, modality: Modality) -> Iterator[Path]:
        yield from sorted((self.root / FOLDERS[modality]).glob("*.npy"))

    def _read(self, video_id: str, modality: Modality) -> np.ndarray | None:
        path = feature_path(self.root, video_id, modality)
        stored = _open(path)
        if 0 in stored.shape:
            return None
        features = np.array(np.atleast_2d(stored), dtype=np.float32, order="C")  # [n, width], no longer the file's
        if not np.isfinite(features).all():
            raise ValueError(f"{path}: holds NaN, infinity or a number beyond float32; make it again")
        if modality in self.expected_widths:
            check_width(features, self.expected_widths[modality], path)
        return features


def save_features(root: str | os.PathLike, video_id: str, features: Mapping[Modality, np.ndarray | None]) -> None:
    """Store the features of a video as float32.

    All files are written under temporary names and then renamed, the first modality (visual, where there is one) last;
    its old file is removed before the others change. So a killed run never leaves a mixture that [`is_complete`] takes
    for finished.

    Args:
        root: folder of the store, made where needed.
        video_id: of the video.
        features: floats [n, width] a modality; None records that the video does not have it. Modalities left out are
            not touched.

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
    # The stack renames in the order opposite to opening: the first modality is renamed last.
    with ExitStack() as files:
        for modality, content in contents.items():
            files.enter_context(atomic_write(paths[modality], "wb")).write(content)
        next(iter(paths.values())).unlink(missing_ok=True)


def feature_bytes(features: np.ndarray | None, name: str) -> bytes:
    """The `.npy` file that stores features as float32.

    Args:
        features: floats [n, width], or None for a modality that the video does not have.
        name: of them, for the message.

    Raises:
        ValueError: if they are not floats [n, width], n and width at least 1, all finite.
    """
    file = io.BytesIO()
    np.save(file, _stored_form(features, name), allow_pickle=False)
    return file.getvalue()


def remove_unfinished(root: str | os.PathLike, video_ids: Iterable[str]) -> None:
    """Delete the temporary files that a killed [`save_features`] could not.

    Args:
        root: folder of the store; it need not exist.
        video_ids: of the videos; no other process may be writing their files.
    """
    wanted = set(video_ids)
    for folder in FOLDERS.values():
        for path in Path(root, folder).glob(".*.npy.*.tmp"):
            if path.name[1:].rpartition(".npy.")[0] in wanted:
                path.unlink(missing_ok=True)


def is_complete(root: str | os.PathLike, video_id: str, modalities: Iterable[Modality] = MODALITIES) -> bool:
    """Whether [`save_features`] has finished with a video: each of these modalities has a file.

    Args:
        root: folder of the store; it need not exist.
        video_id: of the video.
        modalities: those given to [`save_features`].
    """
    return all(feature_path(root, video_id, modality).is_file() for modality in modalities)


def feature_path(root: str | os.PathLike, video_id: str, modality: Modality) -> Path:
    """Where a video's features of this modality are stored.

    Raises:
        ValueError: if the id could name a file outside the store.

    Example:
        >>> feature_path("store", "abc", "visual").as_posix()
        'store/visual_features/abc.npy'
    """
    check_video_id(video_id)
    return Path(root) / FOLDERS[modality] / f"{video_id}.npy"


def check_width(features: np.ndarray, expected: int, path: str | os.PathLike) -> None:
    """Refuse features of another width than a model takes.

    Args:
        features: [n, width].
        expected: the model's width.
        path: the file that they come from, for the message.

    Raises:
        ValueError: naming the file and both widths.

    Example:
        >>> check_width(np.zeros((100, 512)), 768, "visual_features/abc.npy")
        Traceback (most recent call last):
            ...
        ValueError: visual_features/abc.npy: features are 512 wide, expected 768; make them with the model's towers
    """
    if features.shape[-1] != expected:
        raise ValueError(
            f"{path}: features are {features.shape[-1]} wide, expected {expected}; make them with the model's towers"
        )


def _open(path: Path) -> np.ndarray:
    # Mapping checks the promised shape against the file's size before memory is asked for, and never unpickles.
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except _HEADER_ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: not a whole .npy file of numbers ({reason}); make it again") from None
    if not np.issubdtype(array.dtype, np.floating) or array.ndim not in (1, 2):
        raise ValueError(f"{path}: must be floats of shape [n, width], not {array.dtype} of shape {array.shape}")
    return array


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
