"""Limits of the page: videos, and fields of its form."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..events import Seconds
from ..models.media_formats import VIDEO_SUFFIXES

#: Audio files without video are accepted, too.
SUFFIXES = (*VIDEO_SUFFIXES, ".wav", ".mp3", ".m4a")

#: Longest question in characters; also checked in the browser.
MAX_QUESTION = 2000

_MEGABYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """Limits of uploads.

    Args:
        size: maximum size of a file in bytes.
        length: maximum duration in seconds; default twice the longest video of the benchmark.
        total: maximum size in bytes of all uploads stored at one time; default ten times `size`.

    Raises:
        ValueError: if a limit is not above 0, or if the total is below the size of one upload.
    """

    size: int = 500 * _MEGABYTE
    length: Seconds = 1200.0
    total: int | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"the size limit must be 1 byte or more, not {self.size}")
        if not self.length > 0:
            raise ValueError(f"the length limit must be above 0 s, not {self.length}")
        if self.stored < self.size:
            raise ValueError(
                f"all uploads together must be allowed the {self.size / _MEGABYTE:g} MB of one, not "
                f"{self.stored / _MEGABYTE:g} MB; raise --max-total or lower --max-size"
            )

    @property
    def stored(self) -> int:
        """Maximum size in bytes of all uploads stored at one time."""
        return 10 * self.size if self.total is None else self.total

    @property
    def sentence(self) -> str:
        """The limits as a sentence for visitors.

        Example:
            >>> Limits().sentence
            'Up to 500 MB and 20 minutes.'
        """
        length = f"{self.length / 60:g} minutes" if self.length >= 120 else f"{self.length:g} seconds"
        return f"Up to {self.size / _MEGABYTE:g} MB and {length}."

    def check(self, path: str | os.PathLike) -> None:
        """Check a file's name, size and header.

        Raises:
            FileNotFoundError: if the file no longer exists.
            ValueError: if the file is too large, too long, of a wrong type, or not a media file. The message is written
                for the visitor and names the file without its folder.
        """
        from ..models.media import probe

        path = Path(path)
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{path.name}: files ending in {', '.join(SUFFIXES)} can be read; convert it to .mp4")
        size = path.stat().st_size
        if size > self.size:
            raise ValueError(
                f"{path.name}: is {size / _MEGABYTE:.0f} MB large, the limit is {self.size / _MEGABYTE:g} MB; "
                "cut or compress it"
            )
        with open(path, "rb") as file:
            info = probe(NamedFile(file, path.name))
        if info.duration is not None and info.duration > self.length:
            raise ValueError(
                f"{path.name}: lasts {info.duration:.0f} s, the limit is {self.length:g} s; cut out the part you need"
            )


class NamedFile:
    """Open file with another name, so that error messages do not show visitors the path of uploads."""

    def __init__(self, file: object, name: str) -> None:
        self._file, self.name = file, name

    def __getattr__(self, attribute: str) -> object:
        return getattr(self._file, attribute)
