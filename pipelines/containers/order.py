"""Pictures in order, with stamps in another: B-frames in files that lack composition offsets.

Decoders give pictures in display order. Where their stamps are in another, it is that of decoding, and the stamps are sorted.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.containers.clock import BROKEN

DEPTH = 17  # pictures among which stamps are sorted: H.264 and HEVC reorder at most 16
HOLD_BYTES = 256 << 20  # of pictures that wait for it
Steps = Iterator[tuple[Any, list[Any]]]  # (packet, frames); None as packet at the end


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


def shuffled(container: Any, index: int) -> bool:
    """Whether the stamps of the first pictures of stream `index` of an open file go back; closes it."""
    with container:
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
