"""Videos of requests: uploads, links, files and frames, within limits; each is identified by its content."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

from ..events import Seconds
from ..system.checksums import file_identity
from .chat_requests import RequestError, VideoReference, decode_base64

if TYPE_CHECKING:
    from ..models.media import Media

_MEGABYTE = 2**20
#: Seconds for which the content of a link counts as known, and of a connection.
_LINK_S, _CONNECT_S = 300.0, 30.0
_MAX_REDIRECTS = 5


@dataclass(frozen=True)
class ServingLimits:
    """Limits of what a request may give.

    Args:
        size: maximum size of a video file in bytes.
        length: maximum duration of a video in seconds.
        stored: maximum size of all uploads together in bytes; the oldest are deleted.
        waiting: maximum number of requests at a time; more are refused with status 429.
        fetch_s: maximum duration of a download in seconds.

    Raises:
        ValueError: if a limit is not above 0, or all uploads together may be smaller than one.
    """

    size: int = 500 * _MEGABYTE
    length: Seconds = 1200.0
    stored: int = 5000 * _MEGABYTE
    waiting: int = 256
    fetch_s: Seconds = 300.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"the limit {name} must be above 0, not {value}")
        if self.stored < self.size:
            raise ValueError(f"all uploads together must be allowed the {self.size} bytes of one, not {self.stored}")


@dataclass(frozen=True)
class FoundVideo:
    """A video that can be read.

    Args:
        identity: of its content; equal videos are encoded once.
        read: function that decodes it, called in a thread.
    """

    identity: str
    read: Callable[[], Media]


@dataclass(frozen=True)
class Upload:
    """An uploaded file.

    Args:
        file_id: derived from the content, so that the same file has the same id.
        name: name of the file as uploaded.
        size: in bytes.
        created: seconds since 1970.
        path: of the file.
    """

    file_id: str
    name: str
    size: int
    created: int
    path: Path

    def body(self) -> dict[str, Any]:
        """Return the file in the format of the OpenAI API."""
        return {
            "id": self.file_id,
            "object": "file",
            "bytes": self.size,
            "created_at": self.created,
            "filename": self.name,
            "purpose": "user_data",
        }


class Videos:
    """Videos that requests may name.

    Args:
        folder: private folder for uploads.
        limits: limits of one video, and of all uploads.
        media_kwargs: decoding options of the model's processor.
        hosts: hosts from which links are fetched; "*" allows all. By default none, since a link can name any machine
            that the server reaches.
        folders: folders whose files requests may name by `file://`.

    Raises:
        FileNotFoundError: if one of the folders does not exist.
    """

    def __init__(
        self,
        folder: Path,
        limits: ServingLimits,
        media_kwargs: dict[str, Any],
        *,
        hosts: Collection[str] = (),
        folders: Collection[str | os.PathLike] = (),
    ) -> None:
        self._folder, self._limits, self._media_kwargs = folder, limits, media_kwargs
        self._hosts = frozenset(host.lower() for host in hosts)
        self._folders = [Path(path).resolve() for path in folders]
        for path in self._folders:
            if not path.is_dir():
                raise FileNotFoundError(f"{path}: no such folder; give a folder of videos")
        self._uploads: OrderedDict[str, Upload] = OrderedDict()
        self._links: OrderedDict[str, tuple[float, str, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    # Uploads

    def add(self, file: BinaryIO, name: str) -> Upload:
        """Store an upload; the oldest ones are deleted if there is no room.

        Raises:
            RequestError: if the file is empty or too large.
        """
        digest, size = hashlib.sha256(), 0
        path = self._folder / f"arriving-{threading.get_ident()}-{time.monotonic_ns()}"
        try:
            with path.open("wb") as target:
                while block := file.read(_MEGABYTE):
                    size += len(block)
                    if size > self._limits.size:
                        raise self._too_large("file")
                    digest.update(block)
                    target.write(block)
            if not size:
                raise RequestError("file: is empty", "file")
            upload = Upload(
                f"file-{digest.hexdigest()[:32]}", name[:200], size, int(time.time()), self._folder / digest.hexdigest()
            )
            with self._lock:
                path.replace(upload.path)
                self._uploads[upload.file_id] = upload
                self._uploads.move_to_end(upload.file_id)
                while sum(kept.size for kept in self._uploads.values()) > self._limits.stored:
                    self._uploads.popitem(last=False)[1].path.unlink(missing_ok=True)
        finally:
            path.unlink(missing_ok=True)
        return upload

    def uploads(self) -> list[Upload]:
        """Return the uploads, the least recently used first."""
        with self._lock:
            return list(self._uploads.values())

    def upload(self, file_id: str) -> Upload:
        """Return an upload.

        Raises:
            RequestError: with status 404, if there is none.
        """
        with self._lock:
            if file_id not in self._uploads:
                raise RequestError(f"{file_id[:80]}: no such file; upload it to /v1/files", "file_id", status=404)
            self._uploads.move_to_end(file_id)
            return self._uploads[file_id]

    def delete(self, file_id: str) -> None:
        """Delete an upload; `RequestError` with status 404 if there is none."""
        upload = self.upload(file_id)
        with self._lock:
            self._uploads.pop(file_id, None)
            upload.path.unlink(missing_ok=True)

    # References

    def find(self, reference: VideoReference) -> FoundVideo:
        """Find the video of a request; links are fetched.

        Raises:
            RequestError: if the video is not allowed, missing, too large, or cannot be fetched.
        """
        if reference.kind == "file":
            upload = self.upload(reference.value)
            return FoundVideo(upload.file_id, lambda: self._read(upload.path))
        if reference.kind == "data":
            return self._found(reference.content)
        if reference.kind == "frames":
            digest = hashlib.sha256(reference.content)
            for uri in reference.value:
                digest.update(uri.encode(errors="replace"))
            return FoundVideo(f"frames-{digest.hexdigest()}", lambda: self._assemble(reference))
        scheme = urlsplit(reference.value).scheme.lower()
        if scheme == "data":
            return self._found(decode_base64(reference.value.partition(",")[2], "video_url"))
        if scheme == "file":
            return self._local(reference.value)
        if scheme in ("http", "https"):
            return self._linked(reference.value)
        raise RequestError("video_url: must begin with https://, http://, file:// or data:", "video_url")

    def _found(self, content: bytes) -> FoundVideo:
        if len(content) > self._limits.size:
            raise self._too_large("video_url")
        return FoundVideo(f"data-{hashlib.sha256(content).hexdigest()}", lambda: self._read(io.BytesIO(content)))

    def _local(self, url: str) -> FoundVideo:
        path = Path(unquote(urlsplit(url).path)).resolve()
        if not any(path.is_relative_to(folder) for folder in self._folders):
            raise RequestError(
                "video_url: this server reads files only from the folders named by --media-dir; upload the file",
                "video_url",
            )
        try:
            if path.stat().st_size > self._limits.size:
                raise self._too_large("video_url")
            return FoundVideo(f"path-{file_identity(path)}", lambda: self._read(path))
        except OSError as error:
            raise RequestError(f"video_url: {path.name}: {(error.strerror or '').lower()}", "video_url", 404) from None

    def _linked(self, url: str) -> FoundVideo:
        with self._lock:
            known = self._links.get(url)
        if known is None or time.monotonic() - known[0] > _LINK_S:
            content = self._fetch(url)
            known = (time.monotonic(), f"data-{hashlib.sha256(content).hexdigest()}", content)
            with self._lock:
                self._links[url] = known
                self._links.move_to_end(url)
                while len(self._links) > 1 and sum(len(link[2]) for link in self._links.values()) > self._limits.size:
                    self._links.popitem(last=False)
        return FoundVideo(known[1], lambda: self._read(io.BytesIO(known[2])))

    def _fetch(self, url: str) -> bytes:
        """Download a file; each host of a chain of redirects must be allowed."""
        import httpx2

        ends = time.monotonic() + self._limits.fetch_s
        try:
            with httpx2.Client(timeout=httpx2.Timeout(_CONNECT_S)) as client:
                for _ in range(_MAX_REDIRECTS + 1):
                    self._check_host(url)
                    with client.stream("GET", url) as response:
                        if response.has_redirect_location:
                            url = urljoin(url, response.headers["location"])
                            continue
                        if response.status_code != 200:
                            raise RequestError(
                                f"video_url: cannot be fetched: HTTP {response.status_code}", "video_url"
                            )
                        content = bytearray()
                        for block in response.iter_bytes():
                            content += block
                            if len(content) > self._limits.size:
                                raise self._too_large("video_url")
                            if time.monotonic() > ends:
                                raise RequestError(
                                    f"video_url: takes longer than {self._limits.fetch_s:g} s to fetch; upload it",
                                    "video_url",
                                )
                        return bytes(content)
        except (OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise RequestError(f"video_url: cannot be fetched: {type(error).__name__}", "video_url") from None
        raise RequestError(f"video_url: more than {_MAX_REDIRECTS} redirects", "video_url")

    def _check_host(self, url: str) -> None:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        if parts.scheme not in ("http", "https") or ("*" not in self._hosts and host not in self._hosts):
            raise RequestError(
                f"video_url: this server fetches nothing from {host[:80] or 'there'}: start it with --media-host, or "
                "upload the file",
                "video_url",
                403,
            )

    def _too_large(self, name: str) -> RequestError:
        limit = self._limits.size / _MEGABYTE
        return RequestError(f"{name}: is larger than {limit:g} MB, the limit of this server", name, 413)

    # Decoding

    def _read(self, source: Path | BinaryIO) -> Media:
        from ..models.media import MediaError, read_media

        try:
            return read_media(source, **self._media_kwargs, max_duration_s=self._limits.length)
        except FileNotFoundError:
            raise RequestError("the video was deleted before it was read; upload it again", status=404) from None
        except MediaError as error:
            raise RequestError(f"the video cannot be read: {_nameless(error, source)}") from None

    def _assemble(self, reference: VideoReference) -> Media:
        """Return frames, and sound of any length, as a video."""
        import numpy as np

        from ..models.media import Media

        frames = [_decode_image(uri, number) for number, uri in enumerate(reference.value)]
        if len({frame.shape for frame in frames}) > 1:
            raise RequestError("image_url: the frames of a video must have equal sizes", "image_url")
        sound = self._read(io.BytesIO(reference.content)) if reference.content else None
        duration = sound.duration if sound else float(len(frames))
        times = (np.arange(len(frames)) + 0.5) * duration / max(len(frames), 1)
        return Media(
            duration,
            np.stack(frames) if frames else None,
            times,
            sound.waveform if sound else None,
            sound.sampling_rate if sound else self._media_kwargs["sampling_rate"],
        )


def _nameless(error: Exception, source: Path | BinaryIO) -> str:
    """Return the message without the path of the file."""
    text = str(error)
    return text.replace(str(source), "").lstrip(": ") if isinstance(source, Path) else text


def _decode_image(uri: str, number: int) -> Any:
    """Return an image of a data URI, uint8 [H, W, 3]."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    head, _, data = uri.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        raise RequestError(f"image_url {number}: must be a data URI in base64", "image_url")
    try:
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        return np.asarray(image.convert("RGB"))
    except (ValueError, OSError, UnidentifiedImageError, Image.DecompressionBombError):
        raise RequestError(f"image_url {number}: is not an image", "image_url") from None
