"""Edit lists of mp4 and mov: which parts of a track are shown, and when.

ffmpeg applies lists of one part exactly. At the joints of several parts it loses pictures and sound by up to the depth of
B-frames, so such tracks are read here without its help (`ignore_editlist`), a part at a time, and cut to the sample.
The same goes for files with B-frames but no composition offsets: their list hides the first pictures, because it counts
from the offset that is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av

from pipelines.containers.boxes import Part, Track
from pipelines.containers.order import Steps

UNEDITED = {"ignore_editlist": "1"}  # ffmpeg's option that gives a track on its own clock
MAX_SEEKS = 1_000  # per file: each costs PREROLL_S of decoding, and the pictures from the key picture on
PREROLL_S = Fraction(1)  # decoded before a part: seeking goes by decoding stamps, and sound needs a settled decoder


@dataclass(frozen=True)
class Cut:
    """The parts of a track that are cut here instead of by ffmpeg, and whether its stamps lack composition offsets."""

    parts: tuple[Part, ...]
    plain: bool = False


def cut_of(track: Track | None, stream: Any, shuffled: Callable[[], bool]) -> Cut | None:
    """How a track is to be cut; None where ffmpeg does it. `shuffled` looks whether pictures come out of the decoder in
    another order than their stamps."""
    if track is None or not track.parts or track.fragmented:
        return None
    depth = stream.codec_context.reorder_depth if stream.type == "video" else 0
    plain = bool(depth and track.offset is None and track.parts[0].media and shuffled())
    if plain:
        # Without offsets, decoding stamps stand for display's, which are later by the decoder's delay.
        each = track.length / max(track.samples, 1)
        parts = [replace(p, media=max(p.media - depth * each, Fraction(0))) for p in track.parts]
        last = track.parts[-1]
        if last.media + last.length > track.length - each / 2:  # up to the end, so the last pictures are shown, too
            parts[-1] = replace(parts[-1], length=track.length - parts[-1].media)
        return Cut(tuple(parts), True)
    return Cut(_joined(track.parts)) if len(track.parts) > 1 else None


def cut(steps: Callable[[], Steps], container: Any, stream: Any, parts: tuple[Part, ...]) -> Steps:
    """(packet, frames) on the file's clock, of each part in turn. `steps()` decodes on the track's own clock, from where
    the container stands.

    Frames are cut at the borders: pictures in time, sound in samples.
    """
    base = stream.time_base
    choose = _pictures if stream.type == "video" else _sounds
    depth = stream.codec_context.reorder_depth if stream.type == "video" else 0
    source: _Source | None = None
    for part in parts:
        if source is None or not source.leads_to(part):
            container.seek(int(max(part.media - PREROLL_S, Fraction(0)) / base), stream=stream)
            if depth:
                stream.codec_context.reorder_depth = depth  # seeking resets it, and pictures would be dropped
            source = _Source(steps(), base)
        yield from choose(source, part, base)
    yield None, []


def seeks(track: Track, parts: tuple[Part, ...]) -> int:
    """In how many of the parts `cut` jumps to another place of the file."""
    each, count, at = track.length / max(track.samples, 1), 0, None
    for part in parts:
        count += at is None or not at + each <= part.media <= at + PREROLL_S
        at = part.media + part.length
    return count


def _joined(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The same, without borders where a part goes on with what follows the one before."""
    joined = list(parts[:1])
    for part in parts[1:]:
        last = joined[-1]
        if (last.start + last.length, last.media + last.length) == (part.start, part.media):
            joined[-1] = replace(last, length=last.length + part.length)
        else:
            joined.append(part)
    return tuple(joined)


class _Source:
    """Decoded frames on the track's own clock. What was decoded beyond a part is kept for the next one, if it begins
    there."""

    def __init__(self, steps: Steps, base: Fraction) -> None:
        self._steps, self._base = steps, base
        self._kept: list[Any] = []
        self._ended = False

    def __iter__(self) -> Steps:
        kept, self._kept = self._kept, []
        if kept:
            yield None, kept
        for packet, frames in self._steps:  # noqa: UP028  "yield from" would end the steps with the part
            yield packet, frames
        self._ended = True

    def keep(self, frames: list[Any]) -> None:
        self._kept = frames

    def leads_to(self, part: Part) -> bool:
        """Whether a part begins with what is kept, or so soon after that decoding costs no more than a jump."""
        at = self._kept[0].pts if self._kept else None
        return not self._ended and at is not None and at * self._base <= part.media <= at * self._base + PREROLL_S


def _pictures(steps: _Source, part: Part, base: Fraction) -> Steps:
    """Pictures of a part; the one on display at its beginning starts there."""
    begin, end = part.media / base, (part.media + part.length) / base
    start = _nearest(part.start / base)
    before: Any = None  # the last picture that starts no later than the part
    for packet, frames in steps:
        given: list[Any] = []
        for k, frame in enumerate(frames):
            if frame.pts is None:
                continue
            if frame.pts <= begin:
                before = frame
                continue
            if before is not None:
                given.append(_moved(before, start, _nearest(begin), end))
                before = None
            if frame.pts >= end:
                steps.keep([f for f in frames[k:] if f.pts is not None])
                yield packet, given
                return
            given.append(_moved(frame, start + frame.pts - _nearest(begin), frame.pts, end))
        if packet is not None or given:
            yield packet, given
    if before is not None and (not before.duration or before.pts + before.duration > begin):
        yield None, [_moved(before, start, _nearest(begin), end)]


def _moved(frame: Any, stamp: int, media: int, end: Fraction) -> Any:
    """A picture from `media` on its track's clock, shown from `stamp` on the file's, at most until `end`."""
    if frame.duration:
        frame.duration = max(min(frame.pts + frame.duration, _nearest(end)) - media, 1)
    frame.pts = stamp
    return frame


def _sounds(steps: _Source, part: Part, base: Fraction) -> Steps:
    """Sound of a part, cut to the sample."""
    split: list[Any] = []  # the last frame, if only its beginning was given
    for packet, frames in steps:
        given: list[Any] = []
        for k, frame in enumerate(frames):
            if frame.pts is None or not frame.samples:
                continue
            rate, time = frame.sample_rate, frame.pts * base
            if time >= part.media + part.length:
                steps.keep(split + [f for f in frames[k:] if f.pts is not None and f.samples])
                yield packet, given
                return
            skip = max(_nearest((part.media - time) * rate), 0)
            stop = min(_nearest((part.media + part.length - time) * rate), frame.samples)
            if skip < stop:
                piece = samples(frame, skip, stop)
                piece.pts = _nearest((part.start + time + Fraction(skip, rate) - part.media) / base)
                given.append(piece)
            split = [frame] if stop < frame.samples else []
        if packet is not None or given:
            yield packet, given


def samples(frame: Any, begin: int, end: int) -> Any:
    """Samples begin to end of a frame of sound."""
    if begin == 0 and end == frame.samples:
        return frame
    wide = 1 if frame.format.is_planar else frame.layout.nb_channels
    data = frame.to_ndarray()[:, begin * wide : end * wide].copy()
    piece = av.AudioFrame.from_ndarray(data, format=frame.format.name, layout=frame.layout.name)
    piece.sample_rate, piece.time_base, piece.pts = frame.sample_rate, frame.time_base, frame.pts
    return piece


def _nearest(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))
