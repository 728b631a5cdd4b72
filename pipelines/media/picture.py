"""Pictures on the project's common clock: 25 per second, each the one displayed at the middle of its frame.

t0 is the time stamp of the first displayed picture (edit lists applied). Frame k is the source picture displayed at the
middle of [t0 + k/25, t0 + (k+1)/25), and sample 640 k is at t0 + k/25. So an offset between the streams moves samples,
never frames. Only time stamps count; declared frame rates are ignored. Between distant pictures the earlier one is
repeated; without sound, samples are zero and `Sound.present` is False.

Each picture has its own size and orientation (`convert`).

AVI has no time stamps: see `_Slots`.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, TypeVar

import av
import numpy as np

from pipelines.containers.priming import usual_s
from pipelines.media.convert import Converter
from pipelines.media.facts import Fact
from pipelines.media.fields import Fields
from pipelines.media.files import (
    Media,
    MediaError,
    choose_stream,
    decodable,
    open_media,
    round_half_up,
    shown,
)
from pipelines.media.local import local_copy
from pipelines.media.tally import Tally
from store.layout import FPS

Item = TypeVar("Item")

MIN_S = Fraction(4, 10)  # shorter clips cannot contain a word


class Video:
    """Pictures of a clip: each iteration decodes again and yields contiguous rgb24, u1 [height, width, 3], one per
    frame.

    One picture is in memory at a time; a repeated picture is the same array, so do not write into it. The size may
    change from picture to picture. Iterating raises MediaError, for some reasons only at the end: unreadable, no_video,
    truncated (less than 90 % of the declared length, or more than 10 % of the packets damaged), too_short (under 0.4 s),
    limit, io. A file in a bucket is downloaded for each iteration; for several iterations, pass its `local_copy`.
    """

    def __init__(self, path: Media) -> None:
        self.path = path
        self._start: Fraction | None = None
        self._num_frames: int | None = None
        self.facts: list[Fact] = []  # once iterated
        self.tally: Tally | None = None  # of the last iteration; its stream may be asked only while that goes on

    @property
    def start_s(self) -> float:
        """t0 in seconds on the file's own clock; known once an iteration has begun."""
        assert self._start is not None, "iterate over the pictures first"
        return float(self._start)

    @property
    def num_frames(self) -> int:
        """Length in frames: the rounded number of 1/25 s from t0 to the end of the last picture, once iterated."""
        assert self._num_frames is not None, "iterate over all pictures first"
        return self._num_frames

    def __iter__(self) -> Iterator[np.ndarray]:
        with local_copy(self.path) as path, open_media(path) as container:
            stream = choose_stream(container, "video", path)
            tally = self.tally = Tally(path, container, stream)
            convert, fields = Converter(stream), Fields()
            spans = fields.progressive(convert.noted(pictures(container, stream, tally)))
            held, picture = None, np.empty(0, np.uint8)
            for frame in select_frames(spans, tally.check_limit):
                if frame is not held:
                    with convertible(self.path):
                        held, picture = frame, convert(frame)
                    self._start = tally.start
                yield picture
            tally.check_complete()
            self.facts = [*convert.facts(), *fields.facts(), *tally.facts]
            length = tally.end - tally.start
            if length < MIN_S:
                text = f"{shown(self.path)} lasts {float(length):.2f} s, at least {float(MIN_S):.1f} s are needed"
                raise MediaError("too_short", f"{text}; leave it out")
            self._num_frames = round_half_up(length * FPS)


@contextmanager
def convertible(path: Media) -> Iterator[None]:
    """Turns ffmpeg's rejection of a pixel format or channel layout into a MediaError (unreadable)."""
    try:
        yield
    except (av.FFmpegError, ValueError) as error:
        text = f"{shown(path)} has pictures or sound in a format that cannot be converted ({error})"
        raise MediaError("unreadable", f"{text}; convert it to H.264 and AAC") from error


def select_frames(
    intervals: Iterable[tuple[Fraction, Fraction, Item]], check: Callable[[Fraction], None] = lambda length: None
) -> Iterator[Item]:
    """The item displayed at the middle of each 1/25 s.

    `intervals`: (start, end, item) in seconds, each starting where the previous one ends. The number of items is the
    total number of frames, rounded half up. `check` is called with the length so far before an item is repeated; it may
    raise.
    """
    k = 0
    origin = None
    for start, end, item in intervals:
        origin = start if origin is None else origin
        length = end - origin
        check(length)
        while (2 * k + 1) * length.denominator < 2 * FPS * length.numerator:
            yield item
            k += 1
    if origin is not None and k < round_half_up(length * FPS):
        yield item  # the last interval ends exactly at the middle of a frame


def pictures(container: Any, stream: Any, tally: Tally) -> Iterator[tuple[Fraction, Fraction, Any]]:
    """(start, end, frame) in seconds, each displayed until the next.

    Of several frames with the same time stamp the last counts; frames that go back in time are left out and counted.
    """
    slots = _Slots(container, stream) if container.format.name == "avi" else None
    held: Any = None
    start = Fraction(0)
    gaps: deque[Fraction] = deque(maxlen=100)
    for packet, frames in tally.packets(beside=True):
        if slots is not None:
            slots.push(packet)
        for frame in frames:
            stamp = slots.pop() if slots is not None else frame.pts if frame.pts is not None else frame.dts
            if stamp is not None:
                time = stamp * stream.time_base
            else:
                time = start if held is None else start + _shown_s(held, stream, gaps)
            passed = time - start
            if held is None:
                tally.start = time
            elif passed.numerator < 0:
                tally.left_out += 1
                continue
            elif passed.numerator:
                tally.check_still(passed)
                gaps.append(passed)
                yield start, time, held
            held, start = frame, time
    if held is not None:
        tally.end = start + _shown_s(held, stream, gaps)
        tally.check_still(tally.end - start)
        yield start, tally.end, held


def _shown_s(frame: Any, stream: Any, gaps: Iterable[Fraction]) -> Fraction:
    """Display time of a frame without a successor: its own duration, else the median of the gaps before it."""
    ordered = sorted(gaps)
    if frame.duration and frame.duration > 0:
        return frame.duration * stream.time_base
    return ordered[len(ordered) // 2] if ordered else Fraction(1, FPS)


class _Slots:
    """Time stamps for AVI, which stores none: picture n in display order gets slot n of the non-empty chunks.

    So a decoder's reordering delay (B-frames) is not part of the clock, as in the programs that AVI was made for. Empty
    chunks repeat the previous picture. ffmpeg's AVI writer delays all pictures except the first by the delay of the
    sound codec, in whole sound frames, rounded up to slots, while the sound starts at 0 (measured on its files for many
    rates of both). Here they are moved back, and `decode_sound` subtracts the codec's delay.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self.waiting: deque[int] = deque()
        self.first: int | None = None
        self.shift: int | None = None  # known from the second packet on; the first is not shifted
        self.moved = 0
        sounds = [s for s in container.streams.audio if decodable(s)]
        if sounds and container.metadata.get("software", "").startswith("Lavf"):
            base = sounds[0].time_base
            self.moved = math.ceil(round_half_up(usual_s(sounds[0]) / base) * base / stream.time_base)

    def push(self, packet: Any) -> None:
        """Note a packet's slot."""
        if packet is None or not packet.size or packet.dts is None:
            return
        if self.first is None:
            self.first = packet.dts
            self.waiting.append(packet.dts)
            return
        if self.shift is None:
            self.shift = self.moved if packet.dts - self.first > self.moved else 0
        self.waiting.append(packet.dts - self.shift)

    def pop(self) -> int | None:
        """Slot of the next picture; None if the decoder returns more pictures than packets."""
        return self.waiting.popleft() if self.waiting else None
