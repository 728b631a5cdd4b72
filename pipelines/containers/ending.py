"""Whether a file ends where its structure says: the evidence against a header that declares more than was decoded.

Containers nest pieces that declare their size. A file whose last piece ends with the file has lost nothing, whatever
length its header declares; one whose last piece would go on was cut.
"""

from __future__ import annotations

from typing import IO, Any

from pipelines.containers.boxes import Path, boxes, opened

_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675  # Matroska, RFC 9559
TS_LOOK = 188 << 13  # bytes of a transport stream
_FLV_TAGS = (8, 9, 18)  # sound, video, script data
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # GUID of the file properties object


def whole(path: Path, container: Any, stream: Any) -> bool | None:
    """True if the file ends as it should, False if it was cut, None if its structure does not tell."""
    name = container.format.name
    with opened(path) as (file, size):
        if "mp4" in name:
            return _mp4(file, size, stream)
        if "matroska" in name:
            return _matroska(file, size)
        if name == "avi":
            return _avi(file, size)
        if name == "flv":
            return flv_end_s(file, size) is not None
        if name == "asf":
            return _asf(file, size)
    return None


def _mp4(file: IO[bytes], size: int, stream: Any) -> bool:
    """Every sample that the index lists is in the file, and so is every box."""
    if any(entry.pos + entry.size > size for entry in stream.index_entries):
        return False
    at = 0
    for _, _, end, declared in boxes(file, 0, size):
        if declared > size:
            return False
        at = end
    return at == size


def _matroska(file: IO[bytes], size: int) -> bool:
    """Walks over the clusters; into those of unknown size, as live streams have."""
    at, end = 0, size
    while at < size:
        file.seek(at)
        head = file.read(12)
        kind, used = _number(head, 0, keep=True)
        length, more = _number(head, used)
        if not used or not more:
            return False
        begin = at + used + more
        unknown = length == (1 << 7 * more) - 1
        if kind == _SEGMENT and not unknown:
            end = begin + length
        if kind == _SEGMENT or unknown:
            at = begin
        else:
            at = begin + length
    return at == size and end <= size


def _number(data: bytes, at: int, keep: bool = False) -> tuple[int, int]:
    """(value, bytes) of a number of variable size (RFC 8794, 4); `keep` its marker, as in names. (0, 0): none."""
    if at >= len(data) or not data[at]:
        return 0, 0
    size = 9 - data[at].bit_length()
    if at + size > len(data):
        return 0, 0
    value = int.from_bytes(data[at : at + size], "big")
    return (value if keep else value & ((1 << 7 * size) - 1)), size


def _avi(file: IO[bytes], size: int) -> bool | None:
    """Every RIFF chunk, of which long files have several, and the list of the data within."""
    at = 0
    while at + 12 <= size:
        file.seek(at)
        head = file.read(12)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or not length:  # a size of 0: the recording was not closed
            return None
        at += 8 + length + length % 2
    return at - 1 <= size


def flv_end_s(file: IO[bytes], size: int) -> float | None:
    """Time stamp in seconds of the last tag; None if the file does not end with a whole one (Adobe FLV 10.1, E.3)."""
    if size < 24:
        return None
    file.seek(size - 4)
    length = int.from_bytes(file.read(4), "big")
    if not 11 <= length <= size - 13:
        return None
    file.seek(size - 4 - length)
    tag = file.read(11)
    if tag[0] & 31 not in _FLV_TAGS or int.from_bytes(tag[1:4], "big") + 11 != length:
        return None
    return int.from_bytes(tag[7:8] + tag[4:7], "big") / 1000


def _asf(file: IO[bytes], size: int) -> bool | None:
    """The size in the file's properties, unless it was a broadcast."""
    file.seek(0)
    head = file.read(1 << 16)
    at = head.find(_ASF_FILE)
    if at < 0 or len(head) < at + 92 or head[at + 88] & 1:
        return None
    return int.from_bytes(head[at + 40 : at + 48], "little") <= size


def ts_strangers(path: Path, at: int, known: frozenset[int]) -> bool:
    """Whether picture or sound begins after byte `at` of a transport stream in packets with other numbers than `known`."""
    with opened(path) as (file, _):
        file.seek(at)
        data = file.read(TS_LOOK)
    for place in range(0, len(data) - 187, 188):
        head = data[place : place + 188]
        if head[0] != 0x47:
            return False
        begin = 4 + (1 + head[4] if head[3] & 0x20 else 0)
        starts = head[1] & 0x40 and head[begin : begin + 3] == b"\0\0\1" and head[begin + 3 : begin + 4] >= b"\xc0"
        if starts and ((head[1] & 31) << 8 | head[2]) not in known:
            return True
    return False
