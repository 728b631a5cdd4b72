"""What the index of an mp4 or mov file claims, before ffmpeg makes its own index of it.

ffmpeg keeps an entry per sample (24 to 40 bytes) from the moment a file is opened, and some tables name millions of
samples in twelve bytes: samples of one size, the samples of a fragment, a list that shows the same part again and again,
a compressed index. So the claims are added up here, from the heads of the boxes alone.
"""

from __future__ import annotations

import io
import struct
import zlib
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

from pipelines.containers.boxes import MAX_TABLE, boxes

MOST = 10_000_000  # entries in ffmpeg's index: six hours of 60 pictures, 100 sounds and 300 captions a second
FEW = 1_500_000  # so many are always accepted: a file that was cut is named as such later
MOST_BOXES = 1_000_000  # six hours in fragments of a tenth of a second
CHUNK = 1024  # samples of uncompressed sound that take one entry
DEPTH = 8
_INSIDE = frozenset(b"moov trak mdia minf dinf stbl edts udta tref mvex moof traf cmov".split())
_WIDTH = {b"stsz": 4, b"stz2": 0, b"stts": 8, b"ctts": 8, b"stsc": 12, b"stco": 4, b"co64": 8, b"elst": 12, b"stss": 4}
_READ = frozenset((b"hdlr", b"mvhd", b"mdhd", b"trun", b"cmvd"))


@dataclass
class _Track:
    """What is read of a track, in the units of the file."""

    samples: int = 0
    sound: bool = False
    single: bool = False  # each sample lasts one tick: uncompressed sound
    chunks: int = 0
    scale: int = 0  # ticks per second
    groups: tuple[int, int] | None = None  # where stsc begins and ends
    times: tuple[int, int] | None = None  # the same of stts
    edits: tuple[int, int] | None = None  # of elst
    keys: tuple[int, int] | None = None  # of stss


class _Excess(Exception):
    """The text says what there is too much of."""


def excess(file: IO[bytes], size: int, fragments: int = MOST_BOXES) -> str:
    """What the index claims too much of, in words that follow the file's name; "" if nothing, or if this is no mp4 or mov
    file. `fragments`: look no further than so many of them (where each costs a request)."""
    count = _Count(file, size, fragments)
    try:
        count.walk(file, 0, size, 0)
    except _Excess as found:
        return str(found)
    return ""


class _Count:
    def __init__(self, file: IO[bytes], size: int, fragments: int) -> None:
        self.size, self.entries = size, 0
        self.boxes, self.fragments = 0, fragments  # fragments: that are still looked at
        self.track, self.movie = _Track(), 0  # movie: ticks per second of the file's own clock

    def walk(self, file: IO[bytes], begin: int, end: int, depth: int) -> None:
        for name, at, stop, _ in boxes(file, begin, end):
            self.boxes += 1
            self.fragments -= name == b"moof"
            if self.boxes > MOST_BOXES:
                raise _Excess(f"has more than {MOST_BOXES} boxes")
            if self.fragments < 0:
                return
            if name == b"trak":
                self.track = _Track()
            if name in _INSIDE and depth < DEPTH:
                self.walk(file, at, stop, depth + 1)
            if name == b"trak":
                self.add(self._entries(file))
            elif name in _WIDTH or name in _READ:
                file.seek(at)
                self._read(file, name, at, stop, file.read(28), depth)

    def add(self, entries: int) -> None:
        self.entries += entries
        if self.entries > MOST or self.entries > max(FEW, self.size):
            raise _Excess(f"claims {self.entries} samples in {self.size} bytes")

    def _read(self, file: IO[bytes], name: bytes, at: int, stop: int, head: bytes, depth: int) -> None:
        track = self.track
        if name == b"cmvd":
            self._compressed(file, at, stop, depth)
            return
        if name == b"hdlr":
            track.sound = head[8:12] == b"soun" or (track.sound and head[8:12] != b"vide")
            return
        if name in (b"mvhd", b"mdhd"):
            scale = int.from_bytes(head[20:24] if head[:1] == b"\1" else head[12:16], "big")
            self.movie, track.scale = (scale, track.scale) if name == b"mvhd" else (self.movie, scale)
            return
        sized = name in (b"stsz", b"stz2")
        count = int.from_bytes(head[8:12] if sized else head[4:8], "big")
        if name == b"trun":
            self.add(count)
            return
        width = 0 if name == b"stsz" and any(head[4:8]) else _WIDTH[name]
        if count > FEW and count * width > stop - at:
            raise _Excess(f"claims a table of {count} entries in {stop - at} bytes")
        if sized:
            track.samples = max(track.samples, count)
        elif name == b"stts":
            track.single = count == 1 and head[12:16] == b"\0\0\0\1"
            track.times = at, stop
        elif name in (b"stco", b"co64"):
            track.chunks = max(track.chunks, count)
        elif name == b"stsc":
            track.groups = at, stop
        elif name == b"elst":
            track.edits = at, stop
        elif name == b"stss":
            track.keys = at, stop

    def _compressed(self, file: IO[bytes], begin: int, end: int, depth: int) -> None:
        """An index that QuickTime packed."""
        file.seek(begin)
        length = int.from_bytes(file.read(4), "big")
        if max(length, end - begin) > MAX_TABLE:
            raise _Excess(f"has a packed index of {length} bytes")
        try:
            data = zlib.decompressobj().decompress(file.read(end - begin - 4), length or 1)
        except zlib.error:
            return
        self.walk(io.BytesIO(data), 0, len(data), depth + 1)

    def _entries(self, file: IO[bytes]) -> int:
        """What the track takes in ffmpeg's index."""
        track = self.track
        if track.sound and track.single:
            return track.chunks + max(track.samples, self._grouped(file)) // CHUNK
        return max(track.samples, self._shown(file))

    def _grouped(self, file: IO[bytes]) -> int:
        """Samples in all chunks."""
        rows = _rows(file, self.track.groups, ">III")
        if not rows:
            return 0
        firsts = [*(min(first, self.track.chunks + 1) for first, _, _ in rows[1:]), self.track.chunks + 1]
        return sum(max(last - first, 0) * count for (first, count, _), last in zip(rows, firsts, strict=True))

    def _shown(self, file: IO[bytes]) -> int:
        """Samples that an edit list shows, each part with those from the key picture before it on."""
        track = self.track
        wide = _table(file, track.edits, 0)[:1] == b"\1"
        rows = _rows(file, track.edits, ">QqI" if wide else ">IiI")
        if len(rows) * track.samples <= FEW or not self.movie or not track.scale:
            return 0
        ticks, numbers = [0], [0]  # where the samples begin that last equally long
        for count, each in _rows(file, track.times, ">II"):
            ticks.append(ticks[-1] + count * each)
            numbers.append(numbers[-1] + count)

        def number(tick: int) -> int:
            """Samples that begin before a tick of the track's clock."""
            k = bisect_right(ticks, tick) - 1
            if k < 0 or k + 1 == len(ticks):
                return 0 if k < 0 else numbers[-1]
            return numbers[k] + (tick - ticks[k]) * (numbers[k + 1] - numbers[k]) // (ticks[k + 1] - ticks[k])

        back = self._furthest(file)
        return sum(
            number(media + length * track.scale // self.movie) - number(media) + back
            for length, media, _ in rows
            if media >= 0
        )

    def _furthest(self, file: IO[bytes]) -> int:
        """Samples between two key pictures, at most."""
        samples = self.track.samples
        if self.track.keys is None:
            return 1
        keys = [key for (key,) in _rows(file, self.track.keys, ">I")]
        return min(max(b - a for a, b in pairwise([1, *keys, samples + 1])), samples)


def _table(file: IO[bytes], where: tuple[int, int] | None, at: int) -> bytes:
    """The contents of a table from byte `at` on; b"" without one, or if it is too long to read."""
    if where is None or where[1] - where[0] > MAX_TABLE:
        return b""
    file.seek(where[0] + at)
    return file.read(where[1] - where[0] - at)


def _rows(file: IO[bytes], where: tuple[int, int] | None, form: str) -> list[tuple[int, ...]]:
    """The rows of a table that begins with its version and their count."""
    data, size = _table(file, where, 8), struct.calcsize(form)
    return list(struct.iter_unpack(form, data[: len(data) // size * size]))
