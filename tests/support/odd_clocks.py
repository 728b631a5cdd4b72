"""Files whose clocks and headers are odd, made from good ones by changing their bytes: joined, shifted, cut by edit lists,
or lying about their length."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

PICTURE, SOUND = 0xE0, 0xC0  # kinds of MPEG streams, by the first half of their number
CLUSTER, CUES, SEGMENT = (bytes.fromhex(x) for x in ("1f43b675", "1c53bb6b", "18538067"))


def ts_moved(
    data: bytes, ticks: int, kind: int | None = None, which: Callable[[int], bool] = lambda number: True
) -> bytes:
    """A transport stream whose time stamps are `ticks` of 90 kHz later, modulo 2 ** 33: of all streams, or of one kind's
    packets `which` says by number."""
    out, seen = bytearray(data), dict[int, int]()
    for at in range(0, len(out) - 187, 188):
        pid = (out[at + 1] & 31) << 8 | out[at + 2]
        begin, payload = at + 4, out[at + 3] >> 4 & 3
        if payload & 2:
            if out[begin] and out[begin + 1] & 16 and kind is None:
                clock = int.from_bytes(out[begin + 2 : begin + 7], "big") >> 7
                rest = out[begin + 6] & 127
                moved = ((clock + ticks) % (1 << 33)) << 7 | rest
                out[begin + 2 : begin + 7] = moved.to_bytes(5, "big")
            begin += 1 + out[begin]
        if out[at + 1] & 64 and out[begin : begin + 3] == b"\0\0\1" and out[begin + 3] >= SOUND:
            number = seen[pid] = seen.get(pid, -1) + 1
            if kind in (None, out[begin + 3] & 0xF0) and which(number):
                flags = out[begin + 7] >> 6
                for place in ([begin + 9] if flags & 2 else []) + ([begin + 14] if flags == 3 else []):
                    out[place : place + 5] = _stamp(out[place : place + 5], ticks)
    return bytes(out)


def _stamp(b: bytes, ticks: int) -> bytes:
    """The five bytes of a time stamp (ISO 13818-1, 2.4.3.6), moved."""
    now = (b[0] >> 1 & 7) << 30 | b[1] << 22 | (b[2] >> 1) << 15 | b[3] << 7 | b[4] >> 1
    now = (now + ticks) % (1 << 33)
    parts = b[0] & 0xF1 | (now >> 30 & 7) << 1, now >> 22 & 255, (now >> 15 & 127) << 1 | 1, now >> 7 & 255
    return bytes([*parts, (now & 127) << 1 | 1])


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, whole box) of an mp4's boxes at the top."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at : at + size]
        at += size


def box(name: bytes, contents: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(contents), name) + contents


def with_lists(mp4: bytes, lists: Sequence[Sequence[tuple[int, int]]]) -> bytes:
    """An mp4 or mov, its index last, with other edit lists: per track (length in ms, media time in the track's ticks)."""
    *front, (name, index) = boxes(mp4)
    assert name == b"moov"
    made, left = b"", iter(lists)
    for inner, whole in boxes(index[8:]):
        if inner == b"trak":
            entries = next(left)
            rows = b"".join(struct.pack(">IiI", length, media, 1 << 16) for length, media in entries)
            edits = box(b"edts", box(b"elst", struct.pack(">II", 0, len(entries)) + rows))
            kept = [(n, b) for n, b in boxes(whole[8:]) if n != b"edts"]
            whole = box(b"trak", b"".join(b + (edits if n == b"tkhd" else b"") for n, b in kept))
        made += whole
    return b"".join(b for _, b in front) + box(b"moov", made)


def without(mp4: bytes, name: bytes) -> bytes:
    """An mp4 whose boxes of this name are hidden; their bytes stay."""
    return mp4.replace(name, b"free")


def declaring(mp4: bytes, factor: float, names: Sequence[bytes] = (b"mvhd", b"tkhd", b"mdhd")) -> bytes:
    """An mp4 whose headers declare `factor` times their length (boxes of version 0)."""
    out = bytearray(mp4)
    for name in names:
        at = -1
        while (at := out.find(name, at + 1)) >= 0:
            place = at + {b"mvhd": 20, b"mdhd": 20, b"tkhd": 24}[name]
            length = int.from_bytes(out[place : place + 4], "big")
            out[place : place + 4] = min(round(length * factor), (1 << 32) - 1).to_bytes(4, "big")
    return bytes(out)


def mkv_declaring(mkv: bytes, factor: float = 1.0, tag: bytes = b"") -> bytes:
    """A Matroska file whose segment declares `factor` times its length, and whose tags begin with `tag` ("HH:MM:SS.")."""
    out = bytearray(mkv)
    at = out.index(bytes.fromhex("448988")) + 3
    out[at : at + 8] = struct.pack(">d", struct.unpack(">d", out[at : at + 8])[0] * factor)
    while tag and (at := out.find(b"00:00:", at + 1)) >= 0:
        out[at : at + len(tag)] = tag
    return bytes(out)


def mkv_live(mkv: bytes) -> bytes:
    """A Matroska file whose segment has no size, as live streams have."""
    at = mkv.index(SEGMENT) + 4
    return mkv[:at] + b"\x01" + b"\xff" * 7 + mkv[at + 8 :]


def mkv_joined(*parts: bytes) -> bytes:
    """The clusters of Matroska files after the header of the first: the clock starts again at each."""
    first = parts[0][: parts[0].index(CLUSTER)]
    return mkv_live(first) + b"".join(p[p.index(CLUSTER) : p.rindex(CUES)] for p in parts)


def flv_joined(*parts: bytes) -> bytes:
    """FLV files, one after the other."""
    return parts[0] + b"".join(p[13:] for p in parts[1:])


def avi_without_index(avi: bytes) -> bytes:
    """An AVI file without its index."""
    out = bytearray(avi[: avi.rindex(b"idx1")])
    out[4:8] = (len(out) - 8).to_bytes(4, "little")
    return bytes(out)


def avi_declaring(avi: bytes, pictures: int) -> bytes:
    """An AVI file that declares another number of pictures."""
    out = bytearray(avi)
    for name, place in ((b"avih", 16), (b"strh", 32)):
        at = out.index(name) + 8 + place
        out[at : at + 4] = pictures.to_bytes(4, "little")
    return bytes(out)
