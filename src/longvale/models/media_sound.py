"""Sound of a file: decoded, mixed to mono, resampled, and aligned with the clock of the video."""

from __future__ import annotations

from collections import deque

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.stream import Stream

from .media_decoder import Decoder
from .media_source import MediaError

#: Sound has a gap if its time differs by more than this from the sample count; less is rounding of timestamps.
_SOUND_GAP_S = 0.1

#: Options of FFmpeg's resampler. rematrix_maxval=1 averages the channels; without it FFmpeg adds them, at .7 each, so
#: that floats exceed 1. The low-pass filter is twice as long as the default: from 48 to 16 kHz a tone of 7.0 kHz passes
#: unattenuated and one of 8.5 kHz is attenuated by 90 dB (by default .4 dB and 26 dB), in a seventh more time.
_RESAMPLING = {"rematrix_maxval": "1", "filter_size": "64", "cutoff": "0.96"}


#: Accepted sampling rates in Hz. Outside them, a few bytes could request hours of sound or a filter of gigabytes.
_RATES = (1_000, 1_000_000)


class Sound:
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
