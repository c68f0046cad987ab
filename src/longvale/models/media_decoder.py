"""Decoding of a stream: packets to frames, frames to upright RGB arrays, sound to one mono waveform."""

from __future__ import annotations

from collections import deque
from fractions import Fraction

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from .media_source import MediaError

#: A stream is refused if more than this share of its packets is damaged.
_DAMAGED_SHARE = 0.1

#: Pixels per frame, as in 8192 x 8192. The decoder keeps several frames in memory.
_MAX_PIXELS = 1 << 26

#: Codecs that mark unreferenced frames, which can be skipped without any effect on the others: nal_ref_idc in H.264
#: (ITU-T H.264, 7.4.1). In HEVC, sub-layer non-reference pictures may still be referenced.
_MARKS_UNREFERENCED = frozenset({"h264"})

#: Largest aspect ratio of frames that are scaled by their shorter side.
_MAX_ASPECT = 100

#: Memory limit of all frames: 100 frames of 3840 x 2160.
_MAX_FRAMES_BYTES = 2_500_000_000

#: Sound has a gap if its time differs by more than this from the sample count; less is rounding of timestamps.
_SOUND_GAP_S = 0.1

#: Options of FFmpeg's resampler. rematrix_maxval=1 averages the channels; without it FFmpeg adds them, at .7 each, so
#: that floats exceed 1. The low-pass filter is twice as long as the default: from 48 to 16 kHz a tone of 7.0 kHz passes
#: unattenuated and one of 8.5 kHz is attenuated by 90 dB (by default .4 dB and 26 dB), in a seventh more time.
_RESAMPLING = {"rematrix_maxval": "1", "filter_size": "64", "cutoff": "0.96"}

#: Accepted sampling rates in Hz. Outside them, a few bytes could request hours of sound or a filter of gigabytes.
_RATES = (1_000, 1_000_000)


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


# --- frames ----------------------------------------------------------------------------------------------------------


class Converter:
    """Converter of decoded frames to upright RGB arrays with square pixels, all with the shape of the first.

    Args:
        name: name of the file, for errors.
        stream: video stream.
        size: length of the shorter side in pixels; None keeps the original size.
        num_frames: number of frames that will be in memory at once.
    """

    def __init__(self, name: str, stream: Stream, size: int | None, num_frames: int) -> None:
        self._name, self._size, self._num_frames = name, size, num_frames
        self._pixel = stream.sample_aspect_ratio  # read now: the stream closes with its container
        self._reformatter = VideoReformatter()  # reuses the tables of the scaler
        self._shape: tuple[int, int] | None = None  # width, height before rotation
        self._matrix: np.ndarray | None = None

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """Convert a frame to uint8 [H, W, 3].

        Raises:
            MediaError: if the frames would not fit in memory.
        """
        if self._shape is None:
            self._shape = self._scaled(_squared(frame.width, self._pixel), frame.height)
            self._matrix = _display_matrix(frame)
        width, height = self._shape
        image = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=Interpolation.BICUBIC)
        return upright(image.to_ndarray(), self._matrix)

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """Scale the shorter side to `size`; the longer side is rounded down as in CLIP's image processor."""
        size = self._size
        if size is not None:
            if max(width, height) > _MAX_ASPECT * min(width, height):
                raise MediaError(
                    f"{self._name}: its pictures are shown as {width} x {height} pixels, more than {_MAX_ASPECT} times "
                    "as long as wide; crop it"
                )
            scaled = (size, size * height // width) if width <= height else (size * width // height, size)
            width, height = scaled
        total = 3 * width * height * self._num_frames
        if total > _MAX_FRAMES_BYTES:
            raise MediaError(
                f"{self._name}: {self._num_frames} frames of {width} x {height} pixels would take "
                f"{total / 1e9:.1f} GB, more than {_MAX_FRAMES_BYTES / 1e9} GB; ask for fewer or smaller ones, or "
                "crop the video"
            )
        return width, height


def square_size(stream: Stream) -> tuple[int, int]:
    """Return width and height of the frames in square pixels, from the header, before rotation."""
    return _squared(stream.width, stream.sample_aspect_ratio), stream.height


def _squared(width: int, pixel: Fraction | None) -> int:
    """Convert a width to square pixels by the pixel aspect ratio (width / height), if known; the height stays.

    Example:
        >>> _squared(1440, Fraction(4, 3)), _squared(1280, None)
        (1920, 1280)
    """
    return max(1, round(width * pixel)) if pixel else width


def _display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """Return [[a, b], [c, d]] of the display matrix, which maps a point (x, y) to (ax + cy, bx + dy)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]


def upright(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Rotate an image [H, W, 3] by quarter turns and mirror it, according to its display matrix.

    Example:
        >>> upright(np.array([[[1], [2]]]), np.array([[0, -65536], [65536, 0]]))[..., 0]
        array([[2],
               [1]])
    """
    if matrix is None:
        return image
    (a, b), (c, d) = matrix.tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, rows, columns = image.swapaxes(0, 1), b, c
    else:
        rows, columns = d, a
    return image[:: -1 if rows < 0 else 1, :: -1 if columns < 0 else 1]


# --- sound -----------------------------------------------------------------------------------------------------------


class AudioReader:
    """Reader that collects the sound of a stream as mono chunks at one sampling rate, each with its start time.

    Args:
        stream: audio stream.
        name: name of the file, for errors.
        sampling_rate: sampling rate of the waveform in Hz.

    Raises:
        MediaError: during decoding, if the sampling rate of the stream is below 1 kHz or above 1 MHz.
    """

    def __init__(self, stream: Stream, name: str, sampling_rate: int) -> None:
        self._name = name
        self._time_base = float(stream.time_base)
        self._decoder = Decoder(stream, name, threads=1)
        self._rate = sampling_rate
        self._chunks: deque[tuple[float, int, np.ndarray]] = deque()  # start of the segment, sample offset, chunk
        self._segment_s, self._in_segment = 0.0, 0
        self._resampler: AudioResampler | None = None
        self._format: tuple[str, str, int] | None = None
        self._next_s = 0.0  # expected start of the next frame
        self._packet_end_s: float | None = None
        self.start_s: float | None = None  # None until a sample has been decoded
        self.held_s = 0.0  # total length of the decoded sound, without gaps

    @property
    def end_s(self) -> float:
        """End of the last packet; the last decoded frame also contains the padding of the encoder."""
        return self._next_s if self._packet_end_s is None else self._packet_end_s

    @property
    def ready_s(self) -> float:
        """Time up to which samples are available."""
        return self._segment_s + self._in_segment / self._rate

    def add(self, packet: av.Packet) -> None:
        """Decode a packet."""
        if packet.pts is not None and packet.duration:
            self._packet_end_s = (packet.pts + packet.duration) * self._time_base
        for frame in self._decoder.decode(packet):
            self._add_frame(frame)

    def close(self) -> list[str]:
        """Drain the decoder and return warnings. Raises MediaError if the sound is too damaged."""
        for frame in self._decoder.decode(None):
            self._add_frame(frame)
        self._flush()
        return self._decoder.damage()

    def take(self, zero_s: float, first: int, count: int) -> np.ndarray:
        """Return float32 [count] from sample `first` after `zero_s` on the stream's clock, with silence in gaps.

        Chunks before its end are discarded.
        """
        waveform = np.zeros(count, np.float32)
        kept: deque[tuple[float, int, np.ndarray]] = deque()
        while self._chunks:
            start_s, offset, chunk = self._chunks.popleft()
            begin = round((start_s - zero_s) * self._rate) + offset - first
            part = waveform[max(begin, 0) : max(begin + len(chunk), 0)]
            part[:] = chunk[max(-begin, 0) :][: len(part)]
            if begin + len(chunk) > count:
                kept.append((start_s, offset, chunk))
        self._chunks = kept
        return waveform

    def _add_frame(self, frame: AudioFrame) -> None:
        start_s = self._next_s if frame.pts is None else frame.pts * self._time_base
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._format or abs(start_s - self._next_s) > _SOUND_GAP_S:
            self._flush()
            if not _RATES[0] <= frame.sample_rate <= _RATES[1]:
                raise MediaError(f"{self._name}: its sound claims {frame.sample_rate} samples a second; convert it")
            # frame_size gives chunks of one second, whatever the frame size of the codec.
            self._resampler = AudioResampler(
                "flt", "mono", self._rate, frame_size=self._rate, options=dict(_RESAMPLING)
            )
            self._format, self._next_s = form, start_s
            self._segment_s, self._in_segment = start_s, 0
            if self.start_s is None:
                self.start_s = start_s
        length_s = frame.samples / frame.sample_rate
        self._next_s += length_s
        self.held_s += length_s
        frame.pts = None  # a segment has no gaps: sample times follow from their count
        self._keep(frame)

    def _keep(self, frame: AudioFrame | None) -> None:
        for resampled in self._resampler.resample(frame):
            chunk = resampled.to_ndarray()[0]
            self._chunks.append((self._segment_s, self._in_segment, chunk))
            self._in_segment += len(chunk)

    def _flush(self) -> None:
        if self._resampler is not None:
            self._keep(None)
            self._resampler = None
