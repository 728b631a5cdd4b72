"""Edit lists of mp4 and mov: which parts of a track are shown, and when.

ffmpeg applies lists of one part exactly. At the joints of several parts it loses pictures and sound by up to the depth of
B-frames, so such tracks are read here without its help (`ignore_editlist`), a part at a time, and cut to the sample.
The same goes for files with B-frames but no composition offsets: their list hides the first pictures, because it counts
from the offset that is missing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, BinaryIO

import av

from pipelines.media.files import Media, round_half_up
from store.place import is_url, place

Steps = Iterator[tuple[Any, list[Any]]]  # (packet, frames); None as packet at the end
UNEDITED = {"ignore_editlist": "1"}  # ffmpeg's option that gives a track on its own clock
MAX_TABLE = 64 << 20  # bytes of a table that is read; longer ones are left to ffmpeg
PREROLL_S = Fraction(1)  # decoded before a part: seeking goes by decoding stamps, and sound needs a settled decoder
_PARENTS = frozenset((b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl"))


@dataclass(frozen=True)
class Part:
    """A part of a track: shown from `start` on, for `length`, from `media` on the track's own clock; all in seconds.
    `length` 0 = to the end (fragmented files)."""

    start: Fraction
    media: Fraction
    length: Fraction


@dataclass(frozen=True)
class Track:
    """What the file's index says of a track. `length` is the sum of its samples' durations in seconds, 0 where they are
    in fragments; `offsets`: there are composition offsets; `parts` is empty without an edit list."""

    length: Fraction
    samples: int
    offsets: bool
    parts: tuple[Part, ...]
    fragmented: bool

    @property
    def delay_s(self) -> Fraction:
        """Seconds before the track is shown for the first time."""
        return self.parts[0].start if self.parts else Fraction(0)

    @property
    def shown_s(self) -> Fraction | None:
        """Seconds that the track is shown; None where only the fragments tell."""
        if self.fragmented or not self.length:
            return None
        if not self.parts:
            return self.length
        return sum((max(min(p.length, self.length - p.media), Fraction(0)) for p in self.parts), Fraction(0))


def tracks(path: Media) -> dict[int, Track]:
    """The tracks of an mp4 or mov file by their number (ffmpeg's `stream.id`); empty where they cannot be read."""
    found: dict[int, Track] = {}
    with opened(path) as (file, size):
        for name, begin, end, _ in boxes(file, 0, size):
            if name != b"moov":
                continue
            movie, fragmented = 0, False
            traks = []
            for inner, at, stop, _ in boxes(file, begin, end):
                if inner == b"mvhd":
                    movie = _scale(_read(file, at, stop))
                fragmented |= inner == b"mvex"
                if inner == b"trak":
                    traks.append((at, stop))
            for at, stop in traks:
                number, track = _track(file, at, stop, movie)
                found[number] = replace(track, fragmented=fragmented)
    return found


@contextmanager
def opened(path: Media) -> Iterator[tuple[BinaryIO, int]]:
    """A file, local or in a bucket, as a binary file, and its size in bytes."""
    if is_url(path):
        there = place(path).open()
        with there.file() as file:
            yield file, there.size
    else:
        with open(path, "rb") as file:  # type: ignore[arg-type]
            yield file, file.seek(0, 2)


def boxes(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Each box (ISO 14496-12, 4.2) that begins between `at` and `end`: its name, where its contents begin and end, and
    where it says that it ends."""
    while at + 8 <= end:
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return
        size, begin = int.from_bytes(head[:4], "big"), at + 8
        if size == 1 and len(head) == 16:
            size, begin = int.from_bytes(head[8:], "big"), at + 16
        size = size or end - at
        if size < begin - at:
            return
        yield head[4:8], begin, min(at + size, end), at + size
        at += size


def _read(file: BinaryIO, begin: int, end: int) -> bytes:
    if end - begin > MAX_TABLE:
        return b""
    file.seek(begin)
    return file.read(end - begin)


def _scale(data: bytes) -> int:
    """Ticks per second in mvhd or mdhd."""
    at = 20 if data[:1] == b"\1" else 12
    return int.from_bytes(data[at : at + 4], "big")


def _track(file: BinaryIO, begin: int, end: int, movie: int) -> tuple[int, Track]:
    """(number, track); `movie` ticks per second of the file's own clock."""
    table: dict[bytes, bytes] = {}

    def collect(at: int, stop: int) -> None:
        for name, inner, last, _ in boxes(file, at, stop):
            if name in _PARENTS:
                collect(inner, last)
            elif name in (b"tkhd", b"mdhd", b"elst", b"stts"):
                table[name] = _read(file, inner, last)
            elif name == b"ctts":
                table[name] = b"there"

    collect(begin, end)
    head = table.get(b"tkhd", b"")
    at = 20 if head[:1] == b"\1" else 12
    number = int.from_bytes(head[at : at + 4], "big")
    scale = _scale(table.get(b"mdhd", b""))
    ticks = samples = 0
    stts = table.get(b"stts", b"")
    for count, delta in struct.iter_unpack(">II", stts[8 : len(stts) // 8 * 8]):
        samples += count
        ticks += count * delta
    length = Fraction(ticks, scale) if scale else Fraction(0)
    parts = tuple(_parts(table.get(b"elst", b""), movie, scale))
    return number, Track(length, samples, b"ctts" in table, parts, False)


def _parts(data: bytes, movie: int, scale: int) -> Iterator[Part]:
    """The parts of an edit list (ISO 14496-12, 8.6.6), empty edits counted but left out."""
    if not movie or not scale:
        return
    form = ">QqI" if data[:1] == b"\1" else ">IiI"
    size = struct.calcsize(form)
    start = Fraction(0)
    for length, media, _ in struct.iter_unpack(form, data[8 : 8 + (len(data) - 8) // size * size]):
        if media >= 0:
            yield Part(start, Fraction(media, scale), Fraction(length, movie))
        start += Fraction(length, movie)


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
    plain = bool(depth and not track.offsets and track.parts[0].media and shuffled())
    if plain:
        # Without offsets, decoding stamps stand for display's, which are later by the decoder's delay.
        delay = depth * track.length / max(track.samples, 1)
        parts = tuple(replace(p, media=max(p.media - delay, Fraction(0))) for p in track.parts)
        return Cut(parts, True)
    return Cut(track.parts) if len(track.parts) > 1 else None


def cut(steps: Callable[[], Steps], container: Any, stream: Any, parts: tuple[Part, ...]) -> Steps:
    """(packet, frames) on the file's clock, of each part in turn. `steps()` decodes on the track's own clock, from where
    the container stands.

    Frames are cut at the borders: pictures in time, sound in samples.
    """
    base = stream.time_base
    choose = _pictures if stream.type == "video" else _sounds
    depth = stream.codec_context.reorder_depth if stream.type == "video" else 0
    for part in parts:
        container.seek(int(max(part.media - PREROLL_S, Fraction(0)) / base), stream=stream)
        if depth:
            stream.codec_context.reorder_depth = depth  # seeking resets it, and pictures would be dropped
        yield from choose(steps(), part, base)
    yield None, []


def _pictures(steps: Steps, part: Part, base: Fraction) -> Steps:
    """Pictures of a part; the one on display at its beginning starts there."""
    begin, end = part.media / base, (part.media + part.length) / base
    start = round_half_up(part.start / base)
    before: Any = None  # the last picture that starts no later than the part
    for packet, frames in steps:
        given = []
        for frame in frames:
            if frame.pts is None:
                continue
            if frame.pts <= begin:
                before = frame
                continue
            if before is not None:
                given.append(_moved(before, start, round_half_up(begin), end))
                before = None
            if frame.pts >= end:
                yield packet, given
                return
            given.append(_moved(frame, start + frame.pts - round_half_up(begin), frame.pts, end))
        if packet is not None or given:
            yield packet, given
    if before is not None and (not before.duration or before.pts + before.duration > begin):
        yield None, [_moved(before, start, round_half_up(begin), end)]


def _moved(frame: Any, stamp: int, media: int, end: Fraction) -> Any:
    """A picture from `media` on its track's clock, shown from `stamp` on the file's, at most until `end`."""
    if frame.duration:
        frame.duration = max(min(frame.pts + frame.duration, round_half_up(end)) - media, 1)
    frame.pts = stamp
    return frame


def _sounds(steps: Steps, part: Part, base: Fraction) -> Steps:
    """Sound of a part, cut to the sample."""
    for packet, frames in steps:
        given = []
        for frame in frames:
            if frame.pts is None or not frame.samples:
                continue
            rate, time = frame.sample_rate, frame.pts * base
            if time >= part.media + part.length:
                yield packet, given
                return
            skip = max(round_half_up((part.media - time) * rate), 0)
            stop = min(round_half_up((part.media + part.length - time) * rate), frame.samples)
            if skip < stop:
                piece = _samples(frame, skip, stop)
                piece.pts = round_half_up((part.start + time + Fraction(skip, rate) - part.media) / base)
                given.append(piece)
        if packet is not None or given:
            yield packet, given


def _samples(frame: Any, begin: int, end: int) -> Any:
    """Samples begin to end of a frame of sound."""
    if begin == 0 and end == frame.samples:
        return frame
    wide = 1 if frame.format.is_planar else frame.layout.nb_channels
    data = frame.to_ndarray()[:, begin * wide : end * wide].copy()
    piece = av.AudioFrame.from_ndarray(data, format=frame.format.name, layout=frame.layout.name)
    piece.sample_rate, piece.time_base = frame.sample_rate, frame.time_base
    return piece
