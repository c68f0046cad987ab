"""Decoder of one stream that counts damaged packets."""

from __future__ import annotations

import av
from av.audio.frame import AudioFrame
from av.stream import Stream
from av.video.frame import VideoFrame

from .media_source import MediaError

#: A stream is refused if more than this share of its packets is damaged.
_DAMAGED_SHARE = 0.1

#: Pixels per frame, as in 8192 x 8192. The decoder keeps several frames in memory.
_MAX_PIXELS = 1 << 26

#: Codecs that mark unreferenced frames, which can be skipped without any effect on the others: nal_ref_idc in H.264
#: (ITU-T H.264, 7.4.1). In HEVC, sub-layer non-reference pictures may still be referenced.
_MARKS_UNREFERENCED = frozenset({"h264"})


class Decoder:
    """Decoder that skips damaged packets and counts them.

    Args:
        stream: stream to decode.
        name: name of the file, for errors.
        threads: decoder threads.

    Raises:
        MediaError: if the frames have more than 67 million pixels.
    """

    def __init__(self, stream: Stream, name: str, threads: int) -> None:
        self._context = stream.codec_context
        self._context.thread_type = "AUTO"
        self._context.thread_count = threads
        if stream.type == "video":
            self._context.options = {"max_pixels": str(_MAX_PIXELS)}
            if self._context.width * self._context.height > _MAX_PIXELS:
                raise MediaError(
                    f"{name}: its pictures claim {self._context.width} x {self._context.height} pixels, more than "
                    f"{_MAX_PIXELS / 1e6:.0f} million; scale it down"
                )
        self._name, self._what = name, "picture" if stream.type == "video" else "sound"
        self._can_skip = self._context.name in _MARKS_UNREFERENCED
        self._length_size = _length_size(self._context.extradata or b"") if self._can_skip else 0
        self.packets = self.damaged = 0

    def decode(self, packet: av.Packet | None, wanted: bool = True) -> list[AudioFrame] | list[VideoFrame]:
        """Decode a packet and return the frames that are ready.

        Args:
            packet: packet to decode; None drains the decoder and resets it for further packets.
            wanted: False if only other frames may need this one; it is skipped if none does.
        """
        if packet is not None and not packet.size:  # the previous frame stays visible; FFmpeg would treat it as the end
            return []
        self.packets += packet is not None
        if self._can_skip:
            if not wanted and self._length_size and _is_unreferenced(memoryview(packet), self._length_size):
                return []  # a multithreaded decoder would assign a thread to it and wait
            self._context.skip_frame = "DEFAULT" if wanted else "NONREF"
        try:
            frames = self._context.decode(packet)
        except av.error.EOFError:
            frames = []
        except av.FFmpegError:
            self.damaged += 1
            frames = []
        if packet is None:
            self._context.flush_buffers()
        self.damaged += sum(frame.is_corrupt for frame in frames)
        return frames

    def damage(self) -> list[str]:
        """Return warnings about damaged packets.

        Raises:
            MediaError: if there were too many.
        """
        if not self.damaged:
            return []
        message = f"the {self._what} is damaged in {self.damaged} of {self.packets} packets"
        if self.damaged > _DAMAGED_SHARE * self.packets:
            raise MediaError(f"{self._name}: {message}; copy or download the file again")
        return [message]


#: H.264 NAL units of a frame that no later frame needs: its slices, messages, delimiters and filler data.
_SLICE, _PASSING = 1, frozenset({1, 6, 9, 12})


def _length_size(extradata: bytes) -> int:
    """Return the bytes of the length field of NAL units (ISO/IEC 14496-15, 5.3.3.1.2); 0 if they have start codes."""
    return (extradata[4] & 3) + 1 if len(extradata) > 4 and extradata[0] == 1 else 0


def _is_unreferenced(packet: memoryview, length_size: int) -> bool:
    """Return whether an H.264 packet contains an unreferenced frame and nothing else that other frames need."""
    pos, has_slice = 0, False
    while pos + length_size < len(packet):
        header, length = packet[pos + length_size], int.from_bytes(packet[pos : pos + length_size], "big")
        if not length or header & 31 not in _PASSING or (header & 31 == _SLICE and header >> 5 & 3):
            return False
        has_slice |= header & 31 == _SLICE
        pos += length_size + length
    return has_slice
