"""Boxes of MP4 files (ISO 14496-12): edit lists and durations, set to what people's tools write."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

CONTAINERS = {b"moov", b"trak", b"mdia", b"edts"}


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of each box."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        head = 8
        if size == 1:
            size, head = struct.unpack(">Q", data[at + 8 : at + 16])[0], 16
        yield kind, data[at + head : at + size]
        at += size


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def rewritten(data: bytes, change: Callable[[bytes, bytes], bytes | None]) -> bytes:
    """All boxes, with contents as `change(type, content)` gives them (None: the box is dropped); inside `CONTAINERS`
    first."""
    out = []
    for kind, content in boxes(data):
        inner = rewritten(content, change) if kind in CONTAINERS else content
        new = change(kind, inner)
        if new is not None:
            out.append(box(kind, new))
    return b"".join(out)


def set_edits(path: Path, pieces: list[tuple[float, float]]) -> None:
    """Give every track of a file whose index is behind its data the edit list `pieces`: (seconds, start in the media in
    seconds; -1 = empty)."""
    data = path.read_bytes()
    parts = list(boxes(data))
    assert [kind for kind, _ in parts][-1] == b"moov", "the index must be behind the data"
    moov = parts[-1][1]
    scale = _timescale(dict(boxes(moov))[b"mvhd"])
    total = round(sum(length for length, _ in pieces) * scale)

    def track(content: bytes) -> bytes:
        inside = dict(boxes(content))
        media = _timescale(dict(boxes(inside[b"mdia"]))[b"mdhd"])
        entries = [
            struct.pack(">IiI", round(length * scale), -1 if start < 0 else round(start * media), 1 << 16)
            for length, start in pieces
        ]
        edts = box(b"edts", box(b"elst", struct.pack(">II", 0, len(entries)) + b"".join(entries)))
        head = inside[b"tkhd"]
        assert head[0] == 0, "a box of version 1"
        head = head[:20] + struct.pack(">I", total) + head[24:]
        others = [box(k, c) for k, c in boxes(content) if k not in (b"tkhd", b"edts")]
        return box(b"tkhd", head) + edts + b"".join(others)

    new = []
    for kind, content in boxes(moov):
        if kind == b"mvhd":
            assert content[0] == 0, "a box of version 1"
            content = content[:16] + struct.pack(">I", total) + content[20:]
        new.append(box(kind, track(content) if kind == b"trak" else content))
    path.write_bytes(data[: len(data) - len(moov) - 8] + box(b"moov", b"".join(new)))


def set_durations(path: Path, factor: float) -> None:
    """Multiply the durations in the headers of movie, tracks and media; the sample tables stay true."""
    data = path.read_bytes()
    at = {b"mvhd": 16, b"tkhd": 20, b"mdhd": 16}

    def change(kind: bytes, content: bytes) -> bytes:
        if kind not in at:
            return content
        assert content[0] == 0, "a box of version 1"
        k = at[kind]
        told = round(struct.unpack(">I", content[k : k + 4])[0] * factor)
        return content[:k] + struct.pack(">I", told) + content[k + 4 :]

    path.write_bytes(rewritten(data, change))


def _timescale(head: bytes) -> int:
    assert head[0] == 0, "a box of version 1"
    return int(struct.unpack(">I", head[12:16])[0])


def show_all(path: Path, starts: list[int]) -> None:
    """Replace each track's edit list, in place, by one piece that shows all of its media from `starts` (ticks of the media)."""
    data = bytearray(path.read_bytes())
    at = 0
    for start in starts:
        at = data.index(b"elst", at) + 4
        data[at + 4 : at + 20] = struct.pack(">IIiI", 1, 12_000, start, 1 << 16)
    path.write_bytes(data)
