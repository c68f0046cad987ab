"""Frame reader: selects the frames on screen at the requested times and decodes them during the pass over the file.

The frames from one key frame to the next form a group (GOP). A group is buffered, undecoded, until the next one has
been read. Then the presentation times of its frames are known, and it is decoded up to its last selected frame, or not
at all. If the groups are so short, or the selected frames so many, that this would cost more than it saves, all packets
are decoded.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.stream import Stream
from av.video.frame import VideoFrame

from .media_decoder import Converter, Decoder
from .media_source import Clock, MediaError, Source, find_streams

#: Tolerance of time comparisons. Presentation times are multiples of a time base at least a hundred times this long.
_EPSILON_S = 1e-7

#: Limit of buffered packets in bytes. Beyond it, as with few key frames, all packets are decoded.
_MAX_HELD_BYTES = 32 << 20


@dataclass(frozen=True)
class FrameRequest:
    """Selection of frames, by time or by index.

    Args:
        times_s: [F] seconds on the clock of the stream, in any order; selects the frames on screen.
        indices: [F] indices in presentation order, used instead of times.
    """

    times_s: np.ndarray | None = None
    indices: np.ndarray | None = None

    def among(self, timeline: Timeline) -> np.ndarray:
        """Return the presentation times of the selected frames, int64 [F], in ticks."""
        if self.indices is not None:
            return timeline.ticks[np.minimum(self.indices, len(timeline.ticks) - 1)]
        return _on_screen(timeline.ticks, timeline.time_base, self.times_s + _EPSILON_S)


def _on_screen(ticks: np.ndarray, time_base: float, times_s: np.ndarray) -> np.ndarray:
    """Return for each time the last of the ascending `ticks` at or before it, or the first if there is none."""
    return ticks[np.maximum(np.searchsorted(ticks * time_base, times_s, side="right") - 1, 0)]


def decode_costs(keys_s: np.ndarray, wanted_s: np.ndarray, rate: float, threads: int) -> tuple[float, float]:
    """Count the frames to decode: from the key frame before each selected frame, and without skipping any.

    Args:
        keys_s: presentation times of the key frames in seconds, ascending.
        wanted_s: presentation times of the selected frames in seconds.
        rate: frames per second.
        threads: decoder threads. Draining the decoder, as before each jump, costs as much as `threads - 1` frames.

    Example:
        >>> decode_costs(np.array([0.0, 10.0]), np.array([1.0, 11.0]), rate=25, threads=2)
        (54.0, 276.0)
    """
    group = np.maximum(np.searchsorted(keys_s, wanted_s, side="right") - 1, 0)
    groups, place = np.unique(group, return_inverse=True)
    last = np.full(len(groups), -np.inf)
    np.maximum.at(last, place, wanted_s)
    sparse = float(((last - keys_s[groups]) * rate + 1).sum()) + (threads - 1) * len(groups)
    return sparse, float((wanted_s.max() - keys_s[0]) * rate + 1)


def _straight_is_cheaper(stream: Stream, request: FrameRequest, threads: int) -> bool:
    """Return whether to decode all packets, by the key frames in the container's index; False without an index."""
    if threads == 1 or not stream.average_rate:  # draining a decoder of one thread costs nothing
        return False
    time_base, rate = float(stream.time_base), float(stream.average_rate)
    keys_s = np.array([entry.timestamp * time_base for entry in stream.index_entries if entry.is_keyframe])
    if not len(keys_s):
        return False
    wanted_s = keys_s[0] + request.indices / rate if request.times_s is None else request.times_s
    sparse, straight = decode_costs(np.sort(keys_s), wanted_s, rate, threads)
    return straight <= sparse


@dataclass(frozen=True)
class Timeline:
    """Presentation times of the frames of a stream: one entry per packet, in file order; times in ticks."""

    time_base: float  # seconds per tick
    pts: np.ndarray  # int64 [n]
    key: np.ndarray  # bool [n], decoding can begin here
    ticks: np.ndarray  # int64 [m <= n], ascending: `pts` without frames that the edit list hides
    end: int  # end of the last frame
    exact: bool  # every packet has a presentation time
    counted: bool  # no packet has one, as in AVI: decoded frames are presented at `ticks` in order

    @property
    def start_s(self) -> float:
        return float(self.ticks[0]) * self.time_base

    @property
    def end_s(self) -> float:
        return self.end * self.time_base

    @classmethod
    def from_packets(cls, stream: Stream, packets: array, exact: bool, counted: bool) -> Timeline | None:
        """Build from the flat (pts, duration, is key frame, is shown) of all packets; None if no frame is shown."""
        pts, length, key, shown = np.frombuffer(packets, np.int64).reshape(-1, 4).T
        shown = shown.astype(bool)
        if not shown.any():
            return None
        ticks = np.unique(pts[shown])
        last = length[shown][np.argmax(pts[shown])]
        if last <= 0:
            # Some containers omit frame durations: the last frame is assumed to last as long as the others.
            rate = stream.average_rate
            usual = 1 / (rate * stream.time_base) if rate else 0
            last = round(np.median(np.diff(ticks)) if len(ticks) > 1 else usual)
        return cls(float(stream.time_base), pts, key.astype(bool), ticks, int(ticks[-1] + last), exact, counted)

    @property
    def everything(self) -> list[tuple[int, int]]:
        """All packets, in the format of [`runs`]."""
        return [(0, len(self.pts) - 1)]

    def runs(self, wanted: np.ndarray) -> list[tuple[int, int]]:
        """Return the packets to decode for the frames at `wanted` ticks: ascending (first, last) index pairs."""
        if self.counted or not self.exact:
            return self.everything
        keys = np.union1d(np.flatnonzero(self.key), 0)
        packets = np.flatnonzero(np.isin(self.pts, wanted))
        group = np.searchsorted(keys, packets, side="right") - 1
        # A frame presented before the key frame that it follows in the file also needs the previous group.
        group -= (self.pts[packets] < self.pts[keys[group]]) & (group > 0)
        runs: list[tuple[int, int]] = []
        for first, last in sorted(zip(keys[group].tolist(), packets.tolist(), strict=True)):
            if runs and first <= runs[-1][1] + 1:
                runs[-1] = (runs[-1][0], max(runs[-1][1], last))
            else:
                runs.append((first, last))
        return runs


# --- during the pass over the file ----------------------------------------------------------------------------------


class FrameReader:
    """Frame reader that accepts the packets of a video stream in order and keeps the frames to select.

    The selection depends on the duration, which is known only at the end. `guess` is therefore based on the header, and
    [`read`] decodes the frames that it missed in a second pass.

    Args:
        source: the file.
        stream: video stream.
        guess: probable selection.
        size: length of the shorter side in pixels; None keeps the original size.
        threads: decoder threads.
        counted: see [`Timeline`].
    """

    def __init__(
        self, source: Source, stream: Stream, guess: FrameRequest, size: int | None, threads: int, counted: bool
    ) -> None:
        self._source, self._stream, self._threads = source, stream, threads
        self._time_base = float(stream.time_base)
        self._by_index = guess.indices is not None
        self._pending = np.unique(guess.indices if self._by_index else guess.times_s + _EPSILON_S)
        self._packets, self._exact, self._counted = array("q"), True, counted
        self._decoder = Decoder(stream, source.name, threads)
        num_frames = len(guess.indices if self._by_index else guess.times_s)
        self._convert = Converter(source.name, stream, size, num_frames)
        self._images: dict[int, tuple[np.ndarray, int]] = {}  # selected tick -> image, its own tick
        self._group: list[av.Packet] = []  # complete group
        self._next: list[av.Packet] = []  # group that is being read
        self._held_bytes = self._shown = 0
        self._began = False  # a group has been processed
        self._latest: VideoFrame | None = None
        self._straight = _straight_is_cheaper(stream, guess, threads)

    @property
    def start_s(self) -> float | None:
        """Earliest presentation time of the packets so far, in seconds."""
        if not self._packets:
            return None
        pts, _, _, shown = np.frombuffer(self._packets, np.int64).reshape(-1, 4).T
        return float(pts[shown.astype(bool)].min(initial=np.iinfo(np.int64).max)) * self._time_base

    def add(self, packet: av.Packet) -> None:
        """Record the presentation time of a packet and decode the frames that are known to be needed."""
        ticks = packet.dts if packet.pts is None or self._counted else packet.pts
        if ticks is None:
            ticks = sum(self._packets[-4:-2])  # end of the previous frame
        self._packets.extend((ticks, packet.duration or 0, packet.is_keyframe, not packet.is_discard))
        self._exact &= packet.pts is not None
        if self._counted or not self._exact:
            self._group, self._next = [], []  # presentation times are unknown before the end
        elif self._straight:
            self._decode_straight(packet)
        else:
            self._add_to_group(packet)

    def close(self) -> Timeline | None:
        """Finish the pass and return the timeline of the stream; None if no frame is shown."""
        if self._straight:
            self._decode_straight(None)
        elif self._next:
            if self._group:
                self._decode_group(self._group, self._next)
            self._decode_group(self._next, [])
        self._group, self._next = [], []
        return Timeline.from_packets(self._stream, self._packets, self._exact, self._counted)

    def read(self, timeline: Timeline, wanted: np.ndarray, warnings: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the frames at `wanted` [F] ticks: uint8 [F, H, W, 3], and their presentation times, [F] ticks."""
        missing = np.setdiff1d(wanted, list(self._images))
        decoder = self._decoder
        if len(missing):
            found, decoder = self._look_again(timeline, missing, timeline.runs(missing))
            if any(tick != shown for tick, (_, shown) in found.items()) or len(found) < len(missing):
                # Decoding cannot begin at every key frame: with intra refresh, images are complete some frames later.
                self._images.clear()
                found, decoder = self._look_again(timeline, np.unique(wanted), timeline.everything)
            else:
                decoder.packets += self._decoder.packets
                decoder.damaged += self._decoder.damaged
            self._images.update(found)
        warnings += decoder.damage()
        if not self._images:
            raise MediaError(f"{self._source.name}: no picture can be decoded; copy or download the file again")
        return self._stack(wanted)

    def _stack(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        frames = np.empty((len(wanted), *next(iter(self._images.values()))[0].shape), np.uint8)
        shown = np.empty(len(wanted), np.int64)
        for tick in np.unique(wanted).tolist():
            # Removed one at a time, so that the images are not in memory twice.
            frames[wanted == tick], shown[wanted == tick] = self._images.pop(tick)
        return frames, shown

    # Groups

    def _add_to_group(self, packet: av.Packet) -> None:
        if packet.is_keyframe and self._next:
            if self._group:
                self._decode_group(self._group, self._next)
                self._held_bytes -= sum(held.size for held in self._group)
            self._group, self._next = self._next, []
        self._next.append(packet)
        self._held_bytes += packet.size
        if self._held_bytes > _MAX_HELD_BYTES:
            if self._group:
                self._decode_group(self._group, self._next)
            held, self._group, self._next, self._straight = self._next, [], [], True
            for packet in held:
                self._decode_straight(packet)

    def _decode_group(self, group: list[av.Packet], following: list[av.Packet]) -> None:
        """Decode the selected frames presented from the key frame of this group up to that of the next group."""
        key = group[0].pts
        # Frames stored after a key frame but presented before it need the previous group, so they are counted there.
        own = [p for p in group if p.pts >= key or not self._began]
        self._began = True
        leading = [p for p in following[1:] if p.pts < following[0].pts]
        ticks = np.unique([p.pts for p in own + leading if not p.is_discard])
        wanted = set(self._due(ticks, following[0].pts if following else None).tolist())
        if not wanted:
            return
        feed = own + following[:1] + leading if wanted & {p.pts for p in leading} else own
        last = max(index for index, packet in enumerate(feed) if packet.pts in wanted)
        for packet in feed[: last + 1]:
            self._keep_wanted(self._decoder.decode(packet, wanted=packet.pts in wanted), wanted)
        self._keep_wanted(self._decoder.decode(None), wanted)

    def _keep_wanted(self, frames: Iterable[VideoFrame], wanted: set[int]) -> None:
        for frame in frames:
            if frame.pts in wanted and not frame.is_corrupt:
                self._images[frame.pts] = (self._convert(frame), frame.pts)

    def _due(self, ticks: np.ndarray, until: int | None) -> np.ndarray:
        """Return the selected ones of the frames at `ticks`, which are the next frames presented before `until`."""
        if not len(ticks):
            return ticks
        if self._by_index:
            count = np.searchsorted(self._pending, self._shown + len(ticks))
            wanted = ticks[self._pending[:count] - self._shown]
            self._shown += len(ticks)
        else:
            count = len(self._pending) if until is None else np.searchsorted(self._pending, until * self._time_base)
            wanted = _on_screen(ticks, self._time_base, self._pending[:count])
        self._pending = self._pending[count:]
        return wanted

    # Decoding all packets

    def _decode_straight(self, packet: av.Packet | None) -> None:
        if not len(self._pending):
            return
        for frame in self._decoder.decode(packet):
            if frame.pts is None or frame.is_corrupt:
                continue
            count = np.searchsorted(
                self._pending, self._shown if self._by_index else frame.pts * self._time_base, side="left"
            )
            if count:
                self._keep(frame if self._latest is None else self._latest)
                self._pending = self._pending[count:]
            self._latest, self._shown = frame, self._shown + 1
        if packet is None and self._latest is not None and len(self._pending):
            self._keep(self._latest)

    def _keep(self, frame: VideoFrame) -> None:
        self._images[frame.pts] = (self._convert(frame), frame.pts)

    # Second pass

    def _look_again(
        self, timeline: Timeline, wanted: np.ndarray, runs: list[tuple[int, int]]
    ) -> tuple[dict[int, tuple[np.ndarray, int]], Decoder]:
        """Decode only these packets and keep the frames on screen at the ascending ticks `wanted`."""
        pending, found = deque(wanted.tolist()), {}
        latest, latest_shown = None, 0
        with self._source.open() as container:
            streams = find_streams(container)
            decoder = Decoder(streams[0], self._source.name, self._threads)
            for count, frame in enumerate(_play(Clock(container, streams), streams[0], decoder, runs)):
                if timeline.counted:
                    shown = int(timeline.ticks[min(count, len(timeline.ticks) - 1)])
                else:
                    shown = latest_shown if frame.pts is None else frame.pts
                while pending and pending[0] < shown:
                    # If the selected frame is damaged, the previous one stays on the screen.
                    kept, at = (frame, shown) if latest is None else (latest, latest_shown)
                    found[pending.popleft()] = (self._convert(kept), at)
                latest, latest_shown = frame, shown
            while pending and latest is not None:
                found[pending.popleft()] = (self._convert(latest), latest_shown)
        return found, decoder


def _play(clock: Clock, stream: Stream, decoder: Decoder, runs: list[tuple[int, int]]) -> Iterator[VideoFrame]:
    """Decode only these packets of the stream; yield frames in presentation order."""
    runs = deque(runs)
    try:
        own = (packet for packet in clock.packets() if packet.stream_index == stream.index)
        for index, packet in enumerate(own):
            if index >= runs[0][0]:
                yield from decoder.decode(packet)
            if index == runs[0][1]:
                yield from decoder.decode(None)
                runs.popleft()
                if not runs:
                    return
    except av.FFmpegError:
        # The first pass met the same error, reported it and read nothing after it.
        yield from decoder.decode(None)


# --- all frames -----------------------------------------------------------------------------------------------------


def is_counted(container: InputContainer) -> bool:
    """Return whether the format, such as AVI, has no presentation times: frames are presented in sequence."""
    return container.format.name == "avi"


def iterate_frames(source: Source, threads: int) -> Iterator[tuple[Fraction, VideoFrame]]:
    """Yield all frames with the seconds since the first; see [`longvale.models.media.read_frames`]."""
    with source.open() as container:
        streams = find_streams(container)
        stream, counted = streams[0], is_counted(container)
        if stream is None or stream.codec_context is None:
            return
        ticks: list[int] = []  # presentation times of all packets so far

        def noted() -> Iterator[av.Packet]:
            for packet in Clock(container, streams).packets():
                if packet.stream_index == stream.index:
                    shown = packet.dts if packet.pts is None or counted else packet.pts
                    if shown is not None and not packet.is_discard:
                        ticks.append(shown)
                    yield packet

        first = shown = None
        for count, frame in enumerate(_decode_all(noted(), Decoder(stream, source.name, threads))):
            if first is None:
                first = shown = min(ticks, default=0)
            if counted and ticks:
                shown = ticks[min(count, len(ticks) - 1)]
            elif frame.pts is not None:
                shown = frame.pts
            if not frame.is_corrupt:
                yield (shown - first) * stream.time_base, frame


def _decode_all(packets: Iterator[av.Packet], decoder: Decoder) -> Iterator[VideoFrame]:
    try:
        for packet in packets:
            yield from decoder.decode(packet)
    except av.FFmpegError:  # the rest of the file cannot be read
        pass
    yield from decoder.decode(None)
