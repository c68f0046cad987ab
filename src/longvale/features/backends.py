"""What a feature store reads from: folders of `.npy` files, the published zip archives as they are.

Parquet shards are in `feature_shards.py`. Each is a set of arrays by video id, of one modality. Nothing is unpacked,
nothing is unpickled, and every array is checked before it is believed.
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

from ..checksums import file_identity, file_sha256
from ..events import Modality, check_video_id
from ..names import look_up, spellings

#: What numpy raises on headers that are cut, hostile, or promise more than the file holds.
_HEADER_ERRORS = (ValueError, TypeError, OverflowError, MemoryError, RecursionError, tokenize.TokenError, EOFError)

#: What zipfile raises on archives that are damaged or hostile, by the compression of the member: bzip2 says OSError.
_ARCHIVE_ERRORS = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError, struct.error,
    OverflowError, MemoryError,
)  # fmt: skip

try:
    import lzma

    _ARCHIVE_ERRORS = (*_ARCHIVE_ERRORS, lzma.LZMAError)
except ImportError:  # a Python built without it, whose zipfile says NotImplementedError
    pass

#: The largest array that is read from an archive: an hour of video has 703 windows of speech, 1280 wide, 3.6 MB.
_MAX_MEMBER_BYTES = 256 << 20

#: Deflate shrinks float features by a tenth; a thousandfold is an attack.
_MAX_RATIO = 200

#: Of a member of a zip archive: its name is UTF-8.
_UTF8_FLAG = 0x800

#: Bytes that are fetched at once of an archive that lies behind a URL: a video's features of one modality and some.
_BLOCK_BYTES = 512 << 10


class FeatureFiles(Protocol):
    """The arrays of one modality."""

    def ids(self) -> Iterator[str]:
        """In order."""

    def place(self, video_id: str) -> str:
        """Where this video's array is or would be, for messages."""

    def has(self, video_id: str) -> bool: ...

    def read(self, video_id: str) -> np.ndarray:
        """The array as it is stored, floats of one or two dimensions, values not looked at. Raises ValueError."""

    def shape(self, video_id: str) -> tuple[int, ...]:
        """That of the array, without reading it where that can be helped. Raises ValueError."""

    def digest_into(self, digest: Any) -> None:
        """Update a digest with what changes when the files do: names, sizes, times."""

    def identity(self, video_id: str) -> str:
        """What tells this video's array from another one by its content, without reading more than needed."""


class NpyFolder:
    """`<folder>/<video_id>.npy`.

    Args:
        folder: of the files.
        checksums: SHA-256 of some of them by video id. A file is compared with its own when it is first read.
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
        # Mapping checks the promised shape against the file's size before memory is asked for, and never unpickles.
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
        return sorted(path for path in self.folder.glob("*.npy") if path.is_file())  # no links to nothing


class NpyArchive:
    """A zip archive of `.npy` files, in any folder of it, on disk or behind a URL.

    Args:
        place: path of the archive or a URL that fsspec can open. Of a URL only the ranges that are needed are fetched:
            the directory at the end, and a video's own bytes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no whole zip archive, or a member is unsafe: a link, encrypted, of an absolute path or one
            that leaves the archive, or of a size that no features have; or if two members are of one video.
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
        return self.read(video_id).shape  # deflated: there is no way around its bytes

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
                content = file.read(member.file_size + 1)  # at the end zipfile compares the checksum
        except _ARCHIVE_ERRORS as error:
            raise ValueError(f"{place}: damaged ({short_reason(error)}); copy or download the archive again") from None
        if len(content) != member.file_size:
            raise ValueError(
                f"{place}: is not of the {member.file_size} bytes that the archive says; download it again"
            )
        return content

    def _archive(self) -> zipfile.ZipFile:
        # A process that was forked must not share the place in the file with its parent.
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
    """The name of a member; one that is UTF-8 without the flag that says so, as macOS packs, is not taken for CP437."""
    if member.flag_bits & _UTF8_FLAG:
        return member.filename
    try:
        return member.filename.encode("cp437").decode()
    except UnicodeError:
        return member.filename


def short_reason(error: Exception) -> str:
    """What another library says, in one line of a bearable length."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def parse_npy(content: bytes, place: str) -> np.ndarray:
    """The array of a `.npy` file that is in memory.

    Raises:
        ValueError: naming the place, if it is no whole array of floats of one or two dimensions.

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
        # Compared before memory is asked for.
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
    """The array, if it is floats of one or two dimensions.

    Raises:
        ValueError: naming the place, if it is not.
    """
    if not np.issubdtype(array.dtype, np.floating) or array.ndim not in (1, 2):
        raise ValueError(f"{place}: must be floats of shape [n, width], not {array.dtype} of shape {array.shape}")
    return array


# --- places that may be remote --------------------------------------------------------------------------------------


def is_url(place: str | os.PathLike) -> bool:
    return isinstance(place, str) and "://" in place


def open_binary(place: str) -> Any:
    """A file to read at any position; of a URL, in ranges.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    if not is_url(place):
        return open(place, "rb")
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(place)
    return filesystem.open(path, "rb", block_size=_BLOCK_BYTES)


def list_names(place: str) -> list[str]:
    """Names of the files directly in a folder, local or behind a URL that fsspec can list.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    if not is_url(place):
        return sorted(os.listdir(place))
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(place)
    return sorted({str(name).rstrip("/").rpartition("/")[2] for name in filesystem.ls(path, detail=False)})


def find_archives(place: str, folders: Mapping[Modality, str]) -> dict[Modality, str]:
    """The archive of each modality in a folder: `visual_features.zip`, or as published, `visual_features_7240.zip`.

    Raises:
        ValueError: if there are several of one modality.
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
