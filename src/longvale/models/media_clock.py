"""The clock of a file: continuous across joined recordings, and bounded by the contents of the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import av
from av.container import InputContainer
from av.stream import Stream

from .media_source import MediaError

#: A stream whose clock jumps back by more than this many seconds starts a new recording.
_BACK_S = 1.0

#: In broadcast formats, so does a stream whose clock jumps ahead of all packets so far by more than this many seconds
#: (as FFmpeg's `dts_delta_threshold`). In other formats such a jump is a pause.
_AHEAD_S = 10.0
_BROADCAST = frozenset({"mpegts", "mpeg"})

#: Formats whose times come from an index; their edit lists may show a part repeatedly.
_INDEXED = frozenset({"mov", "avi"})

#: Limits of the buffer that is used until all streams have reached the next recording: packets, bytes.
_MAX_HELD, _MAX_HELD_BYTES = 2000, 32 << 20

#: A packet covers at most this many seconds; the rest of the time is empty. Limit of the total empty time, which is
#: filled with silence.
_HOLDS_S, _MAX_EMPTY_S = 10.0, 3600.0


def is_broadcast(container: InputContainer) -> bool:
    """Return whether the format is a broadcast format, whose header does not contain the duration."""
    return not _BROADCAST.isdisjoint(container.format.name.split(","))


# --- recordings that were joined ------------------------------------------------------------------------------------


@dataclass
class _Place:
    """Position of a stream, in seconds on the clock of its current recording."""

    tick_s: float
    recording: int
    first_s: float | None = None  # earliest presentation time
    last_s: float | None = None  # decoding time of its last packet
    end_s: float = float("-inf")
    settled: bool = False  # no later packet is presented before `first_s`


class Clock:
    """Packet reader whose times never go back from one recording to the next.

    Recordings that were joined end to end (`cat a.ts b.ts`), and broadcasts whose clock was reset, are read one after
    the other. If the clock of a stream jumps, its packets are buffered until the other streams have jumped too, so that
    sound and frames of a recording stay synchronised.

    Args:
        container: file, at its beginning.
        streams: streams to track; packets of others get times on the clock of the latest recording.
    """

    def __init__(self, container: InputContainer, streams: Iterable[Stream | None]) -> None:
        self._container = container
        self._wanted = {stream.index for stream in streams if stream is not None}
        self._jumps_back = _INDEXED.isdisjoint(container.format.name.split(","))
        self._jumps_ahead = is_broadcast(container)
        self._places: dict[int, _Place] = {}
        self._offsets_s = [0.0]  # added to the clock of each recording
        self._held: list[av.Packet] = []  # buffered packets of the next recording
        self._held_bytes = 0
        self._joint_s = 0.0  # end of the streams that have reached the next recording

    @property
    def recordings(self) -> int:
        """Number of recordings found so far."""
        return len(self._offsets_s)

    def packets(self) -> Iterator[av.Packet]:
        """Yield the packets of all streams; those of one stream in file order."""
        if not self._jumps_back:
            yield from _demux(self._container)
            return
        for packet in _demux(self._container):
            if packet.stream_index not in self._wanted:
                yield self._shifted(packet, float(packet.time_base), self._offsets_s[-1])
                continue
            place = self._places.get(packet.stream_index)
            if place is None:
                newest = self.recordings - (not self._held)
                place = self._places[packet.stream_index] = _Place(float(packet.time_base), newest)
            elif self._leaves(packet, place):
                if self._held and place.recording == self.recordings:  # the previous new recording was short
                    yield from self._release()
                self._move(packet, place)
            _note(packet, place)
            if place.recording < self.recordings:
                yield self._shifted(packet, place.tick_s, self._offsets_s[place.recording])
            else:
                self._held.append(packet)
                self._held_bytes += packet.size
                if self._has_begun():
                    yield from self._release()
        yield from self._release()

    def _leaves(self, packet: av.Packet, place: _Place) -> bool:
        """Return whether a packet no longer belongs to the current recording of its stream."""
        if packet.dts is None or place.last_s is None:
            return False
        time_s = packet.dts * place.tick_s
        if time_s >= place.last_s:
            return self._jumps_ahead and time_s > self._front(place.recording) + _AHEAD_S
        return time_s < place.last_s - _BACK_S or self._fits_newest(time_s, place)

    def _fits_newest(self, time_s: float, place: _Place) -> bool:
        """Return whether other streams are in a newer recording whose times are close to this one."""
        newest = self.recordings - (not self._held)
        return place.recording != newest and abs(time_s - self._front(newest)) < _AHEAD_S

    def _front(self, recording: int) -> float:
        return max((p.end_s for p in self._places.values() if p.recording == recording), default=float("-inf"))

    def _move(self, packet: av.Packet, place: _Place) -> None:
        """Move a stream to the recording of the others, or to a new one that begins with this packet."""
        if not self._held and self._fits_newest(packet.dts * place.tick_s, place):
            place.recording = self.recordings - 1
        else:
            ended_s = place.end_s + self._offsets_s[place.recording]
            self._joint_s = max(self._joint_s, ended_s) if self._held else ended_s
            place.recording = self.recordings
        place.first_s, place.last_s, place.end_s, place.settled = None, None, float("-inf"), False

    def _has_begun(self) -> bool:
        """Return whether the first presentation time of the next recording is known, or the buffer is full."""
        return (
            all(place.recording == self.recordings and place.settled for place in self._places.values())
            or len(self._held) >= _MAX_HELD
            or self._held_bytes >= _MAX_HELD_BYTES
        )

    def _release(self) -> Iterator[av.Packet]:
        if not self._held:
            return
        first_s = min(p.first_s for p in self._places.values() if p.recording == self.recordings)
        self._offsets_s.append(self._joint_s - first_s)
        held, self._held, self._held_bytes = self._held, [], 0
        for packet in held:
            yield self._shifted(packet, self._places[packet.stream_index].tick_s, self._offsets_s[-1])

    @staticmethod
    def _shifted(packet: av.Packet, tick_s: float, offset_s: float) -> av.Packet:
        if offset_s:
            ticks = round(offset_s / tick_s)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        return packet


def _note(packet: av.Packet, place: _Place) -> None:
    shown, decoded = packet.pts, packet.dts
    if shown is None:
        shown = decoded
    if shown is None:
        return
    shown_s = shown * place.tick_s
    place.first_s = shown_s if place.first_s is None else min(place.first_s, shown_s)
    place.end_s = max(place.end_s, shown_s + (packet.duration or 0) * place.tick_s)
    if decoded is None:
        place.settled = True
    else:
        place.last_s = decoded * place.tick_s
        place.settled = place.last_s >= place.first_s


def _demux(container: InputContainer) -> Iterator[av.Packet]:
    try:
        for packet in container.demux():
            if packet.size or packet.dts is not None:  # otherwise it is PyAV's marker for the end of a stream
                yield packet
    except IndexError:
        # If a stream appears during reading, as in MPEG-TS, PyAV 18 fails at the end-of-stream markers.
        return


# --- contents of the file -------------------------------------------------------------------------------------------


class Reach:
    """Record of how far each stream can be read, and of how much time of a file is empty.

    Args:
        container: container of the file.
        name: name of the file, for errors.
        picture: video stream, if any.
        sound: audio stream, if any. Without one, empty time costs no memory and is accepted.
    """

    def __init__(self, container: InputContainer, name: str, picture: Stream | None, sound: Stream | None) -> None:
        self._time_bases = {stream.index: float(stream.time_base) for stream in container.streams if stream.time_base}
        self._wanted = {stream.index for stream in (picture, sound) if stream is not None and sound is not None}
        self._name = name
        self._front_s: float | None = None  # latest start of all packets so far
        self._empty_s = 0.0
        self.ends_s: dict[int, float] = {}

    @property
    def end_s(self) -> float:
        return max(self.ends_s.values(), default=0.0)

    def add(self, packet: av.Packet) -> None:
        """Record a packet.

        Raises:
            MediaError: as [`reach`].
        """
        ticks = packet.dts if packet.pts is None else packet.pts
        if ticks is not None and not packet.is_discard:
            index = packet.stream_index
            tick_s = self._time_bases.get(index, 0.0)
            end_s = (ticks + (packet.duration or 0)) * tick_s
            self.ends_s[index] = max(self.ends_s.get(index, 0.0), end_s)
            if index in self._wanted:
                self.reach(ticks * tick_s)

    def reach(self, time_s: float) -> None:
        """Record that the file extends to this time of its clock.

        Raises:
            MediaError: if it contains neither video nor sound for more than an hour in total.
        """
        front_s = time_s if self._front_s is None else self._front_s
        if time_s > front_s + _HOLDS_S and self._wanted:
            self._empty_s += time_s - front_s - _HOLDS_S
            if self._empty_s > _MAX_EMPTY_S:
                raise MediaError(
                    f"{self._name}: its clock jumps from {front_s:.1f} s to {time_s:.1f} s, and it holds nothing in "
                    "between; cut out the part that you need"
                )
        self._front_s = max(front_s, time_s)
