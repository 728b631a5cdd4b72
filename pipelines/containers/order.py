"""Pictures in order, with stamps in another: B-frames in files that lack composition offsets.

Decoders give pictures in display order. Where their stamps are in another, it is that of decoding, and the stamps are sorted.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, pairwise
from typing import Any

from pipelines.containers.clock import BROKEN

DEPTH = 17  # pictures among which stamps are sorted: H.264 and HEVC reorder at most 16
HOLD_BYTES = 256 << 20  # of pictures that wait for it
Steps = Iterator[tuple[Any, list[Any]]]  # (packet, frames); None as packet at the end


def ordered(steps: Steps, stream: Any, shuffled: Callable[[], bool], sort: Callable[[], None]) -> Steps:
    """The same pictures, with their stamps sorted from where they are found to be in another order than the pictures.

    If the decoder reorders pictures, but the packets before the first came in order, the file's beginning is looked at
    once more (`shuffled`); later, stamps are sorted from the first that goes back. `sort` is called when sorting begins.
    """
    plain, judged = True, False
    given: int | None = None  # the last packet's stamp
    last: int | None = None  # the last picture's
    window: _Window | None = None
    for packet, frames in steps:
        if window is None:
            if not judged and packet is not None and packet.pts is not None:
                plain &= given is None or packet.pts > given
                given = packet.pts
            if frames and not judged:
                judged = True
                if plain and stream.codec_context.reorder_depth and shuffled():
                    window = _Window(frames[0])
            for frame in frames if window is None else ():
                if frame.pts is not None:
                    if last is not None and frame.pts < last:
                        window = _Window(frame)
                    last = frame.pts
            if window is not None:
                sort()
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


def shuffled(container: Any, index: int) -> bool:
    """Whether the first pictures of stream `index` of an open file come with stamps that go back, though those of its
    packets never do. Closes the file."""
    with container:
        stream = container.streams[index]
        stream.codec_context.thread_count = 1
        try:
            packets = list(islice((p for p in container.demux(stream) if p.size), 2 * DEPTH))
            if _back(packet.pts for packet in packets):
                return False  # there are offsets
            return _back(frame.pts for packet in packets for frame in stream.codec_context.decode(packet))
        except BROKEN:
            return False


def _back(stamps: Iterable[int | None]) -> bool:
    """Whether stamps go back."""
    known = [stamp for stamp in stamps if stamp is not None]
    return any(b < a for a, b in pairwise(known))
