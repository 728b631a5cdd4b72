"""Time stamps that restart, jump or contradict the order of pictures, and their repair.

A file that was joined from parts may have a clock that starts again at each, or jumps. Within a part picture and sound
keep their distance, so every part is moved as a whole: it begins where the picture of the earlier one ended. A jump
forward counts only if picture and sound both make it, by about the same amount: a gap in one of them is a freeze or a
silence, and stays. Stamps that go back always count, because neither picture nor sound does.

Ordinary files pay a comparison per packet. The first stamp that is out of place makes `scan` read all packets of the
file, undecoded, so that every pass over the file finds the same parts.

Decoders give pictures in display order. Where their stamps are in another (B-frames without composition offsets), the
stamps are sorted: see `ordered`.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av

from pipelines.media.files import Media, is_picture, open_media

FORWARD_S = 1.0  # a gap of more than this between neighbouring packets may be a jump of the clock
BACK_S = 0.1  # decoding stamps that go back by more have restarted
SAME_S = 1.0  # by which the jumps of picture and sound may differ: a part need not end at the same time in both
NEAR_S = 3.0  # between the places where they jump
LOOK = 17  # packets after a jump, among which the earliest display time is: H.264 reorders at most 16 pictures
WRAP_S = Fraction(1 << 33, 90_000)  # MPEG's clocks have 33 bits
DEPTH = 17  # pictures among which stamps are sorted
HOLD_BYTES = 256 << 20  # of pictures that wait for it
BROKEN = (av.FFmpegError, IndexError)  # of demuxing; PyAV raises IndexError for streams that appear after opening

Steps = Iterator[tuple[Any, list[Any]]]  # (packet, frames); None as packet at the end


@dataclass
class _Watch:
    """A stream's clock so far: packets, the expected next stamp, and the limits of a step, in ticks."""

    base: Fraction
    num: int = 0
    expected: int | None = None

    def __post_init__(self) -> None:
        self.forward, self.back = int(FORWARD_S / self.base), int(BACK_S / self.base)

    def step(self, packet: Any) -> int:
        """By how much the packet is out of place, 0 if it is not."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        self.num += 1
        if stamp is None:
            return 0
        expected, self.expected = self.expected, stamp + (packet.duration or 0)
        off = 0 if expected is None else stamp - expected
        return off if off > self.forward or off < -self.back else 0


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

    @property
    def text(self) -> str:
        """A sentence for a person, "" if nothing is moved."""
        if not self.jumps:
            return ""
        named = ", ".join(f"by {jump:+.2f} s at {at:.2f} s" for at, jump in self.jumps[:3])
        more = f" and {len(self.jumps) - 3} times more" if len(self.jumps) > 3 else ""
        return f"its clock jumps {named}{more}; each part was moved to where the one before ends"


class Clock:
    """Mends the time stamps of packets, in one pass over a file. All streams of the file may pass, or some."""

    def __init__(self, path: Media) -> None:
        self.path = path
        self.repair: Repair | None = None  # once something was out of place
        self._watched: dict[int, _Watch] = {}

    def mend(self, packet: Any) -> None:
        """Note a packet, and move its stamps if its part of the file is moved."""
        index = packet.stream_index
        watch = self._watched.get(index)
        if watch is None:
            watch = self._watched[index] = _Watch(packet.time_base)
        if watch.step(packet) and self.repair is None:
            self.repair = scan(self.path)
        if self.repair is not None and (moves := self.repair.moves.get(index)):
            place = bisect_right(moves, watch.num - 1, key=lambda move: move.first) - 1
            if place >= 0:
                ticks = moves[place].ticks
                packet.pts = packet.pts + ticks if packet.pts is not None else None
                packet.dts = packet.dts + ticks if packet.dts is not None else None

    @property
    def moved(self) -> bool:
        """Whether any part of the file is moved."""
        return self.repair is not None and bool(self.repair.jumps)


@dataclass
class _Break:
    """A place where a stream's clock jumps: number of the first packet after it, display time before it ends, and the
    earliest after it, in seconds."""

    first: int
    end: Fraction
    low: Fraction
    looked: int = 0

    @property
    def jump(self) -> Fraction:
        jump = self.low - self.end
        if abs(abs(jump) - WRAP_S) < 1:
            return WRAP_S if jump > 0 else -WRAP_S
        return jump


@dataclass
class _Stream:
    """What `scan` keeps of a stream."""

    watch: _Watch
    video: bool
    start: Fraction | None = None
    end: Fraction | None = None  # latest display time of the current part
    breaks: list[_Break] = field(default_factory=list)
    doubt: tuple[int, int, Any, Any] | None = None  # number, expected stamp, and display span of a packet out of place

    def add(self, packet: Any) -> None:
        """Note a packet. One that is out of place by itself is no jump: the next must follow it."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None:
            self.watch.num += 1
            return
        base, watch = self.watch.base, self.watch
        low, end = stamp * base, (stamp + (packet.duration or 0)) * base
        expected = watch.expected
        off = watch.step(packet)
        if self.doubt is not None:
            number, before, first, last = self.doubt
            self.doubt = None
            back = (packet.dts if packet.dts is not None else packet.pts) - before
            if -watch.back <= back <= watch.forward:
                off = 0  # the clock goes on as if that packet had not been
            else:
                assert self.end is not None
                self.breaks.append(_Break(number, self.end, first, 1))
                self.end = last
        if off:
            assert expected is not None
            self.doubt = watch.num - 1, expected, low, end
            return
        if self.breaks and self.breaks[-1].looked < LOOK:
            self.breaks[-1].looked += 1
            self.breaks[-1].low = min(self.breaks[-1].low, low)
        self.start = low if self.start is None else self.start
        self.end = end if self.end is None else max(self.end, end)


def scan(path: Media) -> Repair:
    """Reads all packets of a file, undecoded, for jumps of its clock."""
    streams: dict[int, _Stream] = {}
    with open_media(path) as container:
        if container.format.name == "avi":  # counts, no stamps
            return Repair({})
        kept = [s for s in (*container.streams.video, *container.streams.audio) if not is_picture(s)]
        demuxer = container.demux(*kept)
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
                streams[index].add(packet)
    return _repair(streams)


def _repair(streams: dict[int, _Stream]) -> Repair:
    """The jumps that count, and the moves that undo them. The picture leads; without one, the first sound."""
    order = sorted(streams, key=lambda i: (not streams[i].video, i))
    found: dict[int, list[tuple[int, Fraction]]] = {index: [] for index in order}  # (first packet, move in seconds)
    jumps: list[tuple[float, float]] = []
    used: set[tuple[int, int]] = set()
    moved = Fraction(0)
    for leader in order[:1]:
        start = streams[leader].start or Fraction(0)
        for gap in streams[leader].breaks:
            pairs = [(i, k) for i in order[1:] if (k := _partner(gap, streams[i].breaks, i, used)) is not None]
            if gap.jump > 0 and not pairs:
                continue
            used.update(pairs)
            found[leader].append((gap.first, -gap.jump))
            for i, k in pairs:
                found[i].append((streams[i].breaks[k].first, -gap.jump))
            jumps.append((float(gap.end + moved - start), float(gap.jump)))
            moved -= gap.jump
    for i in order[1:]:
        for k, gap in enumerate(streams[i].breaks):
            if gap.jump < 0 and (i, k) not in used:
                found[i].append((gap.first, -gap.jump))
                jumps.append((float(gap.end - (streams[i].start or 0)), float(gap.jump)))
    moves = {}
    for i, pieces in found.items():
        total, ticks = Fraction(0), []
        for first, move in sorted(pieces):
            total += move
            ticks.append(Move(first, round(total / streams[i].watch.base)))
        if ticks:
            moves[i] = ticks
    return Repair(moves, tuple(sorted(jumps)))


def _partner(gap: _Break, breaks: list[_Break], index: int, used: set[tuple[int, int]]) -> int | None:
    """The jump of another stream that is the same as `gap`."""
    for k, other in enumerate(breaks):
        if (index, k) not in used and abs(other.jump - gap.jump) <= SAME_S and abs(other.end - gap.end) <= NEAR_S:
            return k
    return None


def ordered(steps: Steps, stream: Any, shuffled: Callable[[], bool]) -> Steps:
    """The same pictures, with their stamps sorted from where they are found to be in another order than the pictures.

    They are looked at from the beginning (`shuffled`: whether the first pictures' stamps go back) if the decoder
    reorders pictures though no stamp of display differs from that of decoding; else from the first that goes back.
    """
    plain, judged = True, False
    last: int | None = None
    window: _Window | None = None
    for packet, frames in steps:
        if window is None:
            if not judged and packet is not None and packet.size:
                plain &= packet.pts is None or packet.pts == packet.dts
            if frames and not judged:
                judged = True
                if plain and stream.codec_context.reorder_depth and shuffled():
                    window = _Window(frames[0])
            for frame in frames if window is None else ():
                if frame.pts is not None:
                    if last is not None and frame.pts < last:
                        window = _Window(frame)
                    last = frame.pts
        yield packet, frames if window is None else window.push(frames, packet is None)


class _Window:
    """Pictures in order and their stamps, sorted among the next DEPTH."""

    def __init__(self, frame: Any) -> None:
        self.depth = max(min(DEPTH, HOLD_BYTES // max(frame.width * frame.height * 2, 1)), 2)
        self.frames: deque[Any] = deque()
        self.stamps: list[int] = []
        self.next = 0  # stamp of a picture that has none

    def push(self, frames: list[Any], last: bool) -> list[Any]:
        """The pictures whose stamps are now known."""
        for frame in frames:
            stamp = frame.pts if frame.pts is not None else frame.dts
            stamp = self.next if stamp is None else stamp
            self.next = max(self.next, stamp + (frame.duration or 1))
            self.frames.append(frame)
            heapq.heappush(self.stamps, stamp)
        given = []
        while self.frames and (last or len(self.frames) > self.depth):
            frame = self.frames.popleft()
            frame.pts = heapq.heappop(self.stamps)
            given.append(frame)
        return given


def shuffled(path: Media, index: int, **options: str) -> bool:
    """Whether the stamps of the first pictures of stream `index` go back."""
    with open_media(path, **options) as container:
        stream = container.streams[index]
        stream.codec_context.thread_count = 1
        last, seen = None, 0
        try:
            for packet in container.demux(stream):
                for frame in stream.codec_context.decode(packet):
                    if frame.pts is None:
                        continue
                    if last is not None and frame.pts < last:
                        return True
                    last, seen = frame.pts, seen + 1
                if seen > DEPTH:
                    return False
        except BROKEN:
            return False
    return False
