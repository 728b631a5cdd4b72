"""Time stamps that restart, jump or contradict the order of pictures, and their repair.

A file that was joined from parts may have a clock that starts again at each, or jumps. Within a part picture and sound
keep their distance, so every part is moved as a whole: it begins where the picture of the earlier one ended. A jump
forward counts only if picture and sound both make it, by about the same amount: a gap in one of them is a freeze or a
silence, and stays. Stamps that go back always count, because neither picture nor sound does.

Ordinary files pay a comparison per packet. The first stamp that is out of place makes `scan` read all packets of the
file, undecoded, so that every pass over the file finds the same parts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av

FORWARD_S = 1.0  # a gap of more than this between neighbouring packets may be a jump of the clock
BACK_S = 0.3  # decoding stamps that go back by more have restarted
SAME_S = 1.0  # by which the jumps of picture and sound may differ: a part need not end at the same time in both
ALONE_S = 2.0  # a jump of one clock alone is believed from here on, if the other stands beside its beginning
NEAR_S = 3.0  # between the places where they jump
LOOK = 17  # packets after a jump, among which the earliest display time is: H.264 reorders at most 16 pictures
WRAP_S = Fraction(1 << 33, 90_000)  # MPEG's clocks have 33 bits
BROKEN = (av.FFmpegError, IndexError)  # of demuxing; PyAV raises IndexError for streams that appear after opening


class _Watch:
    """A stream's clock so far, in ticks of decoding: those of display go back with every B-frame."""

    def __init__(self, base: Fraction) -> None:
        self.base, self.num = base, 0  # num: packets
        self.forward, self.back = int(FORWARD_S / base), int(BACK_S / base)
        self.expected: int | None = None  # stamp of the next packet
        self.stamp: int | None = None  # of the last packet
        self.length = 0  # of the last packet

    def step(self, packet: Any) -> int:
        """By how much the packet is out of place, 0 if it is not, or has no stamp that tells."""
        self.num += 1
        before, stamp = self.stamp, packet.dts
        self.stamp = stamp
        if stamp is None:
            return 0
        length = packet.duration
        if length:
            self.length = length
        elif before is not None and 0 < stamp - before <= self.forward:
            self.length = stamp - before  # FLV declares none
        expected, self.expected = self.expected, stamp + self.length
        if expected is None or -self.back <= stamp - expected <= self.forward:
            return 0
        return int(stamp - expected)


@dataclass(frozen=True)
class Move:
    """All packets of a stream from number `first` on are moved by `ticks` of its clock (the sum of all moves so far)."""

    first: int
    ticks: int


@dataclass(frozen=True)
class Repair:
    """What is moved, by stream, and where: (seconds of the repaired clock, size of the jump in seconds)."""

    moves: dict[int, list[Move]]
    jumps: tuple[tuple[float, float], ...] = ()
    strays: int = 0  # single packets with a stamp far from those around them

    @property
    def text(self) -> str:
        """A sentence for a person, "" if nothing is moved."""
        parts = []
        if self.jumps:
            named = ", ".join(f"by {jump:+.2f} s at {at:.2f} s" for at, jump in self.jumps[:3])
            more = f" and {len(self.jumps) - 3} times more" if len(self.jumps) > 3 else ""
            parts.append(f"its clock jumps {named}{more}, and each part was moved to where the one before ends")
        if self.strays:
            parts.append(f"{self.strays} of its time stamps were far from those around them, and were corrected")
        return "; ".join(parts)


class Clock:
    """Mends the time stamps of packets, in one pass over a file. All streams of the file may pass, or some."""

    def __init__(self, again: Callable[[], Any]) -> None:
        """`again` opens the file once more, for a look at all of its packets."""
        self.again = again
        self.repair: Repair | None = None  # once something was out of place
        self._watched: dict[int, _Watch] = {}

    def mend(self, packet: Any) -> None:
        """Note a packet, and move its stamps if its part of the file is moved."""
        index = packet.stream_index
        watch = self._watched.get(index)
        if watch is None:
            watch = self._watched[index] = _Watch(packet.time_base)
        if watch.step(packet) and self.repair is None:
            self.repair = scan(self.again())
        if self.repair is not None and (place := self.part(index)):
            ticks = self.repair.moves[index][place - 1].ticks
            packet.pts = packet.pts + ticks if packet.pts is not None else None
            packet.dts = packet.dts + ticks if packet.dts is not None else None

    def part(self, index: int) -> int:
        """How many moves of stream `index` have begun by its last packet."""
        if self.repair is None or index not in self.repair.moves:
            return 0
        return bisect_right(self.repair.moves[index], self._watched[index].num - 1, key=lambda move: move.first)

    @property
    def moved(self) -> bool:
        """Whether any part of the file is moved."""
        return self.repair is not None and bool(self.repair.moves)


@dataclass
class _Break:
    """A place where a stream's clock jumps: number of the first packet after it, the decoding stamp expected there and by
    how much it is off, the end of the display before it and the earliest display after it; all in seconds."""

    first: int
    expected: Fraction
    off: Fraction
    end: Fraction
    low: Fraction
    beside: Fraction | None  # up to where the other kind of stream has come at this place of the file
    looked: int = 1

    @property
    def jump(self) -> Fraction:
        jump = self.low - self.end
        if abs(abs(jump) - WRAP_S) < 1:
            return WRAP_S if jump > 0 else -WRAP_S
        return jump

    @property
    def counts(self) -> bool:
        """Whether the display's clock jumps, too, and the same way: reordered pictures far apart seem to jump back."""
        return self.jump > FORWARD_S if self.off > 0 else self.jump < -BACK_S / 2

    def alone(self, others: list[_Stream]) -> bool:
        """Whether this clock jumps forward though the others beside it in the file do not, and go on."""
        if self.beside is None or self.off < ALONE_S or not -NEAR_S <= self.beside - self.expected <= self.off / 4:
            return False
        return any(other.end is not None and other.end > self.beside + BACK_S for other in others)


@dataclass
class _Stream:
    """What `scan` keeps of a stream."""

    watch: _Watch
    video: bool
    start: Fraction | None = None
    end: Fraction | None = None  # latest display time of the current part
    breaks: list[_Break] = field(default_factory=list)
    # A packet out of place: its number, the expected stamp, by how many ticks it is off, its display span, `beside`.
    doubt: tuple[int, int, int, Fraction, Fraction, Fraction | None] | None = None
    strays: list[tuple[int, Fraction]] = field(default_factory=list)  # packet number, and the move that puts it right

    def add(self, packet: Any, beside: Fraction | None) -> None:
        """Note a packet. One that is out of place by itself is no jump: the next must follow it."""
        watch, base = self.watch, self.watch.base
        expected = watch.expected
        off = watch.step(packet)
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None:
            return
        low, end = stamp * base, (stamp + watch.length) * base
        if self.doubt is not None and watch.stamp is not None:
            number, before, away, first, last, where = self.doubt
            self.doubt = None
            if -watch.back <= watch.stamp - before <= watch.forward:
                off = 0  # the clock goes on as if that packet had not been
                if abs(away) > watch.forward:
                    self.strays.append((number, -away * base))
            else:
                assert self.end is not None
                self.breaks.append(_Break(number, before * base, away * base, self.end, first, where))
                self.end = last
        if off:
            assert expected is not None
            self.doubt = watch.num - 1, expected, off, low, end, beside
            return
        if self.breaks and self.breaks[-1].looked < LOOK:
            self.breaks[-1].looked += 1
            self.breaks[-1].low = min(self.breaks[-1].low, low)
        self.start = low if self.start is None else self.start
        self.end = end if self.end is None else max(self.end, end)


def scan(container: Any) -> Repair:
    """Reads all packets of an open file, undecoded, for jumps of its clock; closes it."""
    streams: dict[int, _Stream] = {}
    with container:
        if container.format.name == "avi":  # counts, no stamps
            return Repair({})
        demuxer = container.demux(*container.streams.video, *container.streams.audio)
        while True:
            try:
                packet = next(demuxer, None)
            except BROKEN:
                break
            if packet is None:
                break
            if packet.size:
                index = packet.stream_index
                if index not in streams:
                    streams[index] = _Stream(_Watch(packet.time_base), packet.stream.type == "video")
                stream = streams[index]
                ends = [s.end for s in streams.values() if s.video != stream.video and s.end is not None]
                stream.add(packet, max(ends, default=None))
    return _repair(streams)


def _repair(streams: dict[int, _Stream]) -> Repair:
    """The jumps that count, and the moves that undo them. The picture leads; without one, the first sound."""
    order = sorted(streams, key=lambda i: (not streams[i].video, -streams[i].watch.num if streams[i].video else i))
    found: dict[int, list[tuple[int, Fraction]]] = {index: [] for index in order}  # (first packet, move in seconds)
    jumps: list[tuple[float, float]] = []
    used: set[tuple[int, int]] = set()
    moved = Fraction(0)
    for leader in order[:1]:
        start = streams[leader].start or Fraction(0)
        for gap in filter(lambda gap: gap.counts, streams[leader].breaks):
            pairs = [(i, k) for i in order[1:] if (k := _partner(gap, streams[i].breaks, i, used)) is not None]
            if gap.jump > 0 and not pairs and not gap.alone([streams[i] for i in order[1:]]):
                continue
            used.update(pairs)
            found[leader].append((gap.first, -gap.jump))
            for i, k in pairs:
                found[i].append((streams[i].breaks[k].first, -gap.jump))
            jumps.append((float(gap.end + moved - start), float(gap.jump)))
            moved -= gap.jump
    for i in order[1:]:
        for k, gap in enumerate(streams[i].breaks):
            alone = gap.jump < 0 or gap.alone([streams[order[0]]])
            if gap.counts and alone and (i, k) not in used:
                found[i].append((gap.first, -gap.jump))
                jumps.append((float(gap.end - (streams[i].start or 0)), float(gap.jump)))
    for i, stream in streams.items():
        for first, move in stream.strays:
            found[i] += [(first, move), (first + 1, -move)]
    moves = {}
    for i, pieces in found.items():
        total, ticks = Fraction(0), []
        for first, move in sorted(pieces):
            total += move
            ticks.append(Move(first, round(total / streams[i].watch.base)))
        if ticks:
            moves[i] = ticks
    return Repair(moves, tuple(sorted(jumps)), sum(len(stream.strays) for stream in streams.values()))


def _partner(gap: _Break, breaks: list[_Break], index: int, used: set[tuple[int, int]]) -> int | None:
    """The jump of another stream that is the same as `gap`."""
    for k, other in enumerate(breaks):
        if (index, k) not in used and abs(other.jump - gap.jump) <= SAME_S and abs(other.end - gap.end) <= NEAR_S:
            return k
    return None
