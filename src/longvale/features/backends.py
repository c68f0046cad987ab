"""Backends of the feature store: folders of `.npy` files, and the published zip archives without unpacking.

Parquet shards are in `shards.py`. A backend contains the arrays of one modality by video id. Nothing is extracted to
disk, nothing is unpickled, and every array is validated before use.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from ..events import Modality, check_video_id
from ..system.checksums import file_identity, file_sha256
from ..system.names import look_up, spellings

#: Errors of numpy on headers that are truncated, malicious, or larger than the file.
_HEADER_ERRORS = (ValueError, TypeError, OverflowError, MemoryError, RecursionError, tokenize.TokenError, EOFError)

#: Errors of zipfile on damaged or malicious archives; they depend on the compression: bzip2 raises OSError.
_ARCHIVE_ERRORS = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError, struct.error,
    OverflowError, MemoryError,
)  # fmt: skip

try:
    import lzma

    _ARCHIVE_ERRORS = (*_ARCHIVE_ERRORS, lzma.LZMAError)
except ImportError:  # a Python built without lzma, whose zipfile raises NotImplementedError
    pass

#: Size limit of an array in an archive. An hour of video has 703 windows of speech of width 1280: 3.6 MB.
_MAX_MEMBER_BYTES = 256 << 20

#: Limit of the compression ratio. Deflate shrinks float features by a tenth; a factor of a thousand is an attack.
_MAX_RATIO = 200

#: Flag of a zip member: its name is UTF-8.
_UTF8_FLAG = 0x800

#: Bytes per request to an archive at a URL: slightly more than one modality of a video.
_BLOCK_BYTES = 512 << 10


class FeatureFiles(Protocol):
    """Arrays of one modality."""

    def ids(self) -> Iterator[str]:
        """Yield the video ids in order."""

    def place(self, video_id: str) -> str:
        """Return where this video's array is or would be, for messages."""

    def has(self, video_id: str) -> bool: ...

    def read(self, video_id: str) -> np.ndarray:
        """Return the array as stored, floats of one or two dimensions, without checking values. Raises ValueError."""

    def shape(self, video_id: str) -> tuple[int, ...]:
        """Return the shape of the array, without reading it if possible. Raises ValueError."""

    def digest_into(self, digest: Any) -> None:
        """Update a digest with metadata that changes with the files: names, sizes, times."""

    def identity(self, video_id: str) -> str:
        """Return a string that identifies the content of this video's array, reading as little as possible."""


class NpyFolder:
    """Files `<folder>/<video_id>.npy`.

    Args:
        folder: folder of the files.
        checksums: SHA-256 of some files by video id. A file is compared with its checksum when it is first read.
    """

    def __init__(self, folder: Path, checksums: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._checksums, self._checked = checksums or {}, set()

    def ids(self) -> Iterator[str]:
        yield from (path.stem for path in self._paths())

    def place(self, video_id: str) -> str:
        return str(self._path(video_id))

    def has(self, video_id: str) -> bool:
        return os.path.isfile(self._path(video_id))

    def read(self, video_id: str) -> np.ndarray:
        path = self._path(video_id)
        expected = look_up(self._checksums, path.stem)
        if expected is not None and path not in self._checked and os.path.isfile(path):
            if (found := file_sha256(path)) != expected:
                raise ValueError(
                    f"{path}: is not what the manifest recorded (sha256 {found[:12]}, not {expected[:12]}); run "
                    "`longvale features` again, which makes it again"
                )
            self._checked.add(path)
        return self._map(path)

    def _map(self, path: Path) -> np.ndarray:
        # Mapping compares the shape in the header with the file size before memory is allocated, and never unpickles.
        try:
            array = np.lib.format.open_memmap(path, mode="r")
        except _HEADER_ERRORS as error:
            raise ValueError(_not_whole(path, error)) from None
        return check_kind(array, path)

    def shape(self, video_id: str) -> tuple[int, ...]:
        return self._map(self._path(video_id)).shape

    def digest_into(self, digest: Any) -> None:
        for path in self._paths():
            status = path.stat()
            digest.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))

    def identity(self, video_id: str) -> str:
        return file_identity(self._path(video_id))

    def _path(self, video_id: str) -> Path:
        check_video_id(video_id)
        paths = [self.folder / f"{name}.npy" for name in spellings(video_id)]
        return next((path for path in paths if os.path.isfile(path)), paths[0])

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.npy") if path.is_file())  # no broken links


class NpyArchive:
    """A zip archive of `.npy` files in any of its folders, on disk or at a URL.

    Args:
        place: path of the archive or a URL that fsspec can open. From a URL, only the necessary ranges are fetched: the
            directory at the end, and the bytes of a video.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a complete zip archive, or a member is unsafe: a link, encrypted, with a path that is
            absolute or leaves the archive, or with an implausible size; or if two members belong to one video.
    """

    def __init__(self, place: str | os.PathLike) -> None:
        self.name = os.fspath(place)
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._archive().infolist():
            self._check_safe(member)
            path = PurePosixPath(_member_name(member))
            if member.is_dir() or path.suffix != ".npy" or path.name.startswith("."):
                continue
            check_video_id(path.stem)
            if path.stem in self._members:
                raise ValueError(f"{self.name}: {member.filename}: is the second array of this video; pack it again")
            self._members[path.stem] = member

    def ids(self) -> Iterator[str]:
        yield from sorted(self._members)

    def place(self, video_id: str) -> str:
        member = look_up(self._members, video_id)
        return f"{self.name}: {_member_name(member) if member else f'{video_id}.npy'}"

    def has(self, video_id: str) -> bool:
        check_video_id(video_id)
        return look_up(self._members, video_id) is not None

    def read(self, video_id: str) -> np.ndarray:
        return parse_npy(self._content(video_id), self.place(video_id))

    def shape(self, video_id: str) -> tuple[int, ...]:
        return self.read(video_id).shape  # deflated: its bytes must be read

    def digest_into(self, digest: Any) -> None:
        for video_id in self.ids():
            member = self._members[video_id]
            digest.update(f"{self.name}\0{member.filename}\0{member.file_size}\0{member.CRC}\n".encode())

    def identity(self, video_id: str) -> str:
        member = look_up(self._members, video_id)
        return f"{member.file_size}-{member.CRC:08x}"

    def _content(self, video_id: str) -> bytes:
        member, place = look_up(self._members, video_id), self.place(video_id)
        try:
            with self._archive().open(member) as file:
                content = file.read(member.file_size + 1)  # zipfile compares the checksum at the end of the file
        except _ARCHIVE_ERRORS as error:
            raise ValueError(f"{place}: damaged ({short_reason(error)}); copy or download the archive again") from None
        if len(content) != member.file_size:
            raise ValueError(
                f"{place}: is not of the {member.file_size} bytes that the archive says; download it again"
            )
        return content

    def _archive(self) -> zipfile.ZipFile:
        # A forked process must not share the file position with its parent.
        if self._opened is None or self._opened[0] != os.getpid():
            file = open_binary(self.name)
            try:
                self._opened = os.getpid(), zipfile.ZipFile(file)
            except _ARCHIVE_ERRORS as error:
                raise ValueError(
                    f"{self.name}: not a whole zip archive ({short_reason(error)}); copy or download it again"
                ) from None
        return self._opened[1]

    def _check_safe(self, member: zipfile.ZipInfo) -> None:
        path = PurePosixPath(member.filename)
        mode = member.external_attr >> 16
        reason = None
        if path.is_absolute() or "\\" in member.filename or ":" in member.filename.partition("/")[0]:
            reason = "its path is absolute"
        elif ".." in path.parts:
            reason = "its path leaves the archive"
        elif mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_IFMT(mode) == 0):
            reason = "it is a link or another special file"
        elif member.flag_bits & 1:
            reason = "it is encrypted"
        elif member.file_size > _MAX_MEMBER_BYTES or member.file_size > _MAX_RATIO * max(member.compress_size, 1024):
            reason = f"it would grow from {member.compress_size} to {member.file_size} bytes"
        if reason:
            raise ValueError(f"{self.name}: {member.filename!r} is refused: {reason}; get the archive from its source")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}


def _member_name(member: zipfile.ZipInfo) -> str:
    """Return the name of a member; names in UTF-8 without the flag, as written by macOS, are decoded as UTF-8."""
    if member.flag_bits & _UTF8_FLAG:
        return member.filename
    try:
        return member.filename.encode("cp437").decode()
    except UnicodeError:
        return member.filename


def short_reason(error: Exception) -> str:
    """Return an error message of another library in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def parse_npy(content: bytes, place: str) -> np.ndarray:
    """Parse the content of a `.npy` file.

    Raises:
        ValueError: naming the place, if it is not a complete array of floats of one or two dimensions.

    Example:
        >>> parse_npy(b"PK", "visual.zip: abc.npy")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: visual.zip: abc.npy: not a whole .npy file of numbers (EOF: ...); make it again
    """
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
        shape, _, dtype = read_header(file)
        # Compared before memory is allocated.
        missing = int(np.prod(shape, dtype=object)) * dtype.itemsize - (len(content) - file.tell())
        if missing or dtype.hasobject or min(shape, default=1) < 0:
            raise ValueError(f"{abs(missing)} bytes {'are missing' if missing > 0 else 'too many'}")
        file.seek(0)
        array = np.lib.format.read_array(file, allow_pickle=False)
    except (*_HEADER_ERRORS, KeyError) as error:
        raise ValueError(_not_whole(place, error)) from None
    return check_kind(array, place)


def _not_whole(place: str | os.PathLike, error: Exception) -> str:
    reason = str(error).partition("\n")[0] or type(error).__name__
    return f"{place}: not a whole .npy file of numbers ({reason}); make it again"


def check_kind(array: np.ndarray, place: str | os.PathLike) -> np.ndarray:
    """Return the array if it contains floats and has one or two dimensions.

    Raises:
        ValueError: naming the place, otherwise.
    """
    if not np.issubdtype(array.dtype, np.floating) or array.ndim not in (1, 2):
        raise ValueError(f"{place}: must be floats of shape [n, width], not {array.dtype} of shape {array.shape}")
    return array


# --- places that may be remote --------------------------------------------------------------------------------------


def is_url(place: str | os.PathLike) -> bool:
    return isinstance(place, str) and "://" in place


def open_binary(place: str) -> Any:
    """Open a file for random access; a URL is read in ranges.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    if not is_url(place):
        return open(place, "rb")
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(place)
    return filesystem.open(path, "rb", block_size=_BLOCK_BYTES)


def list_names(place: str) -> list[str]:
    """List the names in a folder, local or at a URL that fsspec can list.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    if not is_url(place):
        return sorted(os.listdir(place))
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(place)
    return sorted({str(name).rstrip("/").rpartition("/")[2] for name in filesystem.ls(path, detail=False)})


def find_archives(place: str, folders: Mapping[Modality, str]) -> dict[Modality, str]:
    """Find the archive of each modality in a folder: `visual_features.zip` or, as published, `*_features_7240.zip`.

    Raises:
        ValueError: if there are several archives of one modality.
    """
    found: dict[Modality, str] = {}
    names = [name for name in list_names(place) if name.endswith(".zip")]
    for modality, folder in folders.items():
        of_it = [name for name in names if name == f"{folder}.zip" or name.startswith(f"{folder}_")]
        if len(of_it) > 1:
            raise ValueError(f"{place}: holds {' and '.join(of_it)}; keep one, or put them into folders of their own")
        if of_it:
            found[modality] = f"{place.rstrip('/')}/{of_it[0]}"
    return found
