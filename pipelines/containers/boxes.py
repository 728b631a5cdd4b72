"""The index of mp4 and mov files (ISO 14496-12): tracks, their edit lists, and the samples' durations.

ffmpeg does not tell which parts of a track are shown, nor on what its durations rest, so the few boxes that do are read here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import IO

from store.place import Place, is_url, place

Path = str | os.PathLike[str] | Place
AHEAD = 64 << 10  # bytes that are read at a time from a bucket
MAX_TABLE = 64 << 20  # bytes of a table that is read; longer ones are left to ffmpeg
MAX_PARTS = 10_000  # of an edit list that are shown
SLACK_S = Fraction(1, 2)  # by which display may be later than the samples' durations tell
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
    in fragments; `offset` is the composition offset of the first in seconds, None without such a table; `parts` is empty
    without an edit list."""

    length: Fraction
    samples: int
    offset: Fraction | None
    parts: tuple[Part, ...]
    fragmented: bool

    @property
    def delay_s(self) -> Fraction:
        """Seconds before the track is shown for the first time."""
        return self.parts[0].start if self.parts else Fraction(0)

    @property
    def shown_s(self) -> Fraction | None:
        """Seconds from the first picture or sound that is shown to the end of the last; None where only the fragments tell."""
        if self.fragmented or not self.length:
            return None
        if not self.parts:
            return self.length
        end = self.length + (self.offset or 0)
        last = self.parts[-1]
        length = last.length if last.length <= end - last.media + SLACK_S else max(end - last.media, Fraction(0))
        return last.start + length - self.delay_s


def tracks(path: Path) -> dict[int, Track]:
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
            break
    return found


def fragments_s(path: Path, number: int) -> Fraction | None:
    """End of a fragmented track, in seconds from its first fragment; None if it cannot be read. A fragment's time and the
    durations in it: ISO 14496-12, 8.8.12 and 8.8.8."""
    if is_url(path):  # each fragment would take a request
        return None
    scale, common, first, last = 0, 0, None, 0
    with opened(path) as (file, size):
        for name, begin, end, _ in boxes(file, 0, size):
            if name == b"moov":
                scale, common = _fragment_defaults(file, begin, end, number)
            for inner, at, stop, _ in boxes(file, begin, end) if name == b"moof" else ():
                if inner == b"traf" and (span := _fragment(file, at, stop, number, common)) is not None:
                    first = span[0] if first is None else first
                    last = max(last, span[1])
    return Fraction(last - first, scale) if scale and first is not None else None


def _fragment_defaults(file: IO[bytes], begin: int, end: int, number: int) -> tuple[int, int]:
    """(ticks per second, duration of a sample in ticks) of a fragmented track."""
    scale = common = 0
    for name, at, stop, _ in boxes(file, begin, end):
        if name == b"trak":
            table = _tables(file, at, stop)
            if _number(table) == number:
                scale = _scale(table.get(b"mdhd", b""))
        for inner, inside, last, _ in boxes(file, at, stop) if name == b"mvex" else ():
            data = _read(file, inside, last) if inner == b"trex" else b""
            if int.from_bytes(data[4:8], "big") == number:
                common = int.from_bytes(data[12:16], "big")
    return scale, common


def _fragment(file: IO[bytes], begin: int, end: int, number: int, common: int) -> tuple[int, int] | None:
    """(start, end) in ticks of the samples in a track fragment; None if it is another track's, or has no time."""
    start, total, each, mine = None, 0, common, False
    for name, at, stop, _ in boxes(file, begin, end):
        data = _read(file, at, stop) if name in (b"tfhd", b"tfdt", b"trun") else b""
        flags = int.from_bytes(data[1:4], "big")
        if name == b"tfhd":
            mine = int.from_bytes(data[4:8], "big") == number
            skip = 8 + (8 if flags & 1 else 0) + (4 if flags & 2 else 0)
            each = int.from_bytes(data[skip : skip + 4], "big") if flags & 8 else common
        elif name == b"tfdt":
            start = int.from_bytes(data[4:12] if data[:1] == b"\1" else data[4:8], "big")
        elif name == b"trun":
            count = int.from_bytes(data[4:8], "big")
            if not flags & 0x100:
                total += count * each
                continue
            at, row = 8 + 4 * ((flags & 1) + (flags >> 2 & 1)), 4 * (flags >> 8 & 15).bit_count()
            total += sum(int.from_bytes(data[k : k + 4], "big") for k in range(at, len(data) - row + 1, row))
    return (start, start + total) if mine and start is not None else None


@contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """A file, local or in a bucket, as a binary file, and its size in bytes."""
    if is_url(path):
        there = place(path).open()
        with there.file(AHEAD) as file:
            yield file, there.size
    else:
        with open(path, "rb") as file:  # type: ignore[arg-type]
            yield file, file.seek(0, 2)


def boxes(file: IO[bytes], at: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
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


def _read(file: IO[bytes], begin: int, end: int) -> bytes:
    if end - begin > MAX_TABLE:
        return b""
    file.seek(begin)
    return file.read(end - begin)


def _scale(data: bytes) -> int:
    """Ticks per second in mvhd or mdhd."""
    at = 20 if data[:1] == b"\1" else 12
    return int.from_bytes(data[at : at + 4], "big")


def _track(file: IO[bytes], begin: int, end: int, movie: int) -> tuple[int, Track]:
    """(number, track); `movie` ticks per second of the file's own clock."""
    table = _tables(file, begin, end)
    number = _number(table)
    scale = _scale(table.get(b"mdhd", b""))
    ticks = samples = 0
    stts = table.get(b"stts", b"")
    for count, delta in struct.iter_unpack(">II", stts[8 : len(stts) // 8 * 8]):
        samples += count
        ticks += count * delta
    length = Fraction(ticks, scale) if scale else Fraction(0)
    parts = tuple(_parts(table.get(b"elst", b""), movie, scale))
    offset = (
        Fraction(int.from_bytes(table[b"ctts"][12:16], "big", signed=True), scale or 1) if b"ctts" in table else None
    )
    return number, Track(length, samples, offset, parts, False)


def _tables(file: IO[bytes], begin: int, end: int, depth: int = len(_PARENTS)) -> dict[bytes, bytes]:
    """The contents of a track's boxes that are used here; of ctts the first entry."""
    table: dict[bytes, bytes] = {}
    for name, at, stop, _ in boxes(file, begin, end):
        if name in _PARENTS and depth:
            table |= _tables(file, at, stop, depth - 1)
        elif name in (b"tkhd", b"mdhd", b"elst", b"stts"):
            table[name] = _read(file, at, stop)
        elif name == b"ctts":
            file.seek(at)
            table[name] = file.read(16)
    return table


def _number(table: dict[bytes, bytes]) -> int:
    """A track's number, from its header."""
    head = table.get(b"tkhd", b"")
    at = 20 if head[:1] == b"\1" else 12
    return int.from_bytes(head[at : at + 4], "big")


def _parts(data: bytes, movie: int, scale: int) -> Iterator[Part]:
    """The parts of an edit list (ISO 14496-12, 8.6.6), empty edits counted but left out."""
    if not movie or not scale:
        return
    form = ">QqI" if data[:1] == b"\1" else ">IiI"
    size = struct.calcsize(form)
    start = Fraction(0)
    count = min((len(data) - 8) // size, MAX_PARTS)
    for length, media, _ in struct.iter_unpack(form, data[8 : 8 + count * size]):
        if media >= 0:
            yield Part(start, Fraction(media, scale), Fraction(length, movie))
        start += Fraction(length, movie)
