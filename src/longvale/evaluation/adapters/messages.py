"""Parts of messages to servers in the format of the OpenAI API: frames with their times, audio, links to videos."""

from __future__ import annotations

import base64
import io
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args
from urllib.parse import quote

import numpy as np

from ...images import jpeg_uri

if TYPE_CHECKING:
    from ...models.media import Media

#: How a video is sent to a server: frames, each after a text with its time; frames alone; or a link to the file.
VideoAs: TypeAlias = Literal["timed-frames", "frames", "video-url"]
VIDEO_AS: tuple[VideoAs, ...] = get_args(VideoAs)

Part: TypeAlias = dict[str, Any]

#: Times with one decimal would be equal if frames are closer than this, in seconds.
_CLOSE_S = 0.1


def frame_parts(media: Media, *, timed: bool) -> list[Part]:
    """Return the frames of a video as JPEG images.

    Args:
        media: frames with their presentation times; without frames there are no parts.
        timed: put a text such as `<12.5 seconds>` in front of each frame, the notation of Qwen3-VL.

    Example:
        >>> from longvale.models.media import Media
        >>> frames, times_s = np.zeros((2, 8, 8, 3), np.uint8), np.array([0.5, 12.48])
        >>> [part.get("text", "image") for part in frame_parts(Media(20.0, frames, times_s, None, 16_000), timed=True)]
        ['<0.5 seconds>', 'image', '<12.5 seconds>', 'image']
    """
    if media.frames is None:
        return []
    images: list[Part] = [
        {"type": "image_url", "image_url": {"url": jpeg_uri(frame, quality=90)}} for frame in media.frames
    ]
    if not timed:
        return images
    decimals = 2 if len(images) > 1 and np.diff(media.frame_times).min() < _CLOSE_S else 1
    times = [text_part(f"<{time:.{decimals}f} seconds>") for time in media.frame_times]
    return [part for pair in zip(times, images, strict=True) for part in pair]


def audio_parts(media: Media) -> list[Part]:
    """Return the audio of a video as a WAV file; without audio there are no parts."""
    if media.waveform is None:
        return []
    return [{"type": "input_audio", "input_audio": {"data": wav(media.waveform, media.sampling_rate), "format": "wav"}}]


def text_part(text: str) -> Part:
    """Return a text."""
    return {"type": "text", "text": text}


def video_part(path: Path, root: Path, base_url: str | None, identity: str) -> Part:
    """Return a link to a video file, in the format of vLLM and SGLang.

    Args:
        path: of the file.
        root: folder that `base_url` serves.
        base_url: address of the folder; None for a `file://` link, for a server that reads the same disk.
        identity: of the file's content. It is sent as `uuid`, by which vLLM caches what it computed for a video.

    Example:
        >>> video_part(Path("/v/a b.mp4"), Path("/v"), "http://host/videos", "17-33a8")["video_url"]
        {'url': 'http://host/videos/a%20b.mp4'}
    """
    if base_url is None:
        url = path.resolve().as_uri()
    else:
        url = f"{base_url.rstrip('/')}/{quote(path.relative_to(root).as_posix())}"
    return {"type": "video_url", "video_url": {"url": url}, "uuid": identity}


def wav(waveform: np.ndarray, sampling_rate: int) -> str:
    """Encode audio, float [samples], as a 16-bit WAV file in base64."""
    return base64.b64encode(wav_file(waveform, sampling_rate)).decode()


def wav_file(waveform: np.ndarray, sampling_rate: int) -> bytes:
    """Encode audio, float [samples], as a 16-bit WAV file."""
    buffer = io.BytesIO()
    samples = (np.clip(waveform, -1, 1) * 32767).astype("<i2")
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sampling_rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()
